#!/usr/bin/env bash
# Lints the project's Go modules, and proves that the linter refuses what it must.
# It also checks the comments of scripts and YAML, the operator's rights, and that the scripts parse.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
LINTER=${LINTER:-$(hack/build-tools.sh dir golangci-lint)/golangci-lint}
export LINTER

config=$PWD/.golangci.yml
"$LINTER" run --allow-serial-runners ./...
for module in hack/images hack/cluster hack/crdcheck hack/gitops hack/monitoring; do
  if [ -f "$module/go.mod" ]; then
    echo "linting $module"
    (cd "$module" && "$LINTER" run --allow-serial-runners --config "$config" ./...)
  fi
done
hack/lint-walls.sh
if grep -nE "^ *- ['\"]?\*" config/rbac/*.yaml config/webhook/*.yaml; then
  echo "lint: a role has the wildcard *: list its verbs, resources and groups" >&2; exit 1
fi
if ! awk -v RS='- apiGroups:' '/- secrets\n/ && /- (list|watch|patch|delete|deletecollection)\n/ {bad = 1} END {exit bad}' config/rbac/role.yaml; then
  echo "lint: the role may only get, create and update Secrets: remove its other verbs" >&2; exit 1
fi
if grep -qE '^  - (list|watch|delete|deletecollection|patch)$' <(sed -n '/^kind: Role$/,$p' config/webhook/role.yaml); then
  echo "lint: the webhook may only get, create and update one named Secret: remove its other verbs" >&2; exit 1
fi
if git ls-files -z '*.sh' 'hack/*.yaml' 'config/*.yaml' 'examples/*.yaml' Makefile .golangci.yml |
  xargs -0 awk 'length > 120 && /^[ \t]*#/ {print FILENAME ":" FNR; bad = 1} END {exit !bad}'; then
  echo "lint: the lines of comments above have more than 120 columns: break them, or say less" >&2; exit 1
fi
git ls-files -z '*.sh' .ci/run | xargs -0 -n1 bash -n
echo "lint: passed"
