package payload

import (
	"math"
	"strconv"
	"unicode/utf8"
)

// ValueKind is the type of a Value.
type ValueKind uint8

// The kinds of values. The zero Value has none: it is a missing field.
const (
	Missing ValueKind = iota
	Int
	Float
	String
	Bool
)

// Value is one number, string or boolean. It is comparable; numbers of both
// kinds that are equal are not ==.
type Value struct {
	kind ValueKind
	bits uint64
	text string
}

// IntValue makes a whole number.
func IntValue(v int64) Value { return Value{kind: Int, bits: uint64(v)} }

// FloatValue makes a number. A whole one within ±2^53 becomes an Int, so that
// 1 and 1.0 are the same value. v must be finite.
func FloatValue(v float64) Value {
	if i := int64(v); v >= -1<<53 && v <= 1<<53 && float64(i) == v {
		return IntValue(i)
	}
	return Value{kind: Float, bits: math.Float64bits(v)}
}

// StringValue makes a string.
func StringValue(s string) Value { return Value{kind: String, text: s} }

// BoolValue makes a boolean.
func BoolValue(b bool) Value {
	if b {
		return Value{kind: Bool, bits: 1}
	}
	return Value{kind: Bool}
}

// Kind is the type of v.
func (v Value) Kind() ValueKind { return v.kind }

// Number is v as a float64; false if v is not a number. Integers beyond 2^53
// are rounded.
func (v Value) Number() (float64, bool) {
	switch v.kind {
	case Int:
		return float64(int64(v.bits)), true
	case Float:
		return math.Float64frombits(v.bits), true
	}
	return 0, false
}

// Int is v as an int64; false if v is not an Int.
func (v Value) Int() (int64, bool) { return int64(v.bits), v.kind == Int }

// Text is v's string; false if v is not a String.
func (v Value) Text() (string, bool) { return v.text, v.kind == String }

// Bool is v's boolean; false if v is not a Bool.
func (v Value) Bool() (val, ok bool) { return v.bits != 0, v.kind == Bool }

// Any is v as float64, string or bool, or nil if it is missing.
func (v Value) Any() any {
	switch v.kind {
	case Int, Float:
		f, _ := v.Number()
		return f
	case String:
		return v.text
	case Bool:
		return v.bits != 0
	}
	return nil
}

// AppendText appends v as plain text: a number in its shortest form, a string
// as it is, true or false; nothing if it is missing.
func (v Value) AppendText(dst []byte) []byte {
	switch v.kind {
	case Int:
		return strconv.AppendInt(dst, int64(v.bits), 10)
	case Float:
		return AppendNumber(dst, math.Float64frombits(v.bits))
	case String:
		return append(dst, v.text...)
	case Bool:
		return strconv.AppendBool(dst, v.bits != 0)
	}
	return dst
}

// AppendJSON appends v as JSON; null if it is missing.
func (v Value) AppendJSON(dst []byte) []byte {
	switch v.kind {
	case String:
		return AppendJSONString(dst, v.text)
	case Missing:
		return append(dst, "null"...)
	}
	return v.AppendText(dst)
}

// AppendNumber appends f in its shortest form that reads back as f, as JSON
// allows it and as ECMAScript writes it: an exponent below 1e-6 and from 1e21
// on. NaN and infinities become null.
func AppendNumber(dst []byte, f float64) []byte {
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return append(dst, "null"...)
	}
	if f == 0 {
		return append(dst, '0') // also -0
	}
	format := byte('f')
	if a := math.Abs(f); a < 1e-6 || a >= 1e21 {
		format = 'e'
	}
	at := len(dst)
	dst = strconv.AppendFloat(dst, f, format, -1, 64)
	if format == 'e' {
		// e-09 → e-9
		if n := len(dst); n-at >= 4 && dst[n-4] == 'e' && dst[n-2] == '0' {
			dst[n-2] = dst[n-1]
			dst = dst[:n-1]
		}
	}
	return dst
}

const hexDigits = "0123456789abcdef"

// AppendJSONString appends s quoted. Only what JSON demands is escaped; bytes
// that are not UTF-8 become U+FFFD.
func AppendJSONString(dst []byte, s string) []byte {
	dst = append(dst, '"')
	for i := 0; i < len(s); {
		c := s[i]
		if c >= utf8.RuneSelf {
			r, n := utf8.DecodeRuneInString(s[i:])
			dst = utf8.AppendRune(dst, r) // RuneError is U+FFFD
			i += n
			continue
		}
		switch {
		case c == '"' || c == '\\':
			dst = append(dst, '\\', c)
		case c == '\n':
			dst = append(dst, '\\', 'n')
		case c == '\r':
			dst = append(dst, '\\', 'r')
		case c == '\t':
			dst = append(dst, '\\', 't')
		case c < 0x20:
			dst = append(dst, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
		default:
			dst = append(dst, c)
		}
		i++
	}
	return append(dst, '"')
}

// Field is a named value.
type Field struct {
	Name  string
	Value Value
}

// Fields are a reading's, each name once, in the order of the payload (CBOR:
// by name).
type Fields []Field

// Get returns the field with that name, or the missing Value.
func (f Fields) Get(name string) Value {
	for i := range f {
		if f[i].Name == name {
			return f[i].Value
		}
	}
	return Value{}
}

// Reading is what a device measured at one moment.
type Reading struct {
	// Time is the event time in ms since 1970; 0: the payload names none.
	Time int64
	// Shift is what to add, in ms, to the time of arrival where Time is 0:
	// SenML times may be relative to now. Usually 0.
	Shift int64
	// TimeBad says that the time field is there and cannot be read as a time.
	TimeBad bool
	// Fields are the values.
	Fields Fields
}
