package main

import (
	"archive/tar"
	"io"
	"log"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

// pushed pushes an image to a registry of its own and returns what a node would pull.
func pushed(t *testing.T, path string, args ...string) v1.Image {
	t.Helper()
	server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	t.Cleanup(server.Close)
	host := strings.TrimPrefix(server.URL, "http://")
	if err := run(append(args, "--out", filepath.Join(t.TempDir(), "out.tar"), "--push", host)); err != nil {
		t.Fatal(err)
	}
	tag, err := name.NewTag(host + "/" + path)
	if err != nil {
		t.Fatal(err)
	}
	image, err := remote.Image(tag)
	if err != nil {
		t.Fatal(err)
	}
	return image
}

func pathsIn(t *testing.T, image v1.Image) []string {
	t.Helper()
	content := mutate.Extract(image)
	defer func() { _ = content.Close() }()
	var paths []string
	for r := tar.NewReader(content); ; {
		header, err := r.Next()
		if err == io.EOF {
			slices.Sort(paths)
			return paths
		}
		if err != nil {
			t.Fatal(err)
		}
		paths = append(paths, header.Name)
	}
}

func labelsOf(t *testing.T, image v1.Image) map[string]string {
	t.Helper()
	config, err := image.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	return config.Config.Labels
}

func TestABundlesImageIsLabelledAsItsAnnotationsAsk(t *testing.T) {
	dir := t.TempDir()
	for _, sub := range []string{"manifests", "metadata"} {
		if err := os.Mkdir(filepath.Join(dir, sub), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	writeFile(t, filepath.Join(dir, "manifests", "csv.yaml"), "kind: ClusterServiceVersion")
	writeFile(t, filepath.Join(dir, "metadata", "annotations.yaml"), "annotations:\n  # a comment\n  operators.operatorframework.io.bundle.channels.v1: \"candidate,stable\"\n")
	image := pushed(t, "somebody/bundle:v1", "bundle", "--dir", dir, "--tag", "ghcr.io/somebody/bundle:v1")
	if got := labelsOf(t, image)["operators.operatorframework.io.bundle.channels.v1"]; got != "candidate,stable" {
		t.Errorf("the label is %q", got)
	}
	want := []string{"manifests", "manifests/csv.yaml", "metadata", "metadata/annotations.yaml"}
	if got := pathsIn(t, image); !slices.Equal(got, want) {
		t.Errorf("the image holds %v, want %v", got, want)
	}
}

func TestABundleWithoutAnnotationsIsRefused(t *testing.T) {
	if err := run([]string{"bundle", "--dir", t.TempDir(), "--tag", "localhost/bundle:1"}); err == nil {
		t.Error("it was built")
	}
}

func TestACatalogsImageHoldsNothingElse(t *testing.T) {
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "catalog.yaml"), "schema: olm.package")
	image := pushed(t, "somebody/catalog:1", "catalog", "--dir", dir, "--tag", "ghcr.io/somebody/catalog:1")
	if got := labelsOf(t, image)[indexLabel]; got != "/configs" {
		t.Errorf("the label is %q", got)
	}
	if got := pathsIn(t, image); !slices.Equal(got, []string{"configs", "configs/catalog.yaml"}) {
		t.Errorf("the image holds %v", got)
	}
}
