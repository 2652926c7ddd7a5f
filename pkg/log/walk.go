package log

import (
	"encoding/binary"
	"errors"
	"io"

	"edgehub/pkg/log/record"
)

// readFull reads len(b) bytes at pos; fewer are io.ErrUnexpectedEOF.
func readFull(r io.ReaderAt, b []byte, pos int64) error {
	n, err := r.ReadAt(b, pos)
	if n == len(b) {
		return nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// errBadBatch says that what should be the next batch cannot be believed.
var errBadBatch = errors.New("bad batch")

// walker reads the batches of a segment in order. Inside a segment they are
// dense: one that does not begin where the last ended is bad.
type walker struct {
	r        io.ReaderAt
	pos      int64 // of the next batch, or of padding before it
	end      int64 // of what may be read
	expected int64 // offset of the next batch
	window   int64 // how much to read at once

	buf    []byte
	bufPos int64
}

// fill makes buf hold [pos, pos+n).
func (w *walker) fill(pos int64, n int64) ([]byte, error) {
	if pos < w.bufPos || pos+n > w.bufPos+int64(len(w.buf)) {
		size := min(max(n, w.window), w.end-pos)
		if size < n {
			return nil, io.ErrUnexpectedEOF
		}
		if int64(cap(w.buf)) < size {
			w.buf = make([]byte, size)
		}
		w.buf = w.buf[:size]
		w.bufPos = pos
		if err := readFull(w.r, w.buf, pos); err != nil {
			w.buf = w.buf[:0]
			return nil, err
		}
	}
	return w.buf[pos-w.bufPos : pos-w.bufPos+n], nil
}

// at reads and checks the batch at pos, whatever its offset.
//
// Errors: errBadBatch, or of reading.
func (w *walker) at(pos int64) (h record.Header, raw []byte, err error) {
	if w.end-pos < record.HeaderSize {
		return h, nil, errBadBatch
	}
	b, err := w.fill(pos, record.HeaderSize)
	if err != nil {
		return h, nil, err
	}
	if h, err = record.PeekHeader(b); err != nil || int64(h.Size()) > w.end-pos {
		return h, nil, errBadBatch
	}
	raw, err = w.fill(pos, int64(h.Size()))
	if err != nil {
		return h, nil, err
	}
	if _, err := record.Check(raw); err != nil {
		return h, nil, errBadBatch
	}
	return h, raw, nil
}

// next is the next batch and its position. raw is valid until the next call.
//
// Errors: io.EOF at the end, errBadBatch with w.pos at it, or of reading.
func (w *walker) next() (pos int64, h record.Header, raw []byte, err error) {
	for {
		w.pos = batchPos(w.pos)
		if w.end-w.pos < record.HeaderSize {
			return w.pos, h, nil, io.EOF
		}
		b, err := w.fill(w.pos, 12)
		if err != nil {
			return w.pos, h, nil, err
		}
		if binary.BigEndian.Uint64(b) != 0 || binary.BigEndian.Uint32(b[8:]) != 0 {
			break
		}
		up := blockUp(w.pos)
		if up == w.pos {
			// Zeros on a border are no padding: a block was never written, or
			// is lost.
			return w.pos, h, nil, errBadBatch
		}
		w.pos = up
	}
	pos = w.pos
	h, raw, err = w.at(pos)
	if err == nil && h.BaseOffset != w.expected {
		err = errBadBatch
	}
	if err != nil {
		return pos, h, nil, err
	}
	w.pos += int64(h.Size())
	w.expected = h.NextOffset()
	return pos, h, raw, nil
}

// resync goes behind a bad batch at w.pos (J8): to the nearest place where a
// sound batch of an offset not below the expected begins. It returns the range
// of offsets that is lost. io.EOF: there is none; the range then begins at
// first and its end is unknown here.
//
// Where the bad batch's length is sound, the next one is found at its end, so
// that nothing inside its records can pose as a batch.
func (w *walker) resync(bound int64) (lost hole, err error) {
	bad := w.pos
	lost.first = w.expected
	try := func(pos int64) bool {
		h, _, e := w.at(pos)
		if e != nil {
			if !errors.Is(e, errBadBatch) {
				err = e
			}
			return false
		}
		if h.BaseOffset < w.expected || h.BaseOffset >= bound {
			return false
		}
		w.pos, w.expected = pos, h.BaseOffset
		lost.last = h.BaseOffset - 1
		return true
	}
	if b, e := w.fill(bad, min(12, w.end-bad)); e == nil && len(b) == 12 {
		n := int64(int32(binary.BigEndian.Uint32(b[8:]))) + 12
		if n >= record.HeaderSize && n <= w.end-bad {
			after := batchPos(bad + n)
			if try(after) || err == nil && blockUp(after) != after && try(blockUp(after)) {
				return lost, nil
			}
		}
	}
	for pos := bad + 1; err == nil && w.end-pos >= record.HeaderSize; pos++ {
		b, e := w.fill(pos, 17)
		if e != nil {
			return lost, e
		}
		// Format 2, at a place and of an offset where a batch may begin.
		if b[16] != 2 || batchPos(pos) != pos {
			continue
		}
		if o := int64(binary.BigEndian.Uint64(b)); o < w.expected || o >= bound {
			continue
		}
		if try(pos) {
			return lost, nil
		}
	}
	if err == nil {
		err = io.EOF
	}
	return lost, err
}
