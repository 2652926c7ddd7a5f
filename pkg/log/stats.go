package log

import (
	"cmp"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"edgehub/pkg/log/record"
)

// commitBuckets are the upper bounds of Stats.CommitLatency, ascending.
var commitBuckets = [...]time.Duration{
	100 * time.Microsecond, 250 * time.Microsecond, 500 * time.Microsecond,
	time.Millisecond, 2500 * time.Microsecond, 5 * time.Millisecond,
	10 * time.Millisecond, 25 * time.Millisecond, 50 * time.Millisecond,
	100 * time.Millisecond, 250 * time.Millisecond, 500 * time.Millisecond,
	time.Second, 2500 * time.Millisecond,
}

// Histogram counts durations. Counts[i] are those of at most Bounds[i] that no
// earlier bucket holds; the last count, one more than bounds, is of the rest.
type Histogram struct {
	Bounds []time.Duration
	Counts []uint64
	Sum    time.Duration
}

// Count is the number of durations in all buckets.
func (h *Histogram) Count() uint64 {
	n := uint64(0)
	for _, c := range h.Counts {
		n += c
	}
	return n
}

// Stats is a snapshot of a log. Counters count since Open.
type Stats struct {
	Epoch  int32 // of this Open
	Failed bool  // poisoned: nothing is acknowledged any more

	Commits          uint64    // journal entries with records or control sections
	CommitLatency    Histogram // write and sync of an entry
	CommittedRecords uint64
	CommittedBytes   uint64 // of record batches, uncompressed unless their producer compressed them
	Duplicates       uint64 // batches of idempotent producers that were there already

	PendingBytes int64 // appended, not yet committed
	PendingLimit int64
	HeadBytes    int64 // committed, not yet in segments
	HeadLimit    int64

	JournalBytes      int64  // size of all slots
	JournalSlots      int    // slots of the journal
	JournalSlotsFree  int    // of them, those that may be overwritten now
	JournalWritten    uint64 // bytes written to the journal, padding and slot headers included
	SegmentWritten    uint64 // bytes written to segments, padding, headers and footers included
	Flushes           uint64 // heads written to segments
	SegmentSyncs      uint64
	Carries           uint64 // small heads written to the journal again instead of to segments
	CarriedBytes      uint64
	Seals             uint64
	SegmentsRetired   uint64 // unlinked by retention, log start moves and topic deletion
	SegmentBytesFreed uint64
	FlushErrors       uint64 // flushes put off because the disk is full

	DiskFree       int64 // bytes free when last looked
	DiskTotal      int64 // bytes of the file system; 0: unknown
	DiskKeep       int64 // with fewer free, the oldest segments are evicted
	DiskFloor      int64 // with fewer free, records are refused
	Ballast        int64 // bytes held back for a full disk
	Refusing       bool  // the disk is full: records are refused
	Refused        uint64
	Evictions      uint64 // ranges that made room
	EvictedRecords uint64
	EvictedBytes   uint64
	LedgerEntries  uint64 // written to LedgerTopic

	QuarantinedRanges  int // damages found since Open and by it
	QuarantinedRecords uint64

	OpenSegments int
	Groups       int // consumer groups with offsets

	Partitions []PartitionStats // sorted by topic and partition, internal ones too
	Recovery   RecoveryReport
}

// PartitionStats is one partition in a snapshot.
type PartitionStats struct {
	Topic         string
	Partition     int32
	LogStart      int64
	HighWatermark int64
	Segments      int
	Bytes         int64 // of segments
	HeadBytes     int64
	Producers     int // idempotent producers remembered
}

// Damage is a range of offsets that is lost, or a file that is harmed without
// loss of records (Last < First).
type Damage struct {
	Topic     string
	Partition int32 // -1: not of a partition
	First     int64 // first lost offset
	Last      int64 // last lost offset
	File      string
	Reason    string
}

// Lost is the number of records that the damage cost.
func (d *Damage) Lost() int64 { return max(d.Last-d.First+1, 0) }

func (d Damage) String() string {
	s := d.Reason
	if d.File != "" {
		s = d.File + ": " + s
	}
	if d.Partition < 0 {
		return s
	}
	tp := record.TopicPartition{Topic: d.Topic, Partition: d.Partition}
	if d.Lost() == 0 {
		return fmt.Sprintf("topic %s partition %d: no records lost: %s", tp.Topic, tp.Partition, s)
	}
	return fmt.Sprintf("topic %s partition %d offsets %d to %d: %s", tp.Topic, tp.Partition, d.First, d.Last, s)
}

// RecoveryReport is what Open found and did.
type RecoveryReport struct {
	Clean           bool // the last run ended with Close
	Created         bool // there was no log before
	MetaRebuilt     bool // meta.db was lost or damaged; topics come from journal and segments
	MetaSetAside    string
	EntriesRead     int // valid journal entries
	EntriesReplayed int // of them, those at or behind the tail
	RecordsReplayed int64
	SegmentsScanned int
	// Torn says that the last journal entry was incomplete and has been cut;
	// nothing of it had been acknowledged.
	Torn         bool
	TornSequence uint64
	TornFile     string
	// Quarantined are damages: ranges of offsets that are lost.
	Quarantined []Damage
	Duration    time.Duration
}

