#!/usr/bin/env bash
# Makes an authority and the three Secrets that cluster.yaml names, in the namespace given (default: default).
#   make-secrets.sh [NAMESPACE]
# Needs kubectl and openssl 1.1.1 or later. For production, have your own authority issue the same certificates.
set -euo pipefail
namespace=${1:-default} cluster=secure
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"

openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 3650 -subj "/CN=$cluster etcd CA" -keyout ca.key -out ca.crt 2>/dev/null

issue() { # FILE COMMON_NAME USAGE [DNS_NAME...]
  local file=$1 subject=$2 usage=$3 names=''
  shift 3
  for name in "$@"; do names+="${names:+,}DNS:$name"; done
  openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=$subject" -keyout "$file.key" -out "$file.csr" 2>/dev/null
  { echo "extendedKeyUsage=$usage"; [ -z "$names" ] || echo "subjectAltName=$names"; } > "$file.ext"
  openssl x509 -req -in "$file.csr" -CA ca.crt -CAkey ca.key -CAcreateserial -days 365 -extfile "$file.ext" -out "$file.crt" 2>/dev/null
}

secret() { # NAME FILE
  kubectl -n "$namespace" create secret generic "$1" --dry-run=client -o yaml \
    --from-file="$2.crt=$2.crt" --from-file="$2.key=$2.key" --from-file="$2-ca.crt=ca.crt" | kubectl apply -f -
}

pods="*.$cluster.$namespace.svc"
issue peer "$cluster-peer" serverAuth,clientAuth "$pods" "$pods.cluster.local"
issue server "$cluster-server" serverAuth,clientAuth "$pods" "$pods.cluster.local" "$cluster-client.$namespace.svc" "$cluster-client.$namespace.svc.cluster.local" localhost
issue etcd-client root clientAuth
secret "$cluster-peer" peer
secret "$cluster-server" server
secret "$cluster-operator" etcd-client
