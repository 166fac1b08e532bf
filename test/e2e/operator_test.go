package e2e

import (
	"context"
	"crypto/tls"
	"io"
	"net/http"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

var _ = Describe("The operator's pod", func() {
	It("runs with no right that it does not need", func(ctx SpecContext) {
		pod := operatorPod(ctx)
		Expect(pod.Spec.SecurityContext.RunAsNonRoot).To(HaveValue(BeTrue()))
		Expect(pod.Spec.SecurityContext.SeccompProfile.Type).To(Equal(corev1.SeccompProfileTypeRuntimeDefault))
		manager := pod.Spec.Containers[0]
		Expect(manager.SecurityContext.ReadOnlyRootFilesystem).To(HaveValue(BeTrue()))
		Expect(manager.SecurityContext.AllowPrivilegeEscalation).To(HaveValue(BeFalse()))
		Expect(manager.SecurityContext.Capabilities.Drop).To(ConsistOf(corev1.Capability("ALL")))
		var ns corev1.Namespace
		Expect(kube.Get(ctx, client.ObjectKey{Name: operatorNamespace}, &ns)).To(Succeed())
		Expect(ns.Labels).To(HaveKeyWithValue("pod-security.kubernetes.io/enforce", "restricted"))
	})

	It("may not list or watch Secrets, and has no wildcard", func(ctx SpecContext) {
		var roles rbacv1.ClusterRoleList
		Expect(kube.List(ctx, &roles)).To(Succeed())
		found := false
		for _, role := range roles.Items {
			if !strings.HasPrefix(role.Name, "etcd-warden-") {
				continue
			}
			found = true
			for _, rule := range role.Rules {
				for _, list := range [][]string{rule.Verbs, rule.Resources, rule.APIGroups} {
					Expect(list).NotTo(ContainElement("*"), role.Name)
				}
				if len(rule.Resources) == 1 && rule.Resources[0] == "secrets" {
					Expect(rule.Verbs).To(HaveEach(BeElementOf("get", "create", "update")))
				} else {
					Expect(rule.Resources).NotTo(ContainElement("secrets"))
				}
			}
		}
		Expect(found).To(BeTrue())
	})

	It("shows its metrics to those who may read them, and to nobody else", func(ctx SpecContext) {
		ns := newNamespace(ctx)
		Expect(metrics(ctx, "")).To(HaveHTTPStatus(http.StatusUnauthorized))
		Expect(metrics(ctx, tokenOf(ctx, ns, "default"))).To(HaveHTTPStatus(http.StatusForbidden))

		binding := &rbacv1.ClusterRoleBinding{
			ObjectMeta: metav1.ObjectMeta{Name: ns},
			RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "etcd-warden-metrics-reader"},
			Subjects:   []rbacv1.Subject{{Kind: "ServiceAccount", Namespace: ns, Name: "reader"}},
		}
		Expect(kube.Create(ctx, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "reader"}})).To(Succeed())
		Expect(kube.Create(ctx, binding)).To(Succeed())
		DeferCleanup(func(ctx SpecContext) { Expect(kube.Delete(ctx, binding)).To(Succeed()) })
		token := tokenOf(ctx, ns, "reader")
		Eventually(ctx, func(g Gomega) {
			response := metrics(ctx, token)
			g.Expect(response).To(HaveHTTPStatus(http.StatusOK))
			g.Expect(response).To(HaveHTTPBody(ContainSubstring(`controller_runtime_reconcile_total{controller="etcdcluster"`)))
		}).Should(Succeed())
	})
})

// operatorPod is the pod of the deployed operator.
func operatorPod(ctx context.Context) *corev1.Pod {
	GinkgoHelper()
	var list corev1.PodList
	Expect(kube.List(ctx, &list, client.InNamespace(operatorNamespace), client.MatchingLabels{"control-plane": "controller-manager"})).To(Succeed())
	for i := range list.Items {
		if list.Items[i].DeletionTimestamp == nil {
			return &list.Items[i]
		}
	}
	Fail("the operator has no pod")
	return nil
}

// tokenOf is a token of a service account that may be there only in a moment.
func tokenOf(ctx context.Context, ns, account string) string {
	GinkgoHelper()
	var token string
	Eventually(ctx, func(g Gomega) {
		request, err := clientset.CoreV1().ServiceAccounts(ns).CreateToken(ctx, account, &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
		g.Expect(err).NotTo(HaveOccurred())
		token = request.Status.Token
	}).Should(Succeed())
	return token
}

func metrics(ctx context.Context, token string) *http.Response {
	GinkgoHelper()
	var response *http.Response
	Expect(forwarded(operatorNamespace, operatorPod(ctx).Name, 8443, func(address string) error {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+address+"/metrics", http.NoBody)
		if err != nil {
			return err
		}
		if token != "" {
			request.Header.Set("Authorization", "Bearer "+token)
		}
		// The operator's certificate is self-signed, made anew at each start.
		anybody := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true}}
		if response, err = anybody.Do(request); err != nil {
			return err
		}
		body, err := io.ReadAll(response.Body)
		if err != nil {
			return err
		}
		err = response.Body.Close()
		response.Body = io.NopCloser(strings.NewReader(string(body)))
		return err
	})).To(Succeed())
	return response
}
