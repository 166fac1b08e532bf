//go:build integration

package integration

import (
	"os/exec"
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"
)

// release010 is the commit of release 0.1.0.
const release010 = "298eb0949b5243e1aaa6a43eb08b77a387eb54ec"

// docs/upgrade.md tells users so.
func TestTheCRDOfRelease010CannotTakeThePlaceOfThisOne(t *testing.T) {
	git := exec.Command("git", "-C", root, "show", release010+":config/crd/bases/operator.etcd-warden.io_etcdclusters.yaml")
	raw, err := git.Output()
	if err != nil {
		t.Fatalf("reading the CRD of 0.1.0 (is its commit in this clone?): %v", err)
	}
	old, present := &unstructured.Unstructured{}, &unstructured.Unstructured{}
	must(t, yaml.Unmarshal(raw, &old.Object))
	present.SetGroupVersionKind(old.GroupVersionKind())
	must(t, admin.Get(t.Context(), client.ObjectKeyFromObject(old), present))
	old.SetResourceVersion(present.GetResourceVersion())
	err = admin.Update(t.Context(), old, client.DryRunAll)
	if !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), "status.storedVersions") || !strings.Contains(err.Error(), "v1beta1") {
		t.Errorf("want it refused for the stored version v1beta1, got %v", err)
	}
}
