package log

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"slices"
	"time"

	"edgehub/pkg/log/record"
)

const (
	maxSegment = 16 << 20
	minSegment = 64 << 10
	// mergeBelow: own batches of fewer records and bytes are merged with their
	// neighbours; larger ones are only compressed.
	mergeRecords = builderRecords / 4
	mergeBytes   = builderBytes / 4
	// writeBytes are gathered before a write to a segment.
	writeBytes = 512 << 10
)

// segWriter turns a head into batches of a segment. Only the flusher uses it;
// its buffers are reused.
type segWriter struct {
	l *Log
	p *Partition
	s *segment // open segment of p

	b      record.Builder // own records that are being merged
	bBase  int64
	bEpoch int32
	packed []byte

	buf    []byte // to be written at s.pos
	placed []placedBatch
}

// placedBatch is a batch in buf.
type placedBatch struct {
	h        record.Header
	pos, end int64
}

// reset forgets what an error has left half done. Heads still hold it all.
func (w *segWriter) reset() {
	w.p, w.s = nil, nil
	w.b.Reset()
	w.buf, w.placed = w.buf[:0], w.placed[:0]
}

// segLimit is the size at which a segment of w.p is sealed.
func (w *segWriter) segLimit() int64 {
	if n := w.l.opt.segBytes; n > 0 {
		return n
	}
	limit, t := int64(maxSegment), w.p.topic
	if c := t.cfg.Load(); c.RetentionBytes > 0 {
		limit = min(limit, max(c.RetentionBytes/16, minSegment))
	}
	return min(limit, w.l.space.segLimit())
}

// tooOld says that an open segment should be sealed for its age: an eighth of
// the retention time. p.mu is held.
func (s *segment) tooOld(now int64) bool {
	c := s.p.topic.cfg.Load()
	return c.RetentionTime > 0 && now-s.stats.firstIngest > max(c.RetentionTime/8, time.Millisecond).Milliseconds()
}

// flush writes all of p's head to its segments. It syncs only what it seals.
func (w *segWriter) flush(p *Partition) error {
	p.mu.Lock()
	head, from := p.head, p.flushed
	w.p, w.s = p, p.open
	p.mu.Unlock()
	if len(head) == 0 {
		return nil
	}
	codec := p.topic.cfg.Load().Compression
	for i := range head {
		c := &head[i]
		_, err := record.Batches(c.data, func(h record.Header, raw []byte) error {
			if h.NextOffset() <= from {
				return nil // written before an error, or by recovery
			}
			switch {
			case !c.own:
				if err := w.merged(codec); err != nil {
					return err
				}
				return w.place(raw)
			case h.Count >= mergeRecords || len(raw) >= mergeBytes:
				if err := w.merged(codec); err != nil {
					return err
				}
				raw, err := w.repack(raw, &h, codec)
				if err != nil {
					return err
				}
				return w.place(raw)
			}
			return w.merge(raw, &h, codec)
		})
		if err != nil {
			return err
		}
	}
	if err := w.merged(codec); err != nil {
		return err
	}
	if err := w.write(); err != nil {
		return err
	}
	w.l.stat.flushes.Add(1)
	w.p, w.s = nil, nil
	return nil
}

// merge adds a small own batch to the one that is being built. Batches of
// different epochs, and across holes, are not merged.
func (w *segWriter) merge(raw []byte, h *record.Header, codec record.Codec) error {
	if n := w.b.Count(); n > 0 {
		if h.LeaderEpoch != w.bEpoch || h.BaseOffset != w.bBase+int64(n) ||
			n+int(h.Count) > builderRecords || w.b.Size()+len(raw) > builderBytes {
			if err := w.merged(codec); err != nil {
				return err
			}
		}
	}
	if w.b.Count() == 0 {
		w.bBase, w.bEpoch = h.BaseOffset, h.LeaderEpoch
	}
	return record.Records(raw, func(r *record.Record) error {
		w.b.Append(r)
		return nil
	})
}

