// Package examples proves what the schema alone cannot: that the operator obeys every field of the examples.
// Their schema is checked by hack/crdcheck.
package examples

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/internal/cluster"
	"github.com/etcd-warden/etcd-warden/internal/render"
)

func TestNoExampleHasAnOptionThatIsRefused(t *testing.T) {
	seen := 0
	for path, c := range clusters(t) {
		seen++
		for _, refused := range render.RefusedOptions(cluster.IntentOf(&c)) {
			t.Errorf("%s: option %s: %s", path, refused.Name, refused.Why)
		}
	}
	if seen == 0 {
		t.Error("no example was read")
	}
}

func TestExamplesCanBeAppliedBesideEachOther(t *testing.T) {
	names := map[string]string{}
	for path, c := range clusters(t) {
		if other, taken := names[c.Name]; taken {
			t.Errorf("%s and %s both make the cluster %s", path, other, c.Name)
		}
		names[c.Name] = path
	}
}

// The demo builds the image of this version and applies an example.
func TestExamplesHaveTheNewestPatchThatIsTested(t *testing.T) {
	found := 0
	err := filepath.WalkDir(".", func(path string, _ fs.DirEntry, err error) error {
		if err != nil || filepath.Ext(path) != ".yaml" {
			return err
		}
		raw, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for _, version := range etcdVersion.FindAllStringSubmatch(string(raw), -1) {
			found++
			pins, err := os.ReadFile("../hack/tools/etcd-" + cluster.MinorOf(version[1]) + "/go.mod")
			if err != nil || !strings.Contains(string(pins), "go.etcd.io/etcd/server/v3 v"+version[1]+" ") {
				t.Errorf("%s has etcd %s, and hack/tools pins another patch (%v)", path, version[1], err)
			}
		}
		return nil
	})
	if err != nil || found == 0 {
		t.Errorf("%d versions of etcd in the examples: %v", found, err)
	}
}

var etcdVersion = regexp.MustCompile(`(?m)(?:^  version: |/etcd:v)(\d+\.\d+\.\d+)$`)

// clusters reads the v1beta1 clusters of every example, by file.
func clusters(t *testing.T) map[string]v1beta1.EtcdCluster {
	t.Helper()
	found := map[string]v1beta1.EtcdCluster{}
	err := filepath.WalkDir(".", func(path string, _ fs.DirEntry, err error) error {
		if err != nil || filepath.Ext(path) != ".yaml" {
			return err
		}
		raw, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for _, document := range bytes.Split(raw, []byte("\n---\n")) {
			if !strings.Contains(string(document), v1beta1.GroupVersion.String()) {
				continue
			}
			var c v1beta1.EtcdCluster
			if err := yaml.UnmarshalStrict(document, &c); err != nil {
				return err
			}
			found[path] = c
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}
