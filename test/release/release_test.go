//go:build release

// Package release tests in clones of this repository that a release is made only when everything holds.
// The clones forget the releases of this repository: first is their first release, and next is made on top of it.
package release

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"
)

// Releases of the clones. They are newer than any release of this repository.
const (
	first     = "98.0.0"
	next      = "99.0.0"
	corrected = "99.0.1"
)

const repository = "../.."

// TestMain removes what the Make that runs the suite exports: its values are not those of the clones.
func TestMain(m *testing.M) {
	for _, name := range []string{"VERSION", "REPOSITORY", "CHANNELS", "DEFAULT_CHANNEL", "MAKEFLAGS", "MFLAGS", "MAKELEVEL"} {
		if err := os.Unsetenv(name); err != nil {
			panic(err)
		}
	}
	os.Exit(m.Run())
}

// refusal is a change of a repository that is ready for release, and the message with which the release is refused.
type refusal struct {
	does    string
	spoil   func(*testing.T, clone)
	release string
	refused string
}

// refusals are those of a later release.
var refusals = []refusal{
	{does: "refuses a file that is not committed", refused: "the tree is not clean", spoil: func(t *testing.T, c clone) {
		c.write(t, "README.md", "changed")
	}},
	{does: "refuses a file that git does not know", refused: "the tree is not clean", spoil: func(t *testing.T, c clone) {
		c.write(t, "new", "new")
	}},
	{does: "refuses another branch than main", refused: "releases are made of main", spoil: func(t *testing.T, c clone) {
		c.run(t, "git", "checkout", "-qb", "topic")
	}},
	{does: "refuses what is no version", release: "v99.0.0", refused: "is not a version"},
	{does: "refuses a version that the tree does not prepare", release: "99.0.1", refused: "the tree prepares release 99.0.0"},
	{does: "refuses a release that was made", release: first, refused: first + " is released already"},
	{does: "refuses a release whose tag exists", refused: "the tag v99.0.0 exists", spoil: func(t *testing.T, c clone) {
		c.run(t, "git", "tag", "v"+next)
	}},
	{does: "refuses a changelog without the release", refused: "has no dated section", spoil: func(t *testing.T, c clone) {
		c.replace(t, "CHANGELOG.md", "## ["+next+"]", "## [98.0.0]")
	}},
	{does: "refuses a changelog without the date", refused: "has no dated section", spoil: func(t *testing.T, c clone) {
		c.replace(t, "CHANGELOG.md", "## ["+next+"] - "+today(), "## ["+next+"]")
	}},
	{does: "refuses a day that does not exist", refused: "has no dated section", spoil: func(t *testing.T, c clone) {
		c.replace(t, "CHANGELOG.md", "] - "+today(), "] - 2026-02-30")
	}},
	{does: "refuses a date in the future", refused: "dates 99.0.0 to the future", spoil: func(t *testing.T, c clone) {
		c.replace(t, "CHANGELOG.md", "] - "+today(), "] - 2999-01-01")
	}},
	{does: "refuses changes that would be in no release's notes", refused: "has changes under Unreleased", spoil: func(t *testing.T, c clone) {
		c.replace(t, "CHANGELOG.md", "## [Unreleased]\n", "## [Unreleased]\n- Something.\n")
	}},
	{does: "refuses a catalog in which the release replaces nothing", refused: "has no entry in the channel candidate", spoil: func(t *testing.T, c clone) {
		c.replace(t, "catalog/template.yaml", "  - name: etcd-warden.v"+next+"\n    replaces: ", "  - name: etcd-warden.v"+next+"\n    skips: ")
	}},
	{does: "refuses a bundle that replaces nothing", refused: "does not replace", spoil: func(t *testing.T, c clone) {
		c.replace(t, base, "  replaces: etcd-warden.v", "  replaces: etcd-warden.v98.")
	}},
	{does: "refuses a release whose commit is not there", refused: "is not in this clone", spoil: func(t *testing.T, c clone) {
		c.replace(t, "catalog/releases.yaml", "version: "+first+"\n  commit: ", "version: "+first+"\n  commit: 0000000000")
	}},
	{does: "refuses a CRD that would refuse stored objects", refused: "objects that users stored would be lost or refused", spoil: func(t *testing.T, c clone) {
		c.replace(t, "config/crd/bases/operator.etcd-warden.io_etcdclusters.yaml", "maxLength: 16\n", "maxLength: 5\n")
	}},
	{does: "refuses generated files that are out of date", refused: "generated files are out of date", spoil: func(t *testing.T, c clone) {
		c.replace(t, "docs/conditions.md", "# Conditions", "# All conditions")
	}},
	{does: "refuses a bundle that somebody edited", refused: "generated files are out of date", spoil: func(t *testing.T, c clone) {
		c.replace(t, "bundle/manifests/etcd-warden.clusterserviceversion.yaml", "maturity: ", "maturity: very ")
	}},
}

