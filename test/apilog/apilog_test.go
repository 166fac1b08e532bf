package apilog

import (
	"errors"
	"slices"
	"strings"
	"testing"
)

// run is a history that is right, with a write of each outcome. Cases change what is answered.
type run struct {
	created, updated uint64 // acknowledged
	read, end        *Version
	lists            []uint64
	events           []Version
	bookmark         uint64
	gone             error
}

func right() run {
	return run{
		created: 11, updated: 13, lists: []uint64{12, 12, 14},
		read: &Version{Object: "a", Value: "3", ResourceVersion: 14},
		events: []Version{
			{Object: "a", Value: "1", ResourceVersion: 11}, {Object: "a", Value: "2", ResourceVersion: 13},
			{Object: "a", Value: "3", ResourceVersion: 14}, {Object: "a", Value: "3", Deleted: true, ResourceVersion: 16},
		},
		bookmark: 17,
	}
}

func (r run) verify() error {
	log, watch := New(), NewWatch("one", 10)
	log.Acknowledge(log.Send(Version{Object: "a", Value: "1"}), r.created)
	log.Acknowledge(log.Send(Version{Object: "a", Value: "2"}), r.updated)
	log.Send(Version{Object: "a", Value: "3"}) // its answer is lost, and the writer reads that it was made
	log.Read("a", r.read)
	log.Send(Version{Object: "a", Value: "4"})                                    // fails
	log.Send(Version{Object: "a", Value: "3", Deleted: true})                     // fails
	log.Acknowledge(log.Send(Version{Object: "a", Value: "3", Deleted: true}), 0) // is acknowledged
	log.Send(Version{Object: "a", Value: "5"})                                    // fails
	for i, list := range r.lists {
		log.List(uint64(11+i), list)
	}
	for _, v := range r.events {
		watch.Event(v)
	}
	watch.Bookmark(r.bookmark)
	if r.gone != nil {
		watch.Gone(r.gone, 17)
	}
	var all []Version
	if r.end != nil {
		all = []Version{*r.end}
	}
	log.All(all)
	return log.Verify(watch)
}

func TestAcceptsWhatAServerMayAnswer(t *testing.T) {
	for name, change := range map[string]func(*run){
		"the last write was not made": func(*run) {},
		"the last write was made": func(r *run) {
			r.end = &Version{Object: "a", Value: "5", ResourceVersion: 18}
			r.events, r.bookmark = append(r.events, *r.end), 18
		},
	} {
		r := right()
		change(&r)
		if err := r.verify(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestFindsEveryFault(t *testing.T) {
	for says, change := range map[string]func(*run){
		"missed the a=1 (resourceVersion 11)":                     func(r *run) { r.events = r.events[1:] },
		"missed the a=2 (resourceVersion 13)":                     func(r *run) { r.events = slices.Delete(r.events, 1, 2) },
		"missed the a=3 (resourceVersion 14)":                     func(r *run) { r.events = slices.Delete(r.events, 2, 3) },
		"missed the deletion of a=3":                              func(r *run) { r.events = r.events[:3] },
		"saw the a=2 (resourceVersion 13) after":                  func(r *run) { r.events = slices.Insert(r.events, 2, r.events[1]) },
		"saw the a=1 (resourceVersion 11) after":                  func(r *run) { r.events[0], r.events[1] = r.events[1], r.events[0] },
		"saw a=2 (resourceVersion 12), which nobody":              func(r *run) { r.events[1].ResourceVersion = 12 },
		"saw a=9 (resourceVersion 13), which nobody":              func(r *run) { r.events[1].Value = "9" },
		"saw b=1 (resourceVersion 17), which nobody":              func(r *run) { r.events = append(r.events, Version{Object: "b", Value: "1", ResourceVersion: 17}) },
		"got a bookmark of resourceVersion 15 after 16":           func(r *run) { r.bookmark = 15 },
		"cannot go on after resourceVersion 17":                   func(r *run) { r.gone = errors.New("too old") },
		"made at resourceVersion 11, and 11 was":                  func(r *run) { r.updated = 11 },
		"a list has resourceVersion 10, and 11 was":               func(r *run) { r.lists[0] = 10 },
		"a list has resourceVersion 14, and the list":             func(r *run) { r.lists[1] = 15 },
		"a=2 (resourceVersion 13) was acknowledged, and a=1":      func(r *run) { r.read = &Version{Object: "a", Value: "1", ResourceVersion: 11} },
		"a=2 (resourceVersion 13) was acknowledged, and a=2":      func(r *run) { r.read = &Version{Object: "a", Value: "2", ResourceVersion: 12} },
		"a=2 (resourceVersion 13) was acknowledged, and is lost":  func(r *run) { r.read = nil },
		"was acknowledged, and a=3 (resourceVersion 14) was read": func(r *run) { r.end = r.read },
		"b=1 (resourceVersion 9) was read, and nobody wrote it":   func(r *run) { r.end = &Version{Object: "b", Value: "1", ResourceVersion: 9} },
	} {
		r := right()
		change(&r)
		if err := r.verify(); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%q is not found: %v", says, err)
		}
	}
}

func TestNamesTenFaultsAndCountsTheOthers(t *testing.T) {
	log := New()
	for range 12 {
		log.Read("a", &Version{Object: "a", Value: "1", ResourceVersion: 9})
	}
	if err := log.Verify(); err == nil || !strings.Contains(err.Error(), "and 2 faults more") {
		t.Error(err)
	}
}
