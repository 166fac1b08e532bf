package conversion

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	utiljson "k8s.io/apimachinery/pkg/util/json"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"k8s.io/kube-openapi/pkg/validation/spec"
	"sigs.k8s.io/yaml"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
)

// fieldValue is a field and its value in YAML.
type fieldValue struct{ path, value string }

// onlyHub are the fields that v1alpha1 lacks, each with a value. They are valid beside TLS that is turned off.
var onlyHub = []fieldValue{
	{"spec.storage.retentionPolicy.whenDeleted", `Delete`},
	{"spec.storage.retentionPolicy.whenScaled", `Delete`},
	{"spec.storage.retentionPolicy.whenReplaced", `Delete`},
	{"spec.recovery.memberReplacement.policy", `Manual`},
	{"spec.recovery.memberReplacement.after", `1m`},
	{"spec.maintenance.consistencyCheck", `Full`},
	{"spec.image.tag", `v3.6.16-1`},
	{"spec.image.digest", `sha256:0123456789012345678901234567890123456789012345678901234567890123`},
	{"spec.image.pullPolicy", `Always`},
	{"spec.updateStrategy.operatorUpgrade", `Roll`},
	{"spec.updateStrategy.progressDeadlineSeconds", `900`},
	{"spec.config.quotaBackendBytes", `1Gi`},
	{"spec.config.autoCompaction", `{mode: Periodic, retention: 1h}`},
	{"spec.podTemplate.memberAntiAffinity", `Preferred`},
	{"spec.podTemplate.spec.topologySpreadConstraints", `[{maxSkew: 1, topologyKey: zone, whenUnsatisfiable: DoNotSchedule}]`},
	{"spec.podTemplate.spec.priorityClassName", `high`},
	{"spec.podTemplate.spec.schedulerName", `mine`},
	{"spec.podTemplate.spec.runtimeClassName", `gvisor`},
	{"spec.podTemplate.spec.imagePullSecrets", `[{name: pull}]`},
	{"spec.bootstrap.existingVolumes", `Ignore`},
}

// onlyHubInMemory is such a field, which is not valid beside other fields of the storage.
var onlyHubInMemory = []fieldValue{{"spec.storage.ephemeral", `{medium: Memory, sizeLimit: 1Gi}`}}

// onlyHubTLS are more such fields. They are not valid beside TLS that is turned off.
var onlyHubTLS = []fieldValue{
	{"spec.tls.client.certManager.issuerRef.kind", `ClusterIssuer`},
	{"spec.tls.client", `{certManager: {issuerRef: {name: ca, kind: ClusterIssuer}}}`},
	{"spec.tls.peer", `{secretRef: {name: p, format: TLS}}`},
}

// secrets are certificates that v1alpha1 can name but not withdraw.
var secrets = []fieldValue{
	{"spec.tls", `{client: {secretRef: {name: s, operatorName: o, format: EtcdOperator}}, peer: {secretRef: {name: p, format: EtcdOperator}}}`},
	{"spec.tls.client", `{secretRef: {name: s, operatorName: o, format: EtcdOperator}}`},
	{"spec.tls.client.secretRef.format", `EtcdOperator`},
	{"spec.tls.peer", `{secretRef: {name: p, format: EtcdOperator}}`},
}

// After a field is withdrawn, the object is as if the field had never been applied.
func TestApplyingInV1beta1WithdrawsFieldsThatV1alpha1Lacks(t *testing.T) {
	createdInV1alpha1 := func(a *applier) {
		a.update("v1alpha1", "kubectl-create", `spec: {size: 3, version: 3.6.16, repository: a/b}`)
		a.update("v1alpha1", "etcd-warden", `status: {clusterID: abc}`)
	}
	patched := func(a *applier) { a.update("v1alpha1", "kubectl-patch", `spec: {paused: true}`) }
	nothing := func(*applier) {}
	const withoutTLS = `{replicas: 3, version: 3.6.16, image: {repository: a/b}, config: {extraArgs: {cors: "*"}}, tls: {client: {mode: Disabled}, peer: {mode: Disabled}}}`
	const managed = `{replicas: 3, version: 3.6.16, image: {repository: a/b}, config: {extraArgs: {cors: "*"}}}`
	for name, test := range map[string]struct {
		before, between func(*applier)
		base            string
		fields          []fieldValue
	}{
		"a cluster that was created in v1alpha1":                {createdInV1alpha1, nothing, withoutTLS, onlyHub},
		"a cluster that is patched in v1alpha1":                 {nothing, patched, managed, slices.Concat(onlyHub, onlyHubTLS)},
		"a cluster in memory that is patched":                   {nothing, patched, managed, onlyHubInMemory},
		"a cluster with Secrets that is patched":                {nothing, patched, managed, secrets},
		"a cluster without TLS that is patched":                 {nothing, patched, withoutTLS, onlyHub},
		"a cluster that was created and is patched in v1alpha1": {createdInV1alpha1, patched, withoutTLS, onlyHub},
	} {
		t.Run(name, func(t *testing.T) {
			all := manifest(t, test.base, test.fields...)
			for _, f := range test.fields {
				fewer := runtime.DeepCopyJSON(all)
				unstructured.RemoveNestedField(fewer, strings.Split(f.path, ".")...)
				prune(fewer)
				withdrawn, never := newApplier(t), newApplier(t)
				test.before(withdrawn)
				withdrawn.apply("v1beta1", "gitops", all)
				test.between(withdrawn)
				withdrawn.apply("v1beta1", "gitops", fewer)
				test.before(never)
				never.apply("v1beta1", "gitops", fewer)
				test.between(never)
				t.Run(f.path, func(t *testing.T) {
					wantSame(t, specIn(never, "v1beta1"), specIn(withdrawn, "v1beta1"))
				})
			}
		})
	}
}

