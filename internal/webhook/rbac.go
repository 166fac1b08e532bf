package webhook

// The rights of the webhook. Those on Secrets are granted in its own namespace only.
// +kubebuilder:rbac:groups=apiextensions.k8s.io,resources=customresourcedefinitions,resourceNames=etcdclusters.operator.etcd-warden.io,verbs=get;list;watch;patch
// +kubebuilder:rbac:groups=events.k8s.io,resources=events,verbs=create;patch
// +kubebuilder:rbac:groups="",namespace=system,resources=secrets,verbs=create
// +kubebuilder:rbac:groups="",namespace=system,resources=secrets,resourceNames=etcd-warden-webhook-certificate;etcd-warden-webhook-service-cert,verbs=get
// +kubebuilder:rbac:groups="",namespace=system,resources=secrets,resourceNames=etcd-warden-webhook-certificate,verbs=update
