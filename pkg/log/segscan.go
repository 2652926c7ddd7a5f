package log

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"

	"edgehub/pkg/log/record"
	"edgehub/pkg/log/vfs"
)

// foundSegment is a segment file as recovery or Verify reads it.
type foundSegment struct {
	path    string
	base    int64 // by its name
	id      uint64
	head    segHead
	headOK  bool
	size    int64
	foot    *footer // nil: none, or damaged
	footErr error

	stats   segStats // of the footer, or of the scan
	index   []indexEntry
	scanned bool
	cut     bool // the journal supplies what follows stats.next
	rest    bool // bytes behind the last batch that are no footer
	batches []record.Header
	damages []Damage // without partition and file
}

// foundPartition is the directory of a partition.
type foundPartition struct {
	topic     string
	partition int32
	dir       string
	segs      []*foundSegment // by base
}

// listSegments finds all segment files below dir, with header and footer read.
func listSegments(fsys vfs.FS, dir string) ([]*foundPartition, error) {
	topics, err := fsys.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var out []*foundPartition
	for _, t := range topics {
		if !t.Dir || record.CheckTopicName(t.Name) != nil {
			continue
		}
		parts, err := fsys.ReadDir(filepath.Join(dir, t.Name))
		if err != nil {
			return nil, err
		}
		for _, p := range parts {
			n, err := strconv.Atoi(p.Name)
			if err != nil || !p.Dir || n < 0 || n >= record.MaxPartitions || strconv.Itoa(n) != p.Name {
				continue
			}
			fp := &foundPartition{topic: t.Name, partition: int32(n), dir: filepath.Join(dir, t.Name, p.Name)}
			if err := fp.list(fsys); err != nil {
				return nil, err
			}
			out = append(out, fp)
		}
	}
	return out, nil
}

func (fp *foundPartition) list(fsys vfs.FS) error {
	files, err := fsys.ReadDir(fp.dir)
	if err != nil {
		return err
	}
	for _, e := range files {
		base, id, ok := parseSegName(e.Name)
		if !ok || e.Dir {
			continue
		}
		s := &foundSegment{path: filepath.Join(fp.dir, e.Name), base: base, id: id, size: e.Size}
		if err := s.readEnds(fsys); err != nil {
			return err
		}
		fp.segs = append(fp.segs, s)
	}
	slices.SortStableFunc(fp.segs, func(a, b *foundSegment) int {
		switch {
		case a.base < b.base:
			return -1
		case a.base > b.base:
			return 1
		}
		return 0
	})
	return nil
}

// readEnds reads header and footer.
func (s *foundSegment) readEnds(fsys vfs.FS) error {
	f, err := fsys.Open(s.path)
	if err != nil {
		return err
	}
	defer f.Close()
	if s.size >= segHeader {
		var b [segHeader]byte
		if err := readFull(f, b[:], 0); err != nil {
			return fmt.Errorf("read %s: %w", s.path, err)
		}
		s.head, err = parseSegHead(b[:])
		if errors.Is(err, errNewer) {
			return fmt.Errorf("%s: %w: use that version", s.path, err)
		}
		s.headOK = err == nil && s.head.base == s.base && s.head.id == s.id
	}
	s.foot, s.footErr = readFooter(f, s.base)
	if errors.Is(s.footErr, errNewer) {
		return fmt.Errorf("%s: %w: use that version", s.path, s.footErr)
	}
	if s.foot != nil {
		s.stats, s.index = s.foot.segStats, s.foot.index
	}
	return nil
}

// scan reads every batch of the segment. Where a batch is bad and holds says
// that the journal has its offset, the scan ends there; else the batch is
// quarantined and the scan goes on behind it (J8). now is the hybrid time that
// is not before the last ingest.
func (s *foundSegment) scan(f vfs.File, holds func(offset int64) bool, now int64) error {
	s.scanned = true
	w := walker{r: f, pos: segHeader, end: s.size, expected: s.base, window: 1 << 20}
	bound := int64(1) << 62
	if s.foot != nil {
		w.end, bound = s.foot.end, s.foot.next
	}
	created := s.head.created
	if !s.headOK {
		created = now
	}
	st := segStats{next: s.base, end: segHeader, firstIngest: created, lastIngest: max(now, created), maxTS: minTime}
	s.index, s.batches, s.damages = nil, nil, nil
	for s.foot == nil || w.expected < bound {
		pos, h, _, err := w.next()
		if err == nil {
			st.add(&h, w.pos)
			s.index = addIndex(s.index, &h, pos)
			if h.Idempotent() {
				s.batches = append(s.batches, h)
			}
			continue
		}
		if err != io.EOF && !errors.Is(err, errBadBatch) {
			return fmt.Errorf("read %s: %w", s.path, err)
		}
		if holds(w.expected) {
			s.cut = true
			break
		}
		if errors.Is(err, errBadBatch) {
			lost, rerr := w.resync(bound)
			if rerr == nil {
				st.lose(lost)
				s.lose(lost, pos, "batch fails its check")
				continue
			}
			if rerr != io.EOF {
				return fmt.Errorf("read %s: %w", s.path, rerr)
			}
			s.rest = true
		}
		if s.foot != nil { // what the footer promises is not there
			lost := hole{w.expected, s.foot.next - 1}
			st.lose(lost)
			s.lose(lost, pos, "batch fails its check")
			st.next = s.foot.next
		}
		break
	}
	if s.foot == nil && !s.cut && s.size > blockUp(st.end) {
		s.rest = true
	}
	if s.foot != nil {
		st.firstIngest, st.lastIngest = s.foot.firstIngest, s.foot.lastIngest
		if !s.cut && len(s.damages) == 0 && (st.digest != s.foot.digest || st.next != s.foot.next) {
			s.damages = append(s.damages, Damage{First: 0, Last: -1, Reason: "epochs in batches differ from the footer's"})
		}
	}
	s.stats = st
	return nil
}

func (s *foundSegment) lose(h hole, pos int64, reason string) {
	if h.last >= h.first {
		s.damages = append(s.damages, Damage{First: h.first, Last: h.last, Reason: fmt.Sprintf("%s at byte %d", reason, pos)})
	}
}

// lose remembers a hole in the statistics of a segment.
func (st *segStats) lose(h hole) {
	if h.last >= h.first {
		st.holes = append(st.holes, h)
	}
}
