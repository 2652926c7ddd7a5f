package payload

import (
	"bytes"
	"strings"
	"unicode/utf8"
)

// textDecoder makes one field, "value", of a payload: a number if all of it
// but the space around is one ("23.5", "-1e3", "+.5"), else the text as it
// is. "23.5 C" is text, "nan" and "inf" are refused.
type textDecoder struct{ *core }

func (d *textDecoder) Decode(b []byte, emit func(*Reading) error) error {
	s := d.get()
	defer d.put(s)
	if err := s.plain(b); err != nil {
		return err
	}
	return s.emit(emit)
}

func (s *state) plain(b []byte) error {
	if len(b) > s.o.MaxBytes {
		return s.limit(s.o.MaxBytes, "too many bytes")
	}
	if !utf8.Valid(b) {
		return s.fail(invalidUTF8(b), "not UTF-8")
	}
	b = bytes.TrimSpace(b)
	s.in, s.pos = b, 0
	if notFinite(b) {
		return s.fail(0, "not a finite number")
	}
	from, err := s.begin()
	if err != nil {
		return err
	}
	v := Value{}
	if whole, ok := decimal(b); ok {
		if v, ok = parseNumber(b, whole); !ok {
			return s.fail(0, "number beyond float64")
		}
	} else {
		v = StringValue(s.intern(b))
	}
	if err := s.add(v); err != nil {
		return err
	}
	s.end(from)
	return nil
}

// decimal says whether b is a decimal number, and whether it is whole.
func decimal(b []byte) (whole, ok bool) {
	if len(b) > 0 && (b[0] == '+' || b[0] == '-') {
		b = b[1:]
	}
	run := func() int {
		n := 0
		for n < len(b) && '0' <= b[n] && b[n] <= '9' {
			n++
		}
		b = b[n:]
		return n
	}
	whole = true
	n := run()
	if len(b) > 0 && b[0] == '.' {
		whole = false
		b = b[1:]
		n += run()
	}
	if n == 0 {
		return false, false
	}
	if len(b) > 0 && (b[0] == 'e' || b[0] == 'E') {
		whole = false
		b = b[1:]
		if len(b) > 0 && (b[0] == '+' || b[0] == '-') {
			b = b[1:]
		}
		if run() == 0 {
			return false, false
		}
	}
	return whole, len(b) == 0
}

// notFinite says whether b is how printf writes what is no number.
func notFinite(b []byte) bool {
	if len(b) < 3 || len(b) > len("+infinity") {
		return false
	}
	w := strings.ToLower(strings.TrimLeft(string(b), "+-"))
	return w == "nan" || w == "inf" || w == "infinity"
}

// rawDecoder makes one reading without fields, so that count() counts.
type rawDecoder struct{ *core }

func (d *rawDecoder) Decode(_ []byte, emit func(*Reading) error) error {
	return emit(&Reading{})
}
