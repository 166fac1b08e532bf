//go:build integration

package etcd

import (
	"testing"

	"github.com/etcd-warden/etcd-warden/internal/etcd"
	"github.com/etcd-warden/etcd-warden/internal/etcd/fake"
	"github.com/etcd-warden/etcd-warden/internal/etcd/rules"
)

func TestRealMembersKeepTheRules(t *testing.T) {
	for _, minor := range minors {
		t.Run("etcd "+minor, func(t *testing.T) {
			t.Parallel() // most of the time is spent on waiting for members that do not answer
			rules.Run(t, func(t *testing.T) rules.Lab { return newLab(t, minor) })
		})
	}
}

func TestRealMembersKeepTheRulesOfVersions(t *testing.T) {
	t.Parallel()
	rules.RunVersions(t, func(t *testing.T) rules.Lab {
		t.Parallel() // most of the time is spent on waiting for leaders to compare versions
		return newLab(t, "3.6")
	})
}

func TestTheModelComputesTheIDsThatRealMembersDo(t *testing.T) {
	names := []string{"prod-0", "prod-1", "prod-2"}
	eachMinor(t, func(t *testing.T, l *lab) {
		l.found(t, names...)
		model := fake.New()
		list := map[string]string{}
		for _, name := range names {
			list[name] = l.peerURL(name)
		}
		for _, name := range names {
			if err := model.Start(fake.StartOptions{Address: l.address(name), Name: name, PeerURL: list[name],
				InitialCluster: list, State: fake.StateNew, Token: "token", Volume: name}); err != nil {
				t.Fatal(err)
			}
		}
		for _, name := range names {
			want := l.serves(t, name)
			got, err := model.Probe(t.Context(), etcd.Endpoint{Address: l.address(name)})
			if err != nil || got.ClusterID != want.ClusterID || got.MemberID != want.MemberID {
				t.Errorf("the model says %+v, %v of %s; etcd %+v", got, err, name, want)
			}
		}
	})
}
