// Package manifests tests what operator-sdk makes of this folder: the bundle.
package manifests

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	operatorsv1alpha1 "github.com/operator-framework/api/pkg/operators/v1alpha1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"sigs.k8s.io/yaml"
)

const (
	bundle      = "../../bundle/manifests"
	managerName = "etcd-warden-controller-manager"
)

func TestTheBundleHasAnExampleAndDescriptorsOfEveryVersion(t *testing.T) {
	csv, crd := read[operatorsv1alpha1.ClusterServiceVersion](t, "etcd-warden.clusterserviceversion.yaml"), definition(t)
	var examples []struct {
		APIVersion string
		Spec       map[string]any
	}
	if err := json.Unmarshal([]byte(csv.Annotations["alm-examples"]), &examples); err != nil {
		t.Fatal(err)
	}
	for _, version := range crd.Spec.Versions {
		if !slices.ContainsFunc(examples, func(e struct {
			APIVersion string
			Spec       map[string]any
		}) bool {
			return e.APIVersion == crd.Spec.Group+"/"+version.Name && len(e.Spec) > 0
		}) {
			t.Errorf("alm-examples has none of %s with a spec", version.Name)
		}
		owned := slices.IndexFunc(csv.Spec.CustomResourceDefinitions.Owned, func(o operatorsv1alpha1.CRDDescription) bool { return o.Version == version.Name })
		if owned < 0 {
			t.Errorf("the bundle does not own %s", version.Name)
			continue
		}
		o := csv.Spec.CustomResourceDefinitions.Owned[owned]
		if o.Description == "" || o.DisplayName == "" || len(o.SpecDescriptors) == 0 || len(o.StatusDescriptors) == 0 || len(o.Resources) == 0 {
			t.Errorf("%s lacks a description, descriptors or resources", version.Name)
		}
	}
}

func TestTheBundleHasOLMWireTheConversionWebhook(t *testing.T) {
	csv, crd := read[operatorsv1alpha1.ClusterServiceVersion](t, "etcd-warden.clusterserviceversion.yaml"), definition(t)
	if len(csv.Spec.WebhookDefinitions) != 1 {
		t.Fatalf("the bundle defines %d webhooks", len(csv.Spec.WebhookDefinitions))
	}
	w := csv.Spec.WebhookDefinitions[0]
	deployment := deploymentOf(t, csv, "etcd-warden-webhook")
	switch {
	case w.Type != operatorsv1alpha1.ConversionWebhook, w.GenerateName == "", w.SideEffects == nil || *w.SideEffects != "None":
		t.Errorf("the webhook is %+v", w)
	case !slices.Equal(w.ConversionCRDs, []string{crd.Name}):
		t.Errorf("the webhook converts %v", w.ConversionCRDs)
	case w.DeploymentName != deployment.Name:
		t.Errorf("the webhook runs in %s, the Deployment is %s", w.DeploymentName, deployment.Name)
	case w.TargetPort == nil || !slices.ContainsFunc(deployment.Spec.Template.Spec.Containers[0].Ports, portIs(w.TargetPort.IntVal)):
		t.Errorf("no port of the Deployment is the webhook's, %v", w.TargetPort)
	}
	// With a conversion webhook OLM accepts only the mode AllNamespaces, and only a CRD that keeps no unknown fields.
	for _, mode := range csv.Spec.InstallModes {
		if mode.Supported != (mode.Type == operatorsv1alpha1.InstallModeTypeAllNamespaces) {
			t.Errorf("the install mode %s has supported: %t", mode.Type, mode.Supported)
		}
	}
	if crd.Spec.Conversion == nil || crd.Spec.Conversion.Strategy != apiextensionsv1.WebhookConverter || crd.Spec.PreserveUnknownFields {
		t.Error("the bundle's CRD does not convert by webhook: an InstallPlan would have the API server mix up the versions until the operator repairs it")
	}
}

