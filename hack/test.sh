#!/usr/bin/env bash
# Runs test suites and counts their tests:
#
#   test.sh SUITE...     unit, integration, release, cluster, e2e, olm, and search: the random search of the unit tests
#
# The last line is "N passed, N failed, N skipped" over all suites. The exit code is not zero if a test failed, if a
# package did not build, or if a suite ran no test. After a failed suite the next one still runs.
# In the end the script stops the local cluster, if a suite started it. If something fails, it prints the folder with
# the full output of each suite.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
CACHE=${ETCD_WARDEN_CACHE:-$HOME/.cache/etcd-warden}
OUT=$CACHE/test/$(pwd | cksum | cut -d' ' -f1) # checkouts do not share it
mkdir -p "$OUT"

[ $# -gt 0 ] || { sed -n '2,/^set -euo/p' "$0" | sed '$d;s/^# \{0,1\}//'; exit 2; }

# run SUITE runs one suite. It prints what a reader needs, and writes the whole output to a file.
run() {
  echo "== $1"
  case $1 in
    unit) unit_tests 2>&1 | tee "$OUT/unit" | "$SUM" show ;;
    search) (renice -n 19 -p "$BASHPID" > /dev/null; go_test -run "$SEARCH" ./internal/simulation) ;;
    integration)
      hack/build-tools.sh kubernetes etcd-3.5 etcd-3.6 etcd-3.7 etcd-3.6.12 etcd-3.7.1 cert-manager
      go_test -tags=integration ./test/integration/... ;;
    release)
      hack/build-tools.sh controller-gen crdcheck crd-ref-docs kustomize operator-sdk opm images
      go_test -tags=release ./test/release/... ;;
    e2e) specs --procs="${E2E_PROCS:-4}" ./test/e2e ;;
    olm)
      [ "${USE_EXISTING_CLUSTER:-}" = true ] || { hack/cluster/cluster.sh build; hack/build-tools.sh kustomize olm opm; }
      specs ./test/olm ;;
    cluster) stop_cluster; go_test -tags=cluster ./test/cluster/... ;;
    *) echo "no such suite: $1" >&2; exit 2 ;;
  esac
}

go_test() { go test -json -count=1 -timeout 2h "$@" 2>&1 | tee "$OUT/$suite" | "$SUM" show; }

# specs runs a suite of specs in the local cluster, or KUBECONFIG's.
specs() {
  [ -n "${before:-}" ] || before=$(hack/cluster/cluster.sh status 2>&1 || true)
  go tool ginkgo --timeout=90m --poll-progress-after=3m --no-color "$@" 2>&1 | tee "$OUT/$suite"
}

# stop_cluster stops the local cluster, unless it ran before the suites.
stop_cluster() {
  case "${USE_EXISTING_CLUSTER:-} ${before:-held by nobody yet}" in
    true* | *"held by"*) ;;
    *) hack/cluster/cluster.sh down ;;
  esac
}

# unit_tests runs the tests that need only Go, of this module and of the modules in hack.
# The search is left out where it runs as a suite of its own.
unit_tests() {
  local module code=0
  # shellcheck disable=SC2046
  go test -json -count=1 -timeout 2h -skip "${skipped:-^$}" $(go list ./... | grep -vE '/test/(bench|cluster|e2e|integration|olm|release)') || code=1
  for module in hack/images hack/cluster hack/crdcheck hack/gitops hack/monitoring; do (cd "$module" && go test -json -count=1 ./...) || code=1; done
  return $code
}

# note_passed records for hack/release.sh that a suite passed on the current commit, and whether its whole matrix ran.
# It records nothing if the tree differs from the commit, or changed while the suite ran.
# Unit tests without the search have passed once the search has, too.
note_passed() {
  [ "$code" = "$(git rev-parse HEAD)" ] && [ "$code" = "$(git rev-parse HEAD && git status --porcelain)" ] || return 0
  if [ "$1" = unit ] && [ -n "$skipped" ]; then unit=$code; return; fi
  if [ "$1" = search ]; then [ "$unit" = "$code" ] || return 0; set -- unit; fi
  mkdir -p "$CACHE/test/passed"
  printf '%s\n' "$1" ${ETCD_WARDEN_TEST_FULL:+"$1-full"} >> "$CACHE/test/passed/$code"
}

go build -o "$OUT/testsum" ./hack/testsum
SUM=$OUT/testsum

# judge SUITE runs a suite and notes that it passed.
judge() {
  suite=$1
  rm -f "$OUT/$suite"
  code=$(git rev-parse HEAD && git status --porcelain)
  run "$suite" && "$SUM" sum "$OUT/$suite" > /dev/null && note_passed "$suite"
}

# beside SUITE OTHER runs two suites at once.
beside() {
  judge "$2" > "$OUT/$2.shown" 2>&1 & local other=$!
  judge "$1" || failed=1
  wait "$other" || failed=1
  cat "$OUT/$2.shown"
}

SEARCH='^TestNoReachableStateCostsQuorumOrAnAcknowledgedWrite$'
failed=0 events=() skipped='' unit='' # unit is the commit on which the unit tests passed without the search
case " $* " in *' search '*) skipped=$SEARCH ;; esac
for suite in "$@"; do
  events+=("$OUT/$suite")
  case $suite,$* in
    integration,*release*) beside integration release ;; # the one waits for etcd, the other works on files
    e2e,*search*) beside e2e search ;;                   # the one waits for pods, the other takes what is left
    release,*integration* | search,*e2e*) ;;
    *) judge "$suite" || failed=1 ;;
  esac
done
stop_cluster || failed=1
[ $failed = 0 ] || echo "full output: $OUT"
"$SUM" sum "${events[@]}" || failed=1
exit $failed
