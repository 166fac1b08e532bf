// Command crdcheck proves that this tree's CustomResourceDefinitions can follow every release:
//   - no version is gone that objects may be stored in;
//   - no schema refuses or changes what an earlier one took;
//   - the objects of every release's samples and examples stay valid and unchanged.
//
// Before the first release there is nothing to compare, and it says so.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
)

const usage = `usage:
  crdcheck releases [--repo DIR]           compare config/crd/bases with that of every release in catalog/releases.yaml
  crdcheck objects [--repo DIR] FILE...    validate objects as the API server would, unknown fields included

hack/crdcheck/allowed.yaml lists the breaks that are allowed, each with the reason.
hack/crdcheck/stored/VERSION.yaml holds objects as a release stored them.
`

// nothingToCompare is printed before the first release. It is no error, and no comparison that passed.
const nothingToCompare = "crdcheck: nothing to compare: catalog/releases.yaml has no release with a commit"

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "crdcheck:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) == 0 {
		fmt.Fprint(os.Stderr, usage)
		return errors.New("say what to check")
	}
	flags := flag.NewFlagSet(args[0], flag.ContinueOnError)
	flags.Usage = func() { fmt.Fprint(os.Stderr, usage) }
	repo := flags.String("repo", ".", "")
	if err := flags.Parse(args[1:]); err != nil {
		return err
	}
	definitions, err := readDefinitions(filepath.Join(*repo, bases))
	if err != nil {
		return err
	}
	switch args[0] {
	case "releases":
		return checkReleases(*repo, definitions)
	case "objects":
		return checkObjects(definitions, flags.Args())
	}
	return fmt.Errorf("unknown check %q", args[0])
}

func checkReleases(repo string, definitions map[string]*definition) error {
	releases, err := readReleases(repo)
	if err != nil {
		return err
	}
	allowed, err := readAllowed(filepath.Join(repo, "hack", "crdcheck", "allowed.yaml"))
	if err != nil {
		return err
	}
	for _, d := range definitions {
		if err := checkSize(d.crd); err != nil {
			return err
		}
	}
	found, err := breaks(releases, definitions)
	if err != nil {
		return err
	}
	open, idle := allowed.sift(found)
	for _, b := range open {
		fmt.Fprintln(os.Stderr, b)
	}
	for _, rule := range idle {
		fmt.Fprintf(os.Stderr, "hack/crdcheck/allowed.yaml: nothing breaks %s at %s of %s any more: remove the entry\n", rule.Check, rule.Path, rule.Version)
	}
	if len(open)+len(idle) > 0 {
		return fmt.Errorf("%d breaks of what a release promised: undo them, or say in hack/crdcheck/allowed.yaml why no stored object can be hurt", len(open)+len(idle))
	}
	if len(releases) == 0 {
		fmt.Println(nothingToCompare)
		return nil
	}
	fmt.Printf("crdcheck: the CRDs follow %d releases, with %d changes let through\n", len(releases), len(found)-len(open))
	return nil
}

func checkObjects(definitions map[string]*definition, files []string) error {
	if len(files) == 0 {
		return errors.New("name the files to validate")
	}
	var problems []error
	count := 0
	for _, file := range files {
		raw, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		objects, err := decode(raw)
		if err != nil {
			return fmt.Errorf("reading %s: %w", file, err)
		}
		for _, o := range objects {
			if d := definitions[o.groupKind()]; d != nil {
				count++
				for _, problem := range d.strictly(o) {
					problems = append(problems, fmt.Errorf("%s: %s: %s", file, o.name(), problem))
				}
			}
		}
	}
	if count == 0 {
		problems = append(problems, errors.New("no object of a kind of ours in these files"))
	}
	if len(problems) == 0 {
		fmt.Printf("crdcheck: %d objects are valid\n", count)
	}
	return errors.Join(problems...)
}
