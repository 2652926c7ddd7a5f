package log

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"edgehub/pkg/log/record"
	"edgehub/pkg/log/vfs"
)

// filledLog makes a log in memory with sealed and open segments and entries in
// the journal, some of them behind the segments, and closes it as kill -9 does.
func filledLog(t testing.TB) (fsys *vfs.Mem, want map[string][]got) {
	mem := vfs.NewMem()
	o := testOptions(mem)
	o.segBytes = 8 << 10
	l := mustOpen(t, o)
	mustCreate(t, l, "a", 2)
	mustCreate(t, l, "b", 1)
	rng := rand.New(rand.NewPCG(3, 4))
	parts := []*Partition{mustPartition(t, l, "a", 0), mustPartition(t, l, "a", 1), mustPartition(t, l, "b", 0)}
	add := func(n int) {
		for i := range n {
			v := make([]byte, 50+rng.IntN(100))
			for k := range v {
				v[k] = byte('a' + rng.IntN(26))
			}
			p := parts[i%3]
			if i%5 == 0 {
				_, lsn := l.AppendBatches([]record.Append{{
					TopicPartition: record.TopicPartition{Topic: p.Topic(), Partition: p.Index()},
					Batch:          produced(-1, -1, -1, string(v), "second"),
				}})
				mustWait(t, l, lsn)
				continue
			}
			_, lsn, err := p.Append(&record.Record{Timestamp: int64(i), Value: v})
			if err != nil {
				t.Fatal(err)
			}
			if i%4 == 0 {
				mustWait(t, l, lsn)
			}
		}
	}
	for range 3 {
		add(120)
		if err := l.flush.through(l.flush.committed.Load()); err != nil {
			t.Fatal(err)
		}
	}
	add(30)
	mustWait(t, l, l.Durable())
	mustAppend(t, parts[0], "last")
	mustAppend(t, parts[0], "very last")
	want = map[string][]got{}
	for _, p := range parts {
		want[p.String()] = mustReadAll(t, p)
	}
	out := mem.CrashClone(vfs.CrashConfig{})
	mustClose(t, l)
	return out, want
}

func files(t testing.TB, fsys vfs.FS, dir string) (out []vfs.DirEntry) {
	list, err := fsys.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range list {
		e.Name = filepath.Join(dir, e.Name)
		if e.Dir {
			out = append(out, files(t, fsys, e.Name)...)
		} else {
			out = append(out, e)
		}
	}
	return out
}

