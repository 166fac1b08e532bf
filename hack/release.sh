#!/usr/bin/env bash
# Makes a release. Nothing is published: the commands that publish it are printed.
#
#   release.sh prepare X.Y.Z        prepare release X.Y.Z in this tree: version numbers, upgrade graph, bundle, catalog
#   release.sh [--dry-run] X.Y.Z    release what is committed on main
#
# prepare: a first release replaces nothing. A later one replaces the last release of catalog/releases.yaml.
#
# release: it is refused while anything is out of date. The message says what, why and what to do. Then nothing changes.
# All the work is done in a clone:
#   1. check the CRDs against every release, and generate every file again;
#   2. date the bundle, validate bundle and catalog, and commit "Release X.Y.Z" with the tag vX.Y.Z;
#   3. build the images for every architecture;
#   4. write the release's commit into catalog/releases.yaml, and commit that.
# Then this repository gets both commits and the tag. With --dry-run it does not.
#
#   RELEASE_SUITES   the suites that must have passed on this code (default: unit integration release e2e olm-full;
#                    SUITE-full is the suite with its whole matrix, as make test-full runs it)
set -euo pipefail
# Make exports the values of this tree. The steps run Make in trees with other values.
unset MAKEFLAGS MAKELEVEL MFLAGS VERSION REPOSITORY IMG CHANNELS DEFAULT_CHANNEL K8S_MINOR
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
CACHE=${ETCD_WARDEN_CACHE:-$HOME/.cache/etcd-warden}
PASSED=$CACHE/test/passed
BRANCH=main
IN_CHANNELS='candidate stable stable-v0'
BASE=config/manifests/bases/etcd-warden.clusterserviceversion.yaml

fail() { printf 'release: %s\n' "$@" >&2; exit 1; }
usage() { sed -n '2,/^set -euo/p' "$0" | sed '$d;s/^# \{0,1\}//'; exit 2; }

is_version() { [[ $1 =~ ^(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)$ ]]; }

# newer A B reports whether version A is newer than B.
newer() { [ "$1" != "$2" ] && [ "$(printf '%s\n%s\n' "$1" "$2" | sort -V | tail -1)" = "$1" ]; }

# released prints "VERSION COMMIT" of every release that was made, oldest first.
# prepared prints the version of the next one.
released() { awk '$1 == "-" && $2 == "version:" {v = $3} $1 == "commit:" && $2 != "\"\"" {print v, $2}' catalog/releases.yaml; }
prepared() { awk '$1 == "-" && $2 == "version:" {v = $3} $1 == "commit:" && $2 == "\"\"" {print v}' catalog/releases.yaml; }
previous() { released | tail -1 | cut -d' ' -f1; }
tree_version() { sed -n 's/^VERSION ?= //p' Makefile; }

prepare() {
  local old now=$1 before entry range
  cd "$ROOT"
  is_version "$now" || fail "$now is not a version: write X.Y.Z"
  before=$(previous) old=$(tree_version)
  newer "$now" "$before" || fail "$now is not newer than the last release, $before"
  sed -i "s/^VERSION ?= .*/VERSION ?= $now/" Makefile
  sed -i "s/^ARG VERSION=.*/ARG VERSION=$now/" Dockerfile
  sed -i "s|\(etcd-warden[a-z/-]*[:.]v\)${old//./\\.}|\1$now|g" README.md docs/install.md
  drop_prepared
  printf -- '- version: %s\n  commit: ""\n' "$now" >> catalog/releases.yaml
  sed -i '/^  replaces: /d; /^    olm.skipRange: /d' $BASE
  entry="  - name: etcd-warden.v$now"
  if [ -n "$before" ]; then
    range=">=$before <$now"
    sed -i "s/^  annotations:\$/&\n    olm.skipRange: '$range'/; s/^  version: /  replaces: etcd-warden.v$before\n&/" $BASE
    entry+="\n    replaces: etcd-warden.v$before\n    skipRange: '$range'"
  fi
  edit_template -v line="${before:+  - name: etcd-warden.v$before}" -v entry="$entry" '
    here && !/^    / {print entry; here = 0}
    {print}
    $0 == (line ? line : "  entries:") {here = 1}
    END {if (here) print entry}'
  printf -- '- schema: olm.bundle\n  image: ghcr.io/etcd-warden/etcd-warden-bundle:v%s\n' "$now" >> catalog/template.yaml
  make -s bundle installer catalog
  echo "This tree prepares release $now. Look at the upgrade graph in catalog/template.yaml, and commit."
}

