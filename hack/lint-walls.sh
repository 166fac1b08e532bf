#!/usr/bin/env bash
# Proves that the linter's configuration refuses what the import walls forbid, and long comment lines:
#   1. It writes files into an empty copy of the module's layout, each with one violation, and files without any.
#   2. It lints them once.
#   3. It fails unless the right linter reports every violation, and no linter reports the other files.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
LINTER=${LINTER:-$(hack/build-tools.sh dir golangci-lint)/golangci-lint}
MODULE=github.com/etcd-warden/etcd-warden
WORK=$(mktemp -d)
trap 'rm -rf "$WORK"' EXIT

# stub makes an empty package of another module, so that an import of it resolves without a download.
STUBS=()
stub() { # MODULE [SUBPACKAGE]
  local dir=$WORK/stubs/$1/${2:-}
  mkdir -p "$dir"
  printf 'package %s\n' "$(basename "${dir%/}" | tr -d '.-' | sed 's/^v[0-9]*$/stub/')" > "$dir/stub.go"
  if [ ! -f "$WORK/stubs/$1/go.mod" ]; then
    printf 'module %s\n\ngo 1.26\n' "$1" > "$WORK/stubs/$1/go.mod"
    STUBS+=("$1")
  fi
}

# put FILE PACKAGE writes standard input as a file of the package.
put() {
  mkdir -p "$WORK/module/$(dirname "$1")"
  { printf '// Package %s is here to be linted.\npackage %s\n\n' "$2" "$2"; cat; } > "$WORK/module/$1"
}

EXPECTED=() COUNT=0
refuse() { # FILE PACKAGE LINTER: standard input must be refused by LINTER
  put "$1" "$2"
  EXPECTED+=("$1 $3")
}
refuse_import() { # FOLDER IMPORT
  local name
  name=wall_$((COUNT += 1)).go
  refuse "$1/$name" "$(basename "$1")" depguard <<< "import _ \"$2\""
}
ALLOWED=()
allow() { # FILE PACKAGE: nothing may be reported in standard input
  put "$1" "$2"
  ALLOWED+=("$1")
}

stub k8s.io/client-go kubernetes
stub k8s.io/client-go tools/record
stub k8s.io/klog/v2
stub k8s.io/utils clock
stub github.com/go-logr/logr
stub sigs.k8s.io/controller-runtime pkg/client
stub go.etcd.io/etcd/client/v3
stub gocloud.dev blob
stub github.com/aws/aws-sdk-go-v2 aws
stub cloud.google.com/go/storage
stub github.com/Azure/azure-sdk-for-go/sdk/storage/azblob
for p in internal/observe internal/act internal/analyse internal/render internal/etcd/v3 internal/simulation controllers; do
  put "$p/doc.go" "$(basename "$p" | sed 's/^v3$/etcdv3/')" < /dev/null
done

for pure in internal/analyse internal/cluster internal/plan internal/render internal/status; do
  for import in context log log/slog net/http os crypto/rand k8s.io/client-go/kubernetes k8s.io/klog/v2 k8s.io/utils/clock \
    github.com/go-logr/logr sigs.k8s.io/controller-runtime/pkg/client go.etcd.io/etcd/client/v3 \
    $MODULE/internal/observe $MODULE/internal/act $MODULE/internal/etcd/v3 $MODULE/controllers; do
    refuse_import "$pure" "$import"
  done
  refuse "$pure/clock.go" "$(basename "$pure")" forbidigo << 'GO'
import "time"

var started = time.Now()
var elapsed = time.Since(started)
GO
done
refuse_import controllers $MODULE/internal/simulation
refuse internal/pki/clock.go pki forbidigo <<< $'import "time"\n\nvar started = time.Now()'

for folder in api/v1alpha1 cmd controllers internal/act internal/observe internal/etcd internal/backup; do
  refuse_import "$folder" go.etcd.io/etcd/client/v3
  refuse_import "$folder" gocloud.dev/blob
  refuse_import "$folder" github.com/aws/aws-sdk-go-v2/aws
  refuse_import "$folder" cloud.google.com/go/storage
  refuse_import "$folder" github.com/Azure/azure-sdk-for-go/sdk/storage/azblob
