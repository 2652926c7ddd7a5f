package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// cluster is three core nodes in processes of their own.
type cluster struct {
	nodes   []*hub
	clients []string
}

func startCluster(t *testing.T, extra string) *cluster {
	t.Helper()
	c := &cluster{}
	secret := writeFile(t, "secret", "e2e-cluster-secret\n")
	var routes []string
	for range 3 {
		routes = append(routes, fmt.Sprintf("127.0.0.1:%d", freePort(t)))
	}
	for i := range 3 {
		h := &hub{data: filepath.Join(t.TempDir(), "core"),
			kafka: fmt.Sprintf("127.0.0.1:%d", freePort(t)),
			http:  fmt.Sprintf("127.0.0.1:%d", freePort(t))}
		client := fmt.Sprintf("127.0.0.1:%d", freePort(t))
		cfg := fmt.Sprintf(`name: core-%d
role: core
data: %s
kafka: {listen: %q}
http: {listen: %q}
cluster: {name: core, listen: %q, clients: %q, routes: [%q, %q, %q], replicas: 3, secret: %s}
%s`, i+1, h.data, h.kafka, h.http, routes[i], client, routes[0], routes[1], routes[2], secret, extra)
		h.process = start(t, "hub", "run", "--config", writeFile(t, "hub.yaml", cfg))
		c.nodes = append(c.nodes, h)
		c.clients = append(c.clients, "nats://"+client)
	}
	for _, h := range c.nodes {
		h.ready(60 * time.Second)
	}
	return c
}

func (c *cluster) servers(except ...*hub) string {
	var s []string
	for _, h := range c.nodes {
		skip := false
		for _, e := range except {
			skip = skip || e == h
		}
		if !skip {
			s = append(s, h.kafka)
		}
	}
	return strings.Join(s, ",")
}

// startUplink starts an uplink from an edge hub to the cluster.
func startUplink(t *testing.T, e *hub, core []string, topics string) *process {
	t.Helper()
	q := make([]string, len(core))
	for i, s := range core {
		q[i] = fmt.Sprintf("%q", s)
	}
	cfg := fmt.Sprintf("hub: %s\ncore: [%s]\ntopics: %s\nhttp: {listen: \"127.0.0.1:%d\"}\n", e.kafka, strings.Join(q, ", "), topics, freePort(t))
	return start(t, "uplink", "run", "--config", writeFile(t, "uplink.yaml", cfg))
}

// leader is the node that leads a partition, by kcat's metadata.
func (c *cluster) leader(t *testing.T, topic string) *hub {
	t.Helper()
	for until := time.Now().Add(30 * time.Second); time.Now().Before(until); time.Sleep(200 * time.Millisecond) {
		out, _, err := try("", "kcat", "-b", c.servers(), "-L", "-J", "-t", topic)
		if err != nil {
			continue
		}
		var m struct {
			Brokers []struct {
				ID   int
				Name string
			}
			Topics []struct {
				Partitions []struct{ Partition, Leader int }
			}
		}
		if json.Unmarshal([]byte(out), &m) != nil || len(m.Topics) == 0 || len(m.Topics[0].Partitions) == 0 {
			continue
		}
		for _, b := range m.Brokers {
			if b.ID == m.Topics[0].Partitions[0].Leader {
				for _, h := range c.nodes {
					if h.kafka == b.Name {
						return h
					}
				}
			}
		}
	}
	t.Fatalf("no leader of %s/0 among %s", topic, c.servers())
	return nil
}

func TestKcatOnTheCore(t *testing.T) {
	c := startCluster(t, "topics: {events: {partitions: 2}}\n")
	for _, h := range c.nodes {
		if h != c.nodes[0] {
			run(t, "", "kcat", "-b", h.kafka, "-L", "-t", "events")
		}
	}
	testKcat(t, c.nodes[1].kafka, "events")
	// A node's own client reads through any node.
	if ls := consumeAll(t, c.nodes[2].kafka, "events"); len(ls) != 1000 {
		t.Errorf("%d records through node 3, want 1000", len(ls))
	}
}

