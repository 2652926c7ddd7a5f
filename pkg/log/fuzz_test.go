package log

import (
	"bytes"
	"encoding/binary"
	"slices"
	"testing"

	"edgehub/pkg/log/record"
)

var fuzzSecret = [16]byte{1, 2, 3}

// FuzzEntry: what seal wrote is read back; what else passes the checks must
// have bounded lengths, and its sections never panic.
func FuzzEntry(f *testing.F) {
	var id record.TopicID
	id[3] = 9
	var b record.Builder
	b.Append(&record.Record{Timestamp: 5, Value: []byte("v")})
	batch := b.Build(nil, 7, 1, record.None)
	body := append([]byte{}, id[:]...)
	body = append(body, 0, pieceOwn)
	body = binary.AppendUvarint(body, uint64(len(batch)))
	body = append(body, batch...)
	raw := appendSection(nil, sectionBatches, body)
	raw = appendLogStart(raw, id, 3, 1<<40)
	raw = appendSection(raw, sectionDelete, id[:])
	raw = appendSection(raw, sectionEpoch, make([]byte, 20))
	raw = appendSection(raw, sectionRecap, append(append([]byte{}, id[:]...), 1, 2, 3))
	raw = appendSection(raw, sectionTopic, (&topicMeta{Name: "t", ID: id.String(), Config: record.DefaultTopicConfig()}).encode())
	raw = appendSection(raw, sectionClose, nil)
	e := entry{seq: 9, tail: 4, epoch: 2, time: 3, shift: minBlockShift, raw: len(raw)}
	f.Add(e.seal(append(make([]byte, entryHeader), raw...), &fuzzSecret))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := parseEntry(b)
		if err != nil {
			return
		}
		if e.size() < minBlock || e.stored > maxEntryRaw {
			t.Fatalf("%+v", e)
		}
		if int64(len(b)) < entryHeader+int64(e.stored) {
			return
		}
		// Give it a good checksum, so that the fuzzer gets behind it.
		b = slices.Clone(b[:entryHeader+e.stored])
		e.crc = saltedCRC(&fuzzSecret, b[:44], b[entryHeader:])
		if e.check(b, &fuzzSecret) != nil {
			return
		}
		raw, err := e.payload(b)
		if err != nil {
			return
		}
		st := &journalState{
			topics: map[record.TopicID]topicMeta{}, deleted: map[record.TopicID]bool{}, starts: map[tpKey]int64{},
			nexts: map[tpKey]int64{}, ranges: map[tpKey][]hole{},
		}
		_ = sections(raw, func(typ byte, body []byte) error { return st.section(typ, body, true) })
		again := entry{seq: e.seq, tail: e.tail, epoch: e.epoch, time: e.time, shift: e.shift, raw: len(raw)}
		sealed := again.seal(append(make([]byte, entryHeader), raw...), &fuzzSecret)
		back, err := parseEntry(sealed)
		if err != nil || back.check(sealed, &fuzzSecret) != nil || back.seq != e.seq || back.tail != e.tail || back.time != e.time {
			t.Fatalf("round trip: %+v %v", back, err)
		}
	})
}

func FuzzSlotTable(f *testing.F) {
	t := slotTable{first: 3, index: 1, slotBytes: 1 << 20, epoch: 2, time: 9, shift: minBlockShift, topics: []tableTopic{{
		meta: topicMeta{Name: "t", ID: record.TopicID{1}.String(), Config: record.DefaultTopicConfig()}, id: record.TopicID{1},
		partitions: []tablePartition{{1, 2, 3}},
	}}}
	f.Add(t.encode(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		n, ok := tableLen(b)
		if !ok || n > len(b)-slotHeader {
			return
		}
		b = slices.Clone(b)
		binary.BigEndian.PutUint32(b[72:], slotCRC(b[:slotHeader+n]))
		s, err := parseSlot(b)
		if err != nil {
			return
		}
		back, err := parseSlot(s.encode(nil))
		if err != nil || back.first != s.first || len(back.topics) != len(s.topics) {
			t.Fatalf("round trip: %v", err)
		}
	})
}

