package conversion

import (
	"math/rand"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/randfill"

	"github.com/etcd-warden/etcd-warden/api/v1alpha1"
	"github.com/etcd-warden/etcd-warden/api/v1beta1"
)

// rounds is the number of objects with which each property is tested.
const rounds = 10000

// source fills every field of objects of both versions with random values.
// The fields that schema_check.go checks get valid values.
type source struct {
	filler *randfill.Filler
	rand   *rand.Rand
}

// newSource returns a source of random objects. They are the same in every run, except in a run of the whole matrix.
func newSource(t *testing.T) source {
	seed := int64(1)
	if os.Getenv("ETCD_WARDEN_TEST_FULL") != "" {
		seed = time.Now().UnixNano()
	}
	t.Logf("seed %d", seed)
	filler := randfill.NewWithSeed(seed).NilChance(0.4).NumElements(0, 3).MaxDepth(20).Funcs(
		fillMeta, fillString, fillImage, fillUpdateStrategy, fillReplacement, fillMaintenance, fillStorage, fillRequests, fillQuantity, fillTime, fillEnv, fillStaticTLS, fillConfig, fillClientTLS, fillPeerTLS, fillIssuer,
		func(m *metav1.TypeMeta, _ randfill.Continue) { *m = metav1.TypeMeta{} },
		among(v1beta1.RetentionRetain, v1beta1.RetentionDelete, ""),
		among(v1beta1.MemberAntiAffinityPreferred, v1beta1.MemberAntiAffinityRequired, ""),
		among(v1beta1.ExistingVolumesTakeBack, v1beta1.ExistingVolumesIgnore, ""),
		among(v1beta1.TLSManaged, v1beta1.TLSDisabled, ""),
		among(v1beta1.SecretFormatEtcdOperator, v1beta1.SecretFormatTLS),
		among(v1alpha1.MemberSecrets{PeerSecret: "p"}, v1alpha1.MemberSecrets{ServerSecret: "s"}, v1alpha1.MemberSecrets{PeerSecret: "q", ServerSecret: "t"}, v1alpha1.MemberSecrets{}),
		among(corev1.LocalObjectReference{Name: "a"}, corev1.LocalObjectReference{Name: "b"}),
	)
	return source{filler, rand.New(rand.NewSource(seed))}
}

func (s source) spoke() *v1alpha1.EtcdCluster {
	var c v1alpha1.EtcdCluster
	s.filler.Fill(&c)
	return stored(&c)
}

func (s source) hub() *v1beta1.EtcdCluster {
	var c v1beta1.EtcdCluster
	s.filler.Fill(&c)
	return stored(&c)
}

func among[T any](values ...T) func(*T, randfill.Continue) {
	return func(v *T, c randfill.Continue) { *v = values[c.Intn(len(values))] }
}

func oneOf[T any](r *rand.Rand, values ...T) T { return values[r.Intn(len(values))] }

func fillMeta(m *metav1.ObjectMeta, c randfill.Continue) {
	*m = metav1.ObjectMeta{Namespace: "shop", Name: "prod", UID: "u", ResourceVersion: "7", Generation: 3}
	c.Fill(&m.Labels)
	c.Fill(&m.Annotations)
	c.Fill(&m.Finalizers)
	if c.Bool() {
		m.Annotations = map[string]string{v1beta1.BootstrapAnnotation: v1beta1.BootstrapEmpty}
	}
}

// fillString writes texts that are often equal, and some that JSON must escape.
func fillString(s *string, c randfill.Continue) {
	*s = oneOf(c.Rand, "", "a", "b", "c", "<&>\u2028\"\\", c.String(8))
}

func fillQuantity(q *resource.Quantity, c randfill.Continue) {
	*q = resource.MustParse(oneOf(c.Rand, "2Gi", "8Gi", "2048Mi", "9Gi", "2147483648", "0.5", "1500m", "0", "-1", "1e3", "100000000000000000000Ki"))
}

