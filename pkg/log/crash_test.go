package log

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"edgehub/pkg/log/record"
	"edgehub/pkg/log/vfs"
)

// model is what a history has done to a log, as its user knows it.
type model struct {
	mu     sync.Mutex
	topics map[string]*modelTopic
	epoch  int32
	group  map[record.TopicPartition]int64 // acknowledged group offsets
	gone   map[string]bool                 // names whose deletion has been asked for
}

type modelTopic struct {
	created bool // acknowledged
	parts   []*modelPartition
}

type modelPartition struct {
	values []string // by offset; put here before the append
	acked  int64    // offsets below are acknowledged
	start  int64    // acknowledged log start
	asked  int64    // log start asked for
}

func newModel() *model {
	return &model{topics: map[string]*modelTopic{}, group: map[record.TopicPartition]int64{}, gone: map[string]bool{}}
}

func (m *model) clone() *model {
	m.mu.Lock()
	defer m.mu.Unlock()
	c := newModel()
	c.epoch = m.epoch
	maps.Copy(c.group, m.group)
	maps.Copy(c.gone, m.gone)
	for name, t := range m.topics {
		ct := &modelTopic{created: t.created}
		for _, p := range t.parts {
			cp := *p
			ct.parts = append(ct.parts, &cp)
		}
		c.topics[name] = ct
	}
	return c
}

// check compares a recovered log with the model of the moment of the crash:
// what was acknowledged is there, dense, once, in order; what is there was
// appended.
func (m *model) check(l *Log) error {
	if l.Epoch() <= m.epoch {
		return fmt.Errorf("epoch %d after %d", l.Epoch(), m.epoch)
	}
	if q := l.Recovery().Quarantined; len(q) > 0 {
		return fmt.Errorf("quarantined: %v", q)
	}
	groups, lost := map[string]int{}, map[string]bool{}
	for name, t := range m.topics {
		info, err := l.Topic(name)
		if err != nil {
			if t.created && !m.gone[name] {
				return fmt.Errorf("topic %s is lost", name)
			}
			continue
		}
		if len(info.Partitions) != len(t.parts) {
			return fmt.Errorf("topic %s has %d partitions", name, len(info.Partitions))
		}
		for i, mp := range t.parts {
			p, err := l.Partition(name, int32(i))
			if err != nil {
				return err
			}
			if err := mp.check(p, groups, lost); err != nil {
				return fmt.Errorf("%s/%d: %w", name, i, err)
			}
		}
	}
	for g, n := range groups {
		var id, size int
		fmt.Sscanf(g, "group %d of %d", &id, &size)
		if n != size && !lost[g] && !m.partlyGone(g) {
			return fmt.Errorf("%q: %d records", g, n)
		}
	}
	have := map[record.TopicPartition]int64{}
	for _, o := range l.GroupOffsets("g") {
		have[o.TopicPartition] = o.Offset
	}
	for tp, off := range m.group {
		if !m.gone[tp.Topic] && have[tp] < off {
			return fmt.Errorf("group offset of %v is %d, acknowledged %d", tp, have[tp], off)
		}
	}
	return nil
}

// partlyGone says that a group has records in a topic that is deleted or
// below a log start.
func (m *model) partlyGone(group string) bool {
	for name, t := range m.topics {
		for _, p := range t.parts {
			for off, v := range p.values {
				if strings.HasPrefix(v, group) && (m.gone[name] || int64(off) < p.asked) {
					return true
				}
			}
		}
	}
	return false
}

func (mp *modelPartition) check(p *Partition, groups map[string]int, lost map[string]bool) error {
	o := p.Offsets()
	if o.LogStart < mp.start || o.LogStart > mp.asked {
		return fmt.Errorf("log start %d, acknowledged %d, asked %d", o.LogStart, mp.start, mp.asked)
	}
	if o.HighWatermark < mp.acked || o.HighWatermark > int64(len(mp.values)) {
		return fmt.Errorf("high watermark %d, acknowledged %d, appended %d", o.HighWatermark, mp.acked, len(mp.values))
	}
	have, err := readAll(p, 2000)
	if err != nil {
		return err
	}
	if int64(len(have)) != o.HighWatermark-o.LogStart {
		return fmt.Errorf("%d records in %d to %d", len(have), o.LogStart, o.HighWatermark)
	}
	for i, g := range have {
		if want := o.LogStart + int64(i); g.offset != want || g.value != mp.values[want] {
			return fmt.Errorf("record %d is %d %q, want %q", want, g.offset, g.value, mp.values[want])
		}
		if k, _, ok := strings.Cut(g.value, ":"); ok && strings.HasPrefix(k, "group ") {
			groups[k]++
		}
	}
	return nil
}

