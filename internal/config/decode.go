package config

import (
	"fmt"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// decode reads the node n, the value of the field f at path at, from src.
func (l *loader) decode(f *Field, at string, n *yaml.Node, src *source) {
	for n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	fail := func(format string, args ...any) {
		l.rep.problems = append(l.rep.problems, src.problem(n.Line, n.Column, at, fmt.Sprintf(format, args...)))
	}
	if f.NotYet {
		l.notYet(f, at, n.Line, n.Column, src)
		return
	}
	l.rep.places[at] = place{src: src, line: n.Line, column: n.Column}
	if n.Kind == yaml.ScalarNode && n.Tag == "!!null" {
		return // as if the key were not there
	}
	switch {
	case f.isScalar():
		if n.Kind != yaml.ScalarNode {
			fail("%s wants a value (%s), not %s", at, f.Type, kindName(n))
			return
		}
		if err := f.set(n, src.dir); err != nil {
			fail("%s: %s", at, err)
		}
	case f.isList():
		l.decodeList(f, at, n, src)
	case n.Kind != yaml.MappingNode:
		if at == "" {
			fail("a configuration is keys with values, not %s", kindName(n))
			return
		}
		fail("%s wants keys with values below it, not %s", at, kindName(n))
	default:
		l.decodeMap(f, at, n, src)
	}
}

// maxEntries bounds the entries of one list or map.
const maxEntries = 10_000

func (l *loader) decodeMap(f *Field, at string, n *yaml.Node, src *source) {
	fail := func(k *yaml.Node, format string, args ...any) {
		l.rep.problems = append(l.rep.problems, src.problem(k.Line, k.Column, at, fmt.Sprintf(format, args...)))
	}
	seen := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		if i/2 >= maxEntries {
			fail(k, "more than %d entries", maxEntries)
			return
		}
		if k.Kind != yaml.ScalarNode {
			fail(k, "a key must be a name, not %s", kindName(k))
			continue
		}
		if k.Tag == "!!merge" {
			fail(k, "merge keys (<<) are not understood: write the keys out, or use an alias for a whole value")
			continue
		}
		if line, dup := seen[k.Value]; dup {
			fail(k, "key %q stands here a second time: the first is on line %d", k.Value, line)
			continue
		}
		seen[k.Value] = k.Line
		if f.isMap() {
			if err := f.check(k.Value); err != nil {
				fail(k, "%s: %s", at, err)
				continue
			}
			child := join(at, k.Value)
			l.decode(f.item(k.Value), child, v, src)
			l.rep.places[child] = place{src: src, line: k.Line, column: k.Column}
			continue
		}
		c := f.child(k.Value)
		switch {
		case c == nil:
			fail(k, "%s", l.unknown(f, at, k.Value))
		case c.NotYet:
			l.notYet(c, join(at, c.Name), k.Line, k.Column, src)
		default:
			l.decode(c, join(at, c.Name), v, src)
		}
	}
}

func (l *loader) decodeList(f *Field, at string, n *yaml.Node, src *source) {
	items := n.Content
	switch n.Kind {
	case yaml.SequenceNode:
	case yaml.ScalarNode:
		// A list in one value: "a,b".
		if !f.sample.isScalar() && f.short == "" {
			l.rep.problems = append(l.rep.problems, src.problem(n.Line, n.Column, at, fmt.Sprintf("%s wants a list of entries with keys, not a value", at)))
			return
		}
		items = nil
		for s := range strings.SplitSeq(n.Value, ",") {
			if s = strings.TrimSpace(s); s != "" {
				items = append(items, &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: s, Line: n.Line, Column: n.Column})
			}
		}
	default:
		l.rep.problems = append(l.rep.problems, src.problem(n.Line, n.Column, at, fmt.Sprintf("%s wants a list, not %s", at, kindName(n))))
		return
	}
	if len(items) > maxEntries {
		l.rep.problems = append(l.rep.problems, src.problem(n.Line, n.Column, at, fmt.Sprintf("%s has more than %d entries", at, maxEntries)))
		return
	}
	f.clear()
	for p := range l.rep.places {
		if strings.HasPrefix(p, at+"[") {
			delete(l.rep.places, p)
		}
	}
	for i, it := range items {
		entry, where := f.item(strconv.Itoa(i)), fmt.Sprintf("%s[%d]", at, i)
		if f.short != "" && it.Kind == yaml.ScalarNode {
			l.rep.places[where] = place{src: src, line: it.Line, column: it.Column}
			entry, where = entry.child(f.short), where+"."+f.short
		}
		l.decode(entry, where, it, src)
	}
}

func (l *loader) notYet(f *Field, at string, line, column int, src *source) {
	l.rep.problems = append(l.rep.problems, src.problem(line, column, at, fmt.Sprintf("%s is not yet supported: leave it out", at)))
}

func kindName(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "keys with values"
	case yaml.SequenceNode:
		return "a list"
	case yaml.ScalarNode:
		if n.Value == "" {
			return "nothing"
		}
		return fmt.Sprintf("the value %q", n.Value)
	}
	return "this"
}
