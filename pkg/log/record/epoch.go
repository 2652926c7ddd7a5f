package record

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
)

// EpochsTopic is the internal topic of one partition in which a log records
// each of its epochs, as the first record of the first commit of that epoch.
// Its records' values are EpochStart in JSON, oldest first.
const EpochsTopic = InternalPrefix + "epochs"

// EpochStart tells that a log began an epoch: from each partition's Starts
// offset on, batches carry Number as their leader epoch. Partitions not listed
// start at 0. ID is random, so a restored disk image that counts on from the
// same Number is still another epoch.
type EpochStart struct {
	Number int32            `json:"number"`
	ID     string           `json:"id"`   // 32 hex digits
	Time   int64            `json:"time"` // hybrid time, ms since 1970
	Starts []PartitionStart `json:"starts"`
}

// PartitionStart is the first offset that a partition gives in an epoch.
type PartitionStart struct {
	Topic     string `json:"topic"` // topic id, 32 hex digits
	Partition int32  `json:"partition"`
	Offset    int64  `json:"offset"`
}

// Encode is the record value of e.
func (e *EpochStart) Encode() []byte {
	b, err := json.Marshal(e)
	if err != nil {
		panic(err) // no type in EpochStart can fail
	}
	return b
}

// ParseEpochStart is the inverse of Encode.
func ParseEpochStart(b []byte) (EpochStart, error) {
	var e EpochStart
	if err := json.Unmarshal(b, &e); err != nil {
		return e, fmt.Errorf("epoch record: %w", err)
	}
	if id, err := hex.DecodeString(e.ID); err != nil || len(id) != 16 {
		return e, fmt.Errorf("epoch record %d: id %q is not 32 hex digits", e.Number, e.ID)
	}
	return e, nil
}
