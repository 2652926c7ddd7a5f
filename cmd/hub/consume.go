package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

type consume struct {
	client
	io        console
	topic     string
	from      string
	count     int64
	follow    bool
	partition int32
}

func newConsume(io console) *cobra.Command {
	c := &consume{io: io}
	cmd := &cobra.Command{
		Use:   "consume TOPIC",
		Short: "Print the records of a topic",
		Long: `Print the records of a topic, from all its partitions, those of each in order.

Without --follow it ends at the end that each partition had when it began. The
value is printed on a line of its own; with --json a line is an object:

  {"topic":…,"partition":…,"offset":…,"timestamp":ms,"key":…,"value":…,"headers":{…}}

A key, value or header that is null is null. A value that is not UTF-8 is base64
with "encoding":"base64", a key with "key_encoding":"base64"; such a header is
{"base64":…}. A header that stands more than once has a list of its values.`,
		Args: argument("a TOPIC"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c.topic = args[0]
			return c.run(cmd.Context())
		},
	}
	c.flags(cmd)
	f := cmd.Flags()
	f.StringVar(&c.from, "from", "start", "start, end, an offset, a time (2026-01-31T08:00:00Z, 2026-01-31) or how long ago (10m)")
	f.Int64Var(&c.count, "count", 0, "end after as many records; 0: no limit")
	f.BoolVar(&c.follow, "follow", false, "wait for new records")
	f.Int32Var(&c.partition, "partition", -1, "only this partition; -1: all")
	return cmd
}

// span is what is to be read of a partition: [next, end).
type span struct{ next, end int64 }

// How silence below the end of a partition is judged: after quietAsk the hub is
// asked whether it still has that end. If it says so and stays silent for
// quietAsk again, what is missing is a hole, which the hub reports by itself.
// Without an answer (a leader is being elected) it is a failure after quietFail.
const (
	quietAsk  = 5 * time.Second
	quietFail = 60 * time.Second
)

func (c *consume) run(ctx context.Context) error {
	if c.count < 0 {
		return usagef("--count %d is negative", c.count)
	}
	start, err := parseStart(c.from, time.Now())
	if err != nil {
		return err
	}
	cl, err := c.dial(ctx)
	if err != nil {
		return err
	}
	spans, err := c.spans(ctx, cl, start)
	cl.Close()
	if err != nil {
		return err
	}
	offsets := map[int32]kgo.Offset{}
	for p, s := range spans {
		if c.follow || s.next < s.end {
			offsets[p] = kgo.NewOffset().At(s.next)
		} else {
			delete(spans, p)
		}
	}
	if len(offsets) == 0 {
		return nil
	}
	cl, err = c.dial(ctx,
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{c.topic: offsets}),
		kgo.FetchMaxWait(time.Second), kgo.FetchMaxPartitionBytes(4<<20),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.KeepControlRecords(), // there are none; should there be, offsets must still be dense
	)
	if err != nil {
		return err
	}
	defer cl.Close()
	return c.read(ctx, cl, spans)
}

// spans finds what to read.
func (c *consume) spans(ctx context.Context, cl *kgo.Client, at start) (map[int32]*span, error) {
	d, err := c.client.topic(ctx, cl, c.topic)
	if err != nil {
		return nil, err
	}
	adm := kadm.NewClient(cl)
	starts, err := adm.ListStartOffsets(ctx, c.topic)
	if err == nil {
		err = starts.Error()
	}
	if err != nil {
		return nil, fmt.Errorf("ask %s for the start of %s: %w", c.server, c.topic, err)
	}
	ends, err := adm.ListEndOffsets(ctx, c.topic)
	if err == nil {
		err = ends.Error()
	}
	if err != nil {
		return nil, fmt.Errorf("ask %s for the end of %s: %w", c.server, c.topic, err)
	}
	var times kadm.ListedOffsets
	if at.kind == atTime {
		times, err = adm.ListOffsetsAfterMilli(ctx, at.value, c.topic)
		if err == nil {
			err = times.Error()
		}
		if err != nil {
			return nil, fmt.Errorf("ask %s for offsets by time: %w", c.server, err)
		}
	}
	out := map[int32]*span{}
	for _, p := range d.Partitions.Sorted() {
		if c.partition >= 0 && p.Partition != c.partition {
			continue
		}
		lo, _ := starts.Lookup(c.topic, p.Partition)
		hi, _ := ends.Lookup(c.topic, p.Partition)
		s := &span{next: lo.Offset, end: hi.Offset}
		switch at.kind {
		case atEnd:
			s.next = hi.Offset
		case atOffset:
			s.next = min(max(at.value, lo.Offset), hi.Offset)
			if at.value < lo.Offset {
				fmt.Fprintf(c.io.err, "hub: %s partition %d begins at offset %d\n", c.topic, p.Partition, lo.Offset)
			}
		case atTime:
			s.next = hi.Offset
			if t, ok := times.Lookup(c.topic, p.Partition); ok && t.Offset >= 0 {
				s.next = t.Offset
			}
		}
		out[p.Partition] = s
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("topic %s has no partition %d: it has 0 to %d", c.topic, c.partition, len(d.Partitions)-1)
	}
	return out, nil
}

