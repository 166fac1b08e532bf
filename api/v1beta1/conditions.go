package v1beta1

// Condition types. Available, Progressing and DataConsistent are good or neutral if true. The others are bad if true.
const (
	// ConditionAvailable is true while a quorum of voters serves linearizable reads.
	// What to do: if it is false, read QuorumLost and Degraded. They name the members and the causes.
	ConditionAvailable = "Available"
	// ConditionProgressing is true while the operator changes the cluster towards its spec. It is false if there is
	// nothing to change, or if something prevents the change.
	// What to do: nothing if it is true. If it is false with another reason than UpToDate, the message says what to
	// change.
	ConditionProgressing = "Progressing"
	// ConditionDegraded is true while the cluster does not have all that its spec asks for.
	// What to do: the message names the members or the object that is the cause, and the solution.
	ConditionDegraded = "Degraded"
	// ConditionQuorumLost is true while fewer voters answer than the quorum, in a cluster that has served before.
	// What to do: repair the nodes, volumes, images or certificates of the members. With the quorum etcd serves again,
	// with all its data. Never delete volumes.
	ConditionQuorumLost = "QuorumLost"
	// ConditionStorageAlarm is true while etcd reports an alarm about its storage.
	// What to do: see the reasons. While the reason is NoSpace, etcd refuses writes.
	ConditionStorageAlarm = "StorageAlarm"
	// ConditionRestartPending is true while members run with an older pod template than the current one.
	// What to do: nothing. The next restart of the pod loads the current template. With
	// spec.updateStrategy.operatorUpgrade: Roll the operator restarts the members itself.
	ConditionRestartPending = "RestartPending"
	// ConditionUpgradeBlocked is true while something keeps the members from running spec.version.
	// What to do: see the reasons. The members continue to run what they run.
	ConditionUpgradeBlocked = "UpgradeBlocked"
	// ConditionDataConsistent is false while a comparison shows that the data of the members differ, and unknown while an
	// alarm says so and they could not be compared. Otherwise etcd's own check after each compaction reports no
	// difference.
	// What to do: nothing if it is true. If it is false, the message tells which members agree, and what follows.
	ConditionDataConsistent = "DataConsistent"
	// ConditionVersionAdvisory is true while a member runs a version of etcd with known security holes. The operator runs
	// it all the same.
	// What to do: set spec.version to the version in the message, or to a later patch.
	ConditionVersionAdvisory = "VersionAdvisory"
	// ConditionPlacementAdvisory is true while members share a node, unless spec.podTemplate.memberAntiAffinity is
	// Preferred. While members come, go or move, it stays as it is.
	// What to do: see the reasons. The members continue to run.
	ConditionPlacementAdvisory = "PlacementAdvisory"
)

// Reasons of Available and QuorumLost.
const (
	// ReasonQuorumServing: enough voters answer linearizable reads.
	// What to do: nothing.
	ReasonQuorumServing = "QuorumServing"
	// ReasonQuorumAtRisk: the quorum serves, but one more failure would stop it.
	// What to do: bring back the members that do not answer. Degraded names them and the cause. Do not drain or restart
	// other members.
	ReasonQuorumAtRisk = "QuorumAtRisk"
	// ReasonNoReadyEndpoint: enough voters answer, but no pod is ready. The client Service has no endpoints.
	// What to do: nothing at first: pods become ready within seconds. If the reason stays, read kubectl describe pod.
	ReasonNoReadyEndpoint = "NoReadyEndpoint"
	// ReasonNoQuorum: fewer voters than the quorum answer. Voters that are only electing a leader get an election timeout
	// and 2 seconds before this is reported.
	// What to do: start the members that the message names, on their own volumes. If all volumes are gone, delete the
	// cluster and create it again to start empty.
	ReasonNoQuorum = "NoQuorum"
	// ReasonNotStarted: the cluster has never served.
	// What to do: nothing while Progressing is true. Otherwise Progressing or Degraded names the cause.
	ReasonNotStarted = "NotStarted"
	// ReasonUnobservable: the operator cannot connect to the members.
	// What to do: correct the Secret that the message names. The members continue to run.
	ReasonUnobservable = "Unobservable"
	// ReasonClusterIDConflict: the members report more than one cluster ID, or another one than the recorded cluster ID.
	// What to do: find the volume of another cluster by the annotation operator.etcd-warden.io/cluster-id of the
	// PersistentVolumeClaims, and move it away.
	ReasonClusterIDConflict = "ClusterIDConflict"
)

