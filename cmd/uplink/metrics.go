package main

import (
	"strconv"

	"edgehub/internal/obs"
	"edgehub/pkg/bridge/uplink"
)

// scrape turns a snapshot into metrics.
func scrape(s *obs.Scrape, st uplink.Stats) {
	s.Flag("uplink_hub_up", "Whether the hub answers.", st.HubUp)
	s.Flag("uplink_link_up", "Whether there is a connection to the core.", st.Link.Connected)
	s.Flag("uplink_ready", "Whether every configured topic is being forwarded.", st.Ready() == nil)
	s.Counter("uplink_link_connects_again_total", "Connections to the core after the first.", float64(st.Link.Reconnects))
	s.Counter("uplink_link_drops_total", "Connections dropped because nothing was answered.", float64(st.Reconnects))
	s.Counter("uplink_link_written_bytes_total", "Bytes written to the core's connections.", float64(st.Link.BytesWritten))
	s.Gauge("uplink_link_rate_bytes_per_second", "What the link takes, as measured.", float64(st.Rate))
	s.Gauge("uplink_link_inflight_bytes", "Bytes sent and not yet acknowledged by the core.", float64(st.InFlight))
	s.Gauge("uplink_records_per_second", "Records that the core acknowledges, smoothed over some ten seconds.", st.RecordsPerSecond)
	s.Gauge("uplink_bandwidth_bytes_per_second", "Configured bound, 0: none.", float64(st.Bandwidth))
	s.Counter("uplink_cursor_commits_total", "Cursor commits that the hub acknowledged.", float64(st.Commits))
	s.Counter("uplink_cursor_commit_errors_total", "Cursor commits that failed.", float64(st.CommitErrors))
	s.Gauge("uplink_topics_missing", "Configured topics that the hub does not have.", float64(len(st.Missing)))
	for i := range st.Lanes {
		l := &st.Lanes[i]
		labels := []string{"topic", l.Topic, "partition", strconv.Itoa(int(l.Partition))}
		s.Flag("uplink_lane_streaming", "Whether the partition is being forwarded.", l.State == uplink.StateStreaming, labels...)
		s.Flag("uplink_lane_halted", "Whether the core refuses the partition's next offset.", l.State == uplink.StateHalted, labels...)
		s.Gauge("uplink_lane_backlog_records", "Records that the hub has and the core has not.", float64(l.Backlog), labels...)
		s.Gauge("uplink_lane_acked_offset", "The next offset that the core needs, -1 if not known yet.", float64(l.Acked), labels...)
		s.Gauge("uplink_lane_hub_offset", "The offset behind the hub's last record, as last seen.", float64(l.HighWatermark), labels...)
		s.Counter("uplink_lane_records_total", "Records that the core acknowledged.", float64(l.Records), labels...)
		s.Counter("uplink_lane_bytes_total", "Bytes of messages that the core acknowledged.", float64(l.Bytes), labels...)
		s.Counter("uplink_lane_messages_total", "Messages that the core acknowledged.", float64(l.Messages), labels...)
		s.Counter("uplink_lane_gap_records_total", "Offsets declared gone.", float64(l.GapRecords), labels...)
		s.Counter("uplink_lane_retries_total", "Sessions that ended before their time.", float64(l.Retries), labels...)
		s.Counter("uplink_lane_refused_total", "Refusals by the core, and damaged batches.", float64(l.Refused), labels...)
		s.Gauge("uplink_lane_rtt_seconds", "Time from sending a message to its answer, smoothed.", float64(l.RTT)/1e9, labels...)
	}
}
