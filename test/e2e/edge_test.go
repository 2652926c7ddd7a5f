package e2e

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"
)

// P1, P2: whatever was acknowledged before kill -9 is read back after the
// restart, once, with dense offsets.
func TestEdgeKeepsAcknowledgedAcrossKill(t *testing.T) {
	const rounds, clients = 5, 4
	h := edge(t, "topics: {telemetry: {partitions: 3}}\nroutes:\n  - {match: \"plant/{device}/t\", topic: telemetry, key: \"{device}\"}\n")
	acked := map[string]bool{}
	sent := map[string]bool{}
	var mu sync.Mutex
	for round := range rounds {
		var wg sync.WaitGroup
		for c := range clients {
			p, err := dialMQTT(h.mqtt, fmt.Sprintf("dev-%d", c), 10*time.Second)
			if err != nil {
				t.Fatal(err)
			}
			wg.Go(func() {
				p.acks(1 << 30)
			})
			wg.Go(func() {
				for i := 0; ; i++ {
					body := fmt.Sprintf("%d-%d-%d", round, c, i)
					mu.Lock()
					sent[body] = true
					mu.Unlock()
					if p.publish(fmt.Sprintf("plant/d%d/t", c), i, body) != nil {
						break
					}
				}
				for _, n := range p.ackedNumbers() {
					mu.Lock()
					acked[fmt.Sprintf("%d-%d-%d", round, c, n)] = true
					mu.Unlock()
				}
			})
		}
		time.Sleep(time.Duration(200+rand.IntN(400)) * time.Millisecond)
		h.kill()
		wg.Wait()
		h.restart()
		h.ready(30 * time.Second)
	}
	ls := consumeAll(t, h.kafka, "telemetry")
	checkDense(t, ls)
	seen := map[string]int{}
	for _, l := range ls {
		seen[*l.Value]++
	}
	for b := range acked {
		if seen[b] != 1 {
			t.Errorf("%s was acknowledged and is there %d times", b, seen[b])
		}
	}
	for b, n := range seen {
		if n > 1 || !sent[b] {
			t.Errorf("%s is there %d times, sent: %v", b, n, sent[b])
		}
	}
	if len(acked) < 100 {
		t.Errorf("only %d acknowledged in %d rounds", len(acked), rounds)
	}
	t.Logf("%d acknowledged, %d stored, %d sent", len(acked), len(ls), len(sent))
	h.term()
	if out := run(t, "", "hub", "log", "verify", h.data); strings.Contains(out, "telemetry/") {
		t.Errorf("verify reports damage:\n%s", out)
	}
}

// P1 as the kernel sees it: the record is written to the journal, then
// fdatasync returns, then the PUBACK is written.
func TestSyncComesBeforePuback(t *testing.T) {
	h := edge(t, "log: {commit_interval: 0}\n")
	trace := filepath.Join(t.TempDir(), "trace")
	tr := start(t, "/usr/bin/strace", "-f", "-y", "-s", "16", "-x", "-e", "trace=write,pwrite64,pwritev,writev,fdatasync,fsync",
		"-o", trace, "-p", fmt.Sprint(h.cmd.Process.Pid))
	for until := time.Now().Add(10 * time.Second); !strings.Contains(tr.out.String(), "attached"); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(until) {
			t.Fatalf("strace did not attach: %s", tr.out)
		}
	}
	publishAll(t, h.mqtt, "strace", "a/b", []string{"one"})
	tr.cmd.Process.Signal(os.Interrupt)
	<-tr.done
	b, err := os.ReadFile(trace)
	if err != nil {
		t.Fatal(err)
	}
	// An entry of the journal begins with EHJE; the zero-fill of slots behind
	// the first goes on in the background and is not what is looked for.
	entry := regexp.MustCompile(`pwritev?(?:64)?\((\d+)<[^>]*/journal/[^>]*>, (?:\[\{iov_base=)?"\\x45\\x48\\x4a\\x45`)
	puback := regexp.MustCompile(`write\(\d+<.*"\\x40\\x02\\x00\\x01"`)
	var sync, resumed *regexp.Regexp
	state := "before the journal's write"
	for s := range strings.Lines(string(b)) {
		if m := entry.FindStringSubmatch(s); m != nil {
			sync = regexp.MustCompile(`^(\d+) +fdatasync\(` + m[1] + `<.*?(= 0)?$`)
			state, resumed = "before fdatasync", nil
		}
		if sync != nil && resumed == nil {
			if m := sync.FindStringSubmatch(strings.TrimSpace(s)); m != nil {
				if state = "before fdatasync returned"; m[2] != "" {
					state = ""
				}
				resumed = regexp.MustCompile(`^` + m[1] + ` +<\.\.\. fdatasync resumed>.*= 0`)
			}
		}
		if resumed != nil && resumed.MatchString(s) {
			state = ""
		}
		if puback.MatchString(s) {
			if state != "" {
				t.Fatalf("PUBACK was written %s\n%s", state, b)
			}
			return
		}
	}
	t.Fatalf("no PUBACK in the trace, which ends %s\n%s", state, b)
}

