#!/usr/bin/env bash
# The OLM suite's world.
#
#   olm.sh up     start the local cluster with Operator Lifecycle Manager in it, and put the operator's images and bundles
#                 into the cluster's registry under their real names: every release of catalog/releases.yaml built from its
#                 commit, the work tree's, and one after it, whose code is the same. Prints what the suite needs to know as
#                 NAME=VALUE lines; all else goes to stderr
#   olm.sh down   remove the operator, its CRDs and every EtcdCluster; OLM stays
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
CACHE=${ETCD_WARDEN_CACHE:-$HOME/.cache/etcd-warden}
CLUSTER=hack/cluster/cluster.sh
REPOSITORY=ghcr.io/etcd-warden/etcd-warden
OUT=$CACHE/test/olm
mkdir -p "$OUT"

# build_release VERSION [COMMIT] builds the operator of a release, from its commit or the work tree, pushes its image,
# and takes the one of the same name that an earlier run had nodes pull away from them.
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

# forget drops the operator's images from the nodes: those of an earlier run may have other content under the same name.
forget() {
  local node
  for node in 1 2 3; do
    ctr -a "$STATE/node-$node/containerd.sock" -n k8s.io images ls -q "name~=$REPOSITORY" |
      xargs -r ctr -a "$STATE/node-$node/containerd.sock" -n k8s.io images rm > /dev/null
  done
}

# next_release VERSION NEXT DIR derives a bundle that replaces the work tree's.
next_release() {
  rm -rf "$3"; cp -r bundle "$3"
  local csv=$3/manifests/etcd-warden.clusterserviceversion.yaml
  sed -i -E "/^  replaces: /d; /^    olm.skipRange: /d; s/(etcd-warden[:.]v)${1//./\\.}\$/\1$2/; s/^  version: .*/  version: $2\n  replaces: etcd-warden.v$1/" "$csv"
}

# next_catalog VERSION NEXT BUNDLE DIR puts the next release at the head of every channel.
next_catalog() {
  rm -rf "$4"; cp -r catalog/etcd-warden "$4"
  sed -i "s/^entries:\$/entries:\n- name: etcd-warden.v$2\n  replaces: etcd-warden.v$1/" "$4/catalog.yaml"
  { echo ---; "$OPM" render "$3" --migrate-level bundle-object-to-csv-metadata -o yaml | sed "s|^image: .*|image: $REPOSITORY-bundle:v$2|"; } >> "$4/catalog.yaml"
  "$OPM" validate "$4" >&2
}

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

# remove takes away what an earlier run, or the end-to-end suite, left of the operator: it must not meet OLM's.
# Without its webhook a CRD cannot be deleted with its objects: they are read as they are stored.
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

CURRENT=$(sed -n 's/^  version: //p' bundle/manifests/etcd-warden.clusterserviceversion.yaml)
NEXT=${CURRENT%.*}.$((${CURRENT##*.} + 1))
push olm --binaries "$(hack/build-tools.sh dir olm)"
push opm --binaries "$(hack/build-tools.sh dir opm)"
[ -z "${ETCD_WARDEN_TEST_FULL:-}" ] || push_operator_sdk
install_olm

etcd=$(hack/build-tools.sh dir etcd-3.6)
push etcd --version "${etcd##*-}"
while read -r version commit; do
  [ "$version" != "$CURRENT" ] || continue
  build_release "$version" "$commit"
  mkdir -p "$OUT/bundle-$version"; git archive "$commit" bundle | tar -x -C "$OUT/bundle-$version" --strip-components=1
  push_bundle "$version" "$OUT/bundle-$version"
  PREVIOUS=$version
done < <(awk '$1 == "-" && $2 == "version:" {version = $3} $1 == "commit:" {gsub(/"/, "", $2); print version, $2}' catalog/releases.yaml)
build_release "$CURRENT"; push_bundle "$CURRENT" bundle
next_release "$CURRENT" "$NEXT" "$OUT/bundle-$NEXT"
build_release "$NEXT"; push_bundle "$NEXT" "$OUT/bundle-$NEXT"
next_catalog "$CURRENT" "$NEXT" "$OUT/bundle-$NEXT" "$OUT/catalog-$NEXT"
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
PREVIOUS=${PREVIOUS:-}
CURRENT=$CURRENT
NEXT=$NEXT
CATALOG=$PWD/catalog/etcd-warden
NEXT_CATALOG=$OUT/catalog-$NEXT
VALUES
