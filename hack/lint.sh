#!/usr/bin/env bash
# Lints the project's Go modules, proves that the import walls hold, and checks the scripts' syntax.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
LINTER=${LINTER:-$(hack/build-tools.sh dir golangci-lint)/golangci-lint}
export LINTER

config=$PWD/.golangci.yml
"$LINTER" run ./...
for module in hack/images hack/cluster; do
  if [ -f "$module/go.mod" ]; then
    echo "linting $module"
    (cd "$module" && "$LINTER" run --config "$config" ./...)
  fi
done
hack/lint-walls.sh
git ls-files -z '*.sh' .ci/run | xargs -0 -n1 bash -n
echo "lint: all is well"
