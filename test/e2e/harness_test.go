// Package e2e runs the real binaries with real clients: mosquitto_pub, kcat,
// franz-go, raw sockets; and kills them for real.
package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// bin is the directory of the binaries that TestMain built.
var bin string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "e2e")
	if err != nil {
		panic(err)
	}
	bin = dir
	for _, c := range []string{"hub", "uplink"} {
		cmd := exec.Command("go", "build", "-o", filepath.Join(dir, c), "edgehub/cmd/"+c)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "build %s: %v\n%s", c, err, out)
			os.Exit(1)
		}
	}
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

// freePort is a loopback port that nobody listens on just now. It lies below
// the ephemeral range, so that no client connection takes it in between.
func freePort(t *testing.T) int {
	t.Helper()
	portMu.Lock()
	defer portMu.Unlock()
	for range 2000 {
		nextPort++
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", nextPort))
		if err == nil {
			l.Close()
			return nextPort
		}
	}
	t.Fatal("no free port")
	return 0
}

var (
	portMu   sync.Mutex
	nextPort = 12000 + os.Getpid()%4000
)

// process is a running binary whose output is kept.
type process struct {
	t    *testing.T
	name string
	args []string
	env  []string
	cmd  *exec.Cmd
	out  *buffer
	done chan struct{}
	err  error
}

// buffer is a bytes.Buffer for several writers and readers.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// start runs a binary; it is killed at the end of the test. Its output is
// logged if the test failed.
func start(t *testing.T, name string, args ...string) *process {
	t.Helper()
	p := &process{t: t, name: name, args: args, out: &buffer{}}
	p.start()
	t.Cleanup(func() {
		p.kill()
		if t.Failed() {
			s := p.out.String()
			if len(s) > 8000 {
				s = s[:2000] + "\n...\n" + s[len(s)-6000:]
			}
			t.Logf("output of %s %s:\n%s", name, strings.Join(args, " "), s)
		}
	})
	return p
}

func (p *process) start() {
	p.t.Helper()
	path := p.name
	if !strings.Contains(path, "/") && (path == "hub" || path == "uplink") {
		path = filepath.Join(bin, path)
	}
	cmd := exec.Command(path, p.args...)
	cmd.Env = append(os.Environ(), p.env...)
	cmd.Stdout, cmd.Stderr = p.out, p.out
	if err := cmd.Start(); err != nil {
		p.t.Fatalf("start %s: %v", p.name, err)
	}
	done := make(chan struct{})
	p.cmd, p.done = cmd, done
	go func() {
		p.err = cmd.Wait()
		close(done)
	}()
}

func (p *process) kill() {
	if err := p.cmd.Process.Signal(syscall.SIGKILL); err == nil {
		<-p.done
	}
}

// term sends SIGTERM and demands a clean end within 20 s (contract).
func (p *process) term() {
	p.t.Helper()
	p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
		if p.err != nil {
			p.t.Errorf("%s ended with %v after SIGTERM", p.name, p.err)
		}
	case <-time.After(20 * time.Second):
		p.t.Errorf("%s did not end within 20 s of SIGTERM", p.name)
		p.kill()
	}
}

func (p *process) restart() {
	p.t.Helper()
	p.start()
}

// hub is a running hub with its addresses.
type hub struct {
	*process
	data              string
	mqtt, kafka, http string
}

// edge starts an edge hub on ports of its own. extra is YAML added to its
// configuration.
func edge(t *testing.T, extra string) *hub {
	t.Helper()
	return edgeOn(t, t.TempDir(), extra)
}

func edgeOn(t *testing.T, data, extra string) *hub {
	t.Helper()
	h := &hub{data: data,
		mqtt:  fmt.Sprintf("127.0.0.1:%d", freePort(t)),
		kafka: fmt.Sprintf("127.0.0.1:%d", freePort(t)),
		http:  fmt.Sprintf("127.0.0.1:%d", freePort(t))}
	cfg := fmt.Sprintf("name: site-1\ndata: %s\nmqtt: {listen: %q}\nkafka: {listen: %q}\nhttp: {listen: %q}\n%s",
		data, h.mqtt, h.kafka, h.http, extra)
	h.process = start(t, "hub", "run", "--config", writeFile(t, "hub.yaml", cfg))
	h.ready(30 * time.Second)
	return h
}

func writeFile(t *testing.T, name, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// ready waits until /readyz is 200.
func (h *hub) ready(within time.Duration) {
	h.t.Helper()
	until := time.Now().Add(within)
	last := "no answer"
	for time.Now().Before(until) {
		select {
		case <-h.done:
			h.t.Fatalf("hub ended before it was ready: %v\n%s", h.err, h.out)
		default:
		}
		resp, err := http.Get("http://" + h.http + "/readyz")
		if err == nil {
			body, _ := io.ReadAll(resp.Body)
			resp.Body.Close()
			if resp.StatusCode == 200 {
				return
			}
			last = string(body)
		}
		time.Sleep(20 * time.Millisecond)
	}
	h.t.Fatalf("not ready within %v: %s", within, last)
}

// run runs a command to its end and returns its standard output.
func run(t *testing.T, stdin string, name string, args ...string) string {
	t.Helper()
	out, errOut, err := try(stdin, name, args...)
	if err != nil {
		t.Fatalf("%s %s: %v\n%s%s", name, strings.Join(args, " "), err, out, errOut)
	}
	return out
}

func try(stdin, name string, args ...string) (stdout, stderr string, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	if name == "hub" || name == "uplink" {
		name = filepath.Join(bin, name)
	}
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stdin = strings.NewReader(stdin)
	var o, e bytes.Buffer
	cmd.Stdout, cmd.Stderr = &o, &e
	err = cmd.Run()
	return o.String(), e.String(), err
}

// line is one line of `hub consume --json`.
type line struct {
	Topic     string          `json:"topic"`
	Partition int32           `json:"partition"`
	Offset    int64           `json:"offset"`
	Timestamp int64           `json:"timestamp"`
	Key       *string         `json:"key"`
	Value     *string         `json:"value"`
	Headers   json.RawMessage `json:"headers"`
}

// consumeAll reads a topic to its end through the hub's own client.
func consumeAll(t *testing.T, kafka, topic string) []line {
	t.Helper()
	out := run(t, "", "hub", "consume", topic, "--server", kafka, "--from", "start", "--json")
	var ls []line
	for s := range strings.Lines(out) {
		var l line
		if err := json.Unmarshal([]byte(s), &l); err != nil {
			t.Fatalf("consume printed %q: %v", s, err)
		}
		ls = append(ls, l)
	}
	return ls
}

// checkDense fails unless the offsets of every partition are 0,1,2,... in the
// order read.
func checkDense(t *testing.T, ls []line) {
	t.Helper()
	next := map[int32]int64{}
	for _, l := range ls {
		if l.Offset != next[l.Partition] {
			t.Fatalf("partition %d: offset %d where %d was next", l.Partition, l.Offset, next[l.Partition])
		}
		next[l.Partition]++
	}
}
