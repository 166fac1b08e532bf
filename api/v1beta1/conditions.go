package v1beta1

// Condition types. Available and Progressing are good or neutral when true; the others are bad when true.
const (
	// ConditionAvailable is true while a quorum of voters serves linearizable reads.
	// What to do: while it is false, look at QuorumLost and Degraded, which name the members and what stands in their way.
	ConditionAvailable = "Available"
	// ConditionProgressing is true while the operator carries the cluster towards its spec; false with a reason when there is nothing to do or something stands in the way.
	// What to do: true needs nothing; false with another reason than UpToDate names what to change.
	ConditionProgressing = "Progressing"
	// ConditionDegraded is true while the cluster is less than its spec asks for.
	// What to do: the message names the members or the object that is in the way, and the way out.
	ConditionDegraded = "Degraded"
	// ConditionQuorumLost is true while a cluster that once served has fewer answering voters than its quorum.
	// What to do: bring members back (nodes, volumes, images, certificates); with the quorum back etcd serves again with its data. Never delete volumes.
	ConditionQuorumLost = "QuorumLost"
	// ConditionStorageAlarm is true while etcd has an alarm about its storage.
	// What to do: see the reasons; etcd refuses writes while NoSpace stands.
	ConditionStorageAlarm = "StorageAlarm"
	// ConditionRestartPending is true while members run with older options than their template has; a later restart brings them up to date.
	// What to do: nothing; the next restart of the pod takes the newer template up.
	ConditionRestartPending = "RestartPending"
)

// Reasons of Available and QuorumLost.
const (
	// ReasonQuorumServing: enough voters answer linearizable reads.
	// What to do: nothing.
	ReasonQuorumServing = "QuorumServing"
	// ReasonQuorumAtRisk: the quorum serves, and one more failure would end that.
	// What to do: bring the silent members back soon; Degraded tells which and why. Do not drain or restart others.
	ReasonQuorumAtRisk = "QuorumAtRisk"
	// ReasonNoReadyEndpoint: enough voters answer, and Kubernetes counts none of their pods as ready, so no client finds them.
	// What to do: nothing at first: readiness follows within seconds. If it stays, see kubectl describe pod.
	ReasonNoReadyEndpoint = "NoReadyEndpoint"
	// ReasonNoQuorum: fewer voters than the quorum answer.
	// What to do: bring the members back that the message names, with their volumes. Where all volumes are gone, bring them back, or delete the cluster and create it again to start empty.
	ReasonNoQuorum = "NoQuorum"
	// ReasonNotStarted: the cluster has never served.
	// What to do: nothing while Progressing is true; else Progressing or Degraded tells what stands in the way.
	ReasonNotStarted = "NotStarted"
	// ReasonUnobservable: the operator cannot ask the members.
	// What to do: mend the Secret that the message names; the members run on meanwhile.
	ReasonUnobservable = "Unobservable"
	// ReasonClusterIDConflict: members report more than one cluster ID, or not the one that was recorded.
	// What to do: find the volume that does not belong here by the annotation operator.etcd-warden.io/cluster-id of the PersistentVolumeClaims, and move it away.
	ReasonClusterIDConflict = "ClusterIDConflict"
)

