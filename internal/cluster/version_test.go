package cluster

import (
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
