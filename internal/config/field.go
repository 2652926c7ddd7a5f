package config

import (
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Field declares one key of a configuration. Fields form a tree: a scalar has
// set, a section has fields, a map or a list has item.
type Field struct {
	Name    string // last element of the path
	Type    string // "string", "size", "duration", "rate", "host:port", "section", "list", "map", …
	Default string // as YAML; "" if there is none or it is computed
	Doc     string // meaning, one or two sentences
	Example string // YAML for `config default` where there is no default
	NotYet  bool   // of the contract, not built: giving it is an error

	fields []*Field                             // a section's keys, in the order they are printed
	set    func(n *yaml.Node, dir string) error // a scalar's value
	item   func(key string) *Field              // a map's or list's entry, created if new
	sample *Field                               // a map's or list's entry that is bound to nothing
	keys   func() []string                      // a map's entries so far
	check  func(key string) error               // whether key may be an entry of the map
	clear  func()                               // a list begins anew: a later source replaces it
	short  string                               // the key that a scalar entry of a list of sections stands for
}

func (f *Field) child(name string) *Field {
	i := slices.IndexFunc(f.fields, func(c *Field) bool { return c.Name == name })
	if i < 0 {
		return nil
	}
	return f.fields[i]
}

func (f *Field) names() []string {
	names := make([]string, len(f.fields))
	for i, c := range f.fields {
		names[i] = c.Name
	}
	return names
}

// near says whether name is one of f's keys misspelt.
func (f *Field) near(name string) bool { return suggest(name, f.names(), nil) != "" }

func (f *Field) isScalar() bool { return f.set != nil }
func (f *Field) isList() bool   { return f.item != nil && f.clear != nil }
func (f *Field) isMap() bool    { return f.item != nil && f.clear == nil }

// section is a map of declared keys.
func section(name, doc string, fields ...*Field) *Field {
	return &Field{Name: name, Type: "section", Doc: doc, fields: fields}
}

// scalar is a key of one value, parsed by parse into dst.
func scalar[T any](name, typ string, dst *T, def, doc string, parse func(string) (T, error)) *Field {
	f := &Field{Name: name, Type: typ, Default: def, Doc: doc}
	f.set = func(n *yaml.Node, _ string) error {
		v, err := parse(n.Value)
		if err == nil {
			*dst = v
		}
		return err
	}
	return f
}

// path is a key that names a file; relative ones are joined to their source's
// folder.
func path(name string, dst *string, def, doc string) *Field {
	f := &Field{Name: name, Type: "path", Default: def, Doc: doc}
	f.set = func(n *yaml.Node, dir string) error {
		*dst = joinPath(dir, n.Value)
		return nil
	}
	return f
}

// notYet is a key of the contract that is not built.
func notYet(name, typ, doc string) *Field {
	return &Field{Name: name, Type: typ, Doc: doc, NotYet: true}
}

// list is a key of a list of values of one type.
func list[T any](name, typ string, dst *[]T, doc string, parse func(string) (T, error)) *Field {
	var none T
	f := &Field{Name: name, Type: "list of " + typ, Doc: doc, sample: scalar("", typ, &none, "", "", parse)}
	f.clear = func() { *dst = nil }
	f.item = func(key string) *Field {
		i := index(key, len(*dst))
		if i < 0 {
			return nil
		}
		if i == len(*dst) {
			var zero T
			*dst = append(*dst, zero)
		}
		return scalar(key, typ, &(*dst)[i], "", "", parse)
	}
	return f
}

// sections is a key of a list of sections; T's fields are declared by spec.
func sections[T any](name, doc string, dst *[]*T, fresh func() *T, spec func(*T) *Field) *Field {
	f := &Field{Name: name, Type: "list", Doc: doc, sample: spec(fresh())}
	f.clear = func() { *dst = nil }
	f.item = func(key string) *Field {
		i := index(key, len(*dst))
		if i < 0 {
			return nil
		}
		if i == len(*dst) {
			*dst = append(*dst, fresh())
		}
		return spec((*dst)[i])
	}
	return f
}

// index reads a list index: an existing one or the next.
func index(key string, n int) int {
	i := 0
	if key == "" || len(key) > 6 {
		return -1
	}
	for _, c := range []byte(key) {
		if c < '0' || c > '9' {
			return -1
		}
		i = i*10 + int(c-'0')
	}
	if i > n {
		return -1
	}
	return i
}

// flatten lists every declared key below f with its path; entries of maps and
// lists stand as "<name>" and "[]".
func flatten(f *Field, at string, out *[]Documented) {
	join := func(name string) string {
		if at == "" {
			return name
		}
		return at + "." + name
	}
	for _, c := range f.fields {
		p := join(c.Name)
		*out = append(*out, Documented{Path: p, Type: c.Type, Default: c.Default, Doc: c.Doc, NotYet: c.NotYet})
		switch {
		case c.isMap():
			flatten(c.sample, p+".<name>", out)
		case c.isList():
			flatten(c.sample, p+"[]", out)
		default:
			flatten(c, p, out)
		}
	}
}

// Documented is a declared key as documentation shows it.
type Documented struct {
	Path, Type, Default, Doc string
	NotYet                   bool
}

// suggest is a hint for an unknown key among the known ones: the nearest
// sibling, else a key of that name elsewhere.
func suggest(name string, siblings []string, everywhere []Documented) string {
	best, at := "", 3
	if len(name) <= 3 {
		at = 2
	}
	for _, s := range siblings {
		d := distance(strings.ToLower(name), s)
		if d < at || (d == at && best == "") {
			if d < at {
				best, at = s, d
			}
		}
		if len(name) >= 4 && best == "" && strings.HasPrefix(s, strings.ToLower(name)) {
			best, at = s, 2
		}
	}
	if best != "" {
		return best
	}
	for _, d := range everywhere {
		if d.Path != name && strings.HasSuffix(d.Path, "."+name) && !strings.Contains(d.Path, "[") && !strings.Contains(d.Path, "<") {
			return d.Path
		}
	}
	return ""
}

// distance is the number of insertions, deletions, replacements and swaps of
// neighbours that turn a into b.
func distance(a, b string) int {
	prev2, prev, cur := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range prev {
		prev[j] = j
	}
	for i := 1; i <= len(a); i++ {
		cur[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			cur[j] = min(prev[j]+1, cur[j-1]+1, prev[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				cur[j] = min(cur[j], prev2[j-2]+1)
			}
		}
		prev2, prev, cur = prev, cur, prev2
	}
	return prev[len(b)]
}
