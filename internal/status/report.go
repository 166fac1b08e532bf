// Package status turns a Snapshot and a Decision into the status and its events.
// It is pure. The controller writes what it returns.
package status

import (
	"fmt"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/internal/analyse"
	"github.com/etcd-warden/etcd-warden/internal/cluster"
	"github.com/etcd-warden/etcd-warden/internal/plan"
	"github.com/etcd-warden/etcd-warden/internal/render"
)

// Report is what users are told after one pass.
type Report struct {
	Status v1beta1.EtcdClusterStatus
	// Events tell what changed since the last report.
	Events []Event
}

// Of reports on a pass: what was observed, what was decided, and what came out.
// Each *plan.Refusal in outcome becomes part of the report. Other errors are only for the caller.
func Of(s *cluster.Snapshot, d *plan.Decision, outcome error) Report {
	d = d.WithRefusals(outcome)
	old := s.Cluster.Status
	status := *old.DeepCopy()
	status.ObservedGeneration = s.Cluster.Generation
	if d.Plan != "" {
		status.AnsweredPlan = d.AnsweredPlan
	}
	if d.Rule == analyse.RuleDeletion {
		setCondition(&status, s, progressing(d))
		return Report{Status: status, Events: events(s, d, &old, &status, outcome)}
	}
	if d.Finished {
		status.Operation = nil
	}
	if status.Operation != nil {
		status.Operation.WaitingFor = cluster.Shortened(d.Message, v1beta1.MaxWaitingFor)
	}
	if s.AwaitsElection() && s.Founded() { // the last report stands: in a moment there is a leader, or no quorum
		setCondition(&status, s, progressing(d))
		return Report{Status: status, Events: events(s, d, &old, &status, outcome)}
	}
	status.Members = members(s)
	status.Replicas = int32(len(status.Members))
	status.ReadyReplicas = countReady(status.Members)
	status.Ready = fmt.Sprintf("%d/%d", status.ReadyReplicas, s.Cluster.Spec.Replicas)
	status.ClusterID = clusterID(s, old.ClusterID)
	status.Version = commonVersion(status.Members)
	status.TargetVersion = cluster.ForeignVersion(targetVersion(s))
	status.Selector = render.MemberSelector(s.Cluster)
	status.Leader = leader(s)
	if s.ClientService != nil {
		status.ServiceName, status.ClientPort = s.ClientService.Name, cluster.ClientPort
	}
	status.ClientSecretName = clientSecretName(s)
	v := viewOf(s, d)
	for _, c := range []metav1.Condition{
		available(v), progressing(d), degraded(v, d, &status), quorumLost(v), storageAlarm(s), restartPending(d), upgradeBlocked(s, d), versionAdvisory(s),
		placementAdvisory(s, &status), dataConsistent(s),
	} {
		if c.Type != "" {
			setCondition(&status, s, c)
		}
	}
	return Report{Status: status, Events: events(s, d, &old, &status, outcome)}
}

// clientSecretName returns the Secret with users' client certificate. It is empty unless the operator or cert-manager
// made one.
func clientSecretName(s *cluster.Snapshot) string {
	if c := s.ClientTrust.Certificate(cluster.RoleClient); c != nil && c.Exists() {
		return c.Name
	}
	return ""
}

func setCondition(status *v1beta1.EtcdClusterStatus, s *cluster.Snapshot, c metav1.Condition) {
	c.ObservedGeneration = s.Cluster.Generation
	c.LastTransitionTime = metav1.NewTime(s.Now)
	c.Message = cluster.Shortened(c.Message, maxMessage)
	meta.SetStatusCondition(&status.Conditions, c)
}
