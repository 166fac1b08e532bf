package fake

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/etcd-warden/etcd-warden/internal/cluster"
)

// Voter is a voter of a cluster, as its leader knows it.
type Voter struct {
	ID   cluster.ID
	Name string
	// Alive tells that its process runs and has a leader.
	Alive bool
}

// Voters returns the voters of the cluster that the member at the address belongs to, as the newest log among its
// running members has them; none where no member runs there.
func (w *World) Voters(address string) []Voter {
	w.mu.Lock()
	defer w.mu.Unlock()
	m := w.members[address]
	if m == nil {
		return nil
	}
	newest := m.data.state
	alive := map[cluster.ID]bool{}
	for _, other := range w.members {
		if other.data.clusterID != m.data.clusterID {
			continue
		}
		alive[other.data.memberID] = other.leader != 0
		if other.data.state.newer(newest) {
			newest = other.data.state
		}
	}
	var voters []Voter
	for _, id := range slices.Sorted(maps.Keys(newest.members)) {
		if p := newest.members[id]; !p.learner {
			voters = append(voters, Voter{ID: id, Name: p.name, Alive: alive[id]})
		}
	}
	return voters
}

// HasData reports whether a member has ever started on the volume since it was emptied.
func (w *World) HasData(volume string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.volumes[volume] != nil
}

// Describe tells the state of what lies on the volumes and runs on them, for fingerprints: logs by their order and not
// by their length, and the value of the key as whether it is the wanted one of its cluster.
func (w *World) Describe(volumes []string, key string, wanted map[cluster.ID]string) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	ranks := w.logRanks(volumes)
	running := map[*dataDir]*member{}
	for _, m := range w.members {
		running[m.data] = m
	}
	var text strings.Builder
	for _, name := range volumes {
		data := w.volumes[name]
		if data == nil {
			text.WriteString("empty;")
			continue
		}
		fmt.Fprintf(&text, "%016x %016x %s log %d key %t removed %t", uint64(data.clusterID), uint64(data.memberID), data.name,
			ranks[[2]int{data.state.term, data.state.index}], data.state.keys[key] == wanted[data.clusterID], data.removed)
		fmt.Fprintf(&text, " version %d of %d to %d, old entries %t", data.storage, data.state.clusterVersion, data.state.downgrade,
			data.state.oldEntry > data.snapshot)
		fmt.Fprintf(&text, " corrupt %t broken %t", data.corrupt, data.broken)
		byName := func(a, b cluster.ID) int {
			x, y := data.state.members[a], data.state.members[b]
			return cmp.Or(strings.Compare(x.name, y.name), strings.Compare(x.peerURL, y.peerURL), cmp.Compare(a, b))
		}
		for _, id := range slices.SortedFunc(maps.Keys(data.state.members), byName) {
			p := data.state.members[id]
			fmt.Fprintf(&text, " (%016x %s %t %t)", uint64(id), p.name, p.learner, p.published)
		}
		for _, alarm := range sortedAlarms(data.state) {
			fmt.Fprintf(&text, " %016x %s", uint64(alarm.Member), alarm.Kind)
		}
		if m := running[data]; m != nil {
			fmt.Fprintf(&text, " runs %s led by %016x serving %t cut %t fails %t lags %t",
				m.version, uint64(m.leader), m.serving, w.cut[m.address], w.failures[m.address] != nil, w.lagging[m.address])
		}
		text.WriteString(";")
	}
	return text.String()
}

// logRanks numbers the logs on the volumes from the oldest on.
func (w *World) logRanks(volumes []string) map[[2]int]int {
	var logs [][2]int
	for _, name := range volumes {
		if data := w.volumes[name]; data != nil {
			logs = append(logs, [2]int{data.state.term, data.state.index})
		}
	}
	slices.SortFunc(logs, func(a, b [2]int) int { return cmp.Or(cmp.Compare(a[0], b[0]), cmp.Compare(a[1], b[1])) })
	ranks := map[[2]int]int{}
	for rank, log := range slices.Compact(logs) {
		ranks[log] = rank
	}
	return ranks
}

// ClusterID returns the cluster ID of the member that runs at the address; zero where none runs there.
func (w *World) ClusterID(address string) cluster.ID {
	w.mu.Lock()
	defer w.mu.Unlock()
	if m := w.members[address]; m != nil {
		return m.data.clusterID
	}
	return 0
}

// Runs reports whether a process runs at the address. One whose member was removed ends by itself.
func (w *World) Runs(address string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.tick()
	return w.members[address] != nil
}

// Clusters returns the members of every cluster as its newest log has them, by cluster ID.
func (w *World) Clusters() map[cluster.ID][]cluster.EtcdMember {
	w.mu.Lock()
	defer w.mu.Unlock()
	all := map[cluster.ID][]cluster.EtcdMember{}
	for id, s := range w.newest() {
		all[id] = list(s)
	}
	return all
}

// RunningVersions returns the versions of the processes that run, by cluster ID.
func (w *World) RunningVersions() map[cluster.ID][]string {
	w.mu.Lock()
	defer w.mu.Unlock()
	all := map[cluster.ID][]string{}
	for _, m := range w.members {
		all[m.data.clusterID] = append(all[m.data.clusterID], m.version)
	}
	return all
}

// Quorum returns how many voters the newest log of a cluster has, and how many of them run and are not cut off.
func (w *World) Quorum(id cluster.ID) (voters, alive int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := w.newest()[id]
	if s == nil {
		return 0, 0
	}
	for _, m := range w.members {
		if m.data.clusterID == id && !w.cut[m.address] && s.voter(m.data.memberID) {
			alive++
		}
	}
	return len(s.voters()), alive
}

// newest returns the newest log of each cluster. What lies on copies of volumes is older.
func (w *World) newest() map[cluster.ID]*state {
	newest := map[cluster.ID]*state{}
	for _, data := range w.volumes {
		if s := newest[data.clusterID]; s == nil || data.state.newer(s) {
			newest[data.clusterID] = data.state
		}
	}
	return newest
}
