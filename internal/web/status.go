package web

import "time"

// Status is the answer of /api/v1/status, version 1: members are added, never
// renamed or removed.
type Status struct {
	Name      string            `json:"name"`
	Role      string            `json:"role"` // edge or core
	Version   string            `json:"version"`
	Started   time.Time         `json:"started"`
	Ready     bool              `json:"ready"`
	Problems  []string          `json:"problems"`  // what is wrong; empty if nothing is
	Listeners map[string]string `json:"listeners"` // part → address
	Data      string            `json:"data"`
	Clock     string            `json:"clock,omitempty"` // trusted or untrusted
	Topics    []Topic           `json:"topics"`
	Log       *Log              `json:"log,omitempty"`
	MQTT      *MQTT             `json:"mqtt,omitempty"`
	Kafka     *Kafka            `json:"kafka,omitempty"`
	Processes []Process         `json:"processes,omitempty"`
	Core      *Core             `json:"core,omitempty"`
}

// Topic is a topic and where its partitions stand.
type Topic struct {
	Name           string      `json:"name"`
	ID             string      `json:"id"` // 32 hex digits
	Internal       bool        `json:"internal,omitempty"`
	Durability     string      `json:"durability"`
	Priority       string      `json:"priority"`
	Compression    string      `json:"compression"`
	RetentionMS    int64       `json:"retention_ms"`    // -1: no limit
	RetentionBytes int64       `json:"retention_bytes"` // -1: no limit
	RetainUntil    string      `json:"retain_until,omitempty"`
	Partitions     []Partition `json:"partitions"`
}

// Partition is one partition's range [start, end).
type Partition struct {
	Partition int32 `json:"partition"`
	Start     int64 `json:"start"`
	End       int64 `json:"end"`
	Leader    int32 `json:"leader"`          // -1: nobody
	Bytes     int64 `json:"bytes,omitempty"` // stored, where known
}

// Log is how the log of an edge hub does.
type Log struct {
	Epoch              int32    `json:"epoch"`
	Failed             bool     `json:"failed"`
	Commits            uint64   `json:"commits"`
	Records            uint64   `json:"records"`
	CommitMeanMS       float64  `json:"commit_mean_ms"`
	CommittedBytes     uint64   `json:"committed_bytes"`
	DeviceBytes        uint64   `json:"device_bytes"` // written to journal and segments
	PendingBytes       int64    `json:"pending_bytes"`
	HeadBytes          int64    `json:"head_bytes"`
	Torn               bool     `json:"torn"` // an incomplete last entry was cut at start
	QuarantinedRecords uint64   `json:"quarantined_records"`
	Damages            []string `json:"damages,omitempty"`
}

// MQTT is how the broker does.
type MQTT struct {
	Connections   int64  `json:"connections"`
	Published     uint64 `json:"published"`      // messages taken into the log
	Acked         uint64 `json:"acked"`          // of them acknowledged
	Refused       uint64 `json:"refused"`        // messages or connections refused
	PayloadErrors uint64 `json:"payload_errors"` // stored with header payload.error
	TimeFixed     uint64 `json:"time_fixed"`     // stored with header time.fixed
}

// Kafka is how the Kafka listener does.
type Kafka struct {
	Connections int64  `json:"connections"`
	Produced    uint64 `json:"produced"` // records
	Refused     uint64 `json:"refused"`
}

// Process is how one process does.
type Process struct {
	Name    string `json:"name"`
	From    string `json:"from"`
	To      string `json:"to"`
	Records uint64 `json:"records"` // read
	Open    int64  `json:"open"`    // windows
	Emitted uint64 `json:"emitted"` // results
	Late    uint64 `json:"late"`    // readings too late for any window
	Skipped uint64 `json:"skipped"` // records that did not decode or have no time
	Lag     int64  `json:"lag"`     // records not yet read
	Error   string `json:"error,omitempty"`
}

// Core is how a core node does.
type Core struct {
	Cluster string   `json:"cluster"`
	Node    string   `json:"node"`
	Ready   string   `json:"ready"` // "yes", or why not
	Leads   int      `json:"leads"` // partitions
	Sites   []string `json:"sites,omitempty"`
}

// Health is the answer of /healthz and /readyz.
type Health struct {
	Status   string   `json:"status"` // ok, degraded, failing
	Name     string   `json:"name,omitempty"`
	Version  string   `json:"version,omitempty"`
	Problems []string `json:"problems"`
}

// Values of Health.Status.
const (
	OK       = "ok"
	Degraded = "degraded" // it works, and somebody should look
	Failing  = "failing"  // it does not do its work
)
