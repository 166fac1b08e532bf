#!/usr/bin/env bash
# Generates bundle/ and bundle.Dockerfile of $VERSION with operator-sdk. The icon is docs/icon.svg.
# Running it again changes nothing.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
: "${VERSION:?which release?}"
REPOSITORY=${REPOSITORY:-ghcr.io/etcd-warden/etcd-warden}
CHANNELS=${CHANNELS:-candidate,stable,stable-v0}
DEFAULT_CHANNEL=${DEFAULT_CHANNEL:-stable}
SDK=$(hack/build-tools.sh dir operator-sdk)/operator-sdk
KUSTOMIZE=$(hack/build-tools.sh dir kustomize)/kustomize

for folder in manager webhook; do (cd config/$folder && "$KUSTOMIZE" edit set image "controller=$REPOSITORY:v$VERSION"); done
"$SDK" generate kustomize manifests -q --package etcd-warden --apis-dir api
sed -i "s|\(base64data: \).*|\1$(base64 -w0 docs/icon.svg)|" config/manifests/bases/etcd-warden.clusterserviceversion.yaml
rm -rf bundle
"$KUSTOMIZE" build config/manifests |
  "$SDK" generate bundle -q --overwrite --package etcd-warden --version "$VERSION" \
    --channels "$CHANNELS" --default-channel "$DEFAULT_CHANNEL"

# operator-sdk writes the current time. The date of the release is in the base.
created=$(sed -n 's/^ *createdAt: //p' config/manifests/bases/etcd-warden.clusterserviceversion.yaml)
sed -i "s/^\( *createdAt: \).*/\1$created/" bundle/manifests/etcd-warden.clusterserviceversion.yaml

# OLM creates this Service itself, for the Deployment of the webhook. Without the manifest the CRD alone names it.
rm bundle/manifests/etcd-warden-webhook-service_v1_service.yaml
