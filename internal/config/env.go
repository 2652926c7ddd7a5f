package config

import (
	"fmt"
	"slices"
	"strings"
)

// reserved are variables of the prefix that commands read themselves.
var reserved = []string{"CONFIG", "LOG_LEVEL", "SERVER", "HTTP_ADDRESS"}

// environment reads the variables that begin with the prefix, given as in
// os.Environ, in alphabetical order.
func (l *loader) environment(env []string) {
	vars := slices.Sorted(slices.Values(env))
	for _, kv := range vars {
		name, value, _ := strings.Cut(kv, "=")
		key, ok := strings.CutPrefix(name, l.prefix)
		if !ok || slices.Contains(reserved, key) || foreign(key, value) {
			continue
		}
		src := &source{name: name}
		l.rep.order = append(l.rep.order, src)
		fail := func(text string) { l.rep.problems = append(l.rep.problems, src.problem(0, 0, "", text)) }
		f, at, ok := l.variable(l.root, "", key)
		if !ok {
			fail(l.unknownVariable(key).Error())
			continue
		}
		n, err := parseNode(f, value)
		if err != nil {
			fail(err.Error())
			continue
		}
		if f.isScalar() { // as it stands: no quoting rules in the environment
			n.Tag, n.Value = "!!str", value
		}
		l.decode(f, at, n, src)
	}
}

// foreign says that a variable was put there by an orchestrator that links
// services by name (HUB_SERVICE_HOST, HUB_PORT=tcp://…), not by a user.
func foreign(key, value string) bool {
	return strings.HasPrefix(key, "SERVICE_") || key == "PORT" ||
		strings.HasPrefix(key, "PORT_") && (strings.Contains(key, "_TCP") || strings.Contains(value, "://"))
}

// variable finds the field that the rest of a variable's name means: names
// of keys in capitals, joined by underscores. Entries of maps are matched
// against those that the file has, else named in lower case.
func (l *loader) variable(f *Field, at, rest string) (*Field, string, bool) {
	if rest == "" {
		return f, at, true
	}
	switch {
	case f.isMap():
		names := f.keys()
		for i := range names { // HUB_TOPICS_A_B_PARTITIONS may mean a.b, a_b or a-b: those of the file first
			if tail, ok := cutName(rest, names[i]); ok && leads(f.sample, tail) {
				return l.variable(f.item(names[i]), join(at, names[i]), tail)
			}
		}
		for i := 1; i <= len(rest); i++ {
			if i < len(rest) && rest[i] != '_' {
				continue
			}
			name, tail := strings.ToLower(rest[:i]), strings.TrimPrefix(rest[i:], "_")
			if leads(f.sample, tail) && f.check(name) == nil && (tail != "" || i == len(rest)) {
				return l.variable(f.item(name), join(at, name), tail)
			}
		}
		return nil, "", false
	case f.isList():
		number, tail, _ := strings.Cut(rest, "_")
		if it := f.item(number); it != nil {
			return l.variable(it, fmt.Sprintf("%s[%s]", at, number), tail)
		}
		return nil, "", false
	}
	for _, c := range f.fields {
		if tail, ok := cutName(rest, c.Name); ok {
			if c.NotYet {
				return c, join(at, c.Name), true
			}
			if g, where, ok := l.variable(c, join(at, c.Name), tail); ok {
				return g, where, true
			}
		}
	}
	return nil, "", false
}

// leads says whether rest names a key below f, creating nothing.
func leads(f *Field, rest string) bool {
	if rest == "" {
		return true
	}
	for _, c := range f.fields {
		if tail, ok := cutName(rest, c.Name); ok && (c.NotYet || tail == "" || c.fields != nil && leads(c, tail)) {
			return true
		}
	}
	return false
}

// cutName cuts the variable form of a key's name off rest.
func cutName(rest, name string) (tail string, ok bool) {
	tail, ok = strings.CutPrefix(rest, variableName(name))
	if !ok || tail != "" && tail[0] != '_' {
		return "", false
	}
	return strings.TrimPrefix(tail, "_"), true
}

func variableName(name string) string {
	return strings.Map(func(r rune) rune {
		if 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' {
			return r
		}
		if 'a' <= r && r <= 'z' {
			return r - 'a' + 'A'
		}
		return '_'
	}, name)
}

func (l *loader) unknownVariable(key string) error {
	best, at := "", 4
	for _, d := range l.all {
		if strings.ContainsAny(d.Path, "<[") {
			continue
		}
		name := variableName(d.Path)
		if n := distance(key, name); n < at {
			best, at = name, n
		}
	}
	if best != "" {
		return fmt.Errorf("no key of the configuration has this name: did you mean %s%s?", l.prefix, best)
	}
	return fmt.Errorf("no key of the configuration has this name: unset it, or see `config default`; mqtt.listen is %sMQTT_LISTEN", l.prefix)
}
