package log

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"edgehub/pkg/log/vfs"
)

// Verify reads all of a stopped log, changes nothing, and says what is damaged:
// every batch that fails its check with its offsets, journal entries, slot
// tables, footers and metadata. An error means that it could not be read; a
// log that is open is ErrLocked.
func Verify(dir string) (VerifyReport, error) {
	release, err := lockShared(filepath.Join(dir, lockFile))
	if err != nil {
		return VerifyReport{}, err
	}
	defer release()
	if st, err := os.Stat(filepath.Join(dir, journalDir)); err != nil || !st.IsDir() {
		return VerifyReport{}, fmt.Errorf("verify %s: no log is there: give a hub's data directory", dir)
	}
	kv, metaErr := readBolt(filepath.Join(dir, metaFile))
	if errors.Is(metaErr, fs.ErrPermission) {
		return VerifyReport{}, fmt.Errorf("verify %s: %w", dir, metaErr)
	}
	return verify(vfs.OS(), dir, kv, metaErr)
}

// lockShared keeps a hub from opening the directory meanwhile. A directory
// that was never locked needs none.
func lockShared(path string) (release func(), err error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return func() {}, nil
	}
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("%w: %s: stop the hub first", ErrLocked, filepath.Dir(path))
	}
	return func() { f.Close() }, nil
}

func readBolt(path string) (map[string][]byte, error) {
	if _, err := os.Stat(path); err != nil {
		return nil, err
	}
	db, err := openBolt(path, true)
	if err != nil {
		return nil, err
	}
	defer db.Close()
	return boltAll(db)
}

// memMeta is metadata that has been read and cannot be written.
type memMeta map[string][]byte

func (m memMeta) all() (map[string][]byte, error) { return m, nil }
func (m memMeta) write(map[string][]byte) error   { return errors.New("metadata is read only") }
func (m memMeta) close() error                    { return nil }
func (m memMeta) setAside() string                { return "" }

// verify is Verify over any file system.
func verify(fsys vfs.FS, dir string, kv map[string][]byte, metaErr error) (VerifyReport, error) {
	var r VerifyReport
	ms, err := loadMeta(memMeta(kv))
	if err != nil {
		return r, err
	}
	whole := func(file, reason string, a ...any) {
		r.Damages = append(r.Damages, Damage{Partition: -1, First: 0, Last: -1, File: file, Reason: fmt.Sprintf(reason, a...)})
	}
	meta := filepath.Join(dir, metaFile)
	if metaErr != nil {
		whole(meta, "%v", metaErr)
	}
	slices.Sort(ms.bad)
	for _, k := range ms.bad {
		whole(meta, "value of %s fails its checksum", k)
	}
	fd, err := inspect(fsys, dir, ms, false)
	if err != nil {
		return r, fmt.Errorf("verify %s: %w", dir, err)
	}
	defer fd.close()
	r.Torn = r.Torn || fd.js.torn != 0
	r.Entries = len(fd.js.entries)
	for i, s := range fd.js.slots {
		switch {
		case s.file == nil:
			whole(s.path, "slot is missing")
		case s.table != nil || fd.js.last == nil || fd.js.last.slot != i:
			// Only the newest table counts.
		case fd.js.firstOfSlot() == fd.js.last:
			r.Torn = true // one write holds table and first entry
		default:
			whole(s.path, "table of the slot is damaged")
		}
	}
	for _, seq := range fd.js.missing {
		whole(filepath.Join(dir, journalDir), "journal entry %d is damaged", seq)
	}
	for _, name := range fd.adopted {
		whole(meta, "topic %s is not in it", name)
	}
	for id, m := range fd.topics {
		r.Topics++
		for i := range m.Config.Partitions {
			r.Partitions++
			if err := r.partition(fsys, fd, m, tpKey{id, i}); err != nil {
				return r, fmt.Errorf("verify %s: %w", dir, err)
			}
		}
	}
	slices.SortStableFunc(r.Damages, func(a, b Damage) int {
		return cmp.Or(cmp.Compare(a.Topic, b.Topic), cmp.Compare(a.Partition, b.Partition), cmp.Compare(a.First, b.First))
	})
	return r, nil
}

// partition reads every batch of a partition.
func (r *VerifyReport) partition(fsys vfs.FS, fd *found, m topicMeta, key tpKey) error {
	start := fd.st.starts[key]
	damage := func(h hole, file, reason string) {
		h.first = max(h.first, start)
		r.Damages = append(r.Damages, Damage{Topic: m.Name, Partition: key.partition, First: h.first, Last: h.last, File: file, Reason: reason})
	}
	lost := func(h hole, file, reason string) {
		if h.last >= max(h.first, start) {
			damage(h, file, reason)
		}
	}
	_, list := fd.segments(m, key.topic, key.partition)
	end := start
	for i, s := range list {
		last := i == len(list)-1
		r.Segments++
		if i == 0 {
			if _, known := fd.st.starts[key]; !known {
				start, end = s.base, s.base
			}
		}
		lost(hole{end, s.base - 1}, s.path, "segment before this one is missing")
		f, err := fsys.Open(s.path)
		if err != nil {
			return err
		}
		err = s.scan(f, func(off int64) bool { return last && fd.st.holds(key, off) }, fd.now)
		f.Close()
		if err != nil {
			return err
		}
		// A segment that was being begun or sealed when the power went is none:
		// the journal has its first record, or it was whole without a footer.
		if !s.headOK && !fd.st.holds(key, s.base) {
			damage(hole{0, -1}, s.path, "header is damaged")
		}
		if errors.Is(s.footErr, errBadFooter) && !last {
			damage(hole{0, -1}, s.path, "footer is damaged")
		}
		for _, d := range s.damages {
			if d.Lost() > 0 {
				lost(hole{d.First, d.Last}, s.path, d.Reason)
			} else {
				damage(hole{0, -1}, s.path, d.Reason)
			}
		}
		r.Records += s.stats.records
		end = max(end, s.stats.next)
	}
	ranges := slices.Clone(fd.st.ranges[key])
	slices.SortFunc(ranges, func(a, b hole) int { return cmp.Compare(a.first, b.first) })
	for _, h := range ranges {
		if h.last < end {
			continue
		}
		lost(hole{end, h.first - 1}, "", "journal entry is damaged")
		r.Records += h.last + 1 - max(h.first, end)
		end = h.last + 1
	}
	lost(hole{end, fd.st.nexts[key] - 1}, "", "records are in neither journal nor segments")
	return nil
}
