package log

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path/filepath"
	"sync"
	"sync/atomic"

	"edgehub/pkg/log/vfs"
)

// journal is the ring of preallocated slots. The committer writes it.
type journal struct {
	fs        vfs.FS
	dir       string
	id        [16]byte
	secret    [16]byte
	shift     uint8 // of the block size
	slotBytes int64
	want      int // slots, when all are made

	// The committer's.
	cur int    // slot of the next entry; written under mu
	pos int64  // its place in the slot; slotBytes: begin the next slot
	seq uint64 // of the last entry
	out []byte // compressed entry

	mu          sync.Mutex
	slots       []*slot       // made so far, in order
	grown       chan struct{} // closed and renewed when slots or rest change
	restDone    bool          // no more slots will be made now
	durableTail uint64        // tail of the last durable entry

	written atomic.Uint64
}

// slot is one file of the ring.
type slot struct {
	file        vfs.File
	first, last uint64 // sequences of its entries; 0: none. Guarded by journal.mu
}

// begunSlot is a slot to switch to, with its header.
type begunSlot struct {
	index  int
	header []byte
}

func (j *journal) block() int64 { return 1 << j.shift }

// pad is the length of n bytes in whole blocks.
func (j *journal) pad(n int) int64 { return (int64(n) + j.block() - 1) &^ (j.block() - 1) }

func slotPath(dir string, i int) string { return filepath.Join(dir, fmt.Sprintf("slot-%02d", i)) }

func (j *journal) last(i int) uint64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.slots[i].last
}

func (j *journal) tail() uint64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.durableTail
}

// next is the slot behind the current one. It waits while that is being made.
func (j *journal) next(l *Log) (int, error) {
	for {
		j.mu.Lock()
		n, done, grown := len(j.slots), j.restDone, j.grown
		j.mu.Unlock()
		switch {
		case j.cur+1 < n:
			return j.cur + 1, nil
		case done || n >= j.want:
			return 0, nil
		}
		select {
		case <-grown:
		case <-l.failed:
			return 0, l.Err()
		}
	}
}

// write writes an entry, with the header of its slot before it if that is
// begun, in one write, and syncs it.
func (j *journal) write(begin *begunSlot, b []byte, seq, tail uint64) error {
	if begin != nil {
		b = append(begin.header, b...)
	}
	j.mu.Lock()
	if begin != nil {
		j.cur, j.pos = begin.index, 0
	}
	s := j.slots[j.cur]
	if begin != nil {
		// From here on the slot's old entries are gone; the durable tail is
		// beyond them (J3).
		s.first = seq
	}
	s.last = seq
	j.mu.Unlock()
	if _, err := s.file.WriteAt(b, j.pos); err != nil {
		return fmt.Errorf("write journal %s: %w", slotPath(j.dir, j.cur), err)
	}
	if err := s.file.Sync(); err != nil {
		return fmt.Errorf("sync journal %s: %w", slotPath(j.dir, j.cur), err)
	}
	j.written.Add(uint64(len(b)))
	j.pos += int64(len(b))
	j.seq = seq
	j.mu.Lock()
	j.durableTail = tail
	j.mu.Unlock()
	return nil
}

// free is how many slots may be begun without waiting.
func (j *journal) free() (n int, total int) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for i, s := range j.slots {
		if i != j.cur && (s.last == 0 || s.last < j.durableTail) {
			n++
		}
	}
	return n, len(j.slots)
}

// errStopped ends the making of slots at Close.
var errStopped = errors.New("closing")

// makeSlot creates slot i, or completes it: a file of zeros that is synced,
// with its name. An existing whole one is left as it is.
func (j *journal) makeSlot(i int, stop <-chan struct{}) (vfs.File, error) {
	name := slotPath(j.dir, i)
	f, err := j.fs.OpenRW(name)
	if errors.Is(err, fs.ErrNotExist) {
		f, err = j.fs.Create(name)
	}
	if err != nil {
		return nil, err
	}
	size, err := f.Size()
	if err == nil && size < j.slotBytes {
		err = j.fill(f, size, stop)
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("make journal %s: %w", name, err)
	}
	return f, nil
}

// fill writes zeros from size on, so that later writes change data alone.
func (j *journal) fill(f vfs.File, size int64, stop <-chan struct{}) error {
	const piece = 256 << 10
	buf := make([]byte, piece)
	for pos := size &^ (minBlock - 1); pos < j.slotBytes; {
		select {
		case <-stop:
			return errStopped
		default:
		}
		n := min(piece, j.slotBytes-pos)
		if pos < size {
			// The end of a file that a crash cut short: do not touch its bytes.
			pos = size
			n = min(minBlock-size%minBlock, j.slotBytes-pos)
		}
		if _, err := f.WriteAt(buf[:n], pos); err != nil {
			return err
		}
		pos += n
	}
	if err := f.Sync(); err != nil {
		return err
	}
	return j.fs.SyncDir(j.dir)
}

// makeFirst makes the slots that must be there before the log starts.
func (j *journal) makeFirst(n int) error {
	for len(j.slots) < n {
		f, err := j.makeSlot(len(j.slots), nil)
		if err != nil {
			return err
		}
		j.slots = append(j.slots, &slot{file: f})
	}
	return nil
}

// makeRest makes the other slots behind the start. Where the disk is too full
// for them, the log runs with those that are there.
func (j *journal) makeRest(stop <-chan struct{}, log *slog.Logger) {
	for {
		j.mu.Lock()
		n := len(j.slots)
		j.mu.Unlock()
		var f vfs.File
		var err error
		if n < j.want {
			f, err = j.makeSlot(n, stop)
		}
		if err != nil && !errors.Is(err, errStopped) {
			log.Warn("journal stays smaller than configured", "slots", n, "wanted", j.want, "err", err)
		}
		j.mu.Lock()
		if f != nil {
			j.slots = append(j.slots, &slot{file: f})
		}
		if f == nil || len(j.slots) >= j.want {
			j.restDone = true
		}
		done := j.restDone
		close(j.grown)
		j.grown = make(chan struct{})
		j.mu.Unlock()
		if done {
			return
		}
	}
}

func (j *journal) close() {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, s := range j.slots {
		s.file.Close()
	}
	j.slots = nil
}
