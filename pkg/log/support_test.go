package log

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"edgehub/pkg/log/record"
	"edgehub/pkg/log/vfs"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// vfsMeta keeps metadata in a file of a vfs.FS, so that crash clones hold it:
// each write makes a new file, syncs it and renames it over the old one.
type vfsMeta struct {
	fs   vfs.FS
	path string
	kv   map[string][]byte
}

func openVFSMeta(o *Options) (metaStore, error) {
	m := &vfsMeta{fs: o.FS, path: filepath.Join(o.Dir, "meta.json"), kv: map[string][]byte{}}
	if err := vfs.MakeDirs(o.FS, o.Dir); err != nil {
		return nil, err
	}
	kv, err := readVFSMeta(o.FS, o.Dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if kv != nil {
		m.kv = kv
	}
	return m, nil
}

func readVFSMeta(fsys vfs.FS, dir string) (map[string][]byte, error) {
	f, err := fsys.Open(filepath.Join(dir, "meta.json"))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	n, err := f.Size()
	if err != nil {
		return nil, err
	}
	b := make([]byte, n)
	if err := readFull(f, b, 0); err != nil {
		return nil, err
	}
	kv := map[string][]byte{}
	return kv, json.Unmarshal(b, &kv)
}

func (m *vfsMeta) all() (map[string][]byte, error) { return m.kv, nil }
func (m *vfsMeta) close() error                    { return nil }
func (m *vfsMeta) setAside() string                { return "" }

func (m *vfsMeta) write(kv map[string][]byte) error {
	for k, v := range kv {
		if v == nil {
			delete(m.kv, k)
		} else {
			m.kv[k] = v
		}
	}
	b, err := json.Marshal(m.kv)
	if err != nil {
		return err
	}
	tmp := m.path + ".tmp"
	if err := m.fs.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := m.fs.Create(tmp)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.WriteAt(b, 0); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := m.fs.Rename(tmp, m.path); err != nil {
		return err
	}
	return m.fs.SyncDir(filepath.Dir(m.path))
}

// testOptions is a log in memory with four slots of 64 KiB.
func testOptions(fsys vfs.FS) Options {
	return Options{
		Dir: "data", FS: fsys, openMeta: openVFSMeta, slotBytes: 64 << 10, slots: 4,
		preallocAll: true, ticks: make(chan time.Time), ballastBytes: -1,
	}
}

func mustOpen(t testing.TB, o Options) *Log {
	t.Helper()
	l, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func mustClose(t testing.TB, l *Log) {
	t.Helper()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

func mustCreate(t testing.TB, l *Log, name string, partitions int32) {
	t.Helper()
	cfg := record.DefaultTopicConfig()
	cfg.Partitions = partitions
	cfg.MaxMessageBytes = int32(min(record.DefaultMaxMessageBytes, l.maxItem()))
	if _, err := l.CreateTopic(name, cfg); err != nil {
		t.Fatal(err)
	}
}

func mustPartition(t testing.TB, l *Log, name string, i int32) *Partition {
	t.Helper()
	p, err := l.Partition(name, i)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func mustWait(t testing.TB, l *Log, n LSN) {
	t.Helper()
	if err := l.Wait(t.Context(), n); err != nil {
		t.Fatal(err)
	}
}

// mustAppend appends a record and waits until it is durable.
func mustAppend(t testing.TB, p *Partition, value string) int64 {
	t.Helper()
	off, lsn, err := p.Append(&record.Record{Timestamp: 1000, Key: []byte("k"), Value: []byte(value)})
	if err != nil {
		t.Fatal(err)
	}
	mustWait(t, p.log, lsn)
	return off
}

type got struct {
	offset int64
	value  string
}

// readAll reads a partition from its log start to its high watermark.
func readAll(p *Partition, maxBytes int) ([]got, error) {
	var out []got
	o := p.Offsets()
	for next := o.LogStart; next < o.HighWatermark; {
		f, err := p.Fetch(next, maxBytes, nil)
		if err != nil {
			return out, err
		}
		if len(f.Batches) == 0 {
			return out, nil // a hole at the end
		}
		n, err := record.Batches(f.Batches, func(h record.Header, raw []byte) error {
			if _, err := record.Check(raw); err != nil {
				return err
			}
			if h.NextOffset() <= next {
				return fmt.Errorf("batch %d to %d is before %d", h.BaseOffset, h.LastOffset(), next)
			}
			from := next
			next = h.NextOffset()
			return record.Records(raw, func(r *record.Record) error {
				if r.Offset >= from {
					out = append(out, got{r.Offset, string(r.Value)})
				}
				return nil
			})
		})
		if err != nil {
			return out, err
		}
		if n != len(f.Batches) {
			return out, fmt.Errorf("fetch returned a part of a batch")
		}
	}
	return out, nil
}

func mustReadAll(t testing.TB, p *Partition) []got {
	t.Helper()
	out, err := readAll(p, 4096)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// produced makes one batch of an idempotent producer.
func produced(pid int64, epoch int16, seq int32, values ...string) []byte {
	var b record.Builder
	for i, v := range values {
		b.Append(&record.Record{Timestamp: int64(2000 + i), Value: []byte(v)})
	}
	return b.BuildIdempotent(nil, record.None, pid, epoch, seq)
}

// manual is a clock that tests move.
type manual struct{ ms atomic.Int64 }

func newManual() *manual {
	c := new(manual)
	c.ms.Store(1_700_000_000_000)
	return c
}

func (c *manual) now() time.Time { return time.UnixMilli(c.ms.Load()) }

func rewrite(t testing.TB, name string, f func([]byte) []byte) {
	t.Helper()
	b, err := os.ReadFile(name)
	if err == nil {
		err = os.WriteFile(name, f(b), 0o640)
	}
	if err != nil {
		t.Fatal(err)
	}
}
