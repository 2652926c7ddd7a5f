package log

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
)

// metaStore keeps the small things that change rarely: keys and values, as
// bytes. It has a bbolt implementation and, in tests, one over vfs.
type metaStore interface {
	// all is every key with its value.
	all() (map[string][]byte, error)
	// write sets keys, or deletes those whose value is nil, atomically. All of
	// it is durable when it returns nil.
	write(kv map[string][]byte) error
	// close releases the store and the lock on the directory.
	close() error
	// setAside is the new name of a damaged store that openMeta put out of the
	// way before it made this one; "" if none.
	setAside() string
}

// Keys of metadata. Values end with a CRC-32C of key and value (sealValue).
const (
	keyID       = "log/id"       // [16]
	keySecret   = "log/secret"   // [16], salts entry checksums
	keyProducer = "log/producer" // next block of producer ids, u64
	keyTime     = "log/time"     // hybrid time, u64 ms
	keyEpoch    = "log/epoch"    // highest epoch number begun, u32
	prefixTopic = "topics/"      // + name: JSON of topicMeta
	prefixEpoch = "epochs/"      // + number, 10 digits: random id [16]
)

// sealValue is v with its checksum behind it.
func sealValue(key string, v []byte) []byte {
	out := make([]byte, 0, len(v)+4)
	out = append(out, v...)
	return binary.BigEndian.AppendUint32(out, valueCRC(key, v))
}

func valueCRC(key string, v []byte) uint32 {
	return crc32.Update(crc32.Checksum([]byte(key), castagnoli), castagnoli, v)
}

// openValue is the inverse of sealValue.
func openValue(key string, b []byte) ([]byte, error) {
	if len(b) < 4 || valueCRC(key, b[:len(b)-4]) != binary.BigEndian.Uint32(b[len(b)-4:]) {
		return nil, fmt.Errorf("meta.db: value of %s fails its checksum", key)
	}
	return b[:len(b)-4], nil
}

// metaState is metadata, decoded.
type metaState struct {
	id, secret   [16]byte
	hasID        bool
	hasSecret    bool
	nextProducer int64
	hasProducer  bool
	time         int64
	epoch        int32
	topics       map[string]topicMeta
	bad          []string // keys whose values are damaged
	epochIDs     map[int32][16]byte
}

func loadMeta(m metaStore) (*metaState, error) {
	kv, err := m.all()
	if err != nil {
		return nil, err
	}
	s := &metaState{topics: map[string]topicMeta{}, epochIDs: map[int32][16]byte{}}
	for k, sealed := range kv {
		v, err := openValue(k, sealed)
		if err == nil {
			err = s.set(k, v)
		}
		if err != nil {
			s.bad = append(s.bad, k)
		}
	}
	return s, nil
}

func (s *metaState) set(k string, v []byte) error {
	want := func(n int) error {
		if len(v) != n {
			return fmt.Errorf("meta.db: value of %s has %d bytes, want %d", k, len(v), n)
		}
		return nil
	}
	switch k {
	case keyID:
		if err := want(16); err != nil {
			return err
		}
		copy(s.id[:], v)
		s.hasID = true
	case keySecret:
		if err := want(16); err != nil {
			return err
		}
		copy(s.secret[:], v)
		s.hasSecret = true
	case keyProducer:
		if err := want(8); err != nil {
			return err
		}
		s.nextProducer, s.hasProducer = int64(binary.BigEndian.Uint64(v)), true
	case keyTime:
		if err := want(8); err != nil {
			return err
		}
		s.time = int64(binary.BigEndian.Uint64(v))
	case keyEpoch:
		if err := want(4); err != nil {
			return err
		}
		s.epoch = max(s.epoch, int32(binary.BigEndian.Uint32(v)))
	default:
		switch {
		case len(k) > len(prefixTopic) && k[:len(prefixTopic)] == prefixTopic:
			m, _, err := parseTopicMeta(v)
			if err != nil || m.Name != k[len(prefixTopic):] {
				return fmt.Errorf("meta.db: %s: bad topic", k)
			}
			s.topics[m.Name] = m
		case len(k) > len(prefixEpoch) && k[:len(prefixEpoch)] == prefixEpoch:
			var n int32
			if _, err := fmt.Sscanf(k[len(prefixEpoch):], "%d", &n); err != nil {
				return err
			}
			if err := want(16); err != nil {
				return err
			}
			s.epochIDs[n] = [16]byte(v)
			s.epoch = max(s.epoch, n)
		}
	}
	return nil
}

// writeMeta seals and writes values; nil deletes.
func writeMeta(m metaStore, kv map[string][]byte) error {
	sealed := make(map[string][]byte, len(kv))
	for k, v := range kv {
		if v != nil {
			v = sealValue(k, v)
		}
		sealed[k] = v
	}
	return m.write(sealed)
}

func u64bytes(v uint64) []byte { return binary.BigEndian.AppendUint64(nil, v) }
func u32bytes(v uint32) []byte { return binary.BigEndian.AppendUint32(nil, v) }

func epochKey(n int32) string { return fmt.Sprintf("%s%010d", prefixEpoch, n) }
