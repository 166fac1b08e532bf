// Command testsum reads the events of `go test -json`. `testsum show` turns standard input into lines for a reader;
// `testsum sum FILE...` ends with one line that counts the tests of all files.
package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
)

// errFailed tells that tests failed; the last line has said so already.
var errFailed = errors.New("tests failed")

func main() {
	if err := run(os.Args[1:], os.Stdin, os.Stdout); err != nil {
		if !errors.Is(err, errFailed) {
			fmt.Fprintln(os.Stderr, "testsum:", err)
		}
		os.Exit(1)
	}
}

func run(args []string, in io.Reader, out io.Writer) error {
	switch {
	case len(args) == 1 && args[0] == "show":
		return show(in, out)
	case len(args) > 1 && args[0] == "sum":
		return sum(args[1:], out)
	}
	return fmt.Errorf("usage: testsum show < EVENTS | testsum sum FILE")
}

// show prints a line for each package and each slow test, and the output of what failed.
func show(in io.Reader, out io.Writer) error {
	r := newResults()
	err := r.read(in, func(e event) {
		if line := r.describe(e); line != "" {
			_, _ = fmt.Fprint(out, line)
		}
	})
	return err
}

// sum prints the counts of all files. It fails if a test failed or a file holds none.
func sum(files []string, out io.Writer) error {
	var total counts
	var empty []string
	for _, file := range files {
		c, err := countFile(file)
		if err != nil {
			return err
		}
		if c.passed+c.failed == 0 {
			empty = append(empty, file)
		}
		total.add(c)
	}
	for _, file := range empty {
		_, _ = fmt.Fprintf(out, "no test ran: %s\n", file)
		total.failed++
	}
	_, _ = fmt.Fprintf(out, "%d passed, %d failed, %d skipped\n", total.passed, total.failed, total.skipped)
	if total.failed > 0 {
		return errFailed
	}
	return nil
}

func countFile(path string) (counts, error) {
	file, err := os.Open(path)
	if err != nil {
		return counts{}, err
	}
	defer func() { _ = file.Close() }()
	r := newResults()
	if err := r.read(bufio.NewReader(file), func(event) {}); err != nil {
		return counts{}, fmt.Errorf("reading %s: %w", path, err)
	}
	return r.count(), nil
}
