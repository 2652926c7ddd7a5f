package route

import (
	"strconv"

	"edgehub/pkg/log/record"
)

// headers appends to a record's headers and uses the values' buffers again
// that lie behind the slice's length.
type headers struct {
	fields []record.Field
}

func (h *headers) next(name string) *record.Field {
	if n := len(h.fields); n < cap(h.fields) {
		h.fields = h.fields[:n+1]
	} else {
		h.fields = append(h.fields, record.Field{})
	}
	f := &h.fields[len(h.fields)-1]
	f.Key = name
	if f.Value == nil {
		f.Value = []byte{} // empty, not null
	}
	f.Value = f.Value[:0]
	return f
}

func (h *headers) add(name, value string) {
	f := h.next(name)
	f.Value = append(f.Value, value...)
}

func (h *headers) addInt(name string, v int64) {
	f := h.next(name)
	f.Value = strconv.AppendInt(f.Value, v, 10)
}