func FuzzFooter(f *testing.F) {
	ft := footer{segStats: segStats{next: 10, end: 600, records: 10, batches: 1, maxTS: 4, epochs: []epochFrom{{1, 0}}, holes: []hole{{3, 4}}},
		index: []indexEntry{{0, 512, 4}}, producers: []*producer{{id: 4, epoch: 1, last: 5, n: 1}}}
	f.Add(ft.encode(0))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) < segTrailer+5 {
			return
		}
		if n, err := footerLen(b[len(b)-segTrailer:]); err == nil && n > maxFooter+segTrailer {
			t.Fatalf("length %d", n)
		}
		b = slices.Clone(b)
		body := b[:len(b)-segTrailer]
		binary.BigEndian.PutUint32(body, footMagic)
		binary.BigEndian.PutUint32(b[len(body):], checksum(body))
		ft, err := parseFooter(b, 0)
		if err != nil {
			return
		}
		back, err := parseFooter(ft.encode(0), 0)
		if err != nil || back.next != ft.next || len(back.index) != len(ft.index) || len(back.producers) != len(ft.producers) {
			t.Fatalf("round trip: %v", err)
		}
	})
}

// FuzzSegment: any bytes in the place of batches are walked to the end, with
// offsets that only grow.
func FuzzSegment(f *testing.F) {
	var b record.Builder
	b.Append(&record.Record{Timestamp: 5, Value: []byte("v")})
	one, two := b.Build(nil, 0, 1, record.None), b.Build(nil, 1, 1, record.Zstd)
	f.Add(slices.Concat(one, two))
	f.Add(slices.Concat(one, make([]byte, segBlock-segHeader-len(one)), two))
	f.Add(slices.Concat(one, []byte("garbage"), two))
	f.Fuzz(func(t *testing.T, b []byte) {
		r := bytes.NewReader(slices.Concat(make([]byte, segHeader), b))
		w := walker{r: r, pos: segHeader, end: r.Size(), window: 1024}
		last := int64(0)
		for range len(b) + 2 {
			pos, h, raw, err := w.next()
			switch {
			case err == nil:
				if h.BaseOffset < last || pos < segHeader || len(raw) != h.Size() {
					t.Fatalf("batch %d at %d behind %d", h.BaseOffset, pos, last)
				}
				last = h.NextOffset()
			case err == errBadBatch:
				lost, err := w.resync(1 << 62)
				if err != nil {
					return
				}
				if lost.first != last || lost.last < last-1 {
					t.Fatalf("lost %v behind %d", lost, last)
				}
				last = w.expected
			default:
				return
			}
		}
		t.Fatal("no end")
	})
}

func FuzzSegmentHeader(f *testing.F) {
	h := segHead{id: 1, name: "t", partition: 2, epoch: 3, base: 4, created: 5}
	f.Add(h.encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := parseSegHead(b)
		if err != nil {
			return
		}
		if back, err := parseSegHead(h.encode()); err != nil || back != h {
			t.Fatalf("round trip: %+v %v", back, err)
		}
	})
}

func FuzzGroupOffset(f *testing.F) {
	q := queuedOffset{group: "g", off: record.GroupOffset{TopicPartition: record.TopicPartition{Topic: "t", Partition: 3}, Offset: 9, LeaderEpoch: -1, Metadata: "m"}}
	f.Add(q.key(), q.value(5))
	f.Fuzz(func(t *testing.T, key, value []byte) {
		q, err := parseOffset(&record.Record{Key: key, Value: value})
		if err != nil || q.delete {
			return
		}
		back, err := parseOffset(&record.Record{Key: q.key(), Value: q.value(1)})
		if err != nil || back != q {
			t.Fatalf("round trip: %+v %v", back, err)
		}
	})
}
