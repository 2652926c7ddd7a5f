package payload

import (
	"sync"
)

// core is what every decoder has: its options and the pool of its working
// states.
type core struct {
	kind Kind
	o    Options
	time *timer
	pool sync.Pool // of *state
}

func (c *core) get() *state {
	if s, ok := c.pool.Get().(*state); ok {
		return s
	}
	return &state{core: c, names: make(map[string]string)}
}

func (c *core) put(s *state) {
	s.reset()
	s.in = nil
	c.pool.Put(s)
}

func (c *core) fail(at int, what string) error {
	return &Error{Kind: c.kind, Offset: at, What: what, Err: ErrMalformed}
}

func (c *core) limit(at int, what string) error {
	return &Error{Kind: c.kind, Offset: at, What: what, Err: ErrLimit}
}

// span is one reading's part of state.fields.
type span struct {
	from, to int
	time     int64
	shift    int64
}

// state collects the readings of one payload. All their fields stand in one
// slice, which together with the interned strings makes decoding free of
// allocations once it has run a while.
type state struct {
	*core
	in      []byte // the payload
	pos     int
	name    []byte // flattened name of the value being read
	text    []byte // scratch for unescaped strings
	fields  []Field
	spans   []span
	list    bool     // the payload is an array of readings, perhaps empty
	keys    []member // siblings of the objects being read, innermost last
	names   map[string]string
	reading Reading
}

// member is a key of an object being read and the fields that it led to.
type member struct {
	key      string
	from, to int
}

func (s *state) reset() {
	clear(s.fields)
	s.fields, s.spans, s.name, s.list = s.fields[:0], s.spans[:0], s.name[:0], false
	clear(s.keys)
	s.keys = s.keys[:0]
}

// maxInterned and maxInternedLen bound what a state keeps of strings that it
// has seen.
const (
	maxInterned    = 1024
	maxInternedLen = 64
)

// intern returns b as a string, the same one for the same short bytes.
func (s *state) intern(b []byte) string {
	if len(b) > maxInternedLen {
		return string(b)
	}
	if v, ok := s.names[string(b)]; ok {
		return v
	}
	if len(s.names) >= maxInterned {
		clear(s.names)
	}
	v := string(b)
	s.names[v] = v
	return v
}

// add appends a field named s.name to the reading at work.
func (s *state) add(v Value) error {
	if len(s.fields) >= s.o.MaxFields {
		return s.limit(s.pos, "too many fields")
	}
	name := ValueField
	if len(s.name) > 0 {
		name = s.intern(s.name)
	}
	s.fields = append(s.fields, Field{Name: name, Value: v})
	return nil
}

// push makes s.name the name of a child; pop with the returned length. The
// name may be that of a limit-breaking depth: checked here.
func (s *state) push(key []byte) (int, error) {
	n := len(s.name)
	if n+1+len(key) > s.o.MaxName {
		return n, s.limit(s.pos, "name too long")
	}
	if n > 0 {
		s.name = append(s.name, '.')
	}
	s.name = append(s.name, key...)
	return n, nil
}

// begin opens a reading; end closes it.
func (s *state) begin() (from int, err error) {
	if len(s.spans) >= s.o.MaxReadings {
		return 0, s.limit(s.pos, "too many readings")
	}
	return len(s.fields), nil
}

func (s *state) end(from int) {
	s.dedupe(from)
	s.spans = append(s.spans, span{from: from, to: len(s.fields)})
}

// drop removes what an earlier member of the same name led to.
func (s *state) drop(m member) {
	for i := m.from; i < m.to; i++ {
		s.fields[i].Value = Value{}
	}
}

// dedupe removes dropped fields and, of equal names ("a.b" may also be b in
// a), all but the last, in place.
func (s *state) dedupe(from int) {
	f := s.fields[from:]
	if len(f) <= 24 {
		for i := range f {
			for j := i + 1; j < len(f) && f[i].Value.kind != Missing; j++ {
				if f[j].Value.kind != Missing && f[j].Name == f[i].Name {
					f[i].Value = Value{}
				}
			}
		}
	} else {
		last := make(map[string]int, len(f))
		for i := range f {
			if f[i].Value.kind == Missing {
				continue
			}
			if at, ok := last[f[i].Name]; ok {
				f[at].Value = Value{}
			}
			last[f[i].Name] = i
		}
	}
	kept := f[:0]
	for i := range f {
		if f[i].Value.kind != Missing {
			kept = append(kept, f[i])
		}
	}
	clear(f[len(kept):])
	s.fields = s.fields[:from+len(kept)]
}

// emit hands out the readings.
func (s *state) emit(emit func(*Reading) error) error {
	for _, sp := range s.spans {
		r := &s.reading
		*r = Reading{Time: sp.time, Shift: sp.shift, Fields: s.fields[sp.from:sp.to:sp.to]}
		s.time.set(r)
		if err := emit(r); err != nil {
			return err
		}
	}
	return nil
}
