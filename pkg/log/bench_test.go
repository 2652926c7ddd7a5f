package log

import (
	"fmt"
	"sync"
	"testing"

	"edgehub/pkg/log/record"
)

// BenchmarkAppend appends 100-byte records, with publishers that each keep a
// window of 1000 unacknowledged.
func BenchmarkAppend(b *testing.B) {
	for _, writers := range []int{1, 4} {
		for _, parts := range []int32{1, 16} {
			b.Run(fmt.Sprintf("writers=%d/partitions=%d", writers, parts), func(b *testing.B) {
				l := mustOpen(b, Options{Dir: b.TempDir()})
				defer mustClose(b, l)
				mustCreate(b, l, "t", parts)
				per := b.N/writers + 1
				b.SetBytes(100)
				b.ReportAllocs()
				b.ResetTimer()
				var wg sync.WaitGroup
				for w := range writers {
					wg.Go(func() {
						rec := record.Record{Timestamp: 1_700_000_000_000, Key: []byte("device-0001"), Value: make([]byte, 100)}
						for i := range rec.Value {
							rec.Value[i] = byte('a' + (i*7+w)%26)
						}
						var last LSN
						for i := range per {
							rec.Value[i%100] = byte('a' + i%26)
							rec.Timestamp++
							p, _ := l.Partition("t", int32(i)%parts)
							_, lsn, err := p.Append(&rec)
							if err != nil {
								b.Error(err)
								return
							}
							if i%1000 == 999 {
								if err := l.Wait(b.Context(), last); err != nil {
									b.Error(err)
									return
								}
								last = lsn
							}
						}
						if err := l.Wait(b.Context(), last); err != nil {
							b.Error(err)
						}
					})
				}
				wg.Wait()
				b.StopTimer()
				s := l.Stats()
				b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "records/s")
				b.ReportMetric(float64(s.JournalWritten+s.SegmentWritten)/float64(s.CommittedRecords*100), "device-bytes/byte")
				b.ReportMetric(float64(s.CommittedRecords)/float64(s.Commits), "records/commit")
			})
		}
	}
}

func BenchmarkFetch(b *testing.B) {
	l := mustOpen(b, Options{Dir: b.TempDir()})
	defer mustClose(b, l)
	mustCreate(b, l, "t", 1)
	p := mustPartition(b, l, "t", 0)
	rec := record.Record{Key: []byte("device-0001"), Value: make([]byte, 100)}
	for range 200_000 {
		if _, _, err := p.Append(&rec); err != nil {
			b.Fatal(err)
		}
	}
	mustAppend(b, p, "last")
	hw := p.Offsets().HighWatermark
	var dst []byte
	next, records := int64(0), int64(0)
	for b.Loop() {
		if next >= hw {
			next = 0
		}
		f, err := p.Fetch(next, 1<<20, dst[:0])
		if err != nil {
			b.Fatal(err)
		}
		dst = f.Batches
		record.Batches(dst, func(h record.Header, _ []byte) error {
			records += h.NextOffset() - max(next, h.BaseOffset)
			next = h.NextOffset()
			return nil
		})
	}
	b.ReportMetric(float64(records)/b.Elapsed().Seconds(), "records/s")
}
