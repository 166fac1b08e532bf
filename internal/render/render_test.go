package render

import (
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"sigs.k8s.io/yaml"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/internal/cluster"
)

var update = flag.Bool("update", false, "write the golden files instead of comparing with them")

// wantGolden compares objects with a golden file of testdata.
func wantGolden(t *testing.T, name string, objects ...any) {
	t.Helper()
	var documents []string
	for _, object := range objects {
		raw, err := yaml.Marshal(object)
		if err != nil {
			t.Fatal(err)
		}
		documents = append(documents, string(raw))
	}
	got := strings.Join(documents, "---\n")
	path := filepath.Join("testdata", name+".yaml")
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s differs (-want +got); after a wanted change run go test ./internal/render -update:\n%s", path, diff)
	}
}

// makeCluster returns a cluster as the API server would store it, changed by the given functions.
func makeCluster(changes ...func(*v1beta1.EtcdClusterSpec)) *v1beta1.EtcdCluster {
	c := &v1beta1.EtcdCluster{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "prod", UID: "11111111-2222-3333-4444-555555555555"},
		Spec: v1beta1.EtcdClusterSpec{
			Replicas: 3, Version: "3.6.16", Image: v1beta1.Image{Repository: "gcr.io/etcd-development/etcd"},
			Storage: storageOf("2Gi"), TLS: inClear(),
		},
	}
	for _, change := range changes {
		change(&c.Spec)
	}
	return c
}

func inClear() *v1beta1.TLS {
	return &v1beta1.TLS{Client: &v1beta1.ClientTLS{Mode: v1beta1.TLSDisabled}, Peer: &v1beta1.PeerTLS{Mode: v1beta1.TLSDisabled}}
}

func certificatesOf(t *v1beta1.TLS) func(*v1beta1.EtcdClusterSpec) {
	return func(spec *v1beta1.EtcdClusterSpec) { spec.TLS = t }
}

// trusting returns the input with the authorities that were found in the Secrets.
func trusting(in MemberInput) MemberInput {
	in.Intent.PeerAuthorities, in.Intent.ServerAuthorities = []string{"a1", "b2"}, []string{"c3"}
	return in
}

var someIssuer = v1beta1.IssuerRef{Name: "ca", Kind: "ClusterIssuer", Group: "cert-manager.io"}

func version(v string) func(*v1beta1.EtcdClusterSpec) {
	return func(spec *v1beta1.EtcdClusterSpec) { spec.Version = v }
}

func storageOf(size string) *v1beta1.Storage {
	return &v1beta1.Storage{VolumeClaimTemplate: &v1beta1.VolumeClaimTemplate{Spec: v1beta1.VolumeClaimSpec{
		Resources: v1beta1.VolumeResources{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse(size)}},
	}}}
}

func pod(template v1beta1.PodTemplate) func(*v1beta1.EtcdClusterSpec) {
	return func(spec *v1beta1.EtcdClusterSpec) { spec.PodTemplate = &template }
}

func secrets(peer, server string) func(*v1beta1.EtcdClusterSpec) {
	return func(spec *v1beta1.EtcdClusterSpec) {
		if peer != "" {
			spec.TLS.Peer = &v1beta1.PeerTLS{SecretRef: &v1beta1.PeerSecretRef{Name: peer, Format: v1beta1.SecretFormatEtcdOperator}}
		}
		if server != "" {
			spec.TLS.Client = &v1beta1.ClientTLS{SecretRef: &v1beta1.ClientSecretRef{Name: server, Format: v1beta1.SecretFormatEtcdOperator}}
		}
	}
}

func withOption(name, value string) func(*v1beta1.EtcdClusterSpec) {
	return func(spec *v1beta1.EtcdClusterSpec) {
		spec.Config = &v1beta1.Config{ExtraArgs: map[string]string{name: value}}
	}
}

func domain(name string) func(*v1beta1.EtcdClusterSpec) {
	return func(spec *v1beta1.EtcdClusterSpec) { spec.ClusterDomain = name }
}

// started returns the input of the first member in its started form.
func started(c *v1beta1.EtcdCluster) MemberInput {
	return MemberInput{Cluster: c, Name: "prod-0", Intent: cluster.IntentOf(c)}
}

