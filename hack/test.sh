#!/usr/bin/env bash
# Runs test suites and counts their tests:
#
#   test.sh SUITE...     unit, integration, cluster, e2e
#
# The last line is "N passed, N failed, N skipped" over all suites. The exit code is not zero
# if a test failed, a package did not build, or a suite ran no test. A failed suite does not keep
# the next from running. The full output of each suite lies in $ETCD_STEWARD_CACHE/test/SUITE.json.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
CACHE=${ETCD_STEWARD_CACHE:-$HOME/.cache/etcd-steward}
OUT=$CACHE/test
mkdir -p "$OUT"

[ $# -gt 0 ] || { sed -n '2,/^set -euo/p' "$0" | sed '$d;s/^# \{0,1\}//'; exit 2; }

# packages SUITE prints the suite's packages.
packages() {
  case $1 in
    unit) go list ./... | grep -v "/test/" ;;
    integration | cluster | e2e) echo "-tags=$1 ./test/$1/..." ;;
    *) echo "no such suite: $1" >&2; return 2 ;;
  esac
}

# hack_modules runs the tests of the modules below hack.
hack_modules() {
  local module code=0
  for module in hack/images hack/cluster; do (cd "$module" && go test -json -count=1 ./...) || code=1; done
  return $code
}

# run SUITE runs one suite; its events go to a file, what a reader needs to the screen.
run() {
  local list timeout=10m code=0
  list=$(packages "$1")
  case $1 in unit) ;; *) timeout=60m ;; esac
  echo "== $1"
  # shellcheck disable=SC2086
  { go test -json -count=1 -timeout "$timeout" $list || code=1
    [ "$1" != unit ] || hack_modules || code=1
    [ $code = 0 ]; } 2>&1 | tee "$OUT/$1.json" | "$SUM" show
}

go build -o "$OUT/testsum" ./hack/testsum
SUM=$OUT/testsum
failed=0 events=()
for suite in "$@"; do
  run "$suite" || failed=1
  events+=("$OUT/$suite.json")
done
"$SUM" sum "${events[@]}" || failed=1
exit $failed