func flip(t testing.TB, fsys vfs.FS, name string, pos int64, mask byte) {
	f, err := fsys.OpenRW(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b := make([]byte, 1)
	if err := readFull(f, b, pos); err != nil {
		t.Fatal(err)
	}
	b[0] ^= mask
	if _, err := f.WriteAt(b, pos); err != nil {
		t.Fatal(err)
	}
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
}

// TestFlippedByte flips one byte anywhere in a stopped log: the log opens, no
// wrong record is read, what is missing has been reported by Verify with its
// exact offsets, and so it is by Open.
func TestFlippedByte(t *testing.T) {
	base, want := filledLog(t)
	rng := rand.New(rand.NewPCG(5, 6))
	n := 400
	if testing.Short() {
		n = 100
	}
	all := files(t, base, "data")
	costs, damaged := map[string]int64{}, 0
	for i := range n {
		fsys := base.CrashClone(vfs.CrashConfig{})
		file := all[rng.IntN(len(all))]
		if strings.Contains(file.Name, "meta.json") || file.Size == 0 {
			continue // bbolt has a test of its own
		}
		pos := rng.Int64N(file.Size)
		if strings.Contains(file.Name, journalDir) && i%2 == 0 {
			pos = pos &^ 4095 // headers are more fun
			pos += rng.Int64N(100)
		}
		flip(t, fsys, file.Name, pos, 1<<rng.IntN(8))
		at := fmt.Sprintf("%s byte %d", file.Name, pos)
		kv, err := readVFSMeta(fsys, "data")
		if err != nil {
			t.Fatal(err)
		}
		r, err := verify(fsys, "data", kv, nil)
		if err != nil {
			t.Fatalf("%s: verify: %v", at, err)
		}
		o := testOptions(fsys)
		o.segBytes = 8 << 10
		l := mustOpen(t, o)
		for _, name := range []string{"a/0", "a/1", "b/0"} {
			topic, part, _ := strings.Cut(name, "/")
			p := mustPartition(t, l, topic, int32(part[0]-'0'))
			have, err := readAll(p, 3000)
			if err != nil {
				t.Fatalf("%s: %s: %v", at, name, err)
			}
			have = slices.DeleteFunc(have, func(g got) bool { return g.offset >= int64(len(want[name])) })
			missing := hole{-1, -1}
			k := 0
			for _, w := range want[name] {
				if k < len(have) && have[k] == w {
					k++
					continue
				}
				if missing.first < 0 {
					missing.first = w.offset
				}
				missing.last = w.offset
			}
			if k != len(have) {
				t.Fatalf("%s: %s: a wrong record: %v", at, name, have[k])
			}
			if missing.first < 0 {
				continue
			}
			cost := missing.last - missing.first + 1
			where := filepath.Base(filepath.Dir(file.Name))
			costs[where] = max(costs[where], cost)
			found := slices.ContainsFunc(r.Damages, func(d Damage) bool {
				return d.Topic == topic && d.First == missing.first && d.Last == missing.last
			})
			// The last entry of a log that was killed cannot be told from a
			// torn one (J1).
			if !found && !r.Torn {
				t.Fatalf("%s: %s lost %v; verify says %v", at, name, missing, r.Damages)
			}
			opened := slices.ContainsFunc(l.Damages(), func(d Damage) bool {
				return d.Topic == topic && d.First == missing.first && d.Last == missing.last
			})
			if !opened && !r.Torn {
				t.Fatalf("%s: %s lost %v; open says %v", at, name, missing, l.Damages())
			}
			damaged++
		}
		mustClose(t, l)
	}
	t.Logf("%d flips cost records; at most, by directory: %v", damaged, costs)
}

// TestRotBeforeTheTail says that a bad entry with a valid one behind it is rot,
// with exact offsets, and that the last one alone is torn (J1).
func TestTornAndRot(t *testing.T) {
	for _, c := range []struct {
		name   string
		entry  int // from the end
		torn   bool
		lost   int64
		repeat int
	}{
		{name: "last entry", entry: 1, torn: true},
		{name: "the one before", entry: 2, lost: 1},
		{name: "in the middle", entry: 5, lost: 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			mem := vfs.NewMem()
			o := testOptions(mem)
			l := mustOpen(t, o)
			mustCreate(t, l, "a", 1)
			p := mustPartition(t, l, "a", 0)
			for i := range 10 {
				mustAppend(t, p, fmt.Sprint(i))
			}
			clone := mem.CrashClone(vfs.CrashConfig{})
			mustClose(t, l)
			kv, err := readVFSMeta(clone, "data")
			if err != nil {
				t.Fatal(err)
			}
			ms, _ := loadMeta(memMeta(kv))
			js, err := scanJournal(clone, "data/journal", ms, false)
			if err != nil {
				t.Fatal(err)
			}
			e := js.entries[len(js.entries)-c.entry]
			js.close()
			flip(t, clone, "data/journal/slot-00", e.pos+entryHeader+30, 0x10)
			o = testOptions(clone)
			l = mustOpen(t, o)
			defer mustClose(t, l)
			r := l.Recovery()
			if r.Torn != c.torn {
				t.Fatalf("torn %v: %+v", r.Torn, r)
			}
			have := mustReadAll(t, mustPartition(t, l, "a", 0))
			if int64(len(have)) != 10-max(c.lost, 1) {
				t.Fatalf("%d records", len(have))
			}
			if c.torn {
				if len(r.Quarantined) != 0 {
					t.Fatalf("quarantined %v", r.Quarantined)
				}
				return
			}
			first := int64(10 - c.entry)
			if len(r.Quarantined) == 0 || r.Quarantined[0].First != first || r.Quarantined[0].Last != first {
				t.Fatalf("quarantined %v, want offset %d", r.Quarantined, first)
			}
			// A fetch inside the hole goes on behind it.
			f, err := mustPartition(t, l, "a", 0).Fetch(first, 1<<20, nil)
			if err != nil {
				t.Fatal(err)
			}
			h, err := record.ParseHeader(f.Batches)
			if err == nil && c.entry > 2 && h.BaseOffset != first+1 {
				t.Fatalf("fetch in the hole: base %d", h.BaseOffset)
			}
		})
	}
}

