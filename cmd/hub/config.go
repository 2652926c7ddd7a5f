package main

import (
	"fmt"

	"edgehub/internal/app"
	"edgehub/internal/config"

	"github.com/spf13/cobra"
)

func newConfig(io console) *cobra.Command {
	var uplink bool
	var set []string
	check := &cobra.Command{
		Use:   "check FILE",
		Short: "Check a configuration and name everything that is wrong with it",
		Long:  "Check a configuration file (- for standard input) and name everything that is wrong with it,\nwith line and column. The environment is not read. Exit code 0: sound, 2: not.",
		Args:  argument("a FILE"),
		RunE: func(_ *cobra.Command, args []string) error {
			if uplink {
				if _, err := config.LoadUplink(args[0], nil, set); err != nil {
					return err
				}
			} else if _, err := app.LoadConfig(args[0], nil, set); err != nil {
				if _, uerr := config.LoadUplink(args[0], nil, set); uerr == nil && args[0] != "-" {
					return usagef("%s is an uplink.yaml, and sound as that: say --uplink", args[0])
				}
				return err
			}
			_, err := fmt.Fprintf(io.out, "%s is sound\n", args[0])
			return err
		},
	}
	check.Flags().BoolVar(&uplink, "uplink", false, "the file is an uplink.yaml")
	check.Flags().StringArrayVar(&set, "set", nil, "key=value over the file, as in hub run (repeatable)")
	def := &cobra.Command{
		Use:   "default",
		Short: "Print every key with its default and meaning",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			if uplink {
				return config.WriteUplink(io.out)
			}
			return config.WriteHub(io.out)
		},
	}
	def.Flags().BoolVar(&uplink, "uplink", false, "the keys of uplink.yaml")
	return group("config", "Check a configuration, or print the default", check, def)
}
