package mqtt

import (
	"bytes"
	"fmt"
	"net"
	"testing"
	"time"

	"edgehub/pkg/log"
	"edgehub/pkg/route"
)

func TestAcksCarryTheirPacketIDs(t *testing.T) {
	b := startBroker(t, Options{})
	for _, version := range []byte{4, 5} {
		w := dialWire(t, b).connect(fmt.Sprint("ids", version), version, true)
		w.send(publishPacket(version, "a", 1, false, 513, []byte("x")))
		if got, want := w.read(), []byte{typePuback << 4, 2, 2, 1}; !bytes.HasPrefix(got, []byte{want[0]}) || got[2] != 2 || got[3] != 1 {
			t.Errorf("version %d: PUBACK % x, want % x", version, got, want)
		}
		w.send(publishPacket(version, "a", 2, false, 514, []byte("x")))
		if got := w.read(); got[0] != typePubrec<<4 || got[2] != 2 || got[3] != 2 {
			t.Errorf("version %d: PUBREC % x", version, got)
		}
		w.send([]byte{0x62, 2, 2, 2})
		if got := w.read(); got[0] != 0x70 || got[2] != 2 || got[3] != 2 {
			t.Errorf("version %d: PUBCOMP % x", version, got)
		}
	}
}

func TestByteByByte(t *testing.T) {
	l := openLog(t, log.Options{})
	b := startBroker(t, Options{Log: l})
	w := dialWire(t, b)
	var stream []byte
	stream = append(stream, connectPacket("slow", 4, true)...)
	for i := range 5 {
		stream = append(stream, publishPacket(4, "slow/topic", 1, false, uint16(i+1), []byte("value"))...)
	}
	for i := range stream {
		w.send(stream[i : i+1])
	}
	w.read() // CONNACK
	for i := range 5 {
		if p := w.read(); p[0] != typePuback<<4 || int(p[3]) != i+1 {
			t.Fatalf("ack %d is % x", i, p)
		}
	}
	if got := stored(t, l, route.DefaultTopic); len(got) != 5 || string(got[0].Key) != "slow/topic" {
		t.Errorf("%d records, want 5 with the topic as key", len(got))
	}
}

func TestGarbageEndsItsOwnConnectionOnly(t *testing.T) {
	b := startBroker(t, Options{MaxPacket: 1000})
	good := dialWire(t, b).connect("good", 4, true)
	connected := func(p ...byte) []byte { return append(connectPacket("bad", 4, true), p...) }
	for name, bytes := range map[string][]byte{
		"http":                     []byte("GET / HTTP/1.1\r\nHost: hub\r\n\r\n"),
		"tls":                      {0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3},
		"zeros":                    make([]byte, 64),
		"publish before connect":   publishPacket(4, "a", 1, false, 1, nil),
		"endless length":           {0x10, 0x80, 0x80, 0x80, 0x80, 0x80},
		"huge connect":             {0x10, 0xff, 0xff, 0xff, 0x7f, 0},
		"connect of noise":         packet(0x10, []byte("\x00\x04MQTT\x04\xff\xff\xff\xff\xff")),
		"wrong protocol":           packet(0x10, text("MQTX"), []byte{4, 2, 0, 0}, text("x")),
		"second connect":           connected(connectPacket("bad", 4, true)...),
		"publish longer than said": connected(packet(0x32, []byte{0xff, 0xff, 1})...),
		"qos 3":                    connected(packet(0x36, text("a"), []byte{0, 1})...),
		"wildcard in publish":      connected(publishPacket(4, "a/#", 1, false, 1, nil)...),
		"huge publish":             connected(0x32, 0xff, 0xff, 0xff, 0x7f, 0, 1),
		"packet type 0":            connected(0, 0),
	} {
		w := dialWire(t, b)
		w.send(bytes)
		if name == "huge publish" || bytes[0] == 0x10 && bytes[1] < 30 && len(bytes) > 17 {
			_, _ = w.next(patience) // CONNACK
		}
		for {
			_, err := w.next(patience)
			if e, ok := err.(net.Error); ok && e.Timeout() {
				t.Errorf("%s: the connection stays open", name)
			}
			if err != nil {
				break
			}
		}
	}
	good.send(publishPacket(4, "a", 1, false, 1, nil))
	if p := good.read(); p[0] != typePuback<<4 {
		t.Errorf("the good client got % x", p)
	}
	if s := b.Stats(); s.Panics != 0 || s.Refused["too_large"] < 2 || s.Refused["protocol"] < 4 {
		t.Errorf("stats: %+v", s)
	}
}

