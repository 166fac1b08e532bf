package webhook

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/client-go/tools/events"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/internal/pki"
)

// fixture is a controller, and the API server that it writes to.
type fixture struct {
	*testing.T
	*certificateController
	server client.Client
	events *events.FakeRecorder
	// patchError is returned by each write of the CRD.
	patchError error
	// beforePatch is done before each write of the CRD, after the CRD was read.
	beforePatch func()
}

func newFixture(t *testing.T, olm bool) *fixture {
	t.Helper()
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{apiextensionsv1.AddToScheme, corev1.AddToScheme} {
		if err := add(scheme); err != nil {
			t.Fatal(err)
		}
	}
	f := &fixture{T: t, events: events.NewFakeRecorder(1000)}
	server := fake.NewClientBuilder().WithScheme(scheme).WithObjects(&apiextensionsv1.CustomResourceDefinition{ObjectMeta: metav1.ObjectMeta{Name: CRD}}).Build()
	writer := interceptor.NewClient(server, interceptor.Funcs{
		Patch: func(ctx context.Context, c client.WithWatch, object client.Object, patch client.Patch, options ...client.PatchOption) error {
			if f.patchError != nil {
				return f.patchError
			}
			if f.beforePatch != nil {
				f.beforePatch()
			}
			return c.Patch(ctx, object, patch, options...)
		},
	})
	f.server = server
	f.certificateController = newCertificateController(writer, server, Options{
		Namespace: "here", OLM: olm, Events: f.events, Now: func() time.Time { return start },
	})
	return f
}

// overwrite breaks the conversion, as an InstallPlan does.
func (f *fixture) overwrite() {
	f.Helper()
	crd := f.getCRD()
	crd.Spec.Conversion = &apiextensionsv1.CustomResourceConversion{Strategy: apiextensionsv1.NoneConverter}
	if err := f.server.Update(f.Context(), crd); err != nil {
		f.Fatal(err)
	}
}

func (f *fixture) getCRD() *apiextensionsv1.CustomResourceDefinition {
	f.Helper()
	crd := &apiextensionsv1.CustomResourceDefinition{}
	if err := f.server.Get(f.Context(), client.ObjectKey{Name: CRD}, crd); err != nil {
		f.Fatal(err)
	}
	return crd
}

func (f *fixture) reconcile() (ctrl.Result, error) { return f.Reconcile(f.Context(), ctrl.Request{}) }

// mustRepair reconciles once, which must repair the conversion.
func (f *fixture) mustRepair() {
	f.Helper()
	if _, err := f.reconcile(); err != nil {
		f.Fatal(err)
	}
	want := desiredConversion(f.target, f.latest.Authorities)
	if diff := difference(f.getCRD().Spec.Conversion, want); diff != "" {
		f.Fatalf("the conversion is not repaired: %s", diff)
	}
}

// sentEvents returns the events of one reason.
func (f *fixture) sentEvents(reason string) (sent []string) {
	for {
		select {
		case event := <-f.events.Events:
			if strings.Contains(event, reason) {
				sent = append(sent, event)
			}
		default:
			return sent
		}
	}
}

var resource = schema.GroupResource{Group: apiextensionsv1.GroupName, Resource: "customresourcedefinitions"}

func TestRetriesAConflictQuietly(t *testing.T) {
	f := newFixture(t, false)
	f.mustRepair()
	f.overwrite()
	f.patchError = apierrors.NewConflict(resource, CRD, errors.New("another writer was faster"))
	for range 3 * repairBurst {
		result, err := f.reconcile()
		if err != nil || result.RequeueAfter <= 0 || result.RequeueAfter >= time.Second {
			t.Fatalf("after a conflict it reconciles again in %v, %v", result.RequeueAfter, err)
		}
	}
	f.patchError = nil
	f.mustRepair()
	if sent := f.sentEvents(v1beta1.EventConversionNotRepaired); len(sent) > 0 {
		t.Errorf("unexpected events: %v", sent)
	}
	f.overwrite()
	f.patchError = apierrors.NewConflict(resource, CRD, errors.New("another writer was faster"))
	if result, err := f.reconcile(); err != nil || result.RequeueAfter != minRetryDelay {
		t.Errorf("after the first conflict it reconciles again in %v, %v", result.RequeueAfter, err)
	}
}

func TestIsNotOvertakenByAWriteOfAnotherField(t *testing.T) {
	f := newFixture(t, false)
	f.mustRepair()
	f.overwrite()
	f.beforePatch = func() { // as OLM does right after its InstallPlan
		crd := f.getCRD()
		crd.Labels = map[string]string{"operators.coreos.com/etcd-warden.operators": ""}
		if err := f.server.Update(t.Context(), crd); err != nil {
			t.Fatal(err)
		}
	}
	f.mustRepair()
	if len(f.getCRD().Labels) == 0 {
		t.Error("the repair took the label away")
	}
}

