// Package clustertest builds snapshots for tests.
package clustertest

import (
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/etcd-warden/etcd-warden/api/v1beta1"
	"github.com/etcd-warden/etcd-warden/internal/cluster"
	"github.com/etcd-warden/etcd-warden/internal/render"
)

// What a built cluster has unless it is told otherwise.
const (
	Namespace  = "shop"
	UID        = types.UID("uid-1")
	EarlierUID = types.UID("uid-0")
	Version    = "3.6.16"
	ClusterID  = cluster.ID(0xc1)
)

// Now is when every snapshot is taken.
var Now = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// Builder builds a snapshot step by step.
type Builder struct {
	s    cluster.Snapshot
	last []func()
}

// MakeCluster begins with an EtcdCluster of three members that nothing was made for.
func MakeCluster(name string) *Builder {
	return &Builder{s: cluster.Snapshot{Now: Now, Cluster: &v1beta1.EtcdCluster{
		ObjectMeta: metav1.ObjectMeta{Namespace: Namespace, Name: name, UID: UID, Generation: 1},
		Spec:       v1beta1.EtcdClusterSpec{Replicas: 3, Version: Version, Image: v1beta1.Image{Repository: "gcr.io/etcd-development/etcd"}, TLS: InClear()},
	}}}
}

// Replicas sets spec.replicas.
func (b *Builder) Replicas(n int32) *Builder { b.s.Cluster.Spec.Replicas = n; return b }

// Version sets spec.version.
func (b *Builder) Version(v string) *Builder { b.s.Cluster.Spec.Version = v; return b }

// Resources sets what the spec asks for etcd's containers.
func (b *Builder) Resources(r v1beta1.ResourceRequirements) *Builder {
	b.s.Cluster.Spec.Resources = r
	return b
}

// TLS names Secrets for peers, clients and the operator.
func (b *Builder) TLS() *Builder {
	b.s.Cluster.Spec.TLS = FromSecrets("peer", "server", "operator")
	return b
}

// Managed leaves TLS to the operator, which has made every certificate: peers trust the authority p1, clients c1. No
// renewal is due.
func (b *Builder) Managed() *Builder {
	b.s.Cluster.Spec.TLS = nil
	b.s.PeerTrust, b.s.ClientTrust = Trust(b.s.Cluster.Name, cluster.PeerTraffic, "p1"), Trust(b.s.Cluster.Name, cluster.ClientTraffic, "c1")
	return b
}

// CertManager makes the issuer ca issue every certificate. Without issued, the Secrets are those that an earlier
// cluster left.
func (b *Builder) CertManager(issued bool) *Builder {
	from := &v1beta1.CertManagerTLS{IssuerRef: v1beta1.IssuerRef{Name: "ca", Kind: "Issuer", Group: "cert-manager.io"}}
	b.s.Cluster.Spec.TLS = &v1beta1.TLS{Client: &v1beta1.ClientTLS{CertManager: from}, Peer: &v1beta1.PeerTLS{CertManager: from}}
	for _, traffic := range []cluster.Traffic{cluster.PeerTraffic, cluster.ClientTraffic} {
		t := Trust(b.s.Cluster.Name, traffic, string(traffic))
		t.Source, t.Authority = cluster.SourceCertManager, cluster.Authority{}
		for i := range t.Certificates {
			c := &t.Certificates[i]
			c.Issued, c.CertManagerCertificate = issued, render.CertManagerCertificate(b.s.Cluster, c.Role, "", from.IssuerRef)
		}
		*b.s.Trust(traffic) = t
	}
	return b
}

// Trust is what is known where an authority has issued every managed certificate. Nothing is due.
func Trust(name string, traffic cluster.Traffic, authority string) cluster.Trust {
	written := func(name string) cluster.ObjectVersion {
		return cluster.ObjectVersion{Name: name, UID: types.UID("uid-" + name), ResourceVersion: "1"}
	}
	t := cluster.Trust{Source: cluster.SourceManaged, Authority: cluster.Authority{
		ObjectVersion: written(cluster.AuthorityName(name, traffic)), Current: authority, Bundle: []string{authority},
		RenewalDue: Now.AddDate(6, 0, 0), NotAfter: Now.AddDate(9, 0, 0),
	}}
	for _, role := range traffic.Roles() {
		t.Certificates = append(t.Certificates, cluster.Certificate{
			ObjectVersion: written(cluster.CertificateName(name, role)), Role: role, Issuers: []string{authority}, Bundle: []string{authority},
			RenewalDue: Now.AddDate(0, 2, 0), NotAfter: Now.AddDate(0, 3, 0),
		})
	}
	return t
}

