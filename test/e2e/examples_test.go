package e2e

import (
	"encoding/json"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// examples starts a core, a gateway and an uplink from the configurations in
// deploy/, with nothing changed but paths and addresses, and the site enrolled
// as deploy/core/README.md says.
func examples(t *testing.T) (*cluster, *hub, *process) {
	t.Helper()
	const deploy = "../../deploy"
	dir := t.TempDir()
	secret := writeFile(t, "cluster.secret", "c2VjcmV0IG9mIHRoZSBjbHVzdGVy\n")
	sites, creds := filepath.Join(dir, "sites.yaml"), filepath.Join(dir, "press-line-7.creds")
	run(t, "", "hub", "enroll", "press-line-7", "--sites", sites, "--creds", creds)

	c := &cluster{}
	var routes []string
	for range 3 {
		routes = append(routes, fmt.Sprintf("127.0.0.1:%d", freePort(t)))
	}
	for i := range 3 {
		h := &hub{data: filepath.Join(dir, fmt.Sprintf("core-%d", i+1)),
			kafka: fmt.Sprintf("127.0.0.1:%d", freePort(t)),
			http:  fmt.Sprintf("127.0.0.1:%d", freePort(t))}
		client := fmt.Sprintf("127.0.0.1:%d", freePort(t))
		h.process = start(t, "hub", "run", "--config", fmt.Sprintf("%s/core/core-%d.yaml", deploy, i+1),
			"--set", "data="+h.data, "--set", "kafka.listen="+h.kafka, "--set", "kafka.advertise="+h.kafka, "--set", "http.listen="+h.http,
			"--set", "cluster.listen="+routes[i], "--set", "cluster.clients="+client, "--set", "cluster.secret="+secret, "--set", "cluster.sites="+sites,
			"--set", fmt.Sprintf("cluster.routes=[%q, %q, %q]", routes[0], routes[1], routes[2]))
		c.nodes = append(c.nodes, h)
		c.clients = append(c.clients, "nats://"+client)
	}
	for _, h := range c.nodes {
		h.ready(60 * time.Second)
	}
	e := &hub{data: filepath.Join(dir, "edge"),
		mqtt:  fmt.Sprintf("127.0.0.1:%d", freePort(t)),
		kafka: fmt.Sprintf("127.0.0.1:%d", freePort(t)),
		http:  fmt.Sprintf("127.0.0.1:%d", freePort(t))}
	e.process = start(t, "hub", "run", "--config", deploy+"/systemd/hub.yaml",
		"--set", "data="+e.data, "--set", "mqtt.listen="+e.mqtt, "--set", "kafka.listen="+e.kafka, "--set", "http.listen="+e.http)
	e.ready(30 * time.Second)
	up := start(t, "uplink", "run", "--config", deploy+"/core/uplink.yaml", "--set", "hub="+e.kafka, "--set", "credentials="+creds,
		"--set", fmt.Sprintf("core=[%q, %q, %q]", c.clients[0], c.clients[1], c.clients[2]),
		"--set", fmt.Sprintf("http.listen=127.0.0.1:%d", freePort(t)))
	return c, e, up
}

// 20,000 QoS 1 messages of 100 devices by mosquitto_pub; meanwhile the
// uplink, the hub and a core leader are killed and started again. kcat finds
// at the core what it finds at the edge, and every acknowledged message.
func TestHundredDevicesThroughKills(t *testing.T) {
	const devices, perDevice, chunk = 100, 200, 25
	c, e, up := examples(t)
	host, port := hostPort(e.mqtt)
	base := time.Now().Add(-24 * time.Hour).UnixMilli()
	var acked, tries atomic.Int64
	work := make(chan int, devices)
	for d := range devices {
		work <- d
	}
	close(work)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for d := range work {
				for from := 0; from < perDevice; from += chunk {
					var in strings.Builder
					for i := from; i < from+chunk; i++ {
						fmt.Fprintf(&in, `{"ts":%d,"temperature":%d.5,"n":%d}`+"\n", base+int64(i)*1000, 20+d%50, i)
					}
					// mosquitto_pub ends with 0 when all lines are acknowledged;
					// else the device sends the lines again.
					for until := time.Now().Add(60 * time.Second); ; time.Sleep(50 * time.Millisecond) {
						tries.Add(1)
						cmd := exec.Command("timeout", "10", "mosquitto_pub", "-h", host, "-p", port, "-q", "1", "-l",
							"-i", fmt.Sprintf("dev-%d", d), "-t", fmt.Sprintf("plant/l1/dev-%d/telemetry", d))
						cmd.Stdin = strings.NewReader(in.String())
						if cmd.Run() == nil {
							break
						}
						if time.Now().After(until) {
							t.Errorf("device %d: lines from %d on are not acknowledged within a minute", d, from)
							return
						}
					}
					acked.Add(chunk)
				}
			}
		})
	}
	killAt := func(n int64) {
		for acked.Load() < n && !t.Failed() {
			time.Sleep(5 * time.Millisecond)
		}
	}
	killAt(3000)
	up.kill()
	up.restart()
	killAt(8000)
	e.kill()
	e.restart()
	e.ready(30 * time.Second)
	killAt(13000)
	lead := c.leader(t, "telemetry")
	lead.kill()
	lead.restart()
	wg.Wait()
	if t.Failed() {
		return
	}
	lead.ready(60 * time.Second)

	read := func(brokers string) map[string][]string {
		out, errOut, err := try("", "kcat", "-b", brokers, "-C", "-t", "telemetry", "-o", "beginning", "-e", "-q", "-f", "%p %o %T %k %s\n")
		if err != nil {
			t.Logf("kcat: %v %s", err, errOut)
		}
		m := map[string][]string{}
		for s := range strings.Lines(out) {
			p, _, _ := strings.Cut(s, " ")
			m[p] = append(m[p], strings.TrimSpace(s))
		}
		return m
	}
	count := func(m map[string][]string) (n int) {
		for _, s := range m {
			n += len(s)
		}
		return n
	}
	want := read(e.kafka)
	var got map[string][]string
	for until := time.Now().Add(60 * time.Second); ; time.Sleep(500 * time.Millisecond) {
		if got = read(c.servers()); count(got) >= count(want) {
			break
		}
		if time.Now().After(until) {
			t.Fatalf("%d of %d records at the core", count(got), count(want))
		}
	}
	// One site with as many partitions: every edge offset is the core's, once.
	for p, w := range want {
		if g := strings.Join(got[p], "\n"); g != strings.Join(w, "\n") {
			t.Errorf("partition %s differs: %d records at the edge, %d at the core", p, len(w), len(got[p]))
		}
	}
	if count(got) != count(want) {
		t.Errorf("%d records at the core, %d at the edge", count(got), count(want))
	}
	// Every message is there, and first copies are in order per device.
	next := map[string]int{}
	for _, part := range got {
		for _, s := range part {
			f := strings.SplitN(s, " ", 5)
			var r struct{ N int }
			if err := json.Unmarshal([]byte(f[4]), &r); err != nil {
				t.Fatalf("%s: %v", s, err)
			}
			if r.N > next[f[3]] {
				t.Fatalf("%s: message %d before %d", f[3], r.N, next[f[3]])
			}
			if r.N == next[f[3]] {
				next[f[3]]++
			}
		}
	}
	for d := range devices {
		if n := next[fmt.Sprintf("dev-%d", d)]; n != perDevice {
			t.Errorf("device %d: %d of %d messages at the core", d, n, perDevice)
		}
	}
	t.Logf("%d acknowledged in %d runs of mosquitto_pub, %d at the edge, %d at the core", acked.Load(), tries.Load(), count(want), count(got))
}