# drop_prepared removes a release that was prepared but not made from the catalog.
drop_prepared() {
  local gone; gone=$(prepared)
  [ -n "$gone" ] || return 0
  edit_template -v gone="etcd-warden.v$gone" '$0 == "  - name: " gone {here = 1; next} here && /^    / {next} {here = 0; print}'
  gone=${gone//./\\.}
  sed -i "/^- version: $gone\$/,/^  commit:/d" catalog/releases.yaml
  sed -i "/^- schema: olm.bundle\$/{N; /:v$gone\$/d}" catalog/template.yaml
}

# edit_template rewrites catalog/template.yaml with awk.
edit_template() {
  local edited; edited=$(awk "$@" catalog/template.yaml)
  printf '%s\n' "$edited" > catalog/template.yaml
}

# check_repository makes the checks that need no build.
check_repository() {
  cd "$ROOT"
  is_version "$RELEASE" || fail "$RELEASE is not a version: write X.Y.Z"
  ! git rev-parse -q --verify "refs/tags/v$RELEASE" > /dev/null || fail "$RELEASE is released already: the tag v$RELEASE exists. A release never changes; make the next one"
  ! released | grep -q "^$RELEASE " || fail "$RELEASE is released already, says catalog/releases.yaml. A release never changes; make the next one"
  [ "$(git symbolic-ref -q --short HEAD)" = $BRANCH ] || fail "releases are made of $BRANCH, and $(git rev-parse --abbrev-ref HEAD) is checked out: git checkout $BRANCH"
  [ -z "$(git status --porcelain)" ] || fail "the tree is not clean: commit or remove these" "$(git status --porcelain)"
  [ "$(prepared)" = "$RELEASE" ] && [ "$(tree_version)" = "$RELEASE" ] ||
    fail "the tree prepares release $(tree_version) (Makefile) and '$(prepared)' (catalog/releases.yaml), not $RELEASE: hack/release.sh prepare $RELEASE"
  newer "$RELEASE" "$(previous)" || fail "$RELEASE is not newer than the last release, $(previous)"
  while read -r version commit; do
    git cat-file -e "$commit^{commit}" 2> /dev/null || fail "the commit $commit of release $version is not in this clone: git fetch"
  done < <(released)
  check_tests
  check_changelog
  check_graph
}

# check_changelog sets DATE to the day that the changelog gives the release.
check_changelog() {
  DATE=$(sed -nE "s/^## \[${RELEASE//./\\.}\] - ([0-9]{4}-[0-9]{2}-[0-9]{2})\$/\1/p" CHANGELOG.md)
  [ -n "$DATE" ] && date -u -d "$DATE" > /dev/null 2>&1 || fail "CHANGELOG.md has no dated section for $RELEASE: write '## [$RELEASE] - $(date -u +%F)' above what is new in it"
  ! [[ $DATE > $(date -u +%F) ]] || fail "CHANGELOG.md dates $RELEASE to the future, $DATE: write the day of the release"
  section() { awk -v h="## [$1]" 'index($0, h) == 1 {on = 1; next} /^## / {on = 0} on && NF' CHANGELOG.md; }
  [ -n "$(section "$RELEASE")" ] || fail "CHANGELOG.md says nothing about $RELEASE"
  [ -z "$(section Unreleased)" ] || fail "CHANGELOG.md has changes under Unreleased, which would be in no release's notes: move them to $RELEASE"
}

# check_graph checks the release's entry in every channel, and the bundle. A first release has no edges.
# A later one replaces the newest release that it does not skip.
check_graph() {
  local before channel has
  if [ -z "$(previous)" ] && grep -qE '^(  replaces|    olm\.skipRange): ' $BASE; then
    fail "the bundle of $RELEASE has replaces or skipRange, but there is no earlier release: hack/release.sh prepare $RELEASE"
  fi
  for channel in $IN_CHANNELS; do
    has=$(edges_of "$channel")
    if [ -z "$(previous)" ]; then
      [ "$has" = entry ] ||
        fail "catalog/template.yaml has no entry in the channel $channel for $RELEASE without replaces, skips and skipRange, as a first release needs: hack/release.sh prepare $RELEASE"
      continue
    fi
    before=$(released | cut -d' ' -f1 | sed 's/^/etcd-warden.v/' | grep -vxF -f <(sed -n 's/^skips //p' <<< "$has") | tail -1 || true)
    [ -n "$before" ] && [ "$(sed -n 's/^replaces //p' <<< "$has")" = "$before" ] ||
      fail "catalog/template.yaml has no entry in the channel $channel with which $RELEASE replaces ${before:-a release}, the newest that it does not skip: hack/release.sh prepare $RELEASE"
    grep -qxF "  replaces: $before" $BASE || fail "the bundle of $RELEASE does not replace $before, as the channel $channel says: hack/release.sh prepare $RELEASE"
  done
}

# edges_of CHANNEL prints "entry" if the template's channel has the release.
# For its edges it prints "replaces NAME", "skips NAME" and "skipRange".
edges_of() {
  awk -v c="$1" -v n="etcd-warden.v$RELEASE" '
    $1 == "name:" {in_channel = $2 == c}
    $1 == "-" && $2 !~ /^etcd-warden[.]v/ {here = in_channel && $2 == "name:" && $3 == n; edge = ""; if (here) print "entry"}
    here && /^ +[a-zA-Z]+:/ {edge = substr($1, 1, length($1) - 1); if (edge == "skipRange") print edge}
    here && (edge == "replaces" || edge == "skips") {
      gsub(/[][,]/, " ")
      for (i = 1; i <= NF; i++) if ($i ~ /^etcd-warden[.]v/) print edge, $i
    }' catalog/template.yaml
}

# run_of prints how to run a suite.
run_of() { case $1 in *-full) echo "ETCD_WARDEN_TEST_FULL=true hack/test.sh ${1%-full}" ;; *) echo "hack/test.sh $1" ;; esac; }

