package kafka

import (
	"sync/atomic"
	"time"
)

// Refusal is why a frame was refused, which closes its connection.
type Refusal uint8

// Refusals.
const (
	RefusedTooLarge    Refusal = iota // announced length above the cap
	RefusedMalformed                  // length, header or body makes no sense
	RefusedUnknownKey                 // an API key that is not served
	RefusedVersion                    // a version that is not served
	RefusedSlow                       // began and did not end in time
	RefusedBusy                       // no memory came free for it in time
	RefusedConnections                // too many connections; no frame was read
	refusals
)

var refusalNames = [refusals]string{"too_large", "malformed", "unknown_key", "unsupported_version", "slow", "busy", "connections"}

func (r Refusal) String() string { return refusalNames[r] }

// RequestStats counts the requests of one API key.
type RequestStats struct {
	Key      int16
	Name     string
	Requests uint64
	Seconds  float64 // in the handlers, long polls included
}

// Stats is a snapshot of a server's counters. They only grow, except where
// said.
type Stats struct {
	Connections      int64 // gauge: open now
	ConnectionsTotal uint64
	Requests         []RequestStats   // every key that is served, in order
	Errors           map[int16]uint64 // error codes answered, by code; absent: none
	Refused          map[string]uint64
	BytesIn          uint64 // frames, lengths included
	BytesOut         uint64
	FrameBytes       int64 // gauge: memory that large frames hold
	RecordsIn        uint64
	BatchesIn        uint64
	Panics           uint64 // of decoders: each one is a bug, its connection was closed
}

const maxCode = 128

type counters struct {
	connections      atomic.Int64
	connectionsTotal atomic.Uint64
	requests         [maxKey + 1]atomic.Uint64
	nanos            [maxKey + 1]atomic.Int64
	codes            [maxCode + 1]atomic.Uint64 // code+1
	refused          [refusals]atomic.Uint64
	bytesIn          atomic.Uint64
	bytesOut         atomic.Uint64
	recordsIn        atomic.Uint64
	batchesIn        atomic.Uint64
	panics           atomic.Uint64
}

func (c *counters) failed(code int16) {
	if code >= -1 && code < maxCode {
		c.codes[code+1].Add(1)
	}
}

// Stats may be called at any time, also after Close.
func (s *Server) Stats() Stats {
	c := &s.stats
	st := Stats{
		Connections:      c.connections.Load(),
		ConnectionsTotal: c.connectionsTotal.Load(),
		Errors:           map[int16]uint64{},
		Refused:          map[string]uint64{},
		BytesIn:          c.bytesIn.Load(),
		BytesOut:         c.bytesOut.Load(),
		FrameBytes:       s.frames.held(),
		RecordsIn:        c.recordsIn.Load(),
		BatchesIn:        c.batchesIn.Load(),
		Panics:           c.panics.Load(),
	}
	for i := range s.apis {
		a := &s.apis[i]
		st.Requests = append(st.Requests, RequestStats{
			Key: a.key, Name: a.name,
			Requests: c.requests[a.key].Load(),
			Seconds:  time.Duration(c.nanos[a.key].Load()).Seconds(),
		})
	}
	for i := range c.codes {
		if n := c.codes[i].Load(); n > 0 {
			st.Errors[int16(i-1)] = n
		}
	}
	for i := range c.refused {
		st.Refused[Refusal(i).String()] = c.refused[i].Load()
	}
	return st
}
