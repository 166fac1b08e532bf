package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/yaml"
)

// release is what an earlier release holds of the API.
type release struct {
	name        string
	definitions map[string]*definition
	// objects are what its users have: its samples and examples, and what it was seen to store.
	objects []object
}

// readReleases reads every release of catalog/releases.yaml that has a commit, oldest first, out of git.
func readReleases(repo string) ([]release, error) {
	raw, err := os.ReadFile(filepath.Join(repo, "catalog", "releases.yaml"))
	if err != nil {
		return nil, err
	}
	var listed []struct{ Version, Commit string }
	if err := yaml.UnmarshalStrict(raw, &listed); err != nil {
		return nil, fmt.Errorf("reading catalog/releases.yaml: %w", err)
	}
	var releases []release
	for _, l := range listed {
		if l.Commit == "" {
			continue // the release that is being made
		}
		r, err := readRelease(repo, l.Version, l.Commit)
		if err != nil {
			return nil, fmt.Errorf("reading release %s: %w", l.Version, err)
		}
		releases = append(releases, r)
	}
	return releases, nil
}

func readRelease(repo, name, commit string) (release, error) {
	r := release{name: name, definitions: map[string]*definition{}}
	listing, err := git(repo, "ls-tree", "-r", "--name-only", commit, "--", bases, "config/samples", "examples")
	if err != nil {
		return r, err
	}
	for path := range strings.FieldsSeq(string(listing)) {
		if filepath.Ext(path) != ".yaml" {
			continue
		}
		raw, err := git(repo, "show", commit+":"+path)
		if err != nil {
			return r, err
		}
		if strings.HasPrefix(path, bases) {
			d, err := newDefinition(raw)
			if err != nil {
				return r, fmt.Errorf("reading %s: %w", path, err)
			}
			r.definitions[d.groupKind()] = d
			continue
		}
		if err := r.take(raw); err != nil {
			return r, fmt.Errorf("reading %s: %w", path, err)
		}
	}
	stored, err := os.ReadFile(filepath.Join(repo, "hack", "crdcheck", "stored", name+".yaml"))
	if os.IsNotExist(err) {
		return r, nil
	} else if err != nil {
		return r, err
	}
	return r, r.take(stored)
}

func (r *release) take(raw []byte) error {
	objects, err := decode(raw)
	r.objects = append(r.objects, objects...)
	return err
}

func git(repo string, args ...string) ([]byte, error) {
	out, err := exec.Command("git", append([]string{"-C", repo}, args...)...).Output()
	if failed, ok := err.(*exec.ExitError); ok {
		return nil, fmt.Errorf("git %s: %s", strings.Join(args, " "), strings.TrimSpace(string(failed.Stderr)))
	}
	return out, err
}

// breaks compares the definitions with those of every release.
func breaks(releases []release, now map[string]*definition) (found []brokenPromise, err error) {
	stored := map[string][]string{}
	for _, r := range releases {
		for kind, old := range r.definitions {
			for _, v := range old.crd.Spec.Versions {
				if v.Storage && !slices.Contains(stored[kind], v.Name) {
					stored[kind] = append(stored[kind], v.Name)
				}
			}
			if now[kind] == nil {
				found = append(found, brokenPromise{r.name, whole, ".", "kinds", kind + " is gone, and with it every object of it", false})
				continue
			}
			broken, err := compare(r.name, old.crd, now[kind].crd, stored[kind])
			if err != nil {
				return nil, err
			}
			found = append(found, broken...)
		}
		kept, err := r.keeps(now)
		if err != nil {
			return nil, err
		}
		found = append(found, kept...)
	}
	return found, nil
}

// keeps says which of the release's objects the definitions refuse or read differently.
func (r *release) keeps(now map[string]*definition) (found []brokenPromise, err error) {
	for _, o := range r.objects {
		old, d := r.definitions[o.groupKind()], now[o.groupKind()]
		if old == nil || d == nil {
			continue
		}
		before, err := old.stored(o)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", o.name(), err)
		}
		if problems := old.validate(before); len(problems) > 0 {
			return nil, fmt.Errorf("%s was never valid: %w", o.name(), problems.ToAggregate())
		}
		say := func(format string, args ...any) {
			found = append(found, brokenPromise{r.name, o.version(), o.name(), "objects", fmt.Sprintf(format, args...), false})
		}
		after, err := d.stored(before)
		if err != nil {
			say("%v", err)
			continue
		}
		for _, problem := range d.validate(after) {
			say("refused now: %v", problem)
		}
		if difference := cmp.Diff(map[string]any(before), map[string]any(after)); difference != "" {
			say("read differently now (- then, + now):\n%s", difference)
		}
	}
	return found, nil
}

// allowance lets one break of one promise pass.
type allowance struct {
	// Release up to which the promise was made; Version, Path and Check are as crdcheck prints them.
	Release, Version, Path, Check string
	// Why no stored object and no client can be hurt.
	Why string
	// OLMv1 is what users of OLM v1 do, whose check refuses the upgrade: it is needed where it does.
	OLMv1 string `json:"olmv1,omitempty"`
}

type allowances []allowance

func readAllowed(path string) (allowed allowances, err error) {
	raw, err := os.ReadFile(path)
	if os.IsNotExist(err) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	if err := yaml.UnmarshalStrict(raw, &allowed); err != nil {
		return nil, fmt.Errorf("reading %s: %w", path, err)
	}
	for _, a := range allowed {
		if a.Why == "" {
			return nil, fmt.Errorf("%s: the entry for %s says nothing of why", path, a.Path)
		}
	}
	return allowed, nil
}

// sift returns the breaks that nothing allows, and the allowances that nothing needs.
func (a allowances) sift(found []brokenPromise) (open []brokenPromise, idle allowances) {
	used := make([]bool, len(a))
	for _, b := range found {
		i := slices.IndexFunc(a, func(a allowance) bool {
			return (!b.olm || a.OLMv1 != "") && a.Release == b.release && a.Version == b.version && a.Path == b.path && a.Check == b.check
		})
		if i < 0 {
			open = append(open, b)
		} else {
			used[i] = true
		}
	}
	for i := range a {
		if !used[i] {
			idle = append(idle, a[i])
		}
	}
	return open, idle
}