// Reasons of Progressing.
const (
	// ReasonUpToDate: the cluster is as its spec says.
	// What to do: nothing.
	ReasonUpToDate = "UpToDate"
	// ReasonBootstrapping: the founding members are starting.
	// What to do: nothing. If it takes minutes, Degraded names the member that does not start, and the cause.
	ReasonBootstrapping = "Bootstrapping"
	// ReasonTakingBack: the members of kept volumes are starting.
	// What to do: nothing. If it takes minutes, Degraded names the member that does not start, and the cause.
	ReasonTakingBack = "TakingBack"
	// ReasonResuming: missing StatefulSets are being created again.
	// What to do: nothing. Find out who deleted them.
	ReasonResuming = "Resuming"
	// ReasonRotatingAuthorities: the members load a change of the trusted certificate authorities, one after the other.
	// What to do: nothing. Each member restarts once, while the others keep the quorum.
	ReasonRotatingAuthorities = "RotatingAuthorities"
	// ReasonScaling: members are added or removed, one after the other, until there are as many as spec.replicas.
	// What to do: nothing. If it takes minutes, status.operation names the member and says what it waits for.
	ReasonScaling = "Scaling"
	// ReasonReplacingMember: a member is removed from etcd that is lost, or that its user wants replaced. A new one takes
	// its place.
	// What to do: nothing. Find out what became of its node or its volume. docs/repair.md says what counts as lost.
	ReasonReplacingMember = "ReplacingMember"
	// ReasonNodesNotReady: a member is lost, and more than a third of all nodes are not ready. No lost member is replaced.
	// What to do: bring the nodes back. To replace a member meanwhile, set the annotation
	// operator.etcd-warden.io/replace-member.
	ReasonNodesNotReady = "NodesNotReady"
	// ReasonCheckingConsistency: the data of the members are compared, one member after the other. A member answers
	// nothing else while it computes the hash of its data.
	// What to do: nothing. The condition DataConsistent has the result.
	ReasonCheckingConsistency = "CheckingConsistency"
	// ReasonRollingMembers: the members restart one after the other, so that they load what the spec or the annotation
	// operator.etcd-warden.io/restart asks for.
	// What to do: nothing. The message says how many members have been restarted.
	ReasonRollingMembers = "RollingMembers"
	// ReasonUpgrading: the members restart one after the other with the version of etcd that spec.version asks for.
	// What to do: nothing. The message says how many members have been restarted.
	ReasonUpgrading = "Upgrading"
	// ReasonDowngrading: etcd prepares its data for the next lower minor version. Then the members restart one after the
	// other with it.
	// What to do: nothing. To stay with the newer version, set spec.version back: the downgrade is then cancelled.
	ReasonDowngrading = "Downgrading"
	// ReasonRenewingLog: before the first member runs etcd 3.7, every member writes a snapshot of its log. For that a
	// downgrade to 3.5 is enabled for some seconds, and no member restarts.
	// What to do: nothing.
	ReasonRenewingLog = "RenewingLog"
	// ReasonCancellingDowngrade: a downgrade that is enabled in etcd is cancelled: spec.version has the newer version
	// again, a member is lost, the data are not prepared in time, or it was there to renew the log.
	// What to do: bring back a member that the message names. Otherwise nothing.
	ReasonCancellingDowngrade = "CancellingDowngrade"
	// ReasonCheckingImage: before the first member runs another version, a pod asks the image for its version of etcd.
	// What to do: nothing. It takes as long as the image takes to be pulled.
	ReasonCheckingImage = "CheckingImage"
	// ReasonDefragmenting: the members are defragmented one after the other, as the annotation
	// operator.etcd-warden.io/defragment asks. A member answers nothing while it is defragmented.
	// What to do: nothing. To stop after the present member, remove the annotation.
	ReasonDefragmenting = "Defragmenting"
	// ReasonDefragmentationFailed: a member could not defragment its database. The database is as it was.
	// What to do: see the message. A defragmentation needs room on the volume for a second copy of what is in use: delete
	// keys and compact first, or remove the annotation operator.etcd-warden.io/defragment.
	ReasonDefragmentationFailed = "DefragmentationFailed"
	// ReasonMovingLeader: the leadership is handed over to the member that the annotation
	// operator.etcd-warden.io/move-leader names.
	// What to do: nothing.
	ReasonMovingLeader = "MovingLeader"
	// ReasonResizingPods: the members' pods get other CPU and memory without a restart.
	// What to do: nothing. A member whose pod cannot be changed so within a minute restarts instead.
	ReasonResizingPods = "ResizingPods"
	// ReasonRollingBack: a member did not become healthy after its restart, and goes back to the pod template with which
	// it was healthy.
	// What to do: nothing yet. The message says why the member was not healthy.
	ReasonRollingBack = "RollingBack"
	// ReasonRolledBack: a member did not become healthy with what the spec asks for, and went back. The operator does not
	// try it again until the spec changes. The other members were not touched.
	// What to do: correct in the spec what the message names. To try the same again, set another value of the annotation
	// operator.etcd-warden.io/restart.
	ReasonRolledBack = "RolledBack"
	// ReasonDeadlineExceeded: a step takes longer than spec.updateStrategy.progressDeadlineSeconds.
	// What to do: remove the cause that the message names. If the step only needs more time, raise the deadline.
	ReasonDeadlineExceeded = "DeadlineExceeded"
	// ReasonFrozen: the operator may not begin a step that may disturb members, because of its flag --freeze-disruptions
	// or of the annotation operator.etcd-warden.io/freeze-disruptions of the namespace. Lost members
	// are not replaced either. A member whose pod has failed is still restarted.
	// What to do: remove the flag or the annotation when the steps may go on, and at once if a member is lost.
	ReasonFrozen = "Frozen"
	// ReasonWaitingForOtherClusters: the operator takes steps that may disturb members in as many clusters as its flag
	// --max-disruptions allows at once.
	// What to do: nothing. The step begins when one of the others has ended. It can take longer while members of other
	// clusters do not become healthy.
	ReasonWaitingForOtherClusters = "WaitingForOtherClusters"
	// ReasonRollsStopped: five members in a row, in any clusters, did not become healthy after their restart and went
	// back. The operator restarts no member for its spec until an administrator allows it. Members that have failed are
	// still restarted.
	// What to do: find out why the members failed. Then do what the message says.
	ReasonRollsStopped = "RollsStopped"
	// ReasonMembersNotHealthy: a member needs a restart, but another member is not a healthy voter.
	// What to do: bring back the member that the message names. The operator then continues.
	ReasonMembersNotHealthy = "MembersNotHealthy"
	// ReasonDisruptionNotAllowed: the disruption budget does not allow the operator to evict a member's pod now, or
	// another pod of the cluster is being deleted. What to do: nothing; if it stays, see which pods are not ready.
	ReasonDisruptionNotAllowed = "DisruptionNotAllowed"
	// ReasonSeveralBudgets: more than one PodDisruptionBudget selects the members' pods, so none can be evicted.
	// What to do: delete the budgets that the message names, except the operator's.
	ReasonSeveralBudgets = "SeveralBudgets"
	// ReasonDeleting: the cluster is being deleted. Its volumes are kept, unless spec.storage.retentionPolicy.whenDeleted
	// is Delete.
	// What to do: nothing. To delete kept data too, delete the PersistentVolumeClaims.
	ReasonDeleting = "Deleting"
	// ReasonPaused: spec.paused is true. The operator still renews certificates, records which members have started, and
	// makes their StatefulSets and pods refuse an empty volume.
	// What to do: set spec.paused to false, so that the operator changes the cluster again.
	ReasonPaused = "Paused"
	// ReasonNotYetSupported: the spec differs from the running cluster, and the operator cannot make such a change.
	// What to do: set the field that the message names back to its old value, or install a release that can make the
	// change. If no member has started yet, delete the cluster and create it again with the spec that you want.
	ReasonNotYetSupported = "NotYetSupported"
	// ReasonUnsupportedVersion: the operator does not support the version of etcd in spec.version.
	// What to do: write a supported version. The message says which. A running cluster stays as it is.
	ReasonUnsupportedVersion = "UnsupportedVersion"
	// ReasonUnsupportedOption: spec.config.extraArgs has an option that is not on the allow list of the version, or a
	// value with which etcd cannot start.
	// What to do: remove the option that the message names, correct its value, or write a version of etcd that has it.
	ReasonUnsupportedOption = "UnsupportedOption"
	// ReasonSecurityNotRestricted: the pod template has a sysctl, an SELinux option or an AppArmor annotation that the
	// restricted Pod Security Standard forbids.
	// What to do: remove from spec.podTemplate what the message names. A running cluster stays as it is.
	ReasonSecurityNotRestricted = "SecurityNotRestricted"
	// ReasonQuotaTooLarge: the database could fill the volume before it reaches its quota. etcd exits when the disk is
	// full.
	// What to do: lower the quota to the value in the message. Only a new cluster can have a larger volume. With data in
	// memory, raise the memory limit, or lower sizeLimit or the quota, as the message says.
	ReasonQuotaTooLarge = "QuotaTooLarge"
	// ReasonQuotaTooSmall: the database of a member is about as large as the new quota, or larger. etcd would take no
	// more writes.
	// What to do: set a larger quota, or delete keys, compact and defragment first. The members keep theirs meanwhile.
	ReasonQuotaTooSmall = "QuotaTooSmall"
	// ReasonSecretNotFound: a Secret that the spec names does not exist.
	// What to do: create the Secret in the namespace of the cluster, with the keys that the message names.
	ReasonSecretNotFound = "SecretNotFound"
	// ReasonCertificateInvalid: the certificate in a Secret cannot be used for this cluster.
	// What to do: replace the certificate. The message says what is wrong. etcd loads the new one without a restart.
	ReasonCertificateInvalid = "CertificateInvalid"
	// ReasonCertificateNotReady: cert-manager is not installed, or it has not issued a certificate yet.
	// What to do: install cert-manager, or correct the issuer. kubectl describe certificate shows the cause.
	ReasonCertificateNotReady = "CertificateNotReady"
	// ReasonStorageClassNotFound: the StorageClass that the spec names does not exist, or there is no default
	// StorageClass.
	// What to do: name an existing StorageClass in the spec, or mark one as the default.
	ReasonStorageClassNotFound = "StorageClassNotFound"
	// ReasonForeignObject: another owner has an object with a name that this cluster needs.
	// What to do: rename or delete the object that the message names, or create this cluster under another name. If the
	// object was restored from a backup, set its owner again (docs/tls.md). Never delete a PersistentVolumeClaim that
	// holds the volume of a member (docs/volumes.md).
	ReasonForeignObject = "ForeignObject"
	// ReasonLeftOver: a StatefulSet or a PersistentVolumeClaim of the cluster belongs to no member. Another client removed
	// the member from etcd. The operator neither uses nor deletes what is left of it.
	// What to do: delete the StatefulSet. Then delete the PersistentVolumeClaim, or set the annotation that the message
	// names on it.
	ReasonLeftOver = "LeftOver"
	// ReasonWaitingForDeletion: objects of a deleted cluster with the same name are still being deleted.
	// What to do: nothing. If it takes minutes, look for finalizers on the object that the message names.
	ReasonWaitingForDeletion = "WaitingForDeletion"
	// ReasonAmbiguousVolumes: the kept volumes belong to more than one cluster.
	// What to do: mark the volumes that you do not want as the message says, or start empty with
	// spec.bootstrap.existingVolumes: Ignore.
	ReasonAmbiguousVolumes = "AmbiguousVolumes"
	// ReasonVolumesBelowQuorum: fewer volumes are kept than the quorum.
	// What to do: start empty with spec.bootstrap.existingVolumes: Ignore. A copy of a volume does not replace it.
	ReasonVolumesBelowQuorum = "VolumesBelowQuorum"
	// ReasonVersionMismatch: another minor version of etcd wrote the kept volumes.
	// What to do: set spec.version to a version of the minor version that the message names.
	ReasonVersionMismatch = "VersionMismatch"
	// ReasonImageDiffers: a member runs another minor version of etcd than spec.version says: the image has another one.
	// What to do: set spec.version to the version that runs, with that image. No member restarts with another image
	// before.
	ReasonImageDiffers = "ImageDiffers"
	// ReasonPeerURLMismatch: the peers know the kept volumes by other URLs.
	// What to do: set spec.tls.peer and spec.clusterDomain to the values that they had when the volumes were written.
	ReasonPeerURLMismatch = "PeerURLMismatch"
	// ReasonUnknownOperation: status.operation has a type that the operator does not know.
	// What to do: install the release of the operator that started the operation. It completes the operation.
	ReasonUnknownOperation = "UnknownOperation"
	// ReasonReadRefused: the API server does not let the operator read an object that this cluster needs.
	// What to do: grant the right that the message names.
	ReasonReadRefused = "ReadRefused"
	// ReasonWriteRefused: the API server refused a write of the operator.
	// What to do: see the answer of the API server in the message. Frequent causes are a quota, an admission policy and a
	// missing right.
	ReasonWriteRefused = "WriteRefused"
)