func (c *consume) read(ctx context.Context, cl *kgo.Client, spans map[int32]*span) error {
	w := bufio.NewWriterSize(c.io.out, 64<<10)
	defer w.Flush()
	var line []byte
	printed := int64(0)
	heard, asked := time.Now(), time.Time{} // asked: when the hub confirmed the ends in this silence
	for {
		pollCtx, cancel := context.WithTimeout(ctx, time.Second)
		fetches := cl.PollRecords(pollCtx, 10_000)
		cancel()
		if ctx.Err() != nil {
			return w.Flush() // Ctrl-C is how one ends --follow
		}
		for _, e := range fetches.Errors() {
			if errors.Is(e.Err, context.DeadlineExceeded) || retriable(e.Err) {
				continue
			}
			return fmt.Errorf("read %s partition %d at %s: %w", e.Topic, e.Partition, c.server, e.Err)
		}
		for it := fetches.RecordIter(); !it.Done(); {
			r := it.Next()
			heard, asked = time.Now(), time.Time{}
			s := spans[r.Partition]
			if s == nil || !c.follow && r.Offset >= s.end || r.Offset < s.next {
				continue
			}
			s.next = r.Offset + 1
			line = c.format(line[:0], r)
			if _, err := w.Write(line); err != nil {
				return fmt.Errorf("write: %w", err)
			}
			if printed++; c.count > 0 && printed >= c.count {
				return w.Flush()
			}
		}
		if err := w.Flush(); err != nil {
			return fmt.Errorf("write: %w", err)
		}
		if c.follow {
			continue
		}
		left := int64(0)
		for _, s := range spans {
			left += max(s.end-s.next, 0)
		}
		if left == 0 {
			return nil
		}
		switch silence := time.Since(heard); {
		case silence < quietAsk:
		case asked.IsZero():
			if err := c.confirm(ctx, cl); err == nil {
				asked = time.Now()
			} else if silence > quietFail {
				return fmt.Errorf("read %s at %s: nothing came for %s: %w", c.topic, c.server, quietFail, err)
			}
		case time.Since(asked) > quietAsk:
			for p, s := range spans {
				if s.next < s.end {
					fmt.Fprintf(c.io.err, "hub: %s partition %d: offsets %d to %d are not there\n", c.topic, p, s.next, s.end-1)
				}
			}
			return nil
		}
	}
}

// confirm is nil if every partition's leader answers.
func (c *consume) confirm(ctx context.Context, cl *kgo.Client) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	ends, err := kadm.NewClient(cl).ListEndOffsets(ctx, c.topic)
	if err != nil {
		return err
	}
	return ends.Error()
}

func (c *consume) format(b []byte, r *kgo.Record) []byte {
	if c.json {
		return append(appendRecord(b, r), '\n')
	}
	return append(append(b, r.Value...), '\n')
}

const (
	atStart = iota
	atEnd
	atOffset
	atTime // value: ms since 1970
)

// start is where --from begins.
type start struct {
	kind  int
	value int64
}

func parseStart(s string, now time.Time) (start, error) {
	switch s {
	case "start":
		return start{kind: atStart}, nil
	case "end":
		return start{kind: atEnd}, nil
	}
	if n, err := strconv.ParseInt(s, 10, 64); err == nil {
		if n < 0 {
			return start{}, usagef("--from %d is negative: offsets count from 0", n)
		}
		return start{kind: atOffset, value: n}, nil
	}
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05", "2006-01-02T15:04", "2006-01-02"} {
		if t, err := time.Parse(layout, s); err == nil {
			return start{kind: atTime, value: t.UnixMilli()}, nil
		}
	}
	if d, err := time.ParseDuration(s); err == nil && d > 0 {
		return start{kind: atTime, value: now.Add(-d).UnixMilli()}, nil
	}
	return start{}, usagef("--from %q is not start, end, an offset, a time (2026-01-31T08:00:00Z) or how long ago (10m)", s)
}
