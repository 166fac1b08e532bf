package cluster

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// failures are the versions of the intents that an annotation has, and their causes.
func failures(annotation string) []string {
	var list []string
	for patch := range 6 {
		version := fmt.Sprintf("3.6.%d", patch)
		if cause, failed := FailedCause(annotation, Intent{Version: version}.TargetHash()); failed {
			list = append(list, version+" "+cause)
		}
	}
	return list
}

func TestTheLastIntentsThatFailedAreRemembered(t *testing.T) {
	intent := func(patch int) Intent { return Intent{Version: fmt.Sprintf("3.6.%d", patch)} }
	for name, c := range map[string]struct {
		annotation string
		want       []string
	}{
		"nothing":                            {"", nil},
		"the form of an earlier release":     {intent(1).TargetHash() + " it crashed", []string{"3.6.1 it crashed"}},
		"another text":                       {"it crashed", nil},
		"one":                                {AddFailedIntent("", intent(1), "it crashed"), []string{"3.6.1 it crashed"}},
		"one more":                           {AddFailedIntent(FailedIntent(intent(1), "it crashed"), intent(2), "no node"), []string{"3.6.1 it crashed", "3.6.2 no node"}},
		"the same again, for another cause":  {AddFailedIntent(FailedIntent(intent(1), "it crashed"), intent(1), "no node"), []string{"3.6.1 no node"}},
		"a cause of two lines, and one more": {AddFailedIntent(FailedIntent(intent(1), "it\ncrashed"), intent(2), "no\nnode"), []string{"3.6.1 it crashed", "3.6.2 no node"}},
	} {
		if got := failures(c.annotation); !slices.Equal(got, c.want) {
			t.Errorf("%s: got %q, want %q", name, got, c.want)
		}
	}
}

func TestTheOldestIntentThatFailedIsForgotten(t *testing.T) {
	annotation := ""
	for patch := range maxFailedIntents + 1 {
		annotation = AddFailedIntent(annotation, Intent{Version: fmt.Sprintf("3.6.%d", patch)}, strings.Repeat("x", 2*maxFailedCause))
	}
	got := failures(annotation)
	if len(got) != maxFailedIntents || strings.HasPrefix(got[0], "3.6.0 ") {
		t.Errorf("remembers %q", got)
	}
	// An earlier release reads the hash of the newest one.
	hash, _, _ := strings.Cut(annotation, " ")
	if want := (Intent{Version: fmt.Sprintf("3.6.%d", maxFailedIntents)}).TargetHash(); hash != want {
		t.Errorf("the first hash is %s, not %s", hash, want)
	}
	if most := maxFailedIntents * (len(hash) + 2 + maxFailedCause); len(annotation) > most {
		t.Errorf("it has %d bytes, more than %d", len(annotation), most)
	}
}