// P3: every record of the edge's log is at the core once and in order per
// partition, whatever is killed or cut on the way.
func TestUplinkExactlyOnceThroughKills(t *testing.T) {
	c := startCluster(t, "")
	e := edge(t, "topics: {telemetry: {partitions: 2, retain_until: uplink}}\nroutes:\n  - {match: \"plant/{device}/t\", topic: telemetry, key: \"{device}\"}\n")
	var links []*link
	var core []string
	for _, addr := range c.clients {
		l := newLink(t, strings.TrimPrefix(addr, "nats://"))
		links = append(links, l)
		core = append(core, "nats://"+l.addr)
	}
	up := startUplink(t, e, core, "[{name: telemetry}]")

	stop := make(chan struct{})
	var wg sync.WaitGroup
	var mu sync.Mutex
	published := 0
	for d := range 4 {
		wg.Go(func() {
			for i := 0; ; {
				p, err := dialMQTT(e.mqtt, fmt.Sprintf("d%d", d), 30*time.Second)
				if err != nil {
					t.Error(err)
					return
				}
				go p.acks(1 << 30)
				for {
					select {
					case <-stop:
						// Let the last acks come in before the end.
						time.Sleep(500 * time.Millisecond)
						p.conn.Close()
						mu.Lock()
						published += i
						mu.Unlock()
						return
					case <-time.After(2 * time.Millisecond):
					}
					if p.publish(fmt.Sprintf("plant/d%d/t", d), i, fmt.Sprintf("d%d-%d", d, i)) != nil {
						break
					}
					i++
				}
			}
		})
	}
	wait := func(d time.Duration) { time.Sleep(d) }
	wait(2 * time.Second)
	up.kill()
	wait(500 * time.Millisecond)
	up.restart()
	wait(2 * time.Second)
	e.kill()
	wait(300 * time.Millisecond)
	e.restart()
	e.ready(30 * time.Second)
	wait(time.Second)
	lead := c.leader(t, "telemetry")
	lead.kill()
	wait(3 * time.Second)
	for _, l := range links {
		l.cut()
	}
	wait(2 * time.Second)
	for _, l := range links {
		l.mend()
	}
	wait(6 * time.Second)
	lead.restart()
	close(stop)
	wg.Wait()

	want := consumeAll(t, e.kafka, "telemetry")
	checkDense(t, want)
	var got []line
	for until := time.Now().Add(60 * time.Second); ; time.Sleep(500 * time.Millisecond) {
		out, _, err := try("", "hub", "consume", "telemetry", "--server", c.servers(), "--from", "start", "--json")
		if n := strings.Count(out, "\n"); err == nil && n >= len(want) {
			break
		} else if time.Now().After(until) {
			t.Fatalf("%d of %d records at the core: %v", n, len(want), err)
		}
	}
	got = consumeAll(t, c.servers(), "telemetry")
	checkDense(t, got)
	// One site, as many partitions as at the edge: partition e is partition e.
	byPartition := func(ls []line) map[int32][]line {
		m := map[int32][]line{}
		for _, l := range ls {
			m[l.Partition] = append(m[l.Partition], l)
		}
		return m
	}
	w, g := byPartition(want), byPartition(got)
	for p := range w {
		if len(w[p]) != len(g[p]) {
			t.Errorf("partition %d: %d at the edge, %d at the core", p, len(w[p]), len(g[p]))
			continue
		}
		for i := range w[p] {
			a, b := w[p][i], g[p][i]
			if *a.Value != *b.Value || *a.Key != *b.Key || a.Timestamp != b.Timestamp || string(a.Headers) != string(b.Headers) {
				t.Fatalf("partition %d offset %d: %+v at the edge, %+v at the core", p, i, a, b)
			}
		}
	}
	t.Logf("%d published, %d at the edge, %d at the core", published, len(want), len(got))
	lead.ready(90 * time.Second)
	up.term()
	e.term()
	for _, h := range c.nodes {
		h.term()
	}
}

// A core node whose directory was wiped rejoins under its old name.
func TestWipedCoreNodeRejoins(t *testing.T) {
	c := startCluster(t, "topics: {events: {}}\n")
	var in strings.Builder
	for i := range 500 {
		fmt.Fprintf(&in, "v%d\n", i)
	}
	run(t, in.String(), "hub", "produce", "events", "--server", c.nodes[0].kafka)
	n := c.nodes[2]
	n.kill()
	if err := os.RemoveAll(n.data); err != nil {
		t.Fatal(err)
	}
	n.restart()
	n.ready(90 * time.Second)
	// With another node gone the wiped one is needed for a majority.
	c.nodes[0].kill()
	for until := time.Now().Add(60 * time.Second); ; time.Sleep(time.Second) {
		out, errOut, err := try("", "hub", "consume", "events", "--server", c.servers(c.nodes[0]), "--from", "start", "--json")
		if n := strings.Count(out, "\n"); err == nil && n == 500 {
			break
		} else if time.Now().After(until) {
			t.Fatalf("%d of 500 records after the wipe: %v %s", n, err, errOut)
		}
	}
}

func TestHealthAnswersWithoutQuorum(t *testing.T) {
	c := startCluster(t, "")
	c.nodes[0].kill()
	c.nodes[1].kill()
	client := &http.Client{Timeout: 5 * time.Second}
	resp, err := client.Get("http://" + c.nodes[2].http + "/healthz")
	if err != nil {
		t.Fatalf("healthz without quorum: %v", err)
	}
	resp.Body.Close()
}
