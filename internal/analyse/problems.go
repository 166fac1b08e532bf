package analyse

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/internal/cluster"
	"github.com/etcd-warden/etcd-warden/internal/plan"
	"github.com/etcd-warden/etcd-warden/internal/render"
)

// specProblems returns what is wrong with the objects that the spec refers to. It is empty where the operator or
// cert-manager puts it right.
func specProblems(s *cluster.Snapshot) []plan.Problem {
	var list problems
	if s.PeerTrust.CertManagerMissing || s.ClientTrust.CertManagerMissing {
		advice := "Install cert-manager, or set another source in spec.tls.client and spec.tls.peer."
		if s.MembersCreated() {
			advice = "Install it again before the certificates expire: nobody renews them."
		}
		list.add(v1beta1.ReasonCertificateNotReady, "The spec wants certificates from cert-manager, and cert-manager is not installed: "+
			"the API server knows no certificates.cert-manager.io. %s", advice)
	}
	for _, traffic := range traffics {
		trust := s.Trust(traffic)
		switch trust.Source {
		case cluster.SourceManaged:
			list.addManaged(s, traffic)
		case cluster.SourceCertManager:
			for i := range trust.Certificates {
				list.addIssued(s, traffic, &trust.Certificates[i])
			}
		case cluster.SourceSecret, cluster.SourceEtcdOperator:
			for i := range trust.Certificates {
				list.addUsers(s, trust.Source, &trust.Certificates[i])
			}
		}
	}
	if mismatch := s.ClientTrust.Mismatch; mismatch != "" {
		list.add(v1beta1.ReasonCertificateInvalid, "Secrets %s and %s do not fit each other: %s.",
			s.ClientTrust.Certificate(cluster.RoleServer).Name, s.ClientTrust.Certificate(cluster.RoleOperator).Name, mismatch)
	}
	if s.StorageClassMissing {
		list.addStorageClass(s)
	}
	return list
}

// allProblems returns the problems of the spec. Beside a cluster that was founded it adds foreign objects, objects that
// belong to no member, and volumes that were replaced under a pod. A new cluster is refused by a guard instead.
func allProblems(s *cluster.Snapshot) []plan.Problem {
	list := problems(specProblems(s))
	if !s.Founded() {
		return list
	}
	var told []*cluster.ForeignObject
	for _, traffic := range traffics {
		if authorityLost(s, traffic) {
			told = append(told, foreignSecrets(s, secretNames(s.Trust(traffic))...)...)
		}
	}
	for i := range s.ForeignObjects {
		if x := &s.ForeignObjects[i]; !slices.Contains(told, x) && !isOfRemoved(s, x) {
			list.addForeign(s, x)
		}
	}
	list.addReplacement(s)
	list.addMoveLeader(s)
	for i := range s.LeftOvers {
		if !isCleanedUp(s, &s.LeftOvers[i]) {
			list.addLeftOver(&s.LeftOvers[i])
		}
	}
	for i := range s.Members {
		if m := &s.Members[i]; m.Volume != nil && m.Volume.Deleting && m.RunsOn() {
			list.add(v1beta1.ReasonVolumeLost, "PersistentVolumeClaim %s is being deleted. Kubernetes deletes it when Pod %s ends, and %s then "+
				"has no data any more. The operator does not restart the member. Keep the pod running, and make a backup.", m.Volume.Name, m.Pod.Name, m.Name)
		}
		if m := &s.Members[i]; runsAnotherMinor(m) {
			list.add(v1beta1.ReasonImageDiffers, "%s", imageDiffers(m))
		}
		if m := &s.Members[i]; hasOtherPeerURL(s, m) {
			e := s.EtcdEntry(m)
			list.add(v1beta1.ReasonPeerURLChanged, "etcd's member list has %s with the peer URL %s, and it is reached at %s. Once a connection to it is lost, "+
				"the other members do not find it again. Set it back with: etcdctl member update %s --peer-urls=%s", m.Name,
				cluster.ForeignText(strings.Join(e.PeerURLs, ",")), m.Volume.PeerURL, e.ID, m.Volume.PeerURL)
		}
		if m := &s.Members[i]; m.Volume.IsReplaced() && m.RunsOn() {
			list.add(v1beta1.ReasonVolumeReplaced, "%s Pod %s runs with the volume that it started on, so the operator does not stop it. "+
				"Once the pod is gone, the member does not start again. Delete the pod if it started on a copy.", volumeReplaced(m.Volume), m.Pod.Name)
		}
		if m := &s.Members[i]; m.LacksRecord() && isNewerThanPod(m) && m.RunsOn() {
			list.add(v1beta1.ReasonVolumeReplaced, "PersistentVolumeClaim %s was made again while Pod %s ran, which has the volume of the claim before it. "+
				"The operator neither restarts the member nor starts it on the new claim. To have another member take its place, delete the claim, "+
				"then the pod. If the claim is bound to the same volume, set the annotation %s=%s on it.",
				m.Volume.Name, m.Pod.Name, v1beta1.AcceptVolumeAnnotation, m.Volume.Identity)
		}
	}
	return list
}