// Reasons of Progressing.
const (
	// ReasonUpToDate: the cluster is as its spec says.
	// What to do: nothing.
	ReasonUpToDate = "UpToDate"
	// ReasonBootstrapping: the founding members are being started.
	// What to do: nothing; if it lasts for minutes, Degraded tells which member does not start and why.
	ReasonBootstrapping = "Bootstrapping"
	// ReasonTakingBack: members of kept volumes are being started.
	// What to do: nothing; if it lasts for minutes, Degraded tells which member does not start and why.
	ReasonTakingBack = "TakingBack"
	// ReasonResuming: members are given their StatefulSets back.
	// What to do: nothing.
	ReasonResuming = "Resuming"
	// ReasonRotatingAuthorities: members take up a change of the trusted certificate authorities, one by one.
	// What to do: nothing; each member is restarted once, while the others keep the quorum.
	ReasonRotatingAuthorities = "RotatingAuthorities"
	// ReasonMembersNotHealthy: a member is not to be restarted before every other is a healthy voter.
	// What to do: bring the member back that the message names; the step goes on by itself.
	ReasonMembersNotHealthy = "MembersNotHealthy"
	// ReasonDeleting: the cluster is being deleted; its volumes are kept, unless spec.storage.retentionPolicy.whenDeleted is Delete.
	// What to do: nothing; where volumes are kept, delete the PersistentVolumeClaims as well to be rid of the data.
	ReasonDeleting = "Deleting"
	// ReasonPaused: spec.paused is true.
	// What to do: set spec.paused to false to have the operator act again.
	ReasonPaused = "Paused"
	// ReasonNotYetSupported: the spec differs from what runs, and this release does not carry out such a change.
	// What to do: set the field that the message names back to what runs, or wait for release 0.3.0.
	ReasonNotYetSupported = "NotYetSupported"
	// ReasonUnsupportedOption: spec.config.extraArgs has an option that the version's allow list does not have, or a value that etcd cannot start with.
	// What to do: remove the option that the message names, correct its value, or choose a version of etcd that has it.
	ReasonUnsupportedOption = "UnsupportedOption"
	// ReasonQuotaTooLarge: the database may grow until the volume is full, and etcd would end instead of refusing writes.
	// What to do: lower the quota to what the message says, or ask for a larger volume.
	ReasonQuotaTooLarge = "QuotaTooLarge"
	// ReasonImageInvalid: spec.image.repository, with the version as its tag, names no image.
	// What to do: write a repository without a tag or digest, such as gcr.io/etcd-development/etcd.
	ReasonImageInvalid = "ImageInvalid"
	// ReasonSecretNotFound: a Secret that the spec names does not exist, or cannot exist under that name.
	// What to do: create the Secret with the keys that the message names, in the cluster's namespace.
	ReasonSecretNotFound = "SecretNotFound"
	// ReasonCertificateInvalid: a Secret's certificate cannot be used for this cluster.
	// What to do: replace the certificate; the message tells what does not fit. It is taken up without a restart.
	ReasonCertificateInvalid = "CertificateInvalid"
	// ReasonCertificateNotReady: cert-manager is not installed, or has not issued a certificate yet.
	// What to do: install cert-manager, or mend the issuer; kubectl describe certificate tells what it waits for.
	ReasonCertificateNotReady = "CertificateNotReady"
	// ReasonStorageClassNotFound: the StorageClass that the spec names does not exist, or there is no default one.
	// What to do: name an existing class in the cluster's storage, or make one the default class.
	ReasonStorageClassNotFound = "StorageClassNotFound"
	// ReasonForeignObject: an object of a name that this cluster needs belongs to somebody else.
	// What to do: rename or delete the object that the message names, or create this cluster under another name; to one that came back from a backup give its owner again (docs/tls.md).
	ReasonForeignObject = "ForeignObject"
	// ReasonWaitingForDeletion: objects of a deleted cluster of the same name are still going away.
	// What to do: nothing; if it lasts, look for finalizers on the object that the message names.
	ReasonWaitingForDeletion = "WaitingForDeletion"
	// ReasonAmbiguousVolumes: kept volumes belong to more than one cluster.
	// What to do: mark the volumes that are not wanted as the message says, or start empty with spec.bootstrap.existingVolumes: Ignore.
	ReasonAmbiguousVolumes = "AmbiguousVolumes"
	// ReasonVolumesBelowQuorum: fewer volumes than the quorum were kept.
	// What to do: bring the missing volumes back, or start empty beside them with spec.bootstrap.existingVolumes: Ignore.
	ReasonVolumesBelowQuorum = "VolumesBelowQuorum"
	// ReasonVersionMismatch: the kept volumes were written by another minor version.
	// What to do: set spec.version to a version of the minor that the message names.
	ReasonVersionMismatch = "VersionMismatch"
	// ReasonPeerURLMismatch: the kept volumes know their peers by other URLs.
	// What to do: set the TLS of peers and the cluster domain as they were when the volumes were written.
	ReasonPeerURLMismatch = "PeerURLMismatch"
	// ReasonUnknownOperation: the status holds a claim that this release does not know.
	// What to do: install the release of the operator that began the operation again; it finishes it.
	ReasonUnknownOperation = "UnknownOperation"
	// ReasonReadRefused: the API server does not let the operator read an object that this cluster needs.
	// What to do: the message has the API server's answer; grant the right that it names.
	ReasonReadRefused = "ReadRefused"
	// ReasonWriteRefused: the API server refused what the operator wrote.
	// What to do: the message has the API server's answer: a quota, an admission policy or a missing right, most often.
	ReasonWriteRefused = "WriteRefused"
)

