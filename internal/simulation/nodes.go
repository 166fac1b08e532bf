package simulation

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// LoseNode cuts the node of a pod off from the API server: its kubelet neither sees nor tells anything any more.
// The processes live on, unless the node is down as well. Kubernetes marks the pods as not ready.
func (w *World) LoseNode(pod *corev1.Pod, down bool) {
	node := pod.Spec.NodeName
	if node == "" {
		return
	}
	w.lostNodes[node] = true
	w.setNodeReady(node, false)
	for _, p := range all[*corev1.Pod](w.Server) {
		if p.Spec.NodeName != node {
			continue
		}
		if down {
			w.stopProcess(w.processes[p.UID])
			w.memory[p.UID] = "memory-" + w.Next()
		}
		change(w.Server, p, func(p *corev1.Pod) { setCondition(&p.Status, corev1.PodReady, false, "", "") })
	}
}

// DeleteNode removes the Node object of a lost node, and its pods, as an administrator and Kubernetes do. Nobody asks
// whether its processes have ended.
func (w *World) DeleteNode(name string) {
	for _, pod := range all[*corev1.Pod](w.Server) {
		if pod.Spec.NodeName == name {
			w.ForceDelete(pod)
		}
	}
	if node, ok := one[*corev1.Node](w.Server, "", name); ok {
		erase(w.Server, node)
	}
}

// setNodeReady writes what the API server knows of a node, and makes it where there is none.
func (w *World) setNodeReady(name string, ready bool) {
	node, ok := one[*corev1.Node](w.Server, "", name)
	if !ok {
		node = &corev1.Node{}
		node.Name, node.Labels = name, map[string]string{corev1.LabelHostname: name}
		w.Add(node)
	}
	status := corev1.ConditionFalse
	if ready {
		status = corev1.ConditionTrue
	}
	if len(node.Status.Conditions) == 1 && node.Status.Conditions[0].Status == status {
		return
	}
	change(w.Server, node, func(n *corev1.Node) {
		n.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: status, LastTransitionTime: metav1.NewTime(w.Now)}}
	})
}

// localNode returns the only node on which a claim's volume can be used; empty where it can be used on all.
func (w *World) localNode(claim *corev1.PersistentVolumeClaim) string {
	if volume, ok := one[*corev1.PersistentVolume](w.Server, "", claim.Spec.VolumeName); ok && volume.Spec.NodeAffinity != nil {
		return volume.Spec.NodeAffinity.Required.NodeSelectorTerms[0].MatchExpressions[0].Values[0]
	}
	return ""
}

func affinityTo(node string) *corev1.VolumeNodeAffinity {
	return &corev1.VolumeNodeAffinity{Required: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{
		MatchExpressions: []corev1.NodeSelectorRequirement{{Key: corev1.LabelHostname, Operator: corev1.NodeSelectorOpIn, Values: []string{node}}},
	}}}}
}

// EvictFromLostNodes deletes the pods of lost nodes, as Kubernetes does some minutes later. They stay until the kubelet
// has ended them.
func (w *World) EvictFromLostNodes() {
	for _, pod := range all[*corev1.Pod](w.Server) {
		if w.IsLost(pod) {
			w.deletePod(pod)
		}
	}
}

// ForceDelete removes a pod as kubectl delete --force does. Nobody asks whether its process has ended.
func (w *World) ForceDelete(pod *corev1.Pod) {
	if p := w.processes[pod.UID]; p == nil || !p.running {
		delete(w.processes, pod.UID)
	}
	erase(w.Server, pod)
}

// RecoverNodes brings all lost nodes back. Their kubelets end what the API server does not know any more.
func (w *World) RecoverNodes() {
	for _, node := range w.LostNodes() {
		delete(w.lostNodes, node)
		w.setNodeReady(node, true)
	}
	known := all[*corev1.Pod](w.Server)
	for uid, p := range w.processes {
		if !slices.ContainsFunc(known, func(pod *corev1.Pod) bool { return pod.UID == uid }) {
			w.stopProcess(p)
			delete(w.processes, uid)
		}
	}
}

// IsLost reports whether the pod's node is cut off from the API server.
func (w *World) IsLost(pod *corev1.Pod) bool { return w.lostNodes[pod.Spec.NodeName] }

// LostNodes returns the names of the nodes that are cut off.
func (w *World) LostNodes() []string { return sortedNames(w.lostNodes) }

func (w *World) stopProcess(p *process) {
	if p != nil && p.running {
		w.Etcd.Stop(p.address)
		w.healAddress(p.address)
		p.running = false
	}
}

// nodeFor returns where a pod is scheduled: where its volume is local, or else each member has a node, and another one
// while that is lost.
func (w *World) nodeFor(pod *corev1.Pod) string {
	if claim, ok := one[*corev1.PersistentVolumeClaim](w.Server, pod.Namespace, claimName(pod)); ok {
		if node := w.localNode(claim); node != "" {
			return node
		}
	}
	node := "node-of-" + pod.Name
	for w.lostNodes[node] {
		node += "-again"
	}
	return node
}

// isHeld reports whether another process uses a disk: the volume then cannot be attached for this pod.
func (w *World) isHeld(disk string, by *process) bool {
	for _, p := range w.processes {
		if p != by && p.running && p.disk == disk {
			return true
		}
	}
	return false
}