// Reasons of Degraded, and of members that are not ready.
const (
	// ReasonAsExpected: the cluster is as its spec asks.
	// What to do: nothing.
	ReasonAsExpected = "AsExpected"
	// ReasonMembersNotReady: some members do not answer. The message says which members, and why.
	// What to do: look up the reason of each member that the message names.
	ReasonMembersNotReady = "MembersNotReady"
	// ReasonPodMissing: the member has no pod.
	// What to do: nothing at first: the StatefulSet creates the pod. If the reason stays, kubectl describe statefulset
	// shows the cause.
	ReasonPodMissing = "PodMissing"
	// ReasonPodCreationFailed: Kubernetes cannot create the pod of the member.
	// What to do: correct what the message names. Frequent causes are a ResourceQuota, a priorityClassName that does not
	// exist, and a Pod Security Standard that the pod does not meet. Kubernetes then creates the pod.
	// A corrected spec is taken up.
	ReasonPodCreationFailed = "PodCreationFailed"
	// ReasonUnschedulable: the scheduler finds no node for the pod.
	// What to do: add nodes or room on them. kubectl describe pod shows what is missing. A corrected spec
	// is taken up.
	ReasonUnschedulable = "Unschedulable"
	// ReasonImagePullFailed: the image cannot be pulled.
	// What to do: correct the repository, tag or digest of the image or the version, give the nodes access to the
	// registry, or create the pull Secret that the spec names. A corrected spec is taken up.
	ReasonImagePullFailed = "ImagePullFailed"
	// ReasonContainerFailed: the kubelet cannot start the container.
	// What to do: kubectl describe pod shows the cause.
	ReasonContainerFailed = "ContainerFailed"
	// ReasonCrashLooping: etcd keeps exiting.
	// What to do: see the exit code and the last log line of etcd in the message. kubectl logs --previous shows the log.
	ReasonCrashLooping = "CrashLooping"
	// ReasonVolumeLost: the volume of the member is gone. The operator never creates it again under the same name.
	// What to do: nothing while a quorum is left: a new member takes the place of this one. Without a quorum, or where
	// spec.recovery.memberReplacement.policy is Manual, bring the volume itself back, as docs/volumes.md says, never a
	// copy, a snapshot or a restore of it.
	ReasonVolumeLost = "VolumeLost"
	// ReasonMemoryLost: the data of the member were in memory (spec.storage.ephemeral), and its pod is gone, or its node
	// restarted. Of the cluster it tells that fewer members than the quorum have their data.
	// What to do: nothing while a quorum is left: a new member takes the place of this one. Without a quorum, save what a
	// member that is left has, delete the EtcdCluster and create it again (docs/memory.md).
	ReasonMemoryLost = "MemoryLost"
	// ReasonVolumeReplaced: the claim of the member is bound to another volume than the one that the member started on.
	// The operator does not start it: old data under the member's ID can undo acknowledged writes. It stops no pod that
	// runs: a pod keeps its volume for as long as it exists.
	// What to do: bring the first volume back. If it is the same volume, moved and not copied, set the annotation
	// operator.etcd-warden.io/accept-volume on the claim to the value in the message. Never do so for a copy, a snapshot
	// or a restore.
	ReasonVolumeReplaced = "VolumeReplaced"
	// ReasonNoSuchMember: the annotation operator.etcd-warden.io/replace-member or operator.etcd-warden.io/move-leader
	// names no member of etcd.
	// What to do: set it to a member and its ID, as the message lists them, or remove it.
	ReasonNoSuchMember = "NoSuchMember"
	// ReasonPeerURLChanged: etcd's member list has another peer URL for the member than the operator made it with.
	// What to do: set the URL back with the command in the message.
	ReasonPeerURLChanged = "PeerURLChanged"
	// ReasonNodeLost: the node of the pod does not answer.
	// What to do: repair the node. If it is gone for good, delete its Node object: Kubernetes then moves the pod. If the
	// volume can be used on no other node, a new member takes its place at once (docs/repair.md).
	ReasonNodeLost = "NodeLost"
	// ReasonPodHeld: the pod has ended and is deleted, but finalizers keep it. The next one cannot be created.
	// What to do: find out what put the finalizers on the pod, and should remove them.
	ReasonPodHeld = "PodHeld"
	// ReasonStarting: the pod is starting.
	// What to do: nothing.
	ReasonStarting = "Starting"
	// ReasonNeverStarted: the pod exists for more than 5 minutes, and its container has never run.
	// What to do: kubectl describe pod shows the cause. The member starts when the cause is removed. If the others have a
	// quorum, they serve without it.
	ReasonNeverStarted = "NeverStarted"
	// ReasonNotAnswering: etcd does not answer the operator. A member that has never started gets 30 seconds for that.
	// What to do: read kubectl logs of the pod. NetworkPolicies must let the operator connect to port 2379 of the
	// members.
	ReasonNotAnswering = "NotAnswering"
	// ReasonNoLeader: etcd answers, but has no leader.
	// What to do: nothing at first: an election takes seconds. If the reason stays, too few members can connect to each
	// other: see the reasons of the other members.
	ReasonNoLeader = "NoLeader"
)