// Announced has had new authorities p2 and c2 beside p1 and c1 in every Secret for some time.
func (b *Builder) Announced(ago time.Duration) *Builder {
	return b.Later(func(s *cluster.Snapshot) {
		s.AuthorityOverlap = time.Hour
		for traffic, next := range map[cluster.Traffic]string{cluster.PeerTraffic: "p2", cluster.ClientTraffic: "c2"} {
			t := s.Trust(traffic)
			a := &t.Authority
			a.Previous, a.PreviousNotAfter, a.Current, a.Phase, a.Since = a.Current, a.NotAfter, next, cluster.PhaseAnnounced, Now.Add(-ago)
			a.Bundle = []string{a.Previous, next}
			for i := range t.Certificates {
				t.Certificates[i].Bundle = a.Bundle
			}
		}
	})
}

// Template has the members' templates name the authorities that are to be trusted.
func (b *Builder) Template() *Builder {
	return b.Later(func(s *cluster.Snapshot) {
		for i := range s.Members {
			m := &s.Members[i]
			m.Workload.Intent = withAuthorities(s, m.Workload.Intent)
			in := render.MemberInput{Cluster: s.Cluster, Name: m.Name, Intent: m.Workload.Intent}
			in.HealthyIntent = m.Workload.Live.Annotations[cluster.AnnotationHealthyIntent]
			m.Workload.Live = render.MemberStatefulSet(in)
			m.Workload.IntentHash = m.Workload.Live.Annotations[cluster.AnnotationIntentHash]
		}
	})
}

// withAuthorities names in the intent those of the Secrets that members mount.
func withAuthorities(s *cluster.Snapshot, i cluster.Intent) cluster.Intent {
	var found [2][]string
	for n, trust := range []*cluster.Trust{&s.PeerTrust, &s.ClientTrust} {
		if len(trust.Certificates) > 0 {
			found[n] = trust.Certificates[0].Bundle
		}
	}
	return i.WithAuthorities(found[0], found[1])
}

// Restarted gives the pods of members the authorities of their templates.
func (b *Builder) Restarted(names ...string) *Builder {
	return b.Later(func(s *cluster.Snapshot) {
		for _, name := range names {
			m := s.Member(name)
			m.Pod.PeerAuthorities, m.Pod.ClientAuthorities = m.Workload.Intent.PeerAuthorities, m.Workload.Intent.ServerAuthorities
			m.Pod.RenderHash = m.Workload.Live.Spec.Template.Annotations[cluster.AnnotationRenderHash]
			m.Pod.IntentHash = m.Workload.IntentHash
			recordHealthy(m)
		}
	})
}

// Annotated sets an annotation of the cluster.
func (b *Builder) Annotated(key, value string) *Builder {
	metav1.SetMetaDataAnnotation(&b.s.Cluster.ObjectMeta, key, value)
	return b
}

// Paused sets spec.paused.
func (b *Builder) Paused() *Builder { b.s.Cluster.Spec.Paused = true; return b }

// Deleted marks the cluster for deletion.
func (b *Builder) Deleted() *Builder {
	b.s.Cluster.DeletionTimestamp = &metav1.Time{Time: Now}
	return b
}

// Claim sets status.operation.
func (b *Builder) Claim(t v1beta1.OperationType) *Builder {
	b.s.Cluster.Status.Operation = &v1beta1.Operation{Type: t, StartedAt: metav1.NewTime(Now)}
	return b
}

// Later changes the finished snapshot: what it does to the spec does not reach the members' objects.
func (b *Builder) Later(change func(*cluster.Snapshot)) *Builder {
	b.last = append(b.last, func() { change(&b.s) })
	return b
}

// LaterSpec changes the spec after the members were made.
func (b *Builder) LaterSpec(change func(*v1beta1.EtcdClusterSpec)) *Builder {
	return b.Later(func(s *cluster.Snapshot) { change(&s.Cluster.Spec) })
}

// Objects adds the Services and, for more than one member, the PodDisruptionBudget.
func (b *Builder) Objects() *Builder {
	c := b.s.Cluster
	b.s.PeerService, b.s.ClientService = render.PeerService(c), render.ClientService(c)
	if c.Spec.Replicas > 1 {
		b.s.Budget = render.Budget(c, cluster.Quorum(int(c.Spec.Replicas)))
	}
	return b
}

