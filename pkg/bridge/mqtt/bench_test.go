package mqtt

import (
	"fmt"
	"io"
	"sync"
	"testing"

	"edgehub/pkg/log"
	"edgehub/pkg/route"
)

// BenchmarkPublish is acknowledged QoS 1 publishes of 100 bytes, load and
// broker in one process: connections × window.
func BenchmarkPublish(b *testing.B) {
	for _, size := range []struct{ conns, window int }{{1, 1}, {1, 1000}, {10, 100}, {100, 100}} {
		for _, kind := range []string{"raw", "json"} {
			b.Run(fmt.Sprintf("%dx%d %s", size.conns, size.window, kind), func(b *testing.B) {
				l := openLog(b, log.Options{JournalBytes: 64 << 20})
				rule := route.Rule{Match: "plant/{line}/{device}/telemetry", Topic: "telemetry", Key: "{device}", Payload: kind}
				payload := make([]byte, 100)
				if kind == "json" {
					rule.Time = route.TimeRule{Field: "ts", Format: "unix_ms"}
					payload = fmt.Appendf(nil, `{"ts":1763640000000,"temperature":21.53,"humidity":48.1,"state":"running","line":"a","seq":%d}`, 1234567890)
				}
				broker := startBroker(b, Options{Log: l, Site: "press-line-7", Routes: compile(b, rule)})
				b.ReportAllocs()
				b.ResetTimer()
				var all sync.WaitGroup
				for c := range size.conns {
					w := dialWire(b, broker).connect(fmt.Sprint("bench", c), 4, true)
					all.Go(func() {
						var stream []byte
						for i := range size.window {
							stream = append(stream, publishPacket(4, fmt.Sprintf("plant/a/dev-%d/telemetry", c), 1, false, uint16(i+1), payload)...)
						}
						acks := make([]byte, 4*size.window)
						for n := b.N/size.conns + 1; n > 0; n -= size.window {
							if _, err := w.Conn.Write(stream); err != nil {
								b.Error(err)
								return
							}
							if _, err := io.ReadFull(w.r, acks); err != nil {
								b.Error(err)
								return
							}
						}
					})
				}
				all.Wait()
			})
		}
	}
}
