package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/etcd-warden/etcd-warden/internal/cluster"
	"github.com/etcd-warden/etcd-warden/internal/render"
)

const (
	// imageCheckTimeout is how long the etcd of an image gets to tell its version.
	imageCheckTimeout = 30 * time.Second
	// maxVersionOutput is how much of what it prints is read.
	maxVersionOutput = 4 << 10
	terminationLog   = "/dev/termination-log"
)

// runImageCheck runs in the pod that looks at an image before a member runs it. The operator's own image copies this
// binary to a volume of the pod. There it runs in the image to look at, which has no shell, and asks its etcd.
func runImageCheck(args []string) error {
	switch {
	case len(args) == 2 && args[0] == "copy":
		self, err := os.Executable()
		if err != nil {
			return fmt.Errorf("finding the binary: %w", err)
		}
		return copyBinary(self, args[1])
	case len(args) == 1 && args[0] == "run":
		return checkImage(render.EtcdBinary, terminationLog)
	default:
		return errors.New("say copy FILE, or run")
	}
}

// copyPiece is how much is written before it is synchronized. A member of etcd may have its log on the same disk, and
// the file system makes its fsync wait for what others wrote before: for all of the binary it would be 0.3 s.
const copyPiece = 1 << 20

func copyBinary(from, to string) error {
	source, err := os.Open(from)
	if err != nil {
		return err
	}
	defer func() { _ = source.Close() }() // it was only read
	target, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o755)
	if err != nil {
		return err
	}
	return errors.Join(copyInPieces(target, source), target.Close())
}

func copyInPieces(target *os.File, source io.Reader) error {
	for {
		_, err := io.CopyN(target, source, copyPiece)
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		if syncErr := target.Sync(); syncErr != nil || err != nil {
			return syncErr
		}
	}
}

// checkImage writes which version the binary says that it is, or why it does not, as the termination message.
func checkImage(binary, message string) error {
	version, err := versionOf(binary)
	text := cluster.ImageCheckMessage(version)
	if err != nil {
		text = cluster.Shortened(err.Error(), cluster.MaxImageCheckMessage)
	}
	return errors.Join(err, os.WriteFile(message, []byte(text), 0o600))
}

// versionOf returns the version in the first line that etcd --version prints: "etcd Version: 3.6.16".
func versionOf(binary string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), imageCheckTimeout)
	defer cancel()
	var output bytes.Buffer
	command := exec.CommandContext(ctx, binary, "--version")
	command.Stdout = &limitedWriter{Writer: &output, left: maxVersionOutput}
	command.WaitDelay = time.Second
	if err := command.Run(); err != nil {
		return "", fmt.Errorf("%s --version: %w", binary, err)
	}
	line, _ := bufio.NewReader(&output).ReadString('\n')
	version, ok := strings.CutPrefix(strings.TrimSpace(line), "etcd Version: ")
	if !ok || cluster.ImageCheckVersion(cluster.ImageCheckMessage(version)) == "" {
		return "", fmt.Errorf("%s --version prints no version of etcd, but %.80q", binary, line)
	}
	return version, nil
}

// limitedWriter drops what is beyond a limit.
type limitedWriter struct {
	io.Writer
	left int
}

func (w *limitedWriter) Write(p []byte) (int, error) {
	kept := p[:min(len(p), w.left)]
	w.left -= len(kept)
	if _, err := w.Writer.Write(kept); err != nil {
		return 0, err
	}
	return len(p), nil
}
