package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os/signal"
	"syscall"
	"time"

	"edgehub/internal/config"
	"edgehub/internal/obs"
	"edgehub/pkg/bridge/uplink"

	"github.com/spf13/cobra"
)

func runCommand(env []string, stderr io.Writer) *cobra.Command {
	var flags configFlags
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Forward until told to stop; keeps trying while hub or core are away",
		Args:  usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := flags.load(env)
			if err != nil {
				return err
			}
			logger, err := obs.NewLogger(stderr, "")
			if err != nil {
				return err
			}
			ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
			defer stop()
			return run(ctx, c, logger, nil)
		},
	}
	flags.add(cmd)
	return cmd
}

// run forwards as configured until ctx ends. started, if not nil, is called
// with the address of the HTTP listener once it is open.
func run(ctx context.Context, c *config.Uplink, logger *slog.Logger, started func(net.Addr)) error {
	source, err := uplink.NewKafkaSource(c.Hub)
	if err != nil {
		return &usageError{err}
	}
	sink, err := uplink.NewNATSSink(uplink.NATSOptions{Servers: c.Core, Credentials: c.Credentials, Logger: logger})
	if err != nil {
		return errors.Join(err, source.Close())
	}
	o := uplink.Options{Source: source, Sink: sink, Group: c.Group, Bandwidth: c.Bandwidth, Logger: logger}
	for _, t := range c.Topics {
		o.Topics = append(o.Topics, uplink.Topic{Name: t.Name, Priority: t.Priority})
	}
	u, err := uplink.New(o)
	if err != nil {
		return errors.Join(&usageError{err}, sink.Close(), source.Close())
	}
	if c.HTTP.On() {
		l, err := net.Listen("tcp", c.HTTP.Listen)
		if err != nil {
			return errors.Join(fmt.Errorf("http.listen: %w: is another uplink running? set http.listen to another address, or to off", err),
				sink.Close(), source.Close())
		}
		srv := &http.Server{
			Handler:           handler(u),
			ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, WriteTimeout: 30 * time.Second,
			MaxHeaderBytes: 16 << 10,
			ErrorLog:       slog.NewLogLogger(logger.Handler(), slog.LevelDebug),
		}
		served := make(chan struct{})
		go func() {
			defer close(served)
			_ = srv.Serve(l)
		}()
		defer func() {
			_ = srv.Close()
			<-served
		}()
		if started != nil {
			started(l.Addr())
		}
		logger.Info("uplink runs", "hub", c.Hub, "core", c.Core, "topics", len(o.Topics), "http", l.Addr().String())
	} else {
		logger.Info("uplink runs", "hub", c.Hub, "core", c.Core, "topics", len(o.Topics))
	}
	err = u.Run(ctx)
	logger.Info("uplink ended")
	return err
}
