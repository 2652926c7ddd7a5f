package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kgo"
)

type produce struct {
	client
	io    console
	topic string
	key   string
	keyed bool
}

func newProduce(io console) *cobra.Command {
	p := &produce{io: io}
	cmd := &cobra.Command{
		Use:   "produce TOPIC",
		Short: "Write a record per line of standard input",
		Long:  "Write a record per line of standard input. It ends with exit code 0 once all of them\nare on disk (at the core: on a majority of disks). With --json it prints how many.",
		Args:  argument("a TOPIC"),
		RunE: func(cmd *cobra.Command, args []string) error {
			p.topic, p.keyed = args[0], cmd.Flags().Changed("key")
			return p.run(cmd.Context())
		},
	}
	p.flags(cmd)
	cmd.Flags().StringVar(&p.key, "key", "", "key of every record; without it they have none")
	return cmd
}

// maxLine bounds one line of input, in bytes.
const maxLine = 64 << 20

func (p *produce) run(ctx context.Context) error {
	cl, err := p.dial(ctx, kgo.DefaultProduceTopic(p.topic), kgo.ProducerBatchMaxBytes(1_000_000), kgo.RecordDeliveryTimeout(60*time.Second),
		kgo.RecordPartitioner(kgo.StickyKeyPartitioner(nil))) // murmur2 of the key, as everywhere here
	if err != nil {
		return err
	}
	defer cl.Close()
	if _, err := p.client.topic(ctx, cl, p.topic); err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var mu sync.Mutex
	written := 0
	done := func(_ *kgo.Record, err error) {
		if err != nil {
			cancel(err)
			return
		}
		mu.Lock()
		written++
		mu.Unlock()
	}
	in := bufio.NewReaderSize(p.io.in, 64<<10)
	line := 0
	for ctx.Err() == nil {
		value, err := readLine(in)
		if err == io.EOF {
			break
		}
		line++
		if err != nil {
			cancel(fmt.Errorf("line %d: %w", line, err))
			break
		}
		r := &kgo.Record{Value: value}
		if p.keyed {
			r.Key = []byte(p.key)
		}
		cl.Produce(ctx, r, done)
	}
	ferr := cl.Flush(ctx)
	mu.Lock()
	n := written
	mu.Unlock()
	if cause := context.Cause(ctx); cause != nil {
		if errors.Is(cause, context.Canceled) {
			cause = errors.New("interrupted")
		}
		return fmt.Errorf("write to %s at %s: %d records are written, then: %w", p.topic, p.server, n, cause)
	}
	if ferr != nil {
		return fmt.Errorf("write to %s at %s: %d records are written, then: %w", p.topic, p.server, n, ferr)
	}
	if p.json {
		_, err = fmt.Fprintf(p.io.out, "{\"topic\":%s,\"records\":%d}\n", appendString(nil, p.topic), n)
	}
	return err
}

// readLine reads one line without its end; a last line may lack it.
func readLine(in *bufio.Reader) ([]byte, error) {
	var line []byte
	for {
		part, err := in.ReadSlice('\n')
		if len(line)+len(part) > maxLine {
			return nil, fmt.Errorf("longer than %d bytes", maxLine)
		}
		line = append(line, part...)
		switch {
		case err == nil:
			return line[:len(line)-1], nil
		case errors.Is(err, bufio.ErrBufferFull):
		case err == io.EOF && len(line) > 0:
			return line, nil
		default:
			return nil, err
		}
	}
}
