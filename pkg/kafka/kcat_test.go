package kafka

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"edgehub/pkg/log/record"
)

// kcat runs kcat (librdkafka) against s and returns its standard output.
func kcat(t *testing.T, s *Server, stdin string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(timeout(t, 20*time.Second), "kcat", append([]string{"-b", s.Addr().String()}, args...)...)
	cmd.Stdin = strings.NewReader(stdin)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		t.Fatalf("kcat %s: %v\n%s%s", strings.Join(args, " "), err, out.String(), errs.String())
	}
	return out.String()
}

func TestKcat(t *testing.T) {
	stores(t, func(t *testing.T, st Store) {
		s := start(t, st, nil)
		var lines strings.Builder
		for i := range 500 {
			fmt.Fprintf(&lines, "k%d:this is the value of the record %d\n", i, i)
		}
		file := filepath.Join(t.TempDir(), "lines")
		if err := os.WriteFile(file, []byte(lines.String()), 0o600); err != nil {
			t.Fatal(err)
		}
		for i, codec := range []string{"none", "gzip", "snappy", "lz4", "zstd"} {
			topic := "kcat-" + codec
			mustCreate(t, st, topic, 1)
			kcat(t, s, "", "-P", "-t", topic, "-K:", "-z", codec, "-X", "enable.idempotence=true", "-l", file)
			if got := kcat(t, s, "", "-C", "-t", topic, "-K:", "-o", "beginning", "-e", "-q"); got != lines.String() {
				t.Errorf("%s: read %d bytes, want %d", codec, len(got), lines.Len())
			}
			// What is stored has the codec that the producer chose: librdkafka
			// sends uncompressed to a broker whose Produce begins above 0.
			f, err := st.Fetch(t.Context(), record.TopicPartition{Topic: topic}, 0, 1, nil)
			if err != nil {
				t.Fatal(err)
			}
			h, err := record.ParseHeader(f.Batches)
			if err != nil || h.Codec() != record.Codec(i) || !h.Idempotent() {
				t.Errorf("%s: stored as %s, producer id %d, %v", codec, h.Codec(), h.ProducerID, err)
			}
		}
		if got := kcat(t, s, "", "-C", "-t", "kcat-zstd", "-o", "490", "-c", "3", "-q", "-f", "%o %k\n"); got != "490 k490\n491 k491\n492 k492\n" {
			t.Errorf("from 490: %q", got)
		}
		if got := kcat(t, s, "", "-C", "-t", "kcat-lz4", "-o", "-2", "-e", "-q", "-f", "%o\n"); got != "498\n499\n" {
			t.Errorf("the last two: %q", got)
		}

		mustCreate(t, st, "times", 2)
		mustAppend(t, st, "times", 0, "a", "b", "c") // 1000, 1001, 1002
		for arg, want := range map[string]string{"-1": "3", "-2": "0", "1001": "1", "1": "0", "5000": "-1"} {
			got := kcat(t, s, "", "-Q", "-t", "times:0:"+arg)
			if !strings.Contains(got, "offset "+want) {
				t.Errorf("-Q %s: %q, want offset %s", arg, got, want)
			}
		}
		if got := kcat(t, s, "", "-C", "-t", "times", "-p", "0", "-o", "s@1001", "-e", "-q"); got != "b\nc\n" {
			t.Errorf("from time: %q", got)
		}

		list := kcat(t, s, "", "-L")
		for _, want := range []string{"1 brokers", "broker 1 at " + s.Addr().String(), `topic "times" with 2 partitions`, "leader 1"} {
			if !strings.Contains(list, want) {
				t.Errorf("-L misses %q:\n%s", want, list)
			}
		}
	})
}
