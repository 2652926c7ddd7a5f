package parts

import (
	"strconv"

	"edgehub/internal/obs"
	"edgehub/pkg/process"
)

// Process gives the metrics of the processes, one series per task.
func Process(s *obs.Scrape, st process.Stats) {
	for i := range st.Tasks {
		t := &st.Tasks[i]
		at := []string{"process", t.Process, "partition", strconv.Itoa(int(t.Partition))}
		count := func(name, help string, n int64) { s.Counter(name, help, float64(n), at...) }
		gauge := func(name, help string, n int64) { s.Gauge(name, help, float64(n), at...) }
		s.Flag("hub_process_running", "1 while the task takes in records.", t.State == "running", at...)
		gauge("hub_process_offset", "Next record to take in.", t.Offset)
		gauge("hub_process_lag_records", "Records not yet taken in.", t.Lag)
		count("hub_process_records_total", "Records taken in, those read again to restore state included.", t.Records)
		count("hub_process_malformed_records_total", "Records that did not decode.", t.Malformed)
		count("hub_process_untimed_records_total", "Records without a usable time.", t.Untimed)
		count("hub_process_ungrouped_readings_total", "Readings without a field that by names.", t.Ungrouped)
		count("hub_process_filtered_readings_total", "Readings for which where was false.", t.Filtered)
		count("hub_process_failed_readings_total", "Readings on which an expression met a wrong type.", t.Errors)
		count("hub_process_final_windows_total", "Windows closed.", t.Finals)
		count("hub_process_amended_windows_total", "Windows issued again for late readings.", t.Amends)
		count("hub_process_late_readings_total", "Readings too late for any window.", t.Late)
		count("hub_process_forced_windows_total", "Windows closed for want of room.", t.Forced)
		count("hub_process_forgotten_keys_total", "Keys forgotten for want of room.", t.Forgotten)
		count("hub_process_dropped_windows_total", "Closed windows that can no longer be amended for want of room.", t.Dropped)
		gauge("hub_process_keys", "Keys in memory.", t.Keys)
		gauge("hub_process_open_windows", "Windows open.", t.WindowsOpen)
		gauge("hub_process_closed_windows", "Closed windows that can still be amended.", t.WindowsClosed)
		count("hub_process_replayed_records_total", "Records read again to restore state.", t.Replayed)
		count("hub_process_lost_records_total", "Input records that retention took before they were read.", t.Lost)
		count("hub_process_discarded_windows_total", "Open windows given up because their definition or topic changed.", t.Discarded)
		count("hub_process_oversized_results_total", "Results larger than their topic takes.", t.TooLarge)
		count("hub_process_results_total", "Results written.", t.Results)
		count("hub_process_late_copies_total", "Late readings written to the late topic.", t.LateCopies)
		count("hub_process_steps_total", "Steps committed.", t.Steps)
		count("hub_process_ticks_total", "Steps made by the clock.", t.Ticks)
		count("hub_process_retries_total", "Steps that the log refused for a while.", t.Retries)
		count("hub_process_snapshots_total", "Snapshots of state written.", t.Snapshots)
		gauge("hub_process_snapshot_bytes", "Size of the newest snapshot.", t.SnapshotBytes)
		count("hub_process_snapshot_errors_total", "Snapshots that could not be written.", t.SnapshotErrors)
	}
}