// Stranger adds an object that is somebody else's; leaving tells that it was a deleted cluster's of this name.
func (b *Builder) Stranger(kind, name string, leaving bool) *Builder {
	owner := "has no owner"
	if leaving {
		owner = "belongs to the deleted cluster of this name"
	}
	b.s.ForeignObjects = append(b.s.ForeignObjects, cluster.ForeignObject{Kind: kind, Name: name, Owner: owner, Terminating: leaving})
	return b
}

// Missing adds Secrets of the user that do not exist, in the original etcd operator's format.
func (b *Builder) Missing(roles ...cluster.Role) *Builder {
	return b.Broken("", roles...)
}

// Broken adds Secrets of the user that cannot be used, in the original etcd operator's format. Their names are the
// roles.
func (b *Builder) Broken(why string, roles ...cluster.Role) *Builder {
	for _, role := range roles {
		trust := &b.s.ClientTrust
		if role == cluster.RolePeer {
			trust = &b.s.PeerTrust
		}
		c := cluster.Certificate{ObjectVersion: cluster.ObjectVersion{Name: string(role)}, Role: role, Broken: why}
		if why != "" {
			c.UID = types.UID("uid-" + c.Name)
		}
		trust.Source, trust.Certificates = cluster.SourceEtcdOperator, append(trust.Certificates, c)
	}
	return b
}

// Snapshot returns what was built, members and volumes in their order, with the membership where a quorum serves.
func (b *Builder) Snapshot() cluster.Snapshot {
	slices.SortFunc(b.s.Members, func(x, y cluster.Member) int { return cluster.CompareMembers(b.s.Cluster.Name, x.Name, y.Name) })
	b.s.Membership = b.membership()
	b.noteComparison()
	for _, change := range b.last {
		change()
	}
	b.last = nil
	return b.s
}

func (b *Builder) membership() *cluster.Membership {
	if b.s.Outlook().Healthy == 0 {
		return nil
	}
	m := cluster.Membership{ClusterID: ClusterID}
	for _, name := range b.Founders() {
		m.Members = append(m.Members, cluster.EtcdMember{ID: b.memberID(name), Name: name, PeerURLs: []string{b.peerURL(name)}})
	}
	return &m
}

// noteComparison notes that the data of all members agree: before a minor version of etcd, the operator compares them.
func (b *Builder) noteComparison() {
	if b.s.Membership == nil || b.s.PeerService == nil {
		return
	}
	note := cluster.ComparisonNote{Agree: true, Revision: 1, At: Now.UTC().Truncate(time.Second)}
	for _, name := range b.Founders() {
		note.Voters = append(note.Voters, b.memberID(name))
	}
	slices.Sort(note.Voters)
	metav1.SetMetaDataAnnotation(&b.s.PeerService.ObjectMeta, cluster.AnnotationCompared, note.String())
}

// NeverCompared forgets that the data were compared.
func NeverCompared(s *cluster.Snapshot) {
	s.Comparison = nil
	if s.PeerService != nil {
		s.PeerService = s.PeerService.DeepCopy()
		delete(s.PeerService.Annotations, cluster.AnnotationCompared)
	}
}

// Founders are the names of the founding members.
func (b *Builder) Founders() []string {
	names := make([]string, b.s.Cluster.Spec.Replicas)
	for i := range names {
		names[i] = cluster.MemberName(b.s.Cluster.Name, i)
	}
	return names
}

func (b *Builder) memberID(name string) cluster.ID {
	number, _ := cluster.MemberNumber(b.s.Cluster.Name, name)
	return cluster.ID(0xa0 + number)
}

func (b *Builder) peerURL(name string) string {
	return render.PeerURL(b.s.Cluster, name, cluster.IntentOf(b.s.Cluster))
}

// Members adds all founding members with the same parts.
func (b *Builder) Members(parts ...Part) *Builder {
	for _, name := range b.Founders() {
		b.Member(name, parts...)
	}
	return b
}

// Member adds a member of the given parts, or gives a member these parts instead.
func (b *Builder) Member(name string, parts ...Part) *Builder {
	b.s.Members = slices.DeleteFunc(b.s.Members, func(m cluster.Member) bool { return m.Name == name })
	m := cluster.Member{Name: name}
	for _, part := range parts {
		part(b, &m)
	}
	b.s.Members = append(b.s.Members, m)
	return b
}

// Part gives a member something.
type Part func(*Builder, *cluster.Member)

// Volume gives a member a founding volume that nothing was recorded on.
func Volume(b *Builder, m *cluster.Member) {
	v := b.volume(m.Name, UID)
	m.Volume = &v
}

