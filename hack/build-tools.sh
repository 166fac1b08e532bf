#!/usr/bin/env bash
# Builds the pinned tools of hack/tools, each into a folder named by its version:
#
#   build-tools.sh TOOL...     build what is missing or out of date; progress goes to stderr
#   build-tools.sh dir TOOL    print the folder that holds the tool's binaries
#
# A tool is a folder with go.mod and go.sum: hack/tools/TOOL, or hack/TOOL for the project's
# own helpers. What is built is what go.mod lists as `tool`, or the folder's own main packages
# if it has Go files. An optional tool.env may set
#   MODULE   the module whose version names the folder (default: that of the first tool)
#   NAME     what the folder is called before the version (default: TOOL)
#   TAGS, LDFLAGS   passed to go build; $VERSION is known here, without its v
#   RENAME   pairs of built=wanted binary names
#
# The folders lie in $ETCD_WARDEN_CACHE (default ~/.cache/etcd-warden). A build happens in a
# temporary folder that is renamed when complete, so an interrupted one leaves nothing half.
set -euo pipefail
HACK=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
CACHE=${ETCD_WARDEN_CACHE:-$HOME/.cache/etcd-warden}

# describe TOOL sets SRC, NAME, VERSION, INPUTS and the tool.env variables.
describe() {
  SRC=$HACK/tools/$1; [ -d "$SRC" ] || SRC=$HACK/$1
  [ -f "$SRC/go.mod" ] || { echo "no such tool: $1 (see hack/tools)" >&2; exit 2; }
  INPUTS=$(cd "$SRC" && find . -type f \( -name '*.go' -o -name 'go.*' -o -name tool.env \) ! -name '*_test.go' -print0 |
    sort -z | xargs -0 sha256sum | sha256sum | cut -c1-12)
  NAME=$1 MODULE='' TAGS='' LDFLAGS='-s -w' RENAME='' VERSION=''
  [ ! -f "$SRC/tool.env" ] || . "$SRC/tool.env"
  [ -n "$MODULE" ] || MODULE=$(first_tool_module)
  if [ -n "$MODULE" ]; then
    VERSION=$(awk -v m="$MODULE" '{sub(/^require /, "")} $1 == m && $2 ~ /^v/ {print substr($2, 2); exit}' "$SRC/go.mod")
    [ ! -f "$SRC/tool.env" ] || . "$SRC/tool.env"
  fi
  OUT=$CACHE/$NAME-${VERSION:-$INPUTS}
}

# first_tool_module prints the longest required module path that the first tool lies in.
first_tool_module() {
  awk '$1 == "tool" && $2 != "(" {tool = tool ? tool : $2}
       $1 == "tool" && $2 == "(" {block = 1; next} $1 == ")" {block = 0} block && !tool {tool = $1}
       $1 == "require" && $2 != "(" {mods[$2]} $2 ~ /^v[0-9]/ {mods[$1]}
       END {for (m in mods) if (index(tool "/", m "/") == 1 && length(m) > length(best)) best = m; print best}' "$SRC/go.mod"
}

fresh() { [ -f "$OUT/.inputs" ] && [ "$(cat "$OUT/.inputs")" = "$INPUTS" ]; }

build() {
  describe "$1"
  if fresh; then return; fi
  mkdir -p "$CACHE"
  exec 8> "$CACHE/.build-$NAME.lock"; flock 8
  if fresh; then exec 8>&-; return; fi
  echo "building $NAME ${VERSION:-} (once)" >&2
  local tmp what=tool pair start=$SECONDS
  tmp=$(mktemp -d "$CACHE/.building-XXXXXX"); trap 'rm -rf "$tmp"' EXIT
  if compgen -G "$SRC/*.go" >/dev/null || [ -z "$MODULE" ]; then what=./...; fi
  (cd "$SRC" && GOWORK=off GOFLAGS= CGO_ENABLED=0 go build -mod=readonly -buildvcs=false -trimpath -tags "$TAGS" -ldflags "$LDFLAGS" -o "$tmp/" $what) >&2
  for pair in $RENAME; do mv "$tmp/${pair%%=*}" "$tmp/${pair#*=}"; done
  echo "$INPUTS" > "$tmp/.inputs"; chmod 755 "$tmp"
  rm -rf "$OUT.old"; [ ! -e "$OUT" ] || mv "$OUT" "$OUT.old"
  mv "$tmp" "$OUT"; rm -rf "$OUT.old"; trap - EXIT; exec 8>&-
  echo "built $NAME ${VERSION:-} in $((SECONDS - start)) s: $OUT" >&2
}

case "${1:-}" in
  '' | -h | --help) sed -n '2,/^set -euo/p' "$0" | sed '$d;s/^# \{0,1\}//'; exit 2 ;;
  dir) describe "$2"; echo "$OUT" ;;
  *) for tool in "$@"; do build "$tool"; done ;;
esac
