// Package route decides what an MQTT message becomes in the log: which topic,
// which key, which time, or that it is dropped.
//
// A Table is compiled from the rules of the configuration and is immutable;
// all its methods may be called from any goroutine. It is a leaf: it reads no
// clock and does no I/O.
package route

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"edgehub/pkg/log/record"
)

// DefaultTopic is the log topic of messages that no rule matches. Their key
// is the MQTT topic.
const DefaultTopic = "mqtt"

// DefaultMaxFuture is how far ahead of a trusted clock an event time may be.
const DefaultMaxFuture = 5 * time.Minute

// Rule is one entry of the configuration's routes.
type Rule struct {
	Match   string // pattern: literal levels, {name}, +, and a last #
	Topic   string // log topic; required unless Drop
	Key     string // template of {captures} and {topic}; "": the MQTT topic
	Payload string // json, cbor, senml, text, raw or auto; "": auto
	Time    TimeRule
	Drop    bool   // not stored at all
	Site    string // value of header site; "": the one given to ForSite
}

// TimeRule says where a payload carries its event time. The zero TimeRule:
// nowhere, the record has the time of its arrival. (SenML has a place of its
// own for it and needs no rule.)
type TimeRule struct {
	Field  string // name of the payload field; names of nested fields are joined by dots
	Format string // unix, unix_ms, rfc3339 or a layout of Go's time package; "": unix_ms for numbers, rfc3339 for strings
	Zone   string // IANA name, for layouts without one; "": UTC
	// MaxFuture is how far ahead of a trusted clock an event time may be.
	// 0: DefaultMaxFuture.
	MaxFuture time.Duration
}

// RuleError is what is wrong with one field of one rule.
type RuleError struct {
	Index int    // of the rule, from 0
	Field string // "match", "topic", "key", "payload", "time.field", "time.format", "time.zone", "time.max_future"
	Msg   string
}

func (e *RuleError) Error() string {
	return fmt.Sprintf("route %d: %s %s", e.Index+1, e.Field, e.Msg)
}

// Table is a compiled list of rules.
type Table struct {
	rules []rule
	def   rule // of what no rule matches
	site  string
}

type rule struct {
	index     int // in the configuration, -1: the default rule
	pattern   pattern
	topic     string
	key       template
	kind      string
	reader    *payloadReader // nil: the payload is not looked at
	maxFuture time.Duration
	drop      bool
	site      string
}

// Compile checks the rules and compiles them. It reports every error that it
// finds, joined, each a *RuleError. No rules at all are a valid table, which
// sends everything to DefaultTopic.
func Compile(rules []Rule) (*Table, error) {
	t := &Table{def: rule{index: -1, topic: DefaultTopic, kind: "auto"}}
	var errs []error
	for i := range rules {
		r, err := compileRule(i, &rules[i])
		if err != nil {
			errs = append(errs, err)
			continue
		}
		t.rules = append(t.rules, r)
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return t, nil
}

func compileRule(i int, in *Rule) (rule, error) {
	r := rule{index: i, topic: in.Topic, kind: in.Payload, maxFuture: in.Time.MaxFuture, drop: in.Drop, site: in.Site}
	var errs []error
	bad := func(field, format string, args ...any) {
		errs = append(errs, &RuleError{i, field, fmt.Sprintf(format, args...)})
	}
	var err error
	matched := true
	if r.pattern, err = parsePattern(in.Match); err != nil {
		matched = false
		if in.Match == "" {
			bad("match", "%v", err)
		} else {
			bad("match", "%q %v", in.Match, err)
		}
	}
	if in.Drop {
		return r, errors.Join(errs...)
	}
	switch {
	case in.Topic == "":
		bad("topic", "is missing; name the log topic, or say drop: true")
	case strings.HasPrefix(in.Topic, record.InternalPrefix):
		bad("topic", "%q: names that begin with %s are the hub's own", in.Topic, record.InternalPrefix)
	default:
		if err := record.CheckTopicName(in.Topic); err != nil {
			bad("topic", "%v", err)
		}
	}
	if matched { // else every capture would be unknown
		if r.key, err = parseTemplate(in.Key, r.pattern.names); err != nil {
			bad("key", "%v", err)
		}
	}
	if r.maxFuture < 0 {
		bad("time.max_future", "%v is negative", r.maxFuture)
	} else if r.maxFuture == 0 {
		r.maxFuture = DefaultMaxFuture
	}
	if r.kind == "" {
		r.kind = "auto"
	}
	var field string
	if r.reader, field, err = newPayloadReader(r.kind, in.Time); err != nil {
		bad(field, "%v", err)
	}
	return r, errors.Join(errs...)
}

// Unreached names the rules that no topic can reach because an earlier one
// takes everything that they match. They are no errors, but nobody writes one
// on purpose. It finds the plain cases, not every one.
func (t *Table) Unreached() []*RuleError {
	var out []*RuleError
	for i := range t.rules {
		for j := range i {
			if t.rules[j].pattern.covers(&t.rules[i].pattern) {
				out = append(out, &RuleError{t.rules[i].index, "match", fmt.Sprintf(
					"is never reached: route %d takes everything that it matches; put the narrower one first", t.rules[j].index+1)})
				break
			}
		}
	}
	return out
}

// ForSite returns the table with another value for header site, for the
// default rule and for all rules that name none.
func (t *Table) ForSite(site string) *Table {
	c := *t
	c.site = site
	return &c
}

// Match is what a topic matched. Its zero value is meaningless. It holds
// slices of the topic that was matched.
type Match struct {
	rule   *rule
	values [MaxCaptures]string
}

// Match finds the first rule that matches; ok is false when none does and m
// is the default rule. It does not allocate.
func (t *Table) Match(mqttTopic string) (m Match, ok bool) {
	for i := range t.rules {
		if t.rules[i].pattern.match(mqttTopic, &m.values) {
			m.rule = &t.rules[i]
			return m, true
		}
	}
	m.rule = &t.def
	return m, false
}

// Topic is the log topic that the message goes to; "" if it is dropped.
func (m *Match) Topic() string {
	if m.rule.drop {
		return ""
	}
	return m.rule.topic
}

// Drop reports whether the message is not to be stored.
func (m *Match) Drop() bool { return m.rule.drop }

// Rule is the index of the rule in the configuration, -1 for the default.
func (m *Match) Rule() int { return m.rule.index }

// Captures calls f with the name and the value of each capture, in the
// pattern's order.
func (m *Match) Captures(f func(name, value string)) {
	for i, name := range m.rule.pattern.names {
		f(name, m.values[i])
	}
}

// PayloadOf is the payload kind of the first rule that leads to a log topic,
// "auto" if none does.
func (t *Table) PayloadOf(topic string) string {
	for i := range t.rules {
		if !t.rules[i].drop && t.rules[i].topic == topic {
			return t.rules[i].kind
		}
	}
	return t.def.kind
}

// Topics returns every log topic that a rule names, once each, in the order
// of the rules. DefaultTopic is among them only if a rule names it.
func (t *Table) Topics() []string {
	var out []string
	for i := range t.rules {
		if !t.rules[i].drop && !slices.Contains(out, t.rules[i].topic) {
			out = append(out, t.rules[i].topic)
		}
	}
	return out
}
