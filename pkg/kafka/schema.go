package kafka

// The schemas of the request bodies that walk.go goes over, one per key, from
// Kafka's message definitions (clients/src/main/resources/common/message).
// A version range is inclusive; last means "and all later ones".

const last = 1<<15 - 1

func since(v int16, f field) field { f.min, f.max = v, last; return f }
func only(from, to int16, f field) field {
	f.min, f.max = from, to
	return f
}

var (
	fByte       = field{kind: kFixed, size: 1, max: last}
	fInt16      = field{kind: kFixed, size: 2, max: last}
	fInt32      = field{kind: kFixed, size: 4, max: last}
	fInt64      = field{kind: kFixed, size: 8, max: last}
	fUUID       = field{kind: kFixed, size: 16, max: last}
	fString     = field{kind: kString, max: last}
	fNullString = field{kind: kNullString, max: last}
	fBytes      = field{kind: kBytes, max: last}
	fInt32s     = field{kind: kArray, plain: true, elem: []field{fInt32}, max: last}
	fStrings    = field{kind: kArray, plain: true, elem: []field{fString}, max: last}
)

func array(elem ...field) field { return field{kind: kArray, elem: elem, max: last} }

func tagField(tag int, elem ...field) field {
	return field{kind: kTagged, size: tag, elem: elem, max: last}
}

func produceSchema() schema {
	return schema{flexible: 9, fields: []field{
		since(3, fNullString), // transactional id
		fInt16,                // acks
		fInt32,                // timeout
		array(
			fString, // topic
			array(fInt32, fBytes),
		),
	}}
}

func fetchSchema() schema {
	partition := array(
		fInt32,            // partition
		since(9, fInt32),  // current leader epoch
		fInt64,            // offset
		since(12, fInt32), // last fetched epoch
		since(5, fInt64),  // log start
		fInt32,            // max bytes
	)
	partition.tags = []field{tagField(0, fUUID), tagField(1, fInt64)}
	return schema{flexible: 12, fields: []field{
		fInt32, // replica
		fInt32, // max wait
		fInt32, // min bytes
		since(3, fInt32),
		since(4, fByte),
		since(7, fInt32), // session id
		since(7, fInt32), // session epoch
		array(fString, partition),
		since(7, array(fString, fInt32s)), // forgotten
		since(11, fString),                // rack
	}, tags: []field{
		tagField(0, fNullString), // cluster id
		tagField(1, field{kind: kStructField, elem: []field{fInt32, fInt64}, max: last}), // replica state
	}}
}

func listOffsetsSchema() schema {
	return schema{flexible: 6, fields: []field{
		fInt32,          // replica
		since(2, fByte), // isolation
		array(
			fString,
			array(
				fInt32,
				since(4, fInt32), // current leader epoch
				fInt64,
				only(0, 0, fInt32), // max offsets
			),
		),
	}}
}

func metadataSchema() schema {
	return schema{flexible: 9, fields: []field{
		array(
			since(10, fUUID),
			only(0, 9, fString),
			since(10, fNullString),
		),
		since(4, fByte),
		only(8, 10, fByte),
		since(8, fByte),
	}}
}

func offsetCommitSchema() schema {
	return schema{flexible: 8, fields: []field{
		fString,
		since(1, fInt32),
		since(1, fString),
		since(7, fNullString),
		only(2, 4, fInt64),
		array(
			fString,
			array(
				fInt32,
				fInt64,
				only(1, 1, fInt64),
				since(6, fInt32),
				fNullString,
			),
		),
	}}
}

func offsetFetchSchema() schema {
	return schema{flexible: 6, fields: []field{
		only(0, 7, fString),
		only(0, 7, array(fString, fInt32s)),
		since(8, array(
			fString,
			since(9, fNullString),
			since(9, fInt32),
			array(fString, fInt32s),
		)),
		since(7, fByte),
	}}
}

func findCoordinatorSchema() schema {
	return schema{flexible: 3, fields: []field{
		only(0, 3, fString),
		since(1, fByte),
		since(4, fStrings),
	}}
}

func apiVersionsSchema() schema {
	return schema{flexible: 3, fields: []field{
		since(3, fString),
		since(3, fString),
	}}
}

func createTopicsSchema() schema {
	return schema{flexible: 5, fields: []field{
		array(
			fString,
			fInt32,
			fInt16,
			array(fInt32, fInt32s),
			array(fString, fNullString),
		),
		fInt32,
		since(1, fByte),
	}}
}

func deleteTopicsSchema() schema {
	return schema{flexible: 4, fields: []field{
		only(0, 5, fStrings),
		since(6, array(fNullString, fUUID)),
		fInt32,
	}}
}

func initProducerIDSchema() schema {
	return schema{flexible: 2, fields: []field{
		fNullString,
		fInt32,
		since(3, fInt64),
		since(3, fInt16),
	}}
}