// firstRefusals are those of a first release.
var firstRefusals = []refusal{
	{does: "refuses a first release that is in no channel", refused: "has no entry in the channel candidate", spoil: func(t *testing.T, c clone) {
		c.replace(t, "catalog/template.yaml", "  - name: etcd-warden.v"+first, "  - name: etcd-warden.v97.0.0")
	}},
	{does: "refuses a first release that replaces another", refused: "has no entry in the channel stable for 98.0.0 without replaces", spoil: func(t *testing.T, c clone) {
		c.addToEntry(t, "stable", "    replaces: etcd-warden.v97.0.0\n")
	}},
	{does: "refuses a first release that skips another", refused: "has no entry in the channel stable for 98.0.0 without replaces", spoil: func(t *testing.T, c clone) {
		c.addToEntry(t, "stable", "    skips: [etcd-warden.v97.0.0]\n")
	}},
	{does: "refuses a first release with a skipRange", refused: "has no entry in the channel stable-v0 for 98.0.0 without replaces", spoil: func(t *testing.T, c clone) {
		c.addToEntry(t, "stable-v0", "    skipRange: '>=97.0.0 <98.0.0'\n")
	}},
	{does: "refuses a first bundle that replaces another", refused: "there is no earlier release", spoil: func(t *testing.T, c clone) {
		c.replace(t, base, "  version: 0.0.0", "  replaces: etcd-warden.v97.0.0\n  version: 0.0.0")
	}},
	{does: "refuses a first bundle with a skipRange", refused: "there is no earlier release", spoil: func(t *testing.T, c clone) {
		c.replace(t, base, "  annotations:\n", "  annotations:\n    olm.skipRange: '>=97.0.0 <98.0.0'\n")
	}},
}

const base = "config/manifests/bases/etcd-warden.clusterserviceversion.yaml"

func TestRefusesAReleaseWhileSomethingIsOutOfDate(t *testing.T) {
	preparedNext(t).expectRefusals(t, next, refusals)
}

func TestRefusesAFirstReleaseThatReplacesAnother(t *testing.T) {
	preparedFirst(t).expectRefusals(t, first, firstRefusals)
}

// expectRefusals makes each change in a clone, and checks that the release is refused and that nothing else changes.
func (c clone) expectRefusals(t *testing.T, prepared string, refusals []refusal) {
	t.Helper()
	for _, r := range refusals {
		t.Run(r.does, func(t *testing.T) {
			c := c.clone(t)
			if r.spoil != nil {
				r.spoil(t, c)
			}
			if !strings.Contains(r.refused, "not clean") {
				c.run(t, "git", "commit", "-qam", "Spoil the release", "--allow-empty")
			}
			version := prepared
			if r.release != "" {
				version = r.release
			}
			before := c.state(t)
			said, err := c.release("RELEASE_SUITES=", version)
			if err == nil || !strings.Contains(said, r.refused) {
				t.Errorf("want it refused with %q, got %v:\n%s", r.refused, err, said)
			}
			if after := c.state(t); after != before {
				t.Errorf("the refusal changed the repository from\n%s\nto\n%s", before, after)
			}
		})
	}
}

