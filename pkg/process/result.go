package process

import (
	"strconv"
	"time"

	"edgehub/pkg/payload"
)

// appendResult appends a window as JSON: the by values, window_start,
// window_end, rev, kind and the computes, in that order. Nothing in it depends
// on wall time, offsets or batching.
func (w *windows) appendResult(dst []byte, k *key, win *window, kind string) []byte {
	dst = append(dst, '{')
	for i, name := range w.spec.By {
		dst = payload.AppendJSONString(dst, name)
		dst = append(dst, ':')
		dst = k.by[i].AppendJSON(dst)
		dst = append(dst, ',')
	}
	start := win.index * w.spec.size
	dst = append(dst, `"window_start":"`...)
	dst = appendTime(dst, start)
	dst = append(dst, `","window_end":"`...)
	dst = appendTime(dst, start+w.spec.size)
	dst = append(dst, `","rev":`...)
	dst = strconv.AppendInt(dst, win.rev, 10)
	dst = append(dst, `,"kind":"`...)
	dst = append(dst, kind...)
	dst = append(dst, '"')
	for i, a := range w.fold(win) {
		dst = append(dst, ',')
		dst = payload.AppendJSONString(dst, w.spec.computes[i].name)
		dst = append(dst, ':')
		dst = a.AppendResult(dst)
	}
	return append(dst, '}')
}

// appendTime appends ms since 1970 as RFC 3339 in UTC, with as many digits of
// the second as it takes.
func appendTime(dst []byte, ms int64) []byte {
	return time.UnixMilli(ms).UTC().AppendFormat(dst, "2006-01-02T15:04:05.999Z07:00")
}

// keySeparator joins the by values in a result's key.
const keySeparator = 0x1f

// maxTime bounds event times, in ms: the end of the year 9999, less what the
// largest window and history may add.
const maxTime = 253402300799999 - 2*366*24*3600*1000
