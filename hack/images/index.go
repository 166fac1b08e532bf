package main

import (
	"errors"
	"flag"
	"fmt"
	"os"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// index joins archives of one image, each for another architecture, and writes them as a folder in OCI's layout.
func index(args []string) error {
	var tag, out string
	flags := flag.NewFlagSet("index", flag.ContinueOnError)
	flags.Usage = func() { fmt.Fprint(os.Stderr, usage) }
	flags.StringVar(&tag, "tag", "", "")
	flags.StringVar(&out, "out", "", "")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if tag == "" || out == "" || flags.NArg() == 0 {
		return errors.New("--tag, --out and at least one archive are needed")
	}
	joined, err := join(tag, flags.Args())
	if err != nil {
		return err
	}
	if err := os.RemoveAll(out); err != nil {
		return err
	}
	if _, err := layout.Write(out, joined); err != nil {
		return fmt.Errorf("writing %s: %w", out, err)
	}
	digest, err := joined.Digest()
	if err != nil {
		return err
	}
	fmt.Printf("%s %s@%s\n", out, tag, digest)
	return nil
}

// join makes an index of the images, one for each platform.
func join(tag string, archives []string) (v1.ImageIndex, error) {
	reference, err := name.NewTag(tag)
	if err != nil {
		return nil, fmt.Errorf("reading the image name: %w", err)
	}
	joined := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	seen := map[string]string{}
	for _, archive := range archives {
		image, err := tarball.ImageFromPath(archive, &reference)
		if err != nil {
			return nil, fmt.Errorf("reading %s: %w", archive, err)
		}
		config, err := image.ConfigFile()
		if err != nil {
			return nil, fmt.Errorf("reading %s: %w", archive, err)
		}
		platform := config.OS + "/" + config.Architecture
		if other, taken := seen[platform]; taken {
			return nil, fmt.Errorf("%s and %s are both for %s", other, archive, platform)
		}
		seen[platform] = archive
		joined = mutate.AppendManifests(joined, mutate.IndexAddendum{
			Add:        image,
			Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: config.OS, Architecture: config.Architecture}},
		})
	}
	return joined, nil
}
