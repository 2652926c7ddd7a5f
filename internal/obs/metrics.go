package obs

import (
	"fmt"
	"net/http"
	"sort"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Metrics collects from sources at each scrape. It is safe for concurrent
// use once all sources are added.
type Metrics struct {
	registry *prometheus.Registry
	sources  []func(*Scrape)
}

// NewMetrics has the Go runtime's and the process's metrics and one that
// names the program: <prefix>_build_info.
func NewMetrics(prefix, version string) *Metrics {
	m := &Metrics{registry: prometheus.NewRegistry()}
	m.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), m)
	m.Add(func(s *Scrape) {
		s.Gauge(prefix+"_build_info", "The running program; the value is always 1.", 1, "version", version)
	})
	return m
}

// Add registers a source, which is called at every scrape from the
// scraping goroutine.
func (m *Metrics) Add(source func(*Scrape)) { m.sources = append(m.sources, source) }

// Handler serves /metrics.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{MaxRequestsInFlight: 4, ErrorHandling: promhttp.ContinueOnError})
}

// Describe sends nothing: which series there are depends on the topics.
func (m *Metrics) Describe(chan<- *prometheus.Desc) {}

// Collect asks every source.
func (m *Metrics) Collect(ch chan<- prometheus.Metric) {
	s := &Scrape{ch: ch}
	for _, f := range m.sources {
		f(s)
	}
}

// Scrape takes the samples of one scrape.
type Scrape struct {
	ch chan<- prometheus.Metric
}

// Counter is a value that only grows. labels are name, value, name, value…
func (s *Scrape) Counter(name, help string, v float64, labels ...string) {
	s.put(prometheus.CounterValue, name, help, v, labels)
}

// Gauge is a value that goes up and down.
func (s *Scrape) Gauge(name, help string, v float64, labels ...string) {
	s.put(prometheus.GaugeValue, name, help, v, labels)
}

// Flag is a gauge of 0 or 1.
func (s *Scrape) Flag(name, help string, on bool, labels ...string) {
	v := 0.0
	if on {
		v = 1
	}
	s.Gauge(name, help, v, labels...)
}

// Histogram is a distribution. counts[i] are the values up to bounds[i] that
// no earlier bucket holds; a last count without a bound is of the rest.
func (s *Scrape) Histogram(name, help string, bounds []float64, counts []uint64, sum float64, labels ...string) {
	d, values := desc(name, help, labels)
	cumulative := make(map[float64]uint64, len(bounds))
	total := uint64(0)
	for i, n := range counts {
		total += n
		if i < len(bounds) {
			cumulative[bounds[i]] = total
		}
	}
	m, err := prometheus.NewConstHistogram(d, total, sum, cumulative, values...)
	s.send(d, m, err)
}

// PerKey is a counter for each key of counts, in order.
func (s *Scrape) PerKey(name, help, label string, counts map[string]uint64, labels ...string) {
	keys := make([]string, 0, len(counts))
	for k := range counts {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	for _, k := range keys {
		s.Counter(name, help, float64(counts[k]), append([]string{label, k}, labels...)...)
	}
}

func (s *Scrape) put(t prometheus.ValueType, name, help string, v float64, labels []string) {
	d, values := desc(name, help, labels)
	m, err := prometheus.NewConstMetric(d, t, v, values...)
	s.send(d, m, err)
}

func (s *Scrape) send(d *prometheus.Desc, m prometheus.Metric, err error) {
	if err != nil {
		m = prometheus.NewInvalidMetric(d, err)
	}
	s.ch <- m
}

func desc(name, help string, labels []string) (*prometheus.Desc, []string) {
	if len(labels)%2 != 0 {
		panic(fmt.Sprintf("obs: metric %s has a label without a value", name))
	}
	names, values := make([]string, 0, len(labels)/2), make([]string, 0, len(labels)/2)
	for i := 0; i < len(labels); i += 2 {
		names = append(names, labels[i])
		values = append(values, strings.ToValidUTF8(labels[i+1], "\uFFFD"))
	}
	return prometheus.NewDesc(name, help, names, nil), values
}
