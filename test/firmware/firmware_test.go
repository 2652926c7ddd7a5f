// Package firmware compiles the C publisher of firmware-examples and runs it
// against the real broker over connections that break.
package firmware

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"edgehub/pkg/bridge/mqtt"
	"edgehub/pkg/log"
	"edgehub/pkg/log/record"
	"edgehub/pkg/payload"
	"edgehub/pkg/route"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	patience = 60 * time.Second
	sources  = "../../firmware-examples/posix-c"
)

// build compiles the publisher with all warnings as errors.
func build(t *testing.T, flags ...string) string {
	t.Helper()
	out := filepath.Join(t.TempDir(), "publisher")
	args := append([]string{"-std=c99", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-Wconversion", "-Wshadow", "-o", out}, flags...)
	for _, f := range []string{"main.c", "mqtt.c", "cbor.c"} {
		args = append(args, filepath.Join(sources, f))
	}
	if msg, err := exec.Command("gcc", args...).CombinedOutput(); err != nil {
		t.Fatalf("gcc: %v\n%s", err, msg)
	}
	return out
}

// sanitized is build with the checks of undefined behaviour and memory.
func sanitized(t *testing.T) string {
	return build(t, "-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
}

func TestCompilesSmallAndWithoutWarnings(t *testing.T) {
	for _, opt := range []string{"-Os", "-O2", "-O0"} {
		build(t, opt)
	}
	// The parts for microcontrollers call nothing but these.
	obj := filepath.Join(t.TempDir(), "mqtt.o")
	for _, f := range []string{"mqtt.c", "cbor.c"} {
		if msg, err := exec.Command("gcc", "-std=c99", "-Os", "-fno-stack-protector", "-c", "-o", obj, filepath.Join(sources, f)).CombinedOutput(); err != nil {
			t.Fatalf("gcc: %v\n%s", err, msg)
		}
		msg, err := exec.Command("nm", "-u", obj).CombinedOutput()
		if err != nil {
			t.Fatalf("nm: %v\n%s", err, msg)
		}
		for _, name := range strings.Fields(string(msg)) {
			switch name {
			case "U", "memcpy", "memset", "memmove", "strlen", "_GLOBAL_OFFSET_TABLE_":
			default:
				t.Errorf("%s calls %s", f, name)
			}
		}
	}
}

type hub struct {
	log    *log.Log
	broker *mqtt.Broker
	routes *route.Table
}

func startHub(t *testing.T) *hub {
	t.Helper()
	l, err := log.Open(log.Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	routes, err := route.Compile([]route.Rule{{
		Match: "plant/{line}/{device}/telemetry", Topic: "telemetry", Key: "{device}", Payload: "cbor",
		Time: route.TimeRule{Field: "ts", Format: "unix_ms"},
	}})
	if err != nil {
		t.Fatal(err)
	}
	h := &hub{log: l, routes: routes}
	if err := h.listen("127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.broker.Close(); err != nil {
			t.Error(err)
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return h
}

func (h *hub) listen(address string) (err error) {
	h.broker, err = mqtt.Listen(mqtt.Options{Log: h.log, Plain: mqtt.Entrance{Listen: address, AllowAnonymous: true}, Routes: h.routes})
	return err
}

type reading struct {
	seq    int
	value  string
	record record.Record
}

// readings decodes what is in the log.
func (h *hub) readings(t *testing.T) []reading {
	t.Helper()
	p, err := h.log.Partition("telemetry", 0)
	if err != nil {
		t.Fatal(err)
	}
	d, err := payload.New(payload.CBOR, payload.Options{})
	if err != nil {
		t.Fatal(err)
	}
	var out []reading
	for at, end := p.Offsets().LogStart, p.Offsets().HighWatermark; at < end; {
		f, err := p.Fetch(at, 1<<20, nil)
		if err != nil {
			t.Fatal(err)
		}
		_, err = record.Batches(f.Batches, func(_ record.Header, raw []byte) error {
			return record.Records(raw, func(r *record.Record) error {
				if r.Offset < at {
					return nil
				}
				at = r.Offset + 1
				c := reading{record: record.Record{Offset: r.Offset, Timestamp: r.Timestamp, Key: bytes.Clone(r.Key)}}
				if v, bad := r.Header(route.HeaderPayloadError); bad {
					t.Errorf("offset %d: payload error %q in % x", r.Offset, v, r.Value)
				}
				return d.Decode(r.Value, func(rd *payload.Reading) error {
					seq, _ := rd.Fields.Get("seq").Int()
					c.seq = int(seq)
					v := rd.Fields.Get("value")
					if i, ok := v.Int(); ok {
						c.value = strconv.FormatInt(i, 10)
					} else if f, ok := v.Number(); ok {
						c.value = strconv.FormatFloat(f, 'g', -1, 64)
					}
					out = append(out, c)
					return nil
				})
			})
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return out
}

// run runs the publisher to its end.
func run(t *testing.T, program, address, stdin string, flags ...string) (published, acked, resent, reconnects int) {
	t.Helper()
	host, port, _ := net.SplitHostPort(address)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, append([]string{"-h", host, "-p", port, "-t", "plant/a/press-3/telemetry"}, flags...)...)
	cmd.Stdin = strings.NewReader(stdin)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("publisher: %v\n%s%s", err, out, &errs)
	}
	if _, err := fmt.Sscanf(string(out), "published %d acked %d resent %d reconnects %d", &published, &acked, &resent, &reconnects); err != nil {
		t.Fatalf("publisher said %q: %v", out, err)
	}
	return published, acked, resent, reconnects
}

// checkSequence checks that first copies are 0, 1, 2 … n-1 in order.
func checkSequence(t *testing.T, got []reading, n int) {
	t.Helper()
	next := 0
	for _, r := range got {
		if r.seq > next {
			t.Fatalf("offset %d: reading %d before reading %d", r.record.Offset, r.seq, next)
		}
		if r.seq == next {
			next++
		}
		if string(r.record.Key) != "press-3" {
			t.Fatalf("key %q", r.record.Key)
		}
		if age := time.Since(time.UnixMilli(r.record.Timestamp)); age < -time.Minute || age > 5*time.Minute {
			t.Fatalf("offset %d: event time is %v ago", r.record.Offset, age)
		}
	}
	if next != n {
		t.Fatalf("readings from %d on are missing (%d records)", next, len(got))
	}
}

func TestPublishesEveryReading(t *testing.T) {
	h := startHub(t)
	published, acked, resent, reconnects := run(t, sanitized(t), h.broker.Addr().String(), "", "-n", "500", "-w", "0")
	if published != 500 || acked != 500 || resent != 0 || reconnects != 0 {
		t.Errorf("published %d, acked %d, resent %d, reconnects %d", published, acked, resent, reconnects)
	}
	got := h.readings(t)
	if len(got) != 500 {
		t.Errorf("%d records", len(got))
	}
	checkSequence(t, got, 500)
}

// Connections are cut at random places, in both directions, and the broker is
// restarted in the middle: every reading is in the log.
func TestSurvivesCuts(t *testing.T) {
	h := startHub(t)
	address := h.broker.Addr().String()
	cut := startCutter(t, address)
	program := sanitized(t)
	var restart sync.WaitGroup
	restart.Go(func() {
		for h.broker.Stats().Stored < 500 {
			time.Sleep(time.Millisecond)
		}
		if err := h.broker.Close(); err != nil {
			t.Error(err)
		}
		if err := h.listen(address); err != nil {
			t.Error(err)
		}
	})
	const n = 1500
	published, acked, resent, reconnects := run(t, program, cut.address(), "", "-n", strconv.Itoa(n), "-w", "0", "-b", "10", "-i", "press-3")
	restart.Wait()
	if published != n || acked != n {
		t.Errorf("published %d, acked %d, want %d", published, acked, n)
	}
	if resent == 0 || reconnects < 5 {
		t.Errorf("resent %d over %d reconnects: the test cuts nothing", resent, reconnects)
	}
	got := h.readings(t)
	checkSequence(t, got, n)
	if more := len(got) - n; more > resent {
		t.Errorf("%d records more than readings, but only %d were sent again", more, resent)
	}
	t.Logf("%d records of %d readings, %d sent again, %d reconnects", len(got), n, resent, reconnects)
}

func TestValuesFromStandardInput(t *testing.T) {
	h := startHub(t)
	values := []string{"0", "-1", "1", "23", "24", "-24", "-25", "255", "256", "65535", "65536", "4294967295", "4294967296",
		strconv.FormatInt(math.MaxInt64, 10), strconv.FormatInt(math.MinInt64, 10), "1.5", "-0.25", "0.1", "21.37", "1e+300", "1e-07"}
	published, acked, _, _ := run(t, sanitized(t), h.broker.Addr().String(), "not a number\n"+strings.Join(values, "\n"), "-s", "-w", "0")
	if published != len(values) || acked != len(values) {
		t.Errorf("published %d, acked %d, want %d", published, acked, len(values))
	}
	var got []string
	for _, r := range h.readings(t) {
		got = append(got, r.value)
	}
	if strings.Join(got, " ") != strings.Join(values, " ") {
		t.Errorf("got  %v\nwant %v", got, values)
	}
}

func TestWrongUsage(t *testing.T) {
	program := build(t)
	for _, args := range [][]string{{"-x"}, {"-n", "many"}, {"-n", "-1"}, {"-k", "65536"}, {"stray"}, {"-i", ""}, {"-i", strings.Repeat("x", 65)}} {
		err := exec.Command(program, args...).Run()
		if e, ok := err.(*exec.ExitError); !ok || e.ExitCode() != 2 {
			t.Errorf("%q: %v, want exit code 2", args, err)
		}
	}
}

// TestBytesOnTheWire plays a broker that does not acknowledge and looks at
// what comes.
func TestBytesOnTheWire(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	host, port, _ := net.SplitHostPort(ln.Addr().String())
	cmd := exec.Command(sanitized(t), "-h", host, "-p", port, "-i", "wire", "-t", "t", "-n", "3", "-w", "0", "-k", "1", "-b", "1")
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	accept := func() (net.Conn, *bufio.Reader) {
		c, err := ln.Accept()
		if err != nil {
			t.Fatal(err)
		}
		_ = c.SetDeadline(time.Now().Add(patience))
		r := bufio.NewReader(c)
		want := "\x10\x10\x00\x04MQTT\x04\x00\x00\x01\x00\x04wire" // 3.1.1, clean session 0, keep-alive 1 s
		if got := next(t, r); got != want {
			t.Fatalf("CONNECT % x, want % x", got, want)
		}
		return c, r
	}
	expect := func(r *bufio.Reader, dup bool, id byte) {
		t.Helper()
		first := byte(0x32)
		if dup {
			first |= 8
		}
		if p := next(t, r); p[0] != first || p[2:7] != "\x00\x01t\x00"+string(id) {
			t.Fatalf("PUBLISH % x, want id %d, dup %v", p, id, dup)
		}
	}
	// The first broker acknowledges only the second, and before that ids that
	// were never sent.
	c, r := accept()
	_, _ = c.Write([]byte{0x20, 2, 0, 0})
	for id := range 3 {
		expect(r, false, byte(id+1))
	}
	_, _ = c.Write([]byte{0x40, 2, 0, 77, 0x40, 2, 0, 0, 0x40, 2, 0, 2})
	// It keeps the connection: a ping comes although acks are due? No: the
	// due acks are the sign of life that the client waits for. Then it goes.
	time.Sleep(50 * time.Millisecond)
	_ = c.Close()
	c, r = accept()
	// CONNACK byte by byte.
	for _, b := range []byte{0x20, 2, 1, 0} {
		_, _ = c.Write([]byte{b})
		time.Sleep(5 * time.Millisecond)
	}
	expect(r, true, 1)
	expect(r, true, 3)
	_, _ = c.Write([]byte{0x40, 2, 0, 1})
	_ = c.Close()
	c, r = accept()
	_, _ = c.Write([]byte{0x20, 2, 1, 0})
	expect(r, true, 3)
	_, _ = c.Write([]byte{0x40, 2, 0, 3})
	if p := next(t, r); p != "\xe0\x00" {
		t.Fatalf("got % x, want DISCONNECT", p)
	}
	_ = c.Close()
	said, _ := io.ReadAll(out)
	if err := cmd.Wait(); err != nil || string(said) != "published 3 acked 3 resent 3 reconnects 2\n" {
		t.Errorf("%v: %q", err, said)
	}
}

func TestPingsAndGivesUpOnASilentBroker(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	host, port, _ := net.SplitHostPort(ln.Addr().String())
	cmd := exec.Command(build(t, "-DMQTT_ANSWER_MS=1000u"), "-h", host, "-p", port, "-k", "1", "-b", "1", "-w", "100000")
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}()
	for range 2 {
		c, err := ln.Accept()
		if err != nil {
			t.Fatal(err)
		}
		_ = c.SetDeadline(time.Now().Add(patience))
		r := bufio.NewReader(c)
		next(t, r)
		_, _ = c.Write([]byte{0x20, 2, 0, 0})
		p := next(t, r)
		if p[0]>>4 == 3 { // the first connection has a reading, id 1
			_, _ = c.Write([]byte{0x40, 2, 0, 1})
			p = next(t, r)
		}
		if p != "\xc0\x00" {
			t.Fatalf("got % x, want PINGREQ", p)
		}
		// No answer: it closes and comes again.
		if _, err := r.ReadByte(); err != io.EOF {
			t.Fatalf("got %v, want the end of the connection", err)
		}
		_ = c.Close()
	}
}

// next reads a packet, whose length takes one byte.
func next(t *testing.T, r *bufio.Reader) string {
	t.Helper()
	head := make([]byte, 2)
	if _, err := io.ReadFull(r, head); err != nil {
		t.Fatalf("read a packet: %v", err)
	}
	body := make([]byte, head[1])
	if _, err := io.ReadFull(r, body); err != nil {
		t.Fatalf("read a packet: %v", err)
	}
	return string(head) + string(body)
}

// cutter passes connections on and cuts each after a random number of bytes.
type cutter struct {
	ln     net.Listener
	target string
	all    sync.WaitGroup
}

func startCutter(t *testing.T, target string) *cutter {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &cutter{ln: ln, target: target}
	c.all.Go(c.serve)
	t.Cleanup(func() {
		_ = ln.Close()
		c.all.Wait()
	})
	return c
}

func (c *cutter) address() string { return c.ln.Addr().String() }

func (c *cutter) serve() {
	for {
		device, err := c.ln.Accept()
		if err != nil {
			return
		}
		hub, err := net.Dial("tcp", c.target)
		if err != nil {
			_ = device.Close()
			continue
		}
		end := sync.OnceFunc(func() {
			_ = device.Close()
			_ = hub.Close()
		})
		c.all.Go(func() { defer end(); _, _ = io.CopyN(hub, device, 20+rand.Int64N(8000)) })
		c.all.Go(func() { defer end(); _, _ = io.CopyN(device, hub, 4+rand.Int64N(400)) })
	}
}
