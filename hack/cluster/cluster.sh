#!/usr/bin/env bash
# A real Kubernetes of several nodes on one Linux machine, without Docker: control plane, kubelets
# and CoreDNS built from pinned Go modules, containers run by Debian's containerd and runc.
#
#   cluster.sh build          build what is missing (minutes, once)
#   cluster.sh up [NODES]     start it (default 3 nodes); at once if it runs and is healthy
#   cluster.sh load TAR...    import image archives on every node that lacks them
#   cluster.sh registry       print the address of its registry, and the file of the registry's CA
#   cluster.sh node-stop N    cut the power of node N: all its processes are killed at once
#   cluster.sh node-start N   start it again, with the data of its pods
#   cluster.sh status         print which checkout holds the cluster, its nodes and its KUBECONFIG
#   cluster.sh env            print shell lines that point kubectl at it
#   cluster.sh down           stop everything it started, remove everything it made
#
# One machine has one such cluster. It belongs to the checkout that started it; in another checkout the script says so
# and stops. With USE_EXISTING_CLUSTER=true the script uses the cluster of KUBECONFIG instead, and neither starts nor
# stops it. That may be this cluster, held by another checkout.
#
# Nodes pull every image that was not loaded from the cluster's registry, whatever registry the image names.
# `images … --push` puts images there. Nothing comes from outside this machine.
#
# All processes are in the cgroup /etcd-warden, so that `down` finds them all. Each node has another mount namespace, so
# that its mounts and its files in /run and /var/lib go with it.
# Needs Linux (cgroup v1 or v2), root, Go, and the packages of need_packages, which it installs where there is apt.
set -euo pipefail
SELF=$(readlink -f "${BASH_SOURCE[0]}"); HACK=$(dirname "$(dirname "$SELF")"); CHECKOUT=$(dirname "$HACK")
STATE=/var/tmp/etcd-warden-cluster
PKI=$STATE/pki LOG=$STATE/logs VOLUMES=$STATE/volumes
POD_NET=198.18 SERVICES=10.96.0.0/16 API_IP=10.96.0.1 DNS_IP=10.96.0.10 BRIDGE=warden0 GROUP=etcd-warden
REGISTRY=$POD_NET.0.1:5000
PATH=$PATH:/usr/sbin:/sbin # where su leaves them out
. "$HACK/cluster/host.sh"

say() { echo "cluster: $*" >&2; }
die() { say "$*"; exit 1; }
wait_for() { # SECONDS WHAT CMD... — until it succeeds
  local end=$((SECONDS + $1)) what=$2; shift 2
  until "$@" >/dev/null 2>&1; do [ $SECONDS -lt $end ] || die "$what: not within the time allowed; see $LOG"; sleep 0.1; done
}
tool() { "$HACK/build-tools.sh" dir "$1"; }
# existing tells whether a cluster is to be used as it is; external, that it is not one of this script's.
existing() { [ "${USE_EXISTING_CLUSTER:-}" = true ]; }
external() { existing && [ "$USER_KUBECONFIG" != "$STATE/admin.kubeconfig" ]; }

# --- what must be there first -------------------------------------------------------------------

