#!/usr/bin/env bash
# Lints the project's Go modules, proves that the import walls hold, that the role holds
# no wildcard and only reads single Secrets, and that the scripts parse.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
LINTER=${LINTER:-$(hack/build-tools.sh dir golangci-lint)/golangci-lint}
export LINTER

config=$PWD/.golangci.yml
"$LINTER" run --allow-serial-runners ./...
for module in hack/images hack/cluster hack/crdcheck; do
  if [ -f "$module/go.mod" ]; then
    echo "linting $module"
    (cd "$module" && "$LINTER" run --allow-serial-runners --config "$config" ./...)
  fi
done
hack/lint-walls.sh
if grep -nE "^ *- ['\"]?\*" config/rbac/*.yaml config/webhook/*.yaml; then
  echo "lint: the operator's rights are listed, never all of a kind" >&2; exit 1
fi
if ! awk -v RS='- apiGroups:' '/- secrets\n/ && /- (list|watch|patch|delete|deletecollection)\n/ {bad = 1} END {exit bad}' config/rbac/role.yaml; then
  echo "lint: Secrets are read and written one by one: the role may not list or watch them" >&2; exit 1
fi
if grep -qE '^  - (list|watch|delete|deletecollection|patch)$' <(sed -n '/^kind: Role$/,$p' config/webhook/role.yaml); then
  echo "lint: the webhook reads and writes one Secret by its name" >&2; exit 1
fi
git ls-files -z '*.sh' .ci/run | xargs -0 -n1 bash -n
echo "lint: all is well"
