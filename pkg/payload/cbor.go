package payload

import (
	"encoding/base64"
	"fmt"
	"math"
	"math/big"
	"slices"
	"strconv"
	"time"

	"github.com/fxamacker/cbor/v2"
)

// cborDecoder reads one CBOR item (RFC 8949). Maps become objects, integer
// keys their decimal form; byte strings base64url without padding (RFC 8949
// §6.1); undefined and other simple values are missing. A map has no order,
// so a reading's fields are sorted by name.
type cborDecoder struct {
	*core
	mode cbor.DecMode
}

func newCBOR(c *core) (*cborDecoder, error) {
	mode, err := cbor.DecOptions{
		DupMapKey:       cbor.DupMapKeyQuiet,
		MaxNestedLevels: max(c.o.MaxDepth, 4),
		// The library wants at least 16; add checks the rest.
		MaxArrayElements: max(c.o.MaxFields, c.o.MaxReadings, 16),
		MaxMapPairs:      max(c.o.MaxFields, 16),
		IntDec:           cbor.IntDecConvertNone,
		MapKeyByteString: cbor.MapKeyByteStringForbidden,
		BigIntDec:        cbor.BigIntDecodeValue,
		UTF8:             cbor.UTF8RejectInvalid,
		NaN:              cbor.NaNDecodeForbidden,
		Inf:              cbor.InfDecodeForbidden,
		TimeTagToAny:     cbor.TimeTagToTime,
	}.DecMode()
	if err != nil {
		return nil, fmt.Errorf("cbor limits: %w", err)
	}
	return &cborDecoder{core: c, mode: mode}, nil
}

func (d *cborDecoder) Decode(b []byte, emit func(*Reading) error) error {
	s := d.get()
	defer d.put(s)
	if err := d.read(s, b, nil); err != nil {
		return err
	}
	return s.emit(emit)
}

// read decodes b into s's readings. labels names integer keys of top-level
// maps.
func (d *cborDecoder) read(s *state, b []byte, labels map[int64]string) error {
	if len(b) > s.o.MaxBytes {
		return s.limit(s.o.MaxBytes, "too many bytes")
	}
	if !d.frugal(b) {
		return s.limit(-1, "too many items")
	}
	var v any
	if err := d.mode.Unmarshal(b, &v); err != nil {
		return s.fail(-1, err.Error())
	}
	s.pos = -1
	list, ok := v.([]any)
	if s.list = ok && (len(list) == 0 || isMap(list[0])); !s.list {
		return s.cborReading(v, 0, labels)
	}
	for _, v := range list {
		if !isMap(v) {
			return s.fail(-1, "an array of readings must hold maps only")
		}
		if err := s.cborReading(v, 1, labels); err != nil {
			return err
		}
	}
	return nil
}

// frugal bounds what the library may build of b before it does: items of all
// arrays and maps together, by their heads. What is not well formed is left
// to the library.
func (d *cborDecoder) frugal(b []byte) bool {
	left := 2*d.o.MaxFields + 2*d.o.MaxReadings + 64
	for i := 0; i < len(b); left-- {
		if left == 0 {
			return false
		}
		major, info := b[i]>>5, b[i]&31
		i++
		var n uint64
		switch {
		case info < 24:
			n = uint64(info)
		case info <= 27:
			size := 1 << (info - 24)
			if len(b)-i < size {
				return true
			}
			for _, c := range b[i : i+size] {
				n = n<<8 | uint64(c)
			}
			i += size
		}
		if (major == 2 || major == 3) && info != 31 {
			if n > uint64(len(b)-i) {
				return true
			}
			i += int(n)
		}
	}
	return true
}

func isMap(v any) bool {
	_, ok := v.(map[any]any)
	return ok
}

func (s *state) cborReading(v any, depth int, labels map[int64]string) error {
	from, err := s.begin()
	if err != nil {
		return err
	}
	if err := s.cborValue(v, depth, labels); err != nil {
		return err
	}
	slices.SortFunc(s.fields[from:], func(a, b Field) int {
		switch {
		case a.Name < b.Name:
			return -1
		case a.Name > b.Name:
			return 1
		}
		return 0
	})
	s.end(from)
	return nil
}

func (s *state) cborValue(v any, depth int, labels map[int64]string) error {
	switch v := v.(type) {
	case nil:
		return nil
	case bool:
		return s.add(BoolValue(v))
	case string:
		return s.add(StringValue(v))
	case []byte:
		return s.add(StringValue(base64.RawURLEncoding.EncodeToString(v)))
	case int64:
		return s.add(IntValue(v))
	case uint64:
		if v <= math.MaxInt64 {
			return s.add(IntValue(int64(v)))
		}
		return s.add(FloatValue(float64(v)))
	case float64:
		return s.add(FloatValue(v))
	case float32:
		return s.add(FloatValue(float64(v)))
	case big.Int:
		f, _ := new(big.Float).SetInt(&v).Float64()
		if math.IsInf(f, 0) {
			return s.fail(-1, "number beyond float64")
		}
		return s.add(FloatValue(f))
	case time.Time:
		return s.add(StringValue(v.UTC().Format(time.RFC3339Nano)))
	case cbor.Tag:
		return s.cborValue(v.Content, depth+1, nil)
	case []any:
		return s.cborArray(v, depth+1)
	case map[any]any:
		return s.cborMap(v, depth+1, labels)
	}
	return nil // simple values without a meaning
}

func (s *state) cborArray(list []any, depth int) error {
	if depth > s.o.MaxDepth {
		return s.limit(-1, "nested too deep")
	}
	var digits [20]byte
	for i, v := range list {
		parent, err := s.push(strconv.AppendInt(digits[:0], int64(i), 10))
		if err != nil {
			return err
		}
		if err := s.cborValue(v, depth, nil); err != nil {
			return err
		}
		s.name = s.name[:parent]
	}
	return nil
}

func (s *state) cborMap(m map[any]any, depth int, labels map[int64]string) error {
	if depth > s.o.MaxDepth {
		return s.limit(-1, "nested too deep")
	}
	// Names may meet: {"1": a, 1: b}. Sorting makes which one wins depend on
	// the payload alone.
	keys := make([]mapKey, 0, len(m))
	for k := range m {
		key := mapKey{any: k}
		switch k := k.(type) {
		case string:
			key.name, key.rank = k, 1
		case int64:
			key.name = cborLabel(k, labels)
		case uint64:
			if k > math.MaxInt64 {
				key.name = strconv.FormatUint(k, 10)
			} else {
				key.name = cborLabel(int64(k), labels)
			}
		default:
			return s.fail(-1, "map keys must be text or integers")
		}
		keys = append(keys, key)
	}
	slices.SortFunc(keys, func(a, b mapKey) int {
		switch {
		case a.name < b.name:
			return -1
		case a.name > b.name:
			return 1
		}
		return a.rank - b.rank
	})
	for _, k := range keys {
		parent, err := s.push([]byte(k.name))
		if err != nil {
			return err
		}
		if err := s.cborValue(m[k.any], depth, nil); err != nil {
			return err
		}
		s.name = s.name[:parent]
	}
	return nil
}

type mapKey struct {
	name string
	rank int // text wins over an integer of the same name
	any  any
}

func cborLabel(k int64, labels map[int64]string) string {
	if name, ok := labels[k]; ok {
		return name
	}
	return strconv.FormatInt(k, 10)
}
