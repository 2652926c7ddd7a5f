package payload

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
	_ "time/tzdata" // gateways often have no zone files; 450 KB
)

// TimeField says which field holds the event time, and how it is written.
type TimeField struct {
	// Field is the flattened name ("ts", "meta.time"); "" for none.
	Field string
	// Format is unix (seconds, with a fraction or without), unix_ms, rfc3339
	// or a Go layout ("2006-01-02 15:04:05"). Default rfc3339 for strings and
	// unix_ms for numbers.
	Format string
	// Zone is where a layout without an offset is at home, an IANA name.
	// Default UTC.
	Zone string
}

type timer struct {
	field  string
	format string
	zone   *time.Location
}

func (t TimeField) compile() (*timer, error) {
	if t.Field == "" {
		if t.Format != "" || t.Zone != "" {
			return nil, fmt.Errorf("time: format and zone need a field: name the field that holds the time")
		}
		return nil, nil
	}
	c := &timer{field: t.Field, format: t.Format, zone: time.UTC}
	if t.Zone != "" {
		z, err := time.LoadLocation(t.Zone)
		if err != nil {
			return nil, fmt.Errorf("time: zone %q is unknown: use an IANA name such as Europe/Berlin", t.Zone)
		}
		c.zone = z
	}
	switch t.Format {
	case "", "unix", "unix_ms", "rfc3339":
	default:
		// Every layout of use holds a year or day or hour; a layout that
		// formats two moments alike reads none.
		a := time.Date(2001, 2, 3, 4, 5, 6, 0, time.UTC)
		if a.Format(t.Format) == a.AddDate(11, 7, 19).Add(7*time.Hour+8*time.Minute+9*time.Second).Format(t.Format) {
			return nil, fmt.Errorf("time: format %q is no layout: use unix, unix_ms, rfc3339 or a Go layout such as 2006-01-02 15:04:05", t.Format)
		}
	}
	return c, nil
}

// set fills r's time from its fields.
func (t *timer) set(r *Reading) {
	if t == nil {
		return
	}
	v := r.Fields.Get(t.field)
	if v.Kind() == Missing {
		return
	}
	ms, ok := t.read(v)
	if !ok || ms == 0 {
		r.TimeBad = true
		return
	}
	r.Time, r.Shift = ms, 0
}

func (t *timer) read(v Value) (int64, bool) {
	s, isText := v.Text()
	switch t.format {
	case "unix", "unix_ms":
		scale := 1.0
		if t.format == "unix" {
			scale = 1000
		}
		if i, ok := v.Int(); ok {
			if limit := int64(math.MaxInt64) / int64(scale); i > limit || i < -limit {
				return 0, false
			}
			return i * int64(scale), true
		}
		f, ok := v.Number()
		if isText {
			var err error
			f, err = strconv.ParseFloat(strings.TrimSpace(s), 64)
			ok = err == nil
		}
		return toMS(f*scale, ok)
	case "":
		if !isText {
			if i, ok := v.Int(); ok {
				return i, true
			}
			return toMS(v.Number())
		}
	}
	if !isText {
		return 0, false
	}
	var (
		at  time.Time
		err error
	)
	if t.format == "" || t.format == "rfc3339" {
		at, err = time.Parse(time.RFC3339, s)
	} else {
		at, err = time.ParseInLocation(t.format, s, t.zone)
	}
	if err != nil {
		return 0, false
	}
	return at.UnixMilli(), true
}

// toMS rounds to whole ms what lies within ±292,000 years.
func toMS(f float64, ok bool) (int64, bool) {
	if !ok || math.IsNaN(f) || math.Abs(f) > 9.2e15 {
		return 0, false
	}
	return int64(math.Round(f)), true
}