// Reasons of Degraded, and of members that are not ready.
const (
	// ReasonAsExpected: nothing is wrong.
	// What to do: nothing.
	ReasonAsExpected = "AsExpected"
	// ReasonMembersNotReady: some members do not answer; the message says which and why.
	// What to do: look up the reason of each member that the message names.
	ReasonMembersNotReady = "MembersNotReady"
	// ReasonPodMissing: the member has no pod.
	// What to do: nothing at first: the StatefulSet makes the pod. If it stays, kubectl describe statefulset tells why.
	ReasonPodMissing = "PodMissing"
	// ReasonUnschedulable: the scheduler finds no node for the pod.
	// What to do: make room, or loosen the affinity, the node selector or the requests; kubectl describe pod tells what is missing.
	ReasonUnschedulable = "Unschedulable"
	// ReasonImagePullFailed: the image cannot be pulled.
	// What to do: correct the image repository or the version, give the nodes access to the registry, or name a pull Secret.
	ReasonImagePullFailed = "ImagePullFailed"
	// ReasonContainerFailed: the container cannot be started.
	// What to do: kubectl describe pod tells why the kubelet cannot start it.
	ReasonContainerFailed = "ContainerFailed"
	// ReasonCrashLooping: etcd ends again and again.
	// What to do: the message has etcd's exit code and last words; kubectl logs --previous has the rest.
	ReasonCrashLooping = "CrashLooping"
	// ReasonVolumeLost: the member's volume is gone; it is never made anew under the same name.
	// What to do: bring the volume back. While a quorum is left the cluster serves on; replacing the member comes with release 0.3.0.
	ReasonVolumeLost = "VolumeLost"
	// ReasonNodeLost: the pod's node does not answer.
	// What to do: bring the node back, or delete its Node object so that Kubernetes moves the pod.
	ReasonNodeLost = "NodeLost"
	// ReasonStarting: the pod starts.
	// What to do: nothing.
	ReasonStarting = "Starting"
	// ReasonNotAnswering: etcd does not answer the operator.
	// What to do: kubectl logs of the pod; a network policy must let the operator reach the port 2379 of the members.
	ReasonNotAnswering = "NotAnswering"
	// ReasonNoLeader: etcd answers and has no leader.
	// What to do: nothing at first: an election takes seconds. If it stays, too few members reach each other; see the other members' reasons.
	ReasonNoLeader = "NoLeader"
)

// Reasons of StorageAlarm and RestartPending.
const (
	// ReasonNoAlarm: etcd has no alarm.
	// What to do: nothing.
	ReasonNoAlarm = "NoAlarm"
	// ReasonNoSpace: a member's database reached its quota; etcd refuses writes.
	// What to do: delete keys, compact and defragment, then run etcdctl alarm disarm.
	ReasonNoSpace = "NoSpace"
	// ReasonCorrupt: a member's data differs from the others'.
	// What to do: take a snapshot from another member and do not restart this one; replacing it comes with release 0.3.0.
	ReasonCorrupt = "Corrupt"
	// ReasonTemplateNewer: the members' templates are newer than their pods.
	// What to do: nothing.
	ReasonTemplateNewer = "TemplateNewer"
)

// Reasons of events, in the past tense.
const (
	// EventBootstrapStarted: the founding members were created.
	// What to do: nothing.
	EventBootstrapStarted = "BootstrapStarted"
	// EventVolumesTakenBack: kept volumes were taken back.
	// What to do: nothing.
	EventVolumesTakenBack = "VolumesTakenBack"
	// EventMembersResumed: members were given their StatefulSets back.
	// What to do: find out who deleted the StatefulSets.
	EventMembersResumed = "MembersResumed"
	// EventMemberRolled: a member's pod was deleted to start it anew.
	// What to do: nothing.
	EventMemberRolled = "MemberRolled"
	// EventOperationFinished: the step in flight is done.
	// What to do: nothing.
	EventOperationFinished = "OperationFinished"
	// EventConversionFailed: the API server could not convert the object, which is stored in an older version, for the operator; etcd runs on.
	// What to do: see that the pods of the Service etcd-warden-webhook-service are ready and that the API server reaches their port 9443.
	EventConversionFailed = "ConversionFailed"
	// EventConversionRepaired: the conversion of the CustomResourceDefinition was overwritten, and the operator put it right.
	// What to do: nothing.
	EventConversionRepaired = "ConversionRepaired"
	// EventConversionNotRepaired: the conversion of the CustomResourceDefinition is wrong, and the operator cannot put it right.
	// What to do: as the message says; writes in v1alpha1 are refused until then, and running clusters serve on.
	EventConversionNotRepaired = "ConversionNotRepaired"
)

// Reasons of the condition Upgradeable of the operator's OperatorCondition, which OLM reads before it replaces the operator.
const (
	// ReasonStepInFlight: a member was taken down on purpose, or the membership changes.
	// What to do: nothing; OLM waits until the step is done, at most 10 minutes for one step and 30 minutes for steps that follow one another. To upgrade at once, override the condition in the OperatorCondition's spec.overrides.
	ReasonStepInFlight = "StepInFlight"
	// ReasonNoStepInFlight: the operator may be replaced.
	// What to do: nothing.
	ReasonNoStepInFlight = "NoStepInFlight"
	// ReasonHeldLongEnough: steps followed one another for 30 minutes, and the operator may be replaced in the middle of one.
	// What to do: nothing; the new operator finishes the step.
	ReasonHeldLongEnough = "HeldLongEnough"
)