// TestMetaLost loses all metadata: topics, partitions, log starts, identity and
// records come back from the journal and the segments.
func TestMetaLost(t *testing.T) {
	fsys, want := filledLog(t)
	kv, err := readVFSMeta(fsys, "data")
	if err != nil {
		t.Fatal(err)
	}
	ms, err := loadMeta(memMeta(kv))
	if err != nil {
		t.Fatal(err)
	}
	if err := fsys.Remove("data/meta.json"); err != nil {
		t.Fatal(err)
	}
	l := mustOpen(t, testOptions(fsys))
	defer mustClose(t, l)
	r := l.Recovery()
	if !r.MetaRebuilt || r.Created || len(r.Quarantined) != 0 {
		t.Fatalf("recovery %+v", r)
	}
	if l.ID() != ms.id || l.Epoch() != 2 {
		t.Fatalf("id %x, was %x; epoch %d", l.ID(), ms.id, l.Epoch())
	}
	info, err := l.Topic("a")
	if err != nil || len(info.Partitions) != 2 || info.ID.String() != ms.topics["a"].ID || info.Config != ms.topics["a"].Config {
		t.Fatalf("topic %+v %v", info, err)
	}
	for name, w := range want {
		topic, part, _ := strings.Cut(name, "/")
		if g := mustReadAll(t, mustPartition(t, l, topic, int32(part[0]-'0'))); !slices.Equal(g, w) {
			t.Fatalf("%s: %d records, want %d", name, len(g), len(w))
		}
	}
	if id, err := l.NewProducerID(); err != nil || id < producerBlock {
		t.Fatalf("producer id %d %v", id, err)
	}
}

// TestJournalLost starts from the segments alone.
func TestJournalLost(t *testing.T) {
	fsys, want := filledLog(t)
	for _, e := range files(t, fsys, "data/journal") {
		if err := fsys.Remove(e.Name); err != nil {
			t.Fatal(err)
		}
	}
	l := mustOpen(t, testOptions(fsys))
	defer mustClose(t, l)
	for name, w := range want {
		topic, part, _ := strings.Cut(name, "/")
		g := mustReadAll(t, mustPartition(t, l, topic, int32(part[0]-'0')))
		if len(g) == 0 || !slices.Equal(g, w[:len(g)]) {
			t.Fatalf("%s: %d records, want a beginning of %d", name, len(g), len(w))
		}
	}
}

// TestBoltDamaged opens a log whose meta.db is garbage: it is kept under
// another name, never removed.
func TestBoltDamaged(t *testing.T) {
	for _, c := range []struct {
		name string
		harm func(b []byte) []byte
	}{
		{"garbage", func(b []byte) []byte { return bytes.Repeat([]byte("x"), len(b)) }},
		{"cut", func(b []byte) []byte { return b[:len(b)/3] }},
		{"zeros", func(b []byte) []byte { return make([]byte, len(b)) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			o := Options{Dir: dir, slotBytes: 1 << 20, slots: 4, preallocAll: true}
			l := mustOpen(t, o)
			mustCreate(t, l, "a", 3)
			mustAppend(t, mustPartition(t, l, "a", 2), "kept")
			id := l.ID()
			mustClose(t, l)
			rewrite(t, filepath.Join(dir, metaFile), c.harm)
			if r, err := Verify(dir); err != nil || r.OK() {
				t.Fatalf("verify: %+v %v", r, err)
			}
			l = mustOpen(t, o)
			defer mustClose(t, l)
			r := l.Recovery()
			if !r.MetaRebuilt || r.MetaSetAside == "" {
				t.Fatalf("recovery %+v", r)
			}
			if l.ID() != id {
				t.Fatal("the log has another id")
			}
			if g := mustReadAll(t, mustPartition(t, l, "a", 2)); len(g) != 1 || g[0].value != "kept" {
				t.Fatalf("got %v", g)
			}
		})
	}
}
