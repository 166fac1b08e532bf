#!/usr/bin/env bash
# Builds the images of the operator, the bundle and the catalog of $VERSION, for each architecture that the bundle has.
# It needs no Docker and publishes nothing. Each image is a folder in OCI's layout below $OUT.
# Prints "FOLDER NAME:TAG@DIGEST" lines. Building again gives the same digests.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
: "${VERSION:?which release?}"
REPOSITORY=${REPOSITORY:-ghcr.io/etcd-warden/etcd-warden}
OUT=${OUT:-${ETCD_WARDEN_CACHE:-$HOME/.cache/etcd-warden}/release/$VERSION}
IMAGES=$(hack/build-tools.sh dir images)/images
ARCHITECTURES=${ARCHITECTURES:-$(sed -nE 's/^ *operatorframework.io\/arch\.([a-z0-9]+): supported$/\1/p' config/manifests/bases/etcd-warden.clusterserviceversion.yaml)}
mkdir -p "$OUT"
WORK=$(mktemp -d "$OUT/.work-XXXXXX")
trap 'rm -rf "$WORK"' EXIT

# image NAME FLAG... builds one image for each architecture and joins them. @ARCH@ in a flag is the architecture.
image() {
  local name=$1 kind=$2 arch archives=() tag
  tag=$REPOSITORY${name#operator}:v$VERSION
  shift 2
  for arch in $ARCHITECTURES; do
    archives+=("$WORK/$kind-$arch.tar")
    "$IMAGES" "$kind" "${@//@ARCH@/$arch}" --tag "$tag" --arch "$arch" --out "$WORK/$kind-$arch.tar" > /dev/null
  done
  "$IMAGES" index --tag "$tag" --out "$OUT/$kind" "${archives[@]}"
}

for arch in $ARCHITECTURES; do
  echo "building the operator for $arch" >&2
  CGO_ENABLED=0 GOOS=linux GOARCH=$arch go build -trimpath -buildvcs=false -ldflags "-s -w -X main.Version=$VERSION" -o "$WORK/etcd-warden-$arch" ./cmd
done
mkdir -p "$WORK/configs"
cp -r catalog/etcd-warden "$WORK/configs/"
image operator operator --binary "$WORK/etcd-warden-@ARCH@" --version "$VERSION"
image -bundle bundle --dir bundle
image -catalog catalog --dir "$WORK/configs"
