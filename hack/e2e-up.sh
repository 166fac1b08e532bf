#!/usr/bin/env bash
# Prepares the end-to-end suite: builds the operator and its image, starts the local cluster, loads the images, installs
# the operator and waits for it. With USE_EXISTING_CLUSTER=true it uses the cluster of KUBECONFIG instead.
# Prints what the suite needs as NAME=VALUE lines. Everything else goes to stderr.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
CACHE=${ETCD_WARDEN_CACHE:-$HOME/.cache/etcd-warden}
CLUSTER=hack/cluster/cluster.sh
OUT=$CACHE/test
mkdir -p "$OUT"

# operator_image NAME TAGS builds the operator and prints its image's tag, which names its content.
operator_image() {
  local binary=$OUT/etcd-warden-$1 tag
  CGO_ENABLED=0 go build -trimpath -tags "$2" -ldflags '-s -w -X main.Version=0.0.0-test' -o "$binary" ./cmd
  tag=ghcr.io/etcd-warden/etcd-warden:test-$(sha256sum "$binary" | cut -c1-12)
  "$IMAGES" operator --binary "$binary" --version 0.0.0 --tag "$tag" --out "$OUT/operator-$1.tar" >&2
  echo "$tag"
}

hack/build-tools.sh kubernetes kustomize images etcd-3.5 etcd-3.6 etcd-3.7 etcd-3.6.12 etcd-3.7.1
IMAGES=$(hack/build-tools.sh dir images)/images
BIN=$(hack/build-tools.sh dir kubernetes)
archives=() versions=()
for minor in 3.5 3.6 3.7; do
  dir=$(hack/build-tools.sh dir "etcd-$minor")
  versions+=("${dir##*-}")
  archives+=("$("$IMAGES" etcd --version "${dir##*-}")")
done
# Second patches of 3.6 and 3.7 for steps within a minor, with the clients of the first.
archives+=("$("$IMAGES" etcd --version 3.6.12 --clients "${versions[1]}")" "$("$IMAGES" etcd --version 3.7.1 --clients "${versions[2]}")")
[ -x /bin/busybox ] || { [ "$(id -u)" = 0 ] && apt-get install -y -qq busybox-static >&2; } || { echo "install busybox-static" >&2; exit 1; }
archives+=("$("$IMAGES" busybox)")
# Images for upgrades that fail: an etcd that ends where its volume says so, and one of another version than its tag.
archives+=("$("$IMAGES" failing-etcd --version "${versions[2]}")")
archives+=("$("$IMAGES" etcd --version "${versions[1]}" --tag gcr.io/etcd-development/etcd:v3.7.99)")
operator=$(operator_image plain "")
archives+=("$OUT/operator-plain.tar")
crashing=$(operator_image failpoints failpoints)
archives+=("$OUT/operator-failpoints.tar")

"$CLUSTER" up >&2
eval "$("$CLUSTER" env)"
"$CLUSTER" load "${archives[@]}" >&2
make -s deploy IMG="$operator" >&2
kubectl wait --for=condition=Established --timeout=60s crd/etcdclusters.operator.etcd-warden.io >&2
kubectl -n etcd-warden-system scale deployment/etcd-warden-controller-manager --replicas=1 >&2
kubectl -n etcd-warden-system rollout status deployment/etcd-warden-webhook --timeout=180s >&2
kubectl -n etcd-warden-system rollout status deployment/etcd-warden-controller-manager --timeout=180s >&2

cat <<VALUES
KUBECONFIG=$KUBECONFIG
KUBECTL=$BIN/kubectl
OPERATOR_IMAGE=$operator
CRASHING_IMAGE=$crashing
SHELL_IMAGE=localhost/busybox:1
ETCD_VERSIONS=${versions[*]}
ETCD_SECOND_PATCHES=3.6.12 3.7.1
FAILING_ETCD_TAG=v${versions[2]}-failing
MISLABELLED_ETCD_VERSION=3.7.99
VALUES
