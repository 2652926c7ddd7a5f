package kafka

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"reflect"
	"runtime"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// fill sets every exported field of a request to something random, with up to
// depth levels of non-empty slices. Known tagged fields are set, too.
func fill(r *rand.Rand, v reflect.Value, depth int) {
	switch v.Kind() {
	case reflect.Pointer:
		if v.Type().Elem().Kind() == reflect.Struct || r.IntN(4) > 0 {
			if v.IsNil() {
				v.Set(reflect.New(v.Type().Elem()))
			}
			fill(r, v.Elem(), depth)
		}
	case reflect.Struct:
		if tags, ok := v.Addr().Interface().(*kmsg.Tags); ok {
			for range r.IntN(3) {
				tags.Set(uint32(50+r.IntN(500)), make([]byte, r.IntN(5)))
			}
			return
		}
		for i := range v.NumField() {
			if v.Type().Field(i).Name != "Version" {
				fill(r, v.Field(i), depth)
			}
		}
	case reflect.Slice:
		n := r.IntN(4)
		if depth == 0 {
			n = 0
		}
		s := reflect.MakeSlice(v.Type(), n, n)
		for i := range n {
			fill(r, s.Index(i), depth-1)
		}
		v.Set(s)
	case reflect.Array:
		for i := range v.Len() {
			fill(r, v.Index(i), depth)
		}
	case reflect.String:
		v.SetString(fmt.Sprint("s", r.IntN(1000)))
	case reflect.Bool:
		v.SetBool(r.IntN(2) == 0)
	case reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		v.SetInt(r.Int64() >> r.IntN(64))
	case reflect.Uint8:
		v.SetUint(uint64(r.IntN(256)))
	default:
		panic(v.Kind())
	}
}

// The walk takes exactly what kmsg writes, for every key and version, and
// nothing shorter.
func TestWalkMatchesKmsg(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for _, a := range apiTable() {
		for v := a.min; v <= a.max; v++ {
			for range 200 {
				req := a.request()
				fill(r, reflect.ValueOf(req), 4)
				req.SetVersion(v)
				body := req.AppendTo(nil)
				n, err := a.schema.walk(v, body)
				if err != nil || n != len(body) {
					t.Fatalf("%s v%d: walked %d of %d bytes: %v\n%x", a.name, v, n, len(body), err, body)
				}
				if got := a.request(); true {
					got.SetVersion(v)
					if err := got.ReadFrom(body); err != nil {
						t.Fatalf("%s v%d: kmsg does not read what it wrote: %v", a.name, v, err)
					}
				}
				if req.IsFlexible() != a.schema.isFlexible(v) {
					t.Fatalf("%s v%d: flexible is %v", a.name, v, req.IsFlexible())
				}
				if n, err := a.schema.walk(v, append(body[:len(body):len(body)], 1, 2, 3)); err != nil || n != len(body) {
					t.Fatalf("%s v%d: bytes behind the body: %d, %v", a.name, v, n, err)
				}
				for cut := range len(body) {
					if n, err := a.schema.walk(v, body[:cut]); err == nil && kmsgReads(&a, v, body[:n]) != nil {
						t.Fatalf("%s v%d: accepts %d of %d bytes, kmsg does not", a.name, v, cut, len(body))
					}
				}
			}
		}
	}
}

func kmsgReads(a *api, v int16, body []byte) error {
	req := a.request()
	req.SetVersion(v)
	return req.ReadFrom(body)
}