func TestTooLargePackets(t *testing.T) {
	l := openLog(t, log.Options{})
	b := startBroker(t, Options{Log: l, MaxPacket: 1000})
	w := dialWire(t, b)
	w.send(connectPacket("v5", 5, true))
	if p := w.read(); !bytes.Contains(p, []byte{0x27, 0, 0, 3, 0xe8}) {
		t.Errorf("CONNACK % x does not say the largest packet", p)
	}
	fits := publishPacket(5, "a", 1, false, 1, make([]byte, 1000-3-3-2-1))
	if len(fits) != 1000 {
		t.Fatalf("test packet of %d bytes", len(fits))
	}
	w.send(append(fits, publishPacket(5, "a", 1, false, 2, make([]byte, 1000))...))
	// The first is acknowledged or lost with the connection, the second
	// refused with its reason.
	p := w.read()
	if p[0] == typePuback<<4 {
		p = w.read()
	}
	if !bytes.Equal(p, []byte{typeDisconnect << 4, 1, 0x95}) {
		t.Errorf("got % x, want DISCONNECT with reason 0x95", p)
	}
	w.ended()
	if got := stored(t, l, route.DefaultTopic); len(got) > 1 {
		t.Errorf("%d records, want 1", len(got))
	}
}

func TestDuplicateQoS2IsStoredOnce(t *testing.T) {
	for _, version := range []byte{4, 5} {
		t.Run(fmt.Sprint("version ", version), func(t *testing.T) {
			l := openLog(t, log.Options{})
			b := startBroker(t, Options{Log: l})
			w := dialWire(t, b).connect("twice", version, false)
			w.send(publishPacket(version, "a", 2, false, 9, []byte("once")))
			w.read()
			w.send(publishPacket(version, "a", 2, true, 9, []byte("once")))
			p := w.read()
			if p[0] != typePubrec<<4 || p[3] != 9 || len(p) > 4 && p[4] != 0 {
				t.Errorf("answer to the duplicate: % x, want a plain PUBREC", p)
			}
			// The connection is lost; the client comes back and sends again.
			_ = w.Close()
			waitStats(t, b, "end of the connection", func(s Stats) bool { return s.Connections == 0 })
			w = dialWire(t, b)
			w.send(connectPacket("twice", version, false))
			if p := w.read(); p[2] != 1 {
				t.Fatalf("CONNACK % x: no session", p)
			}
			w.send(publishPacket(version, "a", 2, true, 9, []byte("once")))
			for range 2 { // the session's own, and the answer
				if p := w.read(); p[0] != typePubrec<<4 || p[3] != 9 || len(p) > 4 && p[4] != 0 {
					t.Fatalf("got % x, want PUBREC 9", p)
				}
			}
			w.send([]byte{0x62, 2, 0, 9})
			if p := w.read(); p[0] != 0x70 {
				t.Fatalf("got % x, want PUBCOMP", p)
			}
			if got := stored(t, l, route.DefaultTopic); len(got) != 1 {
				t.Errorf("%d records, want 1", len(got))
			}
		})
	}
}

func TestPacketIDReusedWithoutDupIsRefused(t *testing.T) {
	b := startBroker(t, Options{})
	w := dialWire(t, b).connect("reuse", 5, true)
	w.send(publishPacket(5, "a", 2, false, 9, []byte("one")))
	w.read()
	w.send(publishPacket(5, "a", 2, false, 9, []byte("another")))
	if p := w.read(); p[0] != typePubrec<<4 || len(p) < 5 || p[4] != reasonInUse {
		t.Errorf("got % x, want PUBREC with reason 0x91", p)
	}
}

