package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// maxFile bounds the size of a configuration file, in bytes.
const maxFile = 4 << 20

// loader reads sources into the values that a tree of fields is bound to.
type loader struct {
	root   *Field
	prefix string // of variables: "HUB_"
	all    []Documented
	rep    Report
}

func newLoader(root *Field, all []Documented, prefix string) *loader {
	return &loader{root: root, prefix: prefix, all: all, rep: Report{places: map[string]place{}}}
}

// sources reads all three sources in their order.
func (l *loader) sources(file string, env, set []string) {
	if file != "" {
		l.file(file)
	}
	l.environment(env)
	for _, s := range set {
		l.flag(s)
	}
}

// file reads a YAML file; "-" is standard input.
func (l *loader) file(name string) {
	var b []byte
	var err error
	src := &source{name: name, dir: filepath.Dir(name)}
	if name == "-" {
		src.name, src.dir = "standard input", ""
		b, err = io.ReadAll(io.LimitReader(os.Stdin, maxFile+1))
	} else {
		b, err = readFile(name)
	}
	l.rep.order = append(l.rep.order, src)
	if err != nil {
		var pe *os.PathError
		if errors.As(err, &pe) {
			err = pe.Err
		}
		l.rep.problems = append(l.rep.problems, src.problem(0, 0, "", err.Error()+": name a readable YAML file by --config"))
		return
	}
	if len(b) > maxFile {
		l.rep.problems = append(l.rep.problems, src.problem(0, 0, "", fmt.Sprintf("larger than %d bytes: this is no configuration", maxFile)))
		return
	}
	src.lines = splitLines(b)
	dec := yaml.NewDecoder(bytes.NewReader(b))
	var doc, second yaml.Node
	switch err := dec.Decode(&doc); {
	case errors.Is(err, io.EOF):
		return // empty, or comments only
	case err != nil:
		l.syntax(src, err)
		return
	}
	if err := dec.Decode(&second); err == nil {
		l.rep.problems = append(l.rep.problems, src.problem(second.Line, second.Column, "", "a second document begins here: a configuration is one document"))
		return
	} else if !errors.Is(err, io.EOF) {
		l.syntax(src, err)
		return
	}
	l.rep.places[""] = place{src: src, line: 1, column: 1}
	l.decode(l.root, "", doc.Content[0], src)
}

func splitLines(b []byte) []string { return strings.Split(string(b), "\n") }

func readFile(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxFile+1))
}

var yamlLine = regexp.MustCompile(`^yaml: (?:unmarshal errors:\s*)?line (\d+): `)

// syntax turns an error of the YAML parser into a problem with a place.
func (l *loader) syntax(src *source, err error) {
	text, line, column := err.Error(), 1, 1
	if m := yamlLine.FindStringSubmatch(text); m != nil {
		line, _ = strconv.Atoi(m[1])
		text = text[len(m[0]):]
	}
	text = strings.TrimPrefix(text, "yaml: ")
	if line >= 1 && line <= len(src.lines) {
		quote := src.lines[line-1]
		if tab := strings.IndexByte(quote, '\t'); tab >= 0 && strings.TrimSpace(quote[:tab]) == "" {
			text, column = "YAML does not allow tabs for indentation: use spaces", tab+1
		} else {
			column = len(quote) - len(strings.TrimLeft(quote, " ")) + 1
			text = "not YAML: " + text
		}
	}
	l.rep.problems = append(l.rep.problems, src.problem(line, column, "", text))
}

// flag reads one --set a.b.c=value.
func (l *loader) flag(arg string) {
	src := &source{name: "--set " + arg}
	l.rep.order = append(l.rep.order, src)
	fail := func(text string) { l.rep.problems = append(l.rep.problems, src.problem(0, 0, "", text)) }
	key, value, ok := strings.Cut(arg, "=")
	if !ok {
		fail("write --set key=value, as in --set mqtt.listen=127.0.0.1:1883")
		return
	}
	elems, err := splitPath(key)
	if err != nil {
		fail(err.Error())
		return
	}
	f, at, err := l.resolve(l.root, "", elems)
	if err != nil {
		fail(err.Error())
		return
	}
	n, err := parseNode(f, value)
	if err != nil {
		fail(err.Error())
		return
	}
	l.decode(f, at, n, src)
}