// history is a random user of a log.
type history struct {
	t     *testing.T
	rng   *rand.Rand
	l     *Log
	m     *model
	tick  chan time.Time
	n     int
	seqs  map[*Partition]int32
	wait  []ack
	clock *manual
}

// ack is what the model learns when a commit is durable.
type ack struct {
	lsn LSN
	do  func()
}

func (h *history) settle(all bool) {
	for len(h.wait) > 0 {
		a := h.wait[0]
		if !all && h.l.Durable() < a.lsn {
			return
		}
		mustWait(h.t, h.l, a.lsn)
		h.m.mu.Lock()
		a.do()
		h.m.mu.Unlock()
		h.wait = h.wait[1:]
	}
}

func (h *history) pick() (string, *modelTopic, int32) {
	var names []string
	for n := range h.m.topics {
		if !h.m.gone[n] {
			names = append(names, n)
		}
	}
	if len(names) == 0 {
		return "", nil, 0
	}
	// Maps are random; the history must not be.
	best := names[0]
	for _, n := range names {
		if n < best {
			best = n
		}
	}
	want := h.rng.IntN(len(names))
	for range want {
		next := ""
		for _, n := range names {
			if n > best && (next == "" || n < next) {
				next = n
			}
		}
		best = next
	}
	t := h.m.topics[best]
	return best, t, int32(h.rng.IntN(len(t.parts)))
}

// value is a record's value, of a random length.
func (h *history) value() string {
	h.n++
	n := h.rng.IntN(60)
	if h.rng.IntN(20) == 0 {
		n = h.rng.IntN(3000)
	}
	// Not compressible, so that entries are larger than a block at times.
	b := make([]byte, n)
	for i := range b {
		b[i] = byte('a' + h.rng.IntN(26))
	}
	return fmt.Sprintf("%d %s", h.n, b)
}

func (h *history) step() {
	defer h.settle(false)
	name, t, part := h.pick()
	k := h.rng.IntN(100)
	if t == nil {
		k = 99
	}
	var p *Partition
	var mp *modelPartition
	if t != nil {
		p, mp = mustPartition(h.t, h.l, name, part), t.parts[part]
	}
	switch {
	case k < 50:
		v := h.value()
		h.m.mu.Lock()
		mp.values = append(mp.values, v)
		n := int64(len(mp.values))
		h.m.mu.Unlock()
		off, lsn, err := p.Append(&record.Record{Timestamp: h.clock.ms.Load(), Value: []byte(v)})
		if err != nil || off != n-1 {
			h.t.Fatalf("append: %d %v, want %d", off, err, n-1)
		}
		h.wait = append(h.wait, ack{lsn, func() { mp.acked = n }})
	case k < 60:
		h.group()
	case k < 72:
		n := 1 + h.rng.IntN(4)
		var vs []string
		for range n {
			vs = append(vs, h.value())
		}
		h.m.mu.Lock()
		mp.values = append(mp.values, vs...)
		end := int64(len(mp.values))
		h.m.mu.Unlock()
		seq := h.seqs[p]
		b := produced(7, 0, seq, vs...)
		h.seqs[p] = seq + int32(n)
		in := []record.Append{{TopicPartition: record.TopicPartition{Topic: name, Partition: part}, Batch: b}}
		out, lsn := h.l.AppendBatches(in)
		if out[0].Err != nil || out[0].BaseOffset != end-int64(n) || out[0].Duplicate {
			h.t.Fatalf("produce: %+v", out[0])
		}
		if h.rng.IntN(3) == 0 { // once more
			again, lsn2 := h.l.AppendBatches(in)
			if !again[0].Duplicate || again[0].BaseOffset != out[0].BaseOffset {
				h.t.Fatalf("produce again: %+v", again[0])
			}
			lsn = lsn2
		}
		h.wait = append(h.wait, ack{lsn, func() { mp.acked = end }})
	case k < 78:
		h.settle(true)
		if err := h.l.flush.through(h.l.flush.committed.Load()); err != nil {
			h.t.Fatal(err)
		}
	case k < 84:
		h.clock.ms.Add(int64(h.rng.IntN(30_000)))
		h.tick <- time.Time{}
	case k < 88:
		h.settle(true)
		o := p.Offsets()
		if o.HighWatermark == 0 {
			return
		}
		at := o.LogStart + h.rng.Int64N(o.HighWatermark-o.LogStart+1)
		h.m.mu.Lock()
		mp.asked = max(mp.asked, at)
		h.m.mu.Unlock()
		if err := p.DeleteBefore(at); err != nil {
			h.t.Fatal(err)
		}
		h.m.mu.Lock()
		mp.start = max(mp.start, at)
		h.m.mu.Unlock()
	case k < 93:
		tp := record.TopicPartition{Topic: name, Partition: part}
		off := int64(h.n)
		lsn, err := h.l.CommitOffsets("g", []record.GroupOffset{{TopicPartition: tp, Offset: off}})
		if err != nil {
			h.t.Fatal(err)
		}
		h.wait = append(h.wait, ack{lsn, func() { h.m.group[tp] = off }})
	case k < 95:
		h.settle(true)
		h.m.mu.Lock()
		h.m.gone[name] = true
		h.m.mu.Unlock()
		if err := h.l.DeleteTopic(name); err != nil {
			h.t.Fatal(err)
		}
	case k < 98:
		h.settle(true)
	default:
		h.create()
	}
}