// Reasons of StorageAlarm and RestartPending.
const (
	// ReasonNoAlarm: etcd reports no alarm.
	// What to do: nothing.
	ReasonNoAlarm = "NoAlarm"
	// ReasonNoSpace: the database of a member reached its quota. etcd refuses writes.
	// What to do: delete keys, compact and defragment. Then run etcdctl alarm disarm.
	ReasonNoSpace = "NoSpace"
	// ReasonCorrupt: etcd reports alarm CORRUPT: the data of the members may differ. The alarm does not show which member
	// is wrong. While it is active, no member is ready.
	// What to do: nothing at first. The operator compares the members, replaces one that differs from a majority of all,
	// and ends the alarm: see the condition DataConsistent. Do not restart members, and do not delete volumes.
	ReasonCorrupt = "Corrupt"
	// ReasonTemplateNewer: the pod templates of members are newer than their pods.
	// What to do: nothing.
	ReasonTemplateNewer = "TemplateNewer"
)

// Reasons of DataConsistent.
const (
	// ReasonNoDifferenceReported: etcd compares hashes of the members' data after each compaction, and reports no
	// difference.
	// What to do: nothing.
	ReasonNoDifferenceReported = "NoDifferenceReported"
	// ReasonDataAgrees: the operator compared the data of all members, and they are the same.
	// What to do: nothing.
	ReasonDataAgrees = "DataAgrees"
	// ReasonDataDiffers: the data of the members differ. Nothing is rolled, and no member joins meanwhile.
	// What to do: nothing if the message says that a new member takes the place of the one that differs. If it asks for
	// the annotation replace-member, set it. Otherwise no majority of all members has the same data, so nobody can tell
	// which are right: stop the writers, save each member with etcdctl snapshot save, and copy the keys that you trust
	// into a new cluster (docs/consistency.md).
	ReasonDataDiffers = "DataDiffers"
	// ReasonNotCompared: the data could not be compared, or the comparison has not begun, for what the message says.
	// What to do: end the freeze or the pause that the message names. Or bring the members back that did not tell the hash
	// of their data. To compare databases of more than 1 GiB, set spec.maintenance.consistencyCheck to Full: each member
	// answers nothing for some seconds.
	ReasonNotCompared = "NotCompared"
)

