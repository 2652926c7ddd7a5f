package config

import (
	"fmt"
	"math"
	"net"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// Unlimited is the value of a size or duration written "unlimited".
const Unlimited = -1

var sizeUnits = []struct {
	name  string
	bytes float64
}{
	// Longest first, so that "B" does not take the end of "MB".
	{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"TiB", 1 << 40},
	{"kB", 1e3}, {"KB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"TB", 1e12},
	{"B", 1},
}

// parseSize reads "64MB" (10^6), "64MiB" (2^20) or a plain number of bytes.
func parseSize(s string) (int64, error) {
	text := strings.TrimSpace(s)
	factor := 1.0
	for _, u := range sizeUnits {
		if n, ok := strings.CutSuffix(text, u.name); ok {
			text, factor = strings.TrimSpace(n), u.bytes
			break
		}
	}
	v, err := strconv.ParseFloat(text, 64)
	if err != nil || strings.ContainsAny(text, "xXpPnN_eE") {
		return 0, fmt.Errorf("%q is not a size: write a number with B, KB, MB, GB, KiB, MiB or GiB, as in 64MB", s)
	}
	v *= factor
	if v < 0 || v > math.MaxInt64/2 || v != math.Trunc(v) {
		return 0, fmt.Errorf("size %q is not a whole number of bytes from 0 on", s)
	}
	return int64(v), nil
}

// parseLimit is parseSize, or "unlimited".
func parseLimit(s string) (int64, error) {
	if s == "unlimited" {
		return Unlimited, nil
	}
	v, err := parseSize(s)
	if err == nil && v == 0 {
		return 0, fmt.Errorf("size %q would keep nothing: write a size, or unlimited", s)
	}
	return v, err
}

// parseRate reads bytes a second: "256KB/s", "1MiB/s", "2Mbit/s".
func parseRate(s string) (int64, error) {
	fail := func() (int64, error) {
		return 0, fmt.Errorf("%q is not a rate: write a size per second, as in 256KB/s or 2Mbit/s, or unlimited", s)
	}
	if s == "unlimited" {
		return 0, nil
	}
	text, ok := strings.CutSuffix(strings.TrimSpace(s), "/s")
	if !ok {
		return fail()
	}
	for unit, bits := range map[string]float64{"kbit": 1e3, "Mbit": 1e6, "Gbit": 1e9} {
		if n, ok := strings.CutSuffix(text, unit); ok {
			v, err := strconv.ParseFloat(strings.TrimSpace(n), 64)
			if err != nil || v <= 0 || v > 1e6 {
				return fail()
			}
			return int64(v * bits / 8), nil
		}
	}
	v, err := parseSize(text)
	if err != nil || v == 0 {
		return fail()
	}
	return v, nil
}

// parseDuration reads a Go duration, to which it adds whole days: "7d".
func parseDuration(s string) (time.Duration, error) {
	text := strings.TrimSpace(s)
	if n, ok := strings.CutSuffix(text, "d"); ok {
		if v, err := strconv.ParseInt(n, 10, 32); err == nil && v >= 0 && v <= 36500 {
			return time.Duration(v) * 24 * time.Hour, nil
		}
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		return 0, fmt.Errorf("%q is not a duration: write a number with ms, s, m, h or d, as in 30s or 168h", s)
	}
	if d < 0 {
		return 0, fmt.Errorf("duration %q is negative", s)
	}
	return d, nil
}

// parseKeep is parseDuration, or "unlimited".
func parseKeep(s string) (time.Duration, error) {
	if s == "unlimited" {
		return Unlimited, nil
	}
	d, err := parseDuration(s)
	if err == nil && d == 0 {
		return 0, fmt.Errorf("duration %q would keep nothing: write a duration, or unlimited", s)
	}
	return d, err
}

// parseText takes any text that is not empty.
func parseText(s string) (string, error) {
	if strings.TrimSpace(s) == "" {
		return "", fmt.Errorf("the value is empty: write one, or leave the key out")
	}
	return s, nil
}

func parseBool(s string) (bool, error) {
	switch strings.ToLower(s) {
	case "true":
		return true, nil
	case "false":
		return false, nil
	}
	return false, fmt.Errorf("%q is neither true nor false", s)
}

// parseInt reads a whole number within [lo, hi].
func parseInt[T ~int | ~int32 | ~int64](lo, hi T) func(string) (T, error) {
	return func(s string) (T, error) {
		v, err := strconv.ParseInt(s, 10, 64)
		if err != nil || v < int64(lo) || v > int64(hi) {
			return 0, fmt.Errorf("%q is not a whole number from %d to %d", s, lo, hi)
		}
		return T(v), nil
	}
}

// parseOneOf accepts the names listed.
func parseOneOf(names ...string) func(string) (string, error) {
	return func(s string) (string, error) {
		for _, n := range names {
			if s == n {
				return s, nil
			}
		}
		hint := ""
		if near := suggest(s, names, nil); near != "" {
			hint = fmt.Sprintf(", did you mean %s?", near)
		}
		return "", fmt.Errorf("%q is not one of %s%s", s, strings.Join(names, ", "), hint)
	}
}

// Off is the listen address of a listener that is switched off.
const Off = "off"

// parseListen reads host:port, :port (every interface) or "off".
func parseListen(s string) (string, error) {
	if s == Off {
		return Off, nil
	}
	return parseAddress(s, true)
}

// parseHostPort reads host:port with a host.
func parseHostPort(s string) (string, error) { return parseAddress(s, false) }

func parseAddress(s string, anyHost bool) (string, error) {
	host, port, err := net.SplitHostPort(strings.TrimSpace(s))
	if err != nil {
		hint := ""
		if _, e := strconv.ParseUint(s, 10, 16); e == nil {
			hint = fmt.Sprintf(": write 127.0.0.1:%s for this machine only, or \":%s\" for every interface", s, s)
		} else if !strings.Contains(s, ":") {
			hint = ": the port is missing"
		}
		return "", fmt.Errorf("%q is not host:port%s", s, hint)
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || (n == 0 && !anyHost) {
		return "", fmt.Errorf("port %q of %q is not a number from 0 to 65535", port, s)
	}
	if host == "" && !anyHost {
		return "", fmt.Errorf("%q has no host: write one, as in 127.0.0.1:%s", s, port)
	}
	if strings.ContainsAny(host, " /\\") {
		return "", fmt.Errorf("host %q of %q is not a name or address", host, s)
	}
	return net.JoinHostPort(host, port), nil
}

// parseCoreURL reads the address of a core node: nats, tls, ws or wss.
func parseCoreURL(s string) (string, error) {
	u, err := url.Parse(s)
	if err != nil || u.Host == "" {
		return "", fmt.Errorf("%q is not the address of a core node: write tls://host:4222, or nats:// ws:// wss://", s)
	}
	switch u.Scheme {
	case "nats", "tls", "ws", "wss":
	default:
		return "", fmt.Errorf("scheme %q of %q is unknown: use tls, nats, wss or ws", u.Scheme, s)
	}
	if u.User != nil {
		return "", fmt.Errorf("%q holds a password: name a file by credentials instead", u.Redacted())
	}
	return s, nil
}

// Loopback says whether addr (host:port) is reachable from this machine only
// by what is written: a loopback IP, or localhost. No host is every interface.
func Loopback(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return false
	}
	if host == "localhost" {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

func joinPath(dir, p string) string {
	if p == "" || filepath.IsAbs(p) || dir == "" {
		return p
	}
	return filepath.Join(dir, p)
}

// checkText refuses what no name may hold.
func checkText(s string) error {
	if s == "" {
		return fmt.Errorf("the name is empty")
	}
	if !utf8.ValidString(s) || strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return fmt.Errorf("%q holds control characters", s)
	}
	return nil
}
