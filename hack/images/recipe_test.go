package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

func writeFile(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return content
}

func TestTheSameFilesGiveTheSameArchive(t *testing.T) {
	dir := t.TempDir()
	binary := filepath.Join(dir, "binary")
	writeFile(t, binary, "program")
	first, second := filepath.Join(dir, "first.tar"), filepath.Join(dir, "second.tar")
	if err := run([]string{"operator", "--version", "0.1.0", "--binary", binary, "--out", first}); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(binary, time.Unix(1, 0), time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	if err := run([]string{"operator", "--version", "0.1.0", "--binary", binary, "--out", second}); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(read(t, first), read(t, second)) {
		t.Error("the archives differ")
	}
}

func TestAnArchiveIsWrittenAgainWhenItsNameOrContentChanges(t *testing.T) {
	dir := t.TempDir()
	binary, out := filepath.Join(dir, "binary"), filepath.Join(dir, "out.tar")
	writeFile(t, binary, "program")
	r, err := operatorImage("0.1.0", binary)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.writeArchive(out); err != nil {
		t.Fatal(err)
	}
	future := time.Now().Add(time.Hour)
	if err := os.Chtimes(out, future, future); err != nil {
		t.Fatal(err)
	}
	if !r.isWritten(out) {
		t.Error("an archive newer than its content counts as missing")
	}
	if err := os.Chtimes(binary, future, future); err != nil {
		t.Fatal(err)
	}
	if r.isWritten(out) {
		t.Error("an archive no newer than its content counts as written")
	}
	r.tag, r.files = "localhost/other:1", nil
	if r.isWritten(out) {
		t.Error("an archive of another name counts as written")
	}
}

func TestTheOperatorsImageRunsUnprivileged(t *testing.T) {
	dir := t.TempDir()
	binary, out := filepath.Join(dir, "binary"), filepath.Join(dir, "out.tar")
	writeFile(t, binary, "program")
	if err := run([]string{"operator", "--version", "0.1.0", "--binary", binary, "--out", out}); err != nil {
		t.Fatal(err)
	}
	tag, err := name.NewTag("ghcr.io/etcd-warden/etcd-warden:v0.1.0")
	if err != nil {
		t.Fatal(err)
	}
	image, err := tarball.ImageFromPath(out, &tag)
	if err != nil {
		t.Fatal(err)
	}
	config, err := image.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	if config.Config.User != "65532:65532" {
		t.Errorf("user is %q", config.Config.User)
	}
	if got := config.Config.Labels["org.opencontainers.image.version"]; got != "v0.1.0" {
		t.Errorf("version label is %q", got)
	}
}

func TestWhatIsMissingIsNamed(t *testing.T) {
	for _, args := range [][]string{
		{}, {"unknown"}, {"operator", "--version", "0.1.0"}, {"etcd"}, {"failing-etcd"}, {"pause"},
		{"etcd", "--version", "3.6.16", "--binaries", "/nowhere", "--out", filepath.Join(t.TempDir(), "out.tar")},
	} {
		if err := run(args); err == nil {
			t.Errorf("images %v succeeds", args)
		}
	}
}

func TestALayerIsAWholeArchive(t *testing.T) {
	binary := filepath.Join(t.TempDir(), "binary")
	writeFile(t, binary, "odd")
	r, err := operatorImage("0.1.0", binary)
	if err != nil {
		t.Fatal(err)
	}
	layer, err := r.layer()
	if err != nil {
		t.Fatal(err)
	}
	const end = 1024 // two blocks of zeros
	if len(layer)%512 != 0 || !bytes.HasSuffix(layer, make([]byte, end)) {
		t.Errorf("a layer of %d bytes does not end as an archive does", len(layer))
	}
}

func TestTheFailingEtcdEndsWhereItsVolumeSaysSo(t *testing.T) {
	r, err := failingImage("3.6.99", "/binaries")
	if err != nil {
		t.Fatal(err)
	}
	if r.tag != "gcr.io/etcd-development/etcd:v3.6.99-failing" {
		t.Errorf("its tag is %s", r.tag)
	}
	dir := t.TempDir()
	fail, program := filepath.Join(dir, "fail"), filepath.Join(dir, "etcd")
	writeFile(t, program, strings.ReplaceAll(r.files[len(r.files)-1].text, "/var/etcd/fail", fail))
	writeFile(t, filepath.Join(dir, "working-etcd"), "#!/bin/sh\necho working \"$@\"\n[ \"$1\" = --version ] || [ ! -s "+fail+" ] || exec sleep 60\n")
	if err := os.Chmod(filepath.Join(dir, "working-etcd"), 0o755); err != nil {
		t.Fatal(err)
	}
	run := func(argument string) (string, error) {
		command := exec.Command("sh", program, argument)
		command.Env = append(os.Environ(), "PATH="+dir+":"+os.Getenv("PATH"))
		output, err := command.CombinedOutput()
		return string(output), err
	}
	if output, err := run("--name=prod-0"); output != "working --name=prod-0\n" || err != nil {
		t.Errorf("it does not start: %q, %v", output, err)
	}
	writeFile(t, fail, "0\n")
	if output, err := run("--version"); output != "working --version\n" || err != nil {
		t.Errorf("it does not tell its version: %q, %v", output, err)
	}
	if output, err := run("--name=prod-0"); !strings.HasPrefix(output, "panic") || err == nil {
		t.Errorf("it starts: %q, %v", output, err)
	}
	writeFile(t, fail, "1\n")
	if output, err := run("--name=prod-0"); !strings.Contains(output, "working --name=prod-0\n") || !strings.Contains(output, "\npanic") || err == nil {
		t.Errorf("it does not fail after a second: %q, %v", output, err)
	}
}

func TestAnEtcdMayHaveTheClientsOfAnotherBuild(t *testing.T) {
	t.Setenv("ETCD_WARDEN_CACHE", "/cache")
	r, err := etcdImage("3.6.12", "3.6.16", "")
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"/cache/etcd-3.6.12/etcd", "/cache/etcd-3.6.16/etcdctl", "/cache/etcd-3.6.16/etcdutl"}
	for i, f := range r.files {
		if f.source != want[i] {
			t.Errorf("%s is %s, want %s", f.path, f.source, want[i])
		}
	}
}
