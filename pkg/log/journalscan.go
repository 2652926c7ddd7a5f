package log

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"edgehub/pkg/log/record"
	"edgehub/pkg/log/vfs"
)

// foundEntry is a sound entry in the journal.
type foundEntry struct {
	entry
	slot int
	pos  int64
}

// foundSlot is a slot file.
type foundSlot struct {
	file  vfs.File
	path  string
	size  int64
	table *slotTable // nil: none, or damaged
}

// journalScan is what the journal holds, read and not changed.
type journalScan struct {
	slots   []*foundSlot // by index; the log's own first
	entries []foundEntry // sound ones of the chain up to the last, by sequence
	last    *foundEntry  // nil: none
	tail    uint64       // of the last
	newest  *slotTable   // the newest sound table
	missing []uint64     // sequences in [tail, last] that are lost (J1: rot)
	torn    uint64       // sequence of the torn last entry; 0: none
	tornAt  string
	id      [16]byte
	secret  [16]byte
	hasID   bool // id and secret are known
	buf     []byte
}

// scanJournal reads all slots. meta's id and secret count if it has them, else
// the newest table's. With live set, each slot is synced first and its pages
// are dropped, so that what is read is what the device holds.
func scanJournal(fsys vfs.FS, dir string, meta *metaState, live bool) (*journalScan, error) {
	js := &journalScan{id: meta.id, secret: meta.secret, hasID: meta.hasID && meta.hasSecret}
	if err := js.open(fsys, dir, live); err != nil {
		js.close()
		return nil, err
	}
	if err := js.read(meta); err != nil {
		js.close()
		return nil, err
	}
	return js, nil
}

func (js *journalScan) close() {
	for _, s := range js.slots {
		if s.file != nil {
			s.file.Close()
		}
	}
	js.slots = nil
}

func (js *journalScan) open(fsys vfs.FS, dir string, live bool) error {
	list, err := fsys.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	n := 0
	for _, e := range list {
		if i, err := strconv.Atoi(strings.TrimPrefix(e.Name, "slot-")); err == nil && i >= 0 && i < maxSlots && e.Name == filepath.Base(slotPath(dir, i)) {
			n = max(n, i+1)
		}
	}
	for i := range n {
		s := &foundSlot{path: slotPath(dir, i)}
		js.slots = append(js.slots, s)
		open := fsys.Open
		if live {
			open = fsys.OpenRW
		}
		f, err := open(s.path)
		if errors.Is(err, fs.ErrNotExist) {
			continue // lost; what it held will be missed
		}
		if err != nil {
			return err
		}
		s.file = f
		if live {
			if err := f.Sync(); err != nil {
				return fmt.Errorf("sync journal %s: %w", s.path, err)
			}
			if err := f.DropCache(); err != nil {
				return fmt.Errorf("drop cache of %s: %w", s.path, err)
			}
		}
		if s.size, err = f.Size(); err != nil {
			return err
		}
	}
	return nil
}

// maxSlots bounds the slots of a journal.
const maxSlots = 1000

// read finds tables and entries.
func (js *journalScan) read(meta *metaState) error {
	for _, s := range js.slots {
		if err := js.readTable(s); err != nil {
			return err
		}
		t := s.table
		if t == nil {
			continue
		}
		if meta.hasID && t.id != meta.id {
			return fmt.Errorf("journal %s belongs to another log (%x, meta.db says %x): put the right files together", s.path, t.id, meta.id)
		}
		if js.newest == nil || t.first > js.newest.first {
			js.newest = t
		}
	}
	if t := js.newest; t != nil && !js.hasID {
		js.id, js.secret, js.hasID = t.id, t.secret, true
	}
	if !js.hasID {
		return nil // no way to tell an entry from anything else
	}
	var all []foundEntry
	for i, s := range js.slots {
		found, err := js.readSlot(i, s)
		if err != nil {
			return err
		}
		all = append(all, found...)
	}
	js.chain(all)
	return js.findTorn()
}

func (js *journalScan) readTable(s *foundSlot) error {
	w := walker{r: s.file, end: s.size, window: minBlock, buf: js.buf[:0]}
	defer func() { js.buf = w.buf }()
	if s.size < slotHeader {
		return nil
	}
	b, err := w.fill(0, slotHeader)
	if err != nil {
		return err
	}
	n, ok := tableLen(b)
	if !ok || int64(n) > s.size-slotHeader {
		return nil
	}
	if b, err = w.fill(0, slotHeader+int64(n)); err != nil {
		return err
	}
	s.table, err = parseSlot(b)
	if errors.Is(err, errNewer) {
		return fmt.Errorf("%s: %w: use that version", s.path, err)
	}
	return nil
}

