package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
)

const defaultAddr = "127.0.0.1:8090"

func statusCommand(env []string, stdout io.Writer) *cobra.Command {
	var (
		flags  configFlags
		asJSON bool
		addr   string
	)
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Ask the running uplink how far it is",
		Args:  usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if addr == "" && flags.file != "" {
				c, err := flags.load(env)
				if err != nil {
					return err
				}
				addr = c.HTTP.Listen
			}
			if addr == "" {
				addr = defaultAddr
			}
			if _, _, err := net.SplitHostPort(addr); err != nil {
				return &usageError{fmt.Errorf("--addr %q: %w: write host:port", addr, err)}
			}
			return showStatus(cmd.Context(), addr, asJSON, stdout)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.Flags().StringVar(&addr, "addr", "", "http.listen of the running uplink (default "+defaultAddr+", or that of --config)")
	flags.add(cmd)
	return cmd
}

func showStatus(ctx context.Context, addr string, asJSON bool, w io.Writer) error {
	if ctx == nil {
		ctx = context.Background()
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+"/api/v1/status", nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("no uplink answers at %s: %w: is it running? name its http.listen by --addr", addr, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 16<<20))
	if err != nil {
		return fmt.Errorf("status from %s: %w", addr, err)
	}
	var st status
	if resp.StatusCode != http.StatusOK || json.Unmarshal(body, &st) != nil {
		return fmt.Errorf("what answers at %s is no uplink (HTTP %d): name its http.listen by --addr", addr, resp.StatusCode)
	}
	if asJSON {
		_, err := w.Write(body)
		return err
	}
	return printStatus(w, &st)
}

func printStatus(w io.Writer, st *status) error {
	ready := "forwarding"
	if !st.Ready {
		ready = "not forwarding everything: " + st.Problem
	}
	link := "down"
	if st.Link.Connected {
		link = "up, " + st.Link.Server
	}
	if st.Link.LastError != "" {
		link += " (" + st.Link.LastError + ")"
	}
	backlog := fmt.Sprintf("%d records", st.Backlog)
	if eta := st.ETA(); eta > 0 {
		backlog += fmt.Sprintf(", %s at %.0f records/s", eta, st.RecordsPerSecond)
	}
	fmt.Fprintf(w, "site     %s\nstate    %s\nlink     %s\nbacklog  %s\n\n", orDash(st.Site), ready, link, backlog)
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(t, "TOPIC\tPARTITION\tPRIORITY\tSTATE\tCORE HAS\tHUB HAS\tBACKLOG\tGAPS\tREFUSED\tRTT")
	for i := range st.Lanes {
		l := &st.Lanes[i]
		fmt.Fprintf(t, "%s\t%d\t%d\t%s\t%d\t%d\t%d\t%d\t%d\t%s\n", l.Topic, l.Partition, l.Priority, l.State,
			l.Acked, l.HighWatermark, l.Backlog, l.GapRecords, l.Refused, time.Duration(l.RTT).Round(time.Millisecond))
	}
	for _, m := range st.Missing {
		fmt.Fprintf(t, "%s\t-\t-\tnot at the hub yet\t\t\t\t\t\t\n", m)
	}
	return t.Flush()
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
