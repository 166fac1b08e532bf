package fake

import (
	"crypto/sha1"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/etcd-warden/etcd-warden/internal/cluster"
)

// bootstrap makes the data directory of a member on an empty volume, or refuses to.
func (w *World) bootstrap(o StartOptions) (*dataDir, error) {
	if _, listed := o.InitialCluster[o.Name]; !listed {
		return nil, errors.New("the initial cluster does not list the member")
	}
	switch o.State {
	case StateNew:
		return w.startLog(o)
	case StateExisting:
		return w.join(o)
	default:
		return nil, fmt.Errorf("%q is not an initial cluster state", o.State)
	}
}

// startLog starts the log of a new cluster. It refuses only if a peer that answers knows that this member has started
// before. While no peer answers, a member that lost its data starts again under its old ID.
func (w *World) startLog(o StartOptions) (*dataDir, error) {
	if o.InitialCluster[o.Name] != o.PeerURL {
		return nil, errors.New("the initial cluster lists another peer URL of the member")
	}
	clusterID, ids := identities(o.InitialCluster, o.Token)
	self := ids[o.Name]
	if remote := w.firstPeer(o); remote != nil && remote.data.state.members[self].published {
		return nil, fmt.Errorf("member %s has already been bootstrapped", self)
	}
	s := &state{term: 1, index: len(ids), members: map[cluster.ID]peer{}, keys: map[string]string{}, alarms: map[cluster.Alarm]bool{}, removed: map[cluster.ID]bool{}}
	for name, id := range ids {
		s.members[id] = peer{name: name, peerURL: o.InitialCluster[name]}
	}
	return &dataDir{clusterID: clusterID, memberID: self, name: o.Name, peerURL: o.PeerURL, state: s}, nil
}

// join takes cluster and member ID from a peer that answers, and starts with an empty log.
// It does not check whether the member has started before. If it has, real etcd panics while the leader remembers it.
// A real peer without a quorum accepts the member or not, depending on the cluster version that it stored.
// The model always accepts it.
func (w *World) join(o StartOptions) (*dataDir, error) {
	remote := w.firstPeer(o)
	if remote == nil {
		return nil, errors.New("cannot fetch cluster info from peer urls: could not retrieve cluster information from the given URLs")
	}
	known := remote.data.state.members
	if len(known) != len(o.InitialCluster) {
		return nil, errors.New("error validating peerURLs: member count is unequal")
	}
	urls := slices.Sorted(maps.Values(o.InitialCluster))
	var self cluster.ID
	for id, entry := range known {
		if !slices.Contains(urls, entry.peerURL) {
			return nil, errors.New("error validating peerURLs: unmatched member while checking PeerURLs")
		}
		if entry.peerURL == o.InitialCluster[o.Name] {
			self = id
		}
	}
	if !isCompatible(remote.data.state, minorOf(o.Version)) {
		w.noteUnfit(&dataDir{clusterID: remote.data.clusterID, name: o.Name}, o.Version, ErrIncompatible)
		return nil, ErrIncompatible
	}
	s := &state{members: known, keys: map[string]string{}, alarms: map[cluster.Alarm]bool{}, removed: map[cluster.ID]bool{}}
	return &dataDir{clusterID: remote.data.clusterID, memberID: self, name: o.Name, peerURL: o.PeerURL, state: s}, nil
}

// firstPeer returns the first running member of the other peer URLs, in their order. It returns nil if none runs.
func (w *World) firstPeer(o StartOptions) *member {
	var urls []string
	for name, url := range o.InitialCluster {
		if name != o.Name {
			urls = append(urls, url)
		}
	}
	slices.Sort(urls)
	if w.cut[o.Address] {
		return nil
	}
	for _, url := range urls {
		for _, m := range w.members {
			if m.data.peerURL == url && !w.cut[m.address] {
				return m
			}
		}
	}
	return nil
}

// identities computes the IDs from a founding list and its token, as etcd does. Equal arguments give equal IDs.
func identities(founders map[string]string, token string) (cluster.ID, map[string]cluster.ID) {
	ids := map[string]cluster.ID{}
	for name, url := range founders {
		ids[name] = memberID(url, token)
	}
	var all []byte
	for _, id := range slices.Sorted(maps.Values(ids)) {
		all = binary.BigEndian.AppendUint64(all, uint64(id))
	}
	return hash(all), ids
}

func memberID(peerURL, token string) cluster.ID { return hash([]byte(peerURL + token)) }

func hash(b []byte) cluster.ID {
	sum := sha1.Sum(b)
	return cluster.ID(binary.BigEndian.Uint64(sum[:8]))
}
