package log

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"hash/crc32"

	"edgehub/pkg/log/record"
)

// Layout of a slot's header (big endian), at the start of the slot and padded
// with zeros to whole blocks. It is written together with the first entry of
// the slot, in one write. Its CRC is not salted: it carries the secret, so
// that a log without meta.db can be read.
//
//	 0 magic "EHJS" | 4 version u8 | 5 block shift u8 | 6 zero u16
//	 8 log id [16] | 24 secret [16]
//	40 sequence of the first entry u64 | 48 index of the slot u32
//	52 bytes of the slot u32 | 56 epoch i32 | 60 length of the table u32
//	64 hybrid time i64 ms | 72 CRC-32C u32 of bytes 0..72 and the table
//	76 table: topics uvarint, and of each: JSON of topicMeta with its length;
//	   partitions uvarint, and of each: log start, synced end and next offset,
//	   uvarints
const (
	slotMagic   = 0x45484a53 // "EHJS"
	slotVersion = 1
	slotHeader  = 76

	// maxTable bounds the table as a share of the slot: 1/4.
	maxTableShare = 4
)

// topicMeta is a topic as meta.db, journal and slot tables keep it.
type topicMeta struct {
	Name   string             `json:"name"`
	ID     string             `json:"id"`
	Config record.TopicConfig `json:"config"`
}

func (m *topicMeta) encode() []byte {
	b, err := json.Marshal(m)
	if err != nil {
		panic(err) // no type in topicMeta can fail
	}
	return b
}

func parseTopicMeta(b []byte) (topicMeta, record.TopicID, error) {
	var m topicMeta
	if err := json.Unmarshal(b, &m); err != nil {
		return m, record.TopicID{}, fmt.Errorf("topic: %w", err)
	}
	id, err := record.ParseTopicID(m.ID)
	if err == nil {
		err = record.CheckTopicName(m.Name)
	}
	if err == nil && (m.Config.Partitions < 1 || m.Config.Partitions > record.MaxPartitions) {
		err = fmt.Errorf("topic %s: %d partitions", m.Name, m.Config.Partitions)
	}
	return m, id, err
}

// slotTable is the state of all partitions when a slot was begun.
type slotTable struct {
	id, secret [16]byte
	first      uint64 // sequence of the slot's first entry
	index      int
	slotBytes  int64
	epoch      int32
	time       int64
	shift      uint8
	topics     []tableTopic
}

type tableTopic struct {
	meta       topicMeta
	id         record.TopicID
	partitions []tablePartition
}

type tablePartition struct {
	start  int64 // log start
	synced int64 // every offset below is in synced segments
	next   int64 // next offset, of durable records
}

// encode appends the header, padded to whole blocks.
func (t *slotTable) encode(dst []byte) []byte {
	at := len(dst)
	dst = append(dst, make([]byte, slotHeader)...)
	dst = binary.AppendUvarint(dst, uint64(len(t.topics)))
	for i := range t.topics {
		tt := &t.topics[i]
		m := tt.meta.encode()
		dst = binary.AppendUvarint(dst, uint64(len(m)))
		dst = append(dst, m...)
		dst = binary.AppendUvarint(dst, uint64(len(tt.partitions)))
		for _, p := range tt.partitions {
			dst = binary.AppendUvarint(dst, uint64(p.start))
			dst = binary.AppendUvarint(dst, uint64(p.synced))
			dst = binary.AppendUvarint(dst, uint64(p.next))
		}
	}
	h := dst[at:]
	binary.BigEndian.PutUint32(h[0:], slotMagic)
	h[4], h[5] = slotVersion, t.shift
	copy(h[8:], t.id[:])
	copy(h[24:], t.secret[:])
	binary.BigEndian.PutUint64(h[40:], t.first)
	binary.BigEndian.PutUint32(h[48:], uint32(t.index))
	binary.BigEndian.PutUint32(h[52:], uint32(t.slotBytes))
	binary.BigEndian.PutUint32(h[56:], uint32(t.epoch))
	binary.BigEndian.PutUint32(h[60:], uint32(len(h)-slotHeader))
	binary.BigEndian.PutUint64(h[64:], uint64(t.time))
	binary.BigEndian.PutUint32(h[72:], slotCRC(h))
	for block := 1 << t.shift; (len(dst)-at)%block != 0; {
		dst = append(dst, zeros[:block-(len(dst)-at)%block]...)
	}
	return dst
}

func slotCRC(h []byte) uint32 {
	return crc32.Update(crc32.Checksum(h[:72], castagnoli), castagnoli, h[slotHeader:])
}

// tableLen reads how long the header's table is from its fixed part; ok is
// false where no header begins.
func tableLen(b []byte) (n int, ok bool) {
	if len(b) < slotHeader || binary.BigEndian.Uint32(b) != slotMagic {
		return 0, false
	}
	return int(binary.BigEndian.Uint32(b[60:]) & 0x7fffffff), true
}

// parseSlot decodes a header. b holds at least the whole of it.
func parseSlot(b []byte) (*slotTable, error) {
	n, ok := tableLen(b)
	if !ok || n > len(b)-slotHeader {
		return nil, errNoEntry
	}
	b = b[:slotHeader+n]
	if slotCRC(b) != binary.BigEndian.Uint32(b[72:]) {
		return nil, fmt.Errorf("slot header fails its checksum")
	}
	if b[4] > slotVersion {
		return nil, fmt.Errorf("slot header of format %d: %w", b[4], errNewer)
	}
	t := &slotTable{
		first:     binary.BigEndian.Uint64(b[40:]),
		index:     int(binary.BigEndian.Uint32(b[48:]) & 0x7fffffff),
		slotBytes: int64(binary.BigEndian.Uint32(b[52:])),
		epoch:     int32(binary.BigEndian.Uint32(b[56:])),
		time:      int64(binary.BigEndian.Uint64(b[64:])),
		shift:     b[5],
	}
	copy(t.id[:], b[8:])
	copy(t.secret[:], b[24:])
	if t.shift < minBlockShift || t.shift > maxBlockShift || t.epoch < 0 {
		return nil, errSection
	}
	c := cursor{b: b[slotHeader:]}
	for n := c.uvarint(); n > 0 && !c.bad; n-- {
		var tt tableTopic
		var err error
		if tt.meta, tt.id, err = parseTopicMeta(c.bytes()); err != nil {
			return nil, err
		}
		k := c.uvarint()
		if k > record.MaxPartitions {
			return nil, errSection
		}
		for range k {
			tt.partitions = append(tt.partitions, tablePartition{start: c.offset(), synced: c.offset(), next: c.offset()})
		}
		t.topics = append(t.topics, tt)
	}
	return t, c.err()
}
