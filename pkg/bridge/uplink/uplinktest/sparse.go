package uplinktest

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"

	"edgehub/pkg/log/record"
)

// Sparse makes the batch that compaction leaves of raw: the records at the
// offsets kept, with the offsets that they had.
func Sparse(raw []byte, keep map[int64]bool) []byte {
	h, err := record.ParseHeader(raw)
	if err != nil {
		panic(err)
	}
	body := raw[record.HeaderSize:h.Size()]
	if h.Codec() != record.None {
		if body, err = record.Decompress(h.Codec(), nil, body, record.MaxRecordsBytes); err != nil {
			panic(err)
		}
	}
	var out bytes.Buffer
	count := uint32(0)
	for len(body) > 0 {
		size, n := binary.Varint(body)
		whole := body[:n+int(size)]
		_, dt := binary.Varint(body[n+1:])
		delta, _ := binary.Varint(body[n+1+dt:])
		if keep[h.BaseOffset+delta] {
			out.Write(whole)
			count++
		}
		body = body[len(whole):]
	}
	b := append(bytes.Clone(raw[:record.HeaderSize]), out.Bytes()...)
	b[22] &^= 7
	binary.BigEndian.PutUint32(b[8:], uint32(len(b)-12))
	binary.BigEndian.PutUint32(b[57:], count)
	binary.BigEndian.PutUint32(b[17:], crc32.Checksum(b[21:], crc32.MakeTable(crc32.Castagnoli)))
	return b
}
