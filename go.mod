module github.com/etcd-steward/etcd-steward

go 1.26.3
