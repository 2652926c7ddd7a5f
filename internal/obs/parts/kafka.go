package parts

import (
	"slices"
	"strconv"

	"edgehub/internal/obs"
	"edgehub/pkg/kafka"
)

// Kafka gives the metrics of the Kafka listener.
func Kafka(s *obs.Scrape, st kafka.Stats) {
	s.Gauge("hub_kafka_connections", "Open connections.", float64(st.Connections))
	s.Counter("hub_kafka_connections_total", "Connections accepted.", float64(st.ConnectionsTotal))
	for _, r := range st.Requests {
		s.Counter("hub_kafka_requests_total", "Requests by API.", float64(r.Requests), "api", r.Name)
		s.Counter("hub_kafka_request_seconds_total", "Time in handlers by API, waiting for data included.", r.Seconds, "api", r.Name)
	}
	codes := make([]int, 0, len(st.Errors))
	for c := range st.Errors {
		codes = append(codes, int(c))
	}
	slices.Sort(codes)
	for _, c := range codes {
		s.Counter("hub_kafka_errors_total", "Error codes answered.", float64(st.Errors[int16(c)]), "code", strconv.Itoa(c))
	}
	s.PerKey("hub_kafka_refused_total", "Connections closed for what they sent, by reason.", "reason", st.Refused)
	s.Counter("hub_kafka_received_bytes_total", "Bytes of requests.", float64(st.BytesIn))
	s.Counter("hub_kafka_sent_bytes_total", "Bytes of answers.", float64(st.BytesOut))
	s.Gauge("hub_kafka_frame_bytes", "Memory that large requests hold.", float64(st.FrameBytes))
	s.Counter("hub_kafka_produced_records_total", "Records produced.", float64(st.RecordsIn))
	s.Counter("hub_kafka_produced_batches_total", "Batches produced.", float64(st.BatchesIn))
	s.Counter("hub_kafka_panics_total", "Decoder panics caught; each one is a bug.", float64(st.Panics))
}