func TestUnknownAliasEndsTheConnection(t *testing.T) {
	b := startBroker(t, Options{})
	w := dialWire(t, b).connect("alias", 5, true)
	alias := func(topic string) []byte {
		return packet(0x32, text(topic), []byte{0, 1, 3, 0x23, 0, 7}, []byte("x"))
	}
	w.send(alias("a/b"))
	w.read()
	w.send(alias(""))
	if p := w.read(); p[0] != typePuback<<4 {
		t.Fatalf("got % x", p)
	}
	if got := stored(t, b.opt.Log, route.DefaultTopic); len(got) != 2 || string(got[1].Key) != "a/b" {
		t.Errorf("the alias was not resolved: %v", got)
	}
	w = dialWire(t, b).connect("alias2", 5, true)
	w.send(alias(""))
	if p := w.read(); p[0] != typeDisconnect<<4 {
		t.Fatalf("got % x, want DISCONNECT", p)
	}
	w.ended()
}

func TestRefusedByTopicSize(t *testing.T) {
	small := func(l *log.Log) { createTopic(t, l, route.DefaultTopic, 1024) }
	t.Run("v5 by ack, in its turn", func(t *testing.T) {
		l := openLog(t, log.Options{})
		small(l)
		b := startBroker(t, Options{Log: l})
		w := dialWire(t, b).connect("v5", 5, true)
		w.send(append(append(append(
			publishPacket(5, "a", 1, false, 1, []byte("x")),
			publishPacket(5, "a", 1, false, 2, make([]byte, 2000))...),
			publishPacket(5, "a", 2, false, 3, make([]byte, 2000))...),
			publishPacket(5, "a", 1, false, 4, []byte("x"))...))
		for i, want := range [][]byte{{0x40, 1, 0}, {0x40, 2, 0x97}, {0x50, 3, 0x97}, {0x40, 4, 0}} {
			p := w.read()
			reason := byte(0)
			if len(p) > 4 {
				reason = p[4]
			}
			if p[0] != want[0] || p[3] != want[1] || reason != want[2] {
				t.Errorf("ack %d is % x, want % x", i, p, want)
			}
		}
		if s := b.Stats(); s.Refused["too_large"] != 2 || s.Stored != 2 {
			t.Errorf("stats: %+v", s)
		}
	})
	t.Run("v3 by disconnecting", func(t *testing.T) {
		l := openLog(t, log.Options{})
		small(l)
		b := startBroker(t, Options{Log: l})
		w := dialWire(t, b).connect("v3", 4, true)
		w.send(publishPacket(4, "a", 1, false, 2, make([]byte, 2000)))
		w.ended()
	})
	t.Run("QoS 0 by dropping", func(t *testing.T) {
		l := openLog(t, log.Options{})
		small(l)
		b := startBroker(t, Options{Log: l})
		w := dialWire(t, b).connect("q0", 4, true)
		w.send(append(publishPacket(4, "a", 0, false, 0, make([]byte, 2000)), publishPacket(4, "a", 1, false, 1, nil)...))
		if p := w.read(); p[0] != typePuback<<4 {
			t.Errorf("got % x", p)
		}
		if got := stored(t, l, route.DefaultTopic); len(got) != 1 {
			t.Errorf("%d records, want 1", len(got))
		}
	})
}