// TestInstallsTheWebhookBesideTheManager checks what OLM makes of the two Deployments.
func TestInstallsTheWebhookBesideTheManager(t *testing.T) {
	csv := read[operatorsv1alpha1.ClusterServiceVersion](t, "etcd-warden.clusterserviceversion.yaml")
	manager, hook := deploymentOf(t, csv, managerName), deploymentOf(t, csv, "etcd-warden-webhook")
	if n := len(csv.Spec.InstallStrategy.StrategySpec.DeploymentSpecs); n != 2 {
		t.Errorf("the bundle has %d Deployments", n)
	}
	if *hook.Spec.Replicas != 2 {
		t.Errorf("the webhook has %d replicas", *hook.Spec.Replicas)
	}
	managerPod, hookPod := manager.Spec.Template.Spec, hook.Spec.Template.Spec
	if managerPod.Containers[0].Image != hookPod.Containers[0].Image {
		t.Errorf("the images are %s and %s", managerPod.Containers[0].Image, hookPod.Containers[0].Image)
	}
	if slices.ContainsFunc(managerPod.Containers[0].Ports, portIs(csv.Spec.WebhookDefinitions[0].TargetPort.IntVal)) {
		t.Error("the manager has the webhook's port")
	}
	budget := read[policyv1.PodDisruptionBudget](t, "etcd-warden-webhook_policy_v1_poddisruptionbudget.yaml")
	if selector := budget.Spec.Selector.MatchLabels; !maps.Equal(selector, hook.Spec.Selector.MatchLabels) {
		t.Errorf("the budget selects %v", selector)
	}
	// OLM creates the Service. It would not take over one of the bundle.
	const service = "etcd-warden-webhook-service_v1_service.yaml"
	if _, err := os.Stat(filepath.Join(bundle, service)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the bundle has %s: %v", service, err)
	}
	strategy := csv.Spec.InstallStrategy.StrategySpec
	for _, permissions := range slices.Concat(strategy.Permissions, strategy.ClusterPermissions) {
		for _, rule := range permissions.Rules {
			if slices.Contains(rule.Resources, "customresourcedefinitions") && permissions.ServiceAccountName != hookPod.ServiceAccountName {
				t.Errorf("%s may %v CRDs", permissions.ServiceAccountName, rule.Verbs)
			}
			if slices.Contains(rule.APIGroups, "operator.etcd-warden.io") && permissions.ServiceAccountName != managerPod.ServiceAccountName {
				t.Errorf("%s may %v %v", permissions.ServiceAccountName, rule.Verbs, rule.Resources)
			}
		}
	}
}

func TestTheBundleNamesEveryImage(t *testing.T) {
	csv := read[operatorsv1alpha1.ClusterServiceVersion](t, "etcd-warden.clusterserviceversion.yaml")
	images := map[string]bool{}
	for _, related := range csv.Spec.RelatedImages {
		images[related.Image] = true
	}
	manager := deploymentOf(t, csv, managerName).Spec.Template.Spec.Containers[0]
	wanted := []string{manager.Image}
	for _, variable := range manager.Env {
		if strings.HasPrefix(variable.Name, "RELATED_IMAGE_") {
			wanted = append(wanted, variable.Value)
		}
	}
	for _, image := range wanted {
		if !images[image] && image != manager.Image {
			t.Errorf("relatedImages lacks %s", image)
		}
	}
	if len(wanted) < 2 || csv.Annotations["containerImage"] != manager.Image {
		t.Errorf("the images are %v, and the annotation containerImage is %s", wanted, csv.Annotations["containerImage"])
	}
}

