package route

import (
	"fmt"
	"strings"
)

// MaxCaptures is the largest number of {name} levels in one pattern.
const MaxCaptures = 16

// levelKind is what one level of a pattern accepts.
type levelKind uint8

const (
	literal levelKind = iota // exactly its text
	single                   // any one level, not kept
	capture                  // any one level, kept under its name
	rest                     // the level above it and everything below
)

type level struct {
	kind levelKind
	text string // of literal and capture
}

// pattern is a compiled match expression.
//
// R1: at most one rest, and only at the end.
// R2: capture names are unique.
// R3: a topic that begins with '$' is matched only by a pattern whose first
// level is that literal [MQTT-4.7.2-1].
type pattern struct {
	levels []level
	names  []string // of the captures, in order
}

func parsePattern(s string) (pattern, error) {
	var p pattern
	if s == "" {
		return p, fmt.Errorf("is empty; write a topic pattern such as \"plant/{line}/telemetry\", or \"#\" for everything")
	}
	if i := strings.IndexByte(s, 0); i >= 0 {
		return p, fmt.Errorf("has a NUL character, which no MQTT topic holds")
	}
	parts := strings.Split(s, "/")
	for i, part := range parts {
		l, err := parseLevel(part)
		if err != nil {
			return p, err
		}
		switch l.kind {
		case rest:
			if i != len(parts)-1 {
				return p, fmt.Errorf("has # before its last level; # matches the rest of a topic and stands only at the end")
			}
		case capture:
			for _, n := range p.names {
				if n == l.text {
					return p, fmt.Errorf("captures {%s} twice; give each level a name of its own, or + for one that is not needed", n)
				}
			}
			if len(p.names) == MaxCaptures {
				return p, fmt.Errorf("has more than %d captures", MaxCaptures)
			}
			p.names = append(p.names, l.text)
		}
		p.levels = append(p.levels, l)
	}
	return p, nil
}

func parseLevel(part string) (level, error) {
	switch {
	case part == "+":
		return level{kind: single}, nil
	case part == "#":
		return level{kind: rest}, nil
	case strings.ContainsAny(part, "{}"):
		name, ok := strings.CutPrefix(part, "{")
		if ok {
			name, ok = strings.CutSuffix(name, "}")
		}
		if !ok || strings.ContainsAny(name, "{}") {
			return level{}, fmt.Errorf("has %q; {name} stands for one whole level", part)
		}
		if err := checkName(name); err != nil {
			return level{}, err
		}
		return level{kind: capture, text: name}, nil
	case strings.ContainsAny(part, "+#"):
		return level{}, fmt.Errorf("has %q; + and # stand for whole levels", part)
	}
	return level{kind: literal, text: part}, nil
}

// checkName accepts what can be a header and a name in expressions.
func checkName(s string) error {
	if s == "" {
		return fmt.Errorf("has {} without a name; name it, or write + for a level that is not needed")
	}
	for i := range len(s) {
		switch c := s[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', c == '_', i > 0 && '0' <= c && c <= '9':
		default:
			return fmt.Errorf("has {%s}; names are letters, digits and _, and begin with no digit", s)
		}
	}
	switch s {
	case "site", "topic":
		return fmt.Errorf("captures {%s}, a name that the hub itself gives (header site, key template {topic}); choose another", s)
	}
	return nil
}

// match reports whether the topic matches, and fills values, which has room
// for every capture. It does not allocate.
func (p *pattern) match(topic string, values *[MaxCaptures]string) bool {
	if topic != "" && topic[0] == '$' && p.levels[0].kind != literal {
		return false
	}
	n, more := 0, true
	for i := range p.levels {
		l := &p.levels[i]
		if l.kind == rest {
			return true
		}
		if !more {
			return false
		}
		var part string
		part, topic, more = strings.Cut(topic, "/")
		switch l.kind {
		case literal:
			if part != l.text {
				return false
			}
		case capture:
			values[n] = part
			n++
		}
	}
	return !more
}

// covers reports whether p matches every topic that q matches. It may say no
// where the answer is yes, never the reverse.
func (p *pattern) covers(q *pattern) bool {
	for i := range p.levels {
		a := &p.levels[i]
		if a.kind == rest {
			// "#" does not match "$…", which only a literal first level can.
			return i > 0 || q.levels[0].kind != literal || !strings.HasPrefix(q.levels[0].text, "$")
		}
		if i == len(q.levels) {
			return false
		}
		b := &q.levels[i]
		switch {
		case b.kind == rest:
			return false
		case a.kind == literal:
			if b.kind != literal || a.text != b.text {
				return false
			}
		case i == 0 && b.kind == literal && strings.HasPrefix(b.text, "$"):
			return false
		}
	}
	return len(p.levels) == len(q.levels)
}
