package controllers

import (
	"testing"
	"testing/synctest"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"
	clientfake "sigs.k8s.io/controller-runtime/pkg/client/fake"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/internal/cluster"
)

var prod = types.NamespacedName{Namespace: "shop", Name: "prod"}

// caches is a fake API server that stands in for the caches, and holds what it is given.
func caches(t *testing.T, objects ...client.Object) client.Client {
	t.Helper()
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, v1beta1.AddToScheme} {
		if err := add(scheme); err != nil {
			t.Fatal(err)
		}
	}
	return clientfake.NewClientBuilder().WithScheme(scheme).WithStatusSubresource(&v1beta1.EtcdCluster{}).WithObjects(objects...).Build()
}

func metaOf(name, version string) metav1.ObjectMeta {
	return metav1.ObjectMeta{
		Namespace: "shop", Name: name, ResourceVersion: version, Labels: map[string]string{cluster.LabelCluster: "prod"},
	}
}

func TestAPassWaitsUntilTheCachesShowWhatWasWritten(t *testing.T) {
	set := func(version string) client.Object { return &appsv1.StatefulSet{ObjectMeta: metaOf("prod-0", version)} }
	for name, test := range map[string]struct {
		written client.Object
		cached  client.Client
		want    bool
	}{
		"waits for an object that is not there yet":    {set("10"), caches(t), true},
		"waits for a later version":                    {set("10"), caches(t, set("9")), true},
		"goes on with the version that was written":    {set("10"), caches(t, set("10")), false},
		"goes on with what others wrote since":         {set("9"), caches(t, set("10")), false},
		"waits for the EtcdCluster":                    {&v1beta1.EtcdCluster{ObjectMeta: metaOf("prod", "10")}, caches(t), true},
		"does not wait for what was only tried":        {set(""), caches(t), false},
		"does not wait for an object of another owner": {&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "x", ResourceVersion: "1"}}, caches(t), false},
	} {
		t.Run(name, func(t *testing.T) {
			w := &OwnWrites{}
			w.remember(test.written)
			if got := w.areUnseen(t.Context(), test.cached, prod); got != test.want {
				t.Errorf("the pass waits: %t, want %t", got, test.want)
			}
			if other := (types.NamespacedName{Namespace: "shop", Name: "other"}); w.areUnseen(t.Context(), test.cached, other) {
				t.Error("a pass over another cluster waits")
			}
			if !test.want && len(w.clusters) > 0 {
				t.Errorf("kept: %v", w.clusters)
			}
		})
	}
}

func TestAPassDoesNotWaitForeverForAnObjectThatWasDeleted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &OwnWrites{}
		w.remember(&appsv1.StatefulSet{ObjectMeta: metaOf("prod-0", "10")})
		if !w.areUnseen(t.Context(), caches(t), prod) {
			t.Fatal("the pass does not wait")
		}
		time.Sleep(unseenTime + time.Millisecond) // in the bubble's time
		if w.areUnseen(t.Context(), caches(t), prod) {
			t.Errorf("the pass still waits after %s", unseenTime)
		}
	})
}

func TestEveryWriteButThatOfASecretIsRemembered(t *testing.T) {
	var c *v1beta1.EtcdCluster
	var claim *corev1.PersistentVolumeClaim
	patch := client.RawPatch(types.MergePatchType, []byte(`{"metadata":{"annotations":{"a":"b"}}}`))
	for name, write := range map[string]func(client.Client) error{
		"create": func(w client.Client) error {
			return w.Create(t.Context(), &corev1.Service{ObjectMeta: metaOf("prod", "")})
		},
		"update": func(w client.Client) error { return w.Update(t.Context(), claim) },
		"patch": func(w client.Client) error {
			return w.Patch(t.Context(), &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "data-prod-0"}}, patch)
		},
		"status": func(w client.Client) error { return w.Status().Update(t.Context(), c) },
		"resize": func(w client.Client) error { return w.SubResource("resize").Patch(t.Context(), claim, patch) },
	} {
		c, claim = &v1beta1.EtcdCluster{ObjectMeta: metaOf("prod", "")}, &corev1.PersistentVolumeClaim{ObjectMeta: metaOf("data-prod-0", "")}
		api, writes := caches(t, c, claim), &OwnWrites{}
		if err := write(writes.Through(api)); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if !writes.areUnseen(t.Context(), caches(t), prod) {
			t.Errorf("%s: a pass over caches that lack it does not wait", name)
		}
		if writes.areUnseen(t.Context(), api, prod) {
			t.Errorf("%s: a pass over caches that have it waits", name)
		}
	}
	writes := &OwnWrites{}
	if err := writes.Through(caches(t)).Create(t.Context(), &corev1.Secret{ObjectMeta: metaOf("prod-peer-ca", "")}); err != nil {
		t.Fatal(err)
	}
	if writes.areUnseen(t.Context(), caches(t), prod) {
		t.Error("a pass waits for a Secret, which no cache holds")
	}
}

func TestAPassWaitsUntilTheCachesShowThatAPodIsGoing(t *testing.T) {
	pod := func(uid types.UID, going bool) *corev1.Pod {
		p := &corev1.Pod{ObjectMeta: metaOf("prod-0-0", "")}
		p.UID = uid
		if p.Finalizers = []string{"example.com/slow"}; going {
			p.DeletionTimestamp = &metav1.Time{Time: time.Unix(1, 0)}
		}
		return p
	}
	for name, remove := range map[string]func(client.Client, client.Object) error{
		"deletion": func(w client.Client, p client.Object) error { return w.Delete(t.Context(), p) },
		"eviction": func(w client.Client, p client.Object) error {
			return w.SubResource("eviction").Create(t.Context(), p, &policyv1.Eviction{})
		},
	} {
		t.Run(name, func(t *testing.T) {
			for _, test := range []struct {
				name   string
				cached client.Client
				want   bool
			}{
				{"waits for the caches to show it", caches(t, pod("a", false)), true},
				{"goes on when the pod is going", caches(t, pod("a", true)), false},
				{"goes on when the pod is gone", caches(t), false},
				{"goes on when another pod has its name", caches(t, pod("b", false)), false},
			} {
				writes := &OwnWrites{}
				if err := remove(writes.Through(caches(t, pod("a", false))), pod("a", false)); err != nil {
					t.Fatal(err)
				}
				if got := writes.areUnseen(t.Context(), test.cached, prod); got != test.want {
					t.Errorf("%s: the pass waits: %t, want %t", test.name, got, test.want)
				}
			}
			writes := &OwnWrites{}
			if err := remove(writes.Through(caches(t)), pod("a", false)); err == nil {
				t.Fatal("a pod that does not exist was deleted")
			}
			if writes.areUnseen(t.Context(), caches(t, pod("a", false)), prod) {
				t.Error("a pass waits for a deletion that failed")
			}
		})
	}
}
