package log

import (
	"container/list"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"

	"edgehub/pkg/log/vfs"
)

// segment is one file of a partition.
//
// Until it is sealed only the flusher writes it; Partition.mu guards what
// readers see. Sealed, it never changes.
type segment struct {
	p    *Partition
	path string
	head segHead

	// Guarded by p.mu.
	stats  segStats
	size   int64 // of the file
	sealed bool
	index  []indexEntry // of an open segment; of a sealed one see segCache
	pin    uint64       // lowest journal sequence of records written, not synced; 0: none

	// The flusher's.
	w     vfs.File // open segment only
	pos   int64    // where it writes next
	named bool     // its name in the directory is synced
	// mustSeal: its end is unfinished, and the disk was too full to seal it at
	// Open: nothing is written behind it but its footer (J2).
	mustSeal bool

	// Guarded by segCache.mu.
	r      vfs.File
	loaded []indexEntry
	refs   int
	gone   bool
	elem   *list.Element
}

func (s *segment) base() int64 { return s.head.base }

// newSegment is a segment that begins at base, not yet on disk.
func (p *Partition) newSegment(base, now int64) *segment {
	id := random16()
	h := segHead{
		id: uint64(id[0])<<56 | uint64(id[1])<<48 | uint64(id[2])<<40 | uint64(id[3])<<32 |
			uint64(id[4])<<24 | uint64(id[5])<<16 | uint64(id[6])<<8 | uint64(id[7]),
		topic: p.topic.id, name: p.topic.name, partition: p.index,
		epoch: p.log.epoch, base: base, created: now,
	}
	return &segment{
		p: p, head: h, path: filepath.Join(p.dir, segName(base, h.id)),
		stats: segStats{next: base, end: segHeader, firstIngest: now, lastIngest: now, maxTS: minTime},
		pos:   segHeader,
	}
}

// lookup is the index entry to begin at for offset.
func lookupOffset(index []indexEntry, offset int64) (indexEntry, bool) {
	i, found := slices.BinarySearchFunc(index, offset, func(e indexEntry, o int64) int {
		switch {
		case e.offset < o:
			return -1
		case e.offset > o:
			return 1
		}
		return 0
	})
	if !found {
		i--
	}
	if i < 0 {
		return indexEntry{}, false
	}
	return index[i], true
}

// segCache keeps sealed segments open for reading, with their indexes: as many
// as cacheFiles and cacheBytes allow, and those in use.
type segCache struct {
	l     *Log
	mu    sync.Mutex
	lru   list.List // of *segment, most recently used first
	bytes int64
	open  atomic.Int64
}

const (
	cacheFiles = 64
	cacheBytes = 2 << 20 // of indexes
)

func (c *segCache) init(l *Log) { c.l = l }

// errGone is the error of reading a segment that has been unlinked meanwhile.
var errGone = errors.New("segment is gone")

// acquire opens a segment for reading. The index is nil for one that was open
// when the caller looked. The caller must release it.
func (c *segCache) acquire(s *segment, sealed bool) (vfs.File, []indexEntry, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s.gone {
		return nil, nil, errGone
	}
	if s.r == nil {
		f, err := c.l.fs.Open(s.path)
		if err != nil {
			return nil, nil, err
		}
		s.r = f
		c.open.Add(1)
	}
	if sealed && s.loaded == nil {
		index, err := loadIndex(s)
		if err != nil {
			if s.refs == 0 && s.elem == nil {
				s.r.Close()
				s.r = nil
				c.open.Add(-1)
			}
			return nil, nil, err
		}
		s.loaded = index
		c.bytes += int64(len(index)) * 24
	}
	s.refs++
	if s.elem == nil {
		s.elem = c.lru.PushFront(s)
	} else {
		c.lru.MoveToFront(s.elem)
	}
	c.shrink()
	return s.r, s.loaded, nil
}

func (c *segCache) release(s *segment) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s.refs--
	if s.gone && s.refs == 0 {
		c.drop(s)
	}
}

// shrink closes what has not been used for long. mu is held.
func (c *segCache) shrink() {
	for e := c.lru.Back(); e != nil && (c.lru.Len() > cacheFiles || c.bytes > cacheBytes); {
		s := e.Value.(*segment)
		e = e.Prev()
		if s.refs == 0 {
			c.drop(s)
		}
	}
}

// drop closes a segment for reading. mu is held.
func (c *segCache) drop(s *segment) {
	if s.r != nil {
		s.r.Close()
		s.r = nil
		c.open.Add(-1)
	}
	c.bytes -= int64(len(s.loaded)) * 24
	s.loaded = nil
	if s.elem != nil {
		c.lru.Remove(s.elem)
		s.elem = nil
	}
}

// forget is told that the file is about to be unlinked.
func (c *segCache) forget(s *segment) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s.gone = true
	if s.refs == 0 {
		c.drop(s)
	}
}

func (c *segCache) closeAll() {
	c.mu.Lock()
	for e := c.lru.Front(); e != nil; {
		s := e.Value.(*segment)
		e = e.Next()
		if s.refs == 0 {
			c.drop(s)
		}
	}
	c.mu.Unlock()
	for _, p := range c.l.partitions() {
		p.mu.Lock()
		s := p.open
		p.mu.Unlock()
		if s != nil && s.w != nil {
			s.w.Close()
			s.w = nil
		}
	}
}

// loadIndex reads the index of a sealed segment: from its footer or, where that
// is damaged, from what recovery found by scanning it.
func loadIndex(s *segment) ([]indexEntry, error) {
	s.p.mu.Lock()
	scanned := s.index
	s.p.mu.Unlock()
	if scanned != nil {
		return scanned, nil
	}
	f, err := readFooter(s.r, s.base())
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.path, err)
	}
	return f.index, nil
}

// readFooter reads and checks the footer of a segment.
func readFooter(f vfs.File, base int64) (*footer, error) {
	size, err := f.Size()
	if err != nil {
		return nil, err
	}
	if size < segHeader+segTrailer {
		return nil, errNoFooter
	}
	var trailer [segTrailer]byte
	if err := readFull(f, trailer[:], size-segTrailer); err != nil {
		return nil, err
	}
	n, err := footerLen(trailer[:])
	if err != nil {
		return nil, err
	}
	if int64(n) > size-segHeader {
		return nil, errBadFooter
	}
	b := make([]byte, n)
	if err := readFull(f, b, size-int64(n)); err != nil {
		return nil, err
	}
	ft, err := parseFooter(b, base)
	if err != nil {
		return nil, err
	}
	if ft.end > size-int64(n) {
		return nil, errBadFooter
	}
	return ft, nil
}