func TestMosquittoClients(t *testing.T) {
	h := edge(t, "")
	host, port := hostPort(h.mqtt)
	sub := start(t, "/usr/bin/mosquitto_sub", "-h", host, "-p", port, "-t", "plant/#", "-q", "1", "-C", "3", "-W", "20", "-F", "%t %p")
	time.Sleep(300 * time.Millisecond) // mosquitto_sub says nothing when subscribed
	for q, v := range []string{"311", "mqttv5", "mqttv311"} {
		if v == "311" {
			v = "mqttv31"
		}
		run(t, "", "mosquitto_pub", "-h", host, "-p", port, "-t", "plant/a", "-q", fmt.Sprint(q), "-m", fmt.Sprintf("m%d", q), "-V", v)
	}
	<-sub.done
	if got, want := sub.out.String(), "plant/a m0\nplant/a m1\nplant/a m2\n"; got != want {
		t.Errorf("mosquitto_sub got %q, want %q", got, want)
	}
	ls := consumeAll(t, h.kafka, "mqtt")
	if len(ls) != 3 || *ls[0].Value != "m0" || *ls[2].Value != "m2" || *ls[0].Key != "plant/a" {
		t.Errorf("log holds %d records: %+v", len(ls), ls)
	}
}

func hostPort(addr string) (string, string) {
	host, port, _ := strings.Cut(addr, ":")
	return host, port
}

func TestKcatOnTheEdge(t *testing.T) {
	h := edge(t, "topics: {events: {partitions: 2}}\n")
	testKcat(t, h.kafka, "events")
}

// testKcat walks kcat through a topic of two partitions: metadata, produce
// with every codec, consume, offsets by time.
func testKcat(t *testing.T, kafka, topic string) {
	t.Helper()
	if out := run(t, "", "kcat", "-b", kafka, "-L"); !strings.Contains(out, fmt.Sprintf("topic %q with 2 partitions", topic)) {
		t.Fatalf("kcat -L: %s", out)
	}
	want := map[string]bool{}
	for _, z := range []string{"none", "gzip", "snappy", "lz4", "zstd"} {
		var in strings.Builder
		for i := range 200 {
			fmt.Fprintf(&in, "k%d:%s-%d\n", i, z, i)
			want[fmt.Sprintf("k%d=%s-%d", i, z, i)] = true
		}
		run(t, in.String(), "kcat", "-b", kafka, "-P", "-t", topic, "-K:", "-z", z, "-X", "enable.idempotence=true")
	}
	out := run(t, "", "kcat", "-b", kafka, "-C", "-t", topic, "-o", "beginning", "-e", "-q", "-f", "%k=%s\n")
	got := map[string]int{}
	for s := range strings.Lines(out) {
		got[strings.TrimSpace(s)]++
	}
	for w := range want {
		if got[w] != 1 {
			t.Errorf("%s is there %d times", w, got[w])
		}
	}
	if len(got) != len(want) {
		t.Errorf("%d different records, want %d", len(got), len(want))
	}
	q := run(t, "", "kcat", "-b", kafka, "-Q", "-t", topic+":0:-2", "-t", topic+":1:-1")
	if !strings.Contains(q, topic+" [0] offset 0") {
		t.Errorf("kcat -Q: %s", q)
	}
}

