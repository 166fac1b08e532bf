package observe

import (
	"context"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/etcd-warden/etcd-warden/internal/cluster"
)

// nodesTime is how long a list of nodes serves all clusters: when a rack is lost, many of them look at once.
const nodesTime = 10 * time.Second

// nodeMemory is the last list of nodes, with what the operator needs of each.
type nodeMemory struct {
	mu     sync.Mutex
	readAt time.Time
	nodes  map[string]*corev1.Node
}

// observeNodes reads the nodes while a member of a cluster that was founded does not answer: its node may be gone.
// Where they may not be read, nothing is known of them.
func (o *Observer) observeNodes(ctx context.Context, s *cluster.Snapshot) error {
	if !o.SeesClusterScope || !s.Founded() {
		return nil
	}
	for i := range min(len(s.Members), cluster.MaxMembers) {
		m := &s.Members[i]
		if m.Answers() || m.Workload == nil || m.Pod != nil && m.Pod.Ready {
			continue
		}
		nodes, err := o.listNodes(ctx, s.Now)
		if apierrors.IsForbidden(err) {
			return nil
		}
		if err != nil {
			return err
		}
		s.Nodes = countNodes(nodes)
		if err := o.observeNodeOf(ctx, m, nodes); err != nil {
			return err
		}
	}
	return nil
}

// observeNodeOf tells where a member's pod was last, and whether its volume can be used on another node.
func (o *Observer) observeNodeOf(ctx context.Context, m *cluster.Member, nodes map[string]*corev1.Node) error {
	if m.Pod != nil && m.Pod.Node != "" {
		node, err := o.nodeNamed(ctx, nodes, m.Pod.Node)
		if err != nil {
			return err
		}
		m.Node = cluster.NodeOf(m.Pod.Node, node)
	}
	isElsewhere := m.Node == nil && m.Pod.IsRunning() || m.Node != nil && !m.Node.IsGone()
	if m.Volume != nil && m.Volume.InMemory {
		m.Volume.Confined = m.Node != nil && m.Node.IsGone() // the memory is the node's
		return nil
	}
	if m.Volume == nil || m.Volume.Identity.Name == "" || isElsewhere {
		return nil
	}
	volume, err := o.readVolume(ctx, m.Volume.Identity.Name)
	if err != nil || volume == nil {
		return err
	}
	return o.observeConfinement(ctx, m, volume, nodes)
}

// observeConfinement tells whether a volume can be used on nodes only that are gone. Where the member has no pod on a
// node, the nodes that the volume can be used on stand for it.
func (o *Observer) observeConfinement(ctx context.Context, m *cluster.Member, volume *corev1.PersistentVolume, nodes map[string]*corev1.Node) error {
	if volume.Spec.NodeAffinity == nil || volume.Spec.NodeAffinity.Required == nil {
		return nil
	}
	fits, err := nodeaffinity.NewNodeSelector(volume.Spec.NodeAffinity.Required)
	if err != nil {
		return nil //nolint:nilerr // a selector that nobody understands confines the volume to no node that is known
	}
	var home *cluster.Node
	for name, node := range nodes {
		if !fits.Match(node) {
			continue
		}
		here := cluster.NodeOf(name, node)
		if !here.IsGone() {
			return nil
		}
		if home == nil || here.NotReadySince.After(home.NotReadySince) {
			home = here
		}
	}
	if home == nil { // the list may be older than a node that is back
		for _, name := range hostnames(volume) {
			node, err := o.nodeNamed(ctx, nodes, name)
			if err != nil || node != nil {
				return err
			}
			home = &cluster.Node{Name: name, Deleted: true}
		}
	}
	m.Volume.Confined = home != nil
	if m.Node == nil {
		m.Node = home
	}
	return nil
}

// hostnames returns the nodes that a volume's node affinity names. A provisioner names the only one by its label.
func hostnames(volume *corev1.PersistentVolume) []string {
	var names []string
	for _, term := range volume.Spec.NodeAffinity.Required.NodeSelectorTerms {
		for _, e := range term.MatchExpressions {
			if e.Key == corev1.LabelHostname && e.Operator == corev1.NodeSelectorOpIn {
				names = append(names, e.Values...)
			}
		}
		for _, e := range term.MatchFields {
			names = append(names, e.Values...)
		}
	}
	return names
}

// nodeNamed returns a node of the list. One that it lacks may be younger than the list, so the API server is asked.
func (o *Observer) nodeNamed(ctx context.Context, nodes map[string]*corev1.Node, name string) (*corev1.Node, error) {
	if node, ok := nodes[name]; ok {
		return node, nil
	}
	return o.readNode(ctx, name)
}

// readNode asks the API server for a node. There is none of a name that it does not know.
func (o *Observer) readNode(ctx context.Context, name string) (*corev1.Node, error) {
	var node corev1.Node
	err := o.Live.Get(ctx, client.ObjectKey{Name: name}, &node)
	switch {
	case apierrors.IsNotFound(err):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("reading Node %s: %w", name, err)
	}
	return &node, nil
}

// listNodes returns all nodes, read a moment ago at most.
func (o *Observer) listNodes(ctx context.Context, now time.Time) (map[string]*corev1.Node, error) {
	o.nodes.mu.Lock()
	defer o.nodes.mu.Unlock()
	if o.nodes.nodes != nil && now.Before(o.nodes.readAt.Add(nodesTime)) {
		return o.nodes.nodes, nil
	}
	var list corev1.NodeList
	if err := o.Live.List(ctx, &list); err != nil {
		return nil, fmt.Errorf("listing Nodes: %w", err)
	}
	nodes := make(map[string]*corev1.Node, len(list.Items))
	for i := range list.Items {
		n := &list.Items[i]
		kept := &corev1.Node{ObjectMeta: n.ObjectMeta}
		kept.ManagedFields, kept.Annotations = nil, nil
		kept.Spec.Taints, kept.Status.Conditions = n.Spec.Taints, n.Status.Conditions
		nodes[n.Name] = kept
	}
	o.nodes.nodes, o.nodes.readAt = nodes, now
	return nodes, nil
}

func countNodes(nodes map[string]*corev1.Node) cluster.NodeCount {
	count := cluster.NodeCount{All: len(nodes)}
	for name, node := range nodes {
		if cluster.NodeOf(name, node).IsGone() {
			count.NotReady++
		}
	}
	return count
}
