// Package examples proves what the schema alone cannot: that the operator obeys every field of the examples.
// Their schema is checked by hack/crdcheck.
package examples

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
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

var etcdVersion = regexp.MustCompile(`(?m)(?:^  version: |/etcd:v|^        value: )(\d+\.\d+\.\d+)(?: #.*)?$`)

// monitor is what this test reads of a PodMonitor or a ServiceMonitor. Their schema is checked by hack/monitoring.
type monitor struct {
	Metadata metav1.ObjectMeta
	Spec     struct {
		Selector            metav1.LabelSelector
		PodMetricsEndpoints []endpoint
		Endpoints           []endpoint
	}
}

type endpoint struct{ Port, Path, Scheme string }

func TestTheMonitorOfTheMembersFindsTheirPodsAndNoOthers(t *testing.T) {
	m := read[monitor](t, "monitoring/members.yaml")
	c := &v1beta1.EtcdCluster{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "prod"}}
	c.Spec = v1beta1.EtcdClusterSpec{Replicas: 3, Version: "3.6.16"}
	member := render.MemberStatefulSet(render.MemberInput{Cluster: c, Name: "prod-0", Intent: cluster.IntentOf(c)}).Spec.Template
	if !selects(t, &m.Spec.Selector, member.Labels) {
		t.Errorf("%v are not selected", member.Labels)
	}
	check := render.ImageCheckPod(c, cluster.IntentOf(c), "operator:v1")
	if selects(t, &m.Spec.Selector, check.Labels) {
		t.Errorf("%v are selected: this pod has no metrics", check.Labels)
	}
	want := endpoint{Port: "metrics", Path: "/metrics", Scheme: "http"}
	if got := m.Spec.PodMetricsEndpoints; len(got) != 1 || got[0] != want {
		t.Errorf("got %+v", got)
	}
	if !slices.ContainsFunc(member.Spec.Containers[0].Ports, func(p corev1.ContainerPort) bool {
		return p.Name == want.Port && p.ContainerPort == cluster.MetricsPort
	}) {
		t.Errorf("no port of %+v has the name %s", member.Spec.Containers[0].Ports, want.Port)
	}
}

func TestTheMonitorOfTheOperatorFindsItsService(t *testing.T) {
	m := read[monitor](t, "monitoring/operator.yaml")
	service := read[corev1.Service](t, "../config/default/metrics_service.yaml")
	if !selects(t, &m.Spec.Selector, service.Labels) {
		t.Errorf("%v are not selected", service.Labels)
	}
	want := endpoint{Port: service.Spec.Ports[0].Name, Path: "/metrics", Scheme: "https"}
	if got := m.Spec.Endpoints; len(got) != 1 || got[0] != want {
		t.Errorf("wanted %+v, got %+v", want, got)
	}
	webhook := read[corev1.Service](t, "../config/webhook/service.yaml")
	if selects(t, &m.Spec.Selector, webhook.Labels) {
		t.Errorf("%v are selected: the webhook has no metrics", webhook.Labels)
	}
	installed := read[struct{ Namespace string }](t, "../config/default/kustomization.yaml").Namespace
	if m.Metadata.Namespace != installed {
		t.Errorf("it is in %s, and the operator in %s", m.Metadata.Namespace, installed)
	}
}

func selects(t *testing.T, selector *metav1.LabelSelector, of map[string]string) bool {
	t.Helper()
	s, err := metav1.LabelSelectorAsSelector(selector)
	if err != nil {
		t.Fatal(err)
	}
	return !s.Empty() && s.Matches(labels.Set(of))
}

// read decodes a file that holds one object.
func read[T any](t *testing.T, file string) T {
	t.Helper()
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var object T
	if err := yaml.Unmarshal(raw, &object); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	return object
}

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
			if !strings.HasPrefix(string(document), "apiVersion: "+v1beta1.GroupVersion.String()) && !strings.Contains(string(document), "\napiVersion: "+v1beta1.GroupVersion.String()) {
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
