package main

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"sigs.k8s.io/yaml"
)

// unprivileged is whom OLM's images run as.
const unprivileged = "1001:0"

// bundleImage is what OLM unpacks: the bundle's folders, and its annotations as labels.
func bundleImage(dir, tag string) (recipe, error) {
	if dir == "" || tag == "" {
		return recipe{}, fmt.Errorf("--dir and --tag are needed")
	}
	labels, err := bundleLabels(filepath.Join(dir, "metadata", "annotations.yaml"))
	if err != nil {
		return recipe{}, err
	}
	r := recipe{tag: tag, volatile: true, config: v1.Config{Labels: labels}}
	return r, r.addTree(dir, "")
}

func bundleLabels(path string) (map[string]string, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("reading the bundle's annotations: %w", err)
	}
	var metadata struct {
		Annotations map[string]string `json:"annotations"`
	}
	if err := yaml.Unmarshal(content, &metadata); err != nil {
		return nil, fmt.Errorf("reading the bundle's annotations in %s: %w", path, err)
	}
	if len(metadata.Annotations) == 0 {
		return nil, fmt.Errorf("%s has no annotations", path)
	}
	return metadata.Annotations, nil
}

// catalogImage holds the catalog alone: OLM extracts it and serves it with opm's image.
func catalogImage(dir, tag string) (recipe, error) {
	if dir == "" || tag == "" {
		return recipe{}, fmt.Errorf("--dir and --tag are needed")
	}
	r := recipe{tag: tag, volatile: true, dirs: []string{"configs"}, config: v1.Config{
		Labels: map[string]string{indexLabel: "/configs"},
	}}
	return r, r.addTree(dir, "configs")
}

// indexLabel says where an image holds its catalog.
const indexLabel = "operators.operatorframework.io.index.configs.v1"

// olmImage holds the two operators and what they have other pods run.
func olmImage(binaries string) (recipe, error) {
	r, err := toolImage("localhost/olm:1", binaries, "olm", "catalog", "cpb", "copy-content")
	r.config.Env = []string{"PATH=/bin"}
	return r, err
}

// opmImage builds the image that unpacks bundles and serves catalogs.
// It has a shell, because `operator-sdk run bundle` needs one. It starts with an empty catalog.
func opmImage(binaries string) (recipe, error) {
	r, err := toolImage("localhost/opm:1", binaries, "opm", "grpc-health-probe=grpc_health_probe")
	r.dirs = append(r.dirs, "configs")
	r.config.Env = []string{"PATH=/bin"}
	r.config.Entrypoint = []string{"/bin/opm"}
	r.config.Labels = map[string]string{indexLabel: "/configs"}
	return r, err
}

func scorecardImage(binaries string) (recipe, error) {
	r, err := toolImage("localhost/scorecard-test:1", binaries, "scorecard-test")
	r.config.Entrypoint = []string{"/bin/scorecard-test"}
	return r, err
}

// toolImage holds a shell and binaries, each by its name or as built=wanted.
func toolImage(tag, binaries string, names ...string) (recipe, error) {
	if binaries == "" {
		return recipe{}, fmt.Errorf("--binaries is needed")
	}
	r := recipe{tag: tag, dirs: []string{"bin", "tmp"}, config: v1.Config{User: unprivileged}}
	r.addShell("/bin/busybox")
	for _, name := range names {
		built, wanted, renamed := strings.Cut(name, "=")
		if !renamed {
			wanted = built
		}
		r.files = append(r.files, file{path: "bin/" + wanted, source: filepath.Join(binaries, built)})
	}
	return r, nil
}

// addTree adds a folder's content below a path of the image.
func (r *recipe) addTree(dir, below string) error {
	return filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		inside := filepath.Join(below, strings.TrimPrefix(path, filepath.Clean(dir)+string(filepath.Separator)))
		if entry.IsDir() {
			r.dirs = append(r.dirs, inside)
			return nil
		}
		r.files = append(r.files, file{path: inside, source: path, plain: true})
		return nil
	})
}
