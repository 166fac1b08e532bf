#!/usr/bin/env bash
# Runs one benchmark: bench.sh create|day2|idle|conversion|fleet|hash
# For create, day2 and idle it first prepares the cluster as the end-to-end suite does.
# With USE_EXISTING_CLUSTER=true and DEPLOY=false it measures the operator that runs in the cluster of KUBECONFIG.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
case "${1:-}" in
  conversion | fleet) exec go run ./test/bench "$1" ;;
  hash)
    hack/build-tools.sh etcd-3.6
    ETCD=$(hack/build-tools.sh dir etcd-3.6)/etcd; export ETCD
    exec go run ./test/bench hash ;;
esac
if [ "${USE_EXISTING_CLUSTER:-}" = true ] && [ "${DEPLOY:-}" = false ]; then
  hack/build-tools.sh kubernetes etcd-3.6
  PATH=$(hack/build-tools.sh dir kubernetes):$PATH
  ETCD_VERSION=$(hack/build-tools.sh dir etcd-3.6 | sed 's/.*-//'); export ETCD_VERSION
  exec go run ./test/bench "$@"
fi
values=$(hack/e2e-up.sh)
value() { sed -n "s/^$1=//p" <<< "$values"; }
KUBECONFIG=$(value KUBECONFIG); export KUBECONFIG
PATH=$(dirname "$(value KUBECTL)"):$PATH
ETCD_VERSION=$(value ETCD_VERSIONS | tr ' ' '\n' | grep '^3\.6\.'); export ETCD_VERSION
exec go run ./test/bench "$@"