func (b *Builder) volume(member string, owner types.UID) cluster.Volume {
	size := cluster.VolumeSize(&b.s.Cluster.Spec)
	v := cluster.Volume{
		Name: cluster.VolumeName(member), Member: member, ResourceVersion: "1", RequestedBytes: size.Value(),
		StorageClass: cluster.VolumeStorageClass(&b.s.Cluster.Spec), AccessModes: cluster.VolumeAccessModes(&b.s.Cluster.Spec),
		CreatedAt: Now, ClusterUID: owner, Token: fmt.Sprintf("%s/%s/%s", Namespace, b.s.Cluster.Name, owner), Founders: b.Founders(), PeerURL: b.peerURL(member),
	}
	if cluster.IsInMemory(&b.s.Cluster.Spec) {
		v.InMemory, v.StorageClass, v.AccessModes, v.Phase = true, "", nil, corev1.ClaimBound
		v.Remembered = cluster.VolumeIdentity{Claim: types.UID("pod-" + member), Name: cluster.InMemoryName}
		v.Identity = v.Remembered
	}
	return v
}

// InMemory keeps the data of the members in memory. Their records name the pods that they have, or would have.
func (b *Builder) InMemory(size string) *Builder {
	b.s.Cluster.Spec.Storage = &v1beta1.Storage{Ephemeral: &v1beta1.EphemeralStorage{Medium: v1beta1.EphemeralMemory, SizeLimit: resource.MustParse(size)}}
	return b
}

// Recorded writes on the member's volume that it was seen started.
func Recorded(b *Builder, m *cluster.Member) { b.record(m.Volume) }

// Marked writes on the member's volume that it started, and no IDs.
func Marked(by cluster.StartEvidence) Part {
	return func(_ *Builder, m *cluster.Member) { m.Volume.StartedBy = by }
}

func (b *Builder) record(v *cluster.Volume) {
	v.ClusterID, v.MemberID, v.Version, v.Members = ClusterID, b.memberID(v.Member), b.s.Cluster.Spec.Version, b.Founders()
}

// Founding gives a member a StatefulSet that starts an empty volume with the founding list.
func Founding(b *Builder, m *cluster.Member) { b.workload(m, true) }

// Sealed gives a member a StatefulSet that fails closed on an empty volume.
func Sealed(b *Builder, m *cluster.Member) { b.workload(m, false) }

func (b *Builder) workload(m *cluster.Member, founding bool) {
	in := b.input(m.Name)
	if founding {
		in.Start = render.Founding(b.s.Cluster, b.Founders(), render.ClusterToken(b.s.Cluster), in.Intent)
	}
	live := render.MemberStatefulSet(in)
	m.Workload = &cluster.Workload{
		Intent: in.Intent, IntentHash: live.Annotations[cluster.AnnotationIntentHash], StartsEmpty: founding, Live: live,
		MemoryBytes: in.MemoryBytes,
	}
}

func (b *Builder) input(name string) render.MemberInput {
	in := render.MemberInput{Cluster: b.s.Cluster, Name: name, Intent: withAuthorities(&b.s, cluster.IntentOf(b.s.Cluster))}
	if size := cluster.VolumeSize(&b.s.Cluster.Spec); cluster.IsInMemory(&b.s.Cluster.Spec) {
		in.MemoryBytes = size.Value()
	}
	return in
}

// Pod gives a member a pod that runs and was not made to found.
func Pod(b *Builder, m *cluster.Member) {
	number, _ := cluster.MemberNumber(b.s.Cluster.Name, m.Name)
	in := b.input(m.Name)
	_, intentHash := in.Intent.Encode()
	m.Pod = &cluster.Pod{
		Name: cluster.PodName(m.Name), UID: types.UID("pod-" + m.Name), IP: fmt.Sprintf("10.0.0.%d", number+1), Node: fmt.Sprintf("node-%d", number+1),
		Phase: corev1.PodRunning, CreatedAt: Now.Add(-time.Hour), RenderHash: render.RenderHash(in), IntentHash: intentHash,

		PeerAuthorities: in.Intent.PeerAuthorities, ClientAuthorities: in.Intent.ServerAuthorities, Resources: in.Intent.Resources(),
	}
}

// FoundingPod gives a member a pod that runs and starts an empty volume with the founding list.
func FoundingPod(b *Builder, m *cluster.Member) {
	Pod(b, m)
	m.Pod.StartsEmpty, m.Pod.CreatedAt = true, Now.Add(-10*time.Second)
}

