#!/usr/bin/env bash
# Runs one benchmark: bench.sh create|idle|conversion|fleet
# For create and idle it first prepares the cluster as the end-to-end suite does.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
case "${1:-}" in conversion | fleet) exec go run ./test/bench "$1" ;; esac
values=$(hack/e2e-up.sh)
value() { sed -n "s/^$1=//p" <<< "$values"; }
KUBECONFIG=$(value KUBECONFIG); export KUBECONFIG
PATH=$(dirname "$(value KUBECTL)"):$PATH
ETCD_VERSION=$(value ETCD_VERSIONS | tr ' ' '\n' | grep '^3\.6\.'); export ETCD_VERSION
exec go run ./test/bench "$@"
