package payload

import (
	"math"
	"strings"
)

// senmlDecoder reads SenML packs (RFC 8428), JSON if the first byte that is
// no space is "[", else CBOR, and resolves base fields.
//
// Records of one base name and one time that stand side by side are one
// reading: [{"bn":"urn:dev:1:","n":"t","v":20},{"n":"h","v":60}] has fields t,
// h and bn. A name that comes again begins the next reading. Per record n:
//
//	n        its value (v with the base value added, vs, vb or vd)
//	n.unit   its unit, where it has one
//	n.sum    its sum, where it has one
//	bn       the base name, where there is one
//
// A record without n has the name "value". Times below 2^28 are relative to
// now (§4.5.3): they become Shift.
type senmlDecoder struct {
	*core
	cbor *cborDecoder
}

// senmlLabels are the CBOR labels of RFC 8428, table 4.
var senmlLabels = map[int64]string{
	-1: "bver", -2: "bn", -3: "bt", -4: "bu", -5: "bv", -6: "bs",
	0: "n", 1: "u", 2: "v", 3: "vs", 4: "vb", 5: "s", 6: "t", 7: "ut", 8: "vd",
}

// senmlVersion is the newest version (§4.4) that this decoder understands.
const senmlVersion = 10

func newSenML(c *core) (*senmlDecoder, error) {
	// The records of a pack, before they are resolved, are readings.
	inner := &core{kind: SenML, o: c.o}
	inner.o.Time = TimeField{}
	inner.o.MaxFields = 2 * c.o.MaxFields
	d, err := newCBOR(inner)
	if err != nil {
		return nil, err
	}
	return &senmlDecoder{core: c, cbor: d}, nil
}

func (d *senmlDecoder) Decode(b []byte, emit func(*Reading) error) error {
	raw := d.cbor.get()
	defer d.cbor.put(raw)
	isJSON := len(b) == 0
	for i := 0; i < len(b) && !isJSON; i++ {
		if c := b[i]; c != ' ' && c != '\t' && c != '\n' && c != '\r' {
			isJSON = c == '['
			break
		}
	}
	var err error
	if isJSON {
		err = raw.json(b)
	} else {
		err = d.cbor.read(raw, b, senmlLabels)
	}
	if err != nil {
		return err
	}
	if !raw.list {
		return d.fail(-1, "a pack is an array of records")
	}
	s := d.get()
	defer d.put(s)
	if err := s.resolve(raw); err != nil {
		return err
	}
	return s.emit(emit)
}

// senmlBase holds the base fields in force.
type senmlBase struct {
	name, unit       string
	time, value, sum float64
	hasValue, hasSum bool
}

// senmlRecord is one record with its base fields applied.
type senmlRecord struct {
	name   string // n, without the base
	base   string
	unit   string
	time   float64
	value  Value // missing: none
	sum    float64
	hasSum bool
}

// resolve turns the records in raw into s's readings.
func (s *state) resolve(raw *state) error {
	var (
		base senmlBase
		from = -1
		last senmlRecord
	)
	for _, sp := range raw.spans {
		rec, ok, err := s.senmlRecord(raw.fields[sp.from:sp.to], &base)
		if err != nil {
			return err
		}
		if !ok {
			continue // base fields alone
		}
		if from >= 0 && (rec.base != last.base || rec.time != last.time || Fields(s.fields[from:]).Get(rec.field()).Kind() != Missing) {
			s.senmlEnd(from, last)
			from = -1
		}
		if from < 0 {
			if from, err = s.begin(); err != nil {
				return err
			}
			if err := s.senmlAdd("bn", rec.base != "", StringValue(rec.base)); err != nil {
				return err
			}
		}
		f := rec.field()
		if err := s.senmlAdd(f, true, rec.value); err != nil {
			return err
		}
		if err := s.senmlAdd(f+".unit", rec.unit != "", StringValue(rec.unit)); err != nil {
			return err
		}
		if err := s.senmlAdd(f+".sum", rec.hasSum, FloatValue(rec.sum)); err != nil {
			return err
		}
		last = rec
	}
	if from >= 0 {
		s.senmlEnd(from, last)
	}
	return nil
}

func (r *senmlRecord) field() string {
	if r.name == "" {
		return ValueField
	}
	return r.name
}

