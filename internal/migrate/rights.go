package migrate

import rbacv1 "k8s.io/api/rbac/v1"

// Rights are what a migration needs beside the operator's role. The manifests grant them from release 0.3.0 on, when --migrate-storage is on.
var Rights = []rbacv1.PolicyRule{
	{APIGroups: []string{"operator.etcd-warden.io"}, Resources: []string{"etcdclusters"}, Verbs: []string{"patch"}},
	{
		APIGroups: []string{"apiextensions.k8s.io"}, Resources: []string{"customresourcedefinitions/status"},
		ResourceNames: []string{"etcdclusters.operator.etcd-warden.io"}, Verbs: []string{"update"},
	},
}
