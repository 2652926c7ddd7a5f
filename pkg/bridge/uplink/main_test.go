package uplink

import (
	"testing"

	"edgehub/pkg/log/record"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	// Codecs keep channels, which must not be made inside of a bubble.
	for _, c := range []record.Codec{record.Gzip, record.Snappy, record.LZ4, record.Zstd} {
		b, err := record.Compress(c, nil, make([]byte, 1000))
		if err == nil {
			_, err = record.Decompress(c, nil, b, 1000)
		}
		if err != nil {
			panic(err)
		}
	}
	goleak.VerifyTestMain(m)
}
