package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
)

// slow is the duration in seconds from which a passed test gets a line of its own.
const slow = 2

// event is one line of `go test -json`.
type event struct {
	Action     string
	Package    string
	ImportPath string
	Test       string
	Output     string
	Elapsed    float64
}

// counts are the tests of one or several runs. A test with subtests is counted by its subtests,
// a Ginkgo suite by its specs, a package that broke outside its tests as one failed test.
type counts struct{ passed, failed, skipped int }

func (c *counts) add(other counts) {
	c.passed += other.passed
	c.failed += other.failed
	c.skipped += other.skipped
}

type test struct {
	name     string
	state    string // "", pass, fail or skip
	children int
	broken   int // children that failed
	specs    *counts
	output   strings.Builder
}

type pkg struct {
	name   string
	state  string
	tests  map[string]*test
	output strings.Builder
}

type results struct {
	packages map[string]*pkg
	plain    counts // of lines that are no events
}

func newResults() *results { return &results{packages: map[string]*pkg{}} }

// read takes in every event and calls seen after each. Lines that are no events are build errors, or the output of
// the ginkgo command or of a script of steps, whose tests are counted too.
func (r *results) read(in io.Reader, seen func(event)) error {
	lines := bufio.NewReader(in)
	for {
		line, err := lines.ReadBytes('\n')
		if len(bytes.TrimSpace(line)) > 0 {
			var e event
			if json.Unmarshal(line, &e) != nil || e.Action == "" {
				e = event{Action: "stray", Output: string(line)}
			}
			r.take(e)
			seen(e)
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (r *results) take(e event) {
	if e.Action == "stray" {
		r.plain.add(lineCounts(e.Output))
	}
	if e.Package == "" {
		return
	}
	p := r.pkg(e.Package)
	if e.Test == "" {
		switch e.Action {
		case "output":
			p.output.WriteString(e.Output)
		case "pass", "fail", "skip":
			p.state = e.Action
		}
		return
	}
	t := p.test(e.Test)
	switch e.Action {
	case "output":
		t.output.WriteString(e.Output)
		if specs, ok := specCounts(e.Output); ok {
			t.specs = &specs
		}
	case "pass", "fail", "skip":
		t.state = e.Action
		if parent := p.parent(e.Test); parent != nil && e.Action == "fail" {
			parent.broken++
		}
	}
}

func (r *results) pkg(name string) *pkg {
	p, ok := r.packages[name]
	if !ok {
		p = &pkg{name: name, tests: map[string]*test{}}
		r.packages[name] = p
	}
	return p
}

func (p *pkg) test(name string) *test {
	t, ok := p.tests[name]
	if !ok {
		t = &test{name: name}
		p.tests[name] = t
		if parent := p.parent(name); parent != nil {
			parent.children++
		}
	}
	return t
}

// parent returns the test that name is a subtest of, or nil. A subtest's own name may hold slashes,
// so its parent is the longest prefix that is a test: parents start before their subtests.
func (p *pkg) parent(name string) *test {
	for i := strings.LastIndex(name, "/"); i >= 0; i = strings.LastIndex(name[:i], "/") {
		if t, ok := p.tests[name[:i]]; ok {
			return t
		}
	}
	return nil
}

// count sums all packages. A test that never ended failed: its process was killed.
func (r *results) count() counts {
	total := r.plain
	for _, p := range r.packages {
		total.add(p.count())
	}
	return total
}

func (p *pkg) count() counts {
	var c counts
	for _, t := range p.tests {
		c.add(t.count())
	}
	if p.state != "pass" && p.state != "skip" && c.failed == 0 {
		c.failed++
	}
	return c
}

func (t *test) count() counts {
	switch {
	case t.specs != nil:
		c := *t.specs
		if t.state != "pass" && c.failed == 0 {
			c.failed++
		}
		return c
	case t.children > 0:
		if t.state != "pass" && t.state != "skip" && t.broken == 0 {
			return counts{failed: 1}
		}
		return counts{}
	case t.state == "pass":
		return counts{passed: 1}
	case t.state == "skip":
		return counts{skipped: 1}
	}
	return counts{failed: 1}
}

// describe returns what a reader wants to see of an event, or nothing.
func (r *results) describe(e event) string {
	switch {
	case e.Action == "stray", e.Action == "build-output":
		return e.Output
	case e.Package == "":
		return ""
	case e.Test == "":
		return r.pkg(e.Package).describe(e)
	case e.Action == "fail":
		return fmt.Sprintf("FAIL %s %s (%.1f s)\n%s", e.Package, e.Test, e.Elapsed, r.pkg(e.Package).test(e.Test).output.String())
	case e.Action == "pass" && e.Elapsed >= slow:
		return fmt.Sprintf("     %s (%.1f s)\n", e.Test, e.Elapsed)
	}
	return ""
}

func (p *pkg) describe(e event) string {
	c := p.count()
	switch e.Action {
	case "pass":
		return fmt.Sprintf("ok   %s: %d passed, %d skipped (%.1f s)\n", p.name, c.passed, c.skipped, e.Elapsed)
	case "fail":
		var unfinished strings.Builder
		for _, t := range p.tests {
			if t.state == "" {
				_, _ = fmt.Fprintf(&unfinished, "did not end: %s\n%s", t.name, t.output.String())
			}
		}
		return fmt.Sprintf("%s%sFAIL %s: %d passed, %d failed (%.1f s)\n", unfinished.String(), p.output.String(), p.name, c.passed, c.failed, e.Elapsed)
	}
	return ""
}

var ginkgoSummary = regexp.MustCompile(`(?:SUCCESS!|FAIL!).* -- (\d+) Passed \| (\d+) Failed \| (\d+) Pending \| (\d+) Skipped`)
var colour = regexp.MustCompile("\x1b\\[[0-9;]*m")

var step = regexp.MustCompile(`^(ok|FAIL) {2,4}\S`)

// lineCounts counts a line of plain output: Ginkgo's closing line, or one step of a script.
func lineCounts(line string) counts {
	if specs, ok := specCounts(line); ok {
		return specs
	}
	switch m := step.FindStringSubmatch(line); {
	case m == nil:
		return counts{}
	case m[1] == "ok":
		return counts{passed: 1}
	}
	return counts{failed: 1}
}

// specCounts reads Ginkgo's closing line.
func specCounts(line string) (counts, bool) {
	m := ginkgoSummary.FindStringSubmatch(colour.ReplaceAllString(line, ""))
	if m == nil {
		return counts{}, false
	}
	n := make([]int, len(m))
	for i := 1; i < len(m); i++ {
		n[i], _ = strconv.Atoi(m[i])
	}
	return counts{passed: n[1], failed: n[2], skipped: n[3] + n[4]}, true
}
