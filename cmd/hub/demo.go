package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"edgehub/internal/app/demo"
	"edgehub/internal/obs"

	"github.com/spf13/cobra"
)

func newDemo(con console) *cobra.Command {
	var duration time.Duration
	var asJSON bool
	var level string
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Show the whole way: devices, gateway, failing link, core",
		Long: `Run an edge hub, an uplink and three core nodes in this process, let devices with
real sensor series publish over MQTT, cut the link to the core for a while, and
then read everything back at the core and compare. Progress goes to standard
error. Exit code 1 if anything was lost, doubled, out of order or computed wrongly.

With --json the last line of standard output is
  {"published":…,"edge":…,"windows":…,"core":…,"lost":…,"duplicates":…}
published: messages acknowledged to the devices. edge: messages in the gateway's
log. windows: results read back at the core. core: messages read back at the core.
lost, duplicates: messages and windows missing at the core, or there too often.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			logger, err := obs.NewLogger(con.err, level)
			if err != nil {
				return &usageError{err}
			}
			if duration < 10*time.Second {
				return usagef("--duration %s is too short to show anything: use at least 10s", duration)
			}
			r, err := demo.Run(cmd.Context(), demo.Options{
				Duration: duration, Out: con.err, TTY: isTerminal(con.err), Logger: logger, Version: programVersion(),
			})
			if err != nil && !errors.Is(err, demo.ErrWrong) {
				return err
			}
			if asJSON {
				b, jerr := json.Marshal(r)
				if jerr != nil {
					return jerr
				}
				if _, werr := fmt.Fprintf(con.out, "%s\n", b); werr != nil {
					return werr
				}
			}
			return err
		},
	}
	f := cmd.Flags()
	f.DurationVar(&duration, "duration", 60*time.Second, "how long it may take in all, about")
	f.BoolVar(&asJSON, "json", false, "print the result as the last line of standard output")
	f.StringVar(&level, "log-level", "error", "what the parts log on standard error: "+obs.Levels)
	return cmd
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	st, err := f.Stat()
	return err == nil && st.Mode()&os.ModeCharDevice != 0 && os.Getenv("TERM") != "dumb"
}