done
refuse_import controllers $MODULE/internal/etcd/v3
refuse_import internal/plan $MODULE/internal/analyse
refuse_import internal/plan $MODULE/internal/render
refuse_import internal/act/restart $MODULE/internal/analyse # a folder of its own, because analyse imports act above
refuse_import api/v1alpha1 sigs.k8s.io/controller-runtime/pkg/client
refuse_import api/v1alpha1 k8s.io/client-go/tools/record
refuse_import api/v1alpha1 $MODULE/internal/act
refuse_import internal/conversion sigs.k8s.io/controller-runtime/pkg/client
refuse_import internal/conversion $MODULE/internal/cluster

refuse internal/act/sleep.go act forbidigo <<< $'import "time"\n\nfunc init() { time.Sleep(1) }'
refuse internal/act/sum.go act gochecksumtype << 'GO'
// Step is one of two.
//
//sumtype:decl
type Step interface{ step() }

// One is a step.
type One struct{}

// Two is a step.
type Two struct{}

func (One) step() {}
func (Two) step() {}

// Name forgets one of them.
func Name(s Step) string {
	switch s.(type) {
	case One:
		return "one"
	}
	return ""
}
GO
refuse internal/act/enum.go act exhaustive << 'GO'
// Role is one of two.
type Role string

// The roles.
const (
	Voter   Role = "Voter"
	Learner Role = "Learner"
)

// Counts forgets one of them.
func Counts(r Role) bool {
	switch r {
	case Voter:
		return true
	}
	return false
}
GO
refuse internal/act/comment.go act revive <<< 'func Exported() {}'
refuse internal/act/unchecked.go act errcheck <<< $'import "os"\n\nfunc init() { os.Remove("x") }'

long=$(printf 'a long line %.0s' {1..12})
refuse internal/webhook/long.go webhook lll <<< "var _ = 1 // $long"
refuse api/v1beta1/long.go v1beta1 lll <<< "// $long
const _ = 1"
refuse test/e2e/long_test.go e2e lll <<< "// $long
const _ = 1"
allow internal/webhook/code.go webhook <<< "const _ = \"https://example.com/${long// /}\""
allow api/v1beta1/marker.go v1beta1 << GO
// +kubebuilder:validation:XValidation:rule="$long",message="a marker is one line"

// Size is explained at
// https://example.com/${long// /}
const Size = 1
GO

allow internal/etcd/v3/client.go etcdv3 <<< 'import _ "go.etcd.io/etcd/client/v3" // the port'
allow internal/objectstore/store.go objectstore << 'GO'
import (
	_ "cloud.google.com/go/storage" // a store
	_ "gocloud.dev/blob"            // a store
)
GO
allow internal/observe/observe.go observe << 'GO'
import (
	"context"
	"time"

	_ "k8s.io/client-go/kubernetes" // reads
)

// Now asks the clock.
func Now(context.Context) time.Time { return time.Now() }
GO
allow internal/analyse/analyse_test.go analyse << 'GO'
import (
	"context"
	"testing"
	"time"
)

func TestMayUseTheClock(t *testing.T) {
	if context.Background().Err() != nil || time.Now().IsZero() {
		t.Fail()
	}
}
GO

cp .golangci.yml "$WORK/module/"
{
  printf 'module %s\n\ngo 1.26\n' "$MODULE"
  for m in "${STUBS[@]}"; do
    case $m in */v2 | *-v2) v=v2.0.0 ;; */v3) v=v3.0.0 ;; *) v=v0.0.0 ;; esac
    case $m in *-v2) v=v0.0.0 ;; esac
    printf 'require %s %s\nreplace %s => ../stubs/%s\n' "$m" "$v" "$m" "$m"
  done
} > "$WORK/module/go.mod"

report=$WORK/report
(cd "$WORK/module" && GOFLAGS=-mod=mod GOWORK=off GOPROXY=off "$LINTER" run --allow-parallel-runners \
  --output.text.path "$report" --output.text.print-issued-lines=false --output.text.colors=false ./... > "$WORK/log" 2>&1) || true
[ -s "$report" ] || { echo "lint-walls: the linter reported nothing:"; cat "$WORK/log"; exit 1; }

bad=0
for e in "${EXPECTED[@]}"; do
  grep -q "^${e% *}:.*(${e#* })\$" "$report" || { echo "lint-walls: not refused by ${e#* }: ${e% *}"; cat "$WORK/module/${e% *}"; bad=1; }
done
for file in "${ALLOWED[@]}"; do
  if grep "^$file:" "$report"; then echo "lint-walls: refused, but allowed: $file"; bad=1; fi
done
[ $bad = 0 ] || exit 1
echo "lint-walls: ${#EXPECTED[@]} violations refused, ${#ALLOWED[@]} exceptions allowed"
