package obs

import (
	"bytes"
	"log/slog"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func scrapeText(t *testing.T, m *Metrics) string {
	t.Helper()
	w := httptest.NewRecorder()
	m.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	if w.Code != 200 {
		t.Fatalf("status %d: %s", w.Code, w.Body)
	}
	return w.Body.String()
}

func TestSamples(t *testing.T) {
	m := NewMetrics("hub", "v1")
	m.Add(func(s *Scrape) {
		s.Counter("hub_apples_total", "A.", 3, "topic", "x\xff")
		s.Flag("hub_pear", "B.", true)
		s.Histogram("hub_wait_seconds", "C.", []float64{0.1, 1}, []uint64{2, 3, 4}, 12.5)
		s.PerKey("hub_plums_total", "D.", "reason", map[string]uint64{"b": 2, "a": 1})
	})
	text := scrapeText(t, m)
	for _, want := range []string{
		`hub_build_info{version="v1"} 1`,
		"hub_apples_total{topic=\"x\uFFFD\"} 3",
		"hub_pear 1",
		`hub_wait_seconds_bucket{le="0.1"} 2`,
		`hub_wait_seconds_bucket{le="1"} 5`,
		`hub_wait_seconds_bucket{le="+Inf"} 9`,
		"hub_wait_seconds_sum 12.5",
		"hub_wait_seconds_count 9",
		"hub_plums_total{reason=\"a\"} 1\nhub_plums_total{reason=\"b\"} 2",
		"go_goroutines ",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	problems, err := promlint.New(strings.NewReader(text)).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}

func TestLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b bytes.Buffer
		logger := slog.New(Limit(slog.NewTextHandler(&b, nil), 2, time.Second)).With("part", "x")
		for range 5 {
			logger.Warn("again")
		}
		logger.Info("other")
		time.Sleep(time.Second)
		logger.Warn("again")
		lines := strings.Split(strings.TrimSpace(b.String()), "\n")
		if len(lines) != 4 || !strings.Contains(lines[3], "suppressed=3") || !strings.Contains(lines[3], "part=x") {
			t.Errorf("got\n%s", b.String())
		}
	})
}

func TestLevels(t *testing.T) {
	var b bytes.Buffer
	logger, err := NewLogger(&b, "warn")
	if err != nil {
		t.Fatal(err)
	}
	logger.Info("no")
	logger.Error("yes")
	if got := b.String(); strings.Contains(got, "no") || !strings.Contains(got, "yes") {
		t.Errorf("got %s", got)
	}
	if _, err := NewLogger(&b, "loud"); err == nil || !strings.Contains(err.Error(), "debug, info") {
		t.Errorf("got %v", err)
	}
}
