package main

import (
	"context"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"edgehub/internal/app"
	"edgehub/internal/config"
	"edgehub/internal/obs"

	"github.com/spf13/cobra"
)

func newRun(io console) *cobra.Command {
	var file, level string
	var set []string
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Run an edge hub; with role: core, a core node",
		Long: `Run an edge hub; with role: core, a core node. It stays in the foreground and ends
in order on SIGTERM or Ctrl-C. Without a configuration it listens on 127.0.0.1 only.

The file is read first, then variables HUB_… (HUB_MQTT_LISTEN is mqtt.listen), then
each --set. SIGHUP takes over routes, topics, certificates, users and permissions.
See hub config default.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if file == "" {
				file = lookup(io.env, "HUB_CONFIG")
			}
			if level == "" {
				level = lookup(io.env, "HUB_LOG_LEVEL")
			}
			logger, err := obs.NewLogger(io.err, level)
			if err != nil {
				return &usageError{err}
			}
			load := func() (*config.Config, error) { return app.LoadConfig(file, io.env, set) }
			cfg, err := load()
			if err != nil {
				return err
			}
			ctx, cancel := context.WithCancel(cmd.Context())
			defer cancel()
			reload := make(chan *config.Config)
			hup := make(chan os.Signal, 1)
			signal.Notify(hup, syscall.SIGHUP)
			defer signal.Stop(hup)
			done := make(chan struct{})
			go func() {
				defer close(done)
				for {
					select {
					case <-hup:
					case <-ctx.Done():
						return
					}
					cfg, err := load()
					if err != nil {
						logger.Error("configuration not taken over; the old one stays", "err", err)
						continue
					}
					select {
					case reload <- cfg:
					case <-ctx.Done():
						return
					}
				}
			}()
			err = app.Run(ctx, app.Options{Config: cfg, Version: programVersion(), Logger: logger}, reload)
			cancel()
			<-done
			return err
		},
	}
	f := cmd.Flags()
	f.StringVar(&file, "config", "", "configuration file ($HUB_CONFIG)")
	f.StringArrayVar(&set, "set", nil, "key=value over the file and the environment (repeatable)")
	f.StringVar(&level, "log-level", "", obs.Levels+" (default info; $HUB_LOG_LEVEL)")
	return cmd
}

// lookup finds a variable in env, as os.Environ lists them.
func lookup(env []string, name string) string {
	for _, kv := range env {
		if v, ok := strings.CutPrefix(kv, name+"="); ok {
			return v
		}
	}
	return ""
}
