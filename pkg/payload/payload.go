// Package payload turns the bytes of a message into readings: an event time
// and named numbers, strings and booleans. It is pure: no I/O, no clock, no
// goroutines, no globals that change.
//
// What all decoders share:
//
//   - Nested objects are flattened, names joined by "."; elements of nested
//     arrays are named by their index ("rx.0.rssi"). Null is a missing field.
//   - A top-level array of objects is several readings.
//   - Of equal names in one object the last wins, as in most parsers.
//   - NaN and infinities are refused, and so is text that is not UTF-8.
//   - A string is a string, even when it looks like a number with a unit.
//   - Depth, size and counts are bounded before anything is allocated.
//
// A payload is decoded whole or not at all: emit is not called before the
// last byte has been found good.
package payload

import (
	"errors"
	"fmt"
)

// Kind names a decoder, as a route's "payload:" does.
type Kind string

// The kinds.
const (
	JSON  Kind = "json"
	CBOR  Kind = "cbor"  // RFC 8949, one item
	SenML Kind = "senml" // RFC 8428, JSON or CBOR by its first byte
	Text  Kind = "text"  // a number, else the text itself, as field "value"
	Raw   Kind = "raw"   // one reading without fields
	Auto  Kind = "auto"  // see the decoder's own comment; never refuses for its form
)

// Kinds lists every kind, for messages.
func Kinds() []Kind { return []Kind{JSON, CBOR, SenML, Text, Raw, Auto} }

// ValueField is the name of the only field of a payload that is no object.
const ValueField = "value"

// Errors of Decode, wrapped in *Error.
var (
	// ErrMalformed: the bytes are not of the decoder's kind.
	ErrMalformed = errors.New("malformed payload")
	// ErrLimit: the payload is larger or deeper than Options allow.
	ErrLimit = errors.New("payload over its limits")
)

// Error says what is wrong with a payload, and where.
type Error struct {
	Kind   Kind
	Offset int    // in bytes from 0; -1 if unknown
	What   string // "unexpected end"
	Err    error  // ErrMalformed or ErrLimit
}

func (e *Error) Error() string {
	if e.Offset < 0 {
		return fmt.Sprintf("%v: %s: %s", e.Err, e.Kind, e.What)
	}
	return fmt.Sprintf("%v: %s: %s at byte %d", e.Err, e.Kind, e.What, e.Offset)
}

// Unwrap gives ErrMalformed or ErrLimit.
func (e *Error) Unwrap() error { return e.Err }

// Options are a decoder's. Zero fields take their default.
type Options struct {
	// Time says where a reading's event time is. Without a field, readings
	// have no time of their own (SenML apart, which always carries it).
	Time TimeField

	MaxBytes    int // one payload; default 1 MiB
	MaxDepth    int // nested arrays and objects; default 16, at most 64
	MaxFields   int // of one payload, all readings together; default 4096
	MaxReadings int // of one payload; default 4096
	MaxName     int // bytes of a flattened name; default 512
}

// EnsureDefaults fills zero fields.
func (o *Options) EnsureDefaults() {
	set := func(p *int, v int) {
		if *p == 0 {
			*p = v
		}
	}
	set(&o.MaxBytes, 1<<20)
	set(&o.MaxDepth, 16)
	set(&o.MaxFields, 4096)
	set(&o.MaxReadings, 4096)
	set(&o.MaxName, 512)
}

// Validate says which option is out of its range.
func (o *Options) Validate() error {
	if o.MaxBytes < 1 || o.MaxFields < 1 || o.MaxReadings < 1 || o.MaxName < 1 {
		return errors.New("payload limits must be at least 1")
	}
	if o.MaxDepth < 1 || o.MaxDepth > 64 {
		return fmt.Errorf("payload depth %d: use 1 to 64", o.MaxDepth)
	}
	return nil
}

// Decoder decodes payloads of one kind. It is safe for concurrent use.
type Decoder interface {
	// Decode calls emit with each reading of b in order, after all of b has
	// been found good. b is not kept. The Reading and its Fields slice are
	// valid until emit returns; the strings in it are ordinary Go strings and
	// may be kept. An error is an *Error, or what emit returned, as it is.
	Decode(b []byte, emit func(*Reading) error) error
}

// New makes the decoder of a kind.
func New(kind Kind, o Options) (Decoder, error) {
	o.EnsureDefaults()
	if err := o.Validate(); err != nil {
		return nil, err
	}
	timer, err := o.Time.compile()
	if err != nil {
		return nil, err
	}
	c := &core{kind: kind, o: o, time: timer}
	switch kind {
	case JSON:
		return &jsonDecoder{c}, nil
	case CBOR:
		return newCBOR(c)
	case SenML:
		return newSenML(c)
	case Text:
		return &textDecoder{c}, nil
	case Raw:
		return &rawDecoder{c}, nil
	case Auto:
		return newAuto(c)
	}
	return nil, fmt.Errorf("payload kind %q is unknown: use one of %v", kind, Kinds())
}
