//go:build integration

package integration

import (
	"slices"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/etcd-warden/etcd-warden/api/v1alpha1"
	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/internal/cluster"
	"github.com/etcd-warden/etcd-warden/internal/cluster/clustertest"
	"github.com/etcd-warden/etcd-warden/internal/failpoint"
	"github.com/etcd-warden/etcd-warden/internal/pki/pkitest"
)

// impossible is a cluster that the API server accepts and that cannot be made.
type impossible struct {
	name string
	// prepare comes before the cluster, change shapes it; mend is what the user does about it.
	prepare func(*lab)
	change  func(*v1beta1.EtcdCluster)
	mend    func(*lab)
	// reason is that of Progressing and Degraded, and of a warning; says are parts of the message.
	reason string
	says   []string
	// touched allows objects that are made before the obstacle is met, such as the Services.
	// Volumes and members are never allowed.
	touched bool
}

var impossibles = []impossible{
	{
		name: "the quota leaves no room for the log on the volume",
		change: func(c *v1beta1.EtcdCluster) {
			c.Spec.Config = &v1beta1.Config{QuotaBackendBytes: new(resource.MustParse("7Gi"))}
		},
		mend:   func(l *lab) { l.change(func(c *v1beta1.EtcdCluster) { c.Spec.Config = nil }) },
		reason: v1beta1.ReasonQuotaTooLarge,
		says:   []string{"7516192768", "8Gi", "at most 6871947673"},
	},
	{
		name:    "a Secret is missing",
		prepare: func(l *lab) { l.createCertificatesBut(peerSecret, nil) },
		change:  withTLS,
		mend:    func(l *lab) { l.createSecret(peerSecret, l.newCertificates()[peerSecret]) },
		reason:  v1beta1.ReasonSecretNotFound,
		says:    []string{"Secret prod-peer does not exist", "Create it with the keys peer.crt, peer.key and peer-ca.crt"},
	},
	{
		name:   "every Secret is missing",
		change: withTLS,
		mend:   func(l *lab) { l.createCertificates() },
		reason: v1beta1.ReasonSecretNotFound,
		says:   []string{"Secret prod-peer", "Secret prod-server", "Secret prod-operator"},
	},
	{
		name: "a Secret lacks a key",
		prepare: func(l *lab) {
			l.createCertificatesBut(serverSecret, func(data map[string][]byte) { delete(data, "server.key") })
		},
		change: withTLS,
		mend:   func(l *lab) { l.replaceCertificates() },
		reason: v1beta1.ReasonCertificateInvalid,
		says:   []string{"Secret prod-server", "server.key"},
	},
	{
		name: "a certificate is for other names",
		prepare: func(l *lab) {
			l.createCertificatesBut(peerSecret, func(data map[string][]byte) {
				replace(data, l.peerData(pkitest.NewAuthority(l.T, "test"), "*.other."+l.namespace+".svc", time.Time{}))
			})
		},
		change: withTLS,
		mend:   func(l *lab) { l.replaceCertificates() },
		reason: v1beta1.ReasonCertificateInvalid,
		says:   []string{"Secret prod-peer", "prod-0-0.prod."},
	},
	{
		name: "a certificate has expired",
		prepare: func(l *lab) {
			l.createCertificatesBut(peerSecret, func(data map[string][]byte) {
				replace(data, l.peerData(pkitest.NewAuthority(l.T, "test"), "*.prod."+l.namespace+".svc", time.Now().Add(-time.Hour)))
			})
		},
		change: withTLS,
		mend:   func(l *lab) { l.replaceCertificates() },
		reason: v1beta1.ReasonCertificateInvalid,
		says:   []string{"Secret prod-peer", "expired"},
	},
	{
		name: "the StorageClass does not exist",
		change: func(c *v1beta1.EtcdCluster) {
			class := "missing-in-" + c.Namespace
			c.Spec.Storage = clustertest.Gibibytes(1)
			c.Spec.Storage.VolumeClaimTemplate.Spec.StorageClassName = &class
		},
		mend: func(l *lab) {
			class := &storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: "missing-in-" + l.namespace}, Provisioner: "example.com/none"}
			must(l.T, admin.Create(l.Context(), class))
		},
		reason: v1beta1.ReasonStorageClassNotFound,
		says:   []string{"StorageClass missing-in-test-", "Create it"},
	},
	{
		name:   "the minor version is not supported",
		change: func(c *v1beta1.EtcdCluster) { c.Spec.Version = "3.4.37" },
		mend:   func(l *lab) { l.change(func(c *v1beta1.EtcdCluster) { c.Spec.Version = "3.6.16" }) },
		reason: v1beta1.ReasonUnsupportedVersion,
		says:   []string{"spec.version: etcd 3.4.37 is not supported", "3.6 from 3.6.12 on"},
	},
	{
		name:   "the patch version is too old",
		change: func(c *v1beta1.EtcdCluster) { c.Spec.Version = "3.5.31" },
		mend:   func(l *lab) { l.change(func(c *v1beta1.EtcdCluster) { c.Spec.Version = "3.5.32" }) },
		reason: v1beta1.ReasonUnsupportedVersion,
		says:   []string{"Write 3.5.32 or a later patch"},
	},
	{
		name:   "an option is the operator's",
		change: withOption("data-dir", "/tmp"),
		mend:   func(l *lab) { l.change(func(c *v1beta1.EtcdCluster) { c.Spec.Config = nil }) },
		reason: v1beta1.ReasonUnsupportedOption,
		says:   []string{"data-dir: the data directory lies on the member's volume", "Remove it"},
	},
	{
		name: "the security context is not restricted",
		change: func(c *v1beta1.EtcdCluster) {
			c.Spec.PodTemplate = &v1beta1.PodTemplate{Spec: v1beta1.PodSpec{SecurityContext: &corev1.PodSecurityContext{
				Sysctls: []corev1.Sysctl{{Name: "net.ipv4.ip_forward", Value: "1"}}, SELinuxOptions: &corev1.SELinuxOptions{Type: "spc_t"},
			}}}
		},
		mend:   func(l *lab) { l.change(func(c *v1beta1.EtcdCluster) { c.Spec.PodTemplate = nil }) },
		reason: v1beta1.ReasonSecurityNotRestricted,
		says:   []string{"the sysctl net.ipv4.ip_forward", "seLinuxOptions.type spc_t", "Remove it from spec.podTemplate"},
	},
	{
		name:   "an option is not on the version's list",
		change: withOption("experimental-warning-apply-duration", "1s"),
		mend:   func(l *lab) { l.change(func(c *v1beta1.EtcdCluster) { c.Spec.Config = nil }) },
		reason: v1beta1.ReasonUnsupportedOption,
		says:   []string{"etcd 3.6 calls it warning-apply-duration", "Remove it"},
	},
	{
		name: "a label's value is none",
		change: func(c *v1beta1.EtcdCluster) {
			c.Spec.PodTemplate = &v1beta1.PodTemplate{Metadata: v1beta1.PodMetadata{Labels: map[string]string{"team": "not a value!"}}}
		},
		mend: func(l *lab) {
			l.change(func(c *v1beta1.EtcdCluster) { c.Spec.PodTemplate.Metadata.Labels["team"] = "value" })
		},
		reason:  v1beta1.ReasonWriteRefused,
		says:    []string{"StatefulSet prod-0", "not a value!", "Correct the spec"},
		touched: true,
	},
	{
		name: "a priority class's name is none",
		change: func(c *v1beta1.EtcdCluster) {
			c.Spec.PodTemplate = &v1beta1.PodTemplate{Spec: v1beta1.PodSpec{PriorityClassName: "Bad Name"}}
		},
		mend:    func(l *lab) { l.change(func(c *v1beta1.EtcdCluster) { c.Spec.PodTemplate = nil }) },
		reason:  v1beta1.ReasonWriteRefused,
		says:    []string{"StatefulSet prod-0", "Bad Name", "Correct the spec"},
		touched: true,
	},
	{
		name:   "etcd cannot start with an option's value",
		change: withOption("heartbeat-interval", "0"),
		mend:   func(l *lab) { l.change(func(c *v1beta1.EtcdCluster) { c.Spec.Config = nil }) },
		reason: v1beta1.ReasonUnsupportedOption,
		says:   []string{"heartbeat-interval: its value must be a whole number from 1 to 10000", "correct its value"},
	},
	{
		name: "the limits are below the requests",
		change: func(c *v1beta1.EtcdCluster) {
			c.Spec.Resources = v1beta1.ResourceRequirements{
				Limits:   corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("1Gi")},
				Requests: corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("2Gi")},
			}
		},
		mend: func(l *lab) {
			l.change(func(c *v1beta1.EtcdCluster) { c.Spec.Resources = v1beta1.ResourceRequirements{} })
		},
		reason:  v1beta1.ReasonWriteRefused,
		says:    []string{"StatefulSet prod-0", "memory limit"},
		touched: true,
	},
}

