package kafka

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"edgehub/pkg/log/record"
)

// Kafka's sources of a configuration value.
const (
	sourceTopic   = 1 // dynamic topic config
	sourceDefault = 5
)

// inertConfigs are names that tools set and that change nothing here: how the
// log is cut into files and when it is flushed is not a topic's business.
// Their values are checked for type and then dropped.
var inertConfigs = map[string]func(string) bool{
	"segment.bytes":                       isInt,
	"segment.ms":                          isInt,
	"segment.jitter.ms":                   isInt,
	"segment.index.bytes":                 isInt,
	"index.interval.bytes":                isInt,
	"flush.messages":                      isInt,
	"flush.ms":                            isInt,
	"file.delete.delay.ms":                isInt,
	"delete.retention.ms":                 isInt,
	"min.compaction.lag.ms":               isInt,
	"max.compaction.lag.ms":               isInt,
	"min.cleanable.dirty.ratio":           isFloat,
	"min.insync.replicas":                 isInt,
	"preallocate":                         isBool,
	"unclean.leader.election.enable":      isBool,
	"message.timestamp.difference.max.ms": isInt,
	"message.timestamp.before.max.ms":     isInt,
	"message.timestamp.after.max.ms":      isInt,
	"message.downconversion.enable":       isBool,
	"message.format.version":              func(string) bool { return true },
	// LogAppendTime is not served, and accepting it would be a lie.
	"message.timestamp.type": func(v string) bool { return v == "CreateTime" },
}

func isInt(v string) bool   { _, err := strconv.ParseInt(v, 10, 64); return err == nil }
func isFloat(v string) bool { _, err := strconv.ParseFloat(v, 64); return err == nil }
func isBool(v string) bool  { return v == "true" || v == "false" }

// applyConfigs lays the configuration of a CreateTopics request over cfg,
// whose Partitions are final: Kafka's retention.bytes is of a partition, ours
// of the topic. fallback is the codec of compression.type=producer.
func applyConfigs(cfg *record.TopicConfig, configs []kmsg.CreateTopicsRequestTopicConfig, fallback record.Codec) error {
	seen := map[string]bool{}
	deletes := true
	for _, c := range configs {
		if seen[c.Name] {
			return fmt.Errorf("%s is given twice", c.Name)
		}
		seen[c.Name] = true
		if c.Value == nil {
			continue // the default
		}
		v := *c.Value
		bad := fmt.Errorf("%s=%q is not a possible value", c.Name, v)
		switch c.Name {
		case "retention.ms":
			ms, err := strconv.ParseInt(v, 10, 64)
			switch {
			case err != nil || ms < -1:
				return bad
			case ms == -1 || ms > math.MaxInt64/int64(time.Millisecond):
				cfg.RetentionTime = -1
			default:
				cfg.RetentionTime = max(time.Duration(ms)*time.Millisecond, time.Millisecond) // 0 would mean the default
			}
		case "retention.bytes":
			n, err := strconv.ParseInt(v, 10, 64)
			switch {
			case err != nil || n < -1:
				return bad
			case n == -1 || n > math.MaxInt64/int64(cfg.Partitions):
				cfg.RetentionBytes = -1
			default:
				cfg.RetentionBytes = max(n*int64(cfg.Partitions), 1)
			}
		case "max.message.bytes":
			n, err := strconv.ParseInt(v, 10, 32)
			if err != nil || n < record.HeaderSize || n > record.MaxBatchBytes {
				return bad
			}
			cfg.MaxMessageBytes = int32(n)
		case "cleanup.policy":
			cfg.Compact, deletes = false, false
			for p := range strings.SplitSeq(v, ",") {
				switch strings.TrimSpace(p) {
				case "compact":
					cfg.Compact = true
				case "delete":
					deletes = true
				default:
					return bad
				}
			}
		case "compression.type":
			switch v {
			case "producer":
				cfg.Compression = fallback
			case "uncompressed":
				cfg.Compression = record.None
			default:
				codec, err := record.ParseCodec(v)
				if err != nil {
					return bad
				}
				cfg.Compression = codec
			}
		default:
			ok, known := inertConfigs[c.Name]
			if !known {
				return fmt.Errorf("unknown topic config name: %s", c.Name)
			}
			if !ok(v) {
				return bad
			}
		}
	}
	if !deletes { // a compacted topic keeps the last record of each key for ever
		cfg.RetentionTime, cfg.RetentionBytes = -1, -1
	}
	return nil
}

// configValue is one setting of a topic as Kafka's tools read it.
type configValue struct {
	name, value string
	source      int8
}

// describeConfigs is the inverse of applyConfigs.
func describeConfigs(cfg *record.TopicConfig) []configValue {
	def := record.DefaultTopicConfig()
	def.Partitions = cfg.Partitions
	d := configStrings(&def)
	out := configStrings(cfg)
	for i := range out {
		out[i].source = sourceTopic
		if out[i].value == d[i].value {
			out[i].source = sourceDefault
		}
	}
	return out
}

func configStrings(cfg *record.TopicConfig) []configValue {
	retention := cfg.RetentionTime.Milliseconds()
	if cfg.RetentionTime < 0 {
		retention = -1
	}
	bytes := int64(-1)
	if cfg.RetentionBytes >= 0 {
		bytes = cfg.RetentionBytes / int64(max(cfg.Partitions, 1))
	}
	policy := "delete"
	if cfg.Compact {
		policy = "compact"
		if cfg.RetentionTime >= 0 || cfg.RetentionBytes >= 0 {
			policy = "compact,delete"
		}
	}
	compression := cfg.Compression.String()
	if cfg.Compression == record.None {
		compression = "uncompressed"
	}
	return []configValue{
		{name: "cleanup.policy", value: policy},
		{name: "compression.type", value: compression},
		{name: "max.message.bytes", value: strconv.Itoa(int(cfg.MaxMessageBytes))},
		{name: "retention.bytes", value: strconv.FormatInt(bytes, 10)},
		{name: "retention.ms", value: strconv.FormatInt(retention, 10)},
	}
}
