package parts

import (
	"strconv"

	"edgehub/internal/obs"
	"edgehub/pkg/bridge/mqtt"
)

// MQTT gives the metrics of the broker.
func MQTT(s *obs.Scrape, st mqtt.Stats) {
	s.Gauge("hub_mqtt_connections", "Open connections.", float64(st.Connections))
	s.Counter("hub_mqtt_connections_total", "Connections accepted.", float64(st.ConnectionsTotal))
	s.Gauge("hub_mqtt_sessions", "Known clients, those that are away too.", float64(st.Sessions))
	s.Gauge("hub_mqtt_subscriptions", "Subscriptions.", float64(st.Subscriptions))
	s.Gauge("hub_mqtt_retained_messages", "Retained messages.", float64(st.Retained))
	for q, n := range st.Publishes {
		s.Counter("hub_mqtt_publishes_total", "Publishes received, by QoS.", float64(n), "qos", strconv.Itoa(q))
	}
	s.Counter("hub_mqtt_wills_total", "Wills stored.", float64(st.Wills))
	s.Counter("hub_mqtt_stored_records_total", "Messages stored in the log.", float64(st.Stored))
	s.Counter("hub_mqtt_stored_bytes_total", "Payload bytes stored in the log.", float64(st.StoredBytes))
	s.Counter("hub_mqtt_dropped_total", "Messages that a route drops.", float64(st.Dropped))
	s.Counter("hub_mqtt_payload_errors_total", "Messages stored with header payload.error.", float64(st.PayloadErrors))
	s.Counter("hub_mqtt_time_fixed_total", "Messages whose implausible time was replaced.", float64(st.TimeFixed))
	refused := make(map[string]uint64, len(st.Refused))
	for k, n := range st.Refused {
		refused[k] = uint64(n)
	}
	s.PerKey("hub_mqtt_refused_total", "Messages not stored, by reason.", "reason", refused)
	s.Gauge("hub_mqtt_held_acks", "Acknowledgements that wait for the disk or the device.", float64(st.HeldAcks))
	s.Counter("hub_mqtt_acks_total", "PUBACK and PUBREC sent.", float64(st.AcksSent))
	s.Counter("hub_mqtt_ack_writes_total", "Writes that acknowledgements took.", float64(st.AckWrites))
	s.Counter("hub_mqtt_delivered_total", "Publishes sent to subscribers.", float64(st.Delivered))
	s.Counter("hub_mqtt_undelivered_total", "Publishes dropped because a subscriber was slow.", float64(st.Undelivered))
	s.Counter("hub_mqtt_logins_refused_total", "CONNECTs of somebody unknown or not permitted.", float64(st.LoginsRefused))
	s.Counter("hub_mqtt_handshakes_failed_total", "Connections that ended before MQTT: no TLS, an unknown certificate, no WebSocket.", float64(st.HandshakesFailed))
	s.Counter("hub_mqtt_panics_total", "Connections that ended by a bug of the engine.", float64(st.Panics))
}