// merged ends the batch that is being built.
func (w *segWriter) merged(codec record.Codec) error {
	if w.b.Count() == 0 {
		return nil
	}
	w.packed = w.b.Build(w.packed[:0], w.bBase, w.bEpoch, codec)
	w.b.Reset()
	return w.place(w.packed)
}

// repack compresses the records of a batch without decoding them.
func (w *segWriter) repack(raw []byte, h *record.Header, codec record.Codec) ([]byte, error) {
	if codec == record.None || h.Codec() != record.None {
		return raw, nil
	}
	out := append(w.packed[:0], raw[:record.HeaderSize]...)
	out, err := record.Compress(codec, out, raw[record.HeaderSize:])
	if err != nil {
		return nil, err
	}
	w.packed = out
	if len(out) >= len(raw) {
		return raw, nil
	}
	binary.BigEndian.PutUint32(out[8:], uint32(len(out)-12))
	binary.BigEndian.PutUint16(out[21:], uint16(h.Attributes)|uint16(codec))
	binary.BigEndian.PutUint32(out[17:], crc32.Checksum(out[21:], castagnoli))
	return out, nil
}

// place puts a batch behind the others, in a new segment where the open one is
// full or does not end where the batch begins.
func (w *segWriter) place(raw []byte) error {
	h, err := record.PeekHeader(raw)
	if err != nil {
		return err
	}
	if w.s != nil {
		next := w.nextOffset()
		full := w.s.pos+int64(len(w.buf)+len(raw)) > w.segLimit() && next > w.s.base()
		if next != h.BaseOffset || full || w.s.mustSeal {
			if err := w.seal(); err != nil {
				return err
			}
		}
	}
	if w.s == nil {
		if err := w.begin(h.BaseOffset); err != nil {
			return err
		}
	}
	pos := batchPos(w.s.pos + int64(len(w.buf)))
	w.buf = append(w.buf, zeros[:pos-w.s.pos-int64(len(w.buf))]...)
	w.buf = append(w.buf, raw...)
	w.placed = append(w.placed, placedBatch{h, pos, pos + int64(len(raw))})
	if len(w.buf) >= writeBytes {
		return w.write()
	}
	return nil
}

// nextOffset is the offset behind what is written and placed.
func (w *segWriter) nextOffset() int64 {
	if n := len(w.placed); n > 0 {
		return w.placed[n-1].h.NextOffset()
	}
	return w.s.stats.next // only the flusher changes it
}

// begin makes a new segment. Its name is synced with its first sync.
func (w *segWriter) begin(base int64) error {
	p := w.p
	if !p.dirMade {
		if err := w.l.fs.MkdirAll(p.dir); err != nil {
			return err
		}
	}
	s := p.newSegment(base, w.l.now())
	f, err := w.l.fs.Create(s.path)
	if err != nil {
		return err
	}
	if _, err := f.WriteAt(s.head.encode(), 0); err != nil {
		f.Close()
		if rerr := w.l.fs.Remove(s.path); rerr != nil && !errors.Is(rerr, fs.ErrNotExist) {
			return rerr
		}
		return err
	}
	w.l.stat.segmentWritten.Add(segHeader)
	s.w, s.size = f, segHeader
	p.mu.Lock()
	p.segs = append(slices.Clip(p.segs), s)
	p.open = s
	p.mu.Unlock()
	w.s = s
	return nil
}

