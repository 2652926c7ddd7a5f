package parts

import (
	"strconv"

	"edgehub/internal/obs"
	"edgehub/pkg/core"
)

// Core gives the metrics of a core node.
func Core(s *obs.Scrape, st core.Stats) {
	s.Flag("hub_core_ready", "1 if the node serves.", st.Ready)
	s.Gauge("hub_core_topics", "Topics of the cluster.", float64(st.Topics))
	s.Gauge("hub_core_led_partitions", "Partitions that this node leads.", float64(st.Led))
	s.Gauge("hub_core_quarantined_partitions", "Partitions that this node refuses to serve.", float64(st.Quarantined))
	s.Gauge("hub_core_lanes", "Open lanes of uplinks.", float64(st.Lanes))
	s.Gauge("hub_core_lane_window_bytes", "Bytes that lanes may have in flight.", float64(st.LaneWindow))
	s.Gauge("hub_core_queued_bytes", "Bytes that wait for frames.", float64(st.QueuedBytes))
	s.Gauge("hub_core_cache_bytes", "Bytes of cached frames.", float64(st.CacheBytes))
	s.Counter("hub_core_cache_hits_total", "Frames found in the cache.", float64(st.CacheHits))
	s.Counter("hub_core_cache_misses_total", "Frames read from the store.", float64(st.CacheMisses))
	s.Counter("hub_core_frames_total", "Frames stored.", float64(st.Frames))
	s.Counter("hub_core_frame_bytes_total", "Bytes of frames stored.", float64(st.FrameBytes))
	s.Counter("hub_core_frame_ack_seconds_total", "Time that frames took to be stored.", st.AckSeconds)
	s.Counter("hub_core_conflicts_total", "Frames not stored as sent, after which the tail was read.", float64(st.Conflicts))
	s.Counter("hub_core_void_frames_total", "Frames that no reader believes.", float64(st.Voids))
	s.Counter("hub_core_retries_total", "Frames sent again.", float64(st.Retries))
	s.Counter("hub_core_elections_total", "Partitions taken over.", float64(st.Elections))
	s.Counter("hub_core_quarantines_total", "Partitions found damaged.", float64(st.Quarantines))
	s.Counter("hub_core_produced_batches_total", "Batches of Kafka producers.", float64(st.Produced))
	s.Counter("hub_core_forwarded_batches_total", "Batches of uplinks.", float64(st.Forwarded))
	s.Counter("hub_core_mismatches_total", "Batches of uplinks that did not continue their mark.", float64(st.Mismatches))
	s.Counter("hub_core_refused_total", "Malformed or foreign messages of uplinks.", float64(st.Refused))
	s.Counter("hub_core_retired_records_total", "Offsets removed by retention.", float64(st.Retained))
	s.Counter("hub_core_ledger_entries_total", "Lines written to the ledger.", float64(st.LedgerLines))
	s.Counter("hub_core_ledger_records_total", "Offsets in lines of the ledger.", float64(st.LedgerRecords))
	s.Counter("hub_core_compacted_records_total", "Offsets that edges declared compacted.", float64(st.Compacted))
	s.Counter("hub_core_offset_writes_total", "Writes of group offsets.", float64(st.OffsetWrites))
	for _, p := range st.Partitions {
		at := []string{"topic", p.Topic, "partition", strconv.Itoa(int(p.Partition))}
		s.Gauge("hub_core_partition_epoch", "Leader epoch, at the leader.", float64(p.Epoch), at...)
		s.Gauge("hub_core_partition_start_offset", "First offset that is kept, at the leader.", float64(p.LogStart), at...)
		s.Gauge("hub_core_partition_end_offset", "Offset behind the last record, at the leader.", float64(p.Next), at...)
		s.Gauge("hub_core_partition_bytes", "Bytes of live batches, at the leader.", float64(p.Bytes), at...)
	}
}