// Trouble keeps the member's pod from running.
func Trouble(reason, detail string) Part {
	return func(_ *Builder, m *cluster.Member) {
		m.Pod.IP, m.Pod.FailureReason, m.Pod.FailureDetail = "", reason, detail
	}
}

// Silent has nobody answer at the member's address.
func Silent(cause string) Part {
	return func(_ *Builder, m *cluster.Member) { m.Probe = &cluster.Probe{Error: cause} }
}

// Serving has the member's ready pod answer linearizable reads; prod-0 leads.
func Serving(b *Builder, m *cluster.Member) {
	m.Pod.Ready, m.Pod.PassesReadiness = true, true
	m.Probe = &cluster.Probe{
		ClusterID: ClusterID, MemberID: b.memberID(m.Name), Leader: b.memberID(cluster.MemberName(b.s.Cluster.Name, 0)),
		Version: b.s.Cluster.Spec.Version, ClusterVersion: cluster.MinorOf(b.s.Cluster.Spec.Version), Linearizable: true,
	}
	if m.Workload != nil && m.Volume.Started() {
		recordHealthy(m)
	}
}

// recordHealthy records on the StatefulSet that the member is healthy under its present intent.
func recordHealthy(m *cluster.Member) {
	annotations := m.Workload.Live.Annotations
	annotations[cluster.AnnotationHealthyIntent] = annotations[cluster.AnnotationIntent]
	m.Workload.HealthyIntent = &m.Workload.Intent
}

// Leaderless has the member answer its status and no reads.
func Leaderless(b *Builder, m *cluster.Member) {
	Serving(b, m)
	m.Pod.Ready, m.Pod.PassesReadiness, m.Probe.Leader, m.Probe.Linearizable = false, false, 0, false
}

// Changed changes the member at last.
func Changed(change func(*cluster.Member)) Part {
	return func(_ *Builder, m *cluster.Member) { change(m) }
}

// Together is several parts as one.
func Together(parts ...Part) Part {
	return func(b *Builder, m *cluster.Member) {
		for _, part := range parts {
			part(b, m)
		}
	}
}

// Healthy is a member that was recorded, is sealed, runs and serves.
var Healthy = Together(Volume, Recorded, Sealed, Pod, Serving)

// Kept adds volumes that an earlier cluster of this name left, with what its members were founded with.
func (b *Builder) Kept(changes func(*cluster.Volume), names ...string) *Builder {
	for _, name := range names {
		v := b.volume(name, EarlierUID)
		b.record(&v)
		if changes != nil {
			changes(&v)
		}
		b.s.RetainedVolumes = append(b.s.RetainedVolumes, v)
	}
	return b
}

// TakenBack is a member whose volume an earlier cluster left and this one took back.
func TakenBack(b *Builder, m *cluster.Member) {
	v := b.volume(m.Name, EarlierUID)
	b.record(&v)
	v.ClusterUID = UID
	m.Volume = &v
}

// Gibibytes returns storage with volumes of that size.
func Gibibytes(n int) *v1beta1.Storage {
	return &v1beta1.Storage{VolumeClaimTemplate: &v1beta1.VolumeClaimTemplate{Spec: v1beta1.VolumeClaimSpec{
		Resources: v1beta1.VolumeResources{Requests: corev1.ResourceList{
			corev1.ResourceStorage: resource.MustParse(fmt.Sprintf("%dGi", n)),
		}},
	}}}
}

// InClear returns what leaves all traffic in clear.
func InClear() *v1beta1.TLS {
	return &v1beta1.TLS{
		Client: &v1beta1.ClientTLS{Mode: v1beta1.TLSDisabled},
		Peer:   &v1beta1.PeerTLS{Mode: v1beta1.TLSDisabled},
	}
}

// FromSecrets returns TLS with Secrets of the original etcd operator's format. Without a name the traffic is not
// encrypted.
func FromSecrets(peer, server, operator string) *v1beta1.TLS {
	tls := InClear()
	if peer != "" {
		tls.Peer = &v1beta1.PeerTLS{SecretRef: &v1beta1.PeerSecretRef{Name: peer, Format: v1beta1.SecretFormatEtcdOperator}}
	}
	if server != "" {
		tls.Client = &v1beta1.ClientTLS{SecretRef: &v1beta1.ClientSecretRef{Name: server, OperatorName: operator, Format: v1beta1.SecretFormatEtcdOperator}}
	}
	return tls
}