// parseNode reads a value given in one line. A text value need not be valid
// YAML: `where=a: b` is taken as it stands.
func parseNode(f *Field, value string) (*yaml.Node, error) {
	var doc yaml.Node
	err := yaml.Unmarshal([]byte(value), &doc)
	switch {
	case f.isScalar() && (err != nil || len(doc.Content) == 0 || doc.Content[0].Kind != yaml.ScalarNode):
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: value}, nil
	case err != nil:
		return nil, fmt.Errorf("the value is not YAML: %s", strings.TrimPrefix(err.Error(), "yaml: "))
	case len(doc.Content) == 0:
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!null"}, nil
	}
	return doc.Content[0], nil
}

// splitPath splits a dotted path. An element with dots may be quoted:
// topics."telemetry.1m".partitions; list entries are .0 or [0].
func splitPath(s string) ([]string, error) {
	var out []string
	for rest := s; rest != ""; {
		if rest[0] == '"' {
			end := strings.IndexByte(rest[1:], '"')
			if end < 0 {
				return nil, fmt.Errorf("the key %q has an open quote", s)
			}
			out = append(out, rest[1:1+end])
			rest = strings.TrimPrefix(rest[end+2:], ".")
			continue
		}
		end := strings.IndexAny(rest, ".[")
		switch {
		case end < 0:
			out, rest = append(out, strings.TrimSuffix(rest, "]")), ""
		default:
			if e := strings.TrimSuffix(rest[:end], "]"); e != "" {
				out = append(out, e)
			}
			rest = rest[end+1:]
		}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("the key is empty: write --set key=value")
	}
	return out, nil
}

// resolve finds the field of a path's elements below f, which stands at at.
// The name of a map's entry may take several elements (topic names have
// dots): the shortest name is taken behind which the rest is a known key.
func (l *loader) resolve(f *Field, at string, elems []string) (*Field, string, error) {
	if len(elems) == 0 {
		return f, at, nil
	}
	switch {
	case f.isMap():
		for n := 1; n <= len(elems); n++ {
			name := strings.Join(elems[:n], ".")
			if n < len(elems) && !known(f.sample, elems[n:]) {
				continue
			}
			// The whole rest is the name, unless its end looks like a key misspelt.
			if last := elems[len(elems)-1]; n == len(elems) && n > 1 && f.sample.near(last) {
				return nil, "", l.unknown(f.sample, at+".<name>", last)
			}
			if err := f.check(name); err != nil {
				return nil, "", err
			}
			return l.resolve(f.item(name), join(at, name), elems[n:])
		}
	case f.isList():
		it := f.item(elems[0])
		if it == nil {
			return nil, "", fmt.Errorf("%s has no entry %s: entries count from 0", at, elems[0])
		}
		return l.resolve(it, fmt.Sprintf("%s[%s]", at, elems[0]), elems[1:])
	case f.isScalar() || f.NotYet:
		if f.NotYet {
			return f, at, nil
		}
		return nil, "", fmt.Errorf("%s is a value (%s) and has no key %q", at, f.Type, elems[0])
	}
	c := f.child(elems[0])
	if c == nil {
		return nil, "", l.unknown(f, at, elems[0])
	}
	return l.resolve(c, join(at, c.Name), elems[1:])
}

// known says whether elems lead to a key below f.
func known(f *Field, elems []string) bool {
	for _, e := range elems {
		if f.NotYet {
			return true
		}
		if f = f.child(e); f == nil {
			return false
		}
	}
	return true
}

// unknown is the error of a key that no field declares.
func (l *loader) unknown(f *Field, at, name string) error {
	names := f.names()
	where := ""
	if at != "" {
		where = " in " + at
	}
	if s := suggest(name, names, l.all); s != "" {
		return fmt.Errorf("unknown key %q%s: did you mean %q?", name, where, s)
	}
	if len(names) == 0 {
		return fmt.Errorf("unknown key %q%s", name, where)
	}
	return fmt.Errorf("unknown key %q%s: the keys here are %s", name, where, strings.Join(names, ", "))
}

func join(at, name string) string {
	if at == "" {
		return name
	}
	return at + "." + name
}
