package webhook

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/tools/events"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/internal/pki"
)

// kept is a keeper, and the API server that it writes to.
type kept struct {
	*testing.T
	*keeper
	server client.Client
	events *events.FakeRecorder
	// refuse is what a write of the CRD gets; nil for success.
	refuse error
}

func newKept(t *testing.T, olm bool) *kept {
	t.Helper()
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{apiextensionsv1.AddToScheme, corev1.AddToScheme} {
		if err := add(scheme); err != nil {
			t.Fatal(err)
		}
	}
	k := &kept{T: t, events: events.NewFakeRecorder(1000)}
	server := fake.NewClientBuilder().WithScheme(scheme).WithObjects(&apiextensionsv1.CustomResourceDefinition{ObjectMeta: metav1.ObjectMeta{Name: CRD}}).Build()
	writer := interceptor.NewClient(server, interceptor.Funcs{
		Patch: func(ctx context.Context, c client.WithWatch, object client.Object, patch client.Patch, options ...client.PatchOption) error {
			if k.refuse != nil {
				return k.refuse
			}
			return c.Patch(ctx, object, patch, options...)
		},
	})
	k.server = server
	k.keeper = newKeeper(writer, server, Options{
		Namespace: "here", OLM: olm, Events: k.events, Now: func() time.Time { return start },
	})
	return k
}

// overwrite spoils the conversion, as an InstallPlan does.
func (k *kept) overwrite() {
	k.Helper()
	crd := k.definition()
	crd.Spec.Conversion = &apiextensionsv1.CustomResourceConversion{Strategy: apiextensionsv1.NoneConverter}
	if err := k.server.Update(k.Context(), crd); err != nil {
		k.Fatal(err)
	}
}

func (k *kept) definition() *apiextensionsv1.CustomResourceDefinition {
	k.Helper()
	crd := &apiextensionsv1.CustomResourceDefinition{}
	if err := k.server.Get(k.Context(), client.ObjectKey{Name: CRD}, crd); err != nil {
		k.Fatal(err)
	}
	return crd
}

func (k *kept) look() (ctrl.Result, error) { return k.Reconcile(k.Context(), ctrl.Request{}) }

// mustRepair looks once, which must put the conversion right.
func (k *kept) mustRepair() {
	k.Helper()
	if _, err := k.look(); err != nil {
		k.Fatal(err)
	}
	if wrong := fault(k.definition().Spec.Conversion, stanza(k.target, k.newest.Authorities)); wrong != "" {
		k.Fatalf("the conversion is not repaired: %s", wrong)
	}
}

// said returns the events of one reason.
func (k *kept) said(reason string) (said []string) {
	for {
		select {
		case event := <-k.events.Events:
			if strings.Contains(event, reason) {
				said = append(said, event)
			}
		default:
			return said
		}
	}
}

var resource = schema.GroupResource{Group: apiextensionsv1.GroupName, Resource: "customresourcedefinitions"}

func TestAWriteThatCameTooLateIsNoFight(t *testing.T) {
	k := newKept(t, false)
	k.mustRepair()
	k.overwrite()
	k.refuse = apierrors.NewConflict(resource, CRD, errors.New("somebody was faster"))
	for range 3 * repairsAtOnce {
		result, err := k.look()
		if err != nil || result.RequeueAfter <= 0 || result.RequeueAfter >= time.Second {
			t.Fatalf("after a conflict it looks again in %v, %v", result.RequeueAfter, err)
		}
	}
	k.refuse = nil
	k.mustRepair()
	if said := k.said(v1beta1.EventConversionNotRepaired); len(said) > 0 {
		t.Errorf("it complains: %v", said)
	}
	k.overwrite()
	k.refuse = apierrors.NewConflict(resource, CRD, errors.New("somebody was faster"))
	if result, err := k.look(); err != nil || result.RequeueAfter != quickestRetry {
		t.Errorf("after the first conflict it looks again in %v, %v", result.RequeueAfter, err)
	}
}

func TestAWriteThatIsRefusedIsToldWithItsCause(t *testing.T) {
	k := newKept(t, false)
	k.refuse = apierrors.NewForbidden(resource, CRD, errors.New("no such right"))
	const times = 3 * repairsAtOnce
	for range times {
		if _, err := k.look(); !apierrors.IsForbidden(err) {
			t.Fatalf("the error is %v", err)
		}
	}
	said := k.said(v1beta1.EventConversionNotRepaired)
	if len(said) != times {
		t.Errorf("it complains %d times, want %d", len(said), times)
	}
	for _, event := range said {
		if !strings.Contains(event, "no such right") {
			t.Errorf("the event hides the cause: %s", event)
		}
	}
	k.refuse = nil
	k.mustRepair()
}

func TestWhoOverwritesAgainAndAgainGetsHisWayForAWhile(t *testing.T) {
	k := newKept(t, false)
	for range repairsAtOnce {
		k.overwrite()
		k.mustRepair()
	}
	k.overwrite()
	if result, err := k.look(); err != nil || result.RequeueAfter != repairEvery {
		t.Errorf("it looks again in %v, %v", result.RequeueAfter, err)
	}
	if said := k.said(v1beta1.EventConversionNotRepaired); len(said) != 1 || !strings.Contains(said[0], "again and again") {
		t.Errorf("it says %v", said)
	}
	k.now = func() time.Time { return start.Add(repairEvery) }
	k.mustRepair()
}

// TestARenewalThatIsOLMsIsNotWaitedForInHaste lets two thirds of the certificate's life pass, when the operator would renew its own.
func TestARenewalThatIsOLMsIsNotWaitedForInHaste(t *testing.T) {
	k := newKept(t, true)
	data, _, err := renew(nil, k.names, start)
	if err != nil {
		t.Fatal(err)
	}
	data[olmAuthority] = data[pki.TLSKeys.Authorities]
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: k.secret.Namespace, Name: k.secret.Name}, Data: data}
	if err := k.server.Create(t.Context(), secret); err != nil {
		t.Fatal(err)
	}
	for _, now := range []time.Time{start, start.Add(certificateLifetime * 9 / 10)} {
		k.now = func() time.Time { return now }
		if result, err := k.look(); err != nil || result.RequeueAfter != longestSleep {
			t.Errorf("after %v it looks again in %v, %v", now.Sub(start), result.RequeueAfter, err)
		}
	}
}
