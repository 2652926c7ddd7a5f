package kafka

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"time"
)

const (
	// keptFrame is the largest frame buffer that an idle connection keeps.
	keptFrame = 8 << 10
	// readRate and writeRate are the slowest peers that are waited for, in
	// bytes per second, on top of the timeout of a frame.
	readRate  = 64 << 10
	writeRate = 16 << 10
)

// refusedError closes a connection because of what came over it.
type refusedError struct {
	reason Refusal
	err    error
}

func (e *refusedError) Error() string { return fmt.Sprintf("%s: %v", e.reason, e.err) }
func (e *refusedError) Unwrap() error { return e.err }

func refuse(reason Refusal, err error) error { return &refusedError{reason, err} }

// frame is one request as it came, without its length. done gives its memory
// back; nothing may refer to bytes behind that.
type frame struct {
	bytes []byte
	pool  *buffers // nil: bytes belong to the connection
	taken int64    // of Server.frames
	s     *Server
}

func (f *frame) done() {
	if f.pool != nil {
		f.pool.put(f.bytes)
		f.s.frames.release(f.taken)
	}
	*f = frame{}
}

// readFrame waits without limit for a request to begin, and then for as long
// as Options.FrameTimeout and readRate allow for it to end. io.EOF: the
// client has gone between two requests.
func (c *conn) readFrame(ctx context.Context) (frame, error) {
	if err := c.nc.SetReadDeadline(time.Time{}); err != nil {
		return frame{}, err
	}
	if _, err := c.br.Peek(1); err != nil {
		return frame{}, err
	}
	start := time.Now()
	if err := c.nc.SetReadDeadline(start.Add(c.s.o.FrameTimeout)); err != nil {
		return frame{}, err
	}
	var head [4]byte
	if _, err := io.ReadFull(c.br, head[:]); err != nil {
		return frame{}, slow(err)
	}
	size := int64(int32(binary.BigEndian.Uint32(head[:])))
	if size < minHeader {
		return frame{}, refuse(RefusedMalformed, fmt.Errorf("frame of %d bytes", size))
	}
	if size > int64(c.s.o.MaxFrameBytes) {
		return frame{}, refuse(RefusedTooLarge, fmt.Errorf("frame of %d bytes, at most %d are accepted", size, c.s.o.MaxFrameBytes))
	}
	deadline := start.Add(c.s.o.FrameTimeout + time.Duration(size)*time.Second/readRate)
	if err := c.nc.SetReadDeadline(deadline); err != nil {
		return frame{}, err
	}
	f, err := c.readBody(ctx, int(size), deadline)
	if err != nil {
		f.done()
		return frame{}, slow(err)
	}
	c.s.stats.bytesIn.Add(uint64(size) + 4)
	return f, nil
}

// readBody reads size bytes. Memory beyond the smallest buffer is taken from
// the common budget: at once while half of the budget is free, else only as
// fast as bytes arrive, so that announced lengths alone starve nobody.
func (c *conn) readBody(ctx context.Context, size int, deadline time.Time) (frame, error) {
	if size <= keptFrame {
		if cap(c.in) < size {
			c.in = make([]byte, max(size, 1<<10))
		}
		_, err := io.ReadFull(c.br, c.in[:size])
		return frame{bytes: c.in[:size]}, err
	}
	s := c.s
	f := frame{pool: &s.buffers, s: s}
	class := classOf(size)
	if class > 0 {
		n := min(int64(classSize(class)), s.frames.size)
		if s.frames.tryAcquire(n, s.frames.size/2) {
			f.taken = n
		} else {
			class = 0
		}
	}
	f.bytes = s.buffers.get(min(size, classSize(class)))
	for {
		got := len(f.bytes)
		f.bytes = f.bytes[:min(size, cap(f.bytes))]
		if _, err := io.ReadFull(c.br, f.bytes[got:]); err != nil {
			return f, err
		}
		if len(f.bytes) == size {
			return f, nil
		}
		class++
		wait, cancel := context.WithDeadlineCause(ctx, deadline, errBusy)
		n, err := s.frames.acquire(wait, int64(classSize(class))-f.taken)
		cancel()
		if err != nil {
			return f, refuse(RefusedBusy, err)
		}
		f.taken += n
		grown := append(s.buffers.get(min(size, classSize(class))), f.bytes...)
		s.buffers.put(f.bytes)
		f.bytes = grown
	}
}

var errBusy = errors.New("no memory came free for a large frame")

// slow tells a frame that did not end in time from a connection that ended.
func slow(err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return refuse(RefusedSlow, err)
	}
	return err
}