func TestDoesNotOverwriteAConversionThatItDidNotRead(t *testing.T) {
	f := newFixture(t, false)
	f.mustRepair()
	f.overwrite()
	var other *apiextensionsv1.CustomResourceConversion
	f.beforePatch = func() {
		crd := f.getCRD()
		other = desiredConversion(f.target, []byte("another authority"))
		crd.Spec.Conversion = other
		if err := f.server.Update(t.Context(), crd); err != nil {
			t.Fatal(err)
		}
	}
	_, _ = f.reconcile()
	if diff := difference(f.getCRD().Spec.Conversion, other); diff != "" {
		t.Errorf("it overwrote what it had not read: %s", diff)
	}
	f.beforePatch = nil
	f.mustRepair()
}

func TestTellsAFailedTestFromWhatIsRefused(t *testing.T) {
	failed := apierrors.NewGenericServerResponse(http.StatusUnprocessableEntity, "", schema.GroupResource{}, "", "testing value /spec/conversion failed", 0, false)
	if !isFailedTest(failed) {
		t.Errorf("a failed test is taken for a refusal: %v", failed)
	}
	f := newFixture(t, false)
	f.patchError = failed
	if result, err := f.reconcile(); err != nil || result.RequeueAfter != minRetryDelay {
		t.Errorf("after a failed test it reconciles again in %v, %v", result.RequeueAfter, err)
	}
	denied := apierrors.NewGenericServerResponse(http.StatusUnprocessableEntity, "", schema.GroupResource{}, "", "", 0, false)
	denied.ErrStatus.Message = `admission webhook "crds.example.com" denied the request: no`
	for name, err := range map[string]error{
		"no error": nil,
		"a denial": denied,
		"an invalid CRD": apierrors.NewInvalid(schema.GroupKind{Kind: "CustomResourceDefinition"}, CRD,
			field.ErrorList{field.Required(field.NewPath("spec"), "")}),
	} {
		if isFailedTest(err) {
			t.Errorf("%s is taken for a failed test: %v", name, err)
		}
	}
}

func TestReportsTheCauseOfARefusedWrite(t *testing.T) {
	f := newFixture(t, false)
	f.patchError = apierrors.NewForbidden(resource, CRD, errors.New("no such right"))
	const times = 3 * repairBurst
	for range times {
		if _, err := f.reconcile(); !apierrors.IsForbidden(err) {
			t.Fatalf("the error is %v", err)
		}
	}
	sent := f.sentEvents(v1beta1.EventConversionNotRepaired)
	if len(sent) != times {
		t.Errorf("it sent %d events, want %d", len(sent), times)
	}
	for _, event := range sent {
		if !strings.Contains(event, "no such right") {
			t.Errorf("the event lacks the cause: %s", event)
		}
	}
	f.patchError = nil
	f.mustRepair()
}

func TestPausesRepairsWhileAnotherClientKeepsOverwriting(t *testing.T) {
	f := newFixture(t, false)
	for range repairBurst {
		f.overwrite()
		f.mustRepair()
	}
	f.overwrite()
	if result, err := f.reconcile(); err != nil || result.RequeueAfter != repairInterval {
		t.Errorf("it reconciles again in %v, %v", result.RequeueAfter, err)
	}
	if sent := f.sentEvents(v1beta1.EventConversionNotRepaired); len(sent) != 1 || !strings.Contains(sent[0], "keeps overwriting") {
		t.Errorf("the events are %v", sent)
	}
	f.now = func() time.Time { return start.Add(repairInterval) }
	f.mustRepair()
}

// TestWaitsAnHourForOLMsRenewal passes the time at which the webhook would renew its own certificate.
func TestWaitsAnHourForOLMsRenewal(t *testing.T) {
	f := newFixture(t, true)
	data, _, err := renewSecretData(nil, f.names, start)
	if err != nil {
		t.Fatal(err)
	}
	data[olmAuthority] = data[pki.TLSKeys.Authorities]
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: f.secret.Namespace, Name: f.secret.Name}, Data: data}
	if err := f.server.Create(t.Context(), secret); err != nil {
		t.Fatal(err)
	}
	for _, now := range []time.Time{start, start.Add(certificateLifetime * 9 / 10)} {
		f.now = func() time.Time { return now }
		if result, err := f.reconcile(); err != nil || result.RequeueAfter != maxRequeueAfter {
			t.Errorf("after %v it reconciles again in %v, %v", now.Sub(start), result.RequeueAfter, err)
		}
	}
}
