package parts

import (
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"edgehub/internal/obs"
	"edgehub/pkg/bridge/mqtt"
	"edgehub/pkg/core"
	"edgehub/pkg/kafka"
	"edgehub/pkg/log"
	"edgehub/pkg/process"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// Every metric of every part has a good name, unit and help, and says what it
// was given.
func TestMetricsOfAllParts(t *testing.T) {
	m := obs.NewMetrics("hub", "v1")
	m.Add(func(s *obs.Scrape) {
		Log(s, log.Stats{Epoch: 3, CommittedRecords: 7,
			CommitLatency: log.Histogram{Bounds: []time.Duration{time.Millisecond}, Counts: []uint64{1, 2}, Sum: time.Second},
			Partitions:    []log.PartitionStats{{Topic: "a", Partition: 1, HighWatermark: 9}}})
		Kafka(s, kafka.Stats{Requests: []kafka.RequestStats{{Name: "Fetch", Requests: 2}},
			Errors: map[int16]uint64{3: 1}, Refused: map[string]uint64{"slow": 1}})
		MQTT(s, mqtt.Stats{Publishes: [3]int64{1, 2, 3}, Refused: map[string]int64{"storage": 1}})
		Process(s, process.Stats{Tasks: []process.TaskStats{{Process: "p", Partition: 2, State: "running", Lag: 4}}})
		Core(s, core.Stats{Ready: true, Partitions: []core.PartitionStats{{Topic: "a", Next: 5}}})
	})
	w := httptest.NewRecorder()
	m.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	text := w.Body.String()
	for _, want := range []string{
		"hub_log_epoch 3", "hub_log_records_total 7", `hub_log_commit_seconds_bucket{le="0.001"} 1`,
		`hub_log_partition_end_offset{partition="1",topic="a"} 9`,
		`hub_kafka_requests_total{api="Fetch"} 2`, `hub_kafka_errors_total{code="3"} 1`,
		`hub_mqtt_publishes_total{qos="2"} 3`, `hub_mqtt_refused_total{reason="storage"} 1`,
		`hub_process_lag_records{partition="2",process="p"} 4`, `hub_process_running{partition="2",process="p"} 1`,
		"hub_core_ready 1", `hub_core_partition_end_offset{partition="0",topic="a"} 5`,
	} {
		if !strings.Contains(text, want+"\n") {
			t.Errorf("no %q", want)
		}
	}
	problems, err := promlint.New(strings.NewReader(text)).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
	for line := range strings.Lines(text) {
		if name, ok := strings.CutPrefix(line, "# HELP "); ok && !strings.HasPrefix(name, "hub_") && !strings.HasPrefix(name, "go_") && !strings.HasPrefix(name, "process_") {
			t.Errorf("foreign name: %s", line)
		}
	}
}
