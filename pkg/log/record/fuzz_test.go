package record_test

import (
	"bytes"
	"errors"
	"testing"

	"edgehub/pkg/log/record"
)

// seeds are batches of every codec, and damaged ones.
func seeds() [][]byte {
	var out [][]byte
	for _, c := range allCodecs {
		recs := threeRecords()
		for len(recs) < 20 {
			recs = append(recs, recs[len(recs)-3:]...)
		}
		raw := build(recs, 5, 1, c)
		out = append(out, raw, raw[:len(raw)-1])
		for _, at := range []int{0, 8, 16, 22, 26, 60, len(raw) - 1} {
			out = append(out, remake(raw, func(b []byte) { b[at] ^= 3 }))
		}
	}
	return out
}

// FuzzCheck: no batch makes a decoder panic or hang, what CheckRecords passes
// Records reads, and a batch that was read and built again reads the same.
func FuzzCheck(f *testing.F) {
	for _, s := range seeds() {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		// The fuzzer cannot guess checksums: give it a sound one.
		if h, err := record.ParseHeader(raw); err == nil {
			raw = remake(raw[:h.Size()], func([]byte) {})
		}
		keep := bytes.Clone(raw)
		h, err := record.Check(raw)
		if err != nil {
			return
		}
		if h.Size() != len(raw) || h.NextOffset() <= h.BaseOffset-1 || h.Count < 0 {
			t.Fatalf("header %+v of %d bytes", h, len(raw))
		}
		_, produced := record.CheckProduced(raw)
		dense := record.CheckRecords(raw, 1<<20)
		var recs []record.Record
		last := h.BaseOffset - 1
		err = record.Records(raw, func(r *record.Record) error {
			if r.Offset <= last || r.Offset > h.LastOffset() {
				t.Fatalf("offset %d behind %d in %+v", r.Offset, last, h)
			}
			last = r.Offset
			recs = append(recs, clone(r))
			return nil
		})
		if !bytes.Equal(raw, keep) {
			t.Fatal("a decoder wrote to its input")
		}
		if err != nil {
			if dense == nil {
				t.Fatalf("CheckRecords passes what Records refuses: %v", err)
			}
			if !errors.Is(err, record.ErrCorrupt) {
				t.Fatalf("Records: %v", err)
			}
			return
		}
		if len(recs) != int(h.Count) {
			t.Fatalf("%d records, header says %d", len(recs), h.Count)
		}
		if produced != nil || dense != nil {
			return
		}
		again := decode(t, build(recs, h.BaseOffset, h.LeaderEpoch, h.Codec()))
		if d := diff(recs, again); d != "" {
			t.Fatal(d)
		}
	})
}

// FuzzBatches: the walked prefix is made of whole batches, walking it again
// gives the same, and bytes behind it change nothing.
func FuzzBatches(f *testing.F) {
	var all []byte
	for _, s := range seeds() {
		f.Add(s, 0)
		all = append(all, s...)
	}
	f.Add(all, 100)
	f.Fuzz(func(t *testing.T, b []byte, cut int) {
		walk := func(b []byte) (int, [][]byte, error) {
			var raws [][]byte
			n, err := record.Batches(b, func(h record.Header, raw []byte) error {
				if h.Size() != len(raw) {
					t.Fatalf("header of %d bytes, batch of %d", h.Size(), len(raw))
				}
				raws = append(raws, raw)
				return nil
			})
			return n, raws, err
		}
		n, raws, err := walk(b)
		if !bytes.Equal(bytes.Join(raws, nil), b[:n]) {
			t.Fatal("batches are not the prefix")
		}
		again, raws2, err2 := walk(b[:n])
		if again != n || len(raws2) != len(raws) || err2 != nil {
			t.Fatalf("prefix of %d bytes: %d, %v", n, again, err2)
		}
		if cut < 0 || cut > len(b) {
			return
		}
		short, raws3, err3 := walk(b[:cut])
		if short > n || len(raws3) > len(raws) || !bytes.Equal(b[:short], bytes.Join(raws3, nil)) {
			t.Fatalf("cut at %d: %d of %d", cut, short, n)
		}
		if err3 != nil && err == nil {
			t.Fatalf("cut at %d: an error that the whole has not: %v", cut, err3)
		}
	})
}

// FuzzBuilder: any record comes back as it went in.
func FuzzBuilder(f *testing.F) {
	f.Add(int64(1_700_000_000_000), int64(-250), []byte("key"), []byte("value"), "name", []byte("x"), byte(4), uint8(3))
	f.Add(int64(-1), int64(1)<<62, []byte(nil), []byte{}, "", []byte(nil), byte(0), uint8(7))
	f.Fuzz(func(t *testing.T, ts, dt int64, key, value []byte, name string, header []byte, codec, shape uint8) {
		one := record.Record{Timestamp: ts, Key: key, Value: value, Headers: []record.Field{{Key: name, Value: header}}}
		two := record.Record{Timestamp: ts + dt, Key: value, Value: key}
		if shape&1 != 0 {
			one.Key, two.Value = nil, nil
		}
		if shape&2 != 0 {
			one.Headers = append(one.Headers, record.Field{Key: "again"}, record.Field{Key: name, Value: []byte{}})
		}
		recs := []record.Record{one, two, one}
		c := record.Codec(codec % 5)
		raw := build(recs, 9, 2, c)
		h, err := record.CheckProduced(raw)
		if err != nil {
			t.Fatal(err)
		}
		if want := max(ts, ts+dt); h.MaxTimestamp != want || h.BaseTimestamp != ts {
			t.Fatalf("times %d and %d, want %d and %d", h.BaseTimestamp, h.MaxTimestamp, ts, want)
		}
		for i := range recs {
			recs[i] = clone(&recs[i])
			recs[i].Offset = 9 + int64(i)
		}
		if d := diff(recs, decode(t, raw)); d != "" {
			t.Fatal(d)
		}
	})
}

// FuzzDecompress: no codec panics, or gives more than the limit, or touches
// what is in dst already.
func FuzzDecompress(f *testing.F) {
	for _, c := range allCodecs {
		packed, err := record.Compress(c, nil, bytes.Repeat([]byte("sensor"), 1000))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(byte(c), packed, 6000)
	}
	for _, x := range foreign {
		f.Add(byte(x.codec), x.make(bytes.Repeat([]byte("sensor"), 1000)), 5999)
	}
	f.Fuzz(func(t *testing.T, codec byte, src []byte, limit int) {
		limit &= 1<<20 - 1
		c := record.Codec(codec % 6)
		out, err := record.Decompress(c, []byte("before"), src, limit)
		if err != nil {
			if !errors.Is(err, record.ErrCorrupt) {
				t.Fatal(err)
			}
			return
		}
		if !bytes.HasPrefix(out, []byte("before")) || len(out)-6 > limit {
			t.Fatalf("%s: %d bytes for a limit of %d", c, len(out)-6, limit)
		}
		// The limit is exact both ways.
		again, err := record.Decompress(c, nil, src, len(out)-6)
		if err != nil || !bytes.Equal(again, out[6:]) {
			t.Fatalf("%s: with the exact limit of %d: %v", c, len(out)-6, err)
		}
	})
}
