package kafka

import (
	"encoding/binary"
	"io"
	"net"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"edgehub/pkg/kafka/kafkatest"
	"edgehub/pkg/log/record"
)

// frameOf is a frame with a header v1 and a body of one's own.
func frameOf(key, version int16, body ...byte) []byte {
	b := binary.BigEndian.AppendUint16(nil, uint16(key))
	b = binary.BigEndian.AppendUint16(b, uint16(version))
	b = binary.BigEndian.AppendUint32(b, 7)
	b = append(b, 0xff, 0xff) // no client id
	b = append(b, body...)
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(b))), b...)
}

// Whatever is sent closes its own connection, is counted, and leaves another
// client alone.
func TestGarbage(t *testing.T) {
	s := start(t, nil, nil)
	other := dial(t, s)
	for _, tc := range []struct {
		name  string
		bytes []byte
		want  Refusal
	}{
		{"unknown key", frameOf(9999, 0), RefusedUnknownKey},
		{"key that is not served", frameOf(11, 0), RefusedUnknownKey},
		{"negative key", frameOf(-3, 0), RefusedUnknownKey},
		{"Produce v99", frameOf(0, 99, 1, 2, 3), RefusedVersion},
		{"Fetch v3", frameOf(1, 3, 1, 2, 3), RefusedVersion},
		{"negative version", frameOf(0, -1), RefusedVersion},
		{"HTTP", []byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"), RefusedTooLarge},
		{"TLS", []byte{0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3}, RefusedTooLarge},
		{"giant frame", []byte{0x7f, 0xff, 0xff, 0xff, 0, 3, 0, 1}, RefusedTooLarge},
		{"negative frame", []byte{0xff, 0xff, 0xff, 0xff}, RefusedMalformed},
		{"empty frame", []byte{0, 0, 0, 0}, RefusedMalformed},
		{"tag bomb in the body", frameOf(18, 3, 0, 1, 1, 0x80, 0x80, 0x80, 0x80, 1), RefusedMalformed},
		{"tag bomb in the header", frameOf(18, 3, 0x80, 0x80, 0x80, 0x80, 1), RefusedMalformed},
		{"array bomb", frameOf(3, 1, 0x7f, 0xff, 0xff, 0xff), RefusedMalformed},
		{"client id longer than the frame", append([]byte{0, 0, 0, 10, 0, 3, 0, 1, 0, 0, 0, 7}, 0x7f, 0xff), RefusedMalformed},
		{"body missing", frameOf(3, 1), RefusedMalformed},
	} {
		t.Run(tc.name, func(t *testing.T) {
			before := s.Stats().Refused[tc.want.String()]
			c := dial(t, s)
			begin := time.Now()
			c.Write(tc.bytes)
			c.closed()
			if took := time.Since(begin); took > time.Second {
				t.Errorf("closed after %v", took)
			}
			if got := s.Stats().Refused[tc.want.String()]; got != before+1 {
				t.Errorf("%d refusals for %s, want %d", got, tc.want, before+1)
			}
			if resp := ask[*kmsg.ApiVersionsResponse](other, apiVersionsRequest(), 3); resp.ErrorCode != 0 {
				t.Errorf("the other client gets %d", resp.ErrorCode)
			}
		})
	}
	if n := s.Stats().Panics; n != 0 {
		t.Errorf("%d panics", n)
	}
}

func apiVersionsRequest() *kmsg.ApiVersionsRequest {
	req := kmsg.NewPtrApiVersionsRequest()
	req.ClientSoftwareName, req.ClientSoftwareVersion = "raw", "1.0"
	return req
}

func TestApiVersionsAboveOurs(t *testing.T) {
	s := start(t, nil, nil)
	for _, version := range []int16{5, 99, 32767} {
		c := dial(t, s)
		c.Write(frameOf(18, version, 0xde, 0xad, 0xbe, 0xef))
		id, b := c.answer()
		resp := kmsg.NewPtrApiVersionsResponse()
		if err := resp.ReadFrom(b); id != 7 || err != nil {
			t.Fatal(id, err)
		}
		if resp.ErrorCode != 35 || len(resp.ApiKeys) != 1 || resp.ApiKeys[0].ApiKey != 18 || resp.ApiKeys[0].MaxVersion != 4 {
			t.Fatalf("%+v", resp)
		}
		// The connection goes on.
		if resp := ask[*kmsg.ApiVersionsResponse](c, apiVersionsRequest(), 4); resp.ErrorCode != 0 || len(resp.ApiKeys) != 11 {
			t.Fatalf("%+v", resp)
		}
	}
}

// The table of versions is a contract with clients.
func TestApiVersionsTable(t *testing.T) {
	want := map[int16][2]int16{
		0: {0, 10}, 1: {4, 12}, 2: {0, 8}, 3: {0, 12}, 8: {0, 9}, 9: {0, 9},
		10: {0, 5}, 18: {0, 4}, 19: {0, 7}, 20: {0, 6}, 22: {0, 5},
	}
	s := start(t, nil, nil)
	c := dial(t, s)
	for v := int16(0); v <= 4; v++ {
		resp := ask[*kmsg.ApiVersionsResponse](c, apiVersionsRequest(), v)
		if len(resp.ApiKeys) != len(want) {
			t.Fatalf("v%d: %d keys, want %d", v, len(resp.ApiKeys), len(want))
		}
		for _, k := range resp.ApiKeys {
			if got := [2]int16{k.MinVersion, k.MaxVersion}; got != want[k.ApiKey] {
				t.Errorf("key %d: %v, want %v", k.ApiKey, got, want[k.ApiKey])
			}
		}
		if len(resp.SupportedFeatures) != 0 || len(resp.FinalizedFeatures) != 0 {
			t.Errorf("v%d: features", v)
		}
	}
	bad := apiVersionsRequest()
	bad.ClientSoftwareName = "-x-"
	if resp := ask[*kmsg.ApiVersionsResponse](c, bad, 3); resp.ErrorCode != codeInvalidRequest {
		t.Errorf("bad software name: %d", resp.ErrorCode)
	}
}

// A frame that comes in pieces is a frame; one that does not end is refused.
func TestSlowFrames(t *testing.T) {
	s := start(t, nil, func(o *Options) { o.FrameTimeout = 300 * time.Millisecond })
	c := dial(t, s)
	apiVersions := apiVersionsRequest()
	apiVersions.SetVersion(3)
	c.correlation++
	for _, b := range encodeRequest(apiVersions, c.correlation) {
		c.Write([]byte{b})
	}
	if resp := c.receive(apiVersions).(*kmsg.ApiVersionsResponse); resp.ErrorCode != 0 {
		t.Fatal(resp.ErrorCode)
	}
	for name, half := range map[string][]byte{
		"half a length":          {0, 0},
		"half a frame":           {0, 0, 0, 200, 0, 3, 0, 1},
		"half a middle frame":    append([]byte{0, 0, 0x40, 0}, make([]byte, 500)...),
		"a byte of a long frame": {0, 0x00, 0x80, 0, 1},
	} {
		t.Run(name, func(t *testing.T) {
			c := dial(t, s)
			c.Write(half)
			c.closed()
		})
		t.Run(name+", then gone", func(t *testing.T) {
			c := dial(t, s)
			c.Write(half)
			c.Close()
		})
	}
	if got := s.Stats().Refused["slow"]; got != 4 {
		t.Errorf("%d refused as slow, want 4", got)
	}
	// A connection that is idle between frames stays.
	time.Sleep(400 * time.Millisecond)
	if resp := ask[*kmsg.ApiVersionsResponse](c, apiVersions, 3); resp.ErrorCode != 0 {
		t.Error("the idle connection is broken")
	}
}

// Lengths that are announced and not sent do not keep others from sending
// large frames.
func TestAnnouncedBytesStarveNobody(t *testing.T) {
	st := kafkatest.New()
	s := start(t, st, func(o *Options) { o.MaxFrameBytes = 1 << 20; o.InFlightBytes = 4 << 20 })
	mustCreate(t, st, "t", 1)
	for range 100 {
		c := dial(t, s)
		c.Write([]byte{0, 0x0f, 0xff, 0xff, 0, 0, 0, 9})
	}
	c := dial(t, s)
	big := batch(record.None, string(make([]byte, 900<<10)))
	resp := ask[*kmsg.ProduceResponse](c, produceRequest("t", 0, -1, big), 9)
	if code := resp.Topics[0].Partitions[0].ErrorCode; code != 0 {
		t.Fatal(code)
	}
	if got := s.Stats().FrameBytes; got > 4<<20 {
		t.Errorf("%d bytes held", got)
	}
}

// A client that does not read its answers holds up nobody else, and is given
// up.
func TestSlowReader(t *testing.T) {
	st := kafkatest.New()
	s := start(t, st, func(o *Options) {
		o.FrameTimeout = 500 * time.Millisecond
		o.MaxFetchBytes = 256 << 10
		o.FetchBytes = 512 << 10
	})
	mustCreate(t, st, "t", 1)
	for range 8 {
		mustAppend(t, st, "t", 0, string(make([]byte, 100<<10)))
	}
	req := fetchRequest("t", 0, 0)
	req.SetVersion(11)
	var stuck []*raw
	for range 10 {
		c := dial(t, s)
		c.Conn.(*net.TCPConn).SetReadBuffer(4 << 10)
		frame := encodeRequest(req, 1)
		go func() {
			for range 200 {
				if _, err := c.Write(frame); err != nil {
					return
				}
			}
		}()
		stuck = append(stuck, c)
	}
	c := dial(t, s)
	begin := time.Now()
	for range 50 {
		resp := ask[*kmsg.FetchResponse](c, fetchRequest("t", 0, 0), 11)
		if p := resp.Topics[0].Partitions[0]; p.ErrorCode != 0 || len(p.RecordBatches) < 100<<10 {
			t.Fatalf("code %d, %d bytes", p.ErrorCode, len(p.RecordBatches))
		}
	}
	if took := time.Since(begin); took > 5*time.Second {
		t.Errorf("50 fetches took %v beside clients that do not read", took)
	}
	for _, c := range stuck {
		c.Close()
	}
}

func TestTooManyConnections(t *testing.T) {
	s := start(t, nil, func(o *Options) { o.MaxConnections = 2 })
	a, b := dial(t, s), dial(t, s)
	ask[*kmsg.ApiVersionsResponse](a, apiVersionsRequest(), 0)
	ask[*kmsg.ApiVersionsResponse](b, apiVersionsRequest(), 0)
	dial(t, s).closed()
	a.Close()
	for { // the server notices in its own time
		c := dial(t, s)
		c.Write(encodeRequest(apiVersionsRequest(), 1))
		if _, err := io.ReadFull(c, make([]byte, 4)); err == nil {
			break
		}
	}
}

// onWatch tells when a fetch begins to wait.
func onWatch(st *kafkatest.Store) <-chan struct{} {
	watching := make(chan struct{}, 1)
	st.Fail(func(op string, _ record.TopicPartition) error {
		if op == "Watch" {
			select {
			case watching <- struct{}{}:
			default:
			}
		}
		return nil
	})
	return watching
}

// Close ends waiting requests and joins everything; goleak in TestMain sees
// what it forgets.
func TestCloseWhileWaiting(t *testing.T) {
	st := kafkatest.New()
	s := start(t, st, nil)
	mustCreate(t, st, "t", 1)
	watching := onWatch(st)
	c := dial(t, s)
	req := fetchRequest("t", 0, 0)
	req.MaxWaitMillis = 50_000
	req.SetVersion(12)
	c.send(req)
	half := dial(t, s)
	half.Write([]byte{0, 0})
	dial(t, s)
	<-watching
	begin := time.Now()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal("second Close:", err)
	}
	if took := time.Since(begin); took > 2*time.Second {
		t.Errorf("Close took %v", took)
	}
	if n := st.Watchers(); n != 0 {
		t.Errorf("%d watchers left", n)
	}
}

func TestListenErrors(t *testing.T) {
	s := start(t, nil, nil)
	for name, o := range map[string]Options{
		"no store":      {Listen: "127.0.0.1:0"},
		"port in use":   {Listen: s.Addr().String(), Store: kafkatest.New()},
		"bad advertise": {Listen: "127.0.0.1:0", Store: kafkatest.New(), Advertise: "host"},
		"advertise 0":   {Listen: "127.0.0.1:0", Store: kafkatest.New(), Advertise: "host:0"},
	} {
		if s, err := Listen(o); err == nil {
			s.Close()
			t.Errorf("%s: no error", name)
		} else {
			t.Log(err)
		}
	}
}
