package cluster

import (
	"strings"
	"testing"
	"unicode/utf8"
)

func TestForeignTextKeepsAShortPlainTextAndCleansAnyOther(t *testing.T) {
	for name, test := range map[string]struct{ text, want string }{
		"plain":              {"etcdserver: no leader", "etcdserver: no leader"},
		"other letters":      {"Größe 大", "Größe 大"},
		"lines":              {"a\nb\r\n\tc", "a b c"},
		"control characters": {"a\x00b\x1b[31mc\u0085d", "a b [31mc d"},
		"invalid UTF-8":      {"a\xff\xfeb", "a b"},
		"direction marks":    {"a\u202eb\u2066c\ufeffd", "a b c d"},
		"line separators":    {"a\u2028b\u2029c", "a b c"},
		"256 bytes":          {strings.Repeat("x", 256), strings.Repeat("x", 256)},
		"257 bytes":          {strings.Repeat("x", 257), strings.Repeat("x", 253) + "..."},
		"cut within a rune":  {strings.Repeat("大", 100), strings.Repeat("大", 84) + "..."},
		"empty":              {"", ""},
	} {
		t.Run(name, func(t *testing.T) {
			if got := ForeignText(test.text); got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

func FuzzForeignTextIsBoundedAndValid(f *testing.F) {
	f.Add("a\n\xff")
	f.Fuzz(func(t *testing.T, text string) {
		if got := ForeignText(text); len(got) > MaxForeignText || !utf8.ValidString(got) || strings.ContainsAny(got, "\n\r\x00\x1b") {
			t.Errorf("got %q", got)
		}
	})
}

func TestForeignVersionKnowsVersionsOnly(t *testing.T) {
	for text, known := range map[string]bool{
		"3.6.16": true, "3.7.0-rc.1": true, "3.5.32+vendor.2": true, "3.6.0-alpha": true,
		"": false, "3.6": false, "v3.6.16": false, "3.6.16\n": false, "3.6.16 ": false, "not_decided": false,
		"3.6.16-" + strings.Repeat("x", 57): true, "3.6.16-" + strings.Repeat("x", 58): false, "999999.1.1": false, "3.6.16-a b": false,
	} {
		if got := ForeignVersion(text); (got == text && text != "") != known || !known && got != "" {
			t.Errorf("ForeignVersion(%q) = %q", text, got)
		}
	}
}
