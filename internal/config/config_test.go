package config

import (
	"bytes"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"edgehub/pkg/log/record"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
)

var update = flag.Bool("update", false, "rewrite the expected messages in testdata")

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// Every testdata/NAME.bad.yaml is refused with the message in NAME.bad.txt.
func TestBadFiles(t *testing.T) {
	files, err := filepath.Glob("testdata/*.bad.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no cases: %v", err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			var err error
			if strings.Contains(file, ".uplink.") {
				_, err = LoadUplink(file, nil, nil)
			} else {
				_, err = Load(file, nil, nil)
			}
			var ce *Error
			if !errors.As(err, &ce) {
				t.Fatalf("got error %v, want an *Error", err)
			}
			for _, p := range ce.Problems {
				if p.Line == 0 || p.Column == 0 {
					t.Errorf("problem without a place: %v", p)
				}
			}
			golden := strings.TrimSuffix(file, ".yaml") + ".txt"
			got := err.Error() + "\n"
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("message differs (-want +got):\n%s", cmp.Diff(string(want), got))
			}
		})
	}
}

const full = `
name: press-line-7
role: edge
data: state
mqtt: {listen: ":1883", allow_anonymous: true, tls: {cert: hub.pem, key: /etc/hub.key, client_ca: ca.pem}, users: users.yaml, acl: [{user: ann, publish: ["a/#", "{user}/+"]}, {user: "*", subscribe: ["#"]}]}
log: {commit_interval: 0, journal: 64MiB, compression: lz4}
kafka: {listen: "127.0.0.1:9092", advertise: "gw.local:9092"}
http: {listen: off}
clock: trusted
topics:
  telemetry:    {partitions: 4, retention: {time: 7d, bytes: 2GB}, priority: low, retain_until: uplink}
  telemetry.1m: {retention: {time: 2160h, bytes: unlimited}, priority: high, compression: gzip}
  plain:
routes:
  - match: "plant/{line}/{device}/telemetry"
    topic: telemetry
    key: "{device}"
    payload: json
    time: {field: ts, format: unix_ms, zone: Europe/Berlin, max_future: 10m}
  - {match: "noise/#", drop: true}
process:
  - name: temperature-1m
    from: telemetry
    where: temperature < 200
    by: [device]
    window: tumbling 1m
    grace: 10s
    emit: close
    compute: {mean: mean(temperature), n: count()}
    to: telemetry.1m
`

