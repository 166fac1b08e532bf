#!/usr/bin/env bash
# Prepares the OLM suite, and cleans up after it.
#
#   olm.sh up     start the local cluster with Operator Lifecycle Manager in it. Put the operator's images and bundles
#                 into the cluster's registry under their real names. Print NAME=VALUE lines for the suite;
#                 the rest goes to stderr
#   olm.sh down   remove the operator, its CRDs and every EtcdCluster; OLM stays
#
# The suite needs three releases, PREVIOUS, CURRENT and NEXT; each replaces the one before it:
#   with an earlier release   the newest of catalog/releases.yaml before the work tree's, the work tree's,
#                             and one derived from it
#   with none                 the work tree's, and two derived from it
# An earlier release is built from its commit. A derived one has the work tree's code and bundle, and the next patch
# version.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
CACHE=${ETCD_WARDEN_CACHE:-$HOME/.cache/etcd-warden}
CLUSTER=hack/cluster/cluster.sh
REPOSITORY=ghcr.io/etcd-warden/etcd-warden
OUT=$CACHE/test/olm
mkdir -p "$OUT"

# build_release VERSION [COMMIT] builds the operator of a release from its commit or the work tree, and pushes its
# image.
build_release() {
  local binary=$OUT/etcd-warden-$1
  if [ -z "${2:-}" ]; then
    compile "$1" "$binary"
  else
    binary=$CACHE/release/$2/etcd-warden
    [ -x "$binary" ] || compile_commit "$1" "$2" "$binary"
  fi
  push operator --binary "$binary" --version "$1"
}
compile() { CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags "-s -w -X main.Version=$1" -o "$2" ./cmd; }
compile_commit() { # VERSION COMMIT BINARY
  echo "building release $1 from $2 (once)" >&2
  local tree; tree=$(mktemp -d)
  git worktree add --quiet --detach "$tree" "$2" >&2
  mkdir -p "$(dirname "$3")"
  (cd "$tree" && compile "$1" "$3.new") || { git worktree remove --force "$tree"; return 1; }
  git worktree remove --force "$tree"
  mv "$3.new" "$3"
}

# push KIND FLAG... builds an image and pushes it.
push() { "$IMAGES" "$@" --push "$REGISTRY" >&2; }
push_bundle() { push bundle --dir "$2" --tag "$REPOSITORY-bundle:v$1" --out "$OUT/bundle-$1.tar"; } # VERSION DIR

# forget removes the operator's images from the nodes: an earlier run may have left other content under the same names.
forget() {
  local node
  for node in 1 2 3; do
    ctr -a "$STATE/node-$node/containerd.sock" -n k8s.io images ls -q "name~=$REPOSITORY" |
      xargs -r ctr -a "$STATE/node-$node/containerd.sock" -n k8s.io images rm > /dev/null
  done
}

# derived_bundle VERSION BUNDLE NEXT DIR derives a bundle of version NEXT that replaces BUNDLE, which is VERSION.
derived_bundle() {
  rm -rf "$4"; cp -r "$2" "$4"
  sed -i -E "/^  replaces: /d; /^    olm.skipRange: /d; s/(etcd-warden[:.]v)${1//./\\.}\$/\1$3/; s/^  version: .*/  version: $3\n  replaces: etcd-warden.v$1/" \
    "$4/manifests/etcd-warden.clusterserviceversion.yaml"
}

# derived_catalog VERSION CATALOG NEXT BUNDLE DIR adds BUNDLE to every channel of CATALOG.
# BUNDLE is NEXT and replaces VERSION.
derived_catalog() {
  rm -rf "$5"; cp -r "$2" "$5"
  sed -i "s/^entries:\$/entries:\n- name: etcd-warden.v$3\n  replaces: etcd-warden.v$1/" "$5/catalog.yaml"
  { echo ---; "$OPM" render "$4" --migrate-level bundle-object-to-csv-metadata -o yaml | sed "s|^image: .*|image: $REPOSITORY-bundle:v$3|"; } >> "$5/catalog.yaml"
  "$OPM" validate "$5" >&2
}