// Reasons of events, in the past tense.
const (
	// EventBootstrapStarted: the founding members were created.
	// What to do: nothing.
	EventBootstrapStarted = "BootstrapStarted"
	// EventVolumesTakenBack: kept volumes were taken back.
	// What to do: nothing.
	EventVolumesTakenBack = "VolumesTakenBack"
	// EventMembersResumed: missing StatefulSets of members were created again.
	// What to do: find out who deleted the StatefulSets.
	EventMembersResumed = "MembersResumed"
	// EventMemberRolled: the pod of a member was evicted, so that it starts again.
	// What to do: nothing.
	EventMemberRolled = "MemberRolled"
	// EventPodResized: pods of members got other CPU and memory without a restart.
	// What to do: nothing.
	EventPodResized = "PodResized"
	// EventMemberRolledBack: a member did not become healthy after its restart. It restarts with what it ran with before.
	// What to do: correct in the spec what the message names.
	EventMemberRolledBack = "MemberRolledBack"
	// EventSecretsRecreated: managed Secrets of a running cluster were missing, and the operator created them again.
	// What to do: find out who deleted the Secrets.
	EventSecretsRecreated = "SecretsRecreated"
	// EventMemberAdded: a new member was registered in etcd as a learner.
	// What to do: nothing. It becomes a voter when it has copied the data.
	EventMemberAdded = "MemberAdded"
	// EventMemberStarted: the StatefulSet of a registered learner was created.
	// What to do: nothing.
	EventMemberStarted = "MemberStarted"
	// EventMemberPromoted: a learner became a voter.
	// What to do: nothing.
	EventMemberPromoted = "MemberPromoted"
	// EventMemberRemoved: a member was removed from etcd.
	// What to do: nothing. spec.storage.retentionPolicy says what becomes of its volume: whenScaled, or whenReplaced.
	EventMemberRemoved = "MemberRemoved"
	// EventMemberDefragmented: a member was told to defragment its database.
	// What to do: nothing. The operation that it begins ends when the member has caught up again.
	EventMemberDefragmented = "MemberDefragmented"
	// EventLeaderMoved: a follower became the leader, before the member that led is restarted, defragmented or removed, or
	// because the annotation operator.etcd-warden.io/move-leader asks for it.
	// What to do: nothing.
	EventLeaderMoved = "LeaderMoved"
	// EventPlanned: the answer to a new value of the annotation operator.etcd-warden.io/plan: what the operator would do
	// to reach the spec, and in which order.
	// What to do: nothing.
	EventPlanned = "Planned"
	// EventOperationFinished: the step in progress was completed.
	// What to do: nothing.
	EventOperationFinished = "OperationFinished"
	// EventOperationAbandoned: the step in progress ended before it was completed.
	// What to do: see the message. The operator continues with what is needed now.
	EventOperationAbandoned = "OperationAbandoned"
	// EventConversionFailed: the API server could not convert the object for the operator. etcd continues to run.
	// What to do: make sure that the pods of the Service etcd-warden-webhook-service are ready, and that the API server
	// can connect to their port 9443.
	EventConversionFailed = "ConversionFailed"
	// EventConversionRepaired: the conversion of the CustomResourceDefinition was overwritten, and the webhook repaired
	// it.
	// What to do: nothing.
	EventConversionRepaired = "ConversionRepaired"
	// EventConversionNotRepaired: the conversion of the CustomResourceDefinition is wrong, and the webhook cannot repair
	// it.
	// What to do: see the message. Until then v1alpha1 requests fail. Running clusters continue to serve.
	EventConversionNotRepaired = "ConversionNotRepaired"
)