func TestWillsAreStored(t *testing.T) {
	l := openLog(t, log.Options{})
	b := startBroker(t, Options{Log: l})
	will := func(version byte, delay byte) []byte {
		parts := [][]byte{text("MQTT"), {version, 2 | 4 | 1<<3, 0, 0}}
		if version == 5 {
			parts = append(parts, []byte{0})
		}
		parts = append(parts, text("mortal"))
		if version == 5 {
			parts = append(parts, []byte{5, 0x18, 0, 0, 0, delay})
		}
		return packet(0x10, append(parts, text("wills/mortal"), text("gone"))...)
	}
	for i, p := range [][]byte{will(4, 0), will(5, 0), will(5, 60)} {
		w := dialWire(t, b)
		w.send(p)
		w.read()
		_ = w.Close()
		waitStats(t, b, "will", func(s Stats) bool { return s.Wills == int64(i+1) })
	}
	// A client that says goodbye leaves none.
	w := dialWire(t, b)
	w.send(will(4, 0))
	w.read()
	w.send([]byte{0xe0, 0})
	w.ended()
	w = dialWire(t, b).connect("last", 4, true)
	w.send(publishPacket(4, "x", 1, false, 1, nil))
	w.read()
	got := stored(t, l, route.DefaultTopic)
	if len(got) != 4 || string(got[2].Key) != "wills/mortal" || string(got[2].Value) != "gone" {
		t.Errorf("records: %v, want three wills and a publish", got)
	}
}

func TestSysAndDroppedTopicsAreNotStored(t *testing.T) {
	l := openLog(t, log.Options{})
	b := startBroker(t, Options{Log: l, Routes: compile(t, route.Rule{Match: "noise/#", Drop: true})})
	w := dialWire(t, b).connect("c", 4, true)
	w.send(publishPacket(4, "$SYS/broker/version", 0, false, 0, []byte("mine")))
	w.send(publishPacket(4, "noise/a", 1, false, 1, []byte("x")))
	if p := w.read(); p[0] != typePuback<<4 || p[3] != 1 {
		t.Errorf("a dropped publish is acknowledged all the same; got % x", p)
	}
	w.send(publishPacket(4, "signal", 1, false, 2, []byte("x")))
	w.read()
	if got := stored(t, l, route.DefaultTopic); len(got) != 1 || string(got[0].Key) != "signal" {
		t.Errorf("records: %v", got)
	}
	if s := b.Stats(); s.Dropped != 1 || s.Stored != 1 {
		t.Errorf("stats: %+v", s)
	}
}

func TestMalformedPayloadIsStoredAndCounted(t *testing.T) {
	l := openLog(t, log.Options{})
	b := startBroker(t, Options{Log: l, Routes: compile(t, route.Rule{Match: "#", Topic: "t", Payload: "json"})})
	w := dialWire(t, b).connect("c", 4, true)
	w.send(publishPacket(4, "a", 1, false, 1, []byte(`{"x":`)))
	w.read()
	got := stored(t, l, "t")
	if len(got) != 1 || string(got[0].Value) != `{"x":` {
		t.Fatalf("records: %v", got)
	}
	if v, ok := got[0].Header(route.HeaderPayloadError); !ok || len(v) == 0 {
		t.Errorf("no header payload.error: %v", got[0].Headers)
	}
	if s := b.Stats(); s.PayloadErrors != 1 {
		t.Errorf("stats: %+v", s)
	}
}

func TestConnectionsThatSayNothingEndWithTheBroker(t *testing.T) {
	b := startBroker(t, Options{})
	for range 3 {
		dialWire(t, b)
	}
	dialWire(t, b).send([]byte{0x10}) // half a CONNECT
	waitStats(t, b, "connections", func(s Stats) bool { return s.Connections == 4 })
	start := time.Now()
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if d := time.Since(start); d > 5*time.Second {
		t.Errorf("Close took %v", d)
	}
	if err := b.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
}

func TestSetRoutes(t *testing.T) {
	l := openLog(t, log.Options{})
	b := startBroker(t, Options{Log: l})
	w := dialWire(t, b).connect("c", 4, true)
	w.send(publishPacket(4, "a", 1, false, 1, nil))
	w.read()
	if err := b.SetRoutes(compile(t, route.Rule{Match: "a", Topic: "new"})); err != nil {
		t.Fatal(err)
	}
	w.send(publishPacket(4, "a", 1, false, 2, nil))
	w.read()
	if got := len(stored(t, l, "new")); got != 1 {
		t.Errorf("%d records by the new route, want 1", got)
	}
}
