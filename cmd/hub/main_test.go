package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"edgehub/pkg/kafka"
	"edgehub/pkg/kafka/kafkatest"
	"edgehub/pkg/log/record"

	"edgehub/internal/config"
	"edgehub/pkg/auth"
	"github.com/google/go-cmp/cmp"

	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// hub runs a command line in this process.
func hub(t *testing.T, stdin string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errOut bytes.Buffer
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	code = execute(ctx, args, console{in: strings.NewReader(stdin), out: &out, err: &errOut})
	return code, out.String(), errOut.String()
}

// server is a Kafka listener over a store in memory, with a topic of two
// partitions.
func server(t *testing.T) string {
	t.Helper()
	store := kafkatest.New()
	cfg := record.DefaultTopicConfig()
	cfg.Partitions = 2
	if _, err := store.CreateTopic(t.Context(), "events", cfg); err != nil {
		t.Fatal(err)
	}
	s, err := kafka.Listen(kafka.Options{Store: store, Listen: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s.Addr().String()
}

func TestExitCodes(t *testing.T) {
	addr := server(t)
	good := filepath.Join(t.TempDir(), "good.yaml")
	if err := os.WriteFile(good, []byte("name: a\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		args []string
		code int
		want string // on standard error, or output if code is 0
	}{
		{"help", nil, 0, "Available Commands"},
		{"version", []string{"version"}, 0, "hub "},
		{"unknown command", []string{"rum"}, 2, `unknown command "rum"`},
		{"unknown flag", []string{"run", "--confg", "x"}, 2, "--confg"},
		{"group without command", []string{"topics"}, 2, "needs a command"},
		{"unknown subcommand", []string{"topics", "lst"}, 2, `did you mean "list"?`},
		{"missing argument", []string{"consume"}, 2, "hub consume needs a TOPIC"},
		{"bad configuration", []string{"run", "--set", "mqtt.lissten=x"}, 2, `did you mean "listen"?`},
		{"bad level", []string{"run", "--log-level", "loud"}, 2, "debug, info"},
		{"no such file", []string{"config", "check", "/nonexistent.yaml"}, 2, "/nonexistent.yaml"},
		{"sound file", []string{"config", "check", good}, 0, "sound"},
		{"sound file, unsound flag", []string{"config", "check", good, "--set", "clock=maybe"}, 2, "clock"},
		{"default", []string{"config", "default"}, 0, "commit_interval: auto"},
		{"default of uplink", []string{"config", "default", "--uplink"}, 0, "bandwidth: unlimited"},
		{"nobody there", []string{"topics", "list", "--server", "127.0.0.1:1"}, 1, "127.0.0.1:1"},
		{"no address", []string{"topics", "list", "--server", "nohost"}, 2, "host:port"},
		{"unknown topic", []string{"consume", "nosuch", "--server", addr}, 1, `topic "nosuch" does not exist`},
		{"produce to unknown topic", []string{"produce", "nosuch", "--server", addr}, 1, "hub topics create nosuch"},
		{"delete unknown topic", []string{"topics", "delete", "nosuch", "--server", addr}, 1, "nosuch"},
		{"bad start", []string{"consume", "events", "--from", "yesterday", "--server", addr}, 2, "yesterday"},
		{"no such partition", []string{"consume", "events", "--partition", "7", "--server", addr}, 1, "it has 0 to 1"},
		{"bad setting", []string{"topics", "create", "x", "--config", "a", "--server", addr}, 2, "name=value"},
		{"unknown setting", []string{"topics", "create", "x", "--config", "a=b", "--server", addr}, 1, "unknown topic config"},
		{"topic exists", []string{"topics", "create", "events", "--server", addr}, 1, "exists"},
		{"verify nothing", []string{"log", "verify", "/nonexistent"}, 1, "/nonexistent"},
		{"short demo", []string{"demo", "--duration", "1s"}, 2, "10s"},
		{"bad site", []string{"enroll", "a b"}, 2, "site name"},
	} {
		t.Run(c.name, func(t *testing.T) {
			code, out, errOut := hub(t, "", c.args...)
			text := errOut
			if c.code == 0 {
				text = out
			}
			if code != c.code || !strings.Contains(text, c.want) {
				t.Errorf("exit %d, want %d with %q\n%s%s", code, c.code, c.want, out, errOut)
			}
		})
	}
}

// What produce writes consume prints, from all partitions.
func TestProduceConsume(t *testing.T) {
	addr := server(t)
	var in strings.Builder
	for i := range 300 {
		fmt.Fprintf(&in, "v%d\n", i)
	}
	for _, key := range []string{"a", "b", "c", "d"} {
		if code, out, errOut := hub(t, in.String(), "produce", "events", "--server", addr, "--key", key, "--json"); code != 0 || out != "{\"topic\":\"events\",\"records\":300}\n" {
			t.Fatalf("produce: %d %s %s", code, out, errOut)
		}
	}
	code, out, errOut := hub(t, "", "consume", "events", "--server", addr, "--json")
	if code != 0 || errOut != "" {
		t.Fatalf("consume: %d %s", code, errOut)
	}
	next, byKey, parts := map[int32]int64{}, map[string]int{}, map[string]int32{}
	for line := range strings.Lines(out) {
		var r struct {
			Partition int32
			Offset    int64
			Key       string
			Value     string
		}
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			t.Fatal(err)
		}
		if r.Offset != next[r.Partition] || r.Value != fmt.Sprintf("v%d", byKey[r.Key]) {
			t.Fatalf("partition %d: offset %d, value %s of key %s", r.Partition, r.Offset, r.Value, r.Key)
		}
		next[r.Partition]++
		byKey[r.Key]++
		if p, ok := parts[r.Key]; ok && p != r.Partition {
			t.Fatalf("key %s in partitions %d and %d", r.Key, p, r.Partition)
		}
		parts[r.Key] = r.Partition
		if want := record.PartitionOf([]byte(r.Key), 2); r.Partition != want {
			t.Fatalf("key %s in partition %d, murmur2 says %d", r.Key, r.Partition, want)
		}
	}
	if next[0]+next[1] != 1200 || next[0] == 0 || next[1] == 0 {
		t.Errorf("read %v", next)
	}
	for _, c := range []struct {
		args []string
		want int
	}{
		{[]string{"--count", "7"}, 7},
		{[]string{"--from", "end"}, 0},
		{[]string{"--from", "10", "--partition", "0"}, int(next[0]) - 10},
		{[]string{"--from", "999999"}, 0},
		{[]string{"--from", "1h"}, 1200},
		{[]string{"--from", "2099-01-01"}, 0},
		{[]string{"--partition", "1"}, int(next[1])},
	} {
		code, out, errOut := hub(t, "", append([]string{"consume", "events", "--server", addr}, c.args...)...)
		if got := strings.Count(out, "\n"); code != 0 || got != c.want {
			t.Errorf("%v: exit %d, %d lines, want %d %s", c.args, code, got, c.want, errOut)
		}
	}
}

func TestConsumeFollows(t *testing.T) {
	addr := server(t)
	done := make(chan string, 1)
	go func() {
		var out bytes.Buffer
		execute(t.Context(), []string{"consume", "events", "--server", addr, "--follow", "--count", "2"}, console{in: strings.NewReader(""), out: &out, err: &out})
		done <- out.String()
	}()
	for _, v := range []string{"one\n", "two\n"} {
		if code, _, errOut := hub(t, v, "produce", "events", "--key", "k", "--server", addr); code != 0 {
			t.Fatal(errOut)
		}
	}
	select {
	case got := <-done:
		if got != "one\ntwo\n" {
			t.Errorf("got %q", got)
		}
	case <-time.After(30 * time.Second):
		t.Fatal("nothing within 30s")
	}
}

func TestTopics(t *testing.T) {
	addr := server(t)
	if code, _, errOut := hub(t, "", "topics", "create", "new", "--partitions", "3", "--retention-time", "1h", "--compression", "gzip", "--server", addr); code != 0 {
		t.Fatal(errOut)
	}
	_, out, _ := hub(t, "", "topics", "list", "--server", addr)
	if want := "TOPIC   PARTITIONS  RECORDS\nevents  2           0\nnew     3           0\n"; out != want {
		t.Errorf("list:\n%s", out)
	}
	_, out, _ = hub(t, "", "topics", "describe", "new", "--server", addr, "--json")
	var d topicLine
	if err := json.Unmarshal([]byte(out), &d); err != nil || d.Name != "new" || len(d.Partitions) != 3 || d.Partitions[2].Leader != kafkatest.Node {
		t.Errorf("describe: %v %s", err, out)
	}
	if code, _, errOut := hub(t, "", "topics", "delete", "new", "--server", addr); code != 0 {
		t.Fatal(errOut)
	}
	_, out, _ = hub(t, "", "topics", "list", "--server", addr, "--json")
	var ls []topicLine
	if err := json.Unmarshal([]byte(out), &ls); err != nil || len(ls) != 1 {
		t.Errorf("list: %v %s", err, out)
	}
	_, out, _ = hub(t, "", "status", "--server", addr, "--http", "", "--json")
	var st statusReport
	if err := json.Unmarshal([]byte(out), &st); err != nil || st.Cluster != kafkatest.ClusterID || len(st.Topics) != 1 {
		t.Errorf("status: %v %s", err, out)
	}
	if code, _, errOut := hub(t, "", "status", "--server", addr, "--http", "127.0.0.1:1"); code != 1 || !strings.Contains(errOut, "--http") {
		t.Errorf("status without http: %d %s", code, errOut)
	}
}

func TestEnroll(t *testing.T) {
	t.Chdir(t.TempDir())
	if code, _, errOut := hub(t, "", "enroll", "press-7"); code != 0 {
		t.Fatal(errOut)
	}
	b, err := os.ReadFile("press-7.creds")
	if err != nil || !strings.Contains(string(b), "USER NKEY SEED") {
		t.Fatalf("%v %s", err, b)
	}
	if st, err := os.Stat("press-7.creds"); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("mode %v %v", st.Mode(), err)
	}
	if code, _, errOut := hub(t, "", "enroll", "press-7"); code != 1 || !strings.Contains(errOut, "--replace") {
		t.Errorf("again: %d %s", code, errOut)
	}
	before, _ := os.ReadFile("sites.yaml")
	if code, _, errOut := hub(t, "", "enroll", "press-7", "--replace"); code != 0 {
		t.Fatal(errOut)
	}
	after, _ := os.ReadFile("sites.yaml")
	if !strings.Contains(string(before), "press-7: U") || bytes.Equal(before, after) {
		t.Errorf("sites before\n%s\nand after\n%s", before, after)
	}
}

func TestUser(t *testing.T) {
	t.Chdir(t.TempDir())
	for _, c := range []struct {
		stdin string
		args  []string
		code  int
		want  string
	}{
		{"secret\n", []string{"add", "ann"}, 0, "ann is in users.yaml"},
		{"other", []string{"add", "bob", "--file", "users.yaml"}, 0, "bob is in users.yaml"},
		{"new\n", []string{"add", "ann"}, 1, "--replace"},
		{"new\r\n", []string{"add", "ann", "--replace"}, 0, "ann"},
		{"", []string{"add", "eve"}, 1, "one line of standard input"},
		{strings.Repeat("x", 2000), []string{"add", "eve"}, 1, "1 to 1024 bytes"},
		{"x", []string{"add", "a b"}, 2, "blanks"},
		{"x", []string{"add"}, 2, "needs a NAME"},
		{"", []string{"remove", "eve"}, 1, "no user eve"},
		{"", []string{"remove", "bob"}, 0, "bob is removed"},
		{"", []string{"list"}, 0, "ann\n"},
		{"", []string{"list", "--file", "none.yaml"}, 1, "none.yaml"},
	} {
		code, out, errOut := hub(t, c.stdin, append([]string{"user"}, c.args...)...)
		if code != c.code || !strings.Contains(out+errOut, c.want) {
			t.Errorf("user %v: exit %d, want %d with %q\n%s%s", c.args, code, c.code, c.want, out, errOut)
		}
	}
	b, err := os.ReadFile("users.yaml")
	if err != nil || !strings.Contains(string(b), "ann: $argon2id$v=19$m=7168,t=5,p=1$") || strings.Contains(string(b), "bob") {
		t.Errorf("%v\n%s", err, b)
	}
	if st, err := os.Stat("users.yaml"); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", st.Mode(), err)
	}
	list, err := config.LoadUsers("users.yaml")
	if err != nil {
		t.Fatal(err)
	}
	users, err := auth.NewUsers(list)
	if err != nil {
		t.Fatal(err)
	}
	if err := users.Login(t.Context(), "ann", "new", ""); err != nil {
		t.Error(err)
	}
}