func (h *history) create() {
	name := fmt.Sprintf("t%03d", len(h.m.topics))
	t := &modelTopic{parts: make([]*modelPartition, 1+h.rng.IntN(3))}
	for i := range t.parts {
		t.parts[i] = &modelPartition{}
	}
	h.m.mu.Lock()
	h.m.topics[name] = t
	h.m.mu.Unlock()
	mustCreate(h.t, h.l, name, int32(len(t.parts)))
	h.m.mu.Lock()
	t.created = true
	h.m.mu.Unlock()
}

func (h *history) group() {
	n := 2 + h.rng.IntN(4)
	h.n++
	id := h.n
	recs := make([]GroupRecord, n)
	var acks []func()
	for i := range recs {
		name, t, part := h.pick()
		mp := t.parts[part]
		v := fmt.Sprintf("group %d of %d: %d %s", id, n, i, h.value())
		h.m.mu.Lock()
		mp.values = append(mp.values, v)
		end := int64(len(mp.values))
		h.m.mu.Unlock()
		recs[i] = GroupRecord{mustPartition(h.t, h.l, name, part), record.Record{Timestamp: h.clock.ms.Load(), Value: []byte(v)}}
		acks = append(acks, func() { mp.acked = max(mp.acked, end) })
	}
	_, lsn, err := h.l.AppendGroup(recs)
	if err != nil {
		h.t.Fatal(err)
	}
	h.wait = append(h.wait, ack{lsn, func() {
		for _, a := range acks {
			a()
		}
	}})
}

// crash is a file system as a power cut left it, and what was promised by then.
type crash struct {
	fs *vfs.Mem
	m  *model
	at string
}

func crashOptions(fsys vfs.FS, tick chan time.Time, clock *manual) Options {
	o := testOptions(fsys)
	o.ticks, o.segBytes, o.HeadBytes = tick, 12<<10, 100<<10
	o.Clock = clock.now
	return o
}

// TestCrashAtEverySyscall runs random histories, cuts the power before every
// operation that changes the file system, and opens what is left: all that was
// acknowledged is there, once, dense and in order; groups are whole or not
// there; no damage is reported.
func TestCrashAtEverySyscall(t *testing.T) {
	seeds := 4
	if testing.Short() {
		seeds = 1
	}
	for seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			// One history is cut at every call, the others at some.
			every := 4
			if seed == 0 && !testing.Short() {
				every = 1
			}
			crashHistory(t, uint64(seed), 150, every)
		})
	}
}

