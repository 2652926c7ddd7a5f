package kafka

import (
	"context"
	"errors"

	"edgehub/pkg/log/record"
)

// Kafka's error codes, of org.apache.kafka.common.protocol.Errors.
const (
	codeUnknownServer        = -1
	codeOffsetOutOfRange     = 1
	codeCorruptMessage       = 2
	codeUnknownTopic         = 3
	codeLeaderNotAvailable   = 5
	codeNotLeader            = 6
	codeRequestTimedOut      = 7
	codeMessageTooLarge      = 10
	codeMetadataTooLarge     = 12
	codeCoordinatorLoading   = 14
	codeCoordinatorNotAvail  = 15
	codeNotCoordinator       = 16
	codeInvalidTopic         = 17
	codeInvalidRequiredAcks  = 21
	codeIllegalGeneration    = 22
	codeInvalidGroupID       = 24
	codeUnknownMember        = 25
	codeUnsupportedVersion   = 35
	codeTopicExists          = 36
	codeInvalidPartitions    = 37
	codeInvalidReplication   = 38
	codeInvalidConfig        = 40
	codeInvalidRequest       = 42
	codeOutOfOrderSequence   = 45
	codeInvalidProducerEpoch = 47
	codeTransactionalIDAuth  = 53
	codeStorage              = 56
	codeFetchSessionNotFound = 70
	codeFencedLeaderEpoch    = 74
	codeUnknownLeaderEpoch   = 75
	codeUnsupportedCodec     = 76
	codeInvalidRecord        = 87
	codeUnknownTopicID       = 100
)

// family says which kind of request answers: clients accept different codes
// for the same trouble.
type family uint8

const (
	produceFamily family = iota
	readFamily           // Fetch and ListOffsets
	topicFamily          // Metadata, CreateTopics, DeleteTopics, InitProducerId
	groupFamily          // FindCoordinator, OffsetCommit, OffsetFetch
	families
)

// errorTable is the one place where errors become codes; the first row that
// matches (errors.Is) decides.
//
// The codes are chosen so that clients retry what may pass: Java's consumer
// throws on a code it does not expect in a Fetch (5 and 7 are such), and its
// coordinator code does not expect 56 or 7.
var errorTable = []struct {
	err  error
	code [families]int16 // produce, read, topic, group
}{
	{record.ErrUnknownTopic, [...]int16{codeUnknownTopic, codeUnknownTopic, codeUnknownTopic, codeUnknownTopic}},
	{record.ErrTopicExists, [...]int16{codeTopicExists, codeTopicExists, codeTopicExists, codeTopicExists}},
	{record.ErrInvalidTopic, [...]int16{codeInvalidTopic, codeInvalidTopic, codeInvalidTopic, codeInvalidTopic}},
	{record.ErrInvalidPartitions, [...]int16{codeInvalidPartitions, codeInvalidPartitions, codeInvalidPartitions, codeInvalidPartitions}},
	{record.ErrInvalidConfig, [...]int16{codeInvalidConfig, codeInvalidConfig, codeInvalidConfig, codeInvalidConfig}},
	{record.ErrOffsetOutOfRange, [...]int16{codeOffsetOutOfRange, codeOffsetOutOfRange, codeOffsetOutOfRange, codeOffsetOutOfRange}},
	{record.ErrNotLeader, [...]int16{codeNotLeader, codeNotLeader, codeLeaderNotAvailable, codeNotCoordinator}},
	{record.ErrNotCoordinator, [...]int16{codeNotLeader, codeNotLeader, codeLeaderNotAvailable, codeNotCoordinator}},
	{record.ErrUnavailable, [...]int16{codeLeaderNotAvailable, codeNotLeader, codeLeaderNotAvailable, codeCoordinatorNotAvail}},
	{record.ErrTooLarge, [...]int16{codeMessageTooLarge, codeMessageTooLarge, codeMessageTooLarge, codeMetadataTooLarge}},
	{record.ErrStorage, [...]int16{codeStorage, codeStorage, codeStorage, codeCoordinatorNotAvail}},
	{record.ErrOutOfOrderSeq, [...]int16{codeOutOfOrderSequence, codeUnknownServer, codeUnknownServer, codeUnknownServer}},
	{record.ErrProducerFenced, [...]int16{codeInvalidProducerEpoch, codeUnknownServer, codeUnknownServer, codeUnknownServer}},
	{record.ErrClosed, [...]int16{codeNotLeader, codeNotLeader, codeLeaderNotAvailable, codeCoordinatorNotAvail}},
	{context.Canceled, [...]int16{codeNotLeader, codeNotLeader, codeLeaderNotAvailable, codeCoordinatorNotAvail}},
	{context.DeadlineExceeded, [...]int16{codeRequestTimedOut, codeNotLeader, codeRequestTimedOut, codeCoordinatorNotAvail}},

	// What CheckProduced finds, in its order of tests.
	{record.ErrCorrupt, [...]int16{codeInvalidRecord, codeCorruptMessage, codeCorruptMessage, codeCorruptMessage}},
	{record.ErrMagic, [...]int16{codeInvalidRecord, codeCorruptMessage, codeCorruptMessage, codeCorruptMessage}},
	{record.ErrShort, [...]int16{codeCorruptMessage, codeCorruptMessage, codeCorruptMessage, codeCorruptMessage}},
	{record.ErrLength, [...]int16{codeCorruptMessage, codeCorruptMessage, codeCorruptMessage, codeCorruptMessage}},
	{record.ErrCRC, [...]int16{codeCorruptMessage, codeCorruptMessage, codeCorruptMessage, codeCorruptMessage}},
}

// code maps an error and counts it; nil is 0. An error that the table does
// not know is logged: it is a fault of the Store.
func (s *Server) code(f family, err error) int16 {
	if err == nil {
		return 0
	}
	for i := range errorTable {
		if errors.Is(err, errorTable[i].err) {
			return s.fail(errorTable[i].code[f])
		}
	}
	s.limited.warn(s.logger, "kafka: store failed", "err", err)
	return s.fail(codeUnknownServer)
}

// fail counts a code that is about to be answered and returns it.
func (s *Server) fail(code int16) int16 {
	s.stats.failed(code)
	return code
}