func TestWalkBombs(t *testing.T) {
	tagBomb := []byte{0x80, 0x80, 0x80, 0x80, 0x01} // 2^28
	many := binary.BigEndian.AppendUint32(nil, 1<<17)
	many = append(many, make([]byte, 1<<20)...)
	flexible := binary.AppendUvarint(nil, 1<<17)
	flexible = append(flexible, make([]byte, 1<<20)...)
	manyTags := binary.AppendUvarint([]byte{1, 1}, maxTags+1)
	manyTags = append(manyTags, make([]byte, 4*maxTags)...)
	for _, tc := range []struct {
		name    string
		key     int16
		version int16
		body    []byte
		want    error
	}{
		{"tags of ApiVersions", keyApiVersions, 3, append([]byte{1, 1}, tagBomb...), errBody},
		{"tags with bytes behind", keyApiVersions, 3, manyTags, errTags},
		{"tags of an element", keyMetadata, 9, append([]byte{2, 2, 'a'}, tagBomb...), errBody},
		{"tags in the tag of Fetch's replica state", keyFetch, 12, func() []byte {
			b := make([]byte, 4+4+4+4+1+4+4)
			b = append(b, 1, 1, 1) // no topics, no forgotten ones, no rack
			b = append(b, 1, 1, 12+5)
			b = append(b, make([]byte, 12)...)
			return append(b, tagBomb...)
		}(), errBody},
		{"array longer than the body", keyMetadata, 1, []byte{0x7f, 0xff, 0xff, 0xff}, errBody},
		{"negative array", keyMetadata, 1, []byte{0x80, 0, 0, 0}, errBody},
		{"array of empty names", keyMetadata, 1, many, errElements},
		{"compact array of empty names", keyMetadata, 9, flexible, errElements},
		{"nested arrays", keyProduce, 3, func() []byte {
			b := []byte{0xff, 0xff, 0, 1, 0, 0, 0, 0}
			b = binary.BigEndian.AppendUint32(b, 1000)
			for range 1000 {
				b = append(b, 0, 0)
				b = binary.BigEndian.AppendUint32(b, 100)
				for range 100 {
					b = append(b, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff)
				}
			}
			return b
		}(), errElements},
		{"string longer than the body", keyFindCoordinator, 0, []byte{0x7f, 0xff}, errBody},
		{"null where there must be a string", keyFindCoordinator, 0, []byte{0xff, 0xff}, errBody},
		{"varint without an end", keyApiVersions, 3, bytes.Repeat([]byte{0xff}, 20), errBody},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var a api
			for _, x := range apiTable() {
				if x.key == tc.key {
					a = x
				}
			}
			// A walk that believed the counts would not come back for seconds
			// to minutes, which the test's time limit and AllocsPerRun's
			// eleven runs show.
			if _, err := a.schema.walk(tc.version, tc.body); err != tc.want {
				t.Fatalf("%v, want %v", err, tc.want)
			}
			if n := testing.AllocsPerRun(10, func() { a.schema.walk(tc.version, tc.body) }); n != 0 {
				t.Errorf("%v allocations", n)
			}
		})
	}
	t.Run("header", func(t *testing.T) {
		if _, _, err := parseClient(append([]byte{0xff, 0xff}, tagBomb...), true); err == nil {
			t.Error("accepted")
		}
	})
}

// FuzzWalk: what the walk accepts, kmsg decodes without error, without panic
// and with memory in proportion to the bounds of the walk.
func FuzzWalk(f *testing.F) {
	r := rand.New(rand.NewPCG(3, 4))
	apis := apiTable()
	for i, a := range apis {
		for v := a.min; v <= a.max; v++ {
			for range 3 {
				req := a.request()
				fill(r, reflect.ValueOf(req), 4)
				req.SetVersion(v)
				f.Add(uint8(i), uint8(v), req.AppendTo(nil))
			}
		}
	}
	f.Fuzz(func(t *testing.T, which, version uint8, body []byte) {
		a := &apis[int(which)%len(apis)]
		v := a.min + int16(version)%(a.max-a.min+1)
		n, err := a.schema.walk(v, body)
		if err != nil {
			return
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		if err := kmsgReads(a, v, body[:n]); err != nil {
			t.Fatalf("%s v%d: the walk accepts %x, kmsg says %v", a.name, v, body[:n], err)
		}
		runtime.ReadMemStats(&after)
		if got, bound := after.TotalAlloc-before.TotalAlloc, uint64(200*len(body)+64<<10); got > bound {
			t.Errorf("%s v%d: %d bytes allocated for a body of %d", a.name, v, got, len(body))
		}
	})
}
