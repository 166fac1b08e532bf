#!/usr/bin/env bash
# Shows a healthy etcd cluster to a newcomer:
#   1. builds what is missing, starts the local Kubernetes and installs the operator,
#   2. applies examples/cluster.yaml, and writes and reads a key through the client Service,
#   3. prints what to try next.
# With USE_EXISTING_CLUSTER=true it uses the cluster of KUBECONFIG. Its nodes must have the images then, unless it is a
# kind cluster.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
CLUSTER=hack/cluster/cluster.sh
NAMESPACE=demo

step() { printf '\n\033[1m== %s\033[0m\n' "$*"; }
run() { printf '\033[2m$ %s\033[0m\n' "$*"; "$@"; }

step "1/6 Building what is missing (the first time: about ten minutes, most of it Kubernetes)"
hack/build-tools.sh kubernetes kustomize images etcd-3.6
make --no-print-directory build

step "2/6 Starting Kubernetes"
$CLUSTER up
eval "$($CLUSTER env)"

step "3/6 Making the images and loading them on the nodes"
images=$(hack/build-tools.sh dir images)/images
$CLUSTER load "$("$images" operator --binary bin/etcd-warden --version "${VERSION:-$(sed -n 's/^VERSION ?= //p' Makefile)}")" "$("$images" etcd --version 3.6.16)"

step "4/6 Installing the operator"
make --no-print-directory deploy
run kubectl -n etcd-warden-system rollout status deployment/etcd-warden-webhook --timeout=180s
run kubectl -n etcd-warden-system rollout status deployment/etcd-warden-controller-manager --timeout=180s

step "5/6 Creating an etcd cluster of three"
kubectl create namespace $NAMESPACE --dry-run=client -o yaml | kubectl apply -f - >/dev/null
kubectl label namespace $NAMESPACE pod-security.kubernetes.io/enforce=restricted --overwrite >/dev/null
cat examples/cluster.yaml
run kubectl -n $NAMESPACE apply -f examples/cluster.yaml
run kubectl -n $NAMESPACE wait --for=condition=Available etcdcluster/example --timeout=300s

step "6/6 Writing and reading a key through the client Service"
tls=/etc/etcd/server # where a member's certificate is mounted
etcdctl() {
  run kubectl -n $NAMESPACE exec example-0-0 -- etcdctl --endpoints=https://example-client.$NAMESPACE.svc:2379 \
    --cacert=$tls/ca.crt --cert=$tls/tls.crt --key=$tls/tls.key "$@"
}
etcdctl put greeting "hello from etcd-warden"
etcdctl get greeting
run kubectl -n $NAMESPACE get etcdcluster,pods,persistentvolumeclaims
run kubectl -n $NAMESPACE describe etcdcluster example | sed -n '/^Status:/,$p'

cat <<NEXT

The cluster is healthy. To look at it yourself:

  eval "\$($CLUSTER env)"                                 # points kubectl at it
  kubectl -n $NAMESPACE get etcd -w                           # watch it
  kubectl -n $NAMESPACE delete pod example-1-0                # kill a member: it comes back with its data
  $CLUSTER node-stop 2                         # cut a node's power; node-start 2 brings it back
  kubectl -n $NAMESPACE describe etcd example                 # what is wrong, why, and what to do
  kubectl -n $NAMESPACE delete etcd example                   # delete it; the volumes stay
  kubectl -n $NAMESPACE apply -f examples/cluster.yaml        # create it again: the data is back

When you are done: make cluster-down
NEXT