// readSlot finds the sound entries of a slot at block borders, whatever their
// sequences.
func (js *journalScan) readSlot(i int, s *foundSlot) ([]foundEntry, error) {
	var found []foundEntry
	w := walker{r: s.file, end: s.size, window: 256 << 10, buf: js.buf[:0]}
	defer func() { js.buf = w.buf }()
	for pos := int64(0); s.size-pos >= minBlock; {
		b, err := w.fill(pos, entryHeader)
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", s.path, err)
		}
		e, err := parseEntry(b)
		if err != nil || e.size() > s.size-pos {
			pos += minBlock
			continue
		}
		if b, err = w.fill(pos, entryHeader+int64(e.stored)); err != nil {
			return nil, fmt.Errorf("read %s: %w", s.path, err)
		}
		switch err := e.check(b, &js.secret); {
		case errors.Is(err, errNewer):
			return nil, fmt.Errorf("%s: %w: use that version", s.path, err)
		case err != nil:
			pos += minBlock
		default:
			found = append(found, foundEntry{e, i, pos})
			pos += e.size()
		}
	}
	return found, nil
}

// chain keeps the entries that lead to the last one. The last is the highest
// sequence of the highest epoch: what an older epoch left behind it never
// counted.
func (js *journalScan) chain(all []foundEntry) {
	slices.SortFunc(all, func(a, b foundEntry) int {
		return cmp.Or(cmp.Compare(a.epoch, b.epoch), cmp.Compare(a.seq, b.seq))
	})
	var keep []foundEntry // from the last on backwards
	for i := len(all) - 1; i >= 0; i-- {
		if n := len(keep); n == 0 || all[i].seq < keep[n-1].seq {
			keep = append(keep, all[i])
		}
	}
	slices.Reverse(keep)
	js.entries = keep
	if len(keep) == 0 {
		return
	}
	js.last = &keep[len(keep)-1]
	js.tail = js.last.tail
	want := js.tail
	for _, e := range keep {
		if e.seq < js.tail {
			continue
		}
		for ; want < e.seq; want++ {
			js.missing = append(js.missing, want)
		}
		want = e.seq + 1
	}
}

// firstOfSlot is the first entry of the slot that the last is in. Entries of the
// ring's earlier turn lie behind the last.
func (js *journalScan) firstOfSlot() *foundEntry {
	first := js.last
	for i := len(js.entries) - 2; i >= 0; i-- {
		e := &js.entries[i]
		if e.slot != first.slot || e.pos >= first.pos {
			break
		}
		first = e
	}
	return first
}

// findTorn looks at the two places where the entry behind the last may have
// been begun.
func (js *journalScan) findTorn() error {
	if len(js.slots) == 0 {
		return nil
	}
	next, after := 0, uint64(1)
	if js.last != nil {
		s := js.slots[js.last.slot]
		next, after = (js.last.slot+1)%len(js.slots), js.last.seq+1
		pos := js.last.pos + js.last.size()
		if s.size-pos >= minBlock {
			var b [entryHeader]byte
			if err := readFull(s.file, b[:], pos); err != nil {
				return fmt.Errorf("read %s: %w", s.path, err)
			}
			if e, err := parseEntry(b[:]); !errors.Is(err, errNoEntry) && e.seq == after {
				js.torn, js.tornAt = after, s.path
				return nil
			}
		}
	}
	if s := js.slots[next]; s.table != nil && s.table.first == after {
		js.torn, js.tornAt = after, s.path
	}
	return nil
}

// payload reads an entry again and decodes it. The result is the caller's.
func (js *journalScan) payload(e *foundEntry) ([]byte, error) {
	b := make([]byte, entryHeader+e.stored)
	if err := readFull(js.slots[e.slot].file, b, e.pos); err != nil {
		return nil, fmt.Errorf("read %s: %w", js.slots[e.slot].path, err)
	}
	if err := e.check(b, &js.secret); err != nil {
		return nil, fmt.Errorf("%s: entry %d: %w", js.slots[e.slot].path, e.seq, err)
	}
	return e.entry.payload(b)
}