func TestOnlyHubListsEveryFieldThatV1alpha1Lacks(t *testing.T) {
	for _, r := range counterparts {
		for _, path := range r.hub {
			if len(r.spoke) == 0 && strings.HasPrefix(path, "spec.") && !slices.ContainsFunc(slices.Concat(onlyHub, onlyHubInMemory), func(f fieldValue) bool { return f.path == path }) {
				t.Errorf("%s is not in onlyHub", path)
			}
		}
	}
}

func TestApplyingInV1alpha1WithdrawsItsFields(t *testing.T) {
	all := manifest(t, `{size: 3, version: 3.5.35, repository: a/b, paused: true, pod: {DNSTimeoutInSecond: 5, busyboxImage: busybox, antiAffinity: true, labels: {a: b},
		etcdEnv: [{name: ETCD_SNAPSHOT_COUNT, value: "1"}, {name: ETCD_MAX_WALS, value: "2"}, {name: ETCD_CORS, value: "*"}]},
		TLS: {static: {member: {serverSecret: s, peerSecret: p}, operatorSecret: o}}}`)
	for _, path := range []string{"version", "repository", "paused", "pod", "pod.DNSTimeoutInSecond", "pod.busyboxImage", "pod.antiAffinity", "pod.labels", "pod.etcdEnv", "TLS", "TLS.static.member.peerSecret"} {
		fewer := runtime.DeepCopyJSON(all)
		unstructured.RemoveNestedField(fewer, strings.Split("spec."+path, ".")...)
		withdrawn, never := newApplier(t), newApplier(t)
		withdrawn.apply("v1alpha1", "gitops", all)
		withdrawn.update("v1beta1", "etcd-warden", `status: {clusterID: abc}`)
		withdrawn.apply("v1alpha1", "gitops", fewer)
		never.apply("v1alpha1", "gitops", fewer)
		never.update("v1beta1", "etcd-warden", `status: {clusterID: abc}`)
		t.Run(path, func(t *testing.T) {
			wantSame(t, specIn(never, "v1beta1"), specIn(withdrawn, "v1beta1"))
			wantSame(t, specIn(never, "v1alpha1"), specIn(withdrawn, "v1alpha1"))
		})
	}
}

func TestApplyingInV1alpha1WithdrawsOneOption(t *testing.T) {
	const others = `{name: ETCD_SNAPSHOT_COUNT, value: "1"}, {name: ETCD_CORS, value: "*"}`
	a := newApplier(t)
	a.apply("v1alpha1", "gitops", manifest(t, `{size: 3, pod: {etcdEnv: [{name: ETCD_MAX_WALS, value: "2"}, `+others+`]}}`))
	a.update("v1beta1", "etcd-warden", `status: {clusterID: abc}`)
	a.apply("v1alpha1", "gitops", manifest(t, `{size: 3, pod: {etcdEnv: [`+others+`]}}`))
	wantSame(t, manifest(t, `{size: 3, pod: {etcdEnv: [`+others+`]}}`), specIn(a, "v1alpha1"))
}

func TestApplyingInV1alpha1KeepsFieldsThatItLacks(t *testing.T) {
	all := manifest(t, `{replicas: 3, version: 3.6.16, image: {repository: a/b}}`, slices.Concat(onlyHub, onlyHubTLS)...)
	a := newApplier(t)
	a.apply("v1beta1", "platform", all)
	want := specIn(a, "v1beta1")
	a.apply("v1alpha1", "team", manifest(t, `{pod: {labels: {a: b}, DNSTimeoutInSecond: 5}}`))
	a.apply("v1alpha1", "team", manifest(t, `{pod: {labels: {c: d}}}`))
	a.apply("v1alpha1", "team", manifest(t, `{}`))
	wantSame(t, want, specIn(a, "v1beta1"))
}

// applier has the field managers of an API server and one stored object.
type applier struct {
	t        *testing.T
	managers map[string]*managedfields.FieldManager
	stored   *unstructured.Unstructured
}

