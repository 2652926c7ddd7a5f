package app

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"

	"edgehub/internal/config"
	"edgehub/pkg/log"
	"edgehub/pkg/log/record"
	"edgehub/pkg/route"
)

// needed are the topics that a configuration declares or names, with how each
// is to be kept, in order.
func needed(c *config.Config) []*config.Topic {
	out := slices.Clone(c.Topics)
	add := func(name string) {
		if name == "" || slices.ContainsFunc(out, func(t *config.Topic) bool { return t.Name == name }) {
			return
		}
		out = append(out, &config.Topic{Name: name, Config: defaultTopic(c)})
	}
	for _, r := range c.Routes {
		add(r.Topic)
	}
	for _, p := range c.Process {
		add(p.From)
		add(p.To)
	}
	if c.MQTT.On() {
		add(route.DefaultTopic)
	}
	return out
}

func defaultTopic(c *config.Config) record.TopicConfig {
	t := record.DefaultTopicConfig()
	t.Compression = c.Log.Compression
	return t
}

// topics keeps the topics of an edge hub as its configuration wants them.
type topics struct {
	log    *log.Log
	cfg    func() *config.Config
	logger *slog.Logger
	mu     sync.Mutex // one ensure at a time
}

// ensureAll creates what is missing and configures what differs. What cannot
// be had (another number of partitions) is returned as problems: the hub
// works all the same.
func (t *topics) ensureAll(c *config.Config) (problems []string, err error) {
	for _, want := range needed(c) {
		if err := t.ensureAs(c, want.Name); err != nil {
			return nil, err
		}
		info, err := t.log.Topic(want.Name)
		if err != nil {
			return nil, fmt.Errorf("topic %s: %w", want.Name, err)
		}
		declared := slices.ContainsFunc(c.Topics, func(x *config.Topic) bool { return x.Name == want.Name })
		if !declared || info.Config == want.Config {
			continue
		}
		if have := info.Config.Partitions; have != want.Config.Partitions {
			problems = append(problems, fmt.Sprintf("topic %s has %d partitions and the configuration says %d: the number of partitions never changes; delete the topic, or say %d",
				want.Name, have, want.Config.Partitions, have))
			want.Config.Partitions = have
		}
		if info.Config == want.Config {
			continue
		}
		if err := t.log.ConfigureTopic(want.Name, want.Config); err != nil {
			return nil, fmt.Errorf("configure topic %s: %w", want.Name, err)
		}
		// The log of a small disk may have taken less than was wanted, as before.
		if now, err := t.log.Topic(want.Name); err == nil && now.Config != info.Config {
			t.logger.Info("topic configured anew", "topic", want.Name)
		}
	}
	return problems, nil
}

// ensure creates a topic if it is missing, as configured or with defaults.
func (t *topics) ensure(name string) error { return t.ensureAs(t.cfg(), name) }

func (t *topics) ensureAs(c *config.Config, name string) error {
	if _, err := t.log.Topic(name); err == nil || !errors.Is(err, record.ErrUnknownTopic) {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	cfg := defaultTopic(c)
	for _, d := range c.Topics {
		if d.Name == name {
			cfg = d.Config
		}
	}
	_, err := t.log.CreateTopic(name, cfg)
	if errors.Is(err, record.ErrTopicExists) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("create topic %s: %w", name, err)
	}
	t.logger.Info("topic created", "topic", name, "partitions", cfg.Partitions)
	return nil
}

// missing are the needed topics that do not exist.
func (t *topics) missing(c *config.Config) []string {
	var out []string
	for _, want := range needed(c) {
		if _, err := t.log.Topic(want.Name); err != nil {
			out = append(out, fmt.Sprintf("topic %s does not exist: %v", want.Name, err))
		}
	}
	return out
}
