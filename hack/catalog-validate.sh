#!/usr/bin/env bash
# Validates the catalog, and checks that
#   - every channel holds every release of catalog/releases.yaml, and the newest is its head;
#   - the first release has no replaces, skips and skipRange;
#   - each later one replaces the newest before it that it does not skip;
#   - the catalog's image serves: its content is extracted from the image as OLM does it, and served by opm.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
CATALOG=${CATALOG:-catalog}
OPM_DIR=$(hack/build-tools.sh dir opm)
IMAGES=$(hack/build-tools.sh dir images)/images
WORK=$(mktemp -d)
SERVER=''
finish() {
  if [ -n "$SERVER" ]; then
    kill "$SERVER" 2> /dev/null || true
    wait "$SERVER" 2> /dev/null || true # it writes into the folder until it ends
  fi
  rm -rf "$WORK"
}
trap finish EXIT

fail() { echo "catalog-validate: $*" >&2; exit 1; }

# free_port prints a free port. It is below those that the kernel gives to outgoing connections: one of these cannot be
# listened on either, and a try to connect does not find it.
free_port() {
  local port
  for port in $(shuf -i 20000-29999 -n 50); do
    (: < "/dev/tcp/127.0.0.1/$port") 2> /dev/null || { echo "$port"; return; }
  done
  fail "no free port"
}

# serve DIR serves a catalog on a free port, and waits until the health probe succeeds.
serve() {
  local port deadline=$((SECONDS + 60))
  port=$(free_port)
  TMPDIR=$WORK "$OPM_DIR/opm" serve "$1" --port "$port" --pprof-addr= --termination-log "$WORK/termination" > "$WORK/serve.log" 2>&1 &
  SERVER=$!
  until "$OPM_DIR/grpc-health-probe" -addr "127.0.0.1:$port" > /dev/null 2>&1; do
    kill -0 "$SERVER" 2> /dev/null && [ $SECONDS -lt $deadline ] || { cat "$WORK/serve.log" >&2; fail "the catalog is not served"; }
    sleep 0.1
  done
}

"$OPM_DIR/opm" validate "$CATALOG"
releases=$(sed -nE 's/^- version: *//p' catalog/releases.yaml)
newest=$(tail -1 <<< "$releases")
"$OPM_DIR/opm" alpha list channels "$CATALOG" etcd-warden > "$WORK/channels" 2> /dev/null
"$OPM_DIR/opm" alpha list bundles "$CATALOG" etcd-warden > "$WORK/bundles" 2> /dev/null
for channel in candidate stable stable-v0; do
  [ "$(awk -v c=$channel '$2 == c {print $3}' "$WORK/channels")" = "etcd-warden.v$newest" ] || fail "$newest is not the head of the channel $channel"
  previous=()
  for release in $releases; do
    read -r replaced skipped < <(awk -v c=$channel -v b="etcd-warden.v$release" '$2 == c && $3 == b {print $4, $5}' "$WORK/bundles") ||
      fail "in the channel $channel release $release is missing"
    wanted=''
    for before in "${previous[@]}"; do
      case ",$skipped," in *",etcd-warden.v$before,"*) ;; *) wanted=etcd-warden.v$before ;; esac
    done
    edge=$replaced # empty columns are not printed: without any edge this is the image
    [[ $replaced == etcd-warden.v* ]] || replaced=''
    [ ${#previous[@]} -gt 0 ] || [[ $edge == */* ]] ||
      fail "in the channel $channel release $release is the first, and has replaces, skips or skipRange ($edge)"
    [ "$replaced" = "$wanted" ] || fail "in the channel $channel release $release does not replace ${wanted:-nothing}, the newest that it does not skip"
    previous+=("$release")
  done
done

mkdir -p "$WORK/configs" "$WORK/image"
cp -r "$CATALOG/etcd-warden" "$WORK/configs/"
"$IMAGES" catalog --dir "$WORK/configs" --tag localhost/catalog:1 --out "$WORK/catalog.tar" > /dev/null
tar -xOf "$WORK/catalog.tar" --wildcards '*.tar.gz' | tar -xz -C "$WORK/image"
serve "$WORK/image/configs"
echo "the catalog serves $(wc -w <<< "$releases") releases; $newest is the head of every channel"
