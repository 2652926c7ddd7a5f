package web

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func get(t *testing.T, s *Server, path string) (int, string, http.Header) {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 5 * time.Second}
	r, err := client.Get("http://" + s.Addr().String() + path)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return r.StatusCode, string(b), r.Header
}

func listen(t *testing.T, o Options) *Server {
	t.Helper()
	o.Listen = "127.0.0.1:0"
	s, err := Listen(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func TestHealthAndReady(t *testing.T) {
	now := Health{Status: OK}
	ready := Health{Status: Degraded, Problems: []string{"topic telemetry is missing"}}
	s := listen(t, Options{
		Health: func(context.Context) Health { return now },
		Ready:  func(context.Context) Health { return ready },
		Status: func(context.Context) any { return Status{Name: "a"} },
	})
	for _, c := range []struct {
		name, path string
		health     Health
		ready      Health
		code       int
		body       string
	}{
		{"healthy", "/healthz", Health{Status: OK}, ready, 200, `"problems": []`},
		{"degraded still serves", "/healthz", Health{Status: Degraded, Problems: []string{"disk nearly full"}}, ready, 200, "disk nearly full"},
		{"failing", "/healthz", Health{Status: Failing, Problems: []string{"log failed"}}, ready, 503, "log failed"},
		{"not ready", "/readyz", now, ready, 503, "telemetry is missing"},
		{"ready", "/readyz", now, Health{Status: OK}, 200, `"status": "ok"`},
		{"status", "/api/v1/status", now, ready, 200, `"name": "a"`},
		{"page", "/", now, ready, 200, "<title>hub"},
		{"nothing there", "/nothing", now, ready, 404, ""},
		{"no metrics", "/metrics", now, ready, 404, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			now, ready = c.health, c.ready
			code, body, _ := get(t, s, c.path)
			if code != c.code || !strings.Contains(body, c.body) {
				t.Errorf("%d %s", code, body)
			}
		})
	}
}

// /healthz answers although the hub's parts hang.
func TestHangingParts(t *testing.T) {
	release := make(chan struct{})
	s := listen(t, Options{
		Patience: 50 * time.Millisecond,
		Health:   func(context.Context) Health { <-release; return Health{} },
		Status:   func(context.Context) any { <-release; return nil },
	})
	defer close(release)
	if code, body, _ := get(t, s, "/healthz"); code != 503 || !json.Valid([]byte(body)) || !strings.Contains(body, "do not say") {
		t.Errorf("%d %s", code, body)
	}
	if code, _, _ := get(t, s, "/api/v1/status"); code != 503 {
		t.Errorf("status %d", code)
	}
}

// The page loads nothing from elsewhere.
func TestPageStandsAlone(t *testing.T) {
	s := listen(t, Options{})
	_, body, h := get(t, s, "/")
	for _, bad := range []string{"http://", "https://", "//cdn", "src=", "@import"} {
		if strings.Contains(body, bad) {
			t.Errorf("the page holds %q", bad)
		}
	}
	if !strings.Contains(h.Get("Content-Security-Policy"), "default-src 'none'") {
		t.Errorf("policy %q", h.Get("Content-Security-Policy"))
	}
}

func TestPortInUse(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	if _, err := Listen(Options{Listen: ln.Addr().String()}); err == nil || !strings.Contains(err.Error(), ln.Addr().String()) {
		t.Errorf("error %v does not name the address", err)
	}
}
