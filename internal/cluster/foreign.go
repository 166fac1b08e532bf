package cluster

import (
	"regexp"
	"strings"
	"unicode"
)

const (
	// MaxMembers is how many members the operator asks, takes from an answer and reports. The schema of the status has
	// the same limit. A tenant may label any number of objects as members.
	MaxMembers = 64
	// MaxForeignText is how many bytes the operator keeps of a text that a member, or a tenant's container, wrote.
	MaxForeignText = 256
	// maxVersion is how many bytes a version has at most; the status holds no longer one.
	maxVersion = 64
)

// ForeignText makes a text that the operator did not write safe for conditions, events and logs: valid UTF-8 on one
// line, without control characters, of at most MaxForeignText bytes. A text that was cut ends with "...".
func ForeignText(text string) string {
	const more = "..."
	if len(text) <= MaxForeignText {
		return OneLine(text)
	}
	text = OneLine(text[:MaxForeignText])
	return strings.ToValidUTF8(text[:min(len(text), MaxForeignText-len(more))], "") + more
}

// OneLine replaces what is not valid UTF-8, control characters and line ends, and joins the words with single spaces.
func OneLine(text string) string {
	text = strings.Map(func(r rune) rune {
		if ' ' <= r && r < unicode.MaxASCII {
			return r
		}
		if r == unicode.ReplacementChar || unicode.In(r, unicode.Cc, unicode.Cf, unicode.Zl, unicode.Zp) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(text, " "))
	return strings.Join(strings.Fields(text), " ")
}

var versionPattern = regexp.MustCompile(`^[0-9]{1,5}\.[0-9]{1,5}\.[0-9]{1,5}([-+][0-9A-Za-z.+-]+)?$`)

// ForeignVersion returns a version of the form x.y.z, with or without a suffix, and "" for any other text: unknown.
func ForeignVersion(text string) string {
	if len(text) > maxVersion || !versionPattern.MatchString(text) {
		return ""
	}
	return text
}

// Shortened puts a message on one line and cuts it to a number of bytes. A message that was cut ends with a hint.
func Shortened(message string, limit int) string {
	message = OneLine(message)
	if len(message) <= limit {
		return message
	}
	const hint = "... (shortened)"
	return strings.ToValidUTF8(message[:limit-len(hint)], "") + hint
}
