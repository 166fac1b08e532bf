//go:build integration

package webhook

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"
	rbacv1 "k8s.io/api/rbac/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/internal/failpoint"
	"github.com/etcd-warden/etcd-warden/internal/migrate"
	"github.com/etcd-warden/etcd-warden/internal/webhook"
)

// legacy are clusters that were made while v1alpha1 was stored.
var legacy = []string{"one", "two", "three"}

// newMigrationLab has clusters stored in v1alpha1, one in v1beta1, and a webhook that converts.
func newMigrationLab(t *testing.T) (*lab, *pod) {
	t.Helper()
	l := newLab(t)
	l.storeAs("v1alpha1")
	for _, name := range legacy {
		must(t, admin.Create(t.Context(), newAlpha(name)))
	}
	l.storeAs("v1beta1")
	setStoredVersions(t, "v1alpha1", "v1beta1")
	p := l.serve(l.options())
	l.create(newBeta("four"))
	for _, name := range legacy {
		l.expectStored(name, "v1alpha1")
	}
	return l, p
}

// finish runs migrations until one succeeds: the API server itself may still write the CRD.
func finish(t *testing.T, c client.Client) {
	t.Helper()
	eventually(t, "the migration is done", func() error { return migration(c).Run(t.Context()) })
}

func setStoredVersions(t *testing.T, versions ...string) {
	t.Helper()
	eventually(t, "the stored versions are written", func() error {
		crd := getCRD(t)
		crd.Status.StoredVersions = versions
		return admin.Status().Update(t.Context(), crd)
	})
}

func migration(c client.Client) *migrate.Migration {
	return &migrate.Migration{Client: c, Live: admin, CRD: webhook.CRD, Version: v1beta1.GroupVersion.WithKind("EtcdCluster")}
}

// migrator writes with the rights that release 0.3.0 gives to the operator.
func migrator(t *testing.T) client.Client {
	t.Helper()
	role := &rbacv1.ClusterRole{
		TypeMeta:   metav1.TypeMeta{Kind: "ClusterRole"},
		ObjectMeta: metav1.ObjectMeta{Name: "migration"},
		Rules:      migrate.Rights,
	}
	must(t, client.IgnoreAlreadyExists(bind(t.Context(), "", role)))
	c, err := client.New(operatorConfig, client.Options{Scheme: scheme})
	must(t, err)
	return c
}

func (l *lab) expectMigrated() {
	l.Helper()
	for _, name := range append(slices.Clone(legacy), "four") {
		l.expectStored(name, "v1beta1")
		must(l.T, readBoth(l.Context(), name))
	}
	if stored := getCRD(l.T).Status.StoredVersions; !slices.Equal(stored, []string{"v1beta1"}) {
		l.Errorf("the CRD says that %v are stored", stored)
	}
}

func TestAMigrationRewritesWhatIsStoredInTheOldVersion(t *testing.T) {
	l, _ := newMigrationLab(t)
	finish(t, migrator(t))
	l.expectMigrated()
	versions := map[string]int64{}
	for key, kv := range l.revisions() {
		versions[key] = kv
	}
	setStoredVersions(t, "v1alpha1", "v1beta1")
	finish(t, migrator(t))
	for key, revision := range l.revisions() {
		if versions[key] != revision {
			t.Errorf("%s was written again", key)
		}
	}
	must(t, admin.Create(t.Context(), newAlpha("five")))
	l.expectStored("five", "v1beta1")
}

// TestAMigrationThatCrashesIsFinishedByTheNext crashes before and after each write. At no moment does the CRD say more than is true.
func TestAMigrationThatCrashesIsFinishedByTheNext(t *testing.T) {
	var writes []failpoint.Write
	newMigrationLab(t)
	recorder := failpoint.Wrap(migrator(t), failpoint.Hooks{Before: func(w failpoint.Write) error { writes = append(writes, w); return nil }})
	finish(t, recorder)
	if len(writes) < len(legacy)+1 {
		t.Fatalf("only %v were written", writes)
	}
	for _, w := range writes {
		for _, before := range []bool{true, false} {
			t.Run(fmt.Sprintf("before=%t of %s", before, w), func(t *testing.T) {
				l, _ := newMigrationLab(t)
				die := func(at failpoint.Write, now bool) error {
					if at == w && now == before {
						return errDead
					}
					return nil
				}
				dying := failpoint.Wrap(migrator(t), failpoint.Hooks{
					Before: func(at failpoint.Write) error { return die(at, true) },
					After:  func(at failpoint.Write, err error) error { return errors.Join(die(at, false), err) },
				})
				if err := migration(dying).Run(t.Context()); !errors.Is(err, errDead) {
					t.Fatalf("it did not die: %v", err)
				}
				if stored := getCRD(t).Status.StoredVersions; len(stored) == 1 {
					l.expectMigrated()
				}
				finish(t, migrator(t))
				l.expectMigrated()
			})
		}
	}
}

func TestAMigrationIsNotNotedIfTheCRDChangedMeanwhile(t *testing.T) {
	l, _ := newMigrationLab(t)
	changing := failpoint.Wrap(migrator(t), failpoint.Hooks{Before: func(w failpoint.Write) error {
		if w.Kind == "CustomResourceDefinition" {
			changeCRD(t, func(crd *apiextensionsv1.CustomResourceDefinition) {
				crd.Annotations = map[string]string{"example.com/touched": "yes"}
			})
		}
		return nil
	}})
	if err := migration(changing).Run(t.Context()); err == nil {
		t.Fatal("it was noted")
	}
	if stored := getCRD(t).Status.StoredVersions; len(stored) != 2 {
		t.Errorf("the CRD says that %v are stored", stored)
	}
	finish(t, migrator(t))
	l.expectMigrated()
}

func TestNothingIsMigratedToAVersionThatIsNotStored(t *testing.T) {
	l := newLab(t)
	l.storeAs("v1alpha1")
	must(t, admin.Create(t.Context(), newAlpha("one")))
	err := migration(migrator(t)).Run(t.Context())
	if err == nil || !strings.Contains(err.Error(), "stores v1alpha1, not v1beta1") {
		t.Errorf("error: %v", err)
	}
	l.expectStored("one", "v1alpha1")
	l.storeAs("v1beta1")
}

func TestAMigrationStopsAtAnObjectThatCannotBeConverted(t *testing.T) {
	_, p := newMigrationLab(t)
	must(t, p.end())
	changeCRD(t, func(crd *apiextensionsv1.CustomResourceDefinition) { crd.Spec.Conversion = asInstalled() })
	eventually(t, "the migration fails", func() error {
		if err := migration(migrator(t)).Run(t.Context()); !webhook.IsConversion(err) {
			return fmt.Errorf("it ended with %w", err)
		}
		return nil
	})
	if stored := getCRD(t).Status.StoredVersions; len(stored) != 2 {
		t.Errorf("the CRD says that %v are stored", stored)
	}
}

// revisions are the etcd revisions at which the objects were last written.
func (l *lab) revisions() map[string]int64 {
	l.Helper()
	all, err := store.Get(l.Context(), keyOf(""), clientv3.WithPrefix())
	must(l.T, err)
	revisions := map[string]int64{}
	for _, kv := range all.Kvs {
		revisions[string(kv.Key)] = kv.ModRevision
	}
	return revisions
}
