package log

import (
	"testing"

	"edgehub/pkg/log/record"
	"edgehub/pkg/log/vfs"
)

func TestGeometry(t *testing.T) {
	for _, c := range []struct {
		name     string
		journal  int64
		total    int64
		slots    int
		slotMin  int64
		fullSize bool // a batch of the default size fits
	}{
		{"default", 64 << 20, 0, 8, 8 << 20, true},
		{"512 MB card", 64 << 20, 512 << 20, 8, 4 << 20, true},
		{"150 MB partition", 64 << 20, 150 << 20, 4, 2 << 20, true},
		{"40 MB partition", 64 << 20, 40 << 20, 4, 1 << 20, false},
		{"journal of 16 MB", 16 << 20, 0, 7, 2 << 20, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := Options{JournalBytes: c.journal}
			size, n := o.geometry(c.total)
			if n != c.slots || size < c.slotMin || size%maxBlock != 0 {
				t.Errorf("%d slots of %d, want %d of at least %d", n, size, c.slots, c.slotMin)
			}
			if full := size/2 >= record.DefaultMaxMessageBytes; full != c.fullSize {
				t.Errorf("a batch of the default size fits: %v", full)
			}
		})
	}
}

// A topic with defaults can be made on the smallest journal.
func TestDefaultTopicOnSmallJournal(t *testing.T) {
	o := testOptions(vfs.NewMem())
	o.slotBytes, o.slots = minSlotBytes, minSlots
	l := mustOpen(t, o)
	defer mustClose(t, l)
	info, err := l.CreateTopic("a", record.DefaultTopicConfig())
	if err != nil {
		t.Fatal(err)
	}
	if got, want := int64(info.Config.MaxMessageBytes), l.maxItem(); got != want {
		t.Errorf("max_message_bytes %d, want %d", got, want)
	}
	cfg := record.DefaultTopicConfig()
	cfg.MaxMessageBytes = minSlotBytes
	if err := l.ConfigureTopic("a", cfg); err == nil {
		t.Error("a max_message_bytes that no entry takes was accepted")
	}
}
