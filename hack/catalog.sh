#!/usr/bin/env bash
# Renders catalog/template.yaml into catalog/etcd-warden/catalog.yaml with opm. Nothing is downloaded:
#   1. take the bundle of every release of catalog/releases.yaml from its commit, or from bundle/ if it has none;
#   2. serve the bundles as images by a registry on loopback, from which opm pulls them under their real names;
#   3. write docs/icon.svg into the template, and render it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
IMAGES=$(hack/build-tools.sh dir images)/images
OPM=$(hack/build-tools.sh dir opm)/opm
REPOSITORY=ghcr.io/etcd-warden/etcd-warden-bundle

WORK=$(mktemp -d)
REGISTRY_PID=''
finish() {
  [ -z "$REGISTRY_PID" ] || kill "$REGISTRY_PID" 2> /dev/null || true
  rm -rf "$WORK"
}
trap finish EXIT

# serve starts the registry and sets ADDRESS.
serve() {
  "$IMAGES" serve --address 127.0.0.1:0 > "$WORK/address" 2> "$WORK/registry.log" &
  REGISTRY_PID=$!
  local deadline=$((SECONDS + 30))
  until ADDRESS=$(grep . "$WORK/address"); do
    kill -0 "$REGISTRY_PID" 2> /dev/null && [ $SECONDS -lt $deadline ] || { cat "$WORK/registry.log" >&2; return 1; }
    sleep 0.1
  done
}

# bundle_of VERSION COMMIT DIR puts the release's bundle into DIR.
bundle_of() {
  if [ -n "$2" ]; then
    git cat-file -e "$2^{commit}" 2> /dev/null || { echo "commit $2 of release $1 is not in this clone: fetch its history" >&2; return 1; }
    git archive "$2" bundle | tar -x -C "$3" --strip-components=1
  else
    cp -r bundle/. "$3"
  fi
  grep -q "^  name: etcd-warden.v$1\$" "$3/manifests/etcd-warden.clusterserviceversion.yaml" ||
    { echo "the bundle of ${2:-the work tree} is not release $1: run make bundle VERSION=$1, or write its commit into catalog/releases.yaml" >&2; return 1; }
}

# releases prints "VERSION COMMIT" lines.
releases() {
  awk '$1 == "-" && $2 == "version:" {version = $3} $1 == "commit:" {gsub(/"/, "", $2); print version, $2}' catalog/releases.yaml
}

serve
while read -r version commit; do
  mkdir "$WORK/bundle-$version"
  bundle_of "$version" "$commit" "$WORK/bundle-$version"
  "$IMAGES" bundle --dir "$WORK/bundle-$version" --tag "$REPOSITORY:v$version" --out "$WORK/bundle-$version.tar" --push "$ADDRESS" > /dev/null
done < <(releases)

sed -i "s|\(base64data: \).*|\1$(base64 -w0 docs/icon.svg)|" catalog/template.yaml
mkdir -p "$WORK/home/.config/containers" catalog/etcd-warden
echo '{"default":[{"type":"insecureAcceptAnything"}]}' > "$WORK/home/.config/containers/policy.json"
printf '[[registry]]\nprefix = "%s"\nlocation = "%s"\ninsecure = true\n' "$REPOSITORY" "$ADDRESS/${REPOSITORY#*/}" > "$WORK/registries.conf"
HOME=$WORK/home CONTAINERS_REGISTRIES_CONF=$WORK/registries.conf "$OPM" alpha render-template basic --use-http catalog/template.yaml \
  --migrate-level bundle-object-to-csv-metadata -o yaml > "$WORK/catalog.yaml" 2> "$WORK/opm.log" || { cat "$WORK/opm.log" >&2; exit 1; }
cp "$WORK/catalog.yaml" catalog/etcd-warden/catalog.yaml
echo "catalog/etcd-warden/catalog.yaml: $(grep -c '^schema: olm.bundle$' catalog/etcd-warden/catalog.yaml) releases"
