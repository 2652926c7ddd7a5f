package kafka

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Bounds of one request body.
const (
	// maxElements bounds the array elements of one request, those of nested
	// arrays included. kmsg makes a struct of at most about 150 bytes of each,
	// so a request costs at most about 10 MB beside its frame.
	maxElements = 1 << 16
	// maxTags bounds the tagged fields of one request. kmsg keeps unknown
	// ones in maps.
	maxTags = 256
)

// Errors of the walk. They close the connection: a request that cannot be
// read cannot be answered either.
var (
	errBody     = errors.New("request body is malformed")
	errElements = fmt.Errorf("request has more than %d array elements", maxElements)
	errTags     = fmt.Errorf("request has more than %d tagged fields", maxTags)
)

type kind uint8

const (
	kFixed       kind = iota // size bytes
	kString                  // not null
	kNullString              // may be null
	kBytes                   // may be null
	kArray                   // of elem; may be null
	kTagged                  // known tagged field number size, of elem; only in field lists of tags
	kStructField             // fields in place, without a length (inside a tagged field)
)

// field is one field of a request, present in versions min to max.
type field struct {
	kind     kind
	size     int // kFixed: bytes; kTagged: tag number
	min, max int16
	elem     []field // kArray, kTagged, kStructField
	tags     []field // kArray of structs, kStructField: known tagged fields of each element
	plain    bool    // kArray: elements are values, not structs: no tags behind each
}

// schema is the body of a request.
type schema struct {
	flexible int16 // first flexible version; -1: none
	fields   []field
	tags     []field // known tagged fields at the end of the body
}

func (s *schema) isFlexible(version int16) bool { return s.flexible >= 0 && version >= s.flexible }

// walk goes over body by the schema and returns how many bytes the request
// takes. It allocates nothing and looks at each byte at most once; every
// length and count is checked against the bytes that are left before it is
// believed. What walk accepts, kmsg decodes without error.
//
// Bytes behind the last field are not an error (Kafka ignores them, too);
// they do not reach kmsg.
func (s *schema) walk(version int16, body []byte) (int, error) {
	w := walker{b: body, version: version, flexible: s.isFlexible(version), elements: maxElements, tags: maxTags}
	w.fields(s.fields)
	if w.flexible {
		w.tagged(s.tags)
	}
	if w.bad != nil {
		return 0, w.bad
	}
	return len(body) - len(w.b), nil
}

type walker struct {
	b        []byte
	version  int16
	flexible bool
	elements int // still allowed
	tags     int // still allowed
	bad      error
}

func (w *walker) fail(err error) {
	if w.bad == nil {
		w.bad = err
	}
	w.b = nil
}

func (w *walker) skip(n int) {
	if n < 0 || n > len(w.b) {
		w.fail(errBody)
		return
	}
	w.b = w.b[n:]
}

func (w *walker) i16() int16 {
	if len(w.b) < 2 {
		w.fail(errBody)
		return 0
	}
	v := int16(binary.BigEndian.Uint16(w.b))
	w.b = w.b[2:]
	return v
}

func (w *walker) i32() int32 {
	if len(w.b) < 4 {
		w.fail(errBody)
		return 0
	}
	v := int32(binary.BigEndian.Uint32(w.b))
	w.b = w.b[4:]
	return v
}

// uvarint reads what must fit an int32: no count or length of ours is larger.
func (w *walker) uvarint() int {
	v, n := binary.Uvarint(w.b)
	if n <= 0 || n > 5 || v > 1<<31-1 {
		w.fail(errBody)
		return 0
	}
	w.b = w.b[n:]
	return int(v)
}

func (w *walker) fields(fs []field) {
	for i := range fs {
		f := &fs[i]
		if w.version < f.min || w.version > f.max {
			continue
		}
		if w.bad != nil {
			return
		}
		switch f.kind {
		case kFixed:
			w.skip(f.size)
		case kString, kNullString:
			w.str(f.kind == kNullString)
		case kBytes:
			n := 0
			if w.flexible {
				n = w.uvarint() - 1
			} else {
				n = int(w.i32())
			}
			if n > 0 {
				w.skip(n)
			} else if n < -1 {
				w.fail(errBody)
			}
		case kArray:
			w.array(f)
		case kStructField:
			w.fields(f.elem)
			if w.flexible {
				w.tagged(f.tags)
			}
		}
	}
}

func (w *walker) str(nullable bool) {
	n := 0
	if w.flexible {
		n = w.uvarint() - 1
	} else {
		n = int(w.i16())
	}
	switch {
	case n >= 0:
		w.skip(n)
	case n < -1 || !nullable:
		w.fail(errBody)
	}
}

func (w *walker) array(f *field) {
	n := 0
	if w.flexible {
		n = w.uvarint() - 1
	} else {
		n = int(w.i32())
	}
	if w.bad != nil || n == -1 {
		return
	}
	// An element takes at least one byte.
	if n < -1 || n > len(w.b) {
		w.fail(errBody)
		return
	}
	if n > w.elements {
		w.fail(errElements)
		return
	}
	w.elements -= n
	for range n {
		w.fields(f.elem)
		if w.flexible && !f.plain {
			w.tagged(f.tags)
		}
		if w.bad != nil {
			return
		}
	}
}

// tagged walks a section of tagged fields. kmsg decodes those that it knows,
// in whatever version they come, so they are walked too.
func (w *walker) tagged(known []field) {
	n := w.uvarint()
	if w.bad != nil {
		return
	}
	// A tag takes at least two bytes.
	if n > len(w.b)/2 {
		w.fail(errBody)
		return
	}
	if n > w.tags {
		w.fail(errTags)
		return
	}
	w.tags -= n
	for range n {
		tag, size := w.uvarint(), w.uvarint()
		if w.bad != nil || size > len(w.b) {
			w.fail(errBody)
			return
		}
		for i := range known {
			if known[i].size != tag {
				continue
			}
			all := w.b
			w.b = all[:size]
			w.fields(known[i].elem)
			if w.bad != nil {
				return
			}
			w.b = all
		}
		w.skip(size)
	}
}