// fillRequests often uses the resources of volumes and containers.
func fillRequests(l *corev1.ResourceList, c randfill.Continue) {
	*l = nil
	for range c.Intn(3) {
		if *l == nil {
			*l = corev1.ResourceList{}
		}
		var q resource.Quantity
		c.Fill(&q)
		(*l)[oneOf(c.Rand, corev1.ResourceCPU, corev1.ResourceMemory)] = q
		if c.Bool() { // large enough for every quota
			(*l)[corev1.ResourceStorage] = resource.MustParse(oneOf(c.Rand, "2Gi", "8Gi", "2048Mi", "9Gi", "2147483648", "100000000000000000000Ki"))
		}
	}
}

func fillTime(v *metav1.Time, c randfill.Continue) { *v = metav1.Unix(c.Int63n(4e9)+1, 0) }

var options = []string{quotaOption, modeOption, retentionOption, "snapshot-count", "cors", "-x", "x-", "a--b", "experimental-9"}

func fillArgs(c randfill.Continue) map[string]string {
	args := map[string]string{}
	for range c.Intn(4) {
		args[oneOf(c.Rand, options...)] = oneOf(c.Rand, "", "1", "periodic")
	}
	return args
}

func fillEnv(env *[]v1alpha1.EtcdOption, c randfill.Continue) {
	*env = configFromHub(&v1beta1.Config{ExtraArgs: fillArgs(c)})
	c.Shuffle(len(*env), func(i, j int) { (*env)[i], (*env)[j] = (*env)[j], (*env)[i] })
}

// fillStaticTLS names the Secrets of the server and of the operator together, as the schema requires.
func fillStaticTLS(tls *v1alpha1.StaticTLS, c randfill.Continue) {
	*tls = v1alpha1.StaticTLS{}
	c.Fill(&tls.Member)
	if tls.Member != nil && tls.Member.ServerSecret != "" {
		tls.OperatorSecret = oneOf(c.Rand, "o", "p")
	}
}

// digests are the two forms of a digest, and none.
var digests = []string{"sha256:" + strings.Repeat("0a", 32), "sha512:" + strings.Repeat("9f", 64), ""}

func fillImage(image *v1beta1.Image, c randfill.Continue) {
	*image = v1beta1.Image{
		Tag: oneOf(c.Rand, "v3.6.16", "_x-1.0", ""), Digest: oneOf(c.Rand, digests...), PullPolicy: oneOf(c.Rand, v1beta1.PullAlways, v1beta1.PullIfNotPresent, ""),
	}
	c.Fill(&image.Repository)
}

func fillUpdateStrategy(u *v1beta1.UpdateStrategy, c randfill.Continue) {
	*u = v1beta1.UpdateStrategy{
		OperatorUpgrade:         oneOf(c.Rand, v1beta1.OperatorUpgradeWait, v1beta1.OperatorUpgradeRoll, ""),
		ProgressDeadlineSeconds: oneOf[int32](c.Rand, 60, 600, 86400, 0),
	}
}

func fillReplacement(r *v1beta1.MemberReplacement, c randfill.Continue) {
	*r = v1beta1.MemberReplacement{
		Policy: oneOf(c.Rand, v1beta1.ReplaceAutomatically, v1beta1.ReplaceManually, ""), After: oneOf(c.Rand, "10s", "5m", "24h", ""),
	}
}

func fillMaintenance(m *v1beta1.Maintenance, c randfill.Continue) {
	m.ConsistencyCheck = oneOf(c.Rand, v1beta1.ConsistencyCheckLimited, v1beta1.ConsistencyCheckFull, "")
}

// fillStorage keeps no data in memory: the schema refuses that beside the other fields, which the tests mix freely.
func fillStorage(s *v1beta1.Storage, c randfill.Continue) {
	*s = v1beta1.Storage{}
	c.Fill(&s.VolumeClaimTemplate)
	c.Fill(&s.RetentionPolicy)
}