func TestFullFile(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "hub.yaml")
	if err := os.WriteFile(file, []byte(full), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := Load(file, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	topic := func(name string, f func(*record.TopicConfig)) *Topic {
		c := record.DefaultTopicConfig()
		c.Compression = record.LZ4
		f(&c)
		return &Topic{Name: name, Config: c}
	}
	want := &Config{
		Name: "press-line-7", Role: Edge, Data: filepath.Join(dir, "state"),
		MQTT: MQTT{Listener: Listener{Listen: ":1883", AllowAnonymous: true}, TLS: TLS{Listen: ":8883", Cert: filepath.Join(dir, "hub.pem"), Key: "/etc/hub.key", ClientCA: filepath.Join(dir, "ca.pem")}, Users: filepath.Join(dir, "users.yaml"),
			ACL: []*ACLEntry{{User: "ann", Publish: []string{"a/#", "{user}/+"}}, {User: "*", Subscribe: []string{"#"}}}},
		Log:   Log{CommitInterval: 0, Journal: 64 << 20, Compression: record.LZ4},
		Kafka: Kafka{Listener: Listener{Listen: "127.0.0.1:9092"}, Advertise: "gw.local:9092"},
		HTTP:  Listener{Listen: Off},
		Clock: "trusted",
		Topics: []*Topic{
			topic("telemetry", func(c *record.TopicConfig) {
				c.Partitions, c.RetentionTime, c.RetentionBytes = 4, 168*time.Hour, 2e9
				c.Priority, c.RetainUntil = record.PriorityLow, "uplink"
			}),
			topic("telemetry.1m", func(c *record.TopicConfig) {
				c.RetentionTime, c.RetentionBytes, c.Priority, c.Compression = 2160*time.Hour, -1, record.PriorityHigh, record.Gzip
			}),
			topic("plain", func(*record.TopicConfig) {}),
		},
		Routes: []*Route{
			{Match: "plant/{line}/{device}/telemetry", Topic: "telemetry", Key: "{device}", Payload: "json",
				Time: RouteTime{Field: "ts", Format: "unix_ms", Zone: "Europe/Berlin", MaxFuture: 10 * time.Minute}},
			{Match: "noise/#", Drop: true},
		},
		Process: []*Process{{
			Name: "temperature-1m", From: "telemetry", Where: "temperature < 200", By: []string{"device"},
			Window: Window{Kind: "tumbling", Size: time.Minute}, Grace: 10 * time.Second, Emit: "close",
			Compute: []Compute{{"mean", "mean(temperature)"}, {"n", "count()"}}, To: "telemetry.1m",
		}},
		Cluster: Cluster{Name: "core", Listen: "127.0.0.1:6222", Clients: "127.0.0.1:4222", Replicas: 1},
	}
	if diff := cmp.Diff(want, got, cmp.FilterPath(func(p cmp.Path) bool { return p.Last().String() == ".codec" }, cmp.Ignore())); diff != "" {
		t.Errorf("configuration differs (-want +got):\n%s", diff)
	}
}

func TestDefaults(t *testing.T) {
	c, err := Load("", nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if c.MQTT.Listen != "127.0.0.1:1883" || c.Kafka.Listen != "127.0.0.1:9092" || c.HTTP.Listen != "127.0.0.1:8080" {
		t.Errorf("listens on %s, %s, %s", c.MQTT.Listen, c.Kafka.Listen, c.HTTP.Listen)
	}
	if c.Name == "" || c.Data == "" || c.DataChosen == "" {
		t.Errorf("name %q, data %q, chosen because %q", c.Name, c.Data, c.DataChosen)
	}
	core, err := Load("", nil, []string{"role=core"})
	if err != nil {
		t.Fatal(err)
	}
	if core.MQTT.On() || core.Cluster.Replicas != 1 {
		t.Errorf("core: mqtt %q, %d replicas", core.MQTT.Listen, core.Cluster.Replicas)
	}
}

// What `config default` prints means the same as no configuration.
func TestDefaultPrintedIsTheDefault(t *testing.T) {
	var b bytes.Buffer
	if err := WriteHub(&b); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "hub.yaml")
	if err := os.WriteFile(file, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := Load(file, nil, nil)
	if err != nil {
		t.Fatalf("%v\n%s", err, b.String())
	}
	want, err := Load("", nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(Topic{})); diff != "" {
		t.Errorf("-none +printed:\n%s", diff)
	}
	for _, d := range HubKeys() {
		name := d.Path[strings.LastIndexAny(d.Path, ".")+1:]
		if !strings.Contains(b.String(), name+":") {
			t.Errorf("%s is not printed", d.Path)
		}
	}
	b.Reset()
	if err := WriteUplink(&b); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadUplink(file, nil, []string{"core=tls://c:4222", "topics=a"}); err != nil {
		t.Errorf("%v\n%s", err, b.String())
	}
}

func TestOverrides(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "hub.yaml")
	if err := os.WriteFile(file, []byte(full), 0o600); err != nil {
		t.Fatal(err)
	}
	env := []string{
		"HUB_MQTT_LISTEN=127.0.0.1:2883", "HUB_NAME=from-env", "HUB_TOPICS_TELEMETRY_1M_PARTITIONS=3",
		"HUB_TOPICS_TELEMETRY_RETENTION_BYTES=5GB", "HUB_TOPICS_NEW_PARTITIONS=2", "HUB_DATA=/tmp/x: y",
		"HUB_CONFIG=ignored.yaml", "HUB_SERVICE_HOST=10.0.0.1", "HUB_PORT=tcp://10.0.0.1:1", "PATH=/bin", "HUB_PORT_1883_TCP=tcp://x",
		"HUB_PROCESS_0_WHERE=temperature < 100",
	}
	c, err := Load(file, env, []string{
		"name=from-set", "topics.telemetry.1m.retention.time=1h", `topics."a.b".partitions=7`, "topics.c={partitions: 5}",
		"routes[0].key={line}/{device}", "process.0.compute.top=max(temperature)", "kafka.listen=[::1]:9092",
	})
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]int32{}
	for _, tp := range c.Topics {
		got[tp.Name] = tp.Config.Partitions
	}
	if diff := cmp.Diff(map[string]int32{"telemetry": 4, "telemetry.1m": 3, "plain": 1, "new": 2, "a.b": 7, "c": 5}, got); diff != "" {
		t.Errorf("partitions (-want +got):\n%s", diff)
	}
	if c.Name != "from-set" || c.MQTT.Listen != "127.0.0.1:2883" || c.Data != "/tmp/x: y" || c.Kafka.Listen != "[::1]:9092" {
		t.Errorf("name %q, mqtt %q, data %q, kafka %q", c.Name, c.MQTT.Listen, c.Data, c.Kafka.Listen)
	}
	if c.Topics[0].Config.RetentionBytes != 5e9 || c.Topics[1].Config.RetentionTime != time.Hour {
		t.Errorf("retention %d, %s", c.Topics[0].Config.RetentionBytes, c.Topics[1].Config.RetentionTime)
	}
	if c.Routes[0].Key != "{line}/{device}" || c.Process[0].Where != "temperature < 100" || len(c.Process[0].Compute) != 3 {
		t.Errorf("key %q, where %q, compute %v", c.Routes[0].Key, c.Process[0].Where, c.Process[0].Compute)
	}
	u, err := LoadUplink("", []string{"UPLINK_CORE=tls://a:4222,tls://b:4222", "UPLINK_TOPICS=alarms,telemetry", "UPLINK_BANDWIDTH=2Mbit/s"}, []string{"topics.0.priority=9"})
	if err != nil {
		t.Fatal(err)
	}
	if len(u.Core) != 2 || len(u.Topics) != 2 || u.Topics[0].Priority != 9 || u.Bandwidth != 250_000 {
		t.Errorf("uplink %+v", u)
	}
}