# check_tests checks that each suite passed on this code. Only Markdown may have changed since.
# hack/test.sh records what passed.
check_tests() {
  local suite commit found
  for suite in ${RELEASE_SUITES-unit integration release e2e olm-full}; do
    found=''
    for commit in $(cd "$PASSED" 2> /dev/null && grep -lx "$suite" -- * 2> /dev/null || true); do
      if git diff --quiet "$commit" HEAD -- . ':!*.md' 2> /dev/null; then found=$commit; fi
    done
    [ -n "$found" ] || fail "the suite $suite has not passed on this code: $(run_of "$suite"), on the committed tree"
  done
}

# build makes the release in the clone, which is the current folder.
build() {
  step "Checking the CRDs against every release"
  make -s crd-check || fail "objects that users stored would be lost or refused: see above"
  step "Generating every file again"
  make -s verify || fail "generated files are out of date, or not valid: make verify, and commit what it changes"
  step "Dating the bundle"
  sed -i "s/^\( *createdAt: \).*/\1\"${DATE}T00:00:00Z\"/" $BASE
  make -s bundle bundle-validate installer catalog catalog-validate
  git add -A
  git commit -q --allow-empty -m "Release $RELEASE"
  git tag -m "Release $RELEASE" "v$RELEASE"
  step "Building the images"
  make -s release-images | tee "$WORK/images"
  step "Writing the release's commit down"
  sed -i "/^- version: ${RELEASE//./\\.}\$/{n; s/.*/  commit: $(git rev-parse HEAD)/}" catalog/releases.yaml
  make -s catalog catalog-validate
  git diff --quiet -- catalog/etcd-warden || fail "the catalog differs once the release's commit is known, which must not be"
  git commit -qam "Write the commit of release $RELEASE down"
}

step() { printf '\n== %s\n' "$*"; }

release() {
  check_repository
  WORK=$(mktemp -d)
  trap 'rm -rf "$WORK"' EXIT
  git clone -q --branch $BRANCH "$ROOT" "$WORK/clone"
  for key in user.name user.email; do git -C "$WORK/clone" config $key "$(git config $key || true)"; done
  (cd "$WORK/clone" && build)
  if [ "$DRY_RUN" = true ]; then
    echo "Release $RELEASE can be made. Nothing was changed."
    return
  fi
  # The tag comes last: with it the release is made, and cannot be made again.
  git fetch -q --no-tags "$WORK/clone" $BRANCH
  git merge -q --ff-only FETCH_HEAD || fail "$BRANCH cannot take over what was built: see above. Nothing is released; make the release again"
  git fetch -q --no-tags "$WORK/clone" "refs/tags/v$RELEASE:refs/tags/v$RELEASE"
  cat <<NEXT

Release $RELEASE is made. To publish it:
  git push origin $BRANCH v$RELEASE
$(while read -r folder image; do echo "  crane push --index $folder ${image%@*}"; done < "$WORK/images")
$(sed -nE "s/^(\S+) (\S+-catalog):.*/  crane push --index \1 \2:latest/p" "$WORK/images")
Then prepare the next release in this tree: hack/release.sh prepare X.Y.Z
NEXT
}

DRY_RUN=false
case "${1:-}" in
  prepare) [ $# = 2 ] || usage; prepare "$2" ;;
  --dry-run) [ $# = 2 ] || usage; DRY_RUN=true RELEASE=$2; release ;;
  '' | -*) usage ;;
  *) [ $# = 1 ] || usage; RELEASE=$1; release ;;
esac
