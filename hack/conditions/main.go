// Command conditions writes the page on conditions, reasons and events from the constants' comments:
//
//	conditions api/v1beta1/conditions.go > docs/conditions.md
//
// Each block of constants is a section. A constant's comment says what it means, and after "What to do:" the way out;
// one that does not is an error.
package main

import (
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"os"
	"strconv"
	"strings"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: conditions FILE.go")
		os.Exit(2)
	}
	source, err := os.ReadFile(os.Args[1])
	if err == nil {
		err = page(source, os.Stdout)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "conditions:", err)
		os.Exit(1)
	}
}

const head = `<!-- Generated from api/v1beta1/conditions.go by ` + "`make docs`" + `: edit the comments there. -->
# Conditions, reasons and events
` + "`kubectl describe etcdcluster NAME`" + ` shows them. The message of a condition says what is wrong, why, and what to do.

- Types and reasons are part of the API. They keep their meaning.
- Messages are for people. They may change.
- The reasons of members are in ` + "`status.members`" + `.
- An event with the reason of a condition tells that the condition changed. Other events have the reasons under
  [events](#reasons-of-events-in-the-past-tense).
`

// entry is one constant.
type entry struct{ name, value, meaning, wayOut string }

func page(source []byte, out io.Writer) error {
	file, err := parser.ParseFile(token.NewFileSet(), "conditions.go", source, parser.ParseComments)
	if err != nil {
		return err
	}
	var text strings.Builder
	text.WriteString(head)
	var problems []error
	for _, declaration := range file.Decls {
		block, ok := declaration.(*ast.GenDecl)
		if !ok || block.Tok != token.CONST {
			continue
		}
		title, more, _ := strings.Cut(oneLine(block.Doc), ". ")
		fmt.Fprintf(&text, "\n## %s\n%s", strings.TrimSuffix(title, "."), paragraph(more))
		text.WriteString("| | what it means | what to do |\n| --- | --- | --- |\n")
		for _, spec := range block.Specs {
			e, err := read(spec.(*ast.ValueSpec)) //nolint:forcetypeassert // a const block holds nothing else
			if err != nil {
				problems = append(problems, err)
			}
			fmt.Fprintf(&text, "| `%s` | %s | %s |\n", e.value, cell(e.meaning), cell(e.wayOut))
		}
	}
	if err := errors.Join(problems...); err != nil {
		return err
	}
	_, err = io.WriteString(out, text.String())
	return err
}

func read(spec *ast.ValueSpec) (e entry, err error) {
	e.name = spec.Names[0].Name
	literal, ok := spec.Values[0].(*ast.BasicLit)
	if !ok {
		return e, fmt.Errorf("%s is not a plain string", e.name)
	}
	if e.value, err = strconv.Unquote(literal.Value); err != nil {
		return e, fmt.Errorf("reading %s: %w", e.name, err)
	}
	meaning, wayOut, found := strings.Cut(oneLine(spec.Doc), "What to do:")
	meaning = strings.TrimLeft(strings.TrimPrefix(meaning, e.name), ": ")
	e.meaning, e.wayOut = sentence(strings.TrimPrefix(meaning, "is ")), sentence(wayOut)
	if !found || e.meaning == "" || e.wayOut == "" {
		return e, fmt.Errorf("the comment of %s must say what it means and, after \"What to do:\", the way out", e.name)
	}
	return e, nil
}

func oneLine(doc *ast.CommentGroup) string { return strings.Join(strings.Fields(doc.Text()), " ") }

// sentence begins with a capital, unless a name stands first.
func sentence(text string) string {
	text = strings.TrimSpace(text)
	first, _, _ := strings.Cut(text, " ")
	if first == "" || first == "etcd" || first == "kubectl" || strings.Contains(strings.TrimSuffix(first, "."), ".") {
		return text
	}
	return strings.ToUpper(text[:1]) + text[1:]
}

func cell(text string) string { return strings.ReplaceAll(text, "|", `\|`) }

func paragraph(text string) string {
	if text == "" {
		return "\n"
	}
	return text + "\n\n"
}
