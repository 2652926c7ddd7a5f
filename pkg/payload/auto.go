package payload

import "errors"

// autoDecoder finds out what a payload is, by trying in this order:
//
//  1. JSON objects and arrays; an array whose first object has SenML's fields
//     alone, and a value among them, is SenML.
//  2. CBOR maps and arrays (SenML likewise), if they are one well-formed item
//     to the last byte.
//  3. text: a number or a string.
//  4. raw.
//
// So it never refuses a payload for its form.
type autoDecoder struct {
	*core
	json  *jsonDecoder
	cbor  *cborDecoder
	senml *senmlDecoder
	text  *textDecoder
	raw   *rawDecoder
}

func newAuto(c *core) (*autoDecoder, error) {
	part := func(k Kind) *core { return &core{kind: k, o: c.o, time: c.time} }
	d := &autoDecoder{core: c, json: &jsonDecoder{part(JSON)}, text: &textDecoder{part(Text)}, raw: &rawDecoder{part(Raw)}}
	var err error
	if d.cbor, err = newCBOR(part(CBOR)); err != nil {
		return nil, err
	}
	d.senml, err = newSenML(part(SenML))
	return d, err
}

func (d *autoDecoder) Decode(b []byte, emit func(*Reading) error) error {
	for _, try := range d.candidates(b) {
		err := try.Decode(b, emit)
		if e := (*Error)(nil); err == nil || !errors.As(err, &e) {
			return err
		}
	}
	return d.raw.Decode(b, emit)
}

func (d *autoDecoder) candidates(b []byte) []Decoder {
	i := 0
	for i < len(b) && (b[i] == ' ' || b[i] == '\t' || b[i] == '\n' || b[i] == '\r') {
		i++
	}
	if i == len(b) {
		return []Decoder{d.text}
	}
	switch c := b[i]; {
	case c == '{':
		return []Decoder{d.json, d.text}
	case c == '[':
		if d.looksSenML(d.json.core, func(s *state) error { return s.json(b) }) {
			return []Decoder{d.senml, d.json, d.text}
		}
		return []Decoder{d.json, d.text}
	case i == 0 && c >= 0x80 && c < 0xc0: // arrays and maps
		if c < 0xa0 && d.looksSenML(d.cbor.core, func(s *state) error { return d.cbor.read(s, b, senmlLabels) }) {
			return []Decoder{d.senml, d.cbor, d.text}
		}
		return []Decoder{d.cbor, d.text}
	}
	return []Decoder{d.text}
}

// looksSenML says whether the first reading has fields of SenML alone, and a
// name and a value or base fields among them.
func (d *autoDecoder) looksSenML(c *core, read func(*state) error) bool {
	s := c.get()
	defer c.put(s)
	if read(s) != nil || len(s.spans) == 0 {
		return false
	}
	named := false
	f := s.fields[s.spans[0].from:s.spans[0].to]
	for i := range f {
		switch f[i].Name {
		case "bn":
			named = true
		case "n":
			named = true
		case "bt", "bu", "bv", "bs", "bver", "u", "v", "vs", "vb", "vd", "s", "t", "ut":
		default:
			return false
		}
	}
	return named
}
