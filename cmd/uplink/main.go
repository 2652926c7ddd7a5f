// Command uplink forwards the log of an edge hub to the core, through whatever
// link there is. It keeps nothing on disk: its cursor is a consumer group in
// the hub, the truth is the core's mark of each source.
package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"

	"edgehub/internal/config"

	"github.com/spf13/cobra"
)

// Exit codes of the contract.
const (
	exitDone   = 0
	exitFailed = 1
	exitUsage  = 2
)

func main() { os.Exit(execute(os.Args[1:], os.Environ(), os.Stdout, os.Stderr)) }

// usageError is a wrong command line or a wrong configuration.
type usageError struct{ err error }

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

// execute runs one command and returns its exit code.
func execute(args, env []string, stdout, stderr io.Writer) int {
	root := &cobra.Command{
		Use:           "uplink",
		Short:         "Forward an edge hub's log to the core, exactly once",
		SilenceErrors: true,
		SilenceUsage:  true,
		Version:       version(),
		Args:          usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			_ = cmd.Help()
			return &usageError{errors.New("no command: use run or status")}
		},
	}
	root.CompletionOptions.HiddenDefaultCmd = true
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return &usageError{err} })
	root.AddCommand(runCommand(env, stderr), statusCommand(env, stdout))
	err := root.Execute()
	if err == nil {
		return exitDone
	}
	fmt.Fprintf(stderr, "uplink: %v\n", err)
	var usage *usageError
	if errors.As(err, &usage) {
		return exitUsage
	}
	return exitFailed
}

// usageArgs makes an argument check's errors usage errors.
func usageArgs(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if err := check(cmd, args); err != nil {
			return &usageError{err}
		}
		return nil
	}
}

// configFlags are the flags that name a configuration.
type configFlags struct {
	file string
	set  []string
}

func (f *configFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.file, "config", "", "configuration file, for example uplink.yaml")
	cmd.Flags().StringArrayVar(&f.set, "set", nil, "one key=value above the file and the environment, repeatable")
}

func (f *configFlags) load(env []string) (*config.Uplink, error) {
	c, err := config.LoadUplink(f.file, env, f.set)
	if err != nil {
		return nil, &usageError{err}
	}
	return c, nil
}

// version is the module's version or, built from a checkout, its commit.
func version() string {
	b, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	if v := b.Main.Version; v != "" && v != "(devel)" {
		return v
	}
	for _, s := range b.Settings {
		if s.Key == "vcs.revision" {
			return s.Value
		}
	}
	return "devel"
}
