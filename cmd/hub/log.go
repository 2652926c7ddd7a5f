package main

import (
	"fmt"
	"os"

	"edgehub/pkg/log"

	"github.com/spf13/cobra"
)

func newLog(io console) *cobra.Command {
	asJSON := false
	verify := &cobra.Command{
		Use:   "verify DIR",
		Short: "Check the data directory of a hub that is stopped",
		Long:  "Check every byte of the data directory of a hub that is stopped. Exit code 0: sound.\nElse each damage is a line with topic, partition and the first and last missing offset,\nand the exit code is 1. It changes nothing.",
		Args:  argument("a DIR"),
		RunE: func(_ *cobra.Command, args []string) error {
			if _, err := os.Stat(args[0]); err != nil {
				return fmt.Errorf("verify: %w", err)
			}
			r, err := log.Verify(args[0])
			if err != nil {
				return err
			}
			return printVerify(io, args[0], &r, asJSON)
		},
	}
	verify.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return group("log", "Tools for the log of a hub that is stopped", verify)
}

type damageLine struct {
	Topic     string `json:"topic,omitempty"`
	Partition int32  `json:"partition"` // -1: of no partition
	First     int64  `json:"first"`
	Last      int64  `json:"last"` // below first: no record is lost
	File      string `json:"file,omitempty"`
	Reason    string `json:"reason"`
}

func printVerify(io console, dir string, r *log.VerifyReport, asJSON bool) error {
	if asJSON {
		damages := []damageLine{}
		for _, d := range r.Damages {
			damages = append(damages, damageLine(d))
		}
		if err := printJSON(io, map[string]any{
			"sound": r.OK(), "topics": r.Topics, "partitions": r.Partitions, "segments": r.Segments,
			"entries": r.Entries, "records": r.Records, "torn": r.Torn, "damages": damages,
		}); err != nil {
			return err
		}
	} else {
		for _, d := range r.Damages {
			fmt.Fprintln(io.out, d.String())
		}
		state := "sound"
		if !r.OK() {
			state = fmt.Sprintf("%d damages", len(r.Damages))
		}
		fmt.Fprintf(io.out, "%s: %s: %d topics, %d partitions, %d segments, %d journal entries, %d records\n",
			dir, state, r.Topics, r.Partitions, r.Segments, r.Entries, r.Records)
		if r.Torn {
			fmt.Fprintln(io.out, "the journal ends in an incomplete entry, as after a power cut: nothing of it was acknowledged")
		}
	}
	if !r.OK() {
		return errSilent
	}
	return nil
}
