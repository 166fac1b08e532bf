package cluster

import (
	"testing"
	"time"
)

func TestANoteOfAComparisonIsReadAsItWasWritten(t *testing.T) {
	n := ComparisonNote{Agree: true, Revision: 42, Voters: []ID{0xa0, 0xffffffffffffffff}, At: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}
	const text = "Agree 42 a0,ffffffffffffffff 2026-01-02T03:04:05Z"
	if n.String() != text {
		t.Errorf("written %q", n)
	}
	if read := ParseComparisonNote(text); read == nil || read.String() != text {
		t.Errorf("read %+v", read)
	}
	for _, other := range []string{
		"", "Agree", "yes 42 a0 2026-01-02T03:04:05Z", "Agree x a0 2026-01-02T03:04:05Z", "Agree 42 a0 yesterday", "Agree 42 xyz 2026-01-02T03:04:05Z",
		"Agree 42 a0 2026-01-02T03:04:05Z more", "Agree 42 a0,a1, 2026-01-02T03:04:05Z", " Agree 42 a0 2026-01-02T03:04:05Z",
	} {
		if read := ParseComparisonNote(other); read != nil {
			t.Errorf("%q is read as %+v", other, read)
		}
	}
}
