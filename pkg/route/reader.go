package route

import (
	"errors"
	"fmt"
	"strings"

	"edgehub/pkg/payload"
)

// payloadReader looks at a payload to check it and to find its event time.
type payloadReader struct {
	decoder payload.Decoder
}

// newPayloadReader is nil for payloads that are not looked at: those that
// cannot be malformed and carry no time. Of an error it names the field.
func newPayloadReader(kind string, tr TimeRule) (*payloadReader, string, error) {
	k := payload.Kind(kind)
	known := false
	for _, other := range payload.Kinds() {
		known = known || k == other
	}
	if !known {
		if kind == "sparkplug" {
			return nil, "payload", errors.New("sparkplug is not yet supported")
		}
		return nil, "payload", fmt.Errorf("%q is unknown; use one of %v", kind, payload.Kinds())
	}
	if tr.Field == "" {
		switch {
		case tr.Format != "":
			return nil, "time.format", errors.New("needs time.field, the name of the payload field that holds the time")
		case tr.Zone != "":
			return nil, "time.zone", errors.New("needs time.field, the name of the payload field that holds the time")
		case tr.MaxFuture != 0:
			return nil, "time.max_future", errors.New("needs time.field, the name of the payload field that holds the time")
		}
		if k == payload.Raw || k == payload.Text || k == payload.Auto {
			return nil, "", nil
		}
	} else if k == payload.Raw {
		return nil, "time.field", errors.New("needs a payload with fields, and raw has none; use json, cbor, senml, text or auto")
	}
	if tr.Zone != "" && !layout(tr.Format) {
		return nil, "time.zone", errors.New("is for layouts of Go's time package; the other formats say their zone themselves")
	}
	d, err := payload.New(k, payload.Options{Time: payload.TimeField{Field: tr.Field, Format: tr.Format, Zone: tr.Zone}})
	if err != nil {
		field := "time.format"
		if strings.Contains(err.Error(), "zone") {
			field = "time.zone"
		}
		return nil, field, errors.New(strings.TrimPrefix(err.Error(), "time: "))
	}
	return &payloadReader{d}, "", nil
}

// layout reports whether a time format is one of Go's time package.
func layout(format string) bool {
	switch format {
	case "", "unix", "unix_ms", "rfc3339":
		return false
	}
	return true
}

// eventTime is what read finds.
type eventTime struct {
	ms  int64 // 0: the payload carries none
	bad bool  // it has one that cannot be read
}

// read checks b and finds its event time: of several readings the latest,
// since only then the payload was complete.
func (r *payloadReader) read(b []byte) (eventTime, error) {
	var at eventTime
	err := r.decoder.Decode(b, func(rd *payload.Reading) error {
		at.bad = at.bad || rd.TimeBad
		if at.ms == 0 || rd.Time > at.ms {
			at.ms = rd.Time
		}
		return nil
	})
	return at, err
}

// reason is the short text of a decoder's error.
func reason(err error) string {
	if e := (*payload.Error)(nil); errors.As(err, &e) {
		if e.Offset >= 0 {
			return fmt.Sprintf("%s: %s at byte %d", e.Kind, e.What, e.Offset)
		}
		return fmt.Sprintf("%s: %s", e.Kind, e.What)
	}
	return err.Error()
}
