package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// client is what every command that talks to a hub over Kafka has.
type client struct {
	server string
	json   bool
}

func (c *client) flags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&c.server, "server", "127.0.0.1:9092", "Kafka address of a hub, or several joined by commas")
	cmd.Flags().BoolVar(&c.json, "json", false, "print JSON")
}

const dialPatience = 5 * time.Second

// dial connects, and fails within seconds when nobody answers.
func (c *client) dial(ctx context.Context, opts ...kgo.Opt) (*kgo.Client, error) {
	seeds, err := c.seeds()
	if err != nil {
		return nil, err
	}
	if err := reachable(ctx, seeds); err != nil {
		return nil, err
	}
	return kgo.NewClient(append([]kgo.Opt{
		kgo.SeedBrokers(seeds...),
		kgo.ClientID("hub"),
		kgo.DialTimeout(dialPatience),
		kgo.RequestTimeoutOverhead(10 * time.Second),
		kgo.RetryTimeout(30 * time.Second),
		kgo.MetadataMinAge(250 * time.Millisecond), // a new leader is found soon
	}, opts...)...)
}

func (c *client) seeds() ([]string, error) {
	var out []string
	for s := range strings.SplitSeq(c.server, ",") {
		if s = strings.TrimSpace(s); s == "" {
			continue
		}
		if _, _, err := net.SplitHostPort(s); err != nil {
			return nil, usagef("--server %q is not host:port", s)
		}
		out = append(out, s)
	}
	if len(out) == 0 {
		return nil, usagef("--server names no address")
	}
	return out, nil
}

// reachable is nil if one of the addresses accepts connections.
func reachable(ctx context.Context, seeds []string) error {
	var errs []error
	for _, s := range seeds {
		d := net.Dialer{Timeout: dialPatience}
		conn, err := d.DialContext(ctx, "tcp", s)
		if err == nil {
			conn.Close()
			return nil
		}
		var op *net.OpError
		if errors.As(err, &op) {
			err = op.Err
		}
		errs = append(errs, fmt.Errorf("connect to %s: %w", s, err))
	}
	return fmt.Errorf("%w: is the hub running there? name another by --server", errors.Join(errs...))
}

// errUnknownTopic says what to do about it.
func errUnknownTopic(name, server string) error {
	return fmt.Errorf("topic %q does not exist at %s: see `hub topics list`, or create it by `hub topics create %s`", name, server, name)
}

// topic describes one topic, retrying while it has no leader.
func (c *client) topic(ctx context.Context, cl *kgo.Client, name string) (kadm.TopicDetail, error) {
	adm := kadm.NewClient(cl)
	until := time.Now().Add(15 * time.Second)
	for {
		all, err := adm.ListTopicsWithInternal(ctx, name)
		if err != nil {
			return kadm.TopicDetail{}, fmt.Errorf("ask %s for topic %s: %w", c.server, name, err)
		}
		d, ok := all[name]
		if !ok || isUnknownTopic(d.Err) {
			return d, errUnknownTopic(name, c.server)
		}
		if d.Err == nil && !slices.ContainsFunc(d.Partitions.Sorted(), func(p kadm.PartitionDetail) bool { return p.Leader < 0 }) {
			return d, nil
		}
		if d.Err != nil && !retriable(d.Err) || time.Now().After(until) {
			if d.Err == nil {
				d.Err = errors.New("a partition has no leader")
			}
			return d, fmt.Errorf("topic %s at %s: %w", name, c.server, d.Err)
		}
		if err := pause(ctx, 300*time.Millisecond); err != nil {
			return d, err
		}
	}
}

// pause waits, or until ctx ends.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
