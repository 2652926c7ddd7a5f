package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"edgehub/internal/web"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kadm"
)

type status struct {
	client
	io    console
	http  string
	group string
}

func newStatus(io console) *cobra.Command {
	s := &status{io: io}
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show how a hub does: topics, offsets, groups, and what is wrong",
		Long:  "Show how a hub does. Topics, offsets and the cursor of --group come over Kafka from --server,\neverything else over HTTP from --http. Exit code 1 if either does not answer.",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return s.run(cmd.Context()) },
	}
	s.flags(cmd)
	cmd.Flags().StringVar(&s.http, "http", "127.0.0.1:8080", "HTTP address of the hub; empty: ask Kafka only")
	cmd.Flags().StringVar(&s.group, "group", "uplink", "consumer group whose place is shown; empty: none")
	return cmd
}

// statusReport is what `hub status --json` prints.
type statusReport struct {
	Cluster string      `json:"cluster,omitempty"`
	Brokers []string    `json:"brokers,omitempty"`
	Topics  []topicLine `json:"topics,omitempty"`
	Group   []groupLine `json:"group,omitempty"`
	Hub     *web.Status `json:"hub,omitempty"`
	Errors  []string    `json:"errors,omitempty"`
}

type groupLine struct {
	Group     string `json:"group"`
	Topic     string `json:"topic"`
	Partition int32  `json:"partition"`
	Offset    int64  `json:"offset"`
	Lag       int64  `json:"lag"`
}

func (s *status) run(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	var r statusReport
	var errs []error
	if err := s.kafka(ctx, &r); err != nil {
		errs = append(errs, err)
	}
	if s.http != "" {
		hub, err := fetchStatus(ctx, s.http)
		if err != nil {
			errs = append(errs, err)
		}
		r.Hub = hub
	}
	for _, e := range errs {
		r.Errors = append(r.Errors, e.Error())
	}
	var err error
	if s.json {
		err = printJSON(s.io, r)
	} else {
		err = s.print(&r)
	}
	return errors.Join(append(errs, err)...)
}

func (s *status) kafka(ctx context.Context, r *statusReport) error {
	cl, err := s.dial(ctx)
	if err != nil {
		return err
	}
	defer cl.Close()
	adm := kadm.NewClient(cl)
	m, err := adm.BrokerMetadata(ctx)
	if err != nil {
		return fmt.Errorf("ask %s: %w", s.server, err)
	}
	r.Cluster = m.Cluster
	for _, b := range m.Brokers {
		r.Brokers = append(r.Brokers, fmt.Sprintf("%d %s:%d", b.NodeID, b.Host, b.Port))
	}
	if r.Topics, err = lines(ctx, adm, false); err != nil {
		return fmt.Errorf("list topics at %s: %w", s.server, err)
	}
	if s.group == "" {
		return nil
	}
	offs, err := adm.FetchOffsets(ctx, s.group)
	if err != nil {
		return fmt.Errorf("ask %s for group %s: %w", s.server, s.group, err)
	}
	for _, t := range r.Topics {
		for _, p := range t.Partitions {
			if o, ok := offs.Lookup(t.Name, p.Partition); ok && o.Err == nil && o.At >= 0 {
				r.Group = append(r.Group, groupLine{Group: s.group, Topic: t.Name, Partition: p.Partition, Offset: o.At, Lag: max(p.End-max(o.At, p.Start), 0)})
			}
		}
	}
	return nil
}

func (s *status) print(r *statusReport) error {
	w := tabwriter.NewWriter(s.io.out, 0, 4, 2, ' ', 0)
	if h := r.Hub; h != nil {
		ready := "ready"
		if !h.Ready {
			ready = "not ready"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\tsince %s\n", h.Name, h.Role, h.Version, ready, h.Started.Format(time.RFC3339))
		for _, name := range slices.Sorted(maps.Keys(h.Listeners)) {
			fmt.Fprintf(w, "%s\t%s\n", name, h.Listeners[name])
		}
		for _, p := range h.Problems {
			fmt.Fprintf(w, "problem\t%s\n", p)
		}
		if l := h.Log; l != nil {
			fmt.Fprintf(w, "log\tepoch %d, %d records in %d commits, mean %.1f ms, %d bytes to the device\n", l.Epoch, l.Records, l.Commits, l.CommitMeanMS, l.DeviceBytes)
		}
		if m := h.MQTT; m != nil {
			fmt.Fprintf(w, "mqtt\t%d connections, %d published, %d acknowledged, %d refused\n", m.Connections, m.Published, m.Acked, m.Refused)
		}
		for _, p := range h.Processes {
			fmt.Fprintf(w, "process %s\t%s → %s, %d read, %d windows open, %d results, %d late, %d behind\n", p.Name, p.From, p.To, p.Records, p.Open, p.Emitted, p.Late, p.Lag)
		}
		if c := h.Core; c != nil {
			fmt.Fprintf(w, "core\t%s, node %s, leads %d partitions, ready: %s\n", c.Cluster, c.Node, c.Leads, c.Ready)
		}
		fmt.Fprintln(w)
	}
	durability := map[string]string{}
	if r.Hub != nil {
		for _, t := range r.Hub.Topics {
			durability[t.Name] = t.Durability
		}
	}
	if r.Cluster != "" {
		fmt.Fprintf(w, "cluster %s: %s\n", r.Cluster, strings.Join(r.Brokers, ", "))
		fmt.Fprintln(w, "TOPIC\tPARTITION\tSTART\tEND\tLEADER\tDURABILITY")
		for _, t := range r.Topics {
			for _, p := range t.Partitions {
				fmt.Fprintf(w, "%s\t%d\t%d\t%d\t%d\t%s\n", t.Name, p.Partition, p.Start, p.End, p.Leader, durability[t.Name])
			}
		}
	}
	if len(r.Group) > 0 {
		fmt.Fprintln(w, "\nGROUP\tTOPIC\tPARTITION\tOFFSET\tLAG")
		for _, g := range r.Group {
			fmt.Fprintf(w, "%s\t%s\t%d\t%d\t%d\n", g.Group, g.Topic, g.Partition, g.Offset, g.Lag)
		}
	}
	return w.Flush()
}

// fetchStatus asks a hub's HTTP listener.
func fetchStatus(ctx context.Context, addr string) (*web.Status, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+"/api/v1/status", nil)
	if err != nil {
		return nil, usagef("--http %q is not host:port", addr)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, fmt.Errorf("ask http://%s: %w: is http.listen another? name it by --http", addr, err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, 64<<20))
	if err != nil {
		return nil, fmt.Errorf("ask http://%s: %w", addr, err)
	}
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("ask http://%s: %s: %s", addr, resp.Status, strings.TrimSpace(string(b[:min(len(b), 300)])))
	}
	var st web.Status
	if err := json.Unmarshal(b, &st); err != nil {
		return nil, fmt.Errorf("http://%s is no hub: %w", addr, err)
	}
	return &st, nil
}
