package main

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"edgehub/internal/config"
	"edgehub/pkg/kafka"
	"edgehub/pkg/kafka/kafkatest"
	"edgehub/pkg/log/record"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		// The client of `status` keeps its connections for a while.
		goleak.IgnoreAnyFunction("net/http.(*persistConn).readLoop"), goleak.IgnoreAnyFunction("net/http.(*persistConn).writeLoop"))
}

// The agent stays small because it links no broker and no server.
func TestLinksNoServer(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	for dep := range strings.FieldsSeq(string(out)) {
		for _, banned := range []string{"github.com/nats-io/nats-server", "github.com/mochi-mqtt", "go.etcd.io/bbolt",
			"github.com/eclipse/paho", "edgehub/pkg/core", "edgehub/pkg/kafka", "edgehub/pkg/log/vfs"} {
			if strings.HasPrefix(dep, banned) {
				t.Errorf("cmd/uplink links %s", dep)
			}
		}
		if dep == "edgehub/pkg/log" {
			t.Errorf("cmd/uplink links %s", dep)
		}
	}
}

// A gateway's flash is small: at most 16 MB, stripped, on arm64.
func TestSize(t *testing.T) {
	bin := filepath.Join(t.TempDir(), "uplink")
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", bin, ".")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH=arm64")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	st, err := os.Stat(bin)
	if err != nil {
		t.Fatal(err)
	}
	if st.Size() > 16_000_000 {
		t.Errorf("uplink is %d bytes, at most 16 MB", st.Size())
	}
	t.Logf("uplink for arm64: %.1f MB", float64(st.Size())/1e6)
}

func TestExitCodes(t *testing.T) {
	free := freeAddr(t)
	good := []string{"--set", "core=[\"nats://127.0.0.1:1\"]", "--set", "topics=[telemetry]"}
	for _, c := range []struct {
		name string
		args []string
		code int
		want string // in what is written
	}{
		{"no command", nil, exitUsage, "no command"},
		{"unknown command", []string{"fly"}, exitUsage, "fly"},
		{"unknown flag", []string{"run", "--fast"}, exitUsage, "--fast"},
		{"an argument", append([]string{"run", "now"}, good...), exitUsage, "now"},
		{"help", []string{"--help"}, exitDone, "status"},
		{"no core", []string{"run", "--set", "topics=[telemetry]"}, exitUsage, "core"},
		{"unknown key", append([]string{"run", "--set", "hubb=x"}, good...), exitUsage, "hubb"},
		{"core in the clear", []string{"run", "--set", "core=[\"nats://core-1:4222\"]", "--set", "topics=[telemetry]"}, exitUsage, "core-1"},
		{"no such file", []string{"run", "--config", "/nothing/uplink.yaml"}, exitUsage, "/nothing/uplink.yaml"},
		{"no such credentials", append([]string{"run", "--set", "credentials=/nothing.creds"}, good...), exitFailed, "/nothing.creds"},
		{"status of nobody", []string{"status", "--addr", free}, exitFailed, free},
		{"status of nonsense", []string{"status", "--addr", "nonsense"}, exitUsage, "nonsense"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var out bytes.Buffer
			if code := execute(c.args, nil, &out, &out); code != c.code {
				t.Errorf("exit code %d, want %d: %s", code, c.code, out.String())
			}
			if !strings.Contains(out.String(), c.want) {
				t.Errorf("%q is not in %s", c.want, out.String())
			}
		})
	}
}