func (s *state) senmlAdd(name string, present bool, v Value) error {
	if !present || v.kind == Missing {
		return nil
	}
	s.name = append(s.name[:0], name...)
	err := s.add(v)
	s.name = s.name[:0]
	return err
}

// senmlEnd closes the reading that began at from.
func (s *state) senmlEnd(from int, r senmlRecord) {
	s.end(from)
	sp := &s.spans[len(s.spans)-1]
	ms := int64(math.Round(r.time * 1000))
	if r.time >= 1<<28 {
		sp.time = ms
	} else {
		sp.shift = ms
	}
}

// senmlRecord applies one record to base and resolves it; false if it holds
// base fields only.
func (s *state) senmlRecord(fields []Field, base *senmlBase) (senmlRecord, bool, error) {
	var (
		rec      senmlRecord
		v        float64
		hasV     bool
		values   int
		own      bool // holds more than base fields
		hasS     bool
		sum      float64
		t        float64
		unitHere bool
	)
	bad := func(label string) (senmlRecord, bool, error) {
		return rec, false, s.fail(-1, "field "+label+" of the wrong type")
	}
	for i := range fields {
		label, val := fields[i].Name, fields[i].Value
		num, isNum := val.Number()
		str, isStr := val.Text()
		ok := true
		switch label {
		case "bn":
			base.name, ok = str, isStr
		case "bt":
			base.time, ok = num, isNum
		case "bu":
			base.unit, ok = str, isStr
		case "bv":
			base.value, base.hasValue, ok = num, true, isNum
		case "bs":
			base.sum, base.hasSum, ok = num, true, isNum
		case "bver":
			if ok = isNum; num > senmlVersion {
				return rec, false, s.fail(-1, "SenML version newer than 10")
			}
		case "n":
			rec.name, ok, own = str, isStr, true
		case "u":
			rec.unit, ok, unitHere = str, isStr, true
		case "t":
			t, ok, own = num, isNum, true
		case "ut":
			ok = isNum
		case "v":
			v, hasV, ok = num, true, isNum
			values++
		case "vs", "vd":
			rec.value, ok = val, isStr
			values++
		case "vb":
			_, ok = val.Bool()
			rec.value = val
			values++
		case "s":
			sum, hasS, ok = num, true, isNum
		default:
			if strings.HasSuffix(label, "_") {
				return rec, false, s.fail(-1, "must understand field "+label)
			}
		}
		if !ok {
			return bad(label)
		}
	}
	if values > 1 {
		return rec, false, s.fail(-1, "more than one value in a record")
	}
	if values == 0 && !hasS && !(own && (base.hasValue || base.hasSum)) {
		if own {
			return rec, false, s.fail(-1, "record without a value")
		}
		return rec, false, nil
	}
	if hasV || (values == 0 && !hasS && base.hasValue) {
		// float64() keeps ARM from fusing; addition alone is exact enough.
		total := float64(base.value + v)
		if math.IsInf(total, 0) {
			return rec, false, s.fail(-1, "number beyond float64")
		}
		rec.value = FloatValue(total)
	}
	if hasS || base.hasSum {
		rec.sum, rec.hasSum = float64(base.sum+sum), true
		if math.IsInf(rec.sum, 0) {
			return rec, false, s.fail(-1, "number beyond float64")
		}
	}
	rec.base, rec.time = base.name, base.time+t
	if !unitHere {
		rec.unit = base.unit
	}
	if math.Abs(rec.time) > 9e12 {
		return rec, false, s.fail(-1, "impossible time")
	}
	if !senmlName(base.name, rec.name) {
		return rec, false, s.fail(-1, "name must be of A-Z a-z 0-9 - : . / _ and begin with a letter or digit")
	}
	return rec, true, nil
}

// senmlName checks base+name by §4.5.1.
func senmlName(base, name string) bool {
	if base == "" {
		base, name = name, ""
	}
	if base == "" {
		return false
	}
	for i, s := range [2]string{base, name} {
		for j := range len(s) {
			switch c := s[j]; {
			case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
			case (c == '-' || c == ':' || c == '.' || c == '/' || c == '_') && (i > 0 || j > 0):
			default:
				return false
			}
		}
	}
	return true
}
