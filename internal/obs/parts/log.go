// Package parts turns the Stats of a hub's parts into metrics. It is apart
// from package obs so that the uplink, which uses obs too, links none of them.
package parts

import (
	"strconv"

	"edgehub/internal/obs"
	"edgehub/pkg/log"
)

// Log gives the metrics of the log of an edge hub.
func Log(s *obs.Scrape, st log.Stats) {
	s.Gauge("hub_log_epoch", "Epoch of the log: how often it was opened.", float64(st.Epoch))
	s.Flag("hub_log_failed", "1 once a write or sync failed: nothing is acknowledged until the hub starts again.", st.Failed)
	s.Counter("hub_log_commits_total", "Journal entries written and synced.", float64(st.Commits))
	bounds := make([]float64, len(st.CommitLatency.Bounds))
	for i, b := range st.CommitLatency.Bounds {
		bounds[i] = b.Seconds()
	}
	s.Histogram("hub_log_commit_seconds", "Time to write and sync a journal entry.", bounds, st.CommitLatency.Counts, st.CommitLatency.Sum.Seconds())
	s.Counter("hub_log_records_total", "Records made durable.", float64(st.CommittedRecords))
	s.Counter("hub_log_committed_bytes_total", "Bytes of record batches made durable, as appended.", float64(st.CommittedBytes))
	s.Counter("hub_log_duplicate_batches_total", "Batches of idempotent producers that were there already.", float64(st.Duplicates))
	s.Counter("hub_log_journal_written_bytes_total", "Bytes written to the journal.", float64(st.JournalWritten))
	s.Counter("hub_log_segment_written_bytes_total", "Bytes written to segments.", float64(st.SegmentWritten))
	s.Counter("hub_log_flushes_total", "Heads written to segments.", float64(st.Flushes))
	s.Counter("hub_log_segment_syncs_total", "Syncs of segments.", float64(st.SegmentSyncs))
	s.Counter("hub_log_carries_total", "Small heads written to the journal again instead of to segments.", float64(st.Carries))
	s.Counter("hub_log_carried_bytes_total", "Bytes of small heads written to the journal again.", float64(st.CarriedBytes))
	s.Counter("hub_log_seals_total", "Segments closed with a footer.", float64(st.Seals))
	s.Counter("hub_log_segments_retired_total", "Segments removed by retention or deletion.", float64(st.SegmentsRetired))
	s.Counter("hub_log_segments_retired_bytes_total", "Bytes of segments removed by retention or deletion.", float64(st.SegmentBytesFreed))
	s.Counter("hub_log_flush_errors_total", "Flushes put off because the disk is full.", float64(st.FlushErrors))
	s.Gauge("hub_log_disk_free_bytes", "Bytes free on the file system when last looked.", float64(st.DiskFree))
	s.Gauge("hub_log_disk_size_bytes", "Size of the file system.", float64(st.DiskTotal))
	s.Gauge("hub_log_disk_keep_bytes", "With fewer bytes free the oldest segments are evicted.", float64(st.DiskKeep))
	s.Gauge("hub_log_disk_floor_bytes", "With fewer bytes free records are refused.", float64(st.DiskFloor))
	s.Gauge("hub_log_ballast_bytes", "Bytes held back for a full disk.", float64(st.Ballast))
	s.Flag("hub_log_refusing", "1 while records are refused because the disk is full.", st.Refusing)
	s.Counter("hub_log_refused_total", "Appends refused because the disk was full.", float64(st.Refused))
	s.Counter("hub_log_evictions_total", "Ranges of offsets dropped to make room on a full disk.", float64(st.Evictions))
	s.Counter("hub_log_evicted_records_total", "Records dropped to make room on a full disk.", float64(st.EvictedRecords))
	s.Counter("hub_log_evicted_bytes_total", "Bytes of segments dropped to make room on a full disk.", float64(st.EvictedBytes))
	s.Counter("hub_log_ledger_entries_total", "Dropped or lost ranges entered in the ledger topic.", float64(st.LedgerEntries))
	s.Gauge("hub_log_pending_bytes", "Bytes appended and not yet durable.", float64(st.PendingBytes))
	s.Gauge("hub_log_pending_limit_bytes", "Bytes beyond which appending waits.", float64(st.PendingLimit))
	s.Gauge("hub_log_head_bytes", "Durable bytes not yet in segments.", float64(st.HeadBytes))
	s.Gauge("hub_log_head_limit_bytes", "Bytes beyond which commits wait for flushing.", float64(st.HeadLimit))
	s.Gauge("hub_log_journal_bytes", "Size of the journal.", float64(st.JournalBytes))
	s.Gauge("hub_log_journal_slots", "Slots of the journal.", float64(st.JournalSlots))
	s.Gauge("hub_log_journal_free_slots", "Slots of the journal that may be written now.", float64(st.JournalSlotsFree))
	s.Gauge("hub_log_open_segments", "Segments with an open file.", float64(st.OpenSegments))
	s.Gauge("hub_log_groups", "Consumer groups with offsets.", float64(st.Groups))
	s.Gauge("hub_log_quarantined_ranges", "Ranges of offsets lost to damage.", float64(st.QuarantinedRanges))
	s.Gauge("hub_log_quarantined_records", "Records lost to damage.", float64(st.QuarantinedRecords))
	s.Flag("hub_log_recovery_torn", "1 if the journal ended in an incomplete entry, which was cut.", st.Recovery.Torn)
	s.Gauge("hub_log_recovery_records", "Records replayed from the journal at start.", float64(st.Recovery.RecordsReplayed))
	s.Gauge("hub_log_recovery_seconds", "Time that opening the log took.", st.Recovery.Duration.Seconds())
	for _, p := range st.Partitions {
		at := []string{"topic", p.Topic, "partition", strconv.Itoa(int(p.Partition))}
		s.Gauge("hub_log_partition_start_offset", "First offset that is kept.", float64(p.LogStart), at...)
		s.Gauge("hub_log_partition_end_offset", "Offset behind the last durable record.", float64(p.HighWatermark), at...)
		s.Gauge("hub_log_partition_segments", "Segments of the partition.", float64(p.Segments), at...)
		s.Gauge("hub_log_partition_bytes", "Bytes of segments.", float64(p.Bytes), at...)
	}
}