// hasOtherPeerURL reports whether etcd's list has the member with another peer URL than it was made with. The operator
// never changes one.
func hasOtherPeerURL(s *cluster.Snapshot, m *cluster.Member) bool {
	e := s.EtcdEntry(m)
	return e != nil && m.Volume != nil && m.Volume.PeerURL != "" && !slices.Contains(e.PeerURLs, m.Volume.PeerURL)
}

// isOfRemoved reports whether an object is the pod of the member that the operator removes. It is to go away.
func isOfRemoved(s *cluster.Snapshot, x *cluster.ForeignObject) bool {
	op := s.Cluster.Status.Operation
	return op != nil && isRemovalClaimed(s, op.Member) && x.Kind == "Pod" && x.Terminating && x.Name == cluster.PodName(op.Member)
}

type problems []plan.Problem

func (p *problems) add(reason, format string, values ...any) {
	*p = append(*p, plan.Problem{Reason: reason, Message: fmt.Sprintf(format, values...)})
}

// addManaged tells of managed certificates that the operator cannot issue.
func (p *problems) addManaged(s *cluster.Snapshot, traffic cluster.Traffic) {
	trust := s.Trust(traffic)
	a := &trust.Authority
	switch {
	case authorityLost(s, traffic):
		p.addLost(s, trust)
	case a.Usable():
		p.addWithheld(s, traffic)
		if s.Now.Before(a.NotBefore) {
			p.add(v1beta1.ReasonCertificateInvalid, "The authority in Secret %s is not valid before %s, and issues nothing until then. "+
				"The operator's clock was ahead when it made the authority, or is behind now. "+
				"Correct the clocks of the nodes and wait, or delete Secret %s: the operator then makes another authority.",
				a.Name, a.NotBefore.UTC().Format(time.RFC3339), a.Name)
		}
	}
}

// addLost tells that no Secret knows what the running members trust. Secrets that lost their owner can be given back.
func (p *problems) addLost(s *cluster.Snapshot, trust *cluster.Trust) {
	var foreign []string
	for _, x := range foreignSecrets(s, secretNames(trust)...) {
		foreign = append(foreign, x.Name)
	}
	if len(foreign) > 0 {
		p.add(v1beta1.ReasonSecretNotFound, "The Secrets that know the authority which the running members trust are not this cluster's own: %s. "+
			"The operator does not use them, and renews nothing. "+
			"If they are the cluster's, brought back from a backup, make EtcdCluster %s the controller of each in metadata.ownerReferences "+
			"(docs/tls.md has the command). If they are not, rename or delete them, and delete all pods of the cluster at once: "+
			"the operator then makes a new authority, and the members start with it.", strings.Join(foreign, ", "), s.Cluster.Name)
		return
	}
	p.add(v1beta1.ReasonSecretNotFound, "Secret %s is gone, and with it every other Secret that knows the authority which the running members trust. "+
		"The members run until they are restarted. Bring the Secrets back from a backup, or delete all pods of the cluster at once: "+
		"the operator then makes a new authority, and the members start with it.", trust.Authority.Name)
}

// addWithheld tells of certificates that cannot be issued again, because running members do not trust the issuer.
// The users' client certificate is left out: it is issued when the members have been restarted.
func (p *problems) addWithheld(s *cluster.Snapshot, traffic cluster.Traffic) {
	a := &s.Trust(traffic).Authority
	for i := range s.Trust(traffic).Certificates {
		c := &s.Trust(traffic).Certificates[i]
		issuer := issuerFor(a, c, s.Now)
		if c.Role == cluster.RoleClient || !c.IsEmpty() || issuer == "" || len(foreignSecrets(s, c.Name)) > 0 {
			continue
		}
		if members := membersThatWouldReject(s, traffic, c, issuer); len(members) > 0 {
			p.add(v1beta1.ReasonSecretNotFound, "Secret %s is gone. The authority in Secret %s is not the one that the running members trust: %s. "+
				"They would reject a certificate from it, so the operator issues none. They run until they are restarted. "+
				"Bring Secret %s back from a backup, or delete the pods of these members at once: they start with the present authority.",
				c.Name, a.Name, strings.Join(members, ", "), c.Name)
		}
	}
}

// addIssued tells of a certificate that cert-manager has not issued, or that cannot be used.
func (p *problems) addIssued(s *cluster.Snapshot, traffic cluster.Traffic, c *cluster.Certificate) {
	switch {
	case !requested(s, traffic, c), len(foreignSecrets(s, c.Name)) > 0: // the Certificate is created or corrected first
	case !c.Exists():
		p.add(v1beta1.ReasonCertificateNotReady, "cert-manager has not issued Secret %s yet: %s. kubectl describe certificate %s tells more.",
			c.Name, cmp.Or(c.NotReady, "it gives no reason"), c.Name)
	case !c.Issued && !s.MembersCreated():
		p.add(v1beta1.ReasonCertificateNotReady, "Secret %s exists, and cert-manager has not issued it for this cluster yet: %s. "+
			"An earlier cluster may have left it, so no member is started with it. kubectl describe certificate %s tells more.",
			c.Name, cmp.Or(c.NotReady, "it gives no reason"), c.Name)
	case c.Broken != "":
		p.add(v1beta1.ReasonCertificateInvalid, "Secret %s, which cert-manager issued, cannot be used: %s. "+
			"Use an issuer that gives its own certificate in ca.crt, as those of the types CA and Vault do.", c.Name, c.Broken)
	}
}

