package main

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"strconv"
	"unicode/utf8"

	"github.com/twmb/franz-go/pkg/kgo"
)

// appendRecord appends a record as one JSON object without a line break.
// Nothing is lost but the order among headers of different names.
func appendRecord(b []byte, r *kgo.Record) []byte {
	b = append(b, `{"topic":`...)
	b = appendString(b, r.Topic)
	b = append(b, `,"partition":`...)
	b = strconv.AppendInt(b, int64(r.Partition), 10)
	b = append(b, `,"offset":`...)
	b = strconv.AppendInt(b, r.Offset, 10)
	b = append(b, `,"timestamp":`...)
	b = strconv.AppendInt(b, r.Timestamp.UnixMilli(), 10)
	b = append(b, `,"key":`...)
	b, packed := appendBytes(b, r.Key)
	if packed {
		b = append(b, `,"key_encoding":"base64"`...)
	}
	b = append(b, `,"value":`...)
	b, packed = appendBytes(b, r.Value)
	if packed {
		b = append(b, `,"encoding":"base64"`...)
	}
	b = append(b, `,"headers":{`...)
	b = appendHeaders(b, r.Headers)
	return append(b, "}}"...)
}

// appendHeaders appends the members: each name once, at its first place.
func appendHeaders(b []byte, hs []kgo.RecordHeader) []byte {
	first := true
	for i, h := range hs {
		n, earlier := 0, false
		for j := range hs {
			if hs[j].Key == h.Key {
				n++
				earlier = earlier || j < i
			}
		}
		if earlier {
			continue
		}
		if !first {
			b = append(b, ',')
		}
		first = false
		b = append(appendString(b, h.Key), ':')
		if n == 1 {
			b = appendHeader(b, h.Value)
			continue
		}
		b = append(b, '[')
		sep := false
		for _, o := range hs {
			if o.Key != h.Key {
				continue
			}
			if sep {
				b = append(b, ',')
			}
			b, sep = appendHeader(b, o.Value), true
		}
		b = append(b, ']')
	}
	return b
}

func appendHeader(b, v []byte) []byte {
	if v != nil && !utf8.Valid(v) {
		b = append(b, `{"base64":`...)
		b, _ = appendBytes(b, v)
		return append(b, '}')
	}
	b, _ = appendBytes(b, v)
	return b
}

// appendBytes appends null, a string, or base64 (packed) if v is not UTF-8.
func appendBytes(b, v []byte) (out []byte, packed bool) {
	switch {
	case v == nil:
		return append(b, "null"...), false
	case utf8.Valid(v):
		return appendString(b, string(v)), false
	}
	b = append(b, '"')
	b = base64.StdEncoding.AppendEncode(b, v)
	return append(b, '"'), true
}

func appendString(b []byte, s string) []byte {
	var buf bytes.Buffer
	e := json.NewEncoder(&buf)
	e.SetEscapeHTML(false)
	if err := e.Encode(s); err != nil {
		panic(err) // a string cannot fail
	}
	return append(b, bytes.TrimSuffix(buf.Bytes(), []byte("\n"))...)
}
