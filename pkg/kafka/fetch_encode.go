package kafka

import (
	"encoding/binary"
	"net"
)

// fetchEncoder writes a Fetch response as pieces: what lies around the
// batches is encoded into head, the batches stay where the store put them.
// (kmsg's encoder copies them; kmsg decodes the result in the tests.)
type fetchEncoder struct {
	head     []byte
	flexible bool
	cuts     []cut
}

// cut says that data's bytes belong behind the first at bytes of head.
type cut struct {
	at   int
	data []byte
}

func (e *fetchEncoder) i8(v int8)   { e.head = append(e.head, byte(v)) }
func (e *fetchEncoder) i16(v int16) { e.head = binary.BigEndian.AppendUint16(e.head, uint16(v)) }
func (e *fetchEncoder) i32(v int32) { e.head = binary.BigEndian.AppendUint32(e.head, uint32(v)) }
func (e *fetchEncoder) i64(v int64) { e.head = binary.BigEndian.AppendUint64(e.head, uint64(v)) }

func (e *fetchEncoder) length(n int) {
	if e.flexible {
		e.head = binary.AppendUvarint(e.head, uint64(n+1))
	} else {
		e.i32(int32(n))
	}
}

func (e *fetchEncoder) str(s string) {
	if e.flexible {
		e.head = binary.AppendUvarint(e.head, uint64(len(s)+1))
	} else {
		e.i16(int16(len(s)))
	}
	e.head = append(e.head, s...)
}

func (e *fetchEncoder) tags() {
	if e.flexible {
		e.i8(0)
	}
}

// encode writes the body of a in its Version.
func (e *fetchEncoder) encode(a *fetchAnswer) {
	v := a.Version
	e.i32(a.ThrottleMillis)
	if v >= 7 {
		e.i16(a.ErrorCode)
		e.i32(a.SessionID)
	}
	e.length(len(a.topics))
	for _, t := range a.topics {
		e.str(t.name)
		e.length(t.to - t.from)
		for i := t.from; i < t.to; i++ {
			p := &a.parts[i]
			e.i32(p.tp.Partition)
			e.i16(p.code)
			e.i64(p.hw)
			e.i64(p.hw) // last stable offset
			if v >= 5 {
				e.i64(p.logStart)
			}
			e.length(-1) // aborted transactions: null
			if v >= 11 {
				e.i32(-1) // preferred read replica
			}
			e.length(p.bytes) // never null: librdkafka rejects that
			for _, sp := range p.spans {
				e.cuts = append(e.cuts, cut{len(e.head), a.data[sp.from:sp.to]})
			}
			e.tags()
		}
		e.tags()
	}
	e.tags()
}

// answerFetch writes a in pieces.
func (c *conn) answerFetch(h header, a *fetchAnswer) error {
	flexible := h.version >= 12
	e := fetchEncoder{head: appendHeader(c.out[:0], h, flexible), flexible: flexible}
	e.encode(a)
	size := len(e.head) + a.total
	binary.BigEndian.PutUint32(e.head, uint32(size-4))
	bufs := make(net.Buffers, 0, 2*len(e.cuts)+1)
	from := 0
	for _, ct := range e.cuts {
		if ct.at > from {
			bufs = append(bufs, e.head[from:ct.at])
			from = ct.at
		}
		bufs = append(bufs, ct.data)
	}
	bufs = append(bufs, e.head[from:])
	c.out = nil
	if cap(e.head) <= keptFrame {
		c.out = e.head
	}
	return c.write(bufs, size)
}
