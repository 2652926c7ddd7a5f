package config

import (
	"fmt"
	"slices"
	"strings"
)

// Problem is one fault in a configuration.
type Problem struct {
	Source string // file name, name of a variable, or the --set flag as given
	Line   int    // from 1; 0: the source has no lines
	Column int    // from 1
	Path   string // of the key, as "topics.telemetry.partitions", "" if none
	Text   string // what is wrong and what to do
	Quote  string // the line at fault; "" without lines
}

// Error is the problem on one line, without the excerpt.
func (p Problem) Error() string {
	switch {
	case p.Line > 0:
		return fmt.Sprintf("%s:%d:%d: %s", p.Source, p.Line, p.Column, p.Text)
	case p.Source != "":
		return p.Source + ": " + p.Text
	}
	return p.Text
}

// excerpt is the line at fault with a caret under the column.
func (p Problem) excerpt() string {
	if p.Quote == "" {
		return ""
	}
	number := fmt.Sprintf("%5d | ", p.Line)
	// Tabs before the column are kept, so that the caret stands right.
	var pad strings.Builder
	for i, r := range []rune(p.Quote) {
		if i >= p.Column-1 {
			break
		}
		if r == '\t' {
			pad.WriteByte('\t')
		} else {
			pad.WriteByte(' ')
		}
	}
	return fmt.Sprintf("\n%s%s\n%s%s^", number, p.Quote, strings.Repeat(" ", len(number)-2)+"| ", pad.String())
}

// Error is everything that is wrong with a configuration. A program that gets
// it ends with exit code 2.
type Error struct {
	Problems []Problem
}

// maxShown bounds the problems that one message spells out.
const maxShown = 20

// Error lists the problems with excerpts, in the order of the sources.
func (e *Error) Error() string {
	var b strings.Builder
	for i, p := range e.Problems {
		if i == maxShown {
			fmt.Fprintf(&b, "\nand %d more", len(e.Problems)-i)
			break
		}
		if i > 0 {
			b.WriteByte('\n')
		}
		b.WriteString(p.Error())
		b.WriteString(p.excerpt())
	}
	return b.String()
}

// source is one place that values come from.
type source struct {
	name  string
	dir   string   // what relative paths are relative to; "" the working directory
	lines []string // nil for a variable or a flag
}

// place is where a value stands.
type place struct {
	src    *source
	line   int
	column int
}

func (s *source) problem(line, column int, path, text string) Problem {
	p := Problem{Source: s.name, Path: path, Text: text}
	if s.lines == nil {
		return p
	}
	p.Line, p.Column = line, max(column, 1)
	if line >= 1 && line <= len(s.lines) {
		p.Quote = strings.TrimRight(s.lines[line-1], " \r")
	}
	return p
}

// Report collects the problems of a load and knows where each key stands.
type Report struct {
	places   map[string]place
	order    []*source
	problems []Problem
}

// Addf adds a problem of the key at path ("routes[2].match"). Where the key
// was not given, the problem is put to the nearest section around it.
func (r *Report) Addf(path, format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	for at := path; ; at = parent(at) {
		if p, ok := r.places[at]; ok {
			r.problems = append(r.problems, p.src.problem(p.line, p.column, path, text))
			return
		}
		if at == "" {
			break
		}
	}
	if path != "" {
		text = path + ": " + text
	}
	r.problems = append(r.problems, Problem{Path: path, Text: text})
}

// Given says whether any source gave a value for path.
func (r *Report) Given(path string) bool {
	_, ok := r.places[path]
	return ok
}

// err is nil or the sorted problems as an *Error.
func (r *Report) err() error {
	if len(r.problems) == 0 {
		return nil
	}
	rank := func(p Problem) int {
		return slices.IndexFunc(r.order, func(s *source) bool { return s.name == p.Source })
	}
	slices.SortStableFunc(r.problems, func(a, b Problem) int {
		if d := rank(a) - rank(b); d != 0 {
			return d
		}
		if d := a.Line - b.Line; d != 0 {
			return d
		}
		return a.Column - b.Column
	})
	return &Error{Problems: r.problems}
}

// parent is the path of the section or list around path.
func parent(path string) string {
	return path[:max(strings.LastIndexAny(path, ".["), 0)]
}
