//go:build integration

package webhook

import (
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/operator-framework/api/crds"
	operatorsv2 "github.com/operator-framework/api/pkg/operators/v2"
	rbacv1 "k8s.io/api/rbac/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	ctrlconfig "sigs.k8s.io/controller-runtime/pkg/config"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/controllers"
	"github.com/etcd-warden/etcd-warden/internal/status"
	"github.com/etcd-warden/etcd-warden/test/controlplane"
)

const csv = "etcd-warden.v0.2.0"

func TestOLMIsToldWhenNotToReplaceTheOperator(t *testing.T) {
	l := newLab(t)
	installOperatorConditions(t)
	must(t, admin.Create(t.Context(), &operatorsv2.OperatorCondition{ObjectMeta: metav1.ObjectMeta{Namespace: l.namespace, Name: csv}}))
	l.grantOperatorCondition()
	requests := l.startTeller()
	l.expectUpgradeable(metav1.ConditionTrue, "No step is in flight.")

	prod, held := newBeta("prod"), newBeta("held")
	l.create(prod)
	l.create(held)
	l.claim(held, v1beta1.OperationBootstrap, "", time.Now()) // as one whose pods cannot be scheduled, for ever
	l.claim(prod, v1beta1.OperationRollMember, "prod-1", time.Now())
	l.expectUpgradeable(metav1.ConditionFalse, "EtcdCluster default/prod: RollMember of prod-1 is in flight.")
	said := l.condition().Generation

	before := requests.Load()
	prod.Status.Leader = "prod-0"
	must(t, admin.Status().Update(t.Context(), prod))
	prod.Status.Operation = nil
	must(t, admin.Status().Update(t.Context(), prod))
	l.expectUpgradeable(metav1.ConditionTrue, "No step is in flight.")
	if generation := l.condition().Generation; generation != said+1 {
		t.Errorf("the OperatorCondition was written %d times, want once: for the change alone", generation-said)
	}
	if sent := requests.Load() - before; sent != 2 {
		t.Errorf("%d requests were sent about the OperatorCondition, want a read and a write", sent)
	}
}

func TestAStepThatDoesNotEndHoldsUpgradesForTenMinutes(t *testing.T) {
	l := newLab(t)
	installOperatorConditions(t)
	must(t, admin.Create(t.Context(), &operatorsv2.OperatorCondition{ObjectMeta: metav1.ObjectMeta{Namespace: l.namespace, Name: csv}}))
	l.grantOperatorCondition()
	prod := newBeta("prod")
	l.create(prod)
	l.claim(prod, v1beta1.OperationRollMember, "prod-1", time.Now().Add(45*time.Second-10*time.Minute))
	l.startTeller()
	l.expectUpgradeable(metav1.ConditionFalse, "EtcdCluster default/prod: RollMember of prod-1 is in flight.")
	l.expectUpgradeable(metav1.ConditionTrue, "No step is in flight.") // by time alone: no object changes
}

func TestTheThirtyMinutesSurviveARestartOfTheOperator(t *testing.T) {
	l := newLab(t)
	installOperatorConditions(t)
	since := metav1.NewTime(time.Now().Add(-31 * time.Minute))
	must(t, admin.Create(t.Context(), &operatorsv2.OperatorCondition{
		ObjectMeta: metav1.ObjectMeta{Namespace: l.namespace, Name: csv},
		Spec: operatorsv2.OperatorConditionSpec{Conditions: []metav1.Condition{
			{Type: operatorsv2.Upgradeable, Status: metav1.ConditionFalse, Reason: v1beta1.ReasonStepInFlight, LastTransitionTime: since},
			{Type: status.ConditionUpgradesHeld, Status: metav1.ConditionTrue, Reason: v1beta1.ReasonStepInFlight, LastTransitionTime: since},
		}},
	}))
	l.grantOperatorCondition()
	prod := newBeta("prod")
	l.create(prod)
	l.claim(prod, v1beta1.OperationRollMember, "prod-1", time.Now())
	l.startTeller()
	l.expectUpgradeable(metav1.ConditionTrue, "Steps followed one another for 30 minutes. OLM may replace the operator now: the new one finishes the step in flight.")
}

