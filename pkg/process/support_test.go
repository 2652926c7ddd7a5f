package process

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"edgehub/pkg/log"
	"edgehub/pkg/log/record"
	"edgehub/pkg/log/vfs"
)

// moved shows the files below one folder under another name, so that a hub
// that was cut off can be opened again, while what is left of the old one
// still holds the lock on its own folder.
type moved struct {
	vfs.FS
	from, to string
}

func (m moved) path(name string) string {
	if rest, ok := strings.CutPrefix(name, m.from); ok {
		return m.to + rest
	}
	return name
}

func (m moved) Create(name string) (vfs.File, error)          { return m.FS.Create(m.path(name)) }
func (m moved) Open(name string) (vfs.File, error)            { return m.FS.Open(m.path(name)) }
func (m moved) OpenRW(name string) (vfs.File, error)          { return m.FS.OpenRW(m.path(name)) }
func (m moved) Remove(name string) error                      { return m.FS.Remove(m.path(name)) }
func (m moved) Rename(from, to string) error                  { return m.FS.Rename(m.path(from), m.path(to)) }
func (m moved) MkdirAll(dir string) error                     { return m.FS.MkdirAll(m.path(dir)) }
func (m moved) ReadDir(dir string) ([]vfs.DirEntry, error)    { return m.FS.ReadDir(m.path(dir)) }
func (m moved) Stat(name string) (vfs.DirEntry, error)        { return m.FS.Stat(m.path(name)) }
func (m moved) SyncDir(dir string) error                      { return m.FS.SyncDir(m.path(dir)) }
func (m moved) Space(dir string) (free, total int64, e error) { return m.FS.Space(m.path(dir)) }

// hub is a log in memory and an engine on it.
type hub struct {
	t      *testing.T
	mem    *vfs.Mem
	fault  *vfs.Fault // over mem; sees all operations
	dir    string     // of meta.db, which is on the real file system
	log    *log.Log
	engine *Engine
	tune   func(*Engine)
	o      Options
}

// openHub opens a log in mem, which may be a crash clone of another hub's;
// meta is that hub's folder, "" for none.
func openHub(t *testing.T, mem *vfs.Mem, meta string) *hub {
	t.Helper()
	root := t.TempDir()
	h := &hub{t: t, mem: mem, dir: filepath.Join(root, "data")}
	h.fault = vfs.NewFault(mem, nil)
	fs := moved{h.fault, root, "/hub"}
	err := os.Mkdir(h.dir, 0o750)
	if err == nil {
		err = vfs.MakeDirs(mem, "/hub")
	}
	if err != nil {
		t.Fatal(err)
	}
	if meta != "" {
		b, err := os.ReadFile(filepath.Join(meta, "meta.db"))
		if err == nil {
			err = os.WriteFile(filepath.Join(h.dir, "meta.db"), b, 0o640)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if h.log, err = log.Open(log.Options{Dir: h.dir, FS: fs, JournalBytes: 20 << 20}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.close)
	h.o = Options{Log: h.log, FS: fs, Dir: filepath.Join(h.dir, "process")}
	return h
}

func (h *hub) topic(name string, partitions int32) {
	h.t.Helper()
	cfg := record.DefaultTopicConfig()
	cfg.Partitions = partitions
	if _, err := h.log.CreateTopic(name, cfg); err != nil && !errors.Is(err, record.ErrTopicExists) {
		h.t.Fatal(err)
	}
}

func (h *hub) start(defs ...Definition) {
	h.t.Helper()
	h.o.Definitions = defs
	var err error
	if h.engine, err = New(h.o); err == nil {
		if h.tune != nil {
			h.tune(h.engine)
		}
		err = h.engine.Start()
	}
	if err != nil {
		h.t.Fatal(err)
	}
}

func (h *hub) close() {
	h.t.Helper()
	if h.engine != nil {
		if err := h.engine.Close(); err != nil {
			h.t.Error(err)
		}
	}
	if err := h.log.Close(); err != nil {
		h.t.Error(err)
	}
}

// put appends records, each to the partition of its key.
func (h *hub) put(topic string, recs ...record.Record) {
	h.t.Helper()
	info, err := h.log.Topic(topic)
	if err != nil {
		h.t.Fatal(err)
	}
	var lsn log.LSN
	for i := range recs {
		p, err := h.log.Partition(topic, record.PartitionOf(recs[i].Key, info.Config.Partitions))
		if err == nil {
			_, lsn, err = p.Append(&recs[i])
		}
		if err != nil {
			h.t.Fatal(err)
		}
	}
	if err := h.log.Wait(h.t.Context(), lsn); err != nil {
		h.t.Fatal(err)
	}
}

func rec(at time.Duration, key, value string, headers ...string) record.Record {
	r := record.Record{Timestamp: at.Milliseconds(), Key: []byte(key), Value: []byte(value)}
	for i := 0; i < len(headers); i += 2 {
		r.Headers = append(r.Headers, record.Field{Key: headers[i], Value: []byte(headers[i+1])})
	}
	return r
}

// read gives all records of a topic, as "partition time key value", those of
// each partition in order.
func (h *hub) read(topic string) []string {
	h.t.Helper()
	info, err := h.log.Topic(topic)
	if errors.Is(err, record.ErrUnknownTopic) {
		return nil
	}
	if err != nil {
		h.t.Fatal(err)
	}
	var out []string
	for n := range info.Config.Partitions {
		p, err := h.log.Partition(topic, n)
		if err != nil {
			h.t.Fatal(err)
		}
		off := p.Offsets()
		for next := off.LogStart; next < off.HighWatermark; {
			f, err := p.Fetch(next, 1<<20, nil)
			if err == nil {
				_, err = record.Batches(f.Batches, func(b record.Header, raw []byte) error {
					return record.Records(raw, func(r *record.Record) error {
						if r.Offset >= next {
							next = r.Offset + 1
							out = append(out, fmt.Sprintf("%d %d %s %s", n, r.Timestamp, r.Key, r.Value))
						}
						return nil
					})
				})
			}
			if err != nil {
				h.t.Fatal(err)
			}
		}
	}
	return out
}

// crashAfter takes a clone of the file system before the n-th change of it
// from now on: what a power cut leaves, with what was not synced kept by
// chance. The channel gets it.
func (h *hub) crashAfter(n int, rng *rand.Rand) <-chan *vfs.Mem {
	rng = rand.New(rand.NewPCG(rng.Uint64(), 0)) // the rule runs on its own
	out := make(chan *vfs.Mem, 1)
	var seen atomic.Int64
	h.fault.SetRule(func(op vfs.Op) error {
		if slices.Contains(vfs.Changes, op.Kind) && seen.Add(1) == int64(n) {
			out <- h.mem.CrashClone(vfs.CrashConfig{UnsyncedPercent: rng.IntN(101), RNG: rng})
		}
		return nil
	})
	return out
}

func (h *hub) task(name string, p int32) TaskStats {
	h.t.Helper()
	for _, s := range h.engine.Stats().Tasks {
		if s.Process == name && s.Partition == p {
			return s
		}
	}
	h.t.Fatalf("no task %s/%d", name, p)
	return TaskStats{}
}

func equalLines(t *testing.T, what string, got, want []string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Fatalf("%s: %d lines, want %d\n%s", what, len(got), len(want), diffLines(strings.Join(want, "\n"), strings.Join(got, "\n")))
	}
}