// Reasons of UpgradeBlocked. It also has reasons of Progressing: UnsupportedVersion, UnsupportedOption,
// MembersNotHealthy, RolledBack, and what else keeps a member from being restarted.
const (
	// ReasonVersionSkipped: spec.version is more than one minor version above or below what a member runs.
	// What to do: set spec.version to the minor version that the message names, and to the one you want afterwards.
	ReasonVersionSkipped = "VersionSkipped"
	// ReasonDowngradeRefused: etcd refuses to prepare its data for the older version. No member is restarted.
	// What to do: see the message, which has etcd's own words. To stay with what runs, set spec.version back.
	ReasonDowngradeRefused = "DowngradeRefused"
	// ReasonForeignDowngrade: a downgrade is enabled in etcd that the operator did not enable. No member is added,
	// upgraded or restarted for its spec meanwhile.
	// What to do: finish it, or cancel it with etcdctl downgrade cancel.
	ReasonForeignDowngrade = "ForeignDowngrade"
	// ReasonLearnerPresent: a member is a learner. An upgrade is begun only while all members are voters.
	// What to do: nothing. If it does not become a voter, Progressing says why.
	ReasonLearnerPresent = "LearnerPresent"
	// ReasonAlarmActive: etcd has an alarm.
	// What to do: StorageAlarm says how to clear it.
	ReasonAlarmActive = "AlarmActive"
	// ReasonImageNotUsable: the image does not exist, cannot run, or has another version of etcd. No member gets it.
	// What to do: correct spec.version or spec.image.
	ReasonImageNotUsable = "ImageNotUsable"
)

