package apilog

import (
	"fmt"
	"sync"
)

// Watch is what one client saw, over all the watches that it made one after the other.
type Watch struct {
	name string

	mu     sync.Mutex
	at     uint64
	events map[string][]Version // of each object
	faults []error
}

// NewWatch returns a watch from a resource version on.
func NewWatch(name string, from uint64) *Watch {
	return &Watch{name: name, at: from, events: map[string][]Version{}}
}

// At returns the resource version from which the client goes on.
func (w *Watch) At() uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.at
}

// Event notes an event. Its resource version is above that of everything before.
func (w *Watch) Event(v Version) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if v.ResourceVersion <= w.at {
		w.fault("saw the %s after resourceVersion %d", v, w.at)
	}
	w.at = v.ResourceVersion
	w.events[v.Object] = append(w.events[v.Object], v)
}

// Bookmark notes that the server says to have sent all events up to a resource version.
func (w *Watch) Bookmark(resourceVersion uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if resourceVersion < w.at {
		w.fault("got a bookmark of resourceVersion %d after %d", resourceVersion, w.at)
	}
	w.at = resourceVersion
}

// Gone notes that the server cannot go on from the resource version that the client saw last, and from which one the
// client goes on instead.
func (w *Watch) Gone(err error, next uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.fault("cannot go on after resourceVersion %d: %w", w.at, err)
	w.at = next
}

// verify compares the events with the writes of each object. Writes of unknown outcome may be missing.
func (w *Watch) verify(objects map[string][]*Write) []error {
	w.mu.Lock()
	defer w.mu.Unlock()
	for object, writes := range objects {
		next := 0
		for _, v := range w.events[object] {
			i := maker(writes[next:], v)
			if i < 0 {
				w.fault("saw %s, which nobody wrote, or which came out of order", v)
				continue
			}
			w.missed(writes[next : next+i])
			next += i + 1
		}
		w.missed(writes[next:])
	}
	for object, events := range w.events {
		if objects[object] == nil {
			w.fault("saw %s, which nobody wrote", events[0])
		}
	}
	return w.faults
}

// maker finds the write that made a version: one that is known to be made before one of unknown outcome.
func maker(writes []*Write, v Version) int {
	unknown := -1
	for i, w := range writes {
		switch {
		case !w.fits(v):
		case w.made:
			return i
		case unknown < 0:
			unknown = i
		}
	}
	return unknown
}

func (w *Watch) missed(writes []*Write) {
	for _, write := range writes {
		if write.made {
			w.fault("missed the %s", write.version)
		}
	}
}

func (w *Watch) fault(format string, args ...any) {
	w.faults = append(w.faults, fmt.Errorf("watch "+w.name+" "+format, args...))
}