// One line of consume --json, for everything that a record can hold.
func TestRecordJSON(t *testing.T) {
	at := time.UnixMilli(1700000000123)
	for _, c := range []struct {
		name string
		r    kgo.Record
		want string
	}{
		{"plain", kgo.Record{Key: []byte("k"), Value: []byte("v<\"")}, `"key":"k","value":"v<\"","headers":{}`},
		{"nulls", kgo.Record{Headers: []kgo.RecordHeader{{Key: "h"}}}, `"key":null,"value":null,"headers":{"h":null}`},
		{"empty", kgo.Record{Key: []byte{}, Value: []byte{}}, `"key":"","value":"","headers":{}`},
		{"binary", kgo.Record{Key: []byte{0xff}, Value: []byte{0xfe, 1}}, `"key":"/w==","key_encoding":"base64","value":"/gE=","encoding":"base64","headers":{}`},
		{"headers", kgo.Record{Headers: []kgo.RecordHeader{{Key: "a", Value: []byte("1")}, {Key: "b", Value: []byte{0xff}}, {Key: "a", Value: []byte("2")}}},
			`"key":null,"value":null,"headers":{"a":["1","2"],"b":{"base64":"/w=="}}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.r.Topic, c.r.Partition, c.r.Offset, c.r.Timestamp = "t", 3, 9, at
			want := `{"topic":"t","partition":3,"offset":9,"timestamp":1700000000123,` + c.want + "}"
			if got := string(appendRecord(nil, &c.r)); got != want {
				t.Errorf("got  %s\nwant %s", got, want)
			}
		})
	}
}

// Whatever a record holds, the line is JSON and gives the bytes back.
func FuzzRecordJSON(f *testing.F) {
	f.Add([]byte("k"), []byte("v"), "h", []byte("x"))
	f.Add([]byte{0xff}, []byte("\u2028\x00"), "", []byte{0x80})
	f.Fuzz(func(t *testing.T, key, value []byte, name string, header []byte) {
		line := appendRecord(nil, &kgo.Record{Topic: "t", Key: key, Value: value, Headers: []kgo.RecordHeader{{Key: name, Value: header}}})
		var r struct {
			Key         *string
			KeyEncoding string `json:"key_encoding"`
			Value       *string
			Encoding    string
		}
		if err := json.Unmarshal(line, &r); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		back := func(s *string, encoding string) []byte {
			if s == nil {
				return nil
			}
			if encoding == "base64" {
				b, err := base64.StdEncoding.DecodeString(*s)
				if err != nil {
					t.Fatal(err)
				}
				return b
			}
			return []byte(*s)
		}
		if diff := cmp.Diff([][]byte{key, value}, [][]byte{back(r.Key, r.KeyEncoding), back(r.Value, r.Encoding)}); diff != "" {
			t.Errorf("%s\n%s", diff, line)
		}
		if bytes.ContainsAny(line, "\n") {
			t.Errorf("line break in %q", line)
		}
	})
}

func TestParseStart(t *testing.T) {
	now := time.UnixMilli(1_700_000_000_000)
	for in, want := range map[string]start{
		"start": {kind: atStart}, "end": {kind: atEnd}, "0": {kind: atOffset}, "42": {kind: atOffset, value: 42},
		"2023-11-14T22:13:20Z": {kind: atTime, value: 1_700_000_000_000}, "2023-11-14": {kind: atTime, value: 1_699_920_000_000},
		"10m": {kind: atTime, value: 1_700_000_000_000 - 600_000},
	} {
		if got, err := parseStart(in, now); err != nil || got != want {
			t.Errorf("%q: %+v, %v", in, got, err)
		}
	}
	for _, in := range []string{"", "-1", "-10m", "tomorrow", "1.5"} {
		if got, err := parseStart(in, now); err == nil {
			t.Errorf("%q: %+v", in, got)
		}
	}
}