// What the operator checks is refused for a cluster in v1alpha1 too: a condition says why, and nothing is made.
func TestAClusterInV1alpha1ThatCannotBeMadeSaysWhy(t *testing.T) {
	t.Parallel()
	env := func(name, value string) *v1alpha1.PodPolicy {
		return &v1alpha1.PodPolicy{EtcdEnv: []v1alpha1.EtcdOption{{Name: name, Value: value}}}
	}
	for does, c := range map[string]struct {
		spec   v1alpha1.EtcdClusterSpec
		reason string
		says   []string
	}{
		"a version of the original operator": {
			v1alpha1.EtcdClusterSpec{Size: 3, Version: "3.2.13"}, v1beta1.ReasonUnsupportedVersion, []string{"etcd 3.2.13 is not supported", "3.5 from 3.5.32 on", "upgrade it to 3.5 first"},
		},
		"an option that the operator sets": {
			v1alpha1.EtcdClusterSpec{Size: 3, Pod: env("ETCD_DATA_DIR", "/tmp")}, v1beta1.ReasonUnsupportedOption, []string{"data-dir", "spec.pod.etcdEnv in v1alpha1"},
		},
		"a sysctl that is not restricted": {
			v1alpha1.EtcdClusterSpec{Size: 3, Pod: &v1alpha1.PodPolicy{SecurityContext: &corev1.PodSecurityContext{Sysctls: []corev1.Sysctl{{Name: "kernel.msgmax", Value: "1"}}}}},
			v1beta1.ReasonSecurityNotRestricted, []string{"the sysctl kernel.msgmax", "spec.pod in v1alpha1"},
		},
		"a quota beyond the volume": {
			v1alpha1.EtcdClusterSpec{Size: 3, Pod: env("ETCD_QUOTA_BACKEND_BYTES", "17179869184")},
			v1beta1.ReasonQuotaTooLarge, []string{"17179869184", "2Gi", "at most 1717986918"},
		},
	} {
		t.Run(does, func(t *testing.T) {
			t.Parallel()
			l := newLab(t)
			old := &v1alpha1.EtcdCluster{ObjectMeta: metav1.ObjectMeta{Namespace: l.namespace, Name: name}, Spec: c.spec}
			must(t, admin.Create(t.Context(), old))
			l.settle()
			l.expectRefused(c.reason, c.says...)
			if have := l.objectNames(); len(have) > 0 {
				t.Errorf("objects were made: %v", have)
			}
		})
	}
}