func TestBadOverrides(t *testing.T) {
	for _, c := range []struct {
		name     string
		env, set []string
		want     string
	}{
		{"unknown flag", nil, []string{"mqtt.lissten=x"}, `--set mqtt.lissten=x: unknown key "lissten" in mqtt: did you mean "listen"?`},
		{"no value", nil, []string{"mqtt.listen"}, `--set mqtt.listen: write --set key=value, as in --set mqtt.listen=127.0.0.1:1883`},
		{"wide", nil, []string{"mqtt.listen=:1883"}, `--set mqtt.listen=:1883: mqtt.listen ":1883" is open to other machines without a login: add mqtt.allow_anonymous: true to accept everybody (or name a file of users by mqtt.users), or listen on a loopback address, as in 127.0.0.1:1883`},
		{"below a value", nil, []string{"name.x=1"}, `--set name.x=1: name is a value (name) and has no key "x"`},
		{"not yet", nil, []string{"http.tls.cert=x"}, `--set http.tls.cert=x: http.tls is not yet supported: leave it out`},
		{"list entry", nil, []string{"routes.3.match=x"}, `--set routes.3.match=x: routes has no entry 3: entries count from 0`},
		{"topic key", nil, []string{"topics.a.b.partition=1"}, `--set topics.a.b.partition=1: unknown key "partition" in topics.<name>: did you mean "partitions"?`},
		{"unknown variable", []string{"HUB_MQTT_LISTN=x"}, nil, `HUB_MQTT_LISTN: no key of the configuration has this name: did you mean HUB_MQTT_LISTEN?`},
		{"variable's value", []string{"HUB_LOG_JOURNAL=64 quid"}, nil, `HUB_LOG_JOURNAL: log.journal: "64 quid" is not a size: write a number with B, KB, MB, GB, KiB, MiB or GiB, as in 64MB`},
		{"variable not yet", []string{"HUB_HTTP_TLS_CERT=x"}, nil, `HUB_HTTP_TLS_CERT: http.tls is not yet supported: leave it out`},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := Load("", c.env, c.set)
			if err == nil {
				t.Fatal("no error")
			}
			if got := err.Error(); got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		})
	}
	_, err := Load("/nonexistent/hub.yaml", nil, nil)
	if err == nil || err.Error() != "/nonexistent/hub.yaml: no such file or directory: name a readable YAML file by --config" {
		t.Errorf("got %v", err)
	}
}