func TestRefusesAReleaseWithoutEvidenceOfItsTests(t *testing.T) {
	c := preparedNext(t)
	c.replace(t, "CHANGELOG.md", "] - "+today(), "] - 2999-01-01") // stops the release before it takes long
	c.run(t, "git", "commit", "-qam", "Date the release to the future")
	tested := strings.TrimSpace(c.run(t, "git", "rev-parse", "HEAD"))
	cache := t.TempDir()
	for _, passed := range []struct{ suites, refused string }{
		{suites: "", refused: "the suite unit has not passed on this code: hack/test.sh unit"},
		{suites: "unit integration release e2e olm", refused: "the suite olm-full has not passed on this code: ETCD_WARDEN_TEST_FULL=true hack/test.sh olm"},
		{suites: "unit integration release e2e olm olm-full", refused: "to the future"},
	} {
		note(t, cache, tested, passed.suites)
		if said, err := c.release("ETCD_WARDEN_CACHE="+cache, next); err == nil || !strings.Contains(said, passed.refused) {
			t.Errorf("with %q passed, want it refused with %q, got %v:\n%s", passed.suites, passed.refused, err, said)
		}
	}
	c.write(t, "cmd/main.go", "package main\n")
	c.run(t, "git", "commit", "-qam", "Change the code after the tests")
	if said, err := c.release("ETCD_WARDEN_CACHE="+cache, next); err == nil || !strings.Contains(said, "has not passed on this code") {
		t.Errorf("want code that changed after its tests refused, got %v:\n%s", err, said)
	}
	c.run(t, "git", "reset", "-q", "--hard", tested)
	c.replace(t, "README.md", "# etcd-warden", "# The etcd-warden")
	c.run(t, "git", "commit", "-qam", "Change words after the tests")
	if said, _ := c.release("ETCD_WARDEN_CACHE="+cache, next); !strings.Contains(said, "to the future") {
		t.Errorf("words that changed after the tests must not be refused:\n%s", said)
	}
}