// createCertificatesBut creates the Secrets, one of them spoiled, or left out where spoil is nil.
func (l *lab) createCertificatesBut(name string, spoil func(map[string][]byte)) {
	l.Helper()
	all := l.newCertificates()
	if spoil == nil {
		delete(all, name)
	} else {
		spoil(all[name])
	}
	for name, data := range all {
		l.createSecret(name, data)
	}
}

func (l *lab) replaceCertificates() {
	l.Helper()
	for name, data := range l.newCertificates() {
		l.updateSecret(name, data)
	}
}

func replace(data, with map[string][]byte) {
	clear(data)
	for key, value := range with {
		data[key] = value
	}
}

func storage(size string) corev1.ResourceList {
	return corev1.ResourceList{corev1.ResourceStorage: resource.MustParse(size)}
}

func withOption(name, value string) func(*v1beta1.EtcdCluster) {
	return func(c *v1beta1.EtcdCluster) {
		c.Spec.Config = &v1beta1.Config{ExtraArgs: map[string]string{name: value}}
	}
}

func TestAClusterThatCannotBeMadeSaysWhyAndGoesOnOnceItIsMended(t *testing.T) {
	t.Parallel()
	for _, c := range impossibles {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			l := newLab(t)
			if c.prepare != nil {
				c.prepare(l)
			}
			l.create(3, c.change)
			l.settle()
			l.expectRefused(c.reason, c.says...)
			have := l.objectNames()
			lasting := slices.ContainsFunc(have, func(name string) bool {
				return strings.HasPrefix(name, "PersistentVolumeClaim/") || strings.HasPrefix(name, "StatefulSet/")
			})
			if lasting || !c.touched && len(have) > 0 {
				t.Errorf("objects were made: %v", have)
			}
			c.mend(l)
			l.settleUntilAvailable()
			l.expectFounded(3)
		})
	}
}

