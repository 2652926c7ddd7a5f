package payload

import (
	"bytes"
	"math"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

// jsonDecoder reads RFC 8259 in one pass, straight into fields: no tree, so
// its memory is bounded by the fields and not by the brackets. It accepts
// what encoding/json accepts, apart from text that is not UTF-8 and numbers
// beyond float64; the fuzz test holds it to that.
type jsonDecoder struct{ *core }

func (d *jsonDecoder) Decode(b []byte, emit func(*Reading) error) error {
	s := d.get()
	defer d.put(s)
	if err := s.json(b); err != nil {
		return err
	}
	return s.emit(emit)
}

// json decodes b into s's readings.
func (s *state) json(b []byte) error {
	if len(b) > s.o.MaxBytes {
		return s.limit(s.o.MaxBytes, "too many bytes")
	}
	if !utf8.Valid(b) {
		return s.fail(invalidUTF8(b), "not UTF-8")
	}
	s.in, s.pos = b, 0
	s.space()
	if err := s.jsonTop(); err != nil {
		return err
	}
	s.space()
	if s.pos != len(s.in) {
		return s.fail(s.pos, "more behind the value")
	}
	return nil
}

func invalidUTF8(b []byte) int {
	for i := 0; i < len(b); {
		r, n := utf8.DecodeRune(b[i:])
		if r == utf8.RuneError && n <= 1 {
			return i
		}
		i += n
	}
	return -1
}

// jsonTop reads the outermost value: an array that begins with an object is
// one of readings.
func (s *state) jsonTop() error {
	if s.peek() != '[' {
		return s.jsonReading(0)
	}
	open := s.pos
	s.pos++
	s.space()
	if s.peek() != '{' {
		if s.peek() == ']' {
			s.pos++
			s.list = true
			return nil
		}
		s.pos = open
		return s.jsonReading(0)
	}
	s.list = true
	for {
		if s.peek() != '{' {
			return s.fail(s.pos, "an array of readings must hold objects only")
		}
		if err := s.jsonReading(1); err != nil {
			return err
		}
		more, err := s.next(']')
		if err != nil || !more {
			return err
		}
	}
}

func (s *state) jsonReading(depth int) error {
	from, err := s.begin()
	if err != nil {
		return err
	}
	if err := s.jsonValue(depth); err != nil {
		return err
	}
	s.end(from)
	return nil
}

// peek is the next byte, 0 at the end (which no caller mistakes for JSON).
func (s *state) peek() byte {
	if s.pos < len(s.in) {
		return s.in[s.pos]
	}
	return 0
}

func (s *state) space() {
	for s.pos < len(s.in) {
		switch s.in[s.pos] {
		case ' ', '\t', '\n', '\r':
			s.pos++
		default:
			return
		}
	}
}

// next goes past "," (more) or the closing bracket, and the space around.
func (s *state) next(closing byte) (more bool, err error) {
	s.space()
	switch s.peek() {
	case ',':
		s.pos++
		s.space()
		return true, nil
	case closing:
		s.pos++
		return false, nil
	}
	return false, s.unexpected()
}

func (s *state) unexpected() error {
	if s.pos >= len(s.in) {
		return s.fail(s.pos, "unexpected end")
	}
	return s.fail(s.pos, "unexpected "+strconv.QuoteRune(rune(s.in[s.pos])))
}

func (s *state) jsonValue(depth int) error {
	switch c := s.peek(); c {
	case '{', '[':
		if depth++; depth > s.o.MaxDepth {
			return s.limit(s.pos, "nested too deep")
		}
		if c == '{' {
			return s.jsonObject(depth)
		}
		return s.jsonArray(depth)
	case '"':
		b, err := s.jsonString()
		if err != nil {
			return err
		}
		return s.add(StringValue(s.intern(b)))
	case 't':
		return s.jsonWord("true", BoolValue(true))
	case 'f':
		return s.jsonWord("false", BoolValue(false))
	case 'n':
		return s.jsonWord("null", Value{})
	case '-', '0', '1', '2', '3', '4', '5', '6', '7', '8', '9':
		return s.jsonNumber()
	}
	return s.unexpected()
}

func (s *state) jsonWord(w string, v Value) error {
	if !bytes.HasPrefix(s.in[s.pos:], []byte(w)) {
		return s.unexpected()
	}
	s.pos += len(w)
	if v.kind == Missing {
		return nil
	}
	return s.add(v)
}

func (s *state) jsonObject(depth int) error {
	s.pos++
	s.space()
	if s.peek() == '}' {
		s.pos++
		return nil
	}
	first := len(s.keys)
	defer func() { s.keys = s.keys[:first] }()
	var seen map[string]int // of large objects only
	for {
		if s.peek() != '"' {
			return s.unexpected()
		}
		raw, err := s.jsonString()
		if err != nil {
			return err
		}
		parent, err := s.push(raw)
		if err != nil {
			return err
		}
		m := member{key: s.intern(raw), from: len(s.fields)}
		s.space()
		if s.peek() != ':' {
			return s.unexpected()
		}
		s.pos++
		s.space()
		if err := s.jsonValue(depth); err != nil {
			return err
		}
		s.name = s.name[:parent]
		m.to = len(s.fields)
		if seen = s.member(first, m, seen); len(s.keys)-first > s.o.MaxFields {
			return s.limit(s.pos, "too many members")
		}
		more, err := s.next('}')
		if err != nil || !more {
			return err
		}
	}
}

// member notes m among its siblings s.keys[first:] and drops what an earlier
// one of the same key led to. From 24 siblings on, seen finds them.
func (s *state) member(first int, m member, seen map[string]int) map[string]int {
	if seen == nil && len(s.keys)-first >= 24 {
		seen = make(map[string]int, 64)
		for i := first; i < len(s.keys); i++ {
			seen[s.keys[i].key] = i
		}
	}
	at := -1
	if seen != nil {
		if i, ok := seen[m.key]; ok {
			at = i
		}
	} else {
		for i := first; i < len(s.keys); i++ {
			if s.keys[i].key == m.key {
				at = i
				break
			}
		}
	}
	if at >= 0 {
		s.drop(s.keys[at])
		s.keys[at] = m
		return seen
	}
	if seen != nil {
		seen[m.key] = len(s.keys)
	}
	s.keys = append(s.keys, m)
	return seen
}

func (s *state) jsonArray(depth int) error {
	s.pos++
	s.space()
	if s.peek() == ']' {
		s.pos++
		return nil
	}
	var digits [20]byte
	for i := int64(0); ; i++ {
		parent, err := s.push(strconv.AppendInt(digits[:0], i, 10))
		if err != nil {
			return err
		}
		if err := s.jsonValue(depth); err != nil {
			return err
		}
		s.name = s.name[:parent]
		more, err := s.next(']')
		if err != nil || !more {
			return err
		}
	}
}

// jsonString reads a string. The result aliases the payload or s.text, until
// the next call.
func (s *state) jsonString() ([]byte, error) {
	s.pos++
	from := s.pos
	for s.pos < len(s.in) {
		switch c := s.in[s.pos]; {
		case c == '"':
			s.pos++
			return s.in[from : s.pos-1], nil
		case c == '\\':
			return s.jsonEscaped(from)
		case c < 0x20:
			return nil, s.fail(s.pos, "control character in a string")
		}
		s.pos++
	}
	return nil, s.unexpected()
}

// jsonEscaped goes on where the first backslash stands.
func (s *state) jsonEscaped(from int) ([]byte, error) {
	s.text = append(s.text[:0], s.in[from:s.pos]...)
	for s.pos < len(s.in) {
		c := s.in[s.pos]
		switch {
		case c == '"':
			s.pos++
			return s.text, nil
		case c < 0x20:
			return nil, s.fail(s.pos, "control character in a string")
		case c != '\\':
			s.text = append(s.text, c)
			s.pos++
			continue
		}
		s.pos++
		c = s.peek()
		switch c {
		case '"', '\\', '/':
		case 'b':
			c = '\b'
		case 'f':
			c = '\f'
		case 'n':
			c = '\n'
		case 'r':
			c = '\r'
		case 't':
			c = '\t'
		case 'u':
			s.pos++
			r, ok := s.hex4()
			if !ok {
				return nil, s.fail(s.pos, "\\u wants four hex digits")
			}
			if utf16.IsSurrogate(r) {
				r = s.lowSurrogate(r)
			}
			s.text = utf8.AppendRune(s.text, r)
			continue
		default:
			return nil, s.fail(s.pos, "unknown escape")
		}
		s.text = append(s.text, c)
		s.pos++
	}
	return nil, s.unexpected()
}

// lowSurrogate joins the pair that r begins. A lone half is U+FFFD.
func (s *state) lowSurrogate(r rune) rune {
	if s.pos+1 >= len(s.in) || s.in[s.pos] != '\\' || s.in[s.pos+1] != 'u' {
		return utf8.RuneError
	}
	back := s.pos
	s.pos += 2
	low, ok := s.hex4()
	if !ok {
		s.pos = back
		return utf8.RuneError
	}
	joined := utf16.DecodeRune(r, low)
	if joined == utf8.RuneError {
		s.pos = back
	}
	return joined
}

func (s *state) hex4() (rune, bool) {
	if len(s.in)-s.pos < 4 {
		return 0, false
	}
	var r rune
	for _, c := range s.in[s.pos : s.pos+4] {
		switch {
		case '0' <= c && c <= '9':
			c -= '0'
		case 'a' <= c && c <= 'f':
			c -= 'a' - 10
		case 'A' <= c && c <= 'F':
			c -= 'A' - 10
		default:
			return 0, false
		}
		r = r<<4 | rune(c)
	}
	s.pos += 4
	return r, true
}

func (s *state) digits() int {
	n := 0
	for s.pos < len(s.in) && '0' <= s.in[s.pos] && s.in[s.pos] <= '9' {
		s.pos++
		n++
	}
	return n
}

func (s *state) jsonNumber() error {
	from, whole := s.pos, true
	if s.peek() == '-' {
		s.pos++
	}
	if s.peek() == '0' {
		s.pos++
	} else if s.digits() == 0 {
		return s.unexpected()
	}
	if s.peek() == '.' {
		whole = false
		s.pos++
		if s.digits() == 0 {
			return s.unexpected()
		}
	}
	if c := s.peek(); c == 'e' || c == 'E' {
		whole = false
		s.pos++
		if c := s.peek(); c == '+' || c == '-' {
			s.pos++
		}
		if s.digits() == 0 {
			return s.unexpected()
		}
	}
	v, ok := parseNumber(s.in[from:s.pos], whole)
	if !ok {
		return s.fail(from, "number beyond float64")
	}
	return s.add(v)
}

// parseNumber reads a decimal number that is known to be well formed; false
// if it is beyond float64.
func parseNumber(b []byte, whole bool) (Value, bool) {
	if whole && len(b) < 20 {
		if i, err := strconv.ParseInt(string(b), 10, 64); err == nil {
			return IntValue(i), true
		}
	}
	f, err := strconv.ParseFloat(string(b), 64)
	if err != nil || math.IsInf(f, 0) {
		return Value{}, false
	}
	return FloatValue(f), true
}
