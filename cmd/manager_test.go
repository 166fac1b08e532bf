package main

import (
	"strings"
	"testing"
)

func TestRefusesLifetimesThatCannotWork(t *testing.T) {
	for flags, says := range map[string]string{
		"": "",
		"--certificate-lifetime=6m --authority-lifetime=2h --authority-overlap=2m": "",
		"--certificate-lifetime=1m":  "--certificate-lifetime is 1m0s, and must be at least 5m0s",
		"--authority-overlap=1m":     "--authority-overlap is 1m0s, and must be at least 2m0s",
		"--authority-lifetime=4320h": "must be at least three times --certificate-lifetime",
		"--certificate-lifetime=1h --authority-lifetime=23h --authority-overlap=2h":   "must be at least twelve times --authority-overlap",
		"--certificate-lifetime=1h --authority-lifetime=-1h --authority-overlap=120s": "must be at least three times --certificate-lifetime",
	} {
		_, err := parseOptions(strings.Fields(flags))
		switch {
		case says == "" && err != nil:
			t.Errorf("%q: %v", flags, err)
		case says != "" && (err == nil || !strings.Contains(err.Error(), says)):
			t.Errorf("%q: %v", flags, err)
		}
	}
}

func TestThePaceIsAtLeastOneCluster(t *testing.T) {
	for flags, want := range map[string]int{"": 10, "--max-disruptions=1": 1, "--max-disruptions=0": 0, "--max-disruptions=-1": 0} {
		o, err := parseOptions(strings.Fields(flags))
		switch {
		case want == 0 && (err == nil || !strings.Contains(err.Error(), "--max-disruptions must be at least 1")):
			t.Errorf("%q: %v", flags, err)
		case want > 0 && (err != nil || o.maxDisruptions != want || o.freeze):
			t.Errorf("%q: %+v, %v", flags, o, err)
		}
	}
	if o, err := parseOptions([]string{"--freeze-disruptions"}); err != nil || !o.freeze {
		t.Errorf("%+v, %v", o, err)
	}
}