// founding returns the input of the first member in its founding form.
func founding(c *v1beta1.EtcdCluster) MemberInput {
	in := started(c)
	in.Start = Founding(c, threeFounders, ClusterToken(c), in.Intent)
	return in
}

var threeFounders = []string{"prod-0", "prod-1", "prod-2"}

// joining returns the input of a member that was added later.
func joining(c *v1beta1.EtcdCluster) MemberInput {
	in := started(c)
	in.Name = "prod-3"
	in.Start = Joining(InitialCluster(c, []string{"prod-0", "prod-2", "prod-3"}, in.Intent))
	return in
}

func ipv6(in MemberInput) MemberInput {
	in.IPv6 = true
	return in
}

// commonFields sets every field that both API versions have.
func storedInMemory(spec *v1beta1.EtcdClusterSpec) {
	spec.Storage = &v1beta1.Storage{Ephemeral: &v1beta1.EphemeralStorage{Medium: v1beta1.EphemeralMemory, SizeLimit: resource.MustParse("1Gi")}}
}

func inMemory(in MemberInput) MemberInput {
	in.MemoryBytes = 1 << 30
	return in
}

func commonFields(spec *v1beta1.EtcdClusterSpec) {
	spec.ClusterDomain = "cluster.local"
	spec.Resources = v1beta1.ResourceRequirements{
		Limits:   corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("1Gi")},
		Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("0.5"), corev1.ResourceMemory: resource.MustParse("1Gi")},
	}
	spec.Config = &v1beta1.Config{ExtraArgs: map[string]string{
		"snapshot-count": "20000", "quota-backend-bytes": "4294967296", "auto-compaction-retention": "1h",
	}}
	spec.Storage = storageOf("8Gi")
	claim := &spec.Storage.VolumeClaimTemplate.Spec
	claim.StorageClassName, claim.AccessModes = new("fast"), []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOncePod}
	spec.PodTemplate = &v1beta1.PodTemplate{
		Metadata: v1beta1.PodMetadata{
			Labels:      map[string]string{"team": "storage", cluster.LabelMember: "ours wins"},
			Annotations: map[string]string{"example.com/scrape": "yes"},
		},
		MemberAntiAffinity: v1beta1.MemberAntiAffinityRequired,
		Spec: v1beta1.PodSpec{
			NodeSelector: map[string]string{"disk": "fast"},
			Affinity: &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{
				RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{
					MatchExpressions: []corev1.NodeSelectorRequirement{{Key: "gpu", Operator: corev1.NodeSelectorOpDoesNotExist}},
				}}},
			}},
			Tolerations:     []corev1.Toleration{{Key: "etcd", Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoSchedule}},
			SecurityContext: &corev1.PodSecurityContext{RunAsUser: new(int64(1000)), SupplementalGroups: []int64{2000}},
		},
	}
}

// everything also sets the fields that only v1beta1 has.
func everything(spec *v1beta1.EtcdClusterSpec) {
	commonFields(spec)
	spec.Config = &v1beta1.Config{
		QuotaBackendBytes: new(resource.MustParse("3Gi")),
		AutoCompaction:    &v1beta1.AutoCompaction{Mode: v1beta1.AutoCompactionRevision, Retention: "1000"},
		ExtraArgs:         map[string]string{"max-txn-ops": "256"},
	}
	pod := &spec.PodTemplate.Spec
	pod.TopologySpreadConstraints = []corev1.TopologySpreadConstraint{{
		MaxSkew: 1, TopologyKey: "rack", WhenUnsatisfiable: corev1.DoNotSchedule,
		LabelSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"team": "storage"}},
	}}
	pod.PriorityClassName, pod.SchedulerName, pod.RuntimeClassName = "system-cluster-critical", "steady", "kata"
	pod.ImagePullSecrets = []corev1.LocalObjectReference{{Name: "registry"}}
}

