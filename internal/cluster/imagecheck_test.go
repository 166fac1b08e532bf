package cluster

import (
	"strings"
	"testing"
)

func TestTheMessageOfAnImageCheckIsReadStrictly(t *testing.T) {
	for message, want := range map[string]string{
		ImageCheckMessage("3.6.16"):                 "3.6.16",
		"etcd 3.6.16+vendor.1":                      "3.6.16",
		"etcd 3.7.0-rc.1":                           "",
		"etcd 3.6":                                  "",
		"etcd 3.6.16\n":                             "",
		"etcd 3.6.16 ":                              "",
		" etcd 3.6.16":                              "",
		"etcd Version: 3.6.16":                      "",
		"etcd 3.6.16\netcd 3.7.3":                   "",
		"etcd 3.6.1234":                             "",
		"etcd 3.6.16+" + strings.Repeat("x", 41):    "",
		"etcd 3.6.16" + strings.Repeat("\x00", 300): "",
		"": "",
	} {
		if got := ImageCheckVersion(message); got != want {
			t.Errorf("%q: got %q, want %q", message, got, want)
		}
	}
}