// TestTheBundleReplacesTheReleaseBeforeIt: a first release replaces nothing.
func TestTheBundleReplacesTheReleaseBeforeIt(t *testing.T) {
	csv := read[operatorsv1alpha1.ClusterServiceVersion](t, "etcd-warden.clusterserviceversion.yaml")
	raw, err := os.ReadFile("../../catalog/releases.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var releases []release
	if err := yaml.UnmarshalStrict(raw, &releases); err != nil {
		t.Fatal(err)
	}
	if problem := wrongEdge(csv, releases); problem != "" {
		t.Error(problem)
	}
}

func TestAWrongEdgeIsFound(t *testing.T) {
	first := []release{{Version: "1.0.0"}}
	made := []release{{Version: "1.0.0", Commit: "abc"}}
	later := append(slices.Clone(made), release{Version: "1.1.0"})
	for _, c := range []struct {
		does, replaces, skipRange string
		releases                  []release
		wrong                     bool
	}{
		{does: "takes a first release that replaces nothing", releases: first},
		{does: "takes the first release once it is made", releases: made},
		{does: "refuses a first release that replaces another", replaces: "etcd-warden.v0.9.0", releases: first, wrong: true},
		{does: "refuses a first release with a skipRange", skipRange: ">=0.9.0 <1.0.0", releases: first, wrong: true},
		{does: "takes a later release that replaces the one before it", replaces: "etcd-warden.v1.0.0", skipRange: ">=1.0.0 <1.1.0", releases: later},
		{does: "refuses a later release that replaces nothing", skipRange: ">=1.0.0 <1.1.0", releases: later, wrong: true},
		{does: "refuses a later release that replaces an unknown one", replaces: "etcd-warden.v0.9.0", skipRange: ">=1.0.0 <1.1.0", releases: later, wrong: true},
		{does: "refuses a later release without a skipRange", replaces: "etcd-warden.v1.0.0", releases: later, wrong: true},
	} {
		t.Run(c.does, func(t *testing.T) {
			csv := &operatorsv1alpha1.ClusterServiceVersion{}
			raw := fmt.Sprintf("metadata: {annotations: {olm.skipRange: %q}}\nspec: {version: %s, replaces: %q}",
				c.skipRange, c.releases[len(c.releases)-1].Version, c.replaces)
			if err := yaml.Unmarshal([]byte(raw), csv); err != nil {
				t.Fatal(err)
			}
			if problem := wrongEdge(csv, c.releases); (problem != "") != c.wrong {
				t.Errorf("it says %q", problem)
			}
		})
	}
}

// release is an entry of catalog/releases.yaml. It has no commit until the release is made.
type release struct{ Version, Commit string }

// wrongEdge says what is wrong with the edge of the upgrade graph that a bundle states.
func wrongEdge(csv *operatorsv1alpha1.ClusterServiceVersion, releases []release) string {
	replaces, skipRange := csv.Spec.Replaces, csv.Annotations["olm.skipRange"]
	before := slices.DeleteFunc(slices.Clone(releases), func(r release) bool {
		return r.Commit == "" || r.Version == csv.Spec.Version.String()
	})
	switch {
	case len(before) == 0 && (replaces != "" || skipRange != ""):
		return fmt.Sprintf("the first release replaces %q and has the skipRange %q", replaces, skipRange)
	case len(before) > 0 && !slices.ContainsFunc(before, func(r release) bool { return replaces == "etcd-warden.v"+r.Version }):
		return fmt.Sprintf("the bundle replaces %q, which is no release", replaces)
	case len(before) > 0 && skipRange == "":
		return "the bundle has no skipRange"
	}
	return ""
}

// TestTheUsersRolesReachEverySubresource: editors may do only what a role lists, and kubectl scale needs "scale".
func TestTheUsersRolesReachEverySubresource(t *testing.T) {
	verbs := map[string]map[string][]string{}
	for _, role := range []string{"editor", "viewer"} {
		verbs[role] = map[string][]string{}
		for _, rule := range read[rbacv1.ClusterRole](t, "etcd-warden-etcdcluster-"+role+"-role_rbac.authorization.k8s.io_v1_clusterrole.yaml").Rules {
			for _, of := range rule.Resources {
				verbs[role][of] = append(verbs[role][of], rule.Verbs...)
			}
		}
		if !slices.Contains(verbs[role]["etcdclusters/status"], "get") || !slices.Contains(verbs[role]["etcdclusters/scale"], "get") {
			t.Errorf("the %s cannot read every subresource: %v", role, verbs[role])
		}
	}
	for _, verb := range []string{"patch", "update"} {
		if !slices.Contains(verbs["editor"]["etcdclusters/scale"], verb) || slices.Contains(verbs["viewer"]["etcdclusters/scale"], verb) {
			t.Errorf("who may %s the scale is not the editor alone: %v", verb, verbs)
		}
	}
}

// TestTheManagerHasTheRightsOnConfigMapsThatItUses: the record of a member in memory is made with it (create), kept in
// the cache (list, watch), read again before a pod is admitted (get), annotated (patch), and deleted with a removed
// member (delete).
func TestTheManagerHasTheRightsOnConfigMapsThatItUses(t *testing.T) {
	raw, err := os.ReadFile("../rbac/role.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var role rbacv1.ClusterRole
	if err := yaml.UnmarshalStrict(raw, &role); err != nil {
		t.Fatal(err)
	}
	var verbs []string
	for _, rule := range role.Rules {
		if slices.Contains(rule.Resources, "configmaps") && slices.Contains(rule.APIGroups, "") {
			verbs = append(verbs, rule.Verbs...)
		}
	}
	slices.Sort(verbs)
	if want := []string{"create", "delete", "get", "list", "patch", "watch"}; !slices.Equal(verbs, want) {
		t.Errorf("got %v, want %v", verbs, want)
	}
}

// TestTheManagersUserIsTheImages: OpenShift assigns a user to the pod, and refuses a pod that asks for another one.
func TestTheManagersUserIsTheImages(t *testing.T) {
	csv := read[operatorsv1alpha1.ClusterServiceVersion](t, "etcd-warden.clusterserviceversion.yaml")
	for _, deployment := range csv.Spec.InstallStrategy.StrategySpec.DeploymentSpecs {
		s := deployment.Spec.Template.Spec.SecurityContext
		if s == nil || s.RunAsNonRoot == nil || !*s.RunAsNonRoot || s.RunAsUser != nil || s.RunAsGroup != nil || s.FSGroup != nil {
			t.Errorf("the pod of %s asks for %+v", deployment.Name, s)
		}
	}
	dockerfile, err := os.ReadFile("../../Dockerfile")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(dockerfile), "\nUSER 65532:65532\n") {
		t.Error("the kubelet cannot tell that the image's user is not root: it wants a number")
	}
}

// TestTheBundleNamesTheEtcdThatAClusterGetsWithoutAWord: nothing reads the variable but what mirrors images.
func TestTheBundleNamesTheEtcdThatAClusterGetsWithoutAWord(t *testing.T) {
	csv := read[operatorsv1alpha1.ClusterServiceVersion](t, "etcd-warden.clusterserviceversion.yaml")
	named := deploymentOf(t, csv, managerName).Spec.Template.Spec.Containers[0].Env
	for _, version := range definition(t).Spec.Versions {
		spec := version.Schema.OpenAPIV3Schema.Properties["spec"].Properties
		repository, ok := spec["repository"]
		if !ok {
			repository = spec["image"].Properties["repository"]
		}
		want := text(t, repository.Default) + ":v" + text(t, spec["version"].Default)
		if !slices.Contains(named, corev1.EnvVar{Name: "RELATED_IMAGE_ETCD", Value: want}) {
			t.Errorf("a cluster of %s gets %s, the bundle names %v", version.Name, want, named)
		}
		if !slices.ContainsFunc(csv.Spec.RelatedImages, func(r operatorsv1alpha1.RelatedImage) bool { return r.Image == want }) {
			t.Errorf("a cluster of %s gets %s, the related images are %v", version.Name, want, csv.Spec.RelatedImages)
		}
	}
}

func text(t *testing.T, raw *apiextensionsv1.JSON) (s string) {
	t.Helper()
	if raw == nil || json.Unmarshal(raw.Raw, &s) != nil {
		t.Fatalf("%v is no text", raw)
	}
	return s
}

func TestTheBundleHasWhatItsUsersLookFor(t *testing.T) {
	csv := read[operatorsv1alpha1.ClusterServiceVersion](t, "etcd-warden.clusterserviceversion.yaml")
	for _, key := range []string{
		"capabilities", "categories", "containerImage", "createdAt", "description", "repository", "support",
		"operatorframework.io/suggested-namespace", "features.operators.openshift.io/disconnected", "features.operators.openshift.io/fips-compliant",
		"features.operators.openshift.io/proxy-aware", "features.operators.openshift.io/tls-profiles", "features.operators.openshift.io/token-auth-aws",
		"features.operators.openshift.io/token-auth-azure", "features.operators.openshift.io/token-auth-gcp",
	} {
		if csv.Annotations[key] == "" {
			t.Errorf("the annotation %s is missing", key)
		}
	}
	for _, label := range []string{"operatorframework.io/arch.amd64", "operatorframework.io/arch.arm64", "operatorframework.io/os.linux"} {
		if csv.Labels[label] != "supported" {
			t.Errorf("the label %s is missing", label)
		}
	}
	if len(csv.Spec.Icon) != 1 || csv.Spec.Icon[0].MediaType != "image/svg+xml" {
		t.Errorf("the icon is %+v", csv.Spec.Icon)
	}
}

// TestEveryCopyOfTheIconIsTheFileOfTheDocs decodes each copy. `make bundle catalog` writes them.
func TestEveryCopyOfTheIconIsTheFileOfTheDocs(t *testing.T) {
	want, err := os.ReadFile("../../docs/icon.svg")
	if err != nil {
		t.Fatal(err)
	}
	copied := regexp.MustCompile(`(?m)^[ -]*base64data: (.*)$`)
	for _, file := range []string{
		"bases/etcd-warden.clusterserviceversion.yaml",
		bundle + "/etcd-warden.clusterserviceversion.yaml",
		"../../catalog/template.yaml",
		"../../catalog/etcd-warden/catalog.yaml",
	} {
		raw, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		copies := copied.FindAllSubmatch(raw, -1)
		if len(copies) == 0 {
			t.Errorf("%s has no icon", file)
		}
		for _, found := range copies {
			icon, err := base64.StdEncoding.DecodeString(string(found[1]))
			if err != nil || !bytes.Equal(icon, want) {
				t.Errorf("%s has another icon than docs/icon.svg (%v): make bundle catalog\n%s", file, err, icon)
			}
		}
	}
}
func deploymentOf(t *testing.T, csv *operatorsv1alpha1.ClusterServiceVersion, name string) operatorsv1alpha1.StrategyDeploymentSpec {
	t.Helper()
	all := csv.Spec.InstallStrategy.StrategySpec.DeploymentSpecs
	i := slices.IndexFunc(all, func(d operatorsv1alpha1.StrategyDeploymentSpec) bool { return d.Name == name })
	if i < 0 {
		t.Fatalf("the bundle has no Deployment %s", name)
	}
	return all[i]
}

func portIs(number int32) func(corev1.ContainerPort) bool {
	return func(p corev1.ContainerPort) bool { return p.ContainerPort == number }
}

func definition(t *testing.T) *apiextensionsv1.CustomResourceDefinition {
	t.Helper()
	return read[apiextensionsv1.CustomResourceDefinition](t, "operator.etcd-warden.io_etcdclusters.yaml")
}

func read[T any](t *testing.T, file string) *T {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(bundle, file))
	if err != nil {
		t.Fatal(err)
	}
	object := new(T)
	if err := yaml.Unmarshal(raw, object); err != nil {
		t.Fatal(err)
	}
	return object
}
