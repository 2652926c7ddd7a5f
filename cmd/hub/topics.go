package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kadm"
)

func newTopics(io console) *cobra.Command {
	return group("topics", "List, describe, create and delete topics",
		newTopicsList(io), newTopicsDescribe(io), newTopicsCreate(io), newTopicsDelete(io))
}

// topicLine is a topic as `topics list --json` and `topics describe --json`
// print it.
type topicLine struct {
	Name       string          `json:"name"`
	ID         string          `json:"id"`
	Internal   bool            `json:"internal"`
	Partitions []partitionLine `json:"partitions"`
}

type partitionLine struct {
	Partition int32   `json:"partition"`
	Leader    int32   `json:"leader"` // -1: nobody
	Replicas  []int32 `json:"replicas"`
	Start     int64   `json:"start"` // -1: unknown
	End       int64   `json:"end"`   // offset behind the last record; -1: unknown
}

func (t *topicLine) records() int64 {
	n := int64(0)
	for _, p := range t.Partitions {
		n += max(p.End-p.Start, 0)
	}
	return n
}

// lines asks for topics with their offsets; no names: all, without internal
// ones unless wanted.
func lines(ctx context.Context, adm *kadm.Client, internal bool, names ...string) ([]topicLine, error) {
	all, err := adm.ListTopicsWithInternal(ctx, names...)
	if err != nil {
		return nil, err
	}
	var wanted []string
	for _, d := range all.Sorted() {
		if len(names) > 0 || internal || !d.IsInternal && !strings.HasPrefix(d.Topic, "__") {
			wanted = append(wanted, d.Topic)
		}
	}
	var starts, ends kadm.ListedOffsets
	if len(wanted) > 0 {
		if starts, err = adm.ListStartOffsets(ctx, wanted...); err != nil {
			return nil, err
		}
		if ends, err = adm.ListEndOffsets(ctx, wanted...); err != nil {
			return nil, err
		}
	}
	out := []topicLine{}
	for _, name := range wanted {
		d := all[name]
		if d.Err != nil && len(d.Partitions) == 0 {
			return nil, fmt.Errorf("topic %s: %w", name, d.Err)
		}
		t := topicLine{Name: name, ID: fmt.Sprintf("%x", d.ID[:]), Internal: d.IsInternal}
		for _, p := range d.Partitions.Sorted() {
			l := partitionLine{Partition: p.Partition, Leader: p.Leader, Replicas: p.Replicas, Start: -1, End: -1}
			if o, ok := starts.Lookup(name, p.Partition); ok && o.Err == nil {
				l.Start = o.Offset
			}
			if o, ok := ends.Lookup(name, p.Partition); ok && o.Err == nil {
				l.End = o.Offset
			}
			t.Partitions = append(t.Partitions, l)
		}
		out = append(out, t)
	}
	return out, nil
}

func newTopicsList(io console) *cobra.Command {
	c := &client{}
	internal := false
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the topics and how many records they hold",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cl, err := c.dial(cmd.Context())
			if err != nil {
				return err
			}
			defer cl.Close()
			ts, err := lines(cmd.Context(), kadm.NewClient(cl), internal)
			if err != nil {
				return fmt.Errorf("list topics at %s: %w", c.server, err)
			}
			if c.json {
				return printJSON(io, ts)
			}
			w := tabwriter.NewWriter(io.out, 0, 4, 2, ' ', 0)
			fmt.Fprintln(w, "TOPIC\tPARTITIONS\tRECORDS")
			for _, t := range ts {
				fmt.Fprintf(w, "%s\t%d\t%d\n", t.Name, len(t.Partitions), t.records())
			}
			return w.Flush()
		},
	}
	c.flags(cmd)
	cmd.Flags().BoolVar(&internal, "internal", false, "list the hub's own topics too")
	return cmd
}