# derive publishes one more release: it replaces the last of STORY, which it becomes, with the catalog CATALOG.
derive() {
  local last=${STORY[-1]} next
  next=${last%.*}.$((${last##*.} + 1))
  derived_bundle "$last" "$BUNDLE" "$next" "$OUT/bundle-$next"
  derived_catalog "$last" "$CATALOG" "$next" "$OUT/bundle-$next" "$OUT/catalog-$next"
  BUNDLE=$OUT/bundle-$next CATALOG=$OUT/catalog-$next
  build_release "$next"; push_bundle "$next" "$BUNDLE"
  STORY+=("$next")
}

# releases prints "VERSION COMMIT" of every release that was made, oldest first.
releases() { awk '$1 == "-" && $2 == "version:" {v = $3} $1 == "commit:" && $2 != "\"\"" {print v, $2}' catalog/releases.yaml; }

# push_operator_sdk pushes what `operator-sdk run bundle`, `run bundle-upgrade` and `scorecard` have pods run.
# Some of these names are in operator-sdk and cannot be chosen.
push_operator_sdk() {
  hack/build-tools.sh operator-sdk
  local sdk; sdk=$(hack/build-tools.sh dir operator-sdk)
  push opm --binaries "$(hack/build-tools.sh dir opm)" --tag registry.access.redhat.com/ubi9/ubi:9.7
  push scorecard --binaries "$sdk" --tag "$(sed -n 's/^ *image: //p' bundle/tests/scorecard/config.yaml | head -1)"
}

install_olm() {
  local crds
  crds=$(cd hack/tools/olm && go mod download github.com/operator-framework/api && go list -m -f '{{.Dir}}' github.com/operator-framework/api)/crds
  kubectl apply --server-side -f "$crds" >&2
  kubectl wait --for=condition=Established --timeout=60s -f "$crds" >&2
  kubectl apply --server-side -f hack/olm.yaml >&2
}

# remove removes the operator that an earlier run or the end-to-end suite left: it must not run beside OLM's.
# Without the webhook, objects must be read as they are stored: otherwise the CRD cannot be deleted.
remove() {
  local kind crd
  if kubectl get namespace etcd-warden-system > /dev/null 2>&1; then make -s undeploy >&2; fi
  for kind in subscriptions clusterserviceversions installplans operatorgroups catalogsources; do
    kubectl delete --all --all-namespaces --ignore-not-found "$kind.operators.coreos.com" >&2 2> /dev/null || true
  done
  for crd in $(kubectl get crd -o name | grep '[.]operator[.]etcd-warden[.]io$' || true); do
    kubectl patch "$crd" --type=merge -p '{"spec":{"conversion":{"strategy":"None","webhook":null}}}' >&2
    kubectl delete "$crd" >&2
  done
}

case "${1:-}" in
  up | down) ;;
  *) sed -n '2,/^set -euo/p' "$0" | sed '$d;s/^# \{0,1\}//'; exit 2 ;;
esac
[ "$1" = up ] || "$CLUSTER" status > /dev/null 2>&1 || exit 0 # there is nothing to remove
[ -x /bin/busybox ] || { [ "$(id -u)" = 0 ] && apt-get install -y -qq busybox-static >&2; } || { echo "install busybox-static" >&2; exit 1; }
hack/build-tools.sh kubernetes kustomize images olm opm etcd-3.6
IMAGES=$(hack/build-tools.sh dir images)/images
OPM=$(hack/build-tools.sh dir opm)/opm
"$CLUSTER" up >&2
eval "$("$CLUSTER" env)"
read -r REGISTRY SSL_CERT_FILE < <("$CLUSTER" registry)
export SSL_CERT_FILE
STATE=$(dirname "$KUBECONFIG")
remove
if [ "$1" = down ]; then exit; fi
forget

push olm --binaries "$(hack/build-tools.sh dir olm)"
push opm --binaries "$(hack/build-tools.sh dir opm)"
[ -z "${ETCD_WARDEN_TEST_FULL:-}" ] || push_operator_sdk
install_olm

etcd=$(hack/build-tools.sh dir etcd-3.6)
push etcd --version "${etcd##*-}"
TREE=$(sed -n 's/^  version: //p' bundle/manifests/etcd-warden.clusterserviceversion.yaml)
STORY=() # the releases, oldest first
while read -r version commit; do
  [ "$version" != "$TREE" ] || continue
  build_release "$version" "$commit"
  mkdir -p "$OUT/bundle-$version"; git archive "$commit" bundle | tar -x -C "$OUT/bundle-$version" --strip-components=1
  push_bundle "$version" "$OUT/bundle-$version"
  STORY+=("$version")
done < <(releases)
build_release "$TREE"; push_bundle "$TREE" bundle
STORY+=("$TREE") BUNDLE=bundle CATALOG=$PWD/catalog/etcd-warden
[ ${#STORY[@]} -gt 1 ] || derive
CURRENT_CATALOG=$CATALOG
derive
kubectl -n olm rollout status deployment/olm-operator --timeout=180s >&2
kubectl -n olm rollout status deployment/catalog-operator --timeout=180s >&2

cat <<VALUES
KUBECONFIG=$KUBECONFIG
KUBECTL=$(hack/build-tools.sh dir kubernetes)/kubectl
OPM=$OPM
OPERATOR_SDK=$(hack/build-tools.sh dir operator-sdk)/operator-sdk
IMAGES=$IMAGES
REGISTRY=$REGISTRY
REGISTRY_CA=$SSL_CERT_FILE
SHELL_IMAGE=localhost/olm:1
ETCD_VERSION=${etcd##*-}
PREVIOUS=${STORY[-3]}
CURRENT=${STORY[-2]}
NEXT=${STORY[-1]}
CATALOG=$CURRENT_CATALOG
NEXT_CATALOG=$CATALOG
VALUES
