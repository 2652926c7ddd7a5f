package uplink

import (
	"encoding/json"
	"time"
)

// Stats is a snapshot of an Uplink.
type Stats struct {
	Site    string    `json:"site"` // "" until the hub has answered
	Log     string    `json:"log"`  // the hub's log id, 32 hex digits
	Core    string    `json:"core"` // the core's cluster id, "" until it has answered
	HubUp   bool      `json:"hubUp"`
	HubErr  string    `json:"hubError,omitempty"`
	Link    SinkStats `json:"link"`
	Missing []string  `json:"missing,omitempty"` // configured topics that the hub does not have

	Rate      int64 `json:"rateBytesPerSecond"`      // what the link takes, as measured
	InFlight  int64 `json:"inFlightBytes"`           // sent, not answered
	Bandwidth int64 `json:"bandwidthBytesPerSecond"` // configured, 0: no limit

	RecordsPerSecond float64 `json:"recordsPerSecond"` // that the core acknowledges, smoothed over some ten seconds

	Commits      int64 `json:"commits"`      // cursor commits that the hub acknowledged
	CommitErrors int64 `json:"commitErrors"` // those that failed (they are tried again)
	Reconnects   int64 `json:"reconnects"`   // links dropped because nothing was answered

	Lanes []LaneStats `json:"lanes"` // by priority, topic, partition
}

// Backlog is the number of records that the hub has and the core does not.
func (s *Stats) Backlog() int64 {
	var n int64
	for i := range s.Lanes {
		n += s.Lanes[i].Backlog
	}
	return n
}

// ETA is how long the backlog will take at the rate of the last seconds; 0
// without a backlog, negative if nothing moves.
func (s *Stats) ETA() time.Duration {
	n := s.Backlog()
	switch {
	case n == 0:
		return 0
	case s.RecordsPerSecond < 1:
		return -1
	}
	return time.Duration(float64(n) / s.RecordsPerSecond * float64(time.Second)).Round(time.Second)
}

// Ready is nil when hub and core answer and every configured topic is being
// forwarded.
func (s *Stats) Ready() error {
	switch {
	case !s.HubUp:
		return notReady("the hub does not answer: " + s.HubErr)
	case len(s.Missing) > 0:
		return notReady("the hub has no topic " + s.Missing[0])
	case !s.Link.Connected:
		return notReady("no connection to the core: " + s.Link.LastError)
	}
	for i := range s.Lanes {
		if l := &s.Lanes[i]; l.State != StateStreaming {
			return notReady(l.Topic + ": " + string(l.State) + ": " + l.LastError)
		}
	}
	return nil
}

type notReady string

func (e notReady) Error() string { return string(e) }

// State is what a lane does.
type State string

// States of a lane.
const (
	StateStarting  State = "starting"
	StateHub       State = "waiting for the hub"
	StateCore      State = "waiting for the core"
	StateStreaming State = "streaming"
	StateHalted    State = "halted" // the core refuses, or a batch is damaged: see LastError
)

// LaneStats is a snapshot of a lane. Counters begin at 0 with the process.
type LaneStats struct {
	Topic     string `json:"topic"`
	TopicID   string `json:"topicId"`
	Partition int32  `json:"partition"`
	Priority  int    `json:"priority"`
	State     State  `json:"state"`

	LogStart      int64 `json:"logStart"`      // of the hub, as last seen
	HighWatermark int64 `json:"highWatermark"` // of the hub, as last seen
	Acked         int64 `json:"acked"`         // the next offset that the core needs, -1: not known yet
	Committed     int64 `json:"committed"`     // the cursor in the hub, -1: none
	Backlog       int64 `json:"backlog"`       // records between Acked (else Committed) and HighWatermark

	Records    int64 `json:"records"`    // that the core acknowledged
	Bytes      int64 `json:"bytes"`      // of acknowledged messages
	Messages   int64 `json:"messages"`   // acknowledged
	Gaps       int64 `json:"gaps"`       // declared and acknowledged
	GapRecords int64 `json:"gapRecords"` // offsets in them
	Opens      int64 `json:"opens"`      // lanes opened
	Retries    int64 `json:"retries"`    // sessions that ended before their time
	Refused    int64 `json:"refused"`    // refusals by the core, and damaged batches

	RTT       Duration `json:"rttMs"` // of an Append, smoothed
	LastError string   `json:"lastError,omitempty"`
	LastAck   int64    `json:"lastAckMs"` // wall clock, ms since 1970, 0: none yet
}

// Duration is a time.Duration whose JSON is milliseconds.
type Duration time.Duration

// MarshalJSON implements json.Marshaler.
func (d Duration) MarshalJSON() ([]byte, error) {
	return json.Marshal(float64(time.Duration(d).Microseconds()) / 1000)
}

// UnmarshalJSON implements json.Unmarshaler.
func (d *Duration) UnmarshalJSON(b []byte) error {
	var ms float64
	if err := json.Unmarshal(b, &ms); err != nil {
		return err
	}
	*d = Duration(ms * float64(time.Millisecond))
	return nil
}