// note records, as hack/test.sh does, which suites passed on a commit.
func note(t *testing.T, cache, commit, suites string) {
	t.Helper()
	dir := filepath.Join(cache, "test", "passed")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, commit), []byte(strings.ReplaceAll(suites, " ", "\n")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestNotesWhichSuitesPassed runs the real script on a project of one test in each module.
func TestNotesWhichSuitesPassed(t *testing.T) {
	c, cache := clone{dir: t.TempDir()}, t.TempDir()
	command(t, repository, "cp", "-r", "--parents", "hack/test.sh", "hack/testsum", c.dir)
	for _, module := range []string{".", "hack/images", "hack/cluster", "hack/crdcheck", "hack/gitops", "hack/monitoring"} {
		c.run(t, "mkdir", "-p", module)
		c.write(t, module+"/go.mod", "module example.com/module\n\ngo 1.26\n")
		c.write(t, module+"/one_test.go", "package one\n\nimport \"testing\"\n\nfunc TestOne(*testing.T) {}\n")
	}
	c.run(t, "mkdir", "-p", "internal/simulation")
	c.write(t, "internal/simulation/search_test.go", `package simulation

import (
	"os"
	"testing"
)

func TestOne(*testing.T) {}

func TestNoReachableStateCostsQuorumOrAnAcknowledgedWrite(t *testing.T) {
	if os.Getenv("HARM") != "" {
		t.Error("harmed")
	}
}
`)
	c.run(t, "git", "init", "-q")
	c.identify(t)
	c.run(t, "git", "add", "-A")
	for _, run := range []struct{ full, suites, harm, noted string }{
		{suites: "unit", noted: "unit\n"},
		{full: "true", suites: "unit", noted: "unit\nunit-full\n"},
		{full: "true", suites: "unit search", noted: "unit\nunit-full\n"},
		{full: "true", suites: "unit search", harm: "yes"},
		{suites: "search"},
	} {
		c.run(t, "git", "commit", "-q", "--allow-empty", "-m", "Test")
		test := append([]string{"ETCD_WARDEN_CACHE=" + cache, "ETCD_WARDEN_TEST_FULL=" + run.full, "hack/test.sh"}, strings.Fields(run.suites)...)
		if said, err := c.said("HARM="+run.harm, "env", test...); (err == nil) != (run.harm == "") {
			t.Fatalf("%+v: %v\n%s", run, err, said)
		}
		commit := strings.TrimSpace(c.run(t, "git", "rev-parse", "HEAD"))
		noted, err := os.ReadFile(filepath.Join(cache, "test", "passed", commit))
		if string(noted) != run.noted || err != nil && !os.IsNotExist(err) {
			t.Errorf("%+v: %q is noted, %v", run, noted, err)
		}
	}
}

// TestMakesAFirstReleaseAndALaterOne tests everything in order. An attempt that changes nothing comes first.
func TestMakesAFirstReleaseAndALaterOne(t *testing.T) {
	c := preparedFirst(t)
	before := c.state(t)
	said, err := c.release("RELEASE_SUITES=", "--dry-run", first)
	if err != nil {
		t.Fatalf("%v:\n%s", err, said)
	}
	if !strings.Contains(said, "\ncrdcheck: nothing to compare: ") || strings.Contains(said, "the CRDs follow") {
		t.Errorf("it does not say that there is no release to compare with:\n%s", said)
	}
	if after := c.state(t); after != before {
		t.Errorf("a dry run changed the repository from\n%s\nto\n%s", before, after)
	}
	lock := filepath.Join(c.dir, ".git", "index.lock")
	c.write(t, filepath.Join(".git", "index.lock"), "") // as another git leaves it: the branch cannot be merged
	if said, err := c.release("RELEASE_SUITES=", first); err == nil || !strings.Contains(said, "main cannot take over what was built") {
		t.Fatalf("want the release to fail at its last step, got %v:\n%s", err, said)
	}
	if err := os.Remove(lock); err != nil {
		t.Fatal(err)
	}
	if after := c.state(t); after != before {
		t.Errorf("a release that failed at its last step changed the repository from\n%s\nto\n%s", before, after)
	}
	c.expectReleased(t, first)
	for _, edge := range []string{"replaces: ", "skipRange: "} {
		for _, path := range []string{"bundle/manifests/etcd-warden.clusterserviceversion.yaml", "catalog/template.yaml", "catalog/etcd-warden/catalog.yaml"} {
			if strings.Contains(c.read(t, path), edge) {
				t.Errorf("the first release has %q in %s", edge, path)
			}
		}
	}

	c.prepare(t, next)
	said = c.expectReleased(t, next)
	if !strings.Contains(said, "\ncrdcheck: the CRDs follow 1 releases") || strings.Contains(said, "nothing to compare") {
		t.Errorf("it does not say that it compared with the first release:\n%s", said)
	}
	for path, edges := range map[string]struct {
		prefix string
		count  int
	}{
		"bundle/manifests/etcd-warden.clusterserviceversion.yaml": {"olm.", 1},
		"catalog/template.yaml":                                   {" ", 3}, // in each channel
		"catalog/etcd-warden/catalog.yaml":                        {" ", 3},
	} {
		content := c.read(t, path)
		for _, edge := range []string{" replaces: etcd-warden.v98.0.0\n", edges.prefix + "skipRange: '>=98.0.0 <99.0.0'\n"} {
			if n := strings.Count(content, edge); n != edges.count {
				t.Errorf("%s has %q %d times, want %d", path, edge, n, edges.count)
			}
		}
	}
}

// expectReleased makes a release, checks what is there then, and returns what was printed.
func (c clone) expectReleased(t *testing.T, version string) string {
	t.Helper()
	said, err := c.make("release", "VERSION="+version)
	if err != nil {
		t.Fatalf("%v:\n%s", err, said)
	}
	annotations := c.run(t, "git", "show", "v"+version+":bundle/metadata/annotations.yaml")
	for _, want := range []string{"channels.v1: candidate,stable,stable-v0\n", "channel.default.v1: stable\n"} {
		if !strings.Contains(annotations, want) {
			t.Errorf("the bundle's annotations lack %q:\n%s", want, annotations)
		}
	}
	if log := c.run(t, "git", "log", "-2", "--format=%s"); log != "Write the commit of release "+version+" down\nRelease "+version+"\n" {
		t.Errorf("the last commits are:\n%s", log)
	}
	commit := strings.TrimSpace(c.run(t, "git", "rev-parse", "v"+version+"^{commit}"))
	if parent := strings.TrimSpace(c.run(t, "git", "rev-parse", "HEAD~1")); parent != commit {
		t.Errorf("the tag is at %s, the release's commit is %s", commit, parent)
	}
	if releases := c.read(t, "catalog/releases.yaml"); !strings.HasSuffix(releases, "- version: "+version+"\n  commit: "+commit+"\n") {
		t.Errorf("catalog/releases.yaml ends:\n%s", releases)
	}
	csv := c.run(t, "git", "show", commit+":bundle/manifests/etcd-warden.clusterserviceversion.yaml")
	for _, want := range []string{
		"  name: etcd-warden.v" + version + "\n", today() + "T00:00:00Z", "image: ghcr.io/etcd-warden/etcd-warden:v" + version + "\n", "  version: " + version + "\n",
	} {
		if !strings.Contains(csv, want) {
			t.Errorf("the bundle lacks %q", want)
		}
	}
	for _, image := range []string{"etcd-warden", "etcd-warden-bundle", "etcd-warden-catalog"} {
		if !strings.Contains(said, "crane push --index ") || !strings.Contains(said, "ghcr.io/etcd-warden/"+image+":v"+version) {
			t.Errorf("it does not say how to publish %s:\n%s", image, said)
		}
	}
	if !strings.Contains(said, "ghcr.io/etcd-warden/etcd-warden-catalog:latest\n") {
		t.Errorf("it does not say how to publish the catalog under the tag that its users follow:\n%s", said)
	}
	if status := c.run(t, "git", "status", "--porcelain"); status != "" {
		t.Errorf("the tree is not clean:\n%s", status)
	}
	if said, err := c.release("RELEASE_SUITES=", version); err == nil || !strings.Contains(said, "is released already") {
		t.Errorf("the same release is made again: %v\n%s", err, said)
	}
	return said
}

// TestSkipsABadReleaseWithTheNext withdraws a release as docs/contributing.md says.
func TestSkipsABadReleaseWithTheNext(t *testing.T) {
	const bad = "  replaces: etcd-warden.v" + next + "\n"
	c := preparedNext(t)
	good := regexp.MustCompile(`(?m)^  replaces: .*\n`).FindString(c.read(t, base))
	c.recordRelease(t)
	if said, err := c.make("release-prepare", "VERSION="+corrected); err != nil {
		t.Fatalf("%v\n%s", err, said)
	}
	template := c.read(t, "catalog/template.yaml")
	if said, err := c.make("release-prepare", "VERSION="+corrected); err != nil || c.read(t, "catalog/template.yaml") != template {
		t.Errorf("preparing it again, %v, writes another upgrade graph:\n%s", err, said)
	}
	c.replace(t, base, bad, good)
	c.write(t, "catalog/template.yaml", strings.ReplaceAll(template, bad, good))
	c.replace(t, "CHANGELOG.md", "## ["+next+"]", "## ["+corrected+"] - "+today()+"\n- Mended.\n\n## ["+next+"]")
	c.run(t, "git", "commit", "-qam", "Prepare the corrected release")
	if said, err := c.release("RELEASE_SUITES=", corrected); err == nil || !strings.Contains(said, "replaces etcd-warden.v99.0.0, the newest that it does not skip") {
		t.Errorf("want a release refused that leaves another out and does not skip it, got %v:\n%s", err, said)
	}
	c.write(t, "catalog/template.yaml", strings.ReplaceAll(template, bad, good+"    skips: [etcd-warden.v"+next+"]\n"))
	if said, err := c.make("bundle", "catalog"); err != nil {
		t.Fatalf("%v\n%s", err, said)
	}
	c.run(t, "git", "commit", "-qam", "Skip the bad release")
	if said, err := c.release("RELEASE_SUITES=", "--dry-run", corrected); err != nil {
		t.Errorf("%v:\n%s", err, said)
	}
}

// clone is a repository that belongs to one test.
type clone struct{ dir string }

// preparedFirst is a clone of this repository, with uncommitted changes and without any release.
// It is ready to be the first release.
func preparedFirst(t *testing.T) clone {
	t.Helper()
	c := clone{dir: filepath.Join(t.TempDir(), "ready")}
	command(t, ".", "git", "clone", "-q", repository, c.dir)
	c.run(t, "git", "checkout", "-qB", "main")
	c.identify(t)
	command(t, repository, "bash", "-c", `git ls-files -z --deleted | (cd "$0" && xargs -0r rm -f)
		git ls-files -z --cached --others --exclude-standard | xargs -0 sh -c 'for f; do [ ! -e "$f" ] || cp --parents "$f" "$0"; done' "$0"`, c.dir)
	c.write(t, "catalog/releases.yaml", "# No release yet.\n")
	template := c.read(t, "catalog/template.yaml")
	template = regexp.MustCompile(`(?m)^  - name: etcd-warden\.v.*\n(    .*\n)*`).ReplaceAllString(template, "")
	c.write(t, "catalog/template.yaml", regexp.MustCompile(`(?m)^- schema: olm\.bundle\n  image: .*\n`).ReplaceAllString(template, ""))
	c.prepare(t, first)
	return c
}

// preparedNext is a clone that has made first, and is ready to be released as next.
func preparedNext(t *testing.T) clone {
	t.Helper()
	c := preparedFirst(t)
	c.recordRelease(t)
	c.prepare(t, next)
	return c
}

// prepare prepares a release, dates it in the changelog, and commits.
func (c clone) prepare(t *testing.T, version string) {
	t.Helper()
	if said, err := c.make("release-prepare", "VERSION="+version); err != nil {
		t.Fatalf("preparing the release: %v\n%s", err, said)
	}
	c.write(t, "CHANGELOG.md", "# Changelog\n\n## [Unreleased]\n\n## ["+version+"] - "+today()+"\n- A test.\n")
	c.run(t, "git", "add", "-A")
	c.run(t, "git", "commit", "-qm", "Prepare the release")
}

// recordRelease writes down that HEAD is the release that the clone prepares, without building it.
func (c clone) recordRelease(t *testing.T) {
	t.Helper()
	c.replace(t, "catalog/releases.yaml", `""`, strings.TrimSpace(c.run(t, "git", "rev-parse", "HEAD")))
	c.run(t, "git", "commit", "-qam", "Write the commit of the release down")
}

// addToEntry adds lines to the entry of first in a channel of the template.
func (c clone) addToEntry(t *testing.T, channel, lines string) {
	t.Helper()
	entry := "  name: " + channel + "\n  entries:\n  - name: etcd-warden.v" + first + "\n"
	c.replace(t, "catalog/template.yaml", entry, entry+lines)
}

func (c clone) clone(t *testing.T) clone {
	t.Helper()
	copied := clone{dir: filepath.Join(t.TempDir(), "clone")}
	command(t, ".", "git", "clone", "-q", c.dir, copied.dir)
	copied.identify(t)
	return copied
}

func (c clone) identify(t *testing.T) {
	t.Helper()
	c.run(t, "git", "config", "user.name", "Release test")
	c.run(t, "git", "config", "user.email", "test@example.com")
}

// release runs the script with one more variable.
func (c clone) release(variable string, args ...string) (string, error) {
	return c.said(variable, filepath.Join(c.dir, "hack", "release.sh"), args...)
}

// make runs what a maintainer types. Make exports values that the script must not use.
func (c clone) make(args ...string) (string, error) {
	return c.said("RELEASE_SUITES=", "make", append([]string{"--no-print-directory"}, args...)...)
}

// said runs a command with one more variable, and returns its output.
// Images are built for this machine's architecture only.
func (c clone) said(variable, name string, args ...string) (string, error) {
	run := exec.Command(name, args...)
	run.Dir, run.Env = c.dir, append(os.Environ(), "ARCHITECTURES="+runtime.GOARCH, "OUT="+c.dir+"-images", variable)
	said, err := run.CombinedOutput()
	return string(said), err
}

// state is what a refusal must not change.
func (c clone) state(t *testing.T) string {
	t.Helper()
	return c.run(t, "bash", "-c", "git rev-parse HEAD; git for-each-ref; git status --porcelain; git diff | sha256sum")
}

func (c clone) run(t *testing.T, args ...string) string {
	t.Helper()
	return command(t, c.dir, args...)
}

func (c clone) read(t *testing.T, path string) string {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(c.dir, path))
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

func (c clone) write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(c.dir, path), []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// replace replaces the first occurrence of a text, which must be there.
func (c clone) replace(t *testing.T, path, old, now string) {
	t.Helper()
	content := c.read(t, path)
	if !strings.Contains(content, old) {
		t.Fatalf("%s lacks %q", path, old)
	}
	command(t, c.dir, "chmod", "u+w", path)
	c.write(t, path, strings.Replace(content, old, now, 1))
}

func command(t *testing.T, dir string, args ...string) string {
	t.Helper()
	run := exec.Command(args[0], args[1:]...)
	run.Dir = dir
	out, err := run.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

func today() string { return time.Now().UTC().Format(time.DateOnly) }
