package record_test

import (
	"fmt"
	"testing"

	"edgehub/pkg/log/record"

	"github.com/twmb/franz-go/pkg/kgo"
)

// TestPartitionOf: hashes as in Kafka's UtilsTest.testMurmur2; a prime number
// of partitions shows most of the hash.
func TestPartitionOf(t *testing.T) {
	vectors := map[string]int32{
		"21":                         -973932308,
		"foobar":                     -790332482,
		"a-little-bit-long-string":   -985981536,
		"a-little-bit-longer-string": -1486304829,
		"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
		"abc": 479470107,
	}
	for key, hash := range vectors {
		for _, n := range []int32{1, 2, 3, 16, 1000, 2147483647} {
			if got, want := record.PartitionOf([]byte(key), n), (hash&0x7fffffff)%n; got != want {
				t.Errorf("%q of %d: %d, want %d", key, n, got, want)
			}
		}
	}
}

// TestPartitionOfIsKgos compares with the default partitioner of kgo for keys
// of all lengths.
func TestPartitionOfIsKgos(t *testing.T) {
	p := kgo.StickyKeyPartitioner(nil).ForTopic("t")
	for i := range 500 {
		key := []byte(fmt.Sprintf("sensor-%d-%0*d", i, i%40, i))
		key = key[:len(key)-i%5]
		for _, n := range []int{1, 4, 7, 1000} {
			if got, want := record.PartitionOf(key, int32(n)), p.Partition(&kgo.Record{Key: key}, n); int(got) != want {
				t.Fatalf("%q of %d: %d, kgo says %d", key, n, got, want)
			}
		}
	}
}
