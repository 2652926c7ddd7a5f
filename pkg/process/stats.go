package process

// Stats is what an engine's tasks have done since Start; replay after a start
// counts too where said.
type Stats struct {
	Tasks []TaskStats // sorted by process and partition
}

// TaskStats are one task's counters and gauges.
type TaskStats struct {
	Process   string
	From, To  string
	Partition int32  // of From
	State     string // restoring, running, stopped or failed
	Error     string // of a failed task, or why it waits

	Offset int64 // next record to take in
	Lag    int64 // records behind the high watermark

	// Input. Records includes those read again to restore state; so do the
	// counters down to Dropped.
	Records   int64
	Malformed int64 // records with payload.error, or that did not decode
	Untimed   int64 // records without a usable time
	Ungrouped int64 // readings without a field that "by" names, or with too long a key
	Filtered  int64 // readings for which where was false
	Errors    int64 // readings for which where or a compute met a wrong type

	Finals    int64 // windows closed
	Amends    int64 // windows issued again for late readings
	Late      int64 // readings not taken in
	Forced    int64 // windows closed for want of room
	Forgotten int64 // keys forgotten for want of room
	Dropped   int64 // closed windows no longer amendable for want of room

	Keys          int64
	WindowsOpen   int64
	WindowsClosed int64 // that can still be amended

	Replayed   int64 // records read again to restore state
	Lost       int64 // input records that retention took before they were read
	Discarded  int64 // open windows given up, as their definition or topic changed
	TooLarge   int64 // results and late values larger than their topic takes
	Results    int64 // records appended to To
	LateCopies int64 // records appended to To + ".late"
	Steps      int64
	Ticks      int64
	Retries    int64 // steps that the log refused for a while

	Snapshots      int64
	SnapshotBytes  int64 // size of the newest
	SnapshotErrors int64
}

// Skipped is the number of records that could not be used.
func (t *TaskStats) Skipped() int64 { return t.Malformed + t.Untimed }
