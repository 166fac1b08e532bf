#!/usr/bin/env bash
# Makes an authority and the three Secrets that secrets.yaml names, in the namespace given (default: default).
#   make-secrets.sh [NAMESPACE [FORMAT]]
# FORMAT says how the Secrets' keys are called: TLS, as kubernetes.io/tls and cert-manager do (tls.crt, tls.key, ca.crt; the default),
# or EtcdOperator, as the original etcd operator and v1alpha1 do (peer.crt, peer.key, peer-ca.crt, ...).
# Needs kubectl and openssl 1.1.1 or later. For production, have your own authority issue the same certificates.
set -euo pipefail
namespace=${1:-default} format=${2:-TLS} cluster=secure
case $format in TLS | EtcdOperator) ;; *) echo "make-secrets: the format is TLS or EtcdOperator, not $format" >&2; exit 2 ;; esac
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
  local pair=$2 authority=$2-ca.crt
  [ "$format" = EtcdOperator ] || pair=tls authority=ca.crt
  kubectl -n "$namespace" create secret generic "$1" --dry-run=client -o yaml \
    --from-file="$pair.crt=$2.crt" --from-file="$pair.key=$2.key" --from-file="$authority=ca.crt" | kubectl apply -f -
}

pods="*.$cluster.$namespace.svc"
issue peer "$cluster-peer" serverAuth,clientAuth "$pods" "$pods.cluster.local"
issue server "$cluster-server" serverAuth,clientAuth "$pods" "$pods.cluster.local" "$cluster-client.$namespace.svc" "$cluster-client.$namespace.svc.cluster.local" localhost
issue etcd-client root clientAuth
secret "$cluster-peer" peer
secret "$cluster-server" server
secret "$cluster-operator" etcd-client
