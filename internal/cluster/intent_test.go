package cluster

import (
	"reflect"
	"strings"
	"testing"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
)

// hasPath reports whether a type has a field by its path of JSON names.
func hasPath(t reflect.Type, path []string) bool {
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if len(path) == 0 {
		return true
	}
	if t.Kind() != reflect.Struct {
		return false
	}
	for n := range t.NumField() {
		if name, _, _ := strings.Cut(t.Field(n).Tag.Get("json"), ","); name == path[0] {
			return hasPath(t.Field(n).Type, path[1:])
		}
	}
	return false
}

func TestEveryFieldOfAnIntentHasAPathInTheSpec(t *testing.T) {
	intent := reflect.TypeFor[Intent]()
	for n := range intent.NumField() {
		name := intent.Field(n).Name
		path, _, _ := strings.Cut(specPaths[name], "[")
		if !hasPath(reflect.TypeFor[v1beta1.EtcdCluster](), strings.Split(path, ".")) || path == "" {
			t.Errorf("the path of %s is %q, which v1beta1 does not have", name, path)
		}
	}
	if len(specPaths) != intent.NumField() {
		t.Errorf("there are %d paths for %d fields", len(specPaths), intent.NumField())
	}
}

func TestTellsWhereTheCertificatesComeFrom(t *testing.T) {
	secret := func(format v1beta1.SecretFormat) *v1beta1.TLS {
		return &v1beta1.TLS{
			Peer:   &v1beta1.PeerTLS{SecretRef: &v1beta1.PeerSecretRef{Name: "peer", Format: format}},
			Client: &v1beta1.ClientTLS{SecretRef: &v1beta1.ClientSecretRef{Name: "server", OperatorName: "operator", Format: format}},
		}
	}
	for name, test := range map[string]struct {
		tls     *v1beta1.TLS
		want    Source
		follows bool
	}{
		"nothing is said": {nil, SourceManaged, true},
		"disabled": {&v1beta1.TLS{
			Peer: &v1beta1.PeerTLS{Mode: v1beta1.TLSDisabled}, Client: &v1beta1.ClientTLS{Mode: v1beta1.TLSDisabled},
		}, "", false},
		"cert-manager": {&v1beta1.TLS{
			Peer:   &v1beta1.PeerTLS{CertManager: &v1beta1.CertManagerTLS{}},
			Client: &v1beta1.ClientTLS{CertManager: &v1beta1.CertManagerTLS{}},
		}, SourceCertManager, true},
		"a Secret":                          {secret(v1beta1.SecretFormatTLS), SourceSecret, true},
		"a Secret of the original operator": {secret(v1beta1.SecretFormatEtcdOperator), SourceEtcdOperator, false},
	} {
		intent := IntentOf(&v1beta1.EtcdCluster{Spec: v1beta1.EtcdClusterSpec{TLS: test.tls}})
		for _, traffic := range []Traffic{PeerTraffic, ClientTraffic} {
			if got := intent.Source(traffic); got != test.want || got.FollowsAuthorities() != test.follows {
				t.Errorf("%s: the source for %ss is %q, which follows authorities: %v", name, traffic, got, got.FollowsAuthorities())
			}
			if encrypted := intent.Secret(traffic) != ""; encrypted != (test.want != "") {
				t.Errorf("%s: traffic with %ss is encrypted: %v, and the source is %q", name, traffic, encrypted, test.want)
			}
		}
	}
}