// expectRefused fails unless conditions and a warning tell the reason and say what to do.
func (l *lab) expectRefused(reason string, says ...string) {
	l.Helper()
	c := l.get()
	for kind, status := range map[string]metav1.ConditionStatus{
		v1beta1.ConditionProgressing: metav1.ConditionFalse, v1beta1.ConditionDegraded: metav1.ConditionTrue,
	} {
		condition := expectCondition(l.T, c, kind, status, reason)
		for _, text := range says {
			if !strings.Contains(condition.Message, text) {
				l.Errorf("the message of %s is %q, want %q in it", kind, condition.Message, text)
			}
		}
	}
	if !l.operator.events.has(corev1.EventTypeWarning, reason) {
		l.Errorf("events = %q, want a warning %s", l.operator.events.events, reason)
	}
}

// TestACreationWithoutADefaultStorageClassSaysSo is not parallel: there is one default class.
func TestACreationWithoutADefaultStorageClassSaysSo(t *testing.T) {
	must(t, admin.Delete(t.Context(), defaultClass()))
	l := newLab(t)
	l.create(3)
	l.settle()
	l.expectRefused(v1beta1.ReasonStorageClassNotFound, "there is no default one", "Mark a class as the default")
	if have := l.objectNames(); len(have) > 0 {
		t.Errorf("objects were made: %v", have)
	}
	must(t, admin.Create(t.Context(), defaultClass()))
	l.settleUntilAvailable()
	l.expectFounded(3)
}

// foreigners are objects of names that the cluster needs.
var foreigners = map[string]func() client.Object{
	"Service prod":        func() client.Object { return foreignService("prod") },
	"Service prod-client": func() client.Object { return foreignService("prod-client") },
	"PodDisruptionBudget prod": func() client.Object {
		one := intstr.FromInt32(1)
		return &policyv1.PodDisruptionBudget{
			ObjectMeta: metav1.ObjectMeta{Name: "prod"},
			Spec:       policyv1.PodDisruptionBudgetSpec{MinAvailable: &one, Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"theirs": "yes"}}},
		}
	},
	"PersistentVolumeClaim data-prod-0": func() client.Object { return foreignVolume("data-prod-0") },
	"PersistentVolumeClaim data-prod-1": func() client.Object { return foreignVolume("data-prod-1") },
	"StatefulSet prod-0":                func() client.Object { return foreignSet("prod-0") },
	"StatefulSet prod-2":                func() client.Object { return foreignSet("prod-2") },
}

func foreignService(name string) client.Object {
	return &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: 80}}}}
}

func foreignVolume(name string) client.Object {
	return &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: corev1.PersistentVolumeClaimSpec{
			AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
			Resources:   corev1.VolumeResourceRequirements{Requests: storage("1Gi")},
		},
	}
}

func foreignSet(name string) client.Object {
	none, labels := int32(0), map[string]string{"theirs": "yes"}
	return &appsv1.StatefulSet{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: appsv1.StatefulSetSpec{
			Replicas: &none,
			Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: labels},
				Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "theirs", Image: "theirs"}}},
			},
		},
	}
}

