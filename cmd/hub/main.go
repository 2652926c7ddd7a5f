// Command hub is a gateway (MQTT in, a durable log, windows, Kafka out), a node
// of the core (role: core), and the tools for both.
//
// Exit codes: 0 done, 1 it failed, 2 wrong usage or configuration.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"edgehub/internal/config"

	"github.com/spf13/cobra"
)

// version is set by the linker: -X main.version=v1.2.3.
var version = ""

// console is where a command reads and writes.
type console struct {
	in       io.Reader
	out, err io.Writer
	env      []string
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second Ctrl-C ends at once
	code := execute(ctx, os.Args[1:], console{in: os.Stdin, out: os.Stdout, err: os.Stderr, env: os.Environ()})
	stop()
	os.Exit(code)
}

// usageError is what a user typed wrong: exit code 2.
type usageError struct{ err error }

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

func usagef(format string, args ...any) error {
	return &usageError{fmt.Errorf(format, args...)}
}

// errSilent ends a command with exit code 1 that has said all there is to say.
var errSilent = errors.New("failed")

// execute runs one command line and returns the exit code.
func execute(ctx context.Context, args []string, io console) int {
	root := newRoot(io)
	root.SetArgs(args)
	cmd, err := root.ExecuteContextC(ctx)
	switch {
	case err == nil:
		return 0
	case errors.Is(err, errSilent):
		return 1
	}
	fmt.Fprintf(io.err, "hub: %s\n", err)
	var ce *config.Error
	var ue *usageError
	switch {
	case errors.As(err, &ce):
		return 2
	case errors.As(err, &ue), cmd == root:
		// Cobra reports unknown commands as errors of the root.
		fmt.Fprintf(io.err, "Try: %s --help\n", cmd.CommandPath())
		return 2
	}
	return 1
}

func newRoot(io console) *cobra.Command {
	root := &cobra.Command{
		Use:           "hub",
		Short:         "MQTT in, a log that survives power cuts, windows, and Kafka out",
		Long:          "hub is a gateway (MQTT in, a log that survives power cuts, windows, Kafka out),\na node of the core (role: core), and the tools for both.",
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          cobra.NoArgs,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetIn(io.in)
	root.SetOut(io.out)
	root.SetErr(io.err)
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return &usageError{err} })
	root.AddCommand(
		newRun(io), newDemo(io),
		newTopics(io), newConsume(io), newProduce(io), newStatus(io),
		newLog(io), newConfig(io), newUser(io), newEnroll(io), newVersion(io),
	)
	// Wrong arguments are wrong usage wherever they are.
	var wrap func(*cobra.Command)
	wrap = func(c *cobra.Command) {
		if check := c.Args; check != nil {
			c.Args = func(cmd *cobra.Command, args []string) error {
				if err := check(cmd, args); err != nil {
					return &usageError{err}
				}
				return nil
			}
		}
		for _, sub := range c.Commands() {
			wrap(sub)
		}
	}
	wrap(root)
	return root
}

// argument wants exactly one argument, called name.
func argument(name string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		switch len(args) {
		case 0:
			return fmt.Errorf("%s needs %s", cmd.CommandPath(), name)
		case 1:
			return nil
		}
		return fmt.Errorf("%s takes %s only, not %q too", cmd.CommandPath(), name, args[1])
	}
}

// group is a command that only holds others.
func group(use, short string, subs ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{
		Use:   use,
		Short: short,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return fmt.Errorf("%s needs a command", cmd.CommandPath())
			}
			hint := ""
			if s := cmd.SuggestionsFor(args[0]); len(s) > 0 {
				hint = fmt.Sprintf(": did you mean %q?", s[0])
			}
			return fmt.Errorf("unknown command %q for %q%s", args[0], cmd.CommandPath(), hint)
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	c.SuggestionsMinimumDistance = 2
	c.AddCommand(subs...)
	return c
}
