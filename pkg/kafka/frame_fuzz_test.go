package kafka

import (
	"bytes"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"reflect"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"edgehub/pkg/kafka/kafkatest"
	"edgehub/pkg/log/record"
)

// FuzzConnection sends bytes to a connection. Whatever they are: no panic of
// a decoder or a handler, and the connection ends with its client.
func FuzzConnection(f *testing.F) {
	r := rand.New(rand.NewPCG(7, 8))
	for _, a := range apiTable() {
		for v := a.min; v <= a.max; v++ {
			req := a.request()
			fill(r, reflect.ValueOf(req), 3)
			if fr, ok := req.(*kmsg.FetchRequest); ok {
				fr.MaxWaitMillis = 0
			}
			req.SetVersion(v)
			f.Add(encodeRequest(req, 1))
		}
	}
	good := produceRequest("t", 0, -1, batch(record.None, "v"))
	good.SetVersion(9)
	f.Add(append(encodeRequest(good, 1), encodeRequest(apiVersionsRequest(), 2)...))
	f.Add([]byte{0, 0, 0, 9, 0, 3})

	st := kafkatest.New()
	s := start(f, st, nil)
	mustCreate(f, st, "t", 1)
	s.o.AutoCreate = false
	s.logger = slog.New(slog.DiscardHandler)
	f.Fuzz(func(t *testing.T, b []byte) {
		client, server := net.Pipe()
		c := newConn(s, server)
		go func() {
			client.SetDeadline(time.Now().Add(5 * time.Second))
			go io.Copy(io.Discard, client)
			io.Copy(client, bytes.NewReader(b))
			client.Close()
		}()
		for c.next() == nil {
		}
		server.Close()
		if n := s.stats.panics.Load(); n != 0 {
			t.Fatal("a decoder panicked")
		}
		if n := s.frames.held(); n != 0 {
			t.Fatalf("%d bytes of frames are still held", n)
		}
	})
}