func newApplier(t *testing.T) *applier {
	t.Helper()
	a := &applier{t: t, managers: map[string]*managedfields.FieldManager{}}
	models := map[string]*spec.Schema{}
	for _, version := range definition(t).Spec.Versions {
		model := &spec.Schema{}
		if err := json.Unmarshal(asJSON(version.Schema.OpenAPIV3Schema), model); err != nil {
			t.Fatal(err)
		}
		model.AddExtension("x-kubernetes-group-version-kind", []any{map[string]any{
			"group": v1beta1.GroupVersion.Group, "version": version.Name, "kind": v1beta1.EtcdClusterKind,
		}})
		metadata := model.Properties["metadata"]
		metadata.AddExtension("x-kubernetes-preserve-unknown-fields", true)
		model.Properties["metadata"] = metadata
		models[version.Name] = model
	}
	types, err := managedfields.NewTypeConverter(models, false)
	if err != nil {
		t.Fatal(err)
	}
	for version := range models {
		gv := v1beta1.GroupVersion
		gv.Version = version
		manager, err := managedfields.NewDefaultCRDFieldManager(types, converter{}, converter{}, converter{}, gv.WithKind(v1beta1.EtcdClusterKind), gv, "", nil)
		if err != nil {
			t.Fatal(err)
		}
		a.managers[version] = manager
	}
	return a
}

func (a *applier) apply(version, manager string, manifest map[string]any) {
	a.t.Helper()
	applied := bare(version)
	applied.Object["spec"] = runtime.DeepCopyJSON(manifest)["spec"]
	got, err := a.managers[version].Apply(a.in(version), applied, manager, true)
	a.store(got, err)
}

// update sets fields of the spec or the status.
func (a *applier) update(version, manager, text string) {
	a.t.Helper()
	was := a.in(version)
	changed := was.DeepCopy()
	for part, fields := range yamlOf(a.t, text).(map[string]any) {
		for field, value := range fields.(map[string]any) {
			if err := unstructured.SetNestedField(changed.Object, value, part, field); err != nil {
				a.t.Fatal(err)
			}
		}
	}
	got, err := a.managers[version].Update(was, changed, manager)
	a.store(got, err)
}

func (a *applier) store(got runtime.Object, err error) {
	a.t.Helper()
	if err != nil {
		a.t.Fatal(err)
	}
	stored, err := converter{}.ConvertToVersion(got, v1beta1.GroupVersion)
	if err != nil {
		a.t.Fatal(err)
	}
	a.stored = stored.(*unstructured.Unstructured).DeepCopy()
}

func (a *applier) in(version string) *unstructured.Unstructured {
	a.t.Helper()
	if a.stored == nil {
		return bare(version)
	}
	gv := v1beta1.GroupVersion
	gv.Version = version
	converted, err := converter{}.ConvertToVersion(a.stored, gv)
	if err != nil {
		a.t.Fatal(err)
	}
	return converted.(*unstructured.Unstructured).DeepCopy()
}

// specIn returns the spec without empty values.
func specIn(a *applier, version string) map[string]any {
	a.t.Helper()
	tree := map[string]any{"spec": a.in(version).Object["spec"]}
	prune(tree)
	return tree
}

func bare(version string) *unstructured.Unstructured {
	return &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": v1beta1.GroupVersion.Group + "/" + version, "kind": v1beta1.EtcdClusterKind, "metadata": map[string]any{"namespace": "shop", "name": "prod"},
	}}
}

// manifest returns a spec with further fields.
func manifest(t *testing.T, text string, fields ...fieldValue) map[string]any {
	t.Helper()
	tree := map[string]any{"spec": yamlOf(t, text)}
	for _, f := range fields {
		if err := unstructured.SetNestedField(tree, yamlOf(t, f.value), strings.Split(f.path, ".")...); err != nil {
			t.Fatal(err)
		}
	}
	return tree
}

// yamlOf decodes YAML in the form of unstructured objects.
func yamlOf(t *testing.T, text string) any {
	t.Helper()
	raw, err := yaml.YAMLToJSON([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	var value any
	if err := utiljson.Unmarshal(raw, &value); err != nil {
		t.Fatal(err)
	}
	return value
}

// converter converts custom resources as the API server does, with our conversion.
type converter struct{ runtime.ObjectConvertor }

func (converter) ConvertToVersion(in runtime.Object, to runtime.GroupVersioner) (runtime.Object, error) {
	object := in.(*unstructured.Unstructured)
	if object.GroupVersionKind().GroupVersion() == to {
		return in, nil
	}
	raw, err := object.MarshalJSON()
	if err != nil {
		return nil, err
	}
	if raw, err = convertObject(raw, to.(schema.GroupVersion).String()); err != nil {
		return nil, err
	}
	converted := &unstructured.Unstructured{}
	return converted, converted.UnmarshalJSON(raw)
}

func (converter) Default(runtime.Object) {}

func (converter) New(kind schema.GroupVersionKind) (runtime.Object, error) {
	object := &unstructured.Unstructured{}
	object.SetGroupVersionKind(kind)
	return object, nil
}
