package cluster

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

func TestSupportsTheVersionsFromTheFirstPatchOfEachMinorOn(t *testing.T) {
	for _, version := range []string{"3.5.32", "3.5.100", "3.6.12", "3.6.16", "3.7.0", "3.7.3"} {
		if why := UnsupportedVersion(version); why != "" {
			t.Errorf("%s is refused: %s", version, why)
		}
	}
	for version, advice := range map[string]string{
		"3.5.31": "Write 3.5.32 or a later patch", "3.5.0": "Write 3.5.32", "3.6.11": "Write 3.6.12 or a later patch",
		"3.4.37": "3.5 from 3.5.32 on, 3.6 from 3.6.12 on, 3.7 from 3.7.0 on", "3.2.13": "upgrade it to 3.5 first",
		"3.8.0": "Write a supported version", "4.6.16": "Write a supported version", "2.5.40": "Write a supported version",
		"3.50.0": "Write a supported version", "0.0.0": "Write a supported version",
		"": "no version", "3.6": "no version", "99999999999999.0.0": "supported",
	} {
		if why := UnsupportedVersion(version); !strings.Contains(why, advice) {
			t.Errorf("%q: the reason is %q, want %q in it", version, why, advice)
		}
	}
}

func TestNamesTheVersionToGoToFirst(t *testing.T) {
	tested := TestedVersion("3.6")
	for _, test := range []struct{ from, to, want string }{
		{"3.5.32", "3.7.3", tested}, {"3.7.3", "3.5.35", tested}, {"3.5.35", "3.9.0", tested},
		{"3.5.32", "3.6.16", ""}, {"3.6.16", "3.5.32", ""}, {"3.6.12", "3.6.16", ""}, {"3.7.1", "3.7.1", ""},
		{"3.3.9", "3.6.16", ""}, {"3.7.0", "3.9.0", ""}, {"3.5.35", "4.7.0", ""}, {"3.5.35", "latest", ""}, {"", "3.7.0", ""},
	} {
		if got := VersionBetween(test.from, test.to); got != test.want {
			t.Errorf("%s to %s: go to %q first, want %q", test.from, test.to, got, test.want)
		}
	}
}

func TestCountsMinorVersions(t *testing.T) {
	for _, test := range []struct {
		from, to string
		want     int
		known    bool
	}{
		{"3.5.35", "3.6.12", 1, true}, {"3.7.1", "3.5.32", -2, true}, {"3.6", "3.6.16", 0, true}, {"3.9.0", "3.10.0", 1, true},
		{"3.6.0", "4.6.0", 0, false}, {"", "3.6.0", 0, false}, {"3.6.0", "x", 0, false},
	} {
		if got, known := MinorSteps(test.from, test.to); got != test.want || known != test.known {
			t.Errorf("%s to %s: %d, %t, want %d, %t", test.from, test.to, got, known, test.want, test.known)
		}
	}
	for _, test := range []struct {
		version string
		steps   int
		want    string
	}{
		{"3.6.16", 0, "3.6"}, {"3.6", -1, "3.5"}, {"3.9.1", 1, "3.10"}, {"3.0.0", -1, ""}, {"not_decided", 0, ""}, {"", 1, ""},
	} {
		if got := NextMinor(test.version, test.steps); got != test.want {
			t.Errorf("%d minor versions from %q: %q, want %q", test.steps, test.version, got, test.want)
		}
	}
}

func TestAdvisesBelowTheReleasesThatCloseSecurityHoles(t *testing.T) {
	for version, fixed := range map[string]string{
		"3.5.32": "3.5.33", "3.6.12": "3.6.14", "3.6.13": "3.6.14", "3.7.0": "3.7.1",
		"3.5.33": "", "3.5.35": "", "3.6.14": "", "3.7.1": "", "3.7.3": "", "3.8.0": "", "4.5.0": "", "": "", "3.6": "",
	} {
		advisory := AdvisoryFor(version)
		switch {
		case fixed == "" && advisory != nil:
			t.Errorf("%s has the advisory %+v", version, advisory)
		case fixed != "" && (advisory == nil || advisory.FixedIn != fixed || !strings.Contains(advisory.Holes, "watch all keys")):
			t.Errorf("%s has the advisory %+v, want %s", version, advisory, fixed)
		}
	}
}

func TestRecommendsOnlySupportedVersionsWithoutKnownHoles(t *testing.T) {
	for _, s := range etcdMinors {
		tested := fmt.Sprintf("3.%d.%d", s.minor, s.tested)
		if !Supported(tested) || AdvisoryFor(tested) != nil {
			t.Errorf("%s: supported %t, advisory %+v", tested, Supported(tested), AdvisoryFor(tested))
		}
	}
	for _, a := range etcdAdvisories {
		for minor, patch := range a.fixedIn {
			if fixed := fmt.Sprintf("3.%d.%d", minor, patch); !Supported(fixed) {
				t.Errorf("the advisory sends users to %s, which is not supported", fixed)
			}
		}
	}
}

func TestTheTestedVersionsAreThoseOfTheTools(t *testing.T) {
	for _, s := range etcdMinors {
		pins, err := os.ReadFile(fmt.Sprintf("../../hack/tools/etcd-3.%d/go.mod", s.minor))
		if err != nil {
			t.Fatal(err)
		}
		if pin := fmt.Sprintf("go.etcd.io/etcd/server/v3 v3.%d.%d ", s.minor, s.tested); !strings.Contains(string(pins), pin) {
			t.Errorf("hack/tools/etcd-3.%d does not pin %s", s.minor, pin)
		}
	}
}
