package simulation

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
)

// LoseNode cuts the node of a pod off from the API server: its kubelet neither sees nor tells anything any more.
// The processes live on, unless the node is down as well. Kubernetes marks the pods as not ready.
func (w *World) LoseNode(pod *corev1.Pod, down bool) {
	node := pod.Spec.NodeName
	if node == "" {
		return
	}
	w.lostNodes[node] = true
	for _, p := range all[*corev1.Pod](w.Server) {
		if p.Spec.NodeName != node {
			continue
		}
		if down {
			w.stopProcess(w.processes[p.UID])
		}
		change(w.Server, p, func(p *corev1.Pod) { setCondition(&p.Status, corev1.PodReady, false, "", "") })
	}
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
	clear(w.lostNodes)
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

// nodeFor returns where a pod is scheduled: each member has a node, and another one while that is lost.
func (w *World) nodeFor(pod *corev1.Pod) string {
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
