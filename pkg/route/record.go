package route

import (
	"strings"
	"time"

	"edgehub/pkg/log/record"
)

// Names of the headers that a record from MQTT has besides its captures.
const (
	HeaderTopic        = "mqtt.topic"    // the MQTT topic
	HeaderSite         = "site"          // the hub's name
	HeaderPayloadError = "payload.error" // why the payload is not what its route wants
	HeaderTimeFixed    = "time.fixed"    // the implausible event time that ingest time replaces: in ms, or "unreadable"
)

// unreadable is the value of HeaderTimeFixed for a time that is there and
// cannot be read.
const unreadable = "unreadable"

// maxErrorHeader bounds the text of HeaderPayloadError, in bytes.
const maxErrorHeader = 120

// Earliest is the earliest plausible event time, in ms: 2000-01-02T00:00:00Z.
// A clock that starts at 1970 or 2000-01-01 has not been set.
const Earliest = 946771200000

// Latest is the latest event time that RFC 3339 can write, in ms.
const Latest = 253402300799999

// Outcome says what Record found.
type Outcome struct {
	PayloadError bool // the payload is malformed; the record says so and is stored as it came
	TimeFixed    bool // the event time was implausible and ingest time stands in its place
	EventTime    bool // the timestamp is the payload's own
}

// Record fills dst with what the message becomes. dst must be zero or filled
// by an earlier Record: its key and header values are buffers that are used
// again. Value is payload itself, not a copy. trusted says that ingest comes
// from a clock that is known to be set: only then can an event time be found
// to lie in the future.
func (t *Table) Record(m *Match, mqttTopic string, payload []byte, ingest time.Time, trusted bool, dst *record.Record) Outcome {
	var out Outcome
	r := m.rule
	dst.Offset = 0
	if dst.Key == nil {
		dst.Key = make([]byte, 0, 64) // an empty key is not Kafka's null
	}
	dst.Key = r.key.append(dst.Key[:0], m, mqttTopic)
	dst.Value = payload
	dst.Timestamp = ingest.UnixMilli()

	h := headers{dst.Headers[:0]}
	h.add(HeaderTopic, mqttTopic)
	if site := r.site; site != "" {
		h.add(HeaderSite, site)
	} else if t.site != "" {
		h.add(HeaderSite, t.site)
	}
	for i, name := range r.pattern.names {
		h.add(name, m.values[i])
	}
	if r.reader != nil {
		at, err := r.reader.read(payload)
		switch {
		case err != nil:
			out.PayloadError = true
			h.add(HeaderPayloadError, shorten(reason(err)))
		case at.bad:
			out.TimeFixed = true
			h.add(HeaderTimeFixed, unreadable)
		case at.ms == 0:
		case at.ms < Earliest, at.ms > Latest, trusted && at.ms > dst.Timestamp+r.maxFuture.Milliseconds():
			out.TimeFixed = true
			h.addInt(HeaderTimeFixed, at.ms)
		default:
			out.EventTime = true
			dst.Timestamp = at.ms
		}
	}
	dst.Headers = h.fields
	return out
}

// shorten makes an error's text fit for a header: one line of valid UTF-8.
func shorten(s string) string {
	if len(s) > maxErrorHeader {
		s = s[:maxErrorHeader]
	}
	s = strings.ToValidUTF8(s, "?")
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, s)
}