// Reasons of VersionAdvisory.
const (
	// ReasonSecurityFix: a later patch of the same minor version closes security holes.
	// What to do: set spec.version to the version in the message, or to a later patch.
	ReasonSecurityFix = "SecurityFix"
)

// Reasons of PlacementAdvisory.
const (
	// ReasonMembersShareNode: two members or more run on one node. They are lost together if that node fails.
	// What to do: give the cluster a node for each member, and move or replace one of the members, as the message says. If
	// members may share a node, set spec.podTemplate.memberAntiAffinity to Preferred.
	ReasonMembersShareNode = "MembersShareNode"
)

// Reasons of the condition Upgradeable. OLM reads it in the OperatorCondition of the operator before it upgrades.
const (
	// ReasonStepInFlight: a member was taken down on purpose, or the membership changes.
	// What to do: nothing. OLM waits at most 10 minutes for one step, and 30 minutes for steps that follow one another.
	// To upgrade at once, override the condition in the OperatorCondition's spec.overrides.
	ReasonStepInFlight = "StepInFlight"
	// ReasonNoStepInFlight: OLM may replace the operator.
	// What to do: nothing.
	ReasonNoStepInFlight = "NoStepInFlight"
	// ReasonHeldLongEnough: steps followed one another for 30 minutes. OLM may replace the operator during a step.
	// What to do: nothing. The new operator finishes the step.
	ReasonHeldLongEnough = "HeldLongEnough"
)
