# The part of cluster.sh that touches the machine: cgroups, processes, links, packet rules, mounts.
# Everything it does has its undoing here.

PRIVATE_DIRS="/run/containerd /run/netns /var/lib/cni /var/lib/kubelet /var/log/containers /var/log/pods"
SYSCTLS="net.ipv4.ip_forward net.bridge.bridge-nf-call-iptables vm.overcommit_memory vm.panic_on_oom
  kernel.panic kernel.panic_on_oops kernel.keys.root_maxkeys kernel.keys.root_maxbytes"

# --- cgroups and processes ----------------------------------------------------------------------

hierarchies() {
  if [ -f /sys/fs/cgroup/cgroup.controllers ]; then echo /sys/fs/cgroup; return; fi
  local f; for f in /sys/fs/cgroup/*/cgroup.procs; do dirname "$f"; done
}
make_group() { # PATH — in every hierarchy, usable from the top down
  local h part at f
  for h in $(hierarchies); do
    at=$h
    for part in ${1//\// }; do
      [ ! -f "$at/cgroup.subtree_control" ] || sed 's/\(^\| \)/ +/g' "$at/cgroup.controllers" > "$at/cgroup.subtree_control" 2>/dev/null || true
      mkdir -p "$at/$part"
      for f in cpus mems; do # a cpuset of version 1 is born empty
        [ ! -f "$at/cpuset.$f" ] || [ -f "$at/cgroup.controllers" ] || cat "$at/cpuset.$f" > "$at/$part/cpuset.$f"
      done
      at=$at/$part
    done
  done
}
processes() { # GROUP
  local h
  for h in $(hierarchies); do [ ! -d "$h/$1" ] || find "$h/$1" -name cgroup.procs -exec cat {} + 2>/dev/null || true; done | sort -un
}
kill_group() { # GROUP — every process in it, and those born meanwhile
  local pids
  for _ in $(seq 200); do
    pids=$(processes "$1"); [ -n "$pids" ] || return 0
    kill -9 $pids 2>/dev/null || true; sleep 0.05
  done
  die "processes of $1 will not die: $pids"
}
remove_groups() { # GROUP
  local h; for h in $(hierarchies); do [ ! -d "$h/$1" ] || find "$h/$1" -depth -type d -exec rmdir {} +; done
}
start() { # NAME GROUP CMD...
  local name=$1 group=$2 h; shift 2
  ( exec 9<&-; for h in $(hierarchies); do echo $BASHPID > "$h/$GROUP/$group/cgroup.procs"; done
    exec setsid "$@" >> "$LOG/$name.log" 2>&1 < /dev/null ) &
  echo $! > "$STATE/$name.pid"
}
running() { # NAME — a zombie is not, nor is another that got its number
  local p; p=$(cat "$STATE/$1.pid" 2>/dev/null) || return 1
  grep -q '^State:[[:space:]]*[^ZX]' "/proc/$p/status" 2>/dev/null && grep -q "/$GROUP/" "/proc/$p/cgroup" 2>/dev/null
}

# --- the host's part ----------------------------------------------------------------------------

# host_up notes what it changes before it changes it, so that host_down can put it back.
host_up() {
  local d
  modprobe -q br_netfilter 2>/dev/null || true
  sysctl -e $SYSCTLS 2>/dev/null | tr -d ' ' > "$STATE/sysctls"
  for d in $PRIVATE_DIRS; do
    [ -d "$d" ] || { mkdir -p "$d"; echo "$d" >> "$STATE/made-dirs"; }
  done
  mkdir -p "$VOLUMES"; mount --bind "$VOLUMES" "$VOLUMES"; mount --make-private "$VOLUMES"; mount --make-shared "$VOLUMES"
  # The service range is routed into the bridge, so that nothing sent to a service without
  # endpoints can leave this machine.
  ip link add $BRIDGE type bridge; ip addr add $POD_NET.0.1/16 dev $BRIDGE; ip link set $BRIDGE up
  ip route replace $SERVICES dev $BRIDGE
  sysctl -qw net.ipv4.ip_forward=1; sysctl -qw net.bridge.bridge-nf-call-iptables=1 2>/dev/null || true
  iptables -w -I FORWARD -i $BRIDGE -o $BRIDGE -m comment --comment $GROUP -j ACCEPT
}
host_down() {
  local m d
  for m in $(awk -v s="$STATE/" 'index($2, s) == 1 {print $2}' /proc/self/mounts | sort -ru); do umount -l "$m"; done
  for m in $(losetup -nO NAME,BACK-FILE | awk -v s="$STATE/" 'index($2, s) == 1 {print $1}'); do losetup -d "$m" || true; done
  if [ -f "$STATE/sysctls" ]; then
    "$(tool kubernetes)/kube-proxy" --cleanup >/dev/null 2>&1 || true
    drop_chains iptables; drop_chains ip6tables
    sysctl -q -p "$STATE/sysctls" >/dev/null
  fi
  if ip link show $BRIDGE >/dev/null 2>&1; then
    # A dead pod's last connections can keep its network, and so its link, for minutes.
    for m in $(ip -o link show master $BRIDGE | awk -F': ' '{sub(/@.*/, "", $2); print $2}'); do ip link del "$m" 2>/dev/null || true; done
    ip link del $BRIDGE
  fi
  [ ! -f "$STATE/made-dirs" ] || tac "$STATE/made-dirs" | while read -r d; do rmdir "$d" 2>/dev/null || say "left $d, which is in use"; done
}
# drop_chains removes the rules and chains that port maps, kube-proxy's own clean-up and host_up leave.
drop_chains() { # COMMAND
  local table
  for table in filter nat mangle; do
    "$1-save" -t $table 2>/dev/null | awk -v g="$GROUP" -v t=$table '
      /^-A .*(-j (CNI-|KUBE-FIREWALL)|CNI portfwd)/ || ($1 == "-A" && $0 ~ "--comment \"?" g) {sub(/^-A/, "-D"); print "-t", t, $0; next}
      /^:(CNI-HOSTPORT|KUBE-PROXY-CANARY|KUBE-FIREWALL)/ {c = substr($1, 2); last[++n] = "-t " t " -F " c; drop[n] = "-t " t " -X " c}
      END {for (i = 1; i <= n; i++) print last[i]; for (i = 1; i <= n; i++) print drop[i]}' |
      while read -r line; do eval "$1 -w $line" 2>/dev/null || true; done
  done
}
