package conversion

import (
	"fmt"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/etcd-warden/etcd-warden/api/v1alpha1"
)

// limitsOf returns an object in v1alpha1 with limits in JSON.
func limitsOf(limits string) []byte {
	return []byte(`{"apiVersion":"operator.etcd-warden.io/v1alpha1","kind":"EtcdCluster","metadata":{"name":"prod"},` +
		`"spec":{"size":3,"pod":{"resources":{"limits":` + limits + `}}}}`)
}

// Each of these takes a second or more to decode, and a larger one of its form takes hours.
func TestRefusesExpensiveQuantitiesInEveryForm(t *testing.T) {
	digits := strings.Repeat("7", 700_000)
	for what, limits := range map[string]string{
		"a number with a long exponent":   `{"cpu":1e-9999999}`,
		"a text with a long exponent":     `{"cpu":"1e-9999999"}`,
		"the first of two equal keys":     `{"cpu":"1e-9999999","cpu":"1"}`,
		"equal keys above it":             `{"cpu":"1e-9999999"},"limits":{"cpu":"1"}`,
		"a number with many digits":       `{"cpu":` + digits + `}`,
		"a text with many digits":         `{"cpu":"` + digits + `"}`,
		"many digits after the point":     `{"cpu":0.` + digits + `}`,
		"many digits, one of them hidden": `{"cpu":"` + strings.Repeat(digits[:50]+`\u0037`, 10_000) + `"}`,
	} {
		t.Run(what, func(t *testing.T) {
			answer := ask(t, Handler(), newReview("v1beta1", limitsOf(limits))).Response
			if answer.Result.Status != metav1.StatusFailure || !strings.Contains(answer.Result.Message, "a quantity has") {
				t.Errorf("the answer is %.300s, want a failure", asJSON(answer))
			}
		})
	}
}

func TestConvertsTheLongestQuantitiesAndManyDigitsElsewhere(t *testing.T) {
	for _, limits := range []string{
		`{"cpu":"` + strings.Repeat("0", 63) + `5"}`, `{"cpu":"1e15"}`, `{"cpu":0.5}`, `{"cpu":5}`,
		`{"cpu":1}},"annotations":{"limits":"` + strings.Repeat("7", 1000) + `"}, "labels":{"cpu":"1e999"`,
	} {
		answer := ask(t, Handler(), newReview("v1beta1", limitsOf(limits))).Response
		if answer.Result.Status != metav1.StatusSuccess {
			t.Errorf("%s: %s", limits, answer.Result.Message)
		}
	}
}

func TestIgnoresSavedQuantitiesOfManyDigits(t *testing.T) {
	spoke := &v1alpha1.EtcdCluster{}
	specOf(t, `{size: 3}`, &spoke.Spec)
	want := hubOf(spoke)
	spoke.Annotations = map[string]string{HubPrefix + "spec.config.quotaBackendBytes": `"` + strings.Repeat("0", 700_000) + `16Mi"`}
	wantSame(t, want.Spec, hubOf(spoke).Spec)
}

// The order of the options was found in time that grew with the square of their number: here about 20 s.
func TestOrdersManyOptionsInTime(t *testing.T) {
	const options, patience = 90_000, 10 * time.Second
	var args, env []string
	for n := range options {
		args = append(args, fmt.Sprintf(`"%d":""`, n))
		env = append(env, fmt.Sprintf(`{\"name\":\"Z%d\"}`, n))
	}
	raw := `{"apiVersion":"operator.etcd-warden.io/v1beta1","kind":"EtcdCluster","metadata":{"name":"prod","annotations":{"` +
		SpokePrefix + `spec.pod.etcdEnv":"[` + strings.Join(env, ",") + `]"}},"spec":{"replicas":3,"config":{"extraArgs":{` + strings.Join(args, ",") + `}}}}`
	start := time.Now()
	if _, err := convertObject([]byte(raw), v1alpha1.GroupVersion.String()); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(start); took > patience {
		t.Errorf("the conversion took %v", took)
	}
}
