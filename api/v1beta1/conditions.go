package v1beta1

// Condition types. Available and Progressing are good or neutral when true; the others are bad when true.
const (
	// ConditionAvailable is true while a quorum of voters serves linearizable reads.
	ConditionAvailable = "Available"
	// ConditionProgressing is true while the operator carries the cluster towards its spec; false with a reason when there is nothing to do or something stands in the way.
	ConditionProgressing = "Progressing"
	// ConditionDegraded is true while the cluster is less than its spec asks for.
	ConditionDegraded = "Degraded"
	// ConditionQuorumLost is true while a cluster that once served has fewer answering voters than its quorum.
	ConditionQuorumLost = "QuorumLost"
	// ConditionStorageAlarm is true while etcd has an alarm about its storage.
	ConditionStorageAlarm = "StorageAlarm"
	// ConditionRestartPending is true while members run with older options than their template has; a later restart brings them up to date.
	ConditionRestartPending = "RestartPending"
)

// Reasons of Available and QuorumLost.
const (
	// ReasonQuorumServing: enough voters answer linearizable reads.
	ReasonQuorumServing = "QuorumServing"
	// ReasonQuorumAtRisk: the quorum serves, and one more failure would end that.
	ReasonQuorumAtRisk = "QuorumAtRisk"
	// ReasonNoReadyEndpoint: enough voters answer, and Kubernetes counts none of their pods as ready, so no client finds them.
	ReasonNoReadyEndpoint = "NoReadyEndpoint"
	// ReasonNoQuorum: fewer voters than the quorum answer.
	ReasonNoQuorum = "NoQuorum"
	// ReasonNotStarted: the cluster has never served.
	ReasonNotStarted = "NotStarted"
	// ReasonUnobservable: the operator cannot ask the members.
	ReasonUnobservable = "Unobservable"
	// ReasonClusterIDConflict: members report more than one cluster ID, or not the one that was recorded.
	ReasonClusterIDConflict = "ClusterIDConflict"
)

// Reasons of Progressing.
const (
	// ReasonUpToDate: the cluster is as its spec says.
	ReasonUpToDate = "UpToDate"
	// ReasonBootstrapping: the founding members are being started.
	ReasonBootstrapping = "Bootstrapping"
	// ReasonTakingBack: members of kept volumes are being started.
	ReasonTakingBack = "TakingBack"
	// ReasonResuming: members are given their StatefulSets back.
	ReasonResuming = "Resuming"
	// ReasonRotatingAuthorities: members take up a change of the trusted certificate authorities, one by one.
	ReasonRotatingAuthorities = "RotatingAuthorities"
	// ReasonMembersNotHealthy: a member is not to be restarted before every other is a healthy voter.
	ReasonMembersNotHealthy = "MembersNotHealthy"
	// ReasonDeleting: the cluster is being deleted; its volumes are kept.
	ReasonDeleting = "Deleting"
	// ReasonPaused: spec.paused is true.
	ReasonPaused = "Paused"
	// ReasonNotYetSupported: the spec differs from what runs, and this release does not carry out such a change.
	ReasonNotYetSupported = "NotYetSupported"
	// ReasonUnsupportedOption: spec.config.extraArgs has an option that the version's allow list does not have.
	ReasonUnsupportedOption = "UnsupportedOption"
	// ReasonSecretNotFound: a Secret that the spec names does not exist.
	ReasonSecretNotFound = "SecretNotFound"
	// ReasonCertificateInvalid: a Secret's certificate cannot be used for this cluster.
	ReasonCertificateInvalid = "CertificateInvalid"
	// ReasonCertificateNotReady: cert-manager is not installed, or has not issued a certificate yet.
	ReasonCertificateNotReady = "CertificateNotReady"
	// ReasonStorageClassNotFound: the StorageClass that the spec names does not exist, or there is no default one.
	ReasonStorageClassNotFound = "StorageClassNotFound"
	// ReasonForeignObject: an object of a name that this cluster needs belongs to somebody else.
	ReasonForeignObject = "ForeignObject"
	// ReasonWaitingForDeletion: objects of a deleted cluster of the same name are still going away.
	ReasonWaitingForDeletion = "WaitingForDeletion"
	// ReasonAmbiguousVolumes: kept volumes belong to more than one cluster.
	ReasonAmbiguousVolumes = "AmbiguousVolumes"
	// ReasonVolumesBelowQuorum: fewer volumes than the quorum were kept.
	ReasonVolumesBelowQuorum = "VolumesBelowQuorum"
	// ReasonVersionMismatch: the kept volumes were written by another minor version.
	ReasonVersionMismatch = "VersionMismatch"
	// ReasonPeerURLMismatch: the kept volumes know their peers by other URLs.
	ReasonPeerURLMismatch = "PeerURLMismatch"
	// ReasonUnknownOperation: the status holds a claim that this release does not know.
	ReasonUnknownOperation = "UnknownOperation"
	// ReasonWriteRefused: the API server refused an object that the operator made.
	ReasonWriteRefused = "WriteRefused"
)

// Reasons of Degraded, and of members that are not ready.
const (
	// ReasonAsExpected: nothing is wrong.
	ReasonAsExpected = "AsExpected"
	// ReasonMembersNotReady: some members do not answer; the message says which and why.
	ReasonMembersNotReady = "MembersNotReady"
	// ReasonPodMissing: the member has no pod.
	ReasonPodMissing = "PodMissing"
	// ReasonUnschedulable: the scheduler finds no node for the pod.
	ReasonUnschedulable = "Unschedulable"
	// ReasonImagePullFailed: the image cannot be pulled.
	ReasonImagePullFailed = "ImagePullFailed"
	// ReasonContainerFailed: the container cannot be started.
	ReasonContainerFailed = "ContainerFailed"
	// ReasonCrashLooping: etcd ends again and again.
	ReasonCrashLooping = "CrashLooping"
	// ReasonVolumeLost: the member's volume is gone; it is never made anew under the same name.
	ReasonVolumeLost = "VolumeLost"
	// ReasonNodeLost: the pod's node does not answer.
	ReasonNodeLost = "NodeLost"
	// ReasonStarting: the pod starts.
	ReasonStarting = "Starting"
	// ReasonNotAnswering: etcd does not answer the operator.
	ReasonNotAnswering = "NotAnswering"
	// ReasonNoLeader: etcd answers and has no leader.
	ReasonNoLeader = "NoLeader"
)

// Reasons of StorageAlarm and RestartPending.
const (
	// ReasonNoAlarm: etcd has no alarm.
	ReasonNoAlarm = "NoAlarm"
	// ReasonNoSpace: a member's database reached its quota; etcd refuses writes.
	ReasonNoSpace = "NoSpace"
	// ReasonCorrupt: a member's data differs from the others'.
	ReasonCorrupt = "Corrupt"
	// ReasonTemplateNewer: the members' templates are newer than their pods.
	ReasonTemplateNewer = "TemplateNewer"
)

// Reasons of events, in the past tense.
const (
	// EventBootstrapStarted: the founding members were created.
	EventBootstrapStarted = "BootstrapStarted"
	// EventVolumesTakenBack: kept volumes were taken back.
	EventVolumesTakenBack = "VolumesTakenBack"
	// EventMembersResumed: members were given their StatefulSets back.
	EventMembersResumed = "MembersResumed"
	// EventMemberRolled: a member's pod was deleted to start it anew.
	EventMemberRolled = "MemberRolled"
	// EventOperationFinished: the step in flight is done.
	EventOperationFinished = "OperationFinished"
)
