package process

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"time"

	"edgehub/internal/expr"
	"edgehub/pkg/log/record"
	"edgehub/pkg/process/agg"
)

// Window says how event time is cut. Kind is tumbling, the default.
type Window struct {
	Kind string
	Size time.Duration // whole ms, 10 ms to 366 days
}

// ParseWindow reads "tumbling 1m". Kinds that the contract has and that are
// not built yet say so.
func ParseWindow(s string) (Window, error) {
	f := strings.Fields(s)
	if len(f) == 0 {
		return Window{}, fmt.Errorf("window is empty: use tumbling 1m")
	}
	switch f[0] {
	case "hopping", "session", "count", "calendar":
		return Window{}, fmt.Errorf("window %q is not yet supported: use tumbling 1m", f[0])
	case "tumbling":
	default:
		return Window{}, fmt.Errorf("window %q is unknown: use tumbling 1m", f[0])
	}
	if len(f) != 2 {
		return Window{}, fmt.Errorf("window %q: use tumbling and one duration, as in tumbling 1m", s)
	}
	d, err := time.ParseDuration(f[1])
	if err != nil {
		return Window{}, fmt.Errorf("window %q: %q is no duration: use 30s, 1m, 2h", s, f[1])
	}
	w := Window{Kind: "tumbling", Size: d}
	return w, w.check()
}

func (w *Window) check() error {
	if w.Kind != "" && w.Kind != "tumbling" {
		return fmt.Errorf("window %q is not yet supported: use tumbling", w.Kind)
	}
	if w.Size < 10*time.Millisecond || w.Size > 366*24*time.Hour || w.Size%time.Millisecond != 0 {
		return fmt.Errorf("window of %v: use whole milliseconds from 10ms to 8784h", w.Size)
	}
	return nil
}

// Compute is one member of a result: an aggregate of an expression.
type Compute struct {
	Name string // of the member
	Expr string // "mean(temperature)", "count()"
}

// Definition is a process as configured.
type Definition struct {
	// Name is unique among an engine's processes; snapshots and progress are
	// kept under it, so it is also a file name: 1 to 128 of a-z A-Z 0-9 . _ -
	Name string
	From string   // input topic
	To   string   // output topic; late records go to "<To>.late"
	By   []string // group: captures or payload fields; none: the record key
	// Where passes records for which it is true; "" passes all.
	Where   string
	Window  Window
	Grace   time.Duration // a window waits so long behind its end; default 0
	Emit    string        // close, the default
	Compute []Compute     // at least one, in the order of the result's members

	// Amend is how long behind its end, by the key's own clock, a closed
	// window still takes late records and is issued again. Default 24h;
	// AmendOff: not at all.
	Amend time.Duration
	// History bounds how far behind the key's own clock a record may lie at
	// all. Default 7 days, at least one window.
	History time.Duration
	// Idle is how long nothing must come of a key until a trusted wall clock
	// may close its windows. Default the larger of Grace and 30s.
	Idle time.Duration

	// MaxKeys and MaxOpen bound the keys and the open windows of a task, and
	// MaxClosed the closed windows that it keeps for amending; a window counts
	// once per device (input key) in it. Beyond MaxKeys
	// or MaxOpen the key least recently heard of has its windows closed at
	// once; beyond MaxClosed the windows closed first are forgotten, so that
	// their late records go to the late topic. Defaults 50,000, 100,000 and
	// 50,000.
	MaxKeys, MaxOpen, MaxClosed int
}

// AmendOff as Definition.Amend: late records always go to the late topic.
const AmendOff time.Duration = -1

// Defaults of a Definition.
const (
	DefaultAmend   = 24 * time.Hour
	DefaultHistory = 7 * 24 * time.Hour
	minIdle        = 30 * time.Second
)

// LateSuffix ends the name of the topic of late records.
const LateSuffix = ".late"

func (d *Definition) ensureDefaults() {
	if d.Amend == 0 {
		d.Amend = DefaultAmend
	}
	if d.Amend == AmendOff {
		d.Amend = 0
	}
	if d.History == 0 {
		d.History = DefaultHistory
	}
	d.History = max(d.History, d.Window.Size)
	if d.Idle == 0 {
		d.Idle = max(d.Grace, minIdle)
	}
	for _, b := range []struct {
		p *int
		v int
	}{{&d.MaxKeys, 50_000}, {&d.MaxOpen, 100_000}, {&d.MaxClosed, 50_000}} {
		if *b.p == 0 {
			*b.p = b.v
		}
	}
}

// maxGraceWindows bounds Grace, in windows: so many may be open of one key.
const maxGraceWindows = 10_000

// reserved are the members that every result has.
var reserved = []string{"window_start", "window_end", "rev", "kind"}