func newTopicsDescribe(io console) *cobra.Command {
	c := &client{}
	cmd := &cobra.Command{
		Use:   "describe TOPIC",
		Short: "Show a topic's partitions, leaders and offsets",
		Args:  argument("a TOPIC"),
		RunE: func(cmd *cobra.Command, args []string) error {
			cl, err := c.dial(cmd.Context())
			if err != nil {
				return err
			}
			defer cl.Close()
			if _, err := c.topic(cmd.Context(), cl, args[0]); err != nil {
				return err
			}
			ts, err := lines(cmd.Context(), kadm.NewClient(cl), true, args[0])
			if err != nil || len(ts) == 0 {
				return fmt.Errorf("describe %s at %s: %w", args[0], c.server, errors.Join(err))
			}
			if c.json {
				return printJSON(io, ts[0])
			}
			w := tabwriter.NewWriter(io.out, 0, 4, 2, ' ', 0)
			fmt.Fprintf(w, "topic %s, id %s\n", ts[0].Name, ts[0].ID)
			fmt.Fprintln(w, "PARTITION\tLEADER\tREPLICAS\tSTART\tEND")
			for _, p := range ts[0].Partitions {
				fmt.Fprintf(w, "%d\t%d\t%v\t%d\t%d\n", p.Partition, p.Leader, p.Replicas, p.Start, p.End)
			}
			return w.Flush()
		},
	}
	c.flags(cmd)
	return cmd
}

func newTopicsCreate(io console) *cobra.Command {
	c := &client{}
	var (
		partitions     int32
		retentionTime  time.Duration
		retentionBytes int64
		compression    string
		configs        []string
	)
	cmd := &cobra.Command{
		Use:   "create TOPIC",
		Short: "Create a topic",
		Args:  argument("a TOPIC"),
		RunE: func(cmd *cobra.Command, args []string) error {
			values := map[string]*string{}
			put := func(k, v string) { values[k] = &v }
			for _, kv := range configs {
				k, v, ok := strings.Cut(kv, "=")
				if !ok {
					return usagef("--config %q is not name=value", kv)
				}
				put(k, v)
			}
			if cmd.Flags().Changed("retention-time") {
				put("retention.ms", strconv.FormatInt(retentionTime.Milliseconds(), 10))
			}
			if cmd.Flags().Changed("retention-bytes") {
				put("retention.bytes", strconv.FormatInt(retentionBytes/int64(max(partitions, 1)), 10))
			}
			if compression != "" {
				put("compression.type", compression)
			}
			cl, err := c.dial(cmd.Context())
			if err != nil {
				return err
			}
			defer cl.Close()
			r, err := kadm.NewClient(cl).CreateTopic(cmd.Context(), partitions, -1, values, args[0])
			if err == nil {
				err = r.Err
			}
			if err != nil {
				if r.ErrMessage != "" {
					err = fmt.Errorf("%s", r.ErrMessage)
				}
				return fmt.Errorf("create topic %s at %s: %w", args[0], c.server, err)
			}
			if c.json {
				return printJSON(io, map[string]any{"name": args[0], "id": fmt.Sprintf("%x", r.ID[:]), "partitions": partitions})
			}
			_, err = fmt.Fprintf(io.out, "created %s\n", args[0])
			return err
		},
	}
	c.flags(cmd)
	f := cmd.Flags()
	f.Int32Var(&partitions, "partitions", 1, "number of partitions; never changes")
	f.DurationVar(&retentionTime, "retention-time", 0, "how long records are kept, as 168h")
	f.Int64Var(&retentionBytes, "retention-bytes", 0, "how many bytes of the topic are kept")
	f.StringVar(&compression, "compression", "", "zstd, lz4, gzip, snappy or uncompressed")
	f.StringArrayVar(&configs, "config", nil, "any of Kafka's topic settings as name=value (repeatable)")
	return cmd
}

func newTopicsDelete(io console) *cobra.Command {
	c := &client{}
	cmd := &cobra.Command{
		Use:   "delete TOPIC",
		Short: "Delete a topic with all its records",
		Args:  argument("a TOPIC"),
		RunE: func(cmd *cobra.Command, args []string) error {
			cl, err := c.dial(cmd.Context())
			if err != nil {
				return err
			}
			defer cl.Close()
			r, err := kadm.NewClient(cl).DeleteTopic(cmd.Context(), args[0])
			if err == nil {
				err = r.Err
			}
			if isUnknownTopic(err) {
				return errUnknownTopic(args[0], c.server)
			}
			if err != nil {
				return fmt.Errorf("delete topic %s at %s: %w", args[0], c.server, err)
			}
			if c.json {
				return printJSON(io, map[string]any{"name": args[0], "deleted": true})
			}
			_, err = fmt.Fprintf(io.out, "deleted %s\n", args[0])
			return err
		},
	}
	c.flags(cmd)
	return cmd
}

func printJSON(io console, v any) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(io.out, "%s\n", b)
	return err
}
