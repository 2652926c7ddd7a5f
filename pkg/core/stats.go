package core

import (
	"sync/atomic"
	"time"
)

// counters are what the parts of a Core count.
type counters struct {
	frames, frameBytes, acks   atomic.Int64
	ackNanos                   atomic.Int64
	conflicts, voids, retries  atomic.Int64
	elections, quarantines     atomic.Int64
	damaged                    atomic.Int64
	forwarded, mismatches      atomic.Int64
	refused                    atomic.Int64
	produced                   atomic.Int64
	retained                   atomic.Int64
	ledgerLines, ledgerRecords atomic.Int64
	compacted                  atomic.Int64
	offsetWrites               atomic.Int64
}

func (c *counters) observeAck(d time.Duration) {
	c.acks.Add(1)
	c.ackNanos.Add(int64(d))
}

// Stats is a snapshot of a core node. Counters count from its start.
type Stats struct {
	Ready         bool
	Node          int32 // Kafka node id, 0: not known yet
	Topics        int
	Led           int // partitions that this node leads and serves
	Quarantined   int // partitions that this node refuses to serve (see Ready)
	Lanes         int // open lanes of uplinks
	LaneWindow    int64
	QueuedBytes   int64 // waiting for frames
	CacheBytes    int64
	CacheHits     int64
	CacheMisses   int64
	Frames        int64 // stored and acked, keyframes included
	FrameBytes    int64
	AckSeconds    float64 // sum of frames' ack times
	Conflicts     int64   // frames not acked as sent: the tail was read
	Voids         int64   // frames stored at a place that was not theirs: no reader believes them
	Retries       int64
	Elections     int64 // partitions taken over
	Quarantines   int64
	Damaged       int64 // frames that one replica had damaged and the leader had whole, or not
	Produced      int64 // batches of Kafka producers
	Forwarded     int64 // batches of uplinks
	Mismatches    int64 // appends that did not continue their mark
	Refused       int64 // malformed or foreign messages of uplinks
	Retained      int64 // offsets removed by retention
	LedgerLines   int64
	LedgerRecords int64 // offsets in them
	Compacted     int64 // offsets that edges declared compacted
	OffsetWrites  int64 // of group offsets
	// Partitions are those that this node leads.
	Partitions []PartitionStats
}

// PartitionStats is a partition at its leader.
type PartitionStats struct {
	Topic     string
	Partition int32
	Epoch     int32
	LogStart  int64
	Next      int64
	Bytes     int64 // of live batches
}

// Stats is a snapshot.
func (c *Core) Stats() Stats {
	s := &c.stats
	out := Stats{
		Ready: c.Ready() == nil, Node: c.nodeID.Load(),
		Frames: s.frames.Load(), FrameBytes: s.frameBytes.Load(), AckSeconds: time.Duration(s.ackNanos.Load()).Seconds(),
		Conflicts: s.conflicts.Load(), Voids: s.voids.Load(), Retries: s.retries.Load(),
		Elections: s.elections.Load(), Quarantines: s.quarantines.Load(), Damaged: s.damaged.Load(),
		Produced: s.produced.Load(), Forwarded: s.forwarded.Load(), Mismatches: s.mismatches.Load(),
		Refused: s.refused.Load(), Retained: s.retained.Load(),
		LedgerLines: s.ledgerLines.Load(), LedgerRecords: s.ledgerRecords.Load(), Compacted: s.compacted.Load(),
		OffsetWrites: s.offsetWrites.Load(),
	}
	out.Lanes, out.LaneWindow = c.lanes.stats()
	out.CacheBytes, out.CacheHits, out.CacheMisses = c.cache.stats()
	c.mu.Lock()
	out.Topics = len(c.topics)
	c.mu.Unlock()
	for _, p := range c.partitions() {
		p.mu.Lock()
		out.QueuedBytes += p.queued
		if p.sick != nil {
			out.Quarantined++
		}
		if p.serving {
			out.Led++
			out.Partitions = append(out.Partitions, PartitionStats{Topic: p.name, Partition: p.num, Epoch: p.epoch,
				LogStart: p.logStart, Next: p.high, Bytes: p.bytes - p.bytesAt})
		}
		p.mu.Unlock()
	}
	return out
}
