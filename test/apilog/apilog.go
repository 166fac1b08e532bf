// Package apilog compares what clients of a Kubernetes API server wrote to one resource with what they read, listed and
// watched. It speaks to no server: its users tell it each request and each answer.
package apilog

import (
	"errors"
	"fmt"
	"sync"
)

// Version is an object at a resource version. No two writes of an object have the same value; a deletion has the value
// of what it deletes.
type Version struct {
	Object, Value string
	Deleted       bool
	// ResourceVersion is zero where it is not known: the API server does not tell that of a deletion.
	ResourceVersion uint64
}

func (v Version) String() string {
	what := fmt.Sprintf("%s=%s", v.Object, v.Value)
	if v.Deleted {
		what = "deletion of " + what
	}
	return fmt.Sprintf("%s (resourceVersion %d)", what, v.ResourceVersion)
}

// Write is an attempt to write. It has one of two outcomes: made, or unknown.
type Write struct {
	version Version
	made    bool
	after   uint64 // it was sent after this resource version was acknowledged
}

// fits reports whether the write may have made a version.
func (w *Write) fits(v Version) bool {
	if w.made && w.version.ResourceVersion != 0 && w.version.ResourceVersion != v.ResourceVersion {
		return false
	}
	return w.version.Value == v.Value && w.version.Deleted == v.Deleted
}

// Log has the writes of each object in the order of sending. An object has one writer, which sends no write before the
// one before it has ended.
type Log struct {
	mu      sync.Mutex
	objects map[string][]*Write
	acked   int
	highest uint64 // of the resource versions that were acknowledged
	listed  uint64
	faults  []error
}

// New returns an empty log.
func New() *Log { return &Log{objects: map[string][]*Write{}} }

// Send notes a write that is about to be sent. Until it is acknowledged, or read, its outcome is unknown.
func (l *Log) Send(v Version) *Write {
	l.mu.Lock()
	defer l.mu.Unlock()
	v.ResourceVersion = 0
	w := &Write{version: v, after: l.highest}
	l.objects[v.Object] = append(l.objects[v.Object], w)
	return w
}

// Acknowledge notes that a write was made, at a resource version or, if that is zero, at an unknown one.
func (l *Log) Acknowledge(w *Write, resourceVersion uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.acked++
	if resourceVersion != 0 && resourceVersion <= w.after {
		l.fault("%s was made at resourceVersion %d, and %d was acknowledged before", w.version, resourceVersion, w.after)
	}
	l.made(w, resourceVersion)
}

func (l *Log) made(w *Write, resourceVersion uint64) {
	w.made, w.version.ResourceVersion = true, resourceVersion
	l.highest = max(l.highest, resourceVersion)
}

// Read compares what the writer of an object reads, while no write of it is under way, with the writes: it is the last
// one that was made, or a later one of unknown outcome. An object that does not exist is read as nil.
func (l *Log) Read(object string, v *Version) {
	l.mu.Lock()
	defer l.mu.Unlock()
	writes := l.objects[object]
	for i := len(writes) - 1; i >= 0; i-- {
		w := writes[i]
		switch {
		case v == nil && w.version.Deleted:
			l.made(w, w.version.ResourceVersion)
			return
		case v != nil && w.fits(*v):
			l.made(w, v.ResourceVersion)
			return
		case w.made && v == nil:
			l.fault("%s was acknowledged, and is lost", w.version)
			return
		case w.made:
			l.fault("%s was acknowledged, and %s was read", w.version, *v)
			return
		}
	}
	if v != nil {
		l.fault("%s was read, and nobody wrote it", *v)
	}
}

// Highest returns the highest resource version that was acknowledged.
func (l *Log) Highest() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.highest
}

// Acknowledged counts the acknowledged writes.
func (l *Log) Acknowledged() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.acked
}

// List notes the resource version of a list that was asked for after another list had ended, and when the highest
// acknowledged resource version was that of asked.
func (l *Log) List(asked, resourceVersion uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if resourceVersion < asked {
		l.fault("a list has resourceVersion %d, and %d was acknowledged before", resourceVersion, asked)
	}
	if resourceVersion < l.listed {
		l.fault("a list has resourceVersion %d, and the list before it %d", resourceVersion, l.listed)
	}
	l.listed = resourceVersion
}

// All compares a list at the end, when nobody writes, with the writes.
func (l *Log) All(list []Version) {
	found := map[string]*Version{}
	for i := range list {
		found[list[i].Object] = &list[i]
	}
	l.mu.Lock()
	objects := make([]string, 0, len(l.objects)+len(found))
	for object := range l.objects {
		objects = append(objects, object)
	}
	for object := range found {
		if l.objects[object] == nil {
			objects = append(objects, object)
		}
	}
	l.mu.Unlock()
	for _, object := range objects {
		l.Read(object, found[object])
	}
}

// Verify returns what was wrong with answers, and with the watches: each saw all that was made, once and in order.
// It is called after everything has ended.
func (l *Log) Verify(watches ...*Watch) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	faults := l.faults
	for _, w := range watches {
		faults = append(faults, w.verify(l.objects)...)
	}
	if len(faults) > 10 {
		faults = append(faults[:10:10], fmt.Errorf("and %d faults more", len(faults)-10))
	}
	return errors.Join(faults...)
}

func (l *Log) fault(format string, args ...any) {
	l.faults = append(l.faults, fmt.Errorf(format, args...))
}