func crashHistory(t *testing.T, seed uint64, steps, every int) {
	mem := vfs.NewMem()
	fault := vfs.NewFault(mem, nil)
	m := newModel()
	h := &history{
		t: t, rng: rand.New(rand.NewPCG(seed, 1)), m: m, tick: make(chan time.Time),
		seqs: map[*Partition]int32{}, clock: newManual(),
	}
	var mu sync.Mutex
	var crashes []crash
	cuts := rand.New(rand.NewPCG(seed, 2))
	fault.SetRule(func(op vfs.Op) error {
		switch op.Kind {
		case vfs.OpCreate, vfs.OpWrite, vfs.OpSync, vfs.OpTruncate, vfs.OpRemove, vfs.OpRename, vfs.OpSyncDir, vfs.OpMkdirAll:
		default:
			return nil
		}
		mu.Lock()
		defer mu.Unlock()
		if cuts.IntN(every) != 0 {
			return nil
		}
		percent := []int{0, 30, 50, 80, 100}[cuts.IntN(5)]
		promised := m.clone() // before the clone: what is promised is on the device
		crashes = append(crashes, crash{mem.CrashClone(vfs.CrashConfig{UnsyncedPercent: percent, RNG: cuts}), promised,
			fmt.Sprintf("%s (%d %%)", op, percent)})
		return nil
	})
	o := crashOptions(fault, h.tick, h.clock)
	carries := uint64(0)
	for range 2 {
		h.l = mustOpen(t, o)
		m.mu.Lock()
		m.epoch = h.l.Epoch()
		m.mu.Unlock()
		clear(h.seqs)
		if len(m.topics) == 0 {
			h.create()
		} else {
			for name, mt := range m.topics { // producers go on where they were
				for i := range mt.parts {
					if p, err := h.l.Partition(name, int32(i)); err == nil {
						p.mu.Lock()
						if pr := p.pids[7]; pr != nil {
							h.seqs[p] = pr.window[pr.n-1].last + 1
						}
						p.mu.Unlock()
					}
				}
			}
		}
		for range steps {
			h.step()
		}
		h.settle(true)
		carries += h.l.Stats().Carries
		mustClose(t, h.l)
	}
	t.Logf("%d power cuts, %d heads carried forward", len(crashes), carries)
	for i, c := range crashes {
		if i%7 == 0 {
			crashes[i].recut(t, i)
		}
		if err := c.check(); err != nil {
			t.Fatalf("power cut %d, before %s: %v", i, c.at, err)
		}
	}
}

// recut cuts the power again while the log recovers from the first cut.
func (c *crash) recut(t *testing.T, i int) {
	rng := rand.New(rand.NewPCG(uint64(i), 3))
	mem := c.fs.CrashClone(vfs.CrashConfig{})
	fault := vfs.NewFault(mem, nil)
	at := -1
	var again *crash
	stop := 1 + rng.IntN(60)
	var mu sync.Mutex
	fault.SetRule(func(op vfs.Op) error {
		switch op.Kind {
		case vfs.OpCreate, vfs.OpWrite, vfs.OpSync, vfs.OpTruncate, vfs.OpRemove, vfs.OpRename, vfs.OpSyncDir, vfs.OpMkdirAll:
		default:
			return nil
		}
		mu.Lock()
		defer mu.Unlock()
		if at++; at == stop {
			again = &crash{mem.CrashClone(vfs.CrashConfig{UnsyncedPercent: 50, RNG: rng}), c.m.clone(), c.at + ", then " + op.String()}
		}
		return nil
	})
	l := mustOpen(t, crashOptions(fault, make(chan time.Time), newManual()))
	mu.Lock()
	cut := again
	mu.Unlock()
	mustClose(t, l)
	if cut == nil {
		return
	}
	if err := cut.check(); err != nil {
		t.Fatalf("power cut %d, before %s: %v", i, cut.at, err)
	}
}

func (c *crash) check() error {
	kv, err := readVFSMeta(c.fs, "data")
	if err == nil {
		r, err := verify(c.fs, "data", kv, nil)
		if err != nil {
			return err
		}
		if !r.OK() {
			return fmt.Errorf("verify: %v", r.Damages)
		}
	}
	o := crashOptions(c.fs, make(chan time.Time), newManual())
	epoch := c.m.epoch
	for round := range 3 {
		c.m.epoch = epoch
		l, err := Open(o)
		if err != nil {
			return fmt.Errorf("open %d: %w", round, err)
		}
		if err := c.m.check(l); err != nil {
			l.Close()
			return fmt.Errorf("round %d: %w (%+v)", round, err, l.Recovery())
		}
		epoch = l.Epoch()
		// It goes on: more records, after which all must still be there.
		for name, mt := range c.m.topics {
			for i, mp := range mt.parts {
				p, err := l.Partition(name, int32(i))
				if err != nil {
					continue
				}
				hw := p.Offsets().HighWatermark
				mp.values = append(mp.values[:hw:hw], fmt.Sprintf("after %d", round))
				_, lsn, err := p.Append(&record.Record{Value: []byte(mp.values[hw])})
				if err == nil {
					err = l.Wait(noCtx, lsn)
				}
				if err != nil {
					l.Close()
					return err
				}
				mp.acked = hw + 1
				mp.asked, mp.start = max(mp.asked, p.Offsets().LogStart), p.Offsets().LogStart
			}
		}
		if round == 1 { // kill -9
			o.FS = c.fs.CrashClone(vfs.CrashConfig{UnsyncedPercent: 100})
		}
		if err := l.Close(); err != nil {
			return err
		}
	}
	return nil
}
