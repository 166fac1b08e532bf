package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	flowcontrolv1 "k8s.io/api/flowcontrol/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
)

const (
	restTime = 5 * time.Minute
	// settleTime lets what a new cluster still causes (events, endpoints) pass before the counting starts.
	settleTime   = 30 * time.Second
	idleClusters = 3
)

// Flow schemas of the benchmark sort the operator's requests.
// The API server counts the requests that it dispatches for each schema.
var schemas = []struct {
	name       string
	precedence int32
	rule       flowcontrolv1.ResourcePolicyRule
}{
	{"etcd-warden-bench-lease", 101, resourceRule("coordination.k8s.io", "leases", "*")},
	{"etcd-warden-bench-watch", 102, resourceRule("*", "*", "watch")},
	{"etcd-warden-bench-rest", 103, resourceRule("*", "*", "*")},
}

func resourceRule(group, resource, verb string) flowcontrolv1.ResourcePolicyRule {
	return flowcontrolv1.ResourcePolicyRule{
		Verbs: []string{verb}, APIGroups: []string{group}, Resources: []string{resource}, Namespaces: []string{"*"}, ClusterScope: true,
	}
}

// benchIdle counts what the operator asks of the API server while three clusters rest.
func benchIdle(ctx context.Context, l *lab) error {
	if err := l.makeFlowSchemas(ctx); err != nil {
		return err
	}
	defer l.removeFlowSchemas()
	for i := range idleClusters {
		if err := l.apply(ctx, clusterManifest(l, fmt.Sprintf("idle-%d", i))); err != nil {
			return err
		}
	}
	defer l.removeIdleClusters()
	if err := l.awaitRest(ctx); err != nil {
		return err
	}
	busy, err := l.dispatched(ctx)
	if err != nil {
		return err
	}
	if busy["etcd-warden-bench-rest"] == 0 {
		return fmt.Errorf("the API server counted no request while clusters were made: the flow schemas do not see the operator, so a zero would mean nothing")
	}
	fmt.Printf("%d clusters made and settled with %.0f requests; counting for %s\n", idleClusters, busy["etcd-warden-bench-rest"], restTime)
	if err := pause(ctx, restTime); err != nil {
		return err
	}
	after, err := l.dispatched(ctx)
	if err != nil {
		return err
	}
	for _, s := range schemas {
		fmt.Printf("%-26s %.0f requests\n", s.name, after[s.name]-busy[s.name])
	}
	figure("idle-requests", after["etcd-warden-bench-rest"]-busy["etcd-warden-bench-rest"], "requests")
	return nil
}

func (l *lab) removeIdleClusters() {
	ctx := context.Background()
	for i := range idleClusters {
		if err := removeCluster(ctx, l, fmt.Sprintf("idle-%d", i)); err != nil {
			fmt.Fprintln(os.Stderr, "cleaning up:", err)
		}
	}
	if err := l.sweep(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "cleaning up:", err)
	}
}

func (l *lab) makeFlowSchemas(ctx context.Context) error {
	for _, s := range schemas {
		schema := &flowcontrolv1.FlowSchema{
			ObjectMeta: metav1.ObjectMeta{Name: s.name},
			Spec: flowcontrolv1.FlowSchemaSpec{
				PriorityLevelConfiguration: flowcontrolv1.PriorityLevelConfigurationReference{Name: "workload-high"},
				MatchingPrecedence:         s.precedence,
				Rules: []flowcontrolv1.PolicyRulesWithSubjects{{
					Subjects: []flowcontrolv1.Subject{{Kind: flowcontrolv1.SubjectKindServiceAccount, ServiceAccount: &flowcontrolv1.ServiceAccountSubject{
						Namespace: "etcd-warden-system", Name: "etcd-warden-controller-manager",
					}}},
					ResourceRules: []flowcontrolv1.ResourcePolicyRule{s.rule},
				}},
			},
		}
		if err := l.Create(ctx, schema); err != nil && !apierrors.IsAlreadyExists(err) {
			return err
		}
	}
	return wait.PollUntilContextTimeout(ctx, time.Second, patience, true, func(ctx context.Context) (bool, error) {
		counts, err := l.dispatched(ctx)
		// The operator renews its lease every two seconds: once that is counted, the schemas are in force.
		return counts["etcd-warden-bench-lease"] > 0, err
	})
}

func (l *lab) removeFlowSchemas() {
	for _, s := range schemas {
		err := l.Delete(context.Background(), &flowcontrolv1.FlowSchema{ObjectMeta: metav1.ObjectMeta{Name: s.name}})
		if client.IgnoreNotFound(err) != nil {
			fmt.Fprintln(os.Stderr, "cleaning up:", err)
		}
	}
}

// awaitRest waits until every cluster is up to date with all its members, then for what still trickles.
func (l *lab) awaitRest(ctx context.Context) error {
	err := wait.PollUntilContextTimeout(ctx, time.Second, patience, true, func(ctx context.Context) (bool, error) {
		var clusters v1beta1.EtcdClusterList
		if err := l.List(ctx, &clusters, client.InNamespace(l.namespace)); err != nil {
			return false, err
		}
		for _, c := range clusters.Items {
			progressing := meta.FindStatusCondition(c.Status.Conditions, v1beta1.ConditionProgressing)
			if progressing == nil || progressing.Reason != v1beta1.ReasonUpToDate || c.Status.ReadyReplicas != c.Spec.Replicas {
				return false, nil
			}
		}
		return len(clusters.Items) == idleClusters, nil
	})
	if err != nil {
		return err
	}
	return pause(ctx, settleTime)
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// dispatched reads the API server's own count of dispatched requests, by flow schema.
func (l *lab) dispatched(ctx context.Context) (map[string]float64, error) {
	raw, err := l.clientset.RESTClient().Get().AbsPath("/metrics").DoRaw(ctx)
	if err != nil {
		return nil, err
	}
	counts := map[string]float64{}
	lines := bufio.NewScanner(bytes.NewReader(raw))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		line := lines.Text()
		if !strings.HasPrefix(line, "apiserver_flowcontrol_dispatched_requests_total{") {
			continue
		}
		for _, s := range schemas {
			if strings.Contains(line, `flow_schema="`+s.name+`"`) {
				value, err := strconv.ParseFloat(line[strings.LastIndex(line, " ")+1:], 64)
				if err != nil {
					return nil, fmt.Errorf("reading %q: %w", line, err)
				}
				counts[s.name] += value
			}
		}
	}
	return counts, lines.Err()
}