// claim writes a claim into the status of a cluster that no operator of this test works on.
func (l *lab) claim(c *v1beta1.EtcdCluster, kind v1beta1.OperationType, member string, startedAt time.Time) {
	l.Helper()
	must(l.T, admin.Get(l.Context(), c.Key(), c))
	c.Status.Operation = &v1beta1.Operation{Type: kind, Member: member, StartedAt: metav1.NewTime(startedAt)}
	must(l.T, admin.Status().Update(l.Context(), c))
}

func TestTheAbsenceOfAnOperatorConditionIsNoError(t *testing.T) {
	l := newLab(t)
	reconciler := &controllers.OperatorConditionReconciler{Client: admin, Live: admin, Key: client.ObjectKey{Namespace: l.namespace, Name: csv}}
	for range 2 { // without the CRD, if this test is alone; and with it
		result, err := reconciler.Reconcile(t.Context(), ctrl.Request{})
		if err != nil || result.RequeueAfter == 0 {
			t.Errorf("result %v, %v, want another look later", result, err)
		}
		installOperatorConditions(t)
	}
}

func installOperatorConditions(t *testing.T) {
	t.Helper()
	crd := crds.OperatorCondition()
	must(t, client.IgnoreAlreadyExists(admin.Create(t.Context(), crd)))
	eventually(t, "OperatorConditions are served", func() error {
		have := &apiextensionsv1.CustomResourceDefinition{}
		if err := admin.Get(t.Context(), client.ObjectKey{Name: crd.Name}, have); err != nil {
			return err
		}
		return admin.List(t.Context(), &operatorsv2.OperatorConditionList{})
	})
}

// grantOperatorCondition gives what OLM gives.
func (l *lab) grantOperatorCondition() {
	l.Helper()
	must(l.T, bind(l.Context(), l.namespace, managerUser, &rbacv1.ClusterRole{
		TypeMeta:   metav1.TypeMeta{Kind: "Role"},
		ObjectMeta: metav1.ObjectMeta{Name: csv},
		Rules: []rbacv1.PolicyRule{{
			APIGroups: []string{"operators.coreos.com"}, Resources: []string{"operatorconditions"}, ResourceNames: []string{csv},
			Verbs: []string{"get", "update", "patch"},
		}},
	}))
}

// startTeller runs the controller, and counts the requests about its OperatorCondition alone.
func (l *lab) startTeller() *atomic.Int64 {
	l.Helper()
	requests := &atomic.Int64{}
	mgr, err := ctrl.NewManager(controlplane.Counted(managerConfig, "/operatorconditions/"+csv, requests), ctrl.Options{
		Scheme:                 scheme,
		Metrics:                metricsserver.Options{BindAddress: "0"},
		HealthProbeBindAddress: "0",
		Controller:             ctrlconfig.Controller{CacheSyncTimeout: time.Hour, SkipNameValidation: new(true)},
	})
	must(l.T, err)
	reconciler := &controllers.OperatorConditionReconciler{
		Client: mgr.GetClient(), Live: mgr.GetAPIReader(), Key: client.ObjectKey{Namespace: l.namespace, Name: csv},
	}
	must(l.T, reconciler.SetupWithManager(mgr))
	controlplane.StartManager(l.T, mgr)
	return requests
}

func (l *lab) condition() *operatorsv2.OperatorCondition {
	l.Helper()
	condition := &operatorsv2.OperatorCondition{}
	must(l.T, admin.Get(l.Context(), client.ObjectKey{Namespace: l.namespace, Name: csv}, condition))
	return condition
}

func (l *lab) expectUpgradeable(status metav1.ConditionStatus, message string) {
	l.Helper()
	eventually(l.T, "the operator says "+message, func() error {
		c := meta.FindStatusCondition(l.condition().Spec.Conditions, operatorsv2.Upgradeable)
		if c == nil {
			return errors.New("it says nothing")
		}
		if c.Status != status || c.Message != message {
			return fmt.Errorf("it says %s: %s", c.Status, c.Message)
		}
		return nil
	})
}
