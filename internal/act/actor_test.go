package act

import (
	"context"
	"net/http"
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"
	clientfake "sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/internal/cluster"
	"github.com/etcd-warden/etcd-warden/internal/cluster/clustertest"
	"github.com/etcd-warden/etcd-warden/internal/plan"
	"github.com/etcd-warden/etcd-warden/internal/render"
)

func TestAKindThatTheAPIServerDoesNotKnowIsARefusalAndNoStaleRead(t *testing.T) {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, v1beta1.AddToScheme} {
		if err := add(scheme); err != nil {
			t.Fatal(err)
		}
	}
	issuer := v1beta1.IssuerRef{Name: "ca", Kind: "Issuer", Group: "cert-manager.io"}
	s := clustertest.MakeCluster("prod").Snapshot()
	live := render.CertManagerCertificate(s.Cluster, cluster.RolePeer, "", issuer)
	for what, answer := range map[string]error{
		"the client knew the kind": apierrors.NewGenericServerResponse(http.StatusNotFound, "post", schema.GroupResource{Group: "cert-manager.io", Resource: "certificates"}, "", "404 page not found", 0, true),
		"the client looked it up":  &meta.NoKindMatchError{GroupKind: render.CertificateKind.GroupKind(), SearchedVersions: []string{"v1"}},
	} {
		a := &Actor{Client: clientfake.NewClientBuilder().WithScheme(scheme).WithInterceptorFuncs(interceptor.Funcs{
			Create: func(context.Context, client.WithWatch, client.Object, ...client.CreateOption) error { return answer },
			Apply: func(context.Context, client.WithWatch, runtime.ApplyConfiguration, ...client.ApplyOption) error {
				return answer
			},
		}).Build()}
		made := plan.Apply{Desired: live}
		corrected := made
		corrected.Live = live
		_, err := a.Upkeep(t.Context(), &s, []plan.Upkeep{made, corrected})
		refusals, rest := plan.Refusals(err)
		if rest != nil || len(refusals) != 2 {
			t.Fatalf("%s: got %v, %v", what, refusals, rest)
		}
		for _, r := range refusals {
			if r.Reason != v1beta1.ReasonWriteRefused || !strings.Contains(r.Message, "Certificate prod-peer-tls") {
				t.Errorf("%s: %+v", what, r)
			}
		}
	}
}
