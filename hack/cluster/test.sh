#!/usr/bin/env bash
# Proves what hack/cluster promises: start it, use it, break it, stop it, and compare the machine
# before and after. Needs the cluster to be down. Each step says what it shows and how long it took.
set -euo pipefail
HERE=$(cd "$(dirname "$0")" && pwd); HACK=$(dirname "$HERE"); CLUSTER=$HERE/cluster.sh
unset USE_EXISTING_CLUSTER KUBECONFIG
[ ! -e /var/tmp/etcd-warden-cluster ] || { "$CLUSTER" status >&2 || true; echo "the cluster must be down for this test: run cluster.sh down in the checkout that holds it" >&2; exit 1; }
WORK=$(mktemp -d); trap 'rm -rf "$WORK"' EXIT
CLOCK=$(date +%s%N)

# step DESCRIPTION CMD... runs CMD, which must succeed.
step() {
  local what=$1 begin code; begin=$(date +%s%N); shift
  set +e; (set -e; "$@") > "$WORK/out" 2>&1; code=$?; set -e
  [ $code = 0 ] || { printf 'FAIL  %s\n' "$what"; tail -40 "$WORK/out" | sed 's/^/      /'; exit 1; }
  printf 'ok    %-72s %6d ms\n' "$what" $((($(date +%s%N) - begin) / 1000000))
}
# eventually SECONDS CMD... waits for a state of the world.
eventually() { local end=$((SECONDS + $1)); shift; until "$@"; do [ $SECONDS -lt $end ] || return 1; sleep 0.1; done; }
in_pod() { kubectl exec "$1" -- sh -c "$2"; }
fails() { ! "$@"; }
says() { local want=$1; shift; "$@" | tee -a /dev/stderr | grep -- "$want" > /dev/null; }

# machine prints all that a cluster could leave behind.
machine() {
  ip -o link | awk '{print "link", $2}'; ip route | sed 's/^/route /'; ip -o addr | awk '{print "addr", $2, $4}'
  local c; for c in iptables ip6tables; do
    "$c-save" 2>/dev/null | awk -v c=$c '/^[*]/ {t = $1} /^:/ && $2 == "-" {print c, t, $1} /^-A/ {print c, t, $0}'
  done
  awk '{print "mount", $2, $3}' /proc/self/mounts; losetup -nO BACK-FILE | sed 's/^/loop /'
  find /sys/fs/cgroup -type d -path '*warden*' 2>/dev/null | sed 's/^/cgroup /' || true
  find /run /opt /etc/cni /var/lib /var/log /var/tmp -maxdepth 2 \( -path '*cni*' -o -path '*kube*' -o -path '*containerd*' -o -path '*netns*' -o -path '*warden*' -o -path /var/log/pods -o -path /var/log/containers \) 2>/dev/null | sort | sed 's/^/file /' || true
  sysctl -e net.ipv4.ip_forward net.ipv4.conf.all.route_localnet net.bridge.bridge-nf-call-iptables net.netfilter.nf_conntrack_max vm.overcommit_memory vm.panic_on_oom kernel.panic kernel.panic_on_oops kernel.keys.root_maxkeys kernel.keys.root_maxbytes 2>/dev/null
  ps -eo args | grep -E '^([^ ]*/)?(containerd[^ ]*|runc|kubelet|kube-proxy|coredns|pause) |/var/tmp/etcd-warden-cluster' | grep -v grep | sed 's/^/process /' || true
}