func TestAMemberRendersAsItsGoldenFile(t *testing.T) {
	for name, in := range map[string]MemberInput{
		"member-founding":            founding(makeCluster()),
		"member-founding-in-memory":  inMemory(founding(makeCluster(storedInMemory))),
		"member-started-in-memory":   inMemory(started(makeCluster(storedInMemory))),
		"member-joining":             joining(makeCluster()),
		"member-started":             started(makeCluster()),
		"member-started-ipv6":        ipv6(started(makeCluster())),
		"member-founding-3.5":        founding(makeCluster(version("3.5.35"))),
		"member-started-3.5":         started(makeCluster(version("3.5.35"))),
		"member-founding-3.7":        founding(makeCluster(version("3.7.3"))),
		"member-started-3.7":         started(makeCluster(version("3.7.3"))),
		"member-founding-tls":        founding(makeCluster(secrets("prod-peer", "prod-server"))),
		"member-started-tls":         started(makeCluster(secrets("prod-peer", "prod-server"))),
		"member-started-tls-peers":   started(makeCluster(secrets("prod-peer", ""))),
		"member-started-tls-clients": started(makeCluster(secrets("", "prod-server"))),
		"member-founding-managed":    trusting(founding(makeCluster(certificatesOf(nil)))),
		"member-started-managed":     trusting(started(makeCluster(certificatesOf(&v1beta1.TLS{Client: &v1beta1.ClientTLS{Mode: v1beta1.TLSManaged}})))),
		"member-started-tls-format": trusting(started(makeCluster(certificatesOf(&v1beta1.TLS{
			Peer:   &v1beta1.PeerTLS{SecretRef: &v1beta1.PeerSecretRef{Name: "prod-peer", Format: v1beta1.SecretFormatTLS}},
			Client: &v1beta1.ClientTLS{SecretRef: &v1beta1.ClientSecretRef{Name: "prod-server", OperatorName: "prod-operator"}},
		})))),
		"member-started-issued": trusting(started(makeCluster(certificatesOf(&v1beta1.TLS{
			Peer:   &v1beta1.PeerTLS{CertManager: &v1beta1.CertManagerTLS{IssuerRef: someIssuer}},
			Client: &v1beta1.ClientTLS{CertManager: &v1beta1.CertManagerTLS{IssuerRef: someIssuer}},
		})))),
		"member-started-common":     started(makeCluster(commonFields)),
		"member-started-everything": started(makeCluster(everything)),
		"member-started-anti":       started(makeCluster(pod(v1beta1.PodTemplate{MemberAntiAffinity: v1beta1.MemberAntiAffinityRequired}))),
	} {
		t.Run(name, func(t *testing.T) { wantGolden(t, name, MemberStatefulSet(in)) })
	}
}

func TestTheMemberSelectorSelectsThePodsOfItsClusterOnly(t *testing.T) {
	selector := MemberSelector(makeCluster())
	if want := "app.kubernetes.io/managed-by=etcd-warden,operator.etcd-warden.io/cluster=prod"; selector != want {
		t.Errorf("the selector is %s, want %s", selector, want)
	}
	parsed, err := labels.Parse(selector)
	if err != nil {
		t.Fatal(err)
	}
	pod := labels.Set(MemberStatefulSet(started(makeCluster())).Spec.Template.Labels)
	if !parsed.Matches(pod) {
		t.Errorf("%s does not select the pod with %s", selector, pod)
	}
	pod[cluster.LabelCluster] = "other"
	if parsed.Matches(pod) {
		t.Errorf("%s selects the pod with %s", selector, pod)
	}
}

func TestTheOtherObjectsRenderAsTheirGoldenFiles(t *testing.T) {
	plain, all := makeCluster(), makeCluster(commonFields, secrets("prod-peer", "prod-server"))
	for name, objects := range map[string][]any{
		"services":    {ClientService(plain), PeerService(plain)},
		"budget":      {Budget(plain, 2)},
		"record":      {MemberVolume(makeCluster(storedInMemory), "prod-1", threeFounders, ClusterToken(plain))},
		"volume":      {MemberVolume(plain, "prod-1", threeFounders, ClusterToken(plain))},
		"volume-all":  {MemberVolume(all, "prod-1", threeFounders, ClusterToken(all))},
		"annotations": {ExistingFormAnnotations(founding(plain))},
		"issued": {
			CertManagerCertificate(plain, cluster.RolePeer, "", someIssuer), CertManagerCertificate(plain, cluster.RoleServer, "example.org", someIssuer),
			CertManagerCertificate(plain, cluster.RoleOperator, "", someIssuer), CertManagerCertificate(plain, cluster.RoleClient, "", someIssuer),
		},
		"secrets": {AuthoritySecret(plain, cluster.PeerTraffic), CertificateSecret(plain, cluster.RoleClient)},
	} {
		t.Run(name, func(t *testing.T) { wantGolden(t, name, objects...) })
	}
}

