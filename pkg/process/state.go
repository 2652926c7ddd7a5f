package process

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"

	"edgehub/pkg/payload"
)

// errState means that saved state cannot be read.
var errState = errors.New("saved state is malformed")

// appendParts appends the parts of an open window as bytes.
func appendParts(dst []byte, parts []part) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(parts)))
	for _, p := range parts {
		dst = appendText(dst, p.device)
		for _, a := range p.aggs {
			dst = a.AppendState(dst)
		}
	}
	return dst
}

// freeze turns a window's parts into bytes, which take a third of the memory.
func (w *windows) freeze(win *window) {
	win.state = slices.Clip(appendParts(win.state[:0], win.parts))
	win.parts = nil
}

// thaw is the inverse of freeze. The bytes are our own or a snapshot's that
// load has tried.
func (w *windows) thaw(win *window) {
	r := reader{b: win.state}
	win.parts = w.readParts(&r)
	if r.err != nil || len(r.b) != 0 {
		panic("process: state of a closed window does not read back")
	}
}

func (w *windows) readParts(r *reader) []part {
	n := r.count(1)
	parts := make([]part, 0, n)
	for range n {
		p := part{device: r.text(), aggs: w.newAggs()}
		for _, a := range p.aggs {
			if r.err != nil {
				return nil
			}
			r.b, r.err = a.Load(r.b)
		}
		if len(parts) > 0 && p.device <= parts[len(parts)-1].device {
			r.fail("devices out of order")
		}
		parts = append(parts, p)
	}
	return parts
}

// appendState appends all of w: keys in the order in which they were heard.
func (w *windows) appendState(dst []byte) []byte {
	dst = binary.AppendUvarint(dst, w.turn)
	dst = binary.AppendUvarint(dst, uint64(len(w.keys)))
	var scratch []byte
	for k := w.head; k != nil; k = k.next {
		dst = appendText(dst, k.id)
		dst = appendBytes(dst, k.text)
		for _, v := range k.by {
			dst = appendValue(dst, v)
		}
		dst = binary.AppendVarint(dst, k.clock)
		dst = binary.AppendVarint(dst, k.heard)
		dst = binary.AppendVarint(dst, k.floor)
		dst = binary.AppendUvarint(dst, uint64(len(k.issued)))
		for _, s := range k.issued {
			dst = binary.AppendVarint(dst, s.from)
			dst = binary.AppendVarint(dst, s.to-s.from)
		}
		dst = binary.AppendUvarint(dst, uint64(len(k.open)))
		for _, win := range k.open {
			dst = binary.AppendVarint(dst, win.index)
			scratch = appendParts(scratch[:0], win.parts)
			dst = appendBytes(dst, scratch)
		}
		dst = binary.AppendUvarint(dst, uint64(len(k.closed)))
		for _, win := range k.closed {
			dst = binary.AppendVarint(dst, win.index)
			dst = binary.AppendVarint(dst, win.rev)
			dst = binary.AppendUvarint(dst, win.turn)
			dst = appendBytes(dst, win.state)
		}
	}
	return dst
}

