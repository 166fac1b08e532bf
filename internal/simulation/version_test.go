package simulation_test

import (
	"testing"
	"testing/cryptotest"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
)

// versions are those that a cluster is brought to, one after the other. Each step but the patches is a minor version.
var versions = []string{"3.5.35", "3.6.12", "3.6.16", "3.7.1", "3.7.3", "3.6.16", "3.5.35", "3.6.16", "3.7.3"}

func (h *history) bringTo(version string) {
	edit := func(spec *v1beta1.EtcdClusterSpec) { spec.Version = version }
	edit(&h.spec)
	h.editCluster(func(c *v1beta1.EtcdCluster) { edit(&c.Spec) })
}

func TestAClusterIsUpgradedAndDowngraded(t *testing.T) {
	cryptotest.SetGlobalRandom(t, 1)
	for _, size := range []int32{1, 3} {
		h := newHistory(size, size == 3)
		h.spec.Version = versions[0]
		for _, version := range versions {
			h.bringTo(version)
			h.settled(t)
			h.put()
			if got := h.cluster().Status.Version; got != version {
				t.Fatalf("%d members run %s, want %s: %+v", size, got, version, h.cluster().Status.Conditions)
			}
		}
	}
}
