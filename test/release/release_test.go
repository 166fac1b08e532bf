//go:build release

// Package release tests that a release is made only when everything holds, in clones of this repository.
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

// next is the release that the clones prepare; it is newer than any there will be.
const next = "99.0.0"

// corrected is the one after it.
const corrected = "99.0.1"

const repository = "../.."

// TestMain forgets what the Make that runs the suite exports: in the clones, each of another release, nobody typed it.
func TestMain(m *testing.M) {
	for _, name := range []string{"VERSION", "REPOSITORY", "CHANNELS", "DEFAULT_CHANNEL", "MAKEFLAGS", "MFLAGS", "MAKELEVEL"} {
		if err := os.Unsetenv(name); err != nil {
			panic(err)
		}
	}
	os.Exit(m.Run())
}

// refusals are what somebody did to a repository that is ready for release, and what the release is refused with.
var refusals = []struct {
	does    string
	spoil   func(*testing.T, clone)
	release string
	refused string
}{
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
	{does: "refuses a release that was made", release: "0.1.0", refused: "0.1.0 is released already"},
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
		c.replace(t, "catalog/releases.yaml", "commit: 298eb0949b", "commit: 0000000000")
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

const base = "config/manifests/bases/etcd-warden.clusterserviceversion.yaml"

func TestAReleaseIsRefusedWhileSomethingIsOutOfDate(t *testing.T) {
	ready := prepared(t)
	for _, r := range refusals {
		t.Run(r.does, func(t *testing.T) {
			c := ready.clone(t)
			if r.spoil != nil {
				r.spoil(t, c)
			}
			if !strings.Contains(r.refused, "not clean") {
				c.run(t, "git", "commit", "-qam", "Spoil the release", "--allow-empty")
			}
			version := next
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

func TestAReleaseIsRefusedWithoutEvidenceOfItsTests(t *testing.T) {
	c := prepared(t)
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

// note writes down, as hack/test.sh does, which suites passed on a commit.
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

// TestTheSuitesNoteThatTheyPassed runs the real script on a project of one test in each module.
func TestTheSuitesNoteThatTheyPassed(t *testing.T) {
	c, cache := clone{dir: t.TempDir()}, t.TempDir()
	command(t, repository, "cp", "-r", "--parents", "hack/test.sh", "hack/testsum", c.dir)
	for _, module := range []string{".", "hack/images", "hack/cluster", "hack/crdcheck"} {
		c.run(t, "mkdir", "-p", module)
		c.write(t, module+"/go.mod", "module example.com/module\n\ngo 1.26\n")
		c.write(t, module+"/one_test.go", "package one\n\nimport \"testing\"\n\nfunc TestOne(*testing.T) {}\n")
	}
	c.run(t, "git", "init", "-q")
	c.identify(t)
	c.run(t, "git", "add", "-A")
	for _, run := range []struct{ full, noted string }{{full: "", noted: "unit\n"}, {full: "true", noted: "unit\nunit-full\n"}} {
		c.run(t, "git", "commit", "-q", "--allow-empty", "-m", "Test")
		c.run(t, "env", "ETCD_WARDEN_CACHE="+cache, "ETCD_WARDEN_TEST_FULL="+run.full, "hack/test.sh", "unit")
		commit := strings.TrimSpace(c.run(t, "git", "rev-parse", "HEAD"))
		if noted := (clone{dir: cache}).read(t, "test/passed/"+commit); noted != run.noted {
			t.Errorf("with ETCD_WARDEN_TEST_FULL=%q, %q is noted", run.full, noted)
		}
	}
}

func TestAReleaseIsMadeWhole(t *testing.T) {
	c := prepared(t)
	before := c.state(t)
	if said, err := c.release("RELEASE_SUITES=", "--dry-run", next); err != nil {
		t.Fatalf("%v:\n%s", err, said)
	}
	if after := c.state(t); after != before {
		t.Errorf("a dry run changed the repository from\n%s\nto\n%s", before, after)
	}
	lock := filepath.Join(c.dir, ".git", "index.lock")
	c.write(t, filepath.Join(".git", "index.lock"), "") // as another git leaves it: the branch cannot be merged
	if said, err := c.release("RELEASE_SUITES=", next); err == nil || !strings.Contains(said, "main cannot take over what was built") {
		t.Fatalf("want the release to fail at its last step, got %v:\n%s", err, said)
	}
	if err := os.Remove(lock); err != nil {
		t.Fatal(err)
	}
	if after := c.state(t); after != before {
		t.Errorf("a release that failed at its last step changed the repository from\n%s\nto\n%s", before, after)
	}
	said, err := c.make("release", "VERSION="+next)
	if err != nil {
		t.Fatalf("%v:\n%s", err, said)
	}
	annotations := c.run(t, "git", "show", "v"+next+":bundle/metadata/annotations.yaml")
	for _, want := range []string{"channels.v1: candidate,stable,stable-v0\n", "channel.default.v1: stable\n"} {
		if !strings.Contains(annotations, want) {
			t.Errorf("the bundle's annotations lack %q:\n%s", want, annotations)
		}
	}
	if log := c.run(t, "git", "log", "-2", "--format=%s"); log != "Write the commit of release 99.0.0 down\nRelease 99.0.0\n" {
		t.Errorf("the last commits are:\n%s", log)
	}
	commit := strings.TrimSpace(c.run(t, "git", "rev-parse", "v"+next+"^{commit}"))
	if parent := strings.TrimSpace(c.run(t, "git", "rev-parse", "HEAD~1")); parent != commit {
		t.Errorf("the tag is at %s, the release's commit is %s", commit, parent)
	}
	if releases := c.read(t, "catalog/releases.yaml"); !strings.HasSuffix(releases, "- version: 99.0.0\n  commit: "+commit+"\n") {
		t.Errorf("catalog/releases.yaml ends:\n%s", releases)
	}
	csv := c.run(t, "git", "show", commit+":bundle/manifests/etcd-warden.clusterserviceversion.yaml")
	for _, want := range []string{"  name: etcd-warden.v99.0.0\n", today() + "T00:00:00Z", "image: ghcr.io/etcd-warden/etcd-warden:v99.0.0\n", "  version: 99.0.0\n"} {
		if !strings.Contains(csv, want) {
			t.Errorf("the bundle lacks %q", want)
		}
	}
	for _, image := range []string{"etcd-warden", "etcd-warden-bundle", "etcd-warden-catalog"} {
		if !strings.Contains(said, "crane push --index ") || !strings.Contains(said, "ghcr.io/etcd-warden/"+image+":v99.0.0") {
			t.Errorf("nothing says how to publish %s:\n%s", image, said)
		}
	}
	if !strings.Contains(said, "ghcr.io/etcd-warden/etcd-warden-catalog:latest\n") {
		t.Errorf("nothing says how to have the catalog's users offered the release:\n%s", said)
	}
	if status := c.run(t, "git", "status", "--porcelain"); status != "" {
		t.Errorf("the tree is not clean:\n%s", status)
	}
	if said, err := c.release("RELEASE_SUITES=", next); err == nil || !strings.Contains(said, "is released already") {
		t.Errorf("the same release is made again: %v\n%s", err, said)
	}
}

// TestABadReleaseIsSkippedByTheNext withdraws a release as CONTRIBUTING.md says.
func TestABadReleaseIsSkippedByTheNext(t *testing.T) {
	const bad = "  replaces: etcd-warden.v" + next + "\n"
	c := prepared(t)
	good := regexp.MustCompile(`(?m)^  replaces: .*\n`).FindString(c.read(t, base))
	c.write(t, "catalog/releases.yaml", strings.Replace(c.read(t, "catalog/releases.yaml"), `""`, strings.TrimSpace(c.run(t, "git", "rev-parse", "HEAD")), 1))
	c.run(t, "git", "commit", "-qam", "Release "+next)
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
		t.Errorf("want a release that passes over another without a word refused, got %v:\n%s", err, said)
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

// clone is a repository of the test's own.
type clone struct{ dir string }

// prepared is a clone of this repository, with what is not committed in it, that is ready to be released as next.
func prepared(t *testing.T) clone {
	t.Helper()
	c := clone{dir: filepath.Join(t.TempDir(), "ready")}
	command(t, ".", "git", "clone", "-q", repository, c.dir)
	c.run(t, "git", "checkout", "-qB", "main")
	c.identify(t)
	command(t, repository, "bash", "-c", `git ls-files -z --deleted | (cd "$0" && xargs -0r rm -f)
		git ls-files -z --cached --others --exclude-standard | xargs -0 sh -c 'for f; do [ ! -e "$f" ] || cp --parents "$f" "$0"; done' "$0"`, c.dir)
	if said, err := c.make("release-prepare", "VERSION="+next); err != nil {
		t.Fatalf("preparing the release: %v\n%s", err, said)
	}
	log := c.read(t, "CHANGELOG.md")
	_, rest, _ := strings.Cut(log, "## [Unreleased]\n")
	_, released, _ := strings.Cut(rest, "\n## [0.1.0]")
	c.write(t, "CHANGELOG.md", "# Changelog\n\n## [Unreleased]\n\n## ["+next+"] - "+today()+"\n- A test.\n\n## [0.1.0]"+released)
	c.run(t, "git", "add", "-A")
	c.run(t, "git", "commit", "-qm", "Prepare the release")
	return c
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

// make runs what a maintainer types: Make exports what the script must not take for its own.
func (c clone) make(args ...string) (string, error) {
	return c.said("RELEASE_SUITES=", "make", append([]string{"--no-print-directory"}, args...)...)
}

// said runs a command with one more variable, and returns what it says. Images are built for this machine alone.
func (c clone) said(variable, name string, args ...string) (string, error) {
	run := exec.Command(name, args...)
	run.Dir, run.Env = c.dir, append(os.Environ(), "ARCHITECTURES="+runtime.GOARCH, "OUT="+c.dir+"-images", variable)
	said, err := run.CombinedOutput()
	return string(said), err
}

// state is what a refusal may not change.
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

// replace changes the first place of a text, which must be there.
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
