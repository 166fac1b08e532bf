#!/usr/bin/env bash
# Shows a healthy etcd cluster to a newcomer:
#   1. builds what is missing, starts the local Kubernetes and installs the operator,
#   2. applies examples/cluster.yaml with an older patch of etcd, and writes and reads a key through the client Service,
#   3. upgrades etcd by a patch, then adds two members, and shows each change as it happens,
#   4. prints what to try next.
# With USE_EXISTING_CLUSTER=true it uses the cluster of KUBECONFIG. Its nodes must have the images then, unless it is a
# kind cluster.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
CLUSTER=hack/cluster/cluster.sh
NAMESPACE=demo

step() { printf '\n\033[1m== %s\033[0m\n' "$*"; }
show() { printf '\033[2m$ %s\033[0m\n' "$*"; }
run() { show "$@"; "$@"; }

# watch_until VERSION MEMBERS prints each change of the cluster until that many members, and no more, run that version.
watch_until() {
  local get="kubectl -n $NAMESPACE get etcd example" line=''
  show "$get -w"
  exec 5< <(exec $get -w)
  watch=$!
  until [[ $line =~ ^example\ +$1\ +$1\ +$2/$2\ +True\ +UpToDate\  ]]; do
    IFS= read -r -t 300 -u 5 line || { echo "Nothing changed for five minutes: kubectl -n $NAMESPACE describe etcd example" >&2; exit 1; }
    printf '%s\n' "$line"
  done
  stop_watch
}
stop_watch() {
  [ -n "${watch:-}" ] || return 0
  kill "$watch" 2>/dev/null || true
  wait "$watch" 2>/dev/null || true
  watch=''
}
trap stop_watch EXIT

step "1/8 Building what is missing (the first time: about ten minutes, most of it Kubernetes)"
hack/build-tools.sh kubernetes kustomize images etcd-3.6 etcd-3.6.12
make --no-print-directory build

step "2/8 Starting Kubernetes"
$CLUSTER up
eval "$($CLUSTER env)"

step "3/8 Making the images and loading them on the nodes"
images=$(hack/build-tools.sh dir images)/images
newest=$(hack/build-tools.sh dir etcd-3.6) newest=${newest##*-}
older=$(hack/build-tools.sh dir etcd-3.6.12) older=${older##*-}
$CLUSTER load "$("$images" operator --binary bin/etcd-warden --version "${VERSION:-$(sed -n 's/^VERSION ?= //p' Makefile)}")" \
  "$("$images" etcd --version "$newest")" "$("$images" etcd --version "$older" --clients "$newest")"

step "4/8 Installing the operator"
make --no-print-directory deploy
run kubectl -n etcd-warden-system rollout status deployment/etcd-warden-webhook --timeout=180s
run kubectl -n etcd-warden-system rollout status deployment/etcd-warden-controller-manager --timeout=180s

step "5/8 Creating an etcd cluster of three, with etcd $older instead of $newest: step 7 upgrades it"
kubectl create namespace $NAMESPACE --dry-run=client -o yaml | kubectl apply -f - >/dev/null
kubectl label namespace $NAMESPACE pod-security.kubernetes.io/enforce=restricted --overwrite >/dev/null
cat examples/cluster.yaml
show "sed 's/version: .*/version: $older/' examples/cluster.yaml | kubectl -n $NAMESPACE apply -f -"
sed "s/version: .*/version: $older/" examples/cluster.yaml | kubectl -n $NAMESPACE apply -f -
watch_until "$older" 3

step "6/8 Writing and reading a key through the client Service"
tls=/etc/etcd/server # where a member's certificate is mounted
pod=$(kubectl -n $NAMESPACE get pods -l operator.etcd-warden.io/cluster=example -o jsonpath='{.items[0].metadata.name}')
etcdctl() {
  run kubectl -n $NAMESPACE exec "$pod" -- etcdctl --endpoints=https://example-client.$NAMESPACE.svc:2379 \
    --cacert=$tls/ca.crt --cert=$tls/tls.crt --key=$tls/tls.key "$@"
}
etcdctl put greeting "hello from etcd-warden"
etcdctl get greeting
run kubectl -n $NAMESPACE get etcdcluster,pods,persistentvolumeclaims
run kubectl -n $NAMESPACE describe etcdcluster example | sed -n '/^Status:/,$p'

step "7/8 Upgrading etcd by a patch, one member after the other, the leader last"
echo "Why: the condition VersionAdvisory above says that etcd $older has security holes."
show "kubectl -n $NAMESPACE patch etcd example --type=merge -p '{\"spec\":{\"version\":\"$newest\"}}'"
kubectl -n $NAMESPACE patch etcd example --type=merge -p "{\"spec\":{\"version\":\"$newest\"}}"
watch_until "$newest" 3

step "8/8 Growing to five members, one after the other"
run kubectl -n $NAMESPACE scale etcd/example --replicas=5
watch_until "$newest" 5
echo "The key is still there, and the Events tell each step:"
etcdctl get greeting
run kubectl -n $NAMESPACE events --for etcdcluster/example

minor=$(hack/build-tools.sh dir etcd-3.7) minor=${minor##*-}
cat <<NEXT

The cluster is healthy. To look at it yourself:

  eval "\$($CLUSTER env)"                                 # points kubectl at it
  kubectl -n $NAMESPACE get etcd -w                           # watch it
  kubectl -n $NAMESPACE scale etcd/example --replicas=3       # go back to three members: docs/resize.md
  kubectl -n $NAMESPACE delete pod $pod                # kill a member: it comes back with its data
  $CLUSTER node-stop 2                         # cut a node's power; node-start 2 brings it back
  kubectl -n $NAMESPACE describe etcd example                 # what is wrong, why, and what to do
  kubectl -n $NAMESPACE delete etcd example                   # delete it; the volumes stay
  kubectl -n $NAMESPACE apply -f examples/cluster.yaml        # create it again: the data is back

An upgrade by a minor version is the same edit (docs/etcd-versions.md). Here the nodes need its image first:

  hack/build-tools.sh etcd-3.7
  $CLUSTER load "\$($images etcd --version $minor)"
  kubectl -n $NAMESPACE patch etcd example --type=merge -p '{"spec":{"version":"$minor"}}'

When you are done: make cluster-down
NEXT