// validate checks d with its defaults filled in; errors say which field.
func (d *Definition) validate() error {
	if err := checkName(d.Name); err != nil {
		return fmt.Errorf("name: %w", err)
	}
	if err := record.CheckTopicName(d.From); err != nil {
		return fmt.Errorf("from: %w", err)
	}
	if err := record.CheckTopicName(d.To); err != nil {
		return fmt.Errorf("to: %w", err)
	}
	if err := record.CheckTopicName(d.To + LateSuffix); err != nil {
		return fmt.Errorf("to: the topic of late records: %w", err)
	}
	if d.From == d.To || d.From == d.To+LateSuffix {
		return fmt.Errorf("to: %q is what the process reads: results need a topic of their own", d.To)
	}
	for _, topic := range []string{d.From, d.To} {
		if strings.HasPrefix(topic, record.InternalPrefix) {
			return fmt.Errorf("topic %q is internal: processes read and write topics of their users only", topic)
		}
	}
	if err := d.Window.check(); err != nil {
		return err
	}
	switch d.Emit {
	case "", "close":
	default:
		return fmt.Errorf("emit: %q is not yet supported: use close", d.Emit)
	}
	if d.Grace < 0 || d.Grace%time.Millisecond != 0 || d.Grace/d.Window.Size > maxGraceWindows {
		return fmt.Errorf("grace of %v: use whole milliseconds, from 0 to %d windows", d.Grace, maxGraceWindows)
	}
	if d.Amend < 0 || d.History < 0 || d.Idle < 0 || d.MaxKeys < 1 || d.MaxOpen < 1 || d.MaxClosed < 1 {
		return fmt.Errorf("amend, history, idle and limits must not be negative")
	}
	for _, by := range d.By {
		if by == "" || slices.Contains(reserved, by) {
			return fmt.Errorf("by: %q cannot be a member of the result: choose another name", by)
		}
	}
	if len(d.Compute) == 0 {
		return fmt.Errorf("compute: nothing is computed: name at least one, as in n: count()")
	}
	seen := slices.Clone(d.By)
	for i := range seen {
		if slices.Contains(seen[:i], seen[i]) {
			return fmt.Errorf("by: %q is there twice", seen[i])
		}
	}
	for _, c := range d.Compute {
		if c.Name == "" || slices.Contains(reserved, c.Name) || slices.Contains(seen, c.Name) {
			return fmt.Errorf("compute: the name %q is empty or taken: choose another", c.Name)
		}
		seen = append(seen, c.Name)
	}
	return nil
}

func checkName(s string) error {
	ok := s != "" && len(s) <= 128 && s[0] != '.'
	for i := range len(s) {
		c := s[i]
		ok = ok && ('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '.' || c == '_' || c == '-')
	}
	if !ok {
		return fmt.Errorf("%q: use 1 to 128 of a-z A-Z 0-9 . _ - and begin with no point", s)
	}
	return nil
}

// hash is of everything in a definition that its results depend on. Where it
// changes, state cannot be carried on.
func (d *Definition) hash() (h [16]byte) {
	var b []byte
	text := func(s string) { b = append(binary.AppendUvarint(b, uint64(len(s))), s...) }
	num := func(v int64) { b = binary.AppendVarint(b, v) }
	text("windows 1") // version of the semantics
	text(d.Name)
	text(d.From)
	text(d.To)
	text(d.Where)
	num(int64(len(d.By)))
	for _, s := range d.By {
		text(s)
	}
	text("tumbling")
	num(int64(d.Window.Size))
	num(int64(d.Grace))
	num(int64(d.Amend))
	num(int64(d.History))
	num(int64(d.MaxKeys))
	num(int64(d.MaxOpen))
	num(int64(d.MaxClosed))
	for _, c := range d.Compute {
		text(c.Name)
		text(c.Expr)
	}
	sum := sha256.Sum256(b)
	copy(h[:], sum[:])
	return h
}

// spec is a definition made ready for one task: expressions keep scratch
// space, so every task has its own. Times are in ms.
type spec struct {
	Definition
	id                                [16]byte
	size, grace, amend, history, idle int64
	where                             *expr.Filter // nil: all
	computes                          []compute
}

type compute struct {
	name  string
	agg   agg.Spec
	value *expr.Scalar // nil: count()
}

// compile checks d and makes it ready. Errors of expressions are *expr.Error.
func compile(d Definition) (*spec, error) {
	d.ensureDefaults()
	if err := d.validate(); err != nil {
		return nil, err
	}
	s := &spec{
		Definition: d, id: d.hash(),
		size: d.Window.Size.Milliseconds(), grace: d.Grace.Milliseconds(),
		amend: d.Amend.Milliseconds(), history: d.History.Milliseconds(), idle: d.Idle.Milliseconds(),
	}
	if d.Where != "" {
		f, err := expr.CompileFilter(d.Where)
		if err != nil {
			return nil, fmt.Errorf("where: %w", err)
		}
		s.where = f
	}
	for _, c := range d.Compute {
		cc, err := compileCompute(c)
		if err != nil {
			return nil, fmt.Errorf("compute.%s: %w", c.Name, err)
		}
		s.computes = append(s.computes, cc)
	}
	return s, nil
}

func compileCompute(c Compute) (compute, error) {
	out := compute{name: c.Name}
	call, err := expr.ParseCall(c.Expr)
	if err != nil {
		return out, err
	}
	sp, ok := agg.Lookup(call.Name)
	if !ok {
		return out, call.Fail(-1, "aggregate %s is unknown: use one of %s", call.Name, agg.Names())
	}
	switch n := len(call.Args); {
	case n < sp.MinArgs:
		return out, call.Fail(-1, "%s wants an argument, as in %s(temperature)", sp.Name, sp.Name)
	case n > sp.MaxArgs:
		return out, call.Fail(sp.MaxArgs, "%s takes no more than %d argument", sp.Name, sp.MaxArgs)
	}
	out.agg = sp
	if len(call.Args) > 0 {
		if out.value, err = call.Scalar(0); err != nil {
			return out, err
		}
	}
	return out, nil
}

// Check says what is wrong with a definition, without an engine.
func Check(d Definition) error {
	if _, err := compile(d); err != nil {
		return fmt.Errorf("process %q: %w", d.Name, err)
	}
	return nil
}
