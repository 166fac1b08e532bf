package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/etcd-warden/etcd-warden/internal/cluster"
)

func TestTheVersionOfAnImageIsWhatItsEtcdSays(t *testing.T) {
	dir := t.TempDir()
	for name, c := range map[string]struct{ script, version, failure string }{
		"a version":           {"echo 'etcd Version: 3.6.16'; echo 'Git SHA: x'", "3.6.16", ""},
		"build metadata":      {"echo 'etcd Version: 3.6.16+vendor'", "3.6.16", ""},
		"a crash":             {"exit 3", "", "exit status 3"},
		"another program":     {"echo hello", "", "prints no version"},
		"no output":           {"true", "", "prints no version"},
		"a release candidate": {"echo 'etcd Version: 3.7.0-rc.0'", "", "prints no version"},
		"endless output":      {"echo 'etcd Version: 3.6.16'; head -c 100000 /dev/zero", "3.6.16", ""},
		"something hostile":   {`printf 'etcd Version: 3.6.16 \033[2J\n'`, "", "prints no version"},
	} {
		binary, message := filepath.Join(dir, "etcd"), filepath.Join(dir, "message")
		if err := os.WriteFile(binary, []byte("#!/bin/sh\n"+c.script+"\n"), 0o700); err != nil {
			t.Fatal(err)
		}
		err := checkImage(binary, message)
		text, readErr := os.ReadFile(message)
		if readErr != nil {
			t.Fatal(readErr)
		}
		if got := cluster.ImageCheckVersion(string(text)); got != c.version || (err == nil) != (c.failure == "") || len(text) > cluster.MaxImageCheckMessage {
			t.Errorf("%s: version %q, error %v, message %q", name, got, err, text)
		}
		if err != nil && !strings.Contains(string(text), c.failure) {
			t.Errorf("%s: the message is %q", name, text)
		}
	}
	if err := checkImage(filepath.Join(dir, "missing"), filepath.Join(dir, "message")); err == nil {
		t.Error("an image without etcd has a version")
	}
}

func TestTheBinaryIsCopiedSoThatItRuns(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	to := filepath.Join(t.TempDir(), "etcd-warden")
	if err := runImageCheck([]string{"copy", to}); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(to)
	if err != nil || info.Mode().Perm()&0o111 == 0 {
		t.Fatalf("the copy: %v, %v", info, err)
	}
	if original, err := os.Stat(self); err != nil || original.Size() != info.Size() {
		t.Errorf("the copy has %d bytes", info.Size())
	}
	for _, args := range [][]string{nil, {"copy"}, {"run", "x"}, {"look"}} {
		if err := runImageCheck(args); err == nil {
			t.Errorf("%v is accepted", args)
		}
	}
}