func fillConfig(config *v1beta1.Config, c randfill.Continue) {
	*config = v1beta1.Config{ExtraArgs: fillArgs(c)}
	if c.Bool() {
		config.QuotaBackendBytes = new(resource.MustParse(oneOf(c.Rand, "16Mi", "1Gi", "1073741824", "1e9")))
		delete(config.ExtraArgs, quotaOption)
	}
	if c.Bool() {
		config.AutoCompaction = new(oneOf(c.Rand,
			v1beta1.AutoCompaction{Mode: v1beta1.AutoCompactionPeriodic, Retention: "1h"},
			v1beta1.AutoCompaction{Mode: v1beta1.AutoCompactionRevision, Retention: "1"}))
		delete(config.ExtraArgs, modeOption)
		delete(config.ExtraArgs, retentionOption)
	}
}

func fillClientTLS(tls *v1beta1.ClientTLS, c randfill.Continue) {
	*tls = v1beta1.ClientTLS{}
	switch c.Intn(4) {
	case 0:
		c.Fill(&tls.Mode)
	case 1:
		tls.CertManager = &v1beta1.CertManagerTLS{}
		c.Fill(tls.CertManager)
	default:
		tls.SecretRef = &v1beta1.ClientSecretRef{Name: oneOf(c.Rand, "s", "t"), OperatorName: oneOf(c.Rand, "o", "p")}
		c.Fill(&tls.SecretRef.Format)
	}
}

func fillPeerTLS(tls *v1beta1.PeerTLS, c randfill.Continue) {
	*tls = v1beta1.PeerTLS{}
	switch c.Intn(4) {
	case 0:
		c.Fill(&tls.Mode)
	case 1:
		tls.CertManager = &v1beta1.CertManagerTLS{}
		c.Fill(tls.CertManager)
	default:
		tls.SecretRef = &v1beta1.PeerSecretRef{Name: oneOf(c.Rand, "s", "t")}
		c.Fill(&tls.SecretRef.Format)
	}
}

func fillIssuer(issuer *v1beta1.IssuerRef, c randfill.Continue) {
	*issuer = v1beta1.IssuerRef{Name: oneOf(c.Rand, "i", "j")}
	c.Fill(&issuer.Kind)
	c.Fill(&issuer.Group)
}

// This test and TestCounterpartsListsEveryFieldOfTheSpec find a new field that is not converted.
func TestTheSourceFillsEveryField(t *testing.T) {
	from := newSource(t)
	seen := map[string]bool{}
	for range rounds / 10 {
		filled("v1alpha1", reflect.ValueOf(from.spoke()), seen)
		filled("v1beta1", reflect.ValueOf(from.hub()), seen)
	}
	for _, path := range append(paths("v1alpha1", reflect.TypeFor[v1alpha1.EtcdCluster]()), paths("v1beta1", reflect.TypeFor[v1beta1.EtcdCluster]())...) {
		if !seen[path] && !strings.HasPrefix(path, "v1beta1.Spec.Storage.Ephemeral") { // see fillStorage
			t.Errorf("%s is never filled", path)
		}
	}
}

// paths returns the fields of the structs of our API packages, also of structs in lists.
func paths(path string, t reflect.Type) []string {
	for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice {
		t = t.Elem()
	}
	all := []string{path}
	if t.Kind() == reflect.Struct && strings.Contains(t.PkgPath(), "etcd-warden/api/") {
		for f := range t.Fields() {
			if !f.Anonymous {
				all = append(all, paths(path+"."+f.Name, f.Type)...)
			}
		}
	}
	return all
}

// filled records the paths that are not zero.
func filled(path string, v reflect.Value, seen map[string]bool) {
	if v.IsZero() {
		return
	}
	seen[path] = true
	if v.Kind() == reflect.Pointer {
		filled(path, v.Elem(), seen)
	}
	if v.Kind() == reflect.Slice {
		for n := range v.Len() {
			filled(path, v.Index(n), seen)
		}
	}
	if v.Kind() == reflect.Struct {
		for f, value := range v.Fields() {
			if f.IsExported() {
				filled(path+"."+f.Name, value, seen)
			}
		}
	}
}