// A Check's problem is put to the place of its key.
func TestCheckPlaces(t *testing.T) {
	file := filepath.Join(t.TempDir(), "hub.yaml")
	if err := os.WriteFile(file, []byte("routes:\n  - match: a\n    topic: t\n  - {match: b, topic: u}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := Load(file, nil, nil, func(c *Config, r *Report) {
		r.Addf("routes[1].match", "bad pattern")
		r.Addf("routes[0].time.field", "bad field")
	})
	var ce *Error
	if !errors.As(err, &ce) || len(ce.Problems) != 2 {
		t.Fatalf("got %v", err)
	}
	for i, want := range [][2]int{{2, 5}, {4, 13}} {
		if p := ce.Problems[i]; p.Line != want[0] || p.Column != want[1] {
			t.Errorf("problem %d at %d:%d, want %v", i, p.Line, p.Column, want)
		}
	}
}

func TestValues(t *testing.T) {
	for in, want := range map[string]int64{"64MB": 64e6, "64MiB": 64 << 20, "1.5GB": 1.5e9, "10": 10, "2 KB": 2000, "1kB": 1000, "0": 0, "7B": 7} {
		if got, err := parseSize(in); err != nil || got != want {
			t.Errorf("size %q: %d, %v, want %d", in, got, err, want)
		}
	}
	for _, in := range []string{"", "MB", "-1", "1.5", "1e9", "0x10", "64Mb", "64 M", "inf", "NaN", "99999999999TB"} {
		if got, err := parseSize(in); err == nil {
			t.Errorf("size %q is %d, want an error", in, got)
		}
	}
	for in, want := range map[string]int64{"256KB/s": 256e3, "1MiB/s": 1 << 20, "unlimited": 0, "8kbit/s": 1000} {
		if got, err := parseRate(in); err != nil || got != want {
			t.Errorf("rate %q: %d, %v, want %d", in, got, err, want)
		}
	}
	for in, want := range map[string]bool{"127.0.0.1:1": true, "localhost:1": true, "[::1]:1": true, "127.3.2.1:1": true, ":1": false, "0.0.0.0:1": false, "host:1": false, "10.0.0.1:1": false} {
		if got := Loopback(in); got != want {
			t.Errorf("Loopback(%q) = %v", in, got)
		}
	}
}

// Whatever the file holds, Load ends with a configuration or an *Error.
func FuzzLoad(f *testing.F) {
	f.Add([]byte(full))
	files, _ := filepath.Glob("testdata/*.yaml")
	for _, name := range files {
		if b, err := os.ReadFile(name); err == nil {
			f.Add(b)
		}
	}
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, b []byte) {
		file := filepath.Join(dir, "hub.yaml")
		if err := os.WriteFile(file, b, 0o600); err != nil {
			t.Fatal(err)
		}
		c, err := Load(file, nil, nil)
		var ce *Error
		if err != nil && (!errors.As(err, &ce) || len(ce.Problems) == 0 || err.Error() == "") {
			t.Fatalf("error %v is no *Error", err)
		}
		if err == nil && (c.Name == "" || c.Data == "") {
			t.Fatalf("incomplete: %+v", c)
		}
	})
}
