package cluster

import (
	"regexp"
	"strings"
	"unicode"
)

const (
	// MaxForeignText is how many bytes the operator keeps of a text that a member, or a tenant's container, wrote.
	MaxForeignText = 256
	// maxVersion is how many bytes a version has at most; the status holds no longer one.
	maxVersion = 64
)

// ForeignText makes a text that the operator did not write safe for conditions, events and logs: valid UTF-8 on one
// line, without control characters, of at most MaxForeignText bytes. A text that was cut ends with "...".
func ForeignText(text string) string {
	const more = "..."
	cut := len(text) > MaxForeignText
	if cut {
		text = text[:MaxForeignText]
	}
	text = strings.Map(func(r rune) rune {
		if r == unicode.ReplacementChar || unicode.IsControl(r) || unicode.Is(unicode.Cf, r) || r == '\u2028' || r == '\u2029' {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(text, " "))
	text = strings.Join(strings.Fields(text), " ")
	if cut {
		text = strings.ToValidUTF8(text[:min(len(text), MaxForeignText-len(more))], "") + more
	}
	return text
}

var versionPattern = regexp.MustCompile(`^[0-9]{1,5}\.[0-9]{1,5}\.[0-9]{1,5}([-+][0-9A-Za-z.+-]+)?$`)

// ForeignVersion returns a version of the form x.y.z, with or without a suffix, and "" for any other text: unknown.
func ForeignVersion(text string) string {
	if len(text) > maxVersion || !versionPattern.MatchString(text) {
		return ""
	}
	return text
}