func TestAnObjectOfSomebodyElseIsNeitherTakenOverNorChanged(t *testing.T) {
	t.Parallel()
	for what, build := range foreigners {
		for _, labelled := range []bool{false, true} {
			kind, objectName, _ := strings.Cut(what, " ")
			title := what + " without our labels"
			if labelled {
				title = what + " with our labels and no owner"
			}
			t.Run(title, func(t *testing.T) {
				t.Parallel()
				l := newLab(t)
				foreign := build()
				foreign.SetNamespace(l.namespace)
				if labelled {
					foreign.SetLabels(map[string]string{
						cluster.LabelManagedBy: cluster.ManagedByValue, cluster.LabelCluster: name,
						cluster.LabelMember: strings.TrimPrefix(objectName, "data-"),
					})
				}
				must(t, admin.Create(t.Context(), foreign))
				version := foreign.GetResourceVersion()
				l.create(3)
				l.settle()
				owner, advice := "has no owner", "Rename or delete it"
				if kind == "PersistentVolumeClaim" { // to delete it may lose data
					owner, advice = "does not have the operator's annotation", "Do not delete it before you know whose data it holds"
				}
				l.expectRefused(v1beta1.ReasonForeignObject, kind+" "+objectName+" exists and "+owner, advice)
				must(t, admin.Get(t.Context(), client.ObjectKeyFromObject(foreign), foreign))
				if foreign.GetResourceVersion() != version {
					t.Errorf("%s was changed: %+v", what, foreign)
				}
				must(t, admin.Delete(t.Context(), foreign))
				l.settleUntilAvailable()
				l.expectFounded(3)
			})
		}
	}
}

// TestAnImageThatCannotBePulledIsTold also shows the way out:
// the cluster that never started is created again beside its empty volumes.
func TestAnImageThatCannotBePulledIsTold(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.create(3, func(c *v1beta1.EtcdCluster) { c.Spec.Image.Repository = unpullable })
	l.settle()
	c := l.get()
	degraded := expectCondition(t, c, v1beta1.ConditionDegraded, metav1.ConditionTrue, v1beta1.ReasonMembersNotReady)
	for _, text := range []string{"prod-0", unpullable, v1beta1.ReasonImagePullFailed, "kubectl describe pod"} {
		if !strings.Contains(degraded.Message, text) {
			t.Errorf("the message is %q, want %q in it", degraded.Message, text)
		}
	}
	if !l.operator.events.has(corev1.EventTypeWarning, v1beta1.ReasonMembersNotReady) {
		t.Errorf("events = %q, want a warning", l.operator.events.events)
	}
	l.change(func(c *v1beta1.EtcdCluster) { c.Spec.Image.Repository = "gcr.io/etcd-development/etcd" })
	l.settleUntilAvailable()
}

// TestARunningClusterSurvivesTheLossOfTheOperatorsCertificate has a new operator find the Secret gone.
func TestARunningClusterSurvivesTheLossOfTheOperatorsCertificate(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	certificates := l.newCertificates()
	for name, data := range certificates {
		l.createSecret(name, data)
	}
	l.create(3, withTLS)
	l.settleUntilAvailable()
	l.put("acknowledged", "before")
	before := l.versions()
	l.delete(&corev1.Secret{}, operatorSecret)
	l.operator = l.newOperator(failpoint.Hooks{})
	l.settle()
	c := l.get()
	expectCondition(t, c, v1beta1.ConditionAvailable, metav1.ConditionUnknown, v1beta1.ReasonUnobservable)
	expectCondition(t, c, v1beta1.ConditionDegraded, metav1.ConditionTrue, v1beta1.ReasonSecretNotFound)
	l.expectVersions(before)
	l.checkData(3)
	l.createSecret(operatorSecret, l.newCertificates()[operatorSecret])
	l.updateSecret(serverSecret, l.newCertificates()[serverSecret]) // of another authority: the two do not fit each other
	l.settle()
	expectCondition(t, l.get(), v1beta1.ConditionDegraded, metav1.ConditionTrue, v1beta1.ReasonCertificateInvalid)
	for name, data := range certificates {
		l.updateSecret(name, data)
	}
	l.settleUntilAvailable()
	l.expectFounded(3)
}
