package webhook

// The rights of the webhook, beside those of the operator. Those on the Secret hold in the operator's own namespace.
// +kubebuilder:rbac:groups=apiextensions.k8s.io,resources=customresourcedefinitions,resourceNames=etcdclusters.operator.etcd-warden.io,verbs=get;list;watch;patch
// +kubebuilder:rbac:groups=events.k8s.io,resources=events,verbs=create;patch
// +kubebuilder:rbac:groups="",namespace=system,resources=secrets,verbs=create
// +kubebuilder:rbac:groups="",namespace=system,resources=secrets,resourceNames=etcd-warden-webhook-certificate;etcd-warden-controller-manager-service-cert,verbs=get
// +kubebuilder:rbac:groups="",namespace=system,resources=secrets,resourceNames=etcd-warden-webhook-certificate,verbs=update
