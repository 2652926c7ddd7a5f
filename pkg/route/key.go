package route

import (
	"fmt"
	"strings"
)

// keyPart is literal text, or a capture by number, or the MQTT topic.
type keyPart struct {
	text    string
	capture int // index of the capture; keyText or keyTopic
}

const (
	keyText  = -1
	keyTopic = -2
)

// template is a compiled key template. Empty: the MQTT topic.
type template []keyPart

func parseTemplate(s string, names []string) (template, error) {
	var t template
	all := s
	for s != "" {
		i := strings.IndexAny(s, "{}")
		if i < 0 {
			t = append(t, keyPart{text: s, capture: keyText})
			break
		}
		if i > 0 {
			t = append(t, keyPart{text: s[:i], capture: keyText})
		}
		if s[i] == '}' {
			return nil, fmt.Errorf("%q has a } without its {", all)
		}
		end := strings.IndexByte(s, '}')
		if end < 0 {
			return nil, fmt.Errorf("%q has a { without its }", all)
		}
		name := s[i+1 : end]
		part := keyPart{capture: keyText}
		if name == "topic" {
			part.capture = keyTopic
		}
		for n := range names {
			if names[n] == name {
				part.capture = n
			}
		}
		if part.capture == keyText {
			return nil, fmt.Errorf("%q uses {%s}, which the pattern does not capture; there is %s", all, name, known(names))
		}
		t = append(t, part)
		s = s[end+1:]
	}
	return t, nil
}

func known(names []string) string {
	var b strings.Builder
	for _, n := range names {
		fmt.Fprintf(&b, "{%s}, ", n)
	}
	b.WriteString("{topic}")
	return b.String()
}

// append appends the key to dst; captures are put in as they are.
func (t template) append(dst []byte, m *Match, topic string) []byte {
	if len(t) == 0 {
		return append(dst, topic...)
	}
	for i := range t {
		switch c := t[i].capture; c {
		case keyText:
			dst = append(dst, t[i].text...)
		case keyTopic:
			dst = append(dst, topic...)
		default:
			dst = append(dst, m.values[c]...)
		}
	}
	return dst
}
