package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestCounts(t *testing.T) {
	const ok = `{"Action":"pass","Package":"p"}`
	const broken = `{"Action":"fail","Package":"p"}`
	tests := []struct {
		name   string
		events []string
		want   counts
	}{
		{"counts a test by its subtests", []string{
			`{"Action":"run","Package":"p","Test":"T"}`, `{"Action":"pass","Package":"p","Test":"T/a"}`,
			`{"Action":"skip","Package":"p","Test":"T/b"}`, `{"Action":"pass","Package":"p","Test":"T"}`, ok}, counts{passed: 1, skipped: 1}},
		{"counts a subtest with a slash in its name once", []string{
			`{"Action":"run","Package":"p","Test":"T"}`, `{"Action":"run","Package":"p","Test":"T/a/b"}`,
			`{"Action":"pass","Package":"p","Test":"T/a/b"}`, `{"Action":"pass","Package":"p","Test":"T"}`, ok}, counts{passed: 1}},
		{"counts a failed subtest once", []string{
			`{"Action":"run","Package":"p","Test":"T"}`, `{"Action":"run","Package":"p","Test":"T/a"}`,
			`{"Action":"fail","Package":"p","Test":"T/a"}`, `{"Action":"fail","Package":"p","Test":"T"}`, broken}, counts{failed: 1}},
		{"counts a test that failed beside its subtests", []string{
			`{"Action":"run","Package":"p","Test":"T"}`, `{"Action":"run","Package":"p","Test":"T/a"}`,
			`{"Action":"pass","Package":"p","Test":"T/a"}`, `{"Action":"fail","Package":"p","Test":"T"}`, broken}, counts{passed: 1, failed: 1}},
		{"counts a package that did not build as failed", []string{broken}, counts{failed: 1}},
		{"counts a package that never ended as failed", []string{
			`{"Action":"start","Package":"p"}`}, counts{failed: 1}},
		{"counts a test that never ended as failed", []string{
			`{"Action":"run","Package":"p","Test":"T"}`, broken}, counts{failed: 1}},
		{"counts nothing in a package without tests", []string{`{"Action":"skip","Package":"p"}`}, counts{}},
		{"counts a Ginkgo suite by its specs", []string{
			`{"Action":"output","Package":"p","Test":"T","Output":"\u001b[32mSUCCESS!\u001b[0m -- \u001b[32m12 Passed\u001b[0m | 0 Failed | 1 Pending | 2 Skipped\n"}`,
			`{"Action":"pass","Package":"p","Test":"T"}`, ok}, counts{passed: 12, skipped: 3}},
		{"counts the specs of the ginkgo command", []string{
			"Ran 3 of 4 Specs in 1.2 seconds", "SUCCESS! -- 3 Passed | 0 Failed | 0 Pending | 1 Skipped"}, counts{passed: 3, skipped: 1}},
		{"counts the steps of a script", []string{
			"ok    three nodes come up      8000 ms", "FAIL  down", "      ok    no step"}, counts{passed: 1, failed: 1}},
		{"counts a Ginkgo suite that failed outside its specs", []string{
			`{"Action":"output","Package":"p","Test":"T","Output":"FAIL! - Suite Timeout Elapsed -- 3 Passed | 0 Failed | 0 Pending | 9 Skipped\n"}`,
			`{"Action":"fail","Package":"p","Test":"T"}`, broken}, counts{passed: 3, failed: 1, skipped: 9}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := newResults()
			if err := r.read(strings.NewReader(strings.Join(tt.events, "\n")), func(event) {}); err != nil {
				t.Fatal(err)
			}
			if got := r.count(); got != tt.want {
				t.Errorf("got %+v, want %+v", got, tt.want)
			}
		})
	}
}

func TestSumFailsWhenASuiteRanNoTest(t *testing.T) {
	dir := t.TempDir()
	good, empty := filepath.Join(dir, "unit.json"), filepath.Join(dir, "e2e.json")
	write(t, good, `{"Action":"pass","Package":"p","Test":"T"}`+"\n"+`{"Action":"pass","Package":"p"}`+"\n")
	write(t, empty, `{"Action":"skip","Package":"q"}`+"\n")

	var out strings.Builder
	if err := sum([]string{good}, &out); err != nil || out.String() != "1 passed, 0 failed, 0 skipped\n" {
		t.Errorf("one good suite: %q, %v", out.String(), err)
	}
	out.Reset()
	if err := sum([]string{good, empty}, &out); err == nil || !strings.HasSuffix(out.String(), "\n1 passed, 1 failed, 0 skipped\n") {
		t.Errorf("an empty suite: %q, %v", out.String(), err)
	}
}

func TestShowPrintsTheOutputOfWhatFailed(t *testing.T) {
	events := `{"Action":"output","Package":"p","Test":"T","Output":"got 1, want 2\n"}
{"Action":"fail","Package":"p","Test":"T","Elapsed":0.1}
undefined: x
{"Action":"fail","Package":"p"}
`
	var out strings.Builder
	if err := show(strings.NewReader(events), &out); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"FAIL p T", "got 1, want 2", "undefined: x", "FAIL p: 0 passed, 1 failed"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is missing in:\n%s", want, out.String())
		}
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
