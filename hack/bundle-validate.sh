#!/usr/bin/env bash
# Validates bundle/ as OLM and the operator catalogs do, and runs scorecard's built-in tests on it, without a cluster.
# A warning fails, like an error.
#
# It runs every optional validator that operator-sdk lists, except
#   operatorhub, community   deprecated: operatorhubv2, capabilities and categories replace them
#   multiarch                pulls the images with Docker; `make release` builds them for every platform of the bundle
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
BUNDLE=${BUNDLE:-bundle}
K8S_MINOR=${K8S_MINOR:-1.34}
LEFT_OUT=' operatorhub community multiarch '
# good-practices warns of any right to patch CRDs, because an operator should not deploy CRDs of others.
# This operator may patch only its own CRD (config/webhook/role.yaml), to repair the conversion after an InstallPlan.
EXPECTED='CSV contains permissions to create CRD'
# OLM accepts a bundle of at most 1 MiB, compressed.
MOST_BYTES=$((1 << 20))
SDK_DIR=$(hack/build-tools.sh dir operator-sdk)
WORK=$(mktemp -d)
trap 'rm -rf "$WORK"' EXIT

fail() { echo "bundle-validate: $*" >&2; exit 1; }

# validate SELECTOR
validate() {
  echo "validating the bundle: $1"
  "$SDK_DIR/operator-sdk" bundle validate "$BUNDLE" --select-optional "$1" --optional-values="k8s-version=$K8S_MINOR" > "$WORK/out" 2>&1 ||
    { cat "$WORK/out" >&2; fail "$1 has errors"; }
  ! grep 'level=\(warning\|error\)' "$WORK/out" | grep -vq "$EXPECTED" || { cat "$WORK/out" >&2; fail "$1 has warnings: fix them, or add the validator to LEFT_OUT and say why"; }
}

# scorecard TEST runs a built-in test. It expects the bundle at /bundle, so it runs in another root folder.
scorecard() {
  local enter=(chroot "$WORK/root" /scorecard-test "$1")
  [ "$(id -u)" = 0 ] || enter=(unshare --map-root-user "${enter[@]}")
  echo "running scorecard's $1"
  "${enter[@]}" > "$WORK/out" 2>&1 || { cat "$WORK/out" >&2; fail "scorecard's $1 did not run"; }
  grep -q '"state": "pass"' "$WORK/out" && ! grep -q '"state": "\(fail\|error\)"' "$WORK/out" || { cat "$WORK/out" >&2; fail "scorecard's $1 does not pass"; }
}

bytes=$(tar -C "$BUNDLE" -c manifests | gzip -9 | wc -c)
[ "$bytes" -le $MOST_BYTES ] || fail "the bundle takes $bytes bytes compressed; OLM accepts at most $MOST_BYTES"

validate suite=operatorframework
for name in $("$SDK_DIR/operator-sdk" bundle validate --list-optional 2> /dev/null | grep -oE 'name=[a-z0-9-]+' | cut -d= -f2 | sort -u); do
  case $LEFT_OUT in *" $name "*) ;; *) validate "name=$name" ;; esac
done

mkdir "$WORK/root"
cp -r "$BUNDLE" "$WORK/root/bundle"
cp "$SDK_DIR/scorecard-test" "$WORK/root/"
for name in $(sed -nE 's/^ +- ((basic|olm)-[a-z-]+)$/\1/p' "$BUNDLE/tests/scorecard/config.yaml"); do scorecard "$name"; done
