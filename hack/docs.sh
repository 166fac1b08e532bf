#!/usr/bin/env bash
# Generates the pages of docs/ that come from comments in the code: the API references from the types, and the page
# about conditions from the constants. Running it again changes nothing.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
REFERENCE=$(hack/build-tools.sh dir crd-ref-docs)/crd-ref-docs

# reference VERSION FILE
reference() {
  "$REFERENCE" --source-path="api/$1" --config=hack/docs/api.yaml --templates-dir=hack/docs/templates --renderer=markdown \
    --max-depth=20 --log-level=ERROR --output-path="$2"
}

reference v1beta1 docs/api.md
reference v1alpha1 docs/api-v1alpha1.md
page=$(go run ./hack/conditions api/v1beta1/conditions.go)
printf '%s\n' "$page" > docs/conditions.md