workload() {
  kubectl apply -f - <<Y
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: web}
spec:
  serviceName: web
  replicas: 3
  podManagementPolicy: Parallel
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 0
      topologySpreadConstraints: [{maxSkew: 1, topologyKey: kubernetes.io/hostname, whenUnsatisfiable: DoNotSchedule, labelSelector: {matchLabels: {app: web}}}]
      containers:
      - name: web
        image: localhost/busybox:1
        command: [sh, -c, 'echo "started \$(hostname)" | tee -a /data/log; mkdir /www; echo "from \$(hostname)" > /www/index.html; exec httpd -f -p 8080 -h /www']
        volumeMounts: [{name: data, mountPath: /data}, {name: secret, mountPath: /secret}]
      volumes: [{name: secret, secret: {secretName: turning}}]
  volumeClaimTemplates: [{metadata: {name: data}, spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 400Mi}}}}]
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {clusterIP: None, selector: {app: web}, publishNotReadyAddresses: true}
---
apiVersion: v1
kind: Service
metadata: {name: web-client}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: Secret
metadata: {name: turning}
stringData: {value: before}
Y
  kubectl rollout status statefulset/web --timeout=120s || { kubectl get pods -o wide; kubectl logs web-0; return 1; }
}
fill() { says 'No space left' in_pod web-0 'dd if=/dev/zero of=/data/fill bs=1M 2>&1; true'; }
grow() {
  kubectl patch pvc data-web-0 -p '{"spec":{"resources":{"requests":{"storage":"800Mi"}}}}'
  eventually 60 says 800Mi kubectl get pvc data-web-0 -o 'jsonpath={.status.capacity.storage}'
  in_pod web-0 'dd if=/dev/zero of=/data/fill2 bs=1M count=200 && rm /data/fill /data/fill2'
}
turn_secret() {
  kubectl patch secret turning -p '{"stringData":{"value":"after"}}'
  eventually 120 says after in_pod web-1 'cat /secret/value'
}
small_volume() {
  kubectl apply -f - <<Y
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: small}
spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Mi}}}
---
apiVersion: v1
kind: Pod
metadata: {name: small}
spec:
  terminationGracePeriodSeconds: 0
  containers: [{name: c, image: "localhost/busybox:1", command: [sleep, "1000"], volumeMounts: [{name: v, mountPath: /v}]}]
  volumes: [{name: v, persistentVolumeClaim: {claimName: small}}]
