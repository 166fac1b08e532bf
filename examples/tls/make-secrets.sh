#!/usr/bin/env bash
# Makes the three Secrets that secrets.yaml names, and two authorities for them: one for peers, one for clients.
#   make-secrets.sh [NAMESPACE [FORMAT]]
# NAMESPACE is "default" unless you give one. FORMAT says which keys the Secrets have:
#   TLS           tls.crt, tls.key, ca.crt, as kubernetes.io/tls and cert-manager have them (the default)
#   EtcdOperator  peer.crt, peer.key, peer-ca.crt and so on, as the original etcd operator and v1alpha1 have them
# It replaces no Secret. Needs kubectl and openssl 1.1.1 or later. For production, let your own authorities issue the
# same certificates.
set -euo pipefail
namespace=${1:-default} format=${2:-TLS} cluster=secure
case $format in TLS | EtcdOperator) ;; *) echo "make-secrets: the format is TLS or EtcdOperator, not $format" >&2; exit 2 ;; esac
existing=$(kubectl -n "$namespace" get secret "$cluster-peer" "$cluster-server" "$cluster-operator" --ignore-not-found -o name)
if [ -n "$existing" ]; then
  echo "make-secrets: namespace $namespace has ${existing//$'\n'/, } already." \
    "Members that run would not trust new authorities: docs/tls.md says how to replace one." \
    "If no cluster uses these Secrets, delete them first." >&2
  exit 1
fi
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"

authority() { # NAME
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 3650 -subj "/CN=$cluster etcd $1 CA" \
    -keyout "$1-ca.key" -out "$1-ca.crt" 2>/dev/null
}

issue() { # FILE AUTHORITY COMMON_NAME USAGE [DNS_NAME...]
  local file=$1 authority=$2-ca subject=$3 usage=$4 names=''
  shift 4
  for name in "$@"; do names+="${names:+,}DNS:$name"; done
  openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=$subject" -keyout "$file.key" -out "$file.csr" 2>/dev/null
  { echo "extendedKeyUsage=$usage"; [ -z "$names" ] || echo "subjectAltName=$names"; } > "$file.ext"
  openssl x509 -req -in "$file.csr" -CA "$authority.crt" -CAkey "$authority.key" -CAcreateserial -days 365 \
    -extfile "$file.ext" -out "$file.crt" 2>/dev/null
}

secret() { # NAME FILE AUTHORITY
  local pair=$2 authority=$2-ca.crt
  [ "$format" = EtcdOperator ] || pair=tls authority=ca.crt
  kubectl -n "$namespace" create secret generic "$1" \
    --from-file="$pair.crt=$2.crt" --from-file="$pair.key=$2.key" --from-file="$authority=$3-ca.crt"
}

pods="*.$cluster.$namespace.svc"
authority peer
authority client
issue peer peer "$cluster-peer" serverAuth,clientAuth "$pods" "$pods.cluster.local"
issue server client "$cluster-server" serverAuth,clientAuth "$pods" "$pods.cluster.local" \
  "$cluster-client.$namespace.svc" "$cluster-client.$namespace.svc.cluster.local" localhost
issue etcd-client client root clientAuth
secret "$cluster-peer" peer peer
secret "$cluster-server" server client
secret "$cluster-operator" etcd-client client
