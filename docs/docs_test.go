// Package docs checks that what the pages name exists.
package docs

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const root = ".."

var (
	declared = regexp.MustCompile(`(?m)^func (Test\w+)\(`)
	named    = regexp.MustCompile("`(Test\\w+)(…?)`")
	link     = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	heading  = regexp.MustCompile(`(?m)^#+ (.*)$`)
	noAnchor = regexp.MustCompile(`[^\p{L}\p{N} _-]`)
)

// filesOf returns the contents of the repository's files of one ending by their paths.
func filesOf(t *testing.T, ending string) map[string]string {
	t.Helper()
	files := map[string]string{}
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && path != root && strings.HasPrefix(entry.Name(), "."):
			return fs.SkipDir
		case entry.IsDir() || !strings.HasSuffix(path, ending):
			return nil
		}
		raw, err := os.ReadFile(path)
		files[path] = string(raw)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func TestThePagesNameTestsThatExist(t *testing.T) {
	tests := map[string]bool{}
	for _, source := range filesOf(t, "_test.go") {
		for _, match := range declared.FindAllStringSubmatch(source, -1) {
			tests[match[1]] = true
		}
	}
	pages := filesOf(t, ".md")
	if !named.MatchString(pages["../docs/evidence.md"]) {
		t.Error("the evidence names no test")
	}
	for path, page := range pages {
		for _, match := range named.FindAllStringSubmatch(page, -1) {
			name, shortened := match[1], match[2] != ""
			if !tests[name] && (!shortened || !anyBeginsWith(tests, name)) {
				t.Errorf("%s names %s, and there is no such test", path, name+match[2])
			}
		}
	}
}

var (
	specTitle = regexp.MustCompile(`\b(?:Describe|Context|When|It|DescribeTable)\(((?:"[^"]*"|\s*\+\s*|\w+)+),`)
	specNames = regexp.MustCompile(`e2e ("[^"]+"(?: \([^)"]*\))?(?:, "[^"]+"(?: \([^)"]*\))?)*)`)
	quoted    = regexp.MustCompile(`"([^"]+)"`)
	leftOut   = regexp.MustCompile(` ?… ?`)
	variable  = regexp.MustCompile(`"\s*\+\s*\w+(?:\s*\+\s*")?`)
)

// TestThePagesNameSpecsThatExist compares what the pages call e2e "…" with the titles of the specs: that of one, or of
// its container and itself. A page may leave words out, and write "…" for them.
func TestThePagesNameSpecsThatExist(t *testing.T) {
	var titles []string
	for path, source := range filesOf(t, "_test.go") {
		if !strings.Contains(path, "test/e2e") {
			continue
		}
		var here []string
		for _, match := range specTitle.FindAllStringSubmatch(source, -1) {
			here = append(here, strings.Trim(variable.ReplaceAllString(match[1], "…"), `"`))
		}
		titles = append(titles, here...)
		for _, container := range here {
			for _, spec := range here {
				titles = append(titles, container+" "+spec)
			}
		}
	}
	found := 0
	for path, page := range filesOf(t, ".md") {
		for _, names := range specNames.FindAllStringSubmatch(page, -1) {
			for _, name := range quoted.FindAllStringSubmatch(names[1], -1) {
				found++
				pattern := regexp.MustCompile(leftOut.ReplaceAllString(regexp.QuoteMeta(name[1]), ".*"))
				if !slices.ContainsFunc(titles, pattern.MatchString) {
					t.Errorf("%s names the spec %q, and there is none", path, name[1])
				}
			}
		}
	}
	if found == 0 {
		t.Error("no page names a spec")
	}
}

func anyBeginsWith(names map[string]bool, beginning string) bool {
	for name := range names {
		if strings.HasPrefix(name, beginning) {
			return true
		}
	}
	return false
}

func TestLinksLeadToFilesAndHeadings(t *testing.T) {
	pages := filesOf(t, ".md")
	if len(pages) == 0 {
		t.Fatal("there are no pages")
	}
	for path, text := range pages {
		for _, match := range link.FindAllStringSubmatch(text, -1) {
			target, anchor, _ := strings.Cut(match[1], "#")
			if strings.Contains(target, ":") {
				continue // another site
			}
			to := path
			if target != "" {
				to = filepath.Join(filepath.Dir(path), target)
			}
			if _, err := os.Stat(to); err != nil {
				t.Errorf("%s links to %s: %v", path, match[1], err)
			} else if page, ok := pages[to]; ok && anchor != "" && !hasHeading(page, anchor) {
				t.Errorf("%s links to %s, and there is no such heading", path, match[1])
			}
		}
	}
}

// hasHeading reports whether a page has a heading with this anchor, made as GitHub does.
func hasHeading(page, anchor string) bool {
	for _, match := range heading.FindAllStringSubmatch(page, -1) {
		if strings.ReplaceAll(noAnchor.ReplaceAllString(strings.ToLower(match[1]), ""), " ", "-") == anchor {
			return true
		}
	}
	return false
}

var (
	storedKey     = regexp.MustCompile(`(?m)^\s*\w+\s*=\s*Prefix \+ "([a-z-]+)"`)
	userKey       = regexp.MustCompile(`"operator\.etcd-warden\.io/([a-z-]+)"`)
	operationType = regexp.MustCompile(`OperationType = "(\w+)"`)
	phase         = regexp.MustCompile(`Phase = "(\w+)"`)
)

// TestTheFirstADRNamesEveryStoredName holds the names that the operator stores against the page that says they stay.
// A name that is renamed or added without a word there fails.
func TestTheFirstADRNamesEveryStoredName(t *testing.T) {
	page := readFile(t, "adr/0001-one-cluster-through-the-releases.md")
	for source, pattern := range map[string]*regexp.Regexp{
		"../internal/cluster/names.go":         storedKey,
		"../api/v1beta1/etcdcluster_types.go":  userKey,
		"../api/v1beta1/etcdcluster_status.go": operationType,
		"../internal/cluster/certificates.go":  phase,
	} {
		names := pattern.FindAllStringSubmatch(readFile(t, source), -1)
		if len(names) == 0 {
			t.Errorf("%s: found no name", source)
		}
		for _, match := range names {
			if !strings.Contains(page, "`"+match[1]+"`") {
				t.Errorf("%s: ADR 1 does not name %q", source, match[1])
			}
		}
	}
}

func readFile(t *testing.T, path string) string {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}