// write writes what is placed and shows it to readers in place of the head.
func (w *segWriter) write() error {
	if len(w.placed) == 0 {
		w.buf = w.buf[:0]
		return nil
	}
	s, p := w.s, w.p
	if _, err := s.w.WriteAt(w.buf, s.pos); err != nil {
		return fmt.Errorf("write %s: %w", s.path, err)
	}
	w.l.stat.segmentWritten.Add(uint64(len(w.buf)))
	s.pos += int64(len(w.buf))
	p.mu.Lock()
	for i := range w.placed {
		b := &w.placed[i]
		s.stats.add(&b.h, b.end)
		s.index = addIndex(s.index, &b.h, b.pos)
	}
	s.size = s.pos
	p.flushed = s.stats.next
	k, freed := 0, int64(0)
	for ; k < len(p.head) && p.head[k].base < p.flushed; k++ {
		c := &p.head[k]
		if s.pin == 0 || c.seq < s.pin {
			s.pin = c.seq
		}
		s.stats.lastIngest = max(s.stats.lastIngest, c.time)
		if c.next > p.flushed {
			break // its rest is still to come
		}
		freed += int64(len(c.data))
	}
	p.head = slices.Clone(p.head[k:]) // readers may still walk the old one
	p.headBytes -= freed
	p.mu.Unlock()
	w.l.headBytes.Add(-freed)
	w.buf, w.placed = w.buf[:0], w.placed[:0]
	return nil
}

// pad ends the segment on a block border, where a sync may come (J2).
func (s *segment) pad() error {
	up := blockUp(s.pos)
	if up == s.pos {
		return nil
	}
	if _, err := s.w.WriteAt(zeros[:up-s.pos], s.pos); err != nil {
		return fmt.Errorf("write %s: %w", s.path, err)
	}
	s.p.log.stat.segmentWritten.Add(uint64(up - s.pos))
	s.pos = up
	s.p.mu.Lock()
	s.size = up
	s.p.mu.Unlock()
	return nil
}

// syncOpen makes all that is written to an open segment durable, and its name.
func (w *segWriter) syncOpen(s *segment) error {
	if err := s.pad(); err != nil {
		return err
	}
	return w.sync(s)
}

func (w *segWriter) sync(s *segment) error {
	p := s.p
	if err := s.w.Sync(); err != nil {
		return syncFailed(fmt.Errorf("sync %s: %w", s.path, err))
	}
	w.l.stat.segmentSyncs.Add(1)
	if !s.named {
		dirs := []string{p.dir}
		if !p.dirMade {
			dirs = append(dirs, w.l.path(topicsDir, p.topic.name), w.l.path(topicsDir))
		}
		for _, d := range dirs {
			if err := w.l.fs.SyncDir(d); err != nil {
				return syncFailed(err)
			}
		}
		s.named, p.dirMade = true, true
	}
	p.mu.Lock()
	s.pin = 0
	p.synced = s.stats.next
	p.mu.Unlock()
	return nil
}

// seal writes what is placed, then footer and sync, and leaves w without a
// segment.
func (w *segWriter) seal() error {
	if err := w.write(); err != nil {
		return err
	}
	s := w.s
	w.s = nil
	return w.sealSegment(s)
}

// sealSegment writes the footer of an open segment and syncs it: from then on
// it never changes.
func (w *segWriter) sealSegment(s *segment) error {
	p := s.p
	if err := s.pad(); err != nil {
		return err
	}
	p.mu.Lock()
	ft := footer{segStats: s.stats, index: s.index, producers: p.pids.below(s.stats.next, w.l.time.Load())}
	p.mu.Unlock()
	b := ft.encode(s.base())
	if _, err := s.w.WriteAt(b, s.pos); err != nil {
		return fmt.Errorf("write %s: %w", s.path, err)
	}
	w.l.stat.segmentWritten.Add(uint64(len(b)))
	s.pos += int64(len(b))
	if err := w.sync(s); err != nil {
		return err
	}
	p.mu.Lock()
	s.size, s.sealed, s.index = s.pos, true, nil
	if p.open == s {
		p.open = nil
	}
	p.mu.Unlock()
	err := s.w.Close()
	s.w = nil
	w.l.stat.seals.Add(1)
	return err
}

// sealOld seals p's open segment if it is too old.
func (w *segWriter) sealOld(p *Partition, now int64) error {
	p.mu.Lock()
	s := p.open
	old := s != nil && s.stats.batches > 0 && s.tooOld(now)
	p.mu.Unlock()
	if !old {
		return nil
	}
	return w.sealSegment(s)
}