// VerifyReport is what Verify found.
type VerifyReport struct {
	Topics     int
	Partitions int
	Segments   int
	Entries    int // journal entries
	Records    int64
	// Torn: the journal ends in an incomplete entry, as after a power cut. It
	// is no damage: nothing of it was acknowledged.
	Torn    bool
	Damages []Damage
}

// OK says that nothing is damaged.
func (r *VerifyReport) OK() bool { return len(r.Damages) == 0 }

// counters are what a log counts as it goes.
type counters struct {
	commits, committedRecords, committedBytes atomic.Uint64
	duplicates, segmentWritten                atomic.Uint64
	flushes, segmentSyncs, seals, flushErrors atomic.Uint64
	segmentsRetired, bytesFreed               atomic.Uint64
	carries, carriedBytes                     atomic.Uint64
	refused, ledgerEntries                    atomic.Uint64
	evictions, evictedRecords, evictedBytes   atomic.Uint64

	mu      sync.Mutex // guards the rest
	latency [len(commitBuckets) + 1]uint64
	sum     time.Duration
	damages []Damage // found since Open, at most maxDamages
	ranges  int
	lost    uint64
}

// maxDamages bounds the damages that are kept for reports.
const maxDamages = 1000

func (c *counters) commit(d time.Duration) {
	c.commits.Add(1)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sum += d
	for i, b := range commitBuckets {
		if d <= b {
			c.latency[i]++
			return
		}
	}
	c.latency[len(commitBuckets)]++
}

func (c *counters) retired(size int64) {
	c.segmentsRetired.Add(1)
	c.bytesFreed.Add(uint64(size))
}

func (c *counters) evicted(records, bytes int64) {
	c.evictions.Add(1)
	c.evictedRecords.Add(uint64(records))
	c.evictedBytes.Add(uint64(bytes))
}

func (c *counters) quarantined(d Damage) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ranges++
	c.lost += uint64(d.Lost())
	if len(c.damages) < maxDamages {
		c.damages = append(c.damages, d)
	}
}

// Stats is a snapshot. Its parts are not of one moment.
func (l *Log) Stats() Stats {
	c := &l.stat
	free, slots := l.j.free()
	s := Stats{
		Epoch: l.epoch, Failed: l.isFailed(),
		Commits: c.commits.Load(), CommittedRecords: c.committedRecords.Load(), CommittedBytes: c.committedBytes.Load(),
		Duplicates:   c.duplicates.Load(),
		PendingBytes: l.pending.Load(), PendingLimit: l.pendLimit,
		HeadBytes: l.headBytes.Load(), HeadLimit: l.opt.HeadBytes,
		JournalBytes: int64(slots) * l.j.slotBytes, JournalSlots: slots, JournalSlotsFree: free,
		JournalWritten: l.j.written.Load(), SegmentWritten: c.segmentWritten.Load(),
		Carries: c.carries.Load(), CarriedBytes: c.carriedBytes.Load(),
		Flushes: c.flushes.Load(), SegmentSyncs: c.segmentSyncs.Load(), Seals: c.seals.Load(),
		SegmentsRetired: c.segmentsRetired.Load(), SegmentBytesFreed: c.bytesFreed.Load(),
		DiskFree: l.space.free.Load(), DiskTotal: l.space.total, DiskKeep: l.space.mark, DiskFloor: l.space.floor,
		Refusing: l.space.refusal.Load() != nil, Refused: c.refused.Load(),
		Evictions: c.evictions.Load(), EvictedRecords: c.evictedRecords.Load(), EvictedBytes: c.evictedBytes.Load(),
		LedgerEntries: c.ledgerEntries.Load(),
		FlushErrors:   c.flushErrors.Load(), OpenSegments: int(l.cache.open.Load()),
		Groups: len(l.Groups()), Recovery: l.report,
	}
	c.mu.Lock()
	s.CommitLatency = Histogram{Bounds: slices.Clone(commitBuckets[:]), Counts: slices.Clone(c.latency[:]), Sum: c.sum}
	s.QuarantinedRanges, s.QuarantinedRecords = c.ranges, c.lost
	c.mu.Unlock()
	if l.space.held.Load() {
		s.Ballast = l.space.ballast
	}
	for _, p := range l.partitions() {
		p.mu.Lock()
		ps := PartitionStats{
			Topic: p.topic.name, Partition: p.index, LogStart: p.start, HighWatermark: p.hw,
			Segments: len(p.segs), HeadBytes: p.headBytes, Producers: len(p.pids),
		}
		for _, sg := range p.segs {
			ps.Bytes += sg.size
		}
		p.mu.Unlock()
		s.Partitions = append(s.Partitions, ps)
	}
	slices.SortFunc(s.Partitions, func(a, b PartitionStats) int {
		return cmp.Or(cmp.Compare(a.Topic, b.Topic), cmp.Compare(a.Partition, b.Partition))
	})
	return s
}

// Damages are the ranges that have been found lost since Open, and by it, at
// most 1000.
func (l *Log) Damages() []Damage {
	l.stat.mu.Lock()
	defer l.stat.mu.Unlock()
	return slices.Clone(l.stat.damages)
}
