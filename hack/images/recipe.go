package main

import (
	"archive/tar"
	"bytes"
	"cmp"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// recipe lists what an image holds. Paths have no leading slash; parents come first in dirs.
// A volatile one is made anew each time: of a folder, the files' times do not tell whether one was removed.
type recipe struct {
	tag      string
	volatile bool
	dirs     []string
	files    []file
	links    []link
	config   v1.Config
	// arch is the kind of machine, this one's without it.
	arch string
}

// file is an executable unless it says that it is plain. It has the content of source, or the text.
type file struct {
	path, source, text string
	plain              bool
}

func (f file) content() ([]byte, error) {
	if f.source == "" {
		return []byte(f.text), nil
	}
	return os.ReadFile(f.source)
}

type link struct{ path, target string }

// isWritten reports whether the archive at path is of this name and newer than everything in it,
// this program included.
func (r recipe) isWritten(path string) bool {
	archive, err := os.Stat(path)
	if err != nil || r.volatile {
		return false
	}
	program, err := os.Executable()
	if err != nil {
		return false
	}
	sources := []string{program}
	for _, f := range r.files {
		if f.source != "" {
			sources = append(sources, f.source)
		}
	}
	for _, source := range sources {
		info, err := os.Stat(source)
		if err != nil || !info.ModTime().Before(archive.ModTime()) {
			return false
		}
	}
	manifest, err := tarball.LoadManifest(func() (io.ReadCloser, error) { return os.Open(path) })
	return err == nil && len(manifest) == 1 && slices.Equal(manifest[0].RepoTags, []string{r.tag})
}

// writeArchive builds the image and puts it at path, whole or not at all.
func (r recipe) writeArchive(path string) error {
	tag, err := name.NewTag(r.tag)
	if err != nil {
		return fmt.Errorf("reading the image name: %w", err)
	}
	image, err := r.build()
	if err != nil {
		return fmt.Errorf("building %s: %w", r.tag, err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	out, err := os.CreateTemp(filepath.Dir(path), ".image-*")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(out.Name()) }()
	err = tarball.Write(tag, image, out)
	if closeErr := out.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return fmt.Errorf("writing %s: %w", r.tag, err)
	}
	if err := os.Chmod(out.Name(), 0o644); err != nil {
		return err
	}
	return os.Rename(out.Name(), path)
}

// build makes one layer of everything. All times are zero, so the digest tells the content.
func (r recipe) build() (v1.Image, error) {
	content, err := r.layer()
	if err != nil {
		return nil, err
	}
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(content)), nil
	}, tarball.WithCompressionLevel(1))
	if err != nil {
		return nil, err
	}
	image, err := mutate.AppendLayers(empty.Image, layer)
	if err != nil {
		return nil, err
	}
	config, err := image.ConfigFile()
	if err != nil {
		return nil, err
	}
	config = config.DeepCopy()
	config.OS, config.Architecture, config.Config = "linux", cmp.Or(r.arch, runtime.GOARCH), r.config
	return mutate.ConfigFile(image, config)
}

func (r recipe) layer() ([]byte, error) {
	var buffer bytes.Buffer
	w := tar.NewWriter(&buffer)
	for _, dir := range r.dirs {
		mode := int64(0o755)
		if dir == "tmp" {
			mode = 0o1777
		}
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: dir + "/", Mode: mode}); err != nil {
			return nil, err
		}
	}
	for _, f := range r.files {
		data, err := f.content()
		if err != nil {
			return nil, err
		}
		mode := int64(0o755)
		if f.plain {
			mode = 0o644
		}
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: f.path, Mode: mode, Size: int64(len(data))}); err != nil {
			return nil, err
		}
		if _, err := w.Write(data); err != nil {
			return nil, err
		}
	}
	for _, l := range r.links {
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeSymlink, Name: l.path, Linkname: l.target, Mode: 0o777}); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil { // before the bytes are taken: it writes the archive's end
		return nil, err
	}
	return buffer.Bytes(), nil
}
