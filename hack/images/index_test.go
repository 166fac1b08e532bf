package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/v1/layout"
)

func TestAnIndexHoldsAnImageForEachPlatform(t *testing.T) {
	dir := t.TempDir()
	archives := []string{archiveFor(t, dir, "amd64"), archiveFor(t, dir, "arm64")}
	out := filepath.Join(dir, "index")
	if err := run(append([]string{"index", "--tag", "example.com/op:v1", "--out", out}, archives...)); err != nil {
		t.Fatal(err)
	}
	written, err := layout.ImageIndexFromPath(out)
	if err != nil {
		t.Fatal(err)
	}
	manifest, err := written.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	var platforms []string
	for _, m := range manifest.Manifests {
		platforms = append(platforms, m.Platform.String())
	}
	if got := strings.Join(platforms, " "); got != "linux/amd64 linux/arm64" {
		t.Errorf("the index is for %q", got)
	}
}

func TestAnIndexRefusesTwoImagesForOnePlatform(t *testing.T) {
	dir := t.TempDir()
	one := archiveFor(t, dir, "arm64")
	if _, err := join("example.com/op:v1", []string{one, one}); err == nil || !strings.Contains(err.Error(), "are both for linux/arm64") {
		t.Errorf("said %v", err)
	}
}

func archiveFor(t *testing.T, dir, arch string) string {
	t.Helper()
	binary, out := filepath.Join(dir, "binary-"+arch), filepath.Join(dir, arch+".tar")
	if err := os.WriteFile(binary, []byte(arch), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := run([]string{"operator", "--binary", binary, "--version", "1", "--tag", "example.com/op:v1", "--arch", arch, "--out", out}); err != nil {
		t.Fatal(err)
	}
	return out
}