// load reads what appendState wrote into an empty w. After an error w is of
// no use.
func (w *windows) load(b []byte) error {
	r := &reader{b: b}
	w.turn = r.uint()
	for range r.count(8) {
		k := &key{id: r.text(), text: r.bytes()}
		for range w.spec.By {
			k.by = append(k.by, r.value())
		}
		k.clock, k.heard, k.floor = r.int(), r.int(), r.int()
		last := int64(math.MinInt64)
		for range r.count(2) {
			s := span{from: r.int()}
			s.to = s.from + r.int()
			if s.from <= last || s.to <= s.from {
				r.fail("issued windows out of order")
			}
			last = s.to
			k.issued = append(k.issued, s)
		}
		last = math.MinInt64
		for range r.count(2) {
			win := &window{index: r.int(), rev: -1}
			in := reader{b: r.bytes(), err: r.err}
			win.parts = w.readParts(&in)
			if in.err != nil || len(in.b) != 0 || len(win.parts) == 0 || win.index <= last {
				r.fail("bad open window")
			}
			last, win.devices = win.index, len(win.parts)
			w.open += win.devices
			k.open = append(k.open, win)
		}
		last = math.MinInt64
		for range r.count(4) {
			win := &window{index: r.int(), rev: r.int(), turn: r.uint(), state: r.bytes()}
			in := reader{b: win.state, err: r.err}
			parts := w.readParts(&in)
			if in.err != nil || len(in.b) != 0 || len(parts) == 0 || win.index <= last {
				r.fail("bad closed window")
			}
			last, win.devices = win.index, len(parts)
			w.kept += win.devices
			k.closed = append(k.closed, win)
			w.queue.push(closedRef{k, win.index, win.turn})
		}
		if r.err != nil {
			return r.err
		}
		if w.keys[k.id] != nil {
			return fmt.Errorf("%w: a key is there twice", errState)
		}
		w.keys[k.id] = k
		w.link(k)
	}
	if r.err == nil && len(r.b) != 0 {
		r.fail("bytes left over")
	}
	slices.SortFunc(w.queue.refs, func(a, b closedRef) int {
		if a.turn < b.turn {
			return -1
		}
		return 1
	})
	return r.err
}

func appendText(dst []byte, s string) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(s))), s...)
}

// appendBytes keeps nil apart from empty.
func appendBytes(dst, b []byte) []byte {
	if b == nil {
		return append(dst, 0)
	}
	return append(binary.AppendUvarint(dst, uint64(len(b))+1), b...)
}

func appendValue(dst []byte, v payload.Value) []byte {
	dst = append(dst, byte(v.Kind()))
	switch v.Kind() {
	case payload.Int:
		i, _ := v.Int()
		return binary.AppendVarint(dst, i)
	case payload.Float:
		f, _ := v.Number()
		return binary.LittleEndian.AppendUint64(dst, math.Float64bits(f))
	case payload.String:
		s, _ := v.Text()
		return appendText(dst, s)
	case payload.Bool:
		b, _ := v.Bool()
		if b {
			return append(dst, 1)
		}
		return append(dst, 0)
	}
	return dst
}

// reader reads what the functions above wrote. After the first error it gives
// zeros, and counts of none.
type reader struct {
	b   []byte
	err error
}

func (r *reader) fail(what string) {
	if r.err == nil {
		r.err = fmt.Errorf("%w: %s", errState, what)
	}
	r.b = nil
}

func (r *reader) uint() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.fail("cut short")
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) int() int64 {
	v, n := binary.Varint(r.b)
	if n <= 0 {
		r.fail("cut short")
		return 0
	}
	r.b = r.b[n:]
	return v
}

// count is a number of things of at least min bytes each.
func (r *reader) count(min int) int {
	n := r.uint()
	if n > uint64(len(r.b)/min) {
		r.fail("impossible count")
		return 0
	}
	return int(n)
}

func (r *reader) take(n uint64) []byte {
	if n > uint64(len(r.b)) {
		r.fail("cut short")
		return nil
	}
	b := r.b[:n:n]
	r.b = r.b[n:]
	return b
}

func (r *reader) text() string { return string(r.take(r.uint())) }

func (r *reader) bytes() []byte {
	n := r.uint()
	if n == 0 || r.err != nil {
		return nil
	}
	return append([]byte{}, r.take(n-1)...)
}

func (r *reader) value() payload.Value {
	kind := r.take(1)
	if r.err != nil {
		return payload.Value{}
	}
	switch payload.ValueKind(kind[0]) {
	case payload.Int:
		return payload.IntValue(r.int())
	case payload.Float:
		if b := r.take(8); r.err == nil {
			return payload.FloatValue(math.Float64frombits(binary.LittleEndian.Uint64(b)))
		}
	case payload.String:
		return payload.StringValue(r.text())
	case payload.Bool:
		if b := r.take(1); r.err == nil {
			return payload.BoolValue(b[0] != 0)
		}
	default:
		r.fail("unknown kind of value")
	}
	return payload.Value{}
}
