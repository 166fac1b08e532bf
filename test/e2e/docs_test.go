package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
)

// shellBlock is a block of commands in a page: its indentation, its tags, and the commands.
var shellBlock = regexp.MustCompile("(?ms)^( *)```shell([^\n]*)\n(.*?)^ *```$")

// A command must be in a block of the language shell: not in one of another language, of none, or by indentation alone.
var (
	knownBlock       = regexp.MustCompile("(?ms)^ *```(shell|yaml|mermaid)\\b[^\n]*\n.*?^ *```$")
	indentedCommands = regexp.MustCompile(`(?m)^    +(\$ )?(kubectl|oc|make|go|helm|kind|sudo|curl) .*$`)
)

// They install and delete a CustomResourceDefinition that other specs use too.
var _ = Describe("Every command of", Serial, func() {
	for _, page := range []string{"README.md", "docs/install.md", "docs/how-an-operator-works.md", "docs/contributing.md", "docs/gitops.md"} {
		It(page+" works as it stands", func(ctx SpecContext) {
			text, err := os.ReadFile(filepath.Join(root, page))
			Expect(err).NotTo(HaveOccurred())
			reader := newReader(ctx)
			rest := knownBlock.ReplaceAllString(string(text), "")
			Expect(rest).NotTo(ContainSubstring("```"), "write commands as a block of the language shell")
			Expect(indentedCommands.FindString(rest)).To(BeEmpty(), "write commands as a block of the language shell")
			ran, left := 0, map[string]int{}
			for _, block := range shellBlock.FindAllStringSubmatch(string(text), -1) {
				commands := strings.ReplaceAll("\n"+block[3], "\n"+block[1], "\n")
				switch tag := strings.TrimSpace(block[2]); {
				case tag == "":
					reader.run(ctx, commands, true)
				case strings.HasPrefix(tag, "fails="):
					Expect(reader.run(ctx, commands, false)).To(ContainSubstring(strings.Trim(strings.TrimPrefix(tag, "fails="), `"`)))
				case tag == "background":
					reader.start(commands)
				case strings.HasPrefix(tag, "needs="):
					left[tag]++
					continue
				default:
					Fail("unknown tag " + tag)
				}
				ran++
			}
			Expect(ran+len(left)).To(BeNumerically(">", 0), "no block was found")
			AddReportEntry(page, fmt.Sprintf("%d blocks of commands ran; left out: %v", ran, left))
		})
	}
})

// root is the folder that the pages' commands are run in.
const root = "../.."

// reader is somebody who types the commands of a page, in a namespace of their own.
type reader struct{ env []string }

func newReader(ctx context.Context) *reader {
	GinkgoHelper()
	raw, err := os.ReadFile(settings["KUBECONFIG"])
	Expect(err).NotTo(HaveOccurred())
	kubeconfig := filepath.Join(GinkgoT().TempDir(), "kubeconfig")
	Expect(os.WriteFile(kubeconfig, raw, 0o600)).To(Succeed())
	r := &reader{env: append(os.Environ(), "KUBECONFIG="+kubeconfig, "PATH="+filepath.Dir(settings["KUBECTL"])+":"+os.Getenv("PATH"))}
	r.run(ctx, "kubectl config set-context --current --namespace="+newNamespace(ctx), true)
	return r
}

func (r *reader) command(ctx context.Context, commands string) *exec.Cmd {
	command := exec.CommandContext(ctx, "bash", "-euo", "pipefail", "-c", commands)
	command.Dir, command.Env = root, r.env
	return command
}

func (r *reader) run(ctx context.Context, commands string, succeeds bool) (said string) {
	GinkgoHelper()
	out, err := r.command(ctx, commands).CombinedOutput()
	Expect(err == nil).To(Equal(succeeds), "%s\n%s", commands, out)
	return string(out)
}

// start runs commands, and whatever they start, until the end of the page.
func (r *reader) start(commands string) {
	GinkgoHelper()
	command := r.command(context.Background(), commands)
	command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	command.Stdout, command.Stderr = GinkgoWriter, GinkgoWriter
	Expect(command.Start()).To(Succeed())
	DeferCleanup(func() {
		_ = syscall.Kill(-command.Process.Pid, syscall.SIGKILL)
		_ = command.Wait()
	})
}
