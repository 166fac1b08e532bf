#!/usr/bin/env bash
# Runs test suites and counts their tests:
#
#   test.sh SUITE...     unit, integration, cluster, e2e
#
# The last line is "N passed, N failed, N skipped" over all suites. The exit code is not zero
# if a test failed, a package did not build, or a suite ran no test. A failed suite does not keep
# the next from running. The full output of each suite lies in the folder that is named when something fails.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
CACHE=${ETCD_STEWARD_CACHE:-$HOME/.cache/etcd-steward}
OUT=$CACHE/test/$(pwd | cksum | cut -d' ' -f1) # checkouts do not share it
mkdir -p "$OUT"

[ $# -gt 0 ] || { sed -n '2,/^set -euo/p' "$0" | sed '$d;s/^# \{0,1\}//'; exit 2; }

# packages SUITE prints the suite's packages.
packages() {
  case $1 in
    unit) go list ./... | grep -v "/test/" ;;
    integration | cluster | e2e) echo "./test/$1/..." ;;
    *) echo "no such suite: $1" >&2; return 2 ;;
  esac
}

# run SUITE runs one suite; its events go to a file, what a reader needs to the screen.
run() {
  local list timeout=10m
  list=$(packages "$1")
  case $1 in unit) ;; *) timeout=60m ;; esac
  echo "== $1"
  # shellcheck disable=SC2086
  go test -json -count=1 -timeout "$timeout" $list 2>&1 | tee "$OUT/$1.json" | "$SUM" show
}

go build -o "$OUT/testsum" ./hack/testsum
SUM=$OUT/testsum
failed=0 events=()
for suite in "$@"; do
  run "$suite" || failed=1
  events+=("$OUT/$suite.json")
done
[ $failed = 0 ] || echo "full output: $OUT"
"$SUM" sum "${events[@]}" || failed=1
exit $failed
