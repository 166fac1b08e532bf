#!/usr/bin/env bash
# Renders catalog/template.yaml into catalog/etcd-steward/catalog.yaml with opm. The bundle of every release of
# catalog/releases.yaml is taken from its commit (or from bundle/, for the one release without a commit), served as an
# image by a registry on loopback, and pulled from there under its real name. Nothing is downloaded.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
CRANE=$(hack/build-tools.sh dir crane)/crane
OPM=$(hack/build-tools.sh dir opm)/opm
REPOSITORY=ghcr.io/etcd-steward/etcd-steward-bundle

WORK=$(mktemp -d)
REGISTRY_PID=''
finish() {
  [ -z "$REGISTRY_PID" ] || kill "$REGISTRY_PID" 2> /dev/null || true
  rm -rf "$WORK"
}
trap finish EXIT

# serve starts the registry and sets ADDRESS.
serve() {
  "$CRANE" registry serve --address 127.0.0.1:0 > "$WORK/registry.log" 2>&1 &
  REGISTRY_PID=$!
  local port deadline=$((SECONDS + 30))
  until port=$(grep -oE 'serving on port [0-9]+' "$WORK/registry.log" | grep -oE '[0-9]+$'); do
    kill -0 "$REGISTRY_PID" 2> /dev/null && [ $SECONDS -lt $deadline ] || { cat "$WORK/registry.log" >&2; return 1; }
    sleep 0.1
  done
  ADDRESS=127.0.0.1:$port
}

# bundle_of VERSION COMMIT DIR puts the release's bundle into DIR.
bundle_of() {
  if [ -n "$2" ]; then
    git cat-file -e "$2^{commit}" 2> /dev/null || { echo "commit $2 of release $1 is not in this clone: fetch its history" >&2; return 1; }
    git archive "$2" bundle | tar -x -C "$3" --strip-components=1
  else
    cp -r bundle/. "$3"
  fi
  grep -q "^  name: etcd-steward.v$1\$" "$3/manifests/etcd-steward.clusterserviceversion.yaml" ||
    { echo "the bundle of ${2:-the work tree} is not release $1: run make bundle VERSION=$1, or write its commit into catalog/releases.yaml" >&2; return 1; }
}

# push VERSION DIR pushes DIR as the release's bundle image, with the labels that its annotations ask for.
push() {
  local image=$ADDRESS/${REPOSITORY#*/}:v$1 labels=()
  while IFS= read -r label; do labels+=(--label "$label"); done < <(sed -nE 's/^  ([a-z][^ #]*): (.*)$/\1=\2/p' "$2/metadata/annotations.yaml")
  tar --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner --mode=u=rwX,go=rX -C "$2" -cf "$WORK/layer.tar" .
  "$CRANE" append --insecure --oci-empty-base --new_layer "$WORK/layer.tar" --new_tag "$image" > /dev/null 2>> "$WORK/crane.log"
  "$CRANE" mutate --insecure "${labels[@]}" --set-platform linux/amd64 --tag "$image" "$image" > /dev/null 2>> "$WORK/crane.log" ||
    { cat "$WORK/crane.log" >&2; return 1; }
}

# releases prints "VERSION COMMIT" lines.
releases() {
  awk '$1 == "-" && $2 == "version:" {version = $3} $1 == "commit:" {gsub(/"/, "", $2); print version, $2}' catalog/releases.yaml
}

serve
while read -r version commit; do
  mkdir "$WORK/bundle-$version"
  bundle_of "$version" "$commit" "$WORK/bundle-$version"
  push "$version" "$WORK/bundle-$version"
done < <(releases)

mkdir -p "$WORK/home/.config/containers" catalog/etcd-steward
echo '{"default":[{"type":"insecureAcceptAnything"}]}' > "$WORK/home/.config/containers/policy.json"
printf '[[registry]]\nprefix = "%s"\nlocation = "%s"\ninsecure = true\n' "$REPOSITORY" "$ADDRESS/${REPOSITORY#*/}" > "$WORK/registries.conf"
HOME=$WORK/home CONTAINERS_REGISTRIES_CONF=$WORK/registries.conf "$OPM" alpha render-template basic --use-http catalog/template.yaml \
  --migrate-level bundle-object-to-csv-metadata -o yaml > "$WORK/catalog.yaml" 2> "$WORK/opm.log" || { cat "$WORK/opm.log" >&2; exit 1; }
cp "$WORK/catalog.yaml" catalog/etcd-steward/catalog.yaml
echo "catalog/etcd-steward/catalog.yaml: $(grep -c '^schema: olm.bundle$' catalog/etcd-steward/catalog.yaml) releases"