func TestOnlyPodsOfTheFormExistingRefuseAnEmptyVolume(t *testing.T) {
	c := makeCluster()
	for name, test := range map[string]struct {
		annotations map[string]string
		want        bool
	}{
		"founding":           {MemberStatefulSet(founding(c)).Spec.Template.Annotations, true},
		"joining":            {MemberStatefulSet(joining(c)).Spec.Template.Annotations, true},
		"existing":           {MemberStatefulSet(started(c)).Spec.Template.Annotations, false},
		"switched":           {ExistingFormAnnotations(founding(c)), false},
		"switched to nobody": {nil, false},
	} {
		if got := StartsEmpty(test.annotations); got != test.want {
			t.Errorf("%s: it starts on an empty volume: %t", name, got)
		}
	}
}

func TestTheRenderHashIsThatOfTheStartedForm(t *testing.T) {
	c := makeCluster()
	foundingSet, startedSet := MemberStatefulSet(founding(c)), MemberStatefulSet(started(c))
	want := RenderHash(started(c))
	for form, set := range map[string]map[string]string{
		"founding": foundingSet.Spec.Template.Annotations,
		"started":  startedSet.Spec.Template.Annotations,
	} {
		if got := set[cluster.AnnotationRenderHash]; got != want {
			t.Errorf("the %s form has render hash %s, want %s", form, got, want)
		}
	}
}

func TestTheImageAndItsPullPolicyAreTheUsers(t *testing.T) {
	image := func(i v1beta1.Image) func(*v1beta1.EtcdClusterSpec) {
		return func(spec *v1beta1.EtcdClusterSpec) { spec.Image = i }
	}
	const digest = "sha256:0123456789012345678901234567890123456789012345678901234567890123"
	for _, test := range []struct {
		image      v1beta1.Image
		want       string
		wantPolicy corev1.PullPolicy
	}{
		{v1beta1.Image{Repository: "etcd"}, "etcd:v3.6.16", corev1.PullIfNotPresent},
		{v1beta1.Image{Repository: "etcd", PullPolicy: v1beta1.PullIfNotPresent}, "etcd:v3.6.16", corev1.PullIfNotPresent},
		{v1beta1.Image{Repository: "etcd", Tag: "mine", PullPolicy: v1beta1.PullAlways}, "etcd:mine", corev1.PullAlways},
		{v1beta1.Image{Repository: "etcd", Digest: digest}, "etcd@" + digest, corev1.PullIfNotPresent},
	} {
		etcd := MemberStatefulSet(started(makeCluster(image(test.image)))).Spec.Template.Spec.Containers[0]
		if etcd.Image != test.want || etcd.ImagePullPolicy != test.wantPolicy {
			t.Errorf("%+v: the image is %s with %s, want %s with %s", test.image, etcd.Image, etcd.ImagePullPolicy, test.want, test.wantPolicy)
		}
	}
}

func TestPodsCarryTheIntentHashBesideTheRenderHash(t *testing.T) {
	c := makeCluster(secrets("prod-peer", "prod-server"))
	plain := MemberStatefulSet(started(c))
	in := started(c)
	in.Intent.OperatorSecret = "another" // part of the stored intent, and of no pod
	in.HealthyIntent = "{}"
	set := MemberStatefulSet(in)
	pod := set.Spec.Template.Annotations
	if _, hash := in.Intent.Encode(); pod[cluster.AnnotationIntentHash] != hash || set.Annotations[cluster.AnnotationIntentHash] != hash {
		t.Errorf("the pod has the intent hash %q and the StatefulSet %q, want %q", pod[cluster.AnnotationIntentHash],
			set.Annotations[cluster.AnnotationIntentHash], hash)
	}
	if diff := cmp.Diff(plain.Spec, set.Spec); diff != "" {
		t.Errorf("what no pod depends on changes the template:\n%s", diff)
	}
	template := set.Spec.Template
	delete(template.Annotations, cluster.AnnotationIntentHash)
	delete(template.Annotations, cluster.AnnotationRenderHash)
	if hash := hashOf(&template); hash != RenderHash(in) {
		t.Errorf("the render hash %s covers more than the template without hashes, whose hash is %s", RenderHash(in), hash)
	}
}

