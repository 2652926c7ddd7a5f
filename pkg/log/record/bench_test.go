package record_test

import (
	"fmt"
	"testing"

	"edgehub/pkg/log/record"
)

// telemetry is what a gateway sees: 90 bytes of JSON, a key, three headers.
func telemetry(n int) []record.Record {
	recs := make([]record.Record, n)
	for i := range recs {
		device := fmt.Sprintf("press-%d", i%16)
		ts := 1_700_000_000_000 + int64(i)*10
		recs[i] = record.Record{
			Timestamp: ts,
			Key:       []byte(device),
			Value: fmt.Appendf(nil, `{"ts":%d,"temperature":%.3f,"vibration":%.4f,"pressure":%d,"state":"run"}`,
				ts, 20+float64(i%97)/10, float64(i%13)/7, 1000+i%50),
			Headers: []record.Field{
				{Key: "mqtt.topic", Value: []byte("plant/line1/" + device + "/telemetry")},
				{Key: "site", Value: []byte("press-line-7")},
				{Key: "device", Value: []byte(device)},
			},
		}
	}
	return recs
}

func TestAllocations(t *testing.T) {
	recs := telemetry(512)
	var b record.Builder
	fill := func() {
		b.Reset()
		for i := range recs {
			b.Append(&recs[i])
		}
	}
	fill()
	if n := testing.AllocsPerRun(20, fill); n != 0 {
		t.Errorf("Append of 512 records: %v allocations, want 0", n)
	}
	dst := b.Build(nil, 0, 0, record.None)
	if n := testing.AllocsPerRun(20, func() { dst = b.Build(dst[:0], 1, 2, record.None) }); n != 0 {
		t.Errorf("Build: %v allocations, want 0", n)
	}
	if n := testing.AllocsPerRun(20, func() {
		if _, err := record.CheckProduced(dst); err != nil {
			t.Error(err)
		}
		record.Stamp(dst, 3, 4)
	}); n != 0 {
		t.Errorf("CheckProduced and Stamp: %v allocations, want 0", n)
	}
	// Headers and their names are the first record's; later ones reuse them.
	if n := testing.AllocsPerRun(20, func() {
		if err := record.Records(dst, func(*record.Record) error { return nil }); err != nil {
			t.Error(err)
		}
	}); n > 8 {
		t.Errorf("Records of 512: %v allocations, want at most 8", n)
	}
	packed := b.Build(nil, 0, 0, record.Zstd)
	if n := testing.AllocsPerRun(20, func() { packed = b.Build(packed[:0], 0, 0, record.Zstd) }); n != 0 {
		t.Errorf("Build with zstd: %v allocations, want 0", n)
	}
}

func BenchmarkAppend(b *testing.B) {
	recs := telemetry(512)
	var bld record.Builder
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		if i == len(recs) {
			bld.Reset()
			i = 0
		}
		bld.Append(&recs[i])
		i++
	}
}

// BenchmarkBuild is a flush: 512 records to one batch.
func BenchmarkBuild(b *testing.B) {
	recs := telemetry(512)
	for _, c := range allCodecs {
		b.Run(c.String(), func(b *testing.B) {
			var bld record.Builder
			for i := range recs {
				bld.Append(&recs[i])
			}
			var dst []byte
			b.ReportAllocs()
			b.SetBytes(int64(bld.Size()))
			for b.Loop() {
				dst = bld.Build(dst[:0], 0, 0, c)
			}
			b.ReportMetric(float64(len(dst))/512, "B/record")
		})
	}
}

func BenchmarkRecords(b *testing.B) {
	recs := telemetry(512)
	for _, c := range allCodecs {
		b.Run(c.String(), func(b *testing.B) {
			raw := build(recs, 0, 0, c)
			b.ReportAllocs()
			b.SetBytes(int64(len(raw)))
			for b.Loop() {
				if err := record.Records(raw, func(*record.Record) error { return nil }); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkCheck(b *testing.B) {
	raw := build(telemetry(512), 0, 0, record.None)
	b.SetBytes(int64(len(raw)))
	for b.Loop() {
		if _, err := record.CheckProduced(raw); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkPartitionOf(b *testing.B) {
	key := []byte("plant/line1/press-7/telemetry")
	for b.Loop() {
		record.PartitionOf(key, 16)
	}
}