// requested reports whether cert-manager's Certificate asks for what the operator wants today.
func requested(s *cluster.Snapshot, traffic cluster.Traffic, c *cluster.Certificate) bool {
	intent := targetIntent(s)
	issuer := intent.Issuer(traffic)
	return issuer != nil && c.CertManagerCertificate != nil &&
		!stale(render.CertManagerCertificate(s.Cluster, c.Role, intent.ClusterDomain, *issuer), c.CertManagerCertificate)
}

// addUsers tells of a Secret of the user that does not exist or cannot be used.
func (p *problems) addUsers(s *cluster.Snapshot, source cluster.Source, c *cluster.Certificate) {
	switch {
	case c.InvalidName:
		p.add(v1beta1.ReasonSecretNotFound, "%q cannot be the name of a Secret, which holds lower case letters, digits, hyphens and dots only. "+
			"Write the name of a Secret in namespace %s.", c.Name, s.Cluster.Namespace)
	case len(foreignSecrets(s, c.Name)) > 0: // the operator cannot read it
	case !c.Exists():
		keys := render.SecretKeys(source, c.Role)
		p.add(v1beta1.ReasonSecretNotFound, "Secret %s does not exist in namespace %s. Create it with the keys %s, %s and %s.",
			c.Name, s.Cluster.Namespace, keys.Certificate, keys.Key, keys.Authorities)
	case c.Broken != "":
		p.add(v1beta1.ReasonCertificateInvalid, "Secret %s cannot be used: %s.", c.Name, c.Broken)
	}
}

func (p *problems) addStorageClass(s *cluster.Snapshot) {
	if class := cluster.VolumeStorageClass(&s.Cluster.Spec); class != "" {
		p.add(v1beta1.ReasonStorageClassNotFound, "StorageClass %s does not exist, so no volume can be made. "+
			"Create it, or name another one in spec.storage.volumeClaimTemplate.spec.storageClassName.", class)
		return
	}
	p.add(v1beta1.ReasonStorageClassNotFound, "The spec names no StorageClass and there is no default one, so no volume can be made. "+
		"Mark a class as the default, or name one in spec.storage.volumeClaimTemplate.spec.storageClassName.")
}

// addForeign tells of an object that has a name of the cluster's and is not the cluster's.
func (p *problems) addForeign(s *cluster.Snapshot, x *cluster.ForeignObject) {
	switch {
	case x.Unreadable != "":
		p.add(v1beta1.ReasonReadRefused, "%s", plan.RefuseForeignObject(*x).Message)
	case x.Terminating:
		p.add(v1beta1.ReasonWaitingForDeletion, "%s %s %s. It is still being deleted, and the operator does not change it.", x.Kind, x.Name, x.Owner)
	case x.LacksOwnerReference:
		p.add(v1beta1.ReasonForeignObject, "%s %s exists and %s. The operator neither renews nor uses it. "+
			"If it belongs to this cluster and was restored from a backup, make EtcdCluster %s its controller in "+
			"metadata.ownerReferences (docs/tls.md has the command). "+
			"Otherwise rename or delete it. The operator then creates its own.",
			x.Kind, x.Name, x.Owner, s.Cluster.Name)
	default:
		p.add(v1beta1.ReasonForeignObject, "%s %s exists and %s. %s", x.Kind, x.Name, x.Owner,
			cmp.Or(x.Advice, "The operator does not change objects that it did not make. Rename or delete it."))
	}
}

// addLeftOver tells of the objects of a name that is no member's. The user may have retired the volume.
func (p *problems) addLeftOver(m *cluster.Member) {
	var objects, advice []string
	if m.Workload != nil {
		objects, advice = append(objects, "StatefulSet "+m.Name), append(advice, "Delete the StatefulSet.")
	}
	if m.Volume != nil && (m.Workload != nil || !m.Volume.Retired) {
		objects = append(objects, "PersistentVolumeClaim "+m.Volume.Name)
		advice = append(advice, fmt.Sprintf("Keep the data with kubectl annotate --overwrite pvc %s %s=%s, or delete the PersistentVolumeClaim.",
			m.Volume.Name, cluster.AnnotationMembership, cluster.MembershipRetired))
	}
	switch {
	case len(objects) == 0:
	case isInMemory(*m):
		p.add(v1beta1.ReasonLeftOver, "StatefulSet %s belongs to no member, because etcd's member list does not have %s, and its data were in memory. "+
			"The operator neither uses nor deletes it. Delete the StatefulSet and ConfigMap %s.", m.Name, m.Name, cluster.VolumeName(m.Name))
	default:
		p.add(v1beta1.ReasonLeftOver, "%s belongs to no member, because etcd's member list does not have %s. The operator neither uses nor deletes it. %s",
			strings.Join(objects, " with "), m.Name, strings.Join(advice, " "))
	}
}