func TestKeepsTheHealthyIntentWhereBothIntentsFit(t *testing.T) {
	in := started(makeCluster())
	for healthy, want := range map[string]bool{"": false, "{}": true, strings.Repeat("x", 250<<10): true, strings.Repeat("x", 255<<10): false} {
		in.HealthyIntent = healthy
		set := MemberStatefulSet(in)
		if got, ok := set.Annotations[cluster.AnnotationHealthyIntent]; ok != want || ok && got != healthy {
			t.Errorf("of %d bytes %d are kept", len(healthy), len(got))
		}
		if err := validation.ValidateAnnotationsSize(set.Annotations); err != nil {
			t.Error(err)
		}
	}
}

func TestTheRenderHashTellsPodsApart(t *testing.T) {
	seen := map[string]string{}
	for name, in := range map[string]MemberInput{
		"default":        started(makeCluster()),
		"another member": {Cluster: makeCluster(), Name: "prod-1", Intent: cluster.IntentOf(makeCluster())},
		"IPv6":           ipv6(started(makeCluster())),
		"version":        started(makeCluster(version("3.6.15"))),
		"TLS":            started(makeCluster(secrets("prod-peer", "prod-server"))),
		"option":         started(makeCluster(withOption("max-txn-ops", "256"))),
		"annotation":     started(makeCluster(pod(v1beta1.PodTemplate{Metadata: v1beta1.PodMetadata{Annotations: map[string]string{"a": "b"}}}))),
		"domain":         started(makeCluster(domain("cluster.local"))),
	} {
		hash := RenderHash(in)
		if other, taken := seen[hash]; taken {
			t.Errorf("%s and %s have the same render hash %s", name, other, hash)
		}
		seen[hash] = name
	}
}

func TestRenderingLeavesItsInputAlone(t *testing.T) {
	c := makeCluster(commonFields, secrets("prod-peer", "prod-server"))
	before := c.DeepCopy()
	in := founding(c)
	MemberStatefulSet(in)
	ExistingFormAnnotations(in)
	MemberVolume(c, in.Name, threeFounders, ClusterToken(c))
	ClientService(c)
	PeerService(c)
	Budget(c, 2)
	if diff := cmp.Diff(before, c); diff != "" {
		t.Errorf("the cluster changed (-before +after):\n%s", diff)
	}
}

func TestAFoundingPodTakesItsListFromAnnotationsThatCanBeSealed(t *testing.T) {
	in := founding(makeCluster())
	template := MemberStatefulSet(in).Spec.Template
	etcd := template.Spec.Containers[0]
	for _, wanted := range []string{"--initial-cluster=$(INITIAL_CLUSTER)", "--initial-cluster-state=$(INITIAL_CLUSTER_STATE)"} {
		if !slices.Contains(etcd.Args, wanted) {
			t.Errorf("the arguments lack %s: %q", wanted, etcd.Args)
		}
	}
	for _, env := range etcd.Env {
		if strings.HasPrefix(env.Name, "ETCD_") {
			t.Errorf("etcd reads %s itself", env.Name)
		}
	}
	sealed := ExistingFormAnnotations(in)
	if len(sealed) != len(etcd.Env) {
		t.Errorf("%d annotations seal %d variables", len(sealed), len(etcd.Env))
	}
	for key := range sealed {
		if _, ok := template.Annotations[key]; !ok {
			t.Errorf("%s seals nothing: the founding template does not have it", key)
		}
		path := "metadata.annotations['" + key + "']"
		if !slices.ContainsFunc(etcd.Env, func(env corev1.EnvVar) bool { return env.ValueFrom.FieldRef.FieldPath == path }) {
			t.Errorf("no variable is read from %s", path)
		}
	}
}

func TestAStartedMemberFailsClosed(t *testing.T) {
	template := MemberStatefulSet(started(makeCluster())).Spec.Template
	etcd := template.Spec.Containers[0]
	for _, wanted := range []string{
		"--initial-cluster=prod-0=http://prod-0-0.prod.shop.svc:2380",
		"--initial-cluster-state=existing",
	} {
		if !slices.Contains(etcd.Args, wanted) {
			t.Errorf("the arguments lack %s: %q", wanted, etcd.Args)
		}
	}
	if len(etcd.Env) != 0 {
		t.Errorf("a started member has variables: %v", etcd.Env)
	}
	for _, key := range []string{cluster.AnnotationInitialCluster, cluster.AnnotationInitialClusterState} {
		if value, ok := template.Annotations[key]; ok {
			t.Errorf("a started template has %s=%s", key, value)
		}
	}
}

