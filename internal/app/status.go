package app

import (
	"fmt"

	"edgehub/internal/web"
	"edgehub/pkg/bridge/mqtt"
	"edgehub/pkg/kafka"
	"edgehub/pkg/log"
	"edgehub/pkg/log/record"
	"edgehub/pkg/process"
)

func topicStatus(t *record.TopicInfo) web.Topic {
	out := web.Topic{
		Name: t.Name, ID: t.ID.String(), Internal: t.Internal,
		Durability: durabilityName(t.Config.Durability), Priority: priorityName(t.Config.Priority),
		Compression: t.Config.Compression.String(), RetentionMS: t.Config.RetentionTime.Milliseconds(),
		RetentionBytes: t.Config.RetentionBytes, RetainUntil: t.Config.RetainUntil,
		Partitions: []web.Partition{},
	}
	if t.Config.RetentionTime < 0 {
		out.RetentionMS = -1
	}
	for i, p := range t.Partitions {
		out.Partitions = append(out.Partitions, web.Partition{Partition: int32(i), Leader: p.Leader})
	}
	return out
}

func durabilityName(d record.Durability) string {
	return [...]string{"fsync", "interval", "none"}[min(int(d), 2)]
}

func priorityName(p record.Priority) string {
	return [...]string{"normal", "low", "high"}[min(int(p), 2)]
}

func logStatus(st *log.Stats) *web.Log {
	out := &web.Log{
		Epoch: st.Epoch, Failed: st.Failed, Commits: st.Commits, Records: st.CommittedRecords,
		CommittedBytes: st.CommittedBytes, DeviceBytes: st.JournalWritten + st.SegmentWritten,
		PendingBytes: st.PendingBytes, HeadBytes: st.HeadBytes,
		Torn: st.Recovery.Torn, QuarantinedRecords: st.QuarantinedRecords,
	}
	if n := st.CommitLatency.Count(); n > 0 {
		out.CommitMeanMS = st.CommitLatency.Sum.Seconds() * 1000 / float64(n)
	}
	for _, d := range st.Recovery.Quarantined {
		out.Damages = append(out.Damages, d.String())
	}
	return out
}

func mqttStatus(st mqtt.Stats) *web.MQTT {
	refused := int64(0)
	for _, n := range st.Refused {
		refused += n
	}
	return &web.MQTT{
		Connections: st.Connections, Published: uint64(st.Stored), Acked: uint64(st.AcksSent), Refused: uint64(refused),
		PayloadErrors: uint64(st.PayloadErrors), TimeFixed: uint64(st.TimeFixed),
	}
}

func kafkaStatus(st kafka.Stats) *web.Kafka {
	out := &web.Kafka{Connections: st.Connections, Produced: st.RecordsIn}
	for _, n := range st.Refused {
		out.Refused += n
	}
	return out
}

// processStatus sums the tasks of each process up, in the engine's order.
func processStatus(st process.Stats) []web.Process {
	var out []web.Process
	for i := range st.Tasks {
		t := &st.Tasks[i]
		if len(out) == 0 || out[len(out)-1].Name != t.Process {
			out = append(out, web.Process{Name: t.Process, From: t.From, To: t.To})
		}
		p := &out[len(out)-1]
		p.Records += uint64(t.Records)
		p.Open += t.WindowsOpen
		p.Emitted += uint64(t.Results)
		p.Late += uint64(t.Late)
		p.Skipped += uint64(t.Skipped())
		p.Lag += t.Lag
		if t.Error != "" && p.Error == "" {
			p.Error = fmt.Sprintf("partition %d: %s: %s", t.Partition, t.State, t.Error)
		}
	}
	return out
}
