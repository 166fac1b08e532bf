package main

import (
	"strings"
	"testing"
)

func TestPage(t *testing.T) {
	for _, c := range []struct{ does, source, want, refused string }{
		{
			does:   "writes what a reason means and the way out",
			source: "// Reasons of Available. Some more.\nconst (\n\t// ReasonA: too\n\t// bad | sad.\n\t// What to do: mend it.\n\tReasonA = \"A\"\n)",
			want:   "\n## Reasons of Available\nSome more.\n\n| | what it means | what to do |\n| --- | --- | --- |\n| `A` | Too bad \\| sad. | Mend it. |\n",
		},
		{
			does:   "writes what a condition is",
			source: "// Types.\nconst (\n\t// ConditionA is true while it holds.\n\t// What to do: nothing.\n\tConditionA = \"A\"\n)",
			want:   "| `A` | True while it holds. | Nothing. |\n",
		},
		{does: "refuses a constant without a way out", source: "const (\n\t// ReasonA: bad.\n\tReasonA = \"A\"\n)", refused: "ReasonA must say"},
		{does: "refuses a constant without a comment", source: "const (\n\tReasonA = \"A\"\n)", refused: "ReasonA must say"},
		{does: "refuses a constant that is computed", source: "const (\n\t// ReasonA: bad. What to do: mend.\n\tReasonA = \"A\" + \"B\"\n)", refused: "not a plain string"},
		{does: "refuses what is not Go", source: "const (", refused: "expected"},
	} {
		t.Run(c.does, func(t *testing.T) {
			var out strings.Builder
			err := page([]byte("package v1\n\n"+c.source+"\n"), &out)
			switch {
			case c.refused != "" && (err == nil || !strings.Contains(err.Error(), c.refused)):
				t.Errorf("said %v, want %q", err, c.refused)
			case c.refused == "" && err != nil:
				t.Error(err)
			case !strings.Contains(out.String(), c.want):
				t.Errorf("wrote %q, want %q in it", out.String(), c.want)
			}
		})
	}
}