func TestOptionsReachEtcdAsTheyWereWritten(t *testing.T) {
	for value, want := range map[string]string{
		"example.com":             "--host-whitelist=example.com",
		"$(INITIAL_CLUSTER)":      "--host-whitelist=$$(INITIAL_CLUSTER)",
		"$$(INITIAL_CLUSTER) $ $": "--host-whitelist=$$$$(INITIAL_CLUSTER) $$ $$",
		"a b --name=other":        "--host-whitelist=a b --name=other",
	} {
		args := MemberStatefulSet(founding(makeCluster(withOption("host-whitelist", value)))).Spec.Template.Spec.Containers[0].Args
		if got := args[len(args)-1]; got != want {
			t.Errorf("%q renders as %q, want %q", value, got, want)
		}
	}
}

func TestAFieldOfTheUsersSecurityContextReplacesOnlyItself(t *testing.T) {
	for name, test := range map[string]struct{ asked, want corev1.PodSecurityContext }{
		"none": {corev1.PodSecurityContext{}, *podSecurity(nil)},
		"user": {
			corev1.PodSecurityContext{RunAsUser: new(int64(1000))},
			withSecurity(func(s *corev1.PodSecurityContext) { s.RunAsUser = new(int64(1000)) }),
		},
		"root allowed": {
			corev1.PodSecurityContext{RunAsNonRoot: new(false)},
			withSecurity(func(s *corev1.PodSecurityContext) { s.RunAsNonRoot = new(false) }),
		},
		"seccomp": {
			corev1.PodSecurityContext{SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeUnconfined}},
			withSecurity(func(s *corev1.PodSecurityContext) { s.SeccompProfile.Type = corev1.SeccompProfileTypeUnconfined }),
		},
		"a field without a default": {
			corev1.PodSecurityContext{Sysctls: []corev1.Sysctl{{Name: "net.ipv4.tcp_keepalive_time", Value: "60"}}},
			withSecurity(func(s *corev1.PodSecurityContext) {
				s.Sysctls = []corev1.Sysctl{{Name: "net.ipv4.tcp_keepalive_time", Value: "60"}}
			}),
		},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(&test.want, podSecurity(&test.asked)); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func withSecurity(change func(*corev1.PodSecurityContext)) corev1.PodSecurityContext {
	security := podSecurity(nil)
	change(security)
	return *security
}

func TestClustersOfOneNameHaveDifferentTokens(t *testing.T) {
	first, second := makeCluster(), makeCluster()
	second.UID = "99999999-2222-3333-4444-555555555555"
	if ClusterToken(first) == ClusterToken(second) {
		t.Errorf("both have the token %s", ClusterToken(first))
	}
}

// The kubelet ends a member whose probe fails for longer.
func TestTheLivenessProbeOutlastsADefragmentation(t *testing.T) {
	p := livenessProbe()
	if waits := time.Duration(p.PeriodSeconds*p.FailureThreshold) * time.Second; waits < cluster.MaxDefragmentTime {
		t.Errorf("the probe waits for %s, and a defragmentation may take %s", waits, cluster.MaxDefragmentTime)
	}
}

func TestGivesEtcdTheTimeToTransferLeadership(t *testing.T) {
	for election, want := range map[string]int64{
		"": 30, "5": 30, "1000": 30, "2500": 30, "2501": 31, "5000": 40, "10000": 60, "50000": 220, "not a number": 30,
	} {
		in := started(makeCluster(withOption("election-timeout", election)))
		if got := *MemberStatefulSet(in).Spec.Template.Spec.TerminationGracePeriodSeconds; got != want {
			t.Errorf("with the election timeout %q the grace period is %d s, want %d s", election, got, want)
		}
	}
}

func TestNeverLetsAPodThatIsNotReadyBeEvictedBelowTheBudget(t *testing.T) {
	policy := Budget(makeCluster(), 2).Spec.UnhealthyPodEvictionPolicy
	if policy == nil || *policy != policyv1.IfHealthyBudget {
		t.Errorf("the policy is %v, want %s", policy, policyv1.IfHealthyBudget)
	}
}