// tpKey names a partition of one life of a topic.
type tpKey struct {
	topic     record.TopicID
	partition int32
}

// journalState is what the sections of the entries say, put together.
type journalState struct {
	topics  map[record.TopicID]topicMeta
	deleted map[record.TopicID]bool
	starts  map[tpKey]int64
	nexts   map[tpKey]int64  // of tables, recaps and batches
	ranges  map[tpKey][]hole // offsets of batches in entries from the tail on
	clean   bool             // the last entry is a close
	maxPID  int64
	epoch   int32
	time    int64
}

// fold reads all sections that still count: of entries from the tail on, and
// from the newest table on.
func (js *journalScan) fold() (*journalState, error) {
	st := &journalState{
		topics: map[record.TopicID]topicMeta{}, deleted: map[record.TopicID]bool{},
		starts: map[tpKey]int64{}, nexts: map[tpKey]int64{},
		ranges: map[tpKey][]hole{}, maxPID: -1,
	}
	from := js.tail
	if t := js.newest; t != nil {
		from = min(from, t.first)
		st.epoch, st.time = t.epoch, t.time
		for i := range t.topics {
			tt := &t.topics[i]
			st.topics[tt.id] = tt.meta
			for k, p := range tt.partitions {
				key := tpKey{tt.id, int32(k)}
				st.starts[key], st.nexts[key] = p.start, max(p.next, p.synced)
			}
		}
	}
	for i := range js.entries {
		e := &js.entries[i]
		st.epoch, st.time = max(st.epoch, e.epoch), max(st.time, e.time)
		if e.seq < from {
			continue
		}
		raw, err := js.payload(e)
		if err != nil {
			return nil, err
		}
		st.clean = false
		err = sections(raw, func(typ byte, body []byte) error { return st.section(typ, body, e.seq >= js.tail) })
		if err != nil {
			return nil, fmt.Errorf("journal entry %d: %w", e.seq, err)
		}
	}
	return st, nil
}

func (st *journalState) section(typ byte, body []byte, replay bool) error {
	c := cursor{b: body}
	switch typ {
	case sectionBatches:
		return batchPieces(body, func(pc piece) error {
			key := tpKey{pc.topic, pc.partition}
			_, err := record.Batches(pc.data, func(h record.Header, _ []byte) error {
				st.nexts[key] = max(st.nexts[key], h.NextOffset())
				st.maxPID = max(st.maxPID, h.ProducerID)
				if replay {
					r := st.ranges[key]
					if n := len(r); n > 0 && r[n-1].last+1 == h.BaseOffset {
						r[n-1].last = h.LastOffset()
					} else {
						st.ranges[key] = append(r, hole{h.BaseOffset, h.LastOffset()})
					}
				}
				return nil
			})
			return err
		})
	case sectionEpoch:
		st.epoch = max(st.epoch, int32(c.u32()))
		c.take(16)
	case sectionLogStart:
		key := tpKey{topic: c.topicID()}
		key.partition = c.partition()
		st.starts[key] = max(st.starts[key], c.offset())
	case sectionTopic:
		m, id, err := parseTopicMeta(body)
		if err != nil {
			return err
		}
		st.topics[id] = m
		return nil
	case sectionDelete:
		id := c.topicID()
		st.deleted[id] = true
		delete(st.topics, id)
	case sectionRecap:
		key := tpKey{topic: c.topicID()}
		for n := c.uvarint(); n > 0 && !c.bad; n-- {
			key.partition = c.partition()
			st.nexts[key] = max(st.nexts[key], c.offset())
		}
	case sectionClose:
		st.clean = true
	default:
		return fmt.Errorf("section of type %d: %w: use that version", typ, errNewer)
	}
	if c.bad || len(c.b) != 0 && typ != sectionClose {
		return errSection
	}
	return nil
}

// holds says that entries from the tail on have the offset.
func (st *journalState) holds(key tpKey, offset int64) bool {
	for _, r := range st.ranges[key] {
		if r.first <= offset && offset <= r.last {
			return true
		}
	}
	return false
}

// lowest is the lowest offset that entries from the tail on have.
func (st *journalState) lowest(key tpKey) (int64, bool) {
	r := st.ranges[key]
	if len(r) == 0 {
		return 0, false
	}
	low := r[0].first
	for _, h := range r {
		low = min(low, h.first)
	}
	return low, true
}
