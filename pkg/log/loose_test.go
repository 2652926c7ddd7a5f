package log

import (
	"testing"

	"edgehub/pkg/log/record"
	"edgehub/pkg/log/vfs"
)

// TestDurability: in a topic of durability interval or none nobody waits for
// the device; readers see only what is on it all the same.
func TestDurability(t *testing.T) {
	mem := vfs.NewMem()
	fault := vfs.NewFault(mem, nil)
	l := mustOpen(t, testOptions(fault))
	defer mustClose(t, l)
	parts := map[record.Durability]*Partition{}
	for d, name := range []string{"fsync", "interval", "none"} {
		cfg := record.TopicConfig{Durability: record.Durability(d), MaxMessageBytes: 16 << 10}
		if _, err := l.CreateTopic(name, cfg); err != nil {
			t.Fatal(err)
		}
		parts[record.Durability(d)] = mustPartition(t, l, name, 0)
	}
	gate := vfs.NewGate(vfs.OpSync)
	fault.SetRule(gate.Rule)
	for d, p := range parts {
		_, lsn, err := p.Append(&record.Record{Value: []byte("x")})
		if err != nil {
			t.Fatal(err)
		}
		out, blsn := l.AppendBatches([]record.Append{{TopicPartition: record.TopicPartition{Topic: p.Topic()}, Batch: produced(-1, -1, -1, "y")}})
		if out[0].Err != nil {
			t.Fatal(out[0].Err)
		}
		loose := d != record.DurabilityFsync
		if now := l.Durable(); loose != (lsn <= now) || loose != (blsn <= now) {
			t.Fatalf("durability %d: commits %d and %d, durable is %d", d, lsn, blsn, now)
		}
		if hw := p.Offsets().HighWatermark; hw != 0 {
			t.Fatalf("durability %d: high watermark %d before any sync", d, hw)
		}
	}
	gate.Open()
	clone := func() *vfs.Mem { // once all is on the device
		for _, p := range parts {
			_, lsn, err := l.AppendGroup([]GroupRecord{{p, record.Record{Value: []byte("z")}}})
			if err != nil {
				t.Fatal(err)
			}
			mustWait(t, l, lsn)
		}
		return mem.CrashClone(vfs.CrashConfig{})
	}()
	again := mustOpen(t, testOptions(clone))
	defer mustClose(t, again)
	for _, p := range parts {
		if g := mustReadAll(t, mustPartition(t, again, p.Topic(), 0)); len(g) != 3 {
			t.Fatalf("%s: %v", p, g)
		}
	}
	if err := l.ConfigureTopic("none", record.TopicConfig{MaxMessageBytes: 16 << 10}); err != nil {
		t.Fatal(err)
	}
	if _, lsn, err := parts[record.DurabilityNone].Append(&record.Record{}); err != nil || lsn == 0 {
		t.Fatal(err)
	}
}