func freeAddr(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// A running uplink with a hub and no core: health, metrics, status, the end.
func TestRun(t *testing.T) {
	store := kafkatest.New()
	store.SetCluster(record.Cluster{ID: "press-line-7/00112233445566778899aabbccddeeff", Controller: kafkatest.Node,
		Brokers: []record.Broker{{ID: kafkatest.Node}}})
	for _, topic := range []string{record.EpochsTopic, "telemetry"} {
		if _, err := store.CreateTopic(t.Context(), topic, record.DefaultTopicConfig()); err != nil {
			t.Fatal(err)
		}
	}
	put := func(topic string, values ...string) {
		t.Helper()
		var b record.Builder
		for _, v := range values {
			b.Append(&record.Record{Timestamp: 1, Value: []byte(v)})
		}
		out := store.Append(t.Context(), []record.Append{{TopicPartition: record.TopicPartition{Topic: topic}, Batch: b.Build(nil, 0, 0, record.None)}})
		if out[0].Err != nil {
			t.Fatal(out[0].Err)
		}
	}
	epoch := record.EpochStart{ID: hex.EncodeToString(make([]byte, 16))}
	put(record.EpochsTopic, string(epoch.Encode()))
	put("telemetry", "a", "b", "c")
	hub, err := kafka.Listen(kafka.Options{Store: store, Listen: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	defer hub.Close()

	c, err := config.LoadUplink("", nil, []string{"hub=" + hub.Addr().String(), "core=[\"nats://" + freeAddr(t) + "\"]",
		"topics=[telemetry, later]", "http.listen=127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	started, ended := make(chan string, 1), make(chan error, 1)
	go func() {
		ended <- run(ctx, c, slog.New(slog.DiscardHandler), func(a net.Addr) { started <- a.String() })
	}()
	addr := <-started
	get := func(path string) (int, string) {
		t.Helper()
		resp, err := http.Get("http://" + addr + path)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		var b bytes.Buffer
		_, _ = b.ReadFrom(resp.Body)
		return resp.StatusCode, b.String()
	}
	var st status
	for begun := time.Now(); ; time.Sleep(20 * time.Millisecond) {
		var out bytes.Buffer
		if code := execute([]string{"status", "--json", "--addr", addr}, nil, &out, &out); code != exitDone {
			t.Fatalf("status: %d %s", code, out.String())
		}
		if err := json.Unmarshal(out.Bytes(), &st); err != nil {
			t.Fatalf("%v in %s", err, out.String())
		}
		if st.Stats.Backlog() == 3 {
			break
		}
		if time.Since(begun) > 10*time.Second {
			t.Fatalf("status %s", out.String())
		}
	}
	if st.Site != "press-line-7" || st.Ready || st.Problem == "" || st.Backlog != 3 || len(st.Missing) != 1 || !st.HubUp {
		t.Errorf("status %+v", st)
	}
	var text bytes.Buffer
	if code := execute([]string{"status", "--addr", addr}, nil, &text, &text); code != exitDone || !strings.Contains(text.String(), "press-line-7") ||
		!strings.Contains(text.String(), "3 records") || !strings.Contains(text.String(), "later") {
		t.Errorf("status: %d\n%s", code, text.String())
	}
	if code, body := get("/healthz"); code != 200 || !strings.Contains(body, `"ready":false`) {
		t.Errorf("healthz %d %s", code, body)
	}
	if code, body := get("/readyz"); code != 503 || !strings.Contains(body, "problem") {
		t.Errorf("readyz %d %s", code, body)
	}
	if code, body := get("/metrics"); code != 200 || !strings.Contains(body, `uplink_lane_backlog_records{partition="0",topic="telemetry"} 3`) ||
		!strings.Contains(body, "uplink_hub_up 1") || !strings.Contains(body, "uplink_link_up 0") {
		t.Errorf("metrics %d %s", code, body)
	}
	if code, _ := get("/nothing"); code != 404 {
		t.Errorf("nothing: %d", code)
	}
	// The address is taken: another one says so.
	c2 := *c
	c2.HTTP.Listen = addr
	if err := run(t.Context(), &c2, slog.New(slog.DiscardHandler), nil); err == nil || !strings.Contains(err.Error(), "http.listen") {
		t.Errorf("a second uplink: %v", err)
	}
	begun := time.Now()
	stop()
	if err := <-ended; err != nil && !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if took := time.Since(begun); took > 10*time.Second {
		t.Errorf("the end took %s", took)
	}
	http.DefaultClient.CloseIdleConnections()
}
