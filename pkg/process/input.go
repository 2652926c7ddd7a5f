package process

import (
	"encoding/binary"
	"math"
	"unicode/utf8"

	"edgehub/pkg/log/record"
	"edgehub/pkg/payload"
)

// Headers of records that the input looks at; pkg/route writes them.
const (
	headerPayloadError = "payload.error"
	headerTimeFixed    = "time.fixed"
)

// input turns records into samples. It keeps scratch space and is not safe for
// concurrent use.
type input struct {
	spec    *spec
	decoder payload.Decoder

	rec      *record.Record
	fields   payload.Fields
	samples  []sample // of the record at work
	times    []int64  // of samples, as the readings say; 0: none
	readings int
	scratch  []byte
	counts   inputCounts
}

// inputCounts say what became of the input.
type inputCounts struct {
	Records   int64 // all of them
	Malformed int64 // records with payload.error, or that did not decode
	Untimed   int64 // records without a usable time
	Ungrouped int64 // readings without a field that "by" names, or with a key longer than 4 KiB
	Filtered  int64 // readings for which where was false
	Errors    int64 // readings for which where or a compute had the wrong type
}

// Lookup implements expr.Env: a header, called capture, wins over a field.
func (in *input) Lookup(name string) any { return in.lookup(name).Any() }

func (in *input) lookup(name string) payload.Value {
	if v, ok := in.rec.Header(name); ok {
		if !utf8.Valid(v) {
			return payload.StringValue(string([]rune(string(v)))) // with U+FFFD
		}
		return payload.StringValue(string(v))
	}
	return in.fields.Get(name)
}

// take gives the samples of a record, valid until the next call. They hold
// slices of rec and of in.
func (in *input) take(rec *record.Record) []sample {
	in.counts.Records++
	in.rec, in.samples, in.times, in.readings = rec, in.samples[:0], in.times[:0], 0
	defer func() { in.rec, in.fields = nil, nil }()
	if _, bad := rec.Header(headerPayloadError); bad {
		in.counts.Malformed++
		return nil
	}
	if rec.Timestamp < 0 || rec.Timestamp > maxTime {
		in.counts.Untimed++
		return nil
	}
	if err := in.decoder.Decode(rec.Value, in.reading); err != nil {
		in.counts.Malformed++
		return nil
	}
	// The event time is the record's timestamp. Where a record has several
	// readings with times of their own, the timestamp is that of the latest.
	_, fixed := rec.Header(headerTimeFixed)
	for i := range in.samples {
		s := &in.samples[i]
		s.time = rec.Timestamp
		if t := in.times[i]; in.readings > 1 && !fixed && t > 0 && t < rec.Timestamp {
			s.time = t
		}
	}
	return in.samples
}

func (in *input) reading(r *payload.Reading) error {
	in.readings++
	in.fields = r.Fields
	if in.spec.where != nil {
		pass, err := in.spec.where.Match(in)
		if err != nil {
			in.counts.Errors++
			return nil
		}
		if !pass {
			in.counts.Filtered++
			return nil
		}
	}
	n := len(in.samples)
	if n < cap(in.samples) {
		in.samples = in.samples[:n+1]
	} else {
		in.samples = append(in.samples, sample{})
	}
	s := &in.samples[n]
	*s = sample{offset: in.rec.Offset, text: s.text[:0], by: s.by[:0], values: s.values[:0]}
	if !in.identify(s) {
		in.samples = in.samples[:n]
		in.counts.Ungrouped++
		return nil
	}
	bad := false
	for i := range in.spec.computes {
		v, err := in.value(&in.spec.computes[i])
		bad = bad || err != nil
		s.values = append(s.values, v)
	}
	if bad {
		in.counts.Errors++
	}
	at := r.Time
	if at == 0 && r.Shift < 0 {
		at = max(in.rec.Timestamp+r.Shift, 0)
	}
	in.times = append(in.times, at)
	return nil
}

// value is what a compute takes of the reading: nothing where a field is
// missing or of the wrong type, or the number is not finite.
func (in *input) value(c *compute) (value, error) {
	if c.value == nil {
		return value{present: true}, nil
	}
	v, err := c.value.Eval(in)
	if err != nil || v == nil {
		return value{}, err
	}
	f, isNumber := v.(float64)
	if c.agg.AnyValue {
		return value{present: true, number: f}, nil
	}
	if !isNumber || math.IsNaN(f) || math.IsInf(f, 0) {
		return value{}, nil
	}
	return value{present: true, number: f}, nil
}

// maxKey bounds the keys of results, in bytes.
const maxKey = 4096

// identify fills in who s belongs to: its group, the key of its results and,
// in a group, the device. False if a by value is missing.
//
// The id of a group keeps values of different types apart and orders groups;
// without by it is the record key, behind 1 if there is one.
func (in *input) identify(s *sample) bool {
	b := in.scratch[:0]
	if len(in.spec.By) == 0 {
		if len(in.rec.Key) > maxKey {
			return false
		}
		if in.rec.Key == nil {
			s.text, s.id = nil, ""
			return true
		}
		b = append(append(b, 1), in.rec.Key...)
		s.text = append(s.text[:0], in.rec.Key...)
		if s.text == nil {
			s.text = []byte{}
		}
		s.id, in.scratch = string(b), b
		return true
	}
	for i, name := range in.spec.By {
		v := in.lookup(name)
		if v.Kind() == payload.Missing {
			return false
		}
		if i > 0 {
			s.text = append(s.text, keySeparator)
		}
		from := len(s.text)
		s.text = v.AppendText(s.text)
		s.by = append(s.by, v)
		if len(s.text) > maxKey {
			return false
		}
		b = append(b, byte(v.Kind()))
		b = binary.AppendUvarint(b, uint64(len(s.text)-from))
		b = append(b, s.text[from:]...)
	}
	s.id, in.scratch = string(b), b
	s.device = string(in.rec.Key)
	return true
}
