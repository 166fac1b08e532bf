//go:build cluster

// Package cluster tests the project's own local Kubernetes, by the script that stands beside it.
package cluster

import (
	"bufio"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// TestTheLocalCluster gives each step of hack/cluster/test.sh a test of its own. The script ends at
// the first step that fails; what it says from there on belongs to that step.
func TestTheLocalCluster(t *testing.T) {
	if os.Getenv("USE_EXISTING_CLUSTER") == "true" {
		t.Skip("tests the project's own cluster, not an existing one")
	}
	script := exec.CommandContext(t.Context(), "../../hack/cluster/test.sh")
	script.Stderr = os.Stderr
	output, err := script.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := script.Start(); err != nil {
		t.Fatal(err)
	}
	var failed string
	var details []string
	lines := bufio.NewScanner(output)
	for lines.Scan() {
		if name, ok := strings.CutPrefix(lines.Text(), "ok    "); ok {
			fields := strings.Fields(name)
			t.Run(strings.Join(fields[:len(fields)-2], " "), func(t *testing.T) { t.Log(strings.Join(fields, " ")) })
		} else if name, ok := strings.CutPrefix(lines.Text(), "FAIL  "); ok {
			failed = name
		} else {
			details = append(details, lines.Text())
		}
	}
	if failed != "" {
		t.Run(failed, func(t *testing.T) { t.Error(strings.Join(details, "\n")) })
	}
	if err := script.Wait(); err != nil {
		t.Errorf("hack/cluster/test.sh: %v", err)
	}
}
