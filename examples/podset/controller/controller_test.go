package controller

import (
	"errors"
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

func TestARefusalIsToldWithoutTheNameOfThePod(t *testing.T) {
	forbidden := apierrors.NewForbidden(corev1.Resource("pods"), "a", errors.New("a quota allows no more"))
	for want, err := range map[string]error{
		`pod web- is not created: pods "…" is forbidden: a quota allows no more`: fmt.Errorf("pod web- is not created: %w", forbidden),
		"the network failed": errors.New("the network failed"),
	} {
		if got := stable(err); got != want {
			t.Errorf("told %q, want %q", got, want)
		}
	}
}