need_packages() {
  local pair missing=''
  for pair in containerd:containerd runc:runc iptables:iptables conntrack:conntrack mkfs.xfs:xfsprogs openssl:openssl ip:iproute2 nsenter:util-linux; do
    command -v "${pair%%:*}" >/dev/null || missing+=" ${pair#*:}"
  done
  [ -n "$(cni_dir)" ] || missing+=" containernetworking-plugins"
  [ -n "$missing" ] || return 0
  { [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; } || die "missing packages:$missing (install them and try again)"
  say "installing$missing"
  { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing; } >&2
}
cni_dir() { local d; for d in /usr/lib/cni /opt/cni/bin; do if [ -x $d/bridge ]; then echo $d; return; fi; done; }

build() { "$HACK/build-tools.sh" kubernetes coredns etcd-3.6 cluster images; }

# --- certificates -------------------------------------------------------------------------------

cert() { # NAME SUBJECT [SAN]
  openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout "$PKI/$1.key" -out "$PKI/$1.csr" -subj "$2" 2>/dev/null
  openssl x509 -req -in "$PKI/$1.csr" -CA "$PKI/ca.crt" -CAkey "$PKI/ca.key" -set_serial "0x$(openssl rand -hex 8)" -days 365 -out "$PKI/$1.crt" \
    -extfile <(printf 'subjectAltName=%s\nextendedKeyUsage=serverAuth,clientAuth' "${3:-DNS:$1}") 2>/dev/null
}
kubeconfig() { # NAME
  cat > "$STATE/$1.kubeconfig" <<K
apiVersion: v1
kind: Config
clusters: [{name: warden, cluster: {server: "https://127.0.0.1:6443", certificate-authority: "$PKI/ca.crt"}}]
users: [{name: $1, user: {client-certificate: "$PKI/$1.crt", client-key: "$PKI/$1.key"}}]
contexts: [{name: warden, context: {cluster: warden, user: $1}}]
current-context: warden
K
}
certificates() {
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 365 -keyout "$PKI/ca.key" -out "$PKI/ca.crt" -subj /CN=etcd-warden-cluster 2>/dev/null
  cert apiserver /CN=kube-apiserver "DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,DNS:localhost,IP:127.0.0.1,IP:$API_IP,IP:$POD_NET.0.1"
  cert registry /CN=registry "IP:${REGISTRY%:*}"
  cert admin /O=system:masters/CN=admin; cert kcm /CN=system:kube-controller-manager
  cert scheduler /CN=system:kube-scheduler; cert proxy /CN=system:kube-proxy; cert front /CN=front-proxy-client
  openssl ecparam -name prime256v1 -genkey -noout | openssl pkcs8 -topk8 -nocrypt -out "$PKI/sa.key"
  openssl ec -in "$PKI/sa.key" -pubout -out "$PKI/sa.pub" 2>/dev/null
  local n; for n in admin kcm scheduler proxy; do kubeconfig $n; done
}

# --- control plane ------------------------------------------------------------------------------

control_plane() {
  local bin etcd; bin=$(tool kubernetes); etcd=$(tool etcd-3.6)
  start etcd control "$etcd/etcd" --data-dir "$STATE/etcd" --listen-client-urls http://127.0.0.1:23790 --advertise-client-urls http://127.0.0.1:23790 \
    --listen-peer-urls http://127.0.0.1:23800 --initial-advertise-peer-urls http://127.0.0.1:23800 --initial-cluster default=http://127.0.0.1:23800 --unsafe-no-fsync
  # With the default, garbage collection takes a seventh of its time where the CRD is written again and again.
  start apiserver control env GOGC=400 "$bin/kube-apiserver" --etcd-servers=http://127.0.0.1:23790 --bind-address=0.0.0.0 --advertise-address=$POD_NET.0.1 --secure-port=6443 \
    --service-cluster-ip-range=$SERVICES --client-ca-file="$PKI/ca.crt" --tls-cert-file="$PKI/apiserver.crt" --tls-private-key-file="$PKI/apiserver.key" \
    --service-account-issuer=https://kubernetes.default.svc --service-account-key-file="$PKI/sa.pub" --service-account-signing-key-file="$PKI/sa.key" \
    --authorization-mode=Node,RBAC --enable-admission-plugins=NodeRestriction --allow-privileged=true \
    --kubelet-client-certificate="$PKI/admin.crt" --kubelet-client-key="$PKI/admin.key" --kubelet-certificate-authority="$PKI/ca.crt" \
    --kubelet-preferred-address-types=InternalIP \
    --requestheader-client-ca-file="$PKI/ca.crt" --requestheader-allowed-names=front-proxy-client --requestheader-username-headers=X-Remote-User \
    --requestheader-group-headers=X-Remote-Group --requestheader-extra-headers-prefix=X-Remote-Extra- \
    --proxy-client-cert-file="$PKI/front.crt" --proxy-client-key-file="$PKI/front.key" --enable-aggregator-routing=true
  wait_for 120 "the API server" kube get --raw /readyz
  start kcm control "$bin/kube-controller-manager" --kubeconfig="$STATE/kcm.kubeconfig" --service-account-private-key-file="$PKI/sa.key" --root-ca-file="$PKI/ca.crt" \
    --use-service-account-credentials=true --leader-elect=false --cluster-signing-cert-file="$PKI/ca.crt" --cluster-signing-key-file="$PKI/ca.key" \
    --bind-address=127.0.0.1 --node-monitor-grace-period=20s --node-monitor-period=2s
  start scheduler control "$bin/kube-scheduler" --kubeconfig="$STATE/scheduler.kubeconfig" --leader-elect=false --bind-address=127.0.0.1
  cat > "$STATE/proxy.yaml" <<C
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
clientConnection: {kubeconfig: "$STATE/proxy.kubeconfig"}
mode: iptables
iptables: {localhostNodePorts: false, minSyncPeriod: 100ms}
hostnameOverride: node-1
clusterCIDR: $POD_NET.0.0/16
conntrack: {maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}
C
  start proxy control "$bin/kube-proxy" --config="$STATE/proxy.yaml"
  printf '.:53 {\n errors\n bind %s.0.1\n kubernetes cluster.local in-addr.arpa {\n  kubeconfig %s\n  ttl 1\n }\n}\n' $POD_NET "$STATE/admin.kubeconfig" > "$STATE/Corefile"
  start coredns control "$(tool coredns)/coredns" -conf "$STATE/Corefile"
  start_provisioner; start_registry
  sed "s/@DNS_IP@/$DNS_IP/; s/@HOST_IP@/$POD_NET.0.1/" "$HACK/cluster/objects.yaml" | kube apply -f - >/dev/null
}

start_provisioner() { start provisioner control "$(tool cluster)/provisioner" --kubeconfig="$STATE/admin.kubeconfig" --root="$VOLUMES"; }

start_registry() { start registry control "$(tool images)/images" serve --address "$REGISTRY" --cert "$PKI/registry.crt" --key "$PKI/registry.key" --dir "$STATE/registry"; }

# --- nodes --------------------------------------------------------------------------------------

# enter_node makes the private directories of node N in a fresh mount namespace, then runs CMD.
enter_node() { # N CMD...
  local d=$STATE/node-$1 dir; shift
  for dir in $PRIVATE_DIRS; do
    case $dir in
      /run/*) mount -t tmpfs tmpfs "$dir" ;;
      *) mkdir -p "$d$dir"; mount --bind "$d$dir" "$dir" ;;
    esac
  done
  exec "$@"
}

containerd_start() { # N
  local n=$1 d=$STATE/node-$1 ip=$POD_NET.0.$((10 + $1))
  mkdir -p "$d/cni" "$VOLUMES/node-$n"; ip addr replace "$ip/32" dev $BRIDGE
  rm -rf "$d/containerd-state" "$d/runc" # a node's /run is empty when it boots
  make_group "$GROUP/node-$n/system"
  cat > "$d/cni/10-warden.conflist" <<C
{"cniVersion":"0.4.0","name":"warden","plugins":[{"type":"bridge","bridge":"$BRIDGE","isGateway":true,"hairpinMode":true,"ipMasq":false,
 "ipam":{"type":"host-local","dataDir":"$d/ipam","ranges":[[{"subnet":"$POD_NET.0.0/16","rangeStart":"$POD_NET.$n.1","rangeEnd":"$POD_NET.$n.254","gateway":"$POD_NET.0.1"}]],"routes":[{"dst":"0.0.0.0/0"}]}},
 {"type":"portmap","capabilities":{"portMappings":true}}]}
C
  cat > "$d/containerd.toml" <<C
version = 2
root = "$d/containerd"
state = "$d/containerd-state"
disabled_plugins = ["io.containerd.internal.v1.opt"]
[grpc]
  address = "$d/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "registry.k8s.io/pause:3.10"
  restrict_oom_score_adj = true
  stream_server_address = "$ip"
  [plugins."io.containerd.grpc.v1.cri".registry]
    config_path = "$STATE/registries"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "$(cni_dir)"
    conf_dir = "$d/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      Root = "$d/runc"
C
  start "containerd-$n" "node-$n/system" unshare --mount --propagation slave "$SELF" _enter-node "$n" containerd -c "$d/containerd.toml"
  [ -f "$PKI/node-$n.crt" ] || cert "node-$n" "/O=system:nodes/CN=system:node:node-$n" "DNS:node-$n,IP:$ip"
  kubeconfig "node-$n"
  wait_for 30 "containerd of node-$n" ctr -a "$d/containerd.sock" version
}

kubelet_start() { # N
  local n=$1 d=$STATE/node-$1 ip=$POD_NET.0.$((10 + $1))
  cat > "$d/kubelet.yaml" <<C
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
address: $ip
healthzPort: 0
authentication: {anonymous: {enabled: false}, webhook: {enabled: true}, x509: {clientCAFile: "$PKI/ca.crt"}}
authorization: {mode: Webhook}
tlsCertFile: $PKI/node-$n.crt
tlsPrivateKeyFile: $PKI/node-$n.key
cgroupDriver: cgroupfs
cgroupRoot: /$GROUP/node-$n
failCgroupV1: false
failSwapOn: false
makeIPTablesUtilChains: false
containerRuntimeEndpoint: unix://$d/containerd.sock
clusterDNS: [$DNS_IP]
clusterDomain: cluster.local
enforceNodeAllocatable: []
evictionHard: {memory.available: 100Mi, nodefs.available: 1%, imagefs.available: 1%}
imageGCHighThresholdPercent: 100
maxPods: 200
nodeStatusUpdateFrequency: 4s
nodeLeaseDurationSeconds: 20
configMapAndSecretChangeDetectionStrategy: Watch
syncFrequency: 10s
serializeImagePulls: false
C
  start "kubelet-$n" "node-$n/system" nsenter --target "$(cat "$STATE/containerd-$n.pid")" --mount \
    "$(tool kubernetes)/kubelet" --kubeconfig="$STATE/node-$n.kubeconfig" --config="$d/kubelet.yaml" --hostname-override="node-$n" \
    --node-ip="$ip" --node-labels="topology.kubernetes.io/zone=zone-$n"
}

ready() { [ "$(kube get node "node-$1" -o jsonpath='{.status.conditions[?(@.type=="Ready")].status}')" = True ]; } # N
nodes() { local d; for d in "$STATE"/node-*/; do [ ! -d "$d" ] || basename "$d" | cut -d- -f2; done; }

node_start() { # N
  if running "kubelet-$1" && running "containerd-$1"; then return; fi
  node_stop "$1"
  # The Ready condition is stale until the kubelet has reported: wait for what it reports from now on.
  local boot; boot=$(kube get node "node-$1" -o jsonpath='{.status.nodeInfo.bootID}{.status.conditions[?(@.type=="Ready")].lastHeartbeatTime}' 2>/dev/null) || true
  containerd_start "$1"; import_images "$1" $(cat "$STATE/loaded" 2>/dev/null || true); kubelet_start "$1"
  reported() { [ "$(kube get node "node-$1" -o jsonpath='{.status.nodeInfo.bootID}{.status.conditions[?(@.type=="Ready")].lastHeartbeatTime}')" != "$boot" ] && ready "$1"; }
  wait_for 120 "node-$1 Ready" reported "$1"
}

# node_stop takes the pods' links down first: a peer of a dead machine gets silence, not a reset.
node_stop() { # N
  if running "containerd-$1"; then
    nsenter --target "$(cat "$STATE/containerd-$1.pid")" --mount \
      sh -c 'for n in /run/netns/*; do [ ! -e "$n" ] || nsenter --net="$n" ip link set eth0 down; done' 2>/dev/null || true
  fi
  kill_group "$GROUP/node-$1"; remove_groups "$GROUP/node-$1"
  ip addr del "$POD_NET.0.$((10 + $1))/32" dev $BRIDGE 2>/dev/null || true
  rm -f "$STATE/containerd-$1.pid" "$STATE/kubelet-$1.pid"
}

# --- images -------------------------------------------------------------------------------------

import_images() { # N TAR... — only those whose name does not yet stand for the same image
  local n=$1 have manifest id name tar; shift
  local ctr=(ctr -a "$STATE/node-$n/containerd.sock" -n k8s.io images)
  have=$("${ctr[@]}" ls | awk '{print $1, $3}')
  for tar in "$@"; do
    [ -f "$tar" ] || continue
    manifest=$(tar -xOf "$tar" manifest.json 2>/dev/null || true)
    id=$(grep -oE '"Config":"[^"]*' <<< "$manifest" | grep -oE '[0-9a-f]{64}' || true)
    name=$(sed -n 's/.*"RepoTags":\["\([^"]*\)"\].*/\1/p' <<< "$manifest")
    awk -v name="$name" -v id="sha256:$id" '$1 == name {a = $2} $1 == id {b = $2} END {exit !(a != "" && a == b)}' <<< "$have" ||
      "${ctr[@]}" import "$tar" >/dev/null
  done
}

load() { # TAR...
  local n tar pids='' p
  for tar in "$@"; do [ -f "$tar" ] || die "no such archive: $tar"; done
  if external; then load_elsewhere "$@"; return; fi
  alive || die "the cluster is down: run $SELF up"
  for tar in "$@"; do grep -qxF "$(readlink -f "$tar")" "$STATE/loaded" 2>/dev/null || readlink -f "$tar" >> "$STATE/loaded"; done
  for n in $(nodes); do if running "containerd-$n"; then import_images "$n" "$@" & pids+=" $!"; fi; done
  for p in $pids; do wait "$p"; done
}
load_elsewhere() { # TAR...
  local tar context; context=$(kube config current-context)
  if [[ $context == kind-* ]] && command -v kind >/dev/null; then
    for tar in "$@"; do kind load image-archive --name "${context#kind-}" "$tar" >&2; done
  else
    say "this script does not run the cluster of KUBECONFIG: make these images available to its nodes yourself: $*"
  fi
}

# --- the whole ----------------------------------------------------------------------------------

kube() { KUBECONFIG=$CONFIG "$KUBECTL" "$@"; }
alive() { [ -n "$(processes $GROUP/control)" ]; }
healthy() { local n; kube get --raw /readyz >/dev/null 2>&1 && for n in etcd apiserver kcm scheduler proxy coredns provisioner registry; do running $n || return 1; done; }
owner() { cat "$STATE/owner" 2>/dev/null || true; }
only_owner() { # lets the owner pass, and anyone once the owner's checkout is gone
  local o; o=$(owner)
  [ -z "$o" ] || [ "$o" = "$CHECKOUT" ] || [ ! -d "$o" ] ||
    die "the cluster is held by the checkout $o. Stop it there ($o/hack/cluster/cluster.sh down), or use it: USE_EXISTING_CLUSTER=true KUBECONFIG=$STATE/admin.kubeconfig"
}
lock() { exec 9< "$(dirname "$STATE")"; flock 9; } # one command at a time; leaves no file behind

up() { # [NODES]
  if existing; then
    [ -x "$KUBECTL" ] || "$HACK/build-tools.sh" kubernetes
    kube get --raw /readyz >/dev/null || die "cannot reach the cluster of KUBECONFIG=$CONFIG"
    say "using the cluster of $CONFIG as it is"; print_env; return
  fi
  [ "$(id -u)" = 0 ] || die "needs root"
  need_packages; build; lock
  local n
  if alive; then
    only_owner
    running provisioner || start_provisioner
    running registry || start_registry
    if healthy; then
      for n in $(seq "${1:-$(nodes | wc -l)}"); do node_start "$n"; done
      print_env; return
    fi
    say "it runs but is not healthy: starting again"
  fi
  local begin boot count=${1:-3}; begin=$(date +%s%N)
  clean
  mkdir -p "$PKI" "$LOG"; chmod 755 "$STATE"; echo "$CHECKOUT" > "$STATE/owner"
  certificates; mirrors; host_up; make_group "$GROUP/control"
  "$(tool images)/images" pause --binary "$(tool cluster)/pause" --out "$STATE/pause.tar" >/dev/null; echo "$STATE/pause.tar" > "$STATE/loaded"
  boot_nodes "$count" & boot=$!
  control_plane; wait $boot
  for n in $(seq "$count"); do kubelet_start "$n"; done
  for n in $(seq "$count"); do wait_for 120 "node-$n Ready" ready "$n"; done
  say "up in $((($(date +%s%N) - begin) / 1000000)) ms: $count nodes Ready"
  print_env
}
mirrors() { # has containerd take every image from the cluster's registry
  mkdir -p "$STATE/registries/_default"
  printf 'server = "https://%s"\n[host."https://%s"]\n  capabilities = ["pull", "resolve"]\n  ca = "%s"\n' "$REGISTRY" "$REGISTRY" "$PKI/ca.crt" > "$STATE/registries/_default/hosts.toml"
}
boot_nodes() { # NODES — all that needs no API server
  local n; for n in $(seq "$1"); do containerd_start "$n"; import_images "$n" "$STATE/pause.tar"; done
}
clean() {
  local n; for n in $(nodes); do node_stop "$n"; done
  kill_group $GROUP; host_down; remove_groups $GROUP
  rm -rf "$STATE"
}
down() {
  if existing; then say "the cluster of $CONFIG is left as it is"; return; fi
  lock; only_owner; clean
}
status() {
  if external; then kube get nodes -o wide; return; fi
  alive || { say "down"; exit 1; }
  echo "held by $(owner), KUBECONFIG=$CONFIG"; kube get nodes -o wide
}
print_env() { echo "export KUBECONFIG=$CONFIG PATH=$(dirname "$KUBECTL"):\$PATH"; }

USER_KUBECONFIG=${KUBECONFIG:-$HOME/.kube/config} CONFIG=$STATE/admin.kubeconfig
KUBECTL=$(tool kubernetes)/kubectl
! external || { CONFIG=$USER_KUBECONFIG; KUBECTL=$(command -v kubectl || echo "$KUBECTL"); }
case "${1:-}" in
  build) need_packages; build ;;
  up) up "${2:-}" ;;
  load) shift; load "$@" ;;
  node-stop | node-start)
    ! external || die "this script does not run the cluster of KUBECONFIG, so it cannot stop its nodes"
    lock; alive || die "the cluster is down"
    [ -d "$STATE/node-${2:-}" ] || die "there is no node ${2:-}: name one of $(nodes | xargs)"
    "${1//-/_}" "$2" ;;
  status) status ;;
  registry)
    ! external || die "this script does not run the cluster of KUBECONFIG, so it has no registry"
    echo "$REGISTRY $PKI/ca.crt" ;;
  env) print_env ;;
  down) down ;;
  _enter-node) shift; enter_node "$@" ;;
  *) sed -n '2,/^set -euo/p' "$SELF" | sed '$d;s/^# \{0,1\}//'; exit 2 ;;
esac