Y
  kubectl wait pod/small --for=condition=Ready --timeout=60s
  says 300Mi kubectl get pvc small -o 'jsonpath={.status.capacity.storage}'
  eventually 30 says SizeRoundedUp kubectl get events --field-selector involvedObject.name=small
}
remove_volume() {
  local pv; pv=$(kubectl get pvc small -o 'jsonpath={.spec.volumeName}')
  kubectl delete pod/small pvc/small
  eventually 60 fails kubectl get pv "$pv"
  eventually 60 fails grep -r "$pv" <(losetup -a; cat /proc/mounts; find /var/tmp/etcd-warden-cluster/volumes)
}
restart_provisioner() { # an interruption must not lose a volume
  local pid; pid=$(cat /var/tmp/etcd-warden-cluster/provisioner.pid)
  kill -9 "$pid"; eventually 30 fails grep -q '^State:[[:space:]]*[^Z]' "/proc/$pid/status"
  "$CLUSTER" up
  in_pod web-0 'cat /data/log'; small_volume
}
on_node() { kubectl get pod "$1" -o 'jsonpath={.spec.nodeName}' | cut -d- -f2; }
cut_power() {
  "$CLUSTER" node-stop "$NODE"
  fails grep -rs . /sys/fs/cgroup/*/etcd-warden/node-"$NODE" --include=cgroup.procs
  fails pgrep -f "etcd-warden-cluster/node-$NODE[/.]"
}
reach_lost() { in_pod web-1 "timeout 5 wget -qO- http://$LOST:8080"; }
back_with_data() {
  "$CLUSTER" up # starts the stopped node, as node-start does
  eventually 120 says 2 in_pod web-2 'wc -l < /data/log'
}
other_checkout() { # a second checkout is told who holds the cluster, and changes nothing
  cp -r "$HACK" "$WORK/hack"
  fails "$WORK/hack/cluster/cluster.sh" up; fails "$WORK/hack/cluster/cluster.sh" down
  says "held by the checkout" sh -c "'$WORK/hack/cluster/cluster.sh' up 2>&1 || true"
  kubectl get nodes
}
existing_cluster() { # the user's own cluster is used and left alone
  cp "$KUBECONFIG" "$WORK/mine.kubeconfig"; export USE_EXISTING_CLUSTER=true KUBECONFIG=$WORK/mine.kubeconfig
  says "KUBECONFIG=$WORK/mine.kubeconfig" "$WORK/hack/cluster/cluster.sh" up
  says 'available to its nodes yourself' sh -c "'$CLUSTER' load '$BUSYBOX' 2>&1"
  "$CLUSTER" down; fails "$CLUSTER" node-stop 1
  kubectl get nodes
}
takeover() { # of a cluster whose processes all died
  "$CLUSTER" up
  (die() { echo "$*"; exit 1; }; . "$HERE/host.sh"; kill_group etcd-warden)
  eventually 30 fails kubectl get --raw /readyz
  "$WORK/hack/cluster/cluster.sh" up 2
  says "$WORK" "$WORK/hack/cluster/cluster.sh" status
  fails "$CLUSTER" down
  "$WORK/hack/cluster/cluster.sh" down
}
restricted() {
  kubectl create namespace restricted; kubectl label namespace restricted pod-security.kubernetes.io/enforce=restricted
  says 'violates PodSecurity' sh -c 'kubectl -n restricted run bad --image=localhost/busybox:1 2>&1 || true'
}
budget() {
  kubectl create pdb web --selector=app=web --min-available=3
  eventually 30 says 3 kubectl get pdb web -o 'jsonpath={.status.currentHealthy}'
  says 'disruption budget' sh -c 'kubectl drain "$(kubectl get pod web-0 -o "jsonpath={.spec.nodeName}")" --pod-selector=app=web --timeout=1s 2>&1 || true'
  kubectl delete pdb web; kubectl uncordon node-1 node-2 node-3
}
etcd_runs() {
  kubectl run etcd --image="gcr.io/etcd-development/etcd:v$1" --image-pull-policy=Never
  kubectl wait pod/etcd --for=condition=Ready --timeout=60s
  eventually 60 kubectl exec etcd -- etcdctl put a b
  says "$1" kubectl exec etcd -- etcdutl version; kubectl delete pod etcd --grace-period=0 --force
}
nothing_left() { machine > "$WORK/after"; diff "$WORK/before" "$WORK/after"; }

"$CLUSTER" build
machine > "$WORK/before"
ETCD=$(awk '$1 == "go.etcd.io/etcd/server/v3" && $2 {print substr($2, 2)}' "$HACK/tools/etcd-3.6/go.mod")
IMAGES=$("$HACK/build-tools.sh" dir images)/images; BUSYBOX=$("$IMAGES" busybox); ETCD_IMAGE=$("$IMAGES" etcd --version "$ETCD")
step "three nodes come up" "$CLUSTER" up
eval "$("$CLUSTER" env)"
step "up again changes nothing" "$CLUSTER" up
step "images load on all nodes" "$CLUSTER" load "$BUSYBOX" "$ETCD_IMAGE"
step "images that are there are not loaded again" "$CLUSTER" load "$BUSYBOX" "$ETCD_IMAGE"
step "another checkout is refused, by name" other_checkout
step "an existing cluster is used and left as it is" existing_cluster
step "three pods with volumes run on three nodes" workload
step "logs" says 'started web-0' kubectl logs web-0
step "a pod finds another by name" in_pod web-1 'nslookup web-0.web.default.svc.cluster.local'
step "a pod reaches a service" says 'from web-' in_pod web-1 'wget -qO- http://web-client'
step "a pod reaches the API server's service" says 'HTTP/1.1\|400\|Client sent' in_pod web-1 'printf "GET / HTTP/1.0\r\n\r\n" | nc 10.96.0.1 443'
step "the host reaches a service" says 'from web-' curl -sS --max-time 10 "http://$(kubectl get service web-client -o 'jsonpath={.spec.clusterIP}')"
step "a full volume gives ENOSPC" fill
step "a full volume grows while in use" grow
step "a volume below the file system's minimum is rounded up" small_volume
step "a deleted volume is gone with its device and file" remove_volume
step "a Secret reaches its pod" turn_secret
step "the provisioner is killed and started again" restart_provisioner
step "a restricted namespace refuses a usual pod" restricted
step "a disruption budget refuses an eviction" budget
step "the API server's metrics are readable" says apiserver_request_total kubectl get --raw /metrics
step "etcd $ETCD runs in its image" etcd_runs "$ETCD"
NODE=$(on_node web-2); LOST=$(kubectl get pod web-2 -o 'jsonpath={.status.podIP}')
step "web-1 reaches web-2" reach_lost
step "node-$NODE loses power: no process left" cut_power
step "node-$NODE is seen as lost" kubectl wait "node/node-$NODE" --for=condition=Ready=Unknown --timeout=120s
step "its pod is silent" fails reach_lost
step "node-$NODE is back, its pod with its data" back_with_data
step "a node is stopped and started again" sh -c "'$CLUSTER' node-stop 1 && '$CLUSTER' node-start 1 && kubectl wait node/node-1 --for=condition=Ready --timeout=1s"
step "all pods killed at once come back with their data" sh -c 'kubectl delete pod web-0 web-1 web-2 --grace-period=0 --force && kubectl rollout status statefulset/web --timeout=120s && kubectl exec web-0 -- sh -c "[ \$(wc -l < /data/log) -ge 2 ]"'
step "down" "$CLUSTER" down
step "nothing is left behind" nothing_left
step "a dead cluster is taken over by another checkout" takeover
step "nothing is left behind" nothing_left
echo "all in $((($(date +%s%N) - CLOCK) / 1000000000)) s"