func TestBadInputAtStart(t *testing.T) {
	h := edge(t, "")
	_, mqttPort := hostPort(h.mqtt)
	locked := filepath.Join(t.TempDir(), "file")
	os.WriteFile(locked, nil, 0o600)
	for _, c := range []struct {
		name string
		args []string
		code int
		want []string
	}{
		{"unknown key", []string{"run", "--config", writeFile(t, "a.yaml", "name: x\nmqtt:\n  lissten: 1\n")}, 2, []string{"a.yaml:3:3", "lissten", "listen"}},
		{"wrong unit", []string{"run", "--config", writeFile(t, "b.yaml", "topics:\n  a: {retention: {bytes: 2 GX}}\n")}, 2, []string{"b.yaml:2:", "GX"}},
		{"wide without authentication", []string{"run", "--set", "mqtt.listen=:1883"}, 2, []string{"allow_anonymous"}},
		{"no such file", []string{"run", "--config", "/nonexistent/hub.yaml"}, 2, []string{"/nonexistent/hub.yaml"}},
		{"data is a file", []string{"run", "--set", "data=" + locked}, 1, []string{locked}},
		{"data in use", []string{"run", "--set", "data=" + h.data, "--set", "mqtt.listen=127.0.0.1:0"}, 1, []string{h.data}},
		{"port in use", []string{"run", "--set", "data=" + t.TempDir(), "--set", "mqtt.listen=" + h.mqtt,
			"--set", "kafka.listen=127.0.0.1:0", "--set", "http.listen=127.0.0.1:0"}, 1, []string{mqttPort}},
		{"unknown command", []string{"rum"}, 2, []string{"rum"}},
		{"unknown flag", []string{"run", "--confg", "x"}, 2, []string{"confg"}},
		{"unknown topic", []string{"consume", "nosuch", "--server", h.kafka}, 1, []string{"nosuch"}},
		{"nobody there", []string{"topics", "list", "--server", "127.0.0.1:1"}, 1, []string{"127.0.0.1:1"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			out, errOut, err := try("", "hub", c.args...)
			code := 0
			if e, ok := err.(*exec.ExitError); ok {
				code = e.ExitCode()
			}
			if code != c.code {
				t.Errorf("exit %d, want %d\n%s%s", code, c.code, out, errOut)
			}
			for _, w := range c.want {
				if !strings.Contains(errOut, w) {
					t.Errorf("standard error lacks %q: %s", w, errOut)
				}
			}
			if strings.Contains(errOut, "goroutine ") {
				t.Errorf("panicked: %s", errOut)
			}
		})
	}
}

// Garbage on a port closes that connection; others notice nothing.
func TestGarbageOnEveryPort(t *testing.T) {
	h := edge(t, "")
	p, err := dialMQTT(h.mqtt, "bystander", 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer p.conn.Close()
	rng := rand.New(rand.NewPCG(1, 2))
	for _, addr := range []string{h.mqtt, h.kafka, h.http} {
		for range 30 {
			sendGarbage(t, addr, rng)
		}
	}
	if err := p.publish("still/here", 1, "x"); err != nil {
		t.Fatal(err)
	}
	p.conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, err := p.acks(1); err != nil {
		t.Errorf("the bystander was not acknowledged: %v", err)
	}
	if ls := consumeAll(t, h.kafka, "mqtt"); len(ls) != 1 {
		t.Errorf("%d records, want 1", len(ls))
	}
}
