package config

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"edgehub/pkg/forward"
	"edgehub/pkg/log/record"
)

// Role is what a hub is.
type Role string

// Roles.
const (
	Edge     Role = "edge"
	CoreNode Role = "core"
)

// CommitAuto is the commit interval "auto": chosen by the kind of the disk.
const CommitAuto = time.Duration(-1)

// Config is the configuration of a hub, checked, with defaults filled in.
type Config struct {
	Name    string // the site at an edge, the node at the core; forward.CheckSite holds
	Role    Role
	Data    string // folder below which everything lies
	MQTT    MQTT
	Kafka   Kafka
	HTTP    Listener
	Log     Log
	Clock   string   // auto, trusted, untrusted
	Topics  []*Topic // in the order given
	Routes  []*Route
	Process []*Process
	Cluster Cluster

	// DataChosen says how Data was chosen when nobody gave it; "" if it was given.
	DataChosen string
}

// Listener is where a part of the hub listens.
type Listener struct {
	Listen         string // host:port; "" or Off: not at all
	AllowAnonymous bool
}

// On says whether the listener is to be opened.
func (l Listener) On() bool { return l.Listen != "" && l.Listen != Off }

// MQTT is the broker.
type MQTT struct {
	Listener  // MQTT over TCP
	TLS       TLS
	WebSocket WebSocket
	// Users is the path of a file of users; "": passwords do not count. With
	// it nobody is anonymous.
	Users string
	ACL   []*ACLEntry
}

// ACLEntry is one entry of mqtt.acl.
type ACLEntry struct {
	User               string // or "*"
	Publish, Subscribe []string
}

// WebSocket is where MQTT is to be had over WebSocket.
type WebSocket struct {
	Listen string // host:port without TLS; "" or Off: not at all
	TLS    TLS
}

// On says whether the listener without TLS is to be opened.
func (w WebSocket) On() bool { return w.Listen != "" && w.Listen != Off }

// On says whether any of the broker's listeners is to be opened.
func (m MQTT) On() bool {
	return m.Listener.On() || m.TLS.On() || m.WebSocket.On() || m.WebSocket.TLS.On()
}

// TLS is a listener with certificates. Load has read the files once, so that
// what is wrong with them is known early.
type TLS struct {
	Listen string // host:port; "" or Off: not at all
	Cert   string // path of the chain in PEM form
	Key    string // path of its key
	// ClientCA is the path of the CAs of client certificates, which are then
	// required and say who a client is. "": nobody is asked for one.
	ClientCA string
}

// On says whether the listener is to be opened.
func (t TLS) On() bool { return t.Listen != "" && t.Listen != Off }

// given says whether anything of the section was given.
func (t TLS) given() bool { return t != TLS{} }

// Kafka is the Kafka listener.
type Kafka struct {
	Listener
	Advertise string // host:port that Metadata names; "": the local address of the connection
}

// Log is how the log of an edge hub writes.
type Log struct {
	CommitInterval time.Duration // CommitAuto, 0 (at once) or longer
	Journal        int64         // bytes
	Compression    record.Codec  // of topics that name none
}

// Topic is a declared topic.
type Topic struct {
	Name   string
	Config record.TopicConfig
	codec  string // compression as given, "" for the log's default
}

// Route is one entry of routes.
type Route struct {
	Match, Topic, Key, Payload string
	Time                       RouteTime
	Drop                       bool
}

// RouteTime says where a payload has its event time.
type RouteTime struct {
	Field, Format, Zone string
	MaxFuture           time.Duration // 0: the default
}

// Window is how a process cuts time.
type Window struct {
	Kind string // tumbling
	Size time.Duration
}

// Compute is one output field of a process.
type Compute struct{ Name, Expr string }

// Process is one entry of process.
type Process struct {
	Name, From, Where string
	By                []string
	Window            Window
	Grace             time.Duration
	Emit              string // close
	Compute           []Compute
	To                string
}

// Cluster is how a core node meets the others and its sites.
type Cluster struct {
	Name           string
	Listen         string // routes between nodes
	Clients        string // NATS clients: uplinks
	Routes         []string
	Replicas       int
	Secret         string // path of a file whose first line is the secret
	Sites          string // path of sites.yaml
	AllowAnonymous bool   // clients without credentials
}

// DefaultGrace is how long a window waits for stragglers.
const DefaultGrace = 5 * time.Second

// hubFields declares every key of hub.yaml, bound to c.
func hubFields(c *Config) *Field {
	return section("", "",
		scalar("name", "name", &c.Name, "", "The site's name, unique at the core; at the core the node's. Default: the host name.", parseName),
		scalar("role", "edge or core", (*string)(&c.Role), "edge", "edge: a gateway. core: a node of the core.", parseOneOf("edge", "core")),
		path("data", &c.Data, "", "Folder below which everything is kept. Default: /var/lib/hub if it exists or can be made, else ./data."),
		section("mqtt", "The MQTT broker. A core node has none unless listen is given.",
			scalar("listen", "host:port", &c.MQTT.Listen, "127.0.0.1:1883", "Address; \":1883\" is every interface, off is none.", parseListen),
			scalar("allow_anonymous", "bool", &c.MQTT.AllowAnonymous, "false", "Accept clients without a login from other machines.", parseBool),
			section("tls", "MQTT over TLS, opened if cert is given.", tlsFields(&c.MQTT.TLS, "port 8883 of the interfaces of mqtt.listen.")...),
			section("websocket", "MQTT over WebSocket at path /mqtt, opened if listen or tls.cert is given.",
				scalar("listen", "host:port", &c.MQTT.WebSocket.Listen, "", "Address, usually with port 8083.", parseListen),
				section("tls", "WebSocket over TLS (wss).", tlsFields(&c.MQTT.WebSocket.TLS, "websocket.listen, which then speaks TLS only; else port 8083 of the interfaces of mqtt.listen.")...),
			),
			path("users", &c.MQTT.Users, "", "File of users with passwords, written by `hub user add`. With it nobody is anonymous."),
			aclField(c),
		),
		section("log", "How the log of an edge hub writes.",
			scalar("commit_interval", "duration", &c.Log.CommitInterval, "auto", "How long a commit may gather publishes; 0: at once. auto: 0 on fast disks, 100ms on SD cards and eMMC.", parseCommit),
			scalar("journal", "size", &c.Log.Journal, "64MB", "Size of the journal; at most 1/16 of the file system.", parseJournal),
			scalar("compression", "codec", &c.Log.Compression, "zstd", "Of topics that name none: zstd, lz4, gzip, snappy or none.", record.ParseCodec),
		),
		section("kafka", "The Kafka listener.",
			scalar("listen", "host:port", &c.Kafka.Listen, "127.0.0.1:9092", "Address; \":9092\" is every interface, off is none.", parseListen),
			scalar("advertise", "host:port", &c.Kafka.Advertise, "", "Address that clients are told to use. Default: the one by which they came.", parseHostPort),
			scalar("allow_anonymous", "bool", &c.Kafka.AllowAnonymous, "false", "Accept clients without a login from other machines.", parseBool),
			notYet("tls", "section", "TLS."),
			notYet("users", "path", "File of users with passwords."),
		),
		section("http", "Health, metrics and status.",
			scalar("listen", "host:port", &c.HTTP.Listen, "127.0.0.1:8080", "Address; \":8080\" is every interface, off is none.", parseListen),
			scalar("allow_anonymous", "bool", &c.HTTP.AllowAnonymous, "false", "Answer other machines without a login.", parseBool),
			notYet("tls", "section", "TLS."),
			notYet("users", "path", "File of users with passwords."),
		),
		scalar("clock", "auto, trusted or untrusted", &c.Clock, "auto", "Whether the system's time is to be believed. auto: when the kernel's clock is synchronised, or not before what is known to be past.", parseOneOf("auto", "trusted", "untrusted")),
		topicsField(c),
		routesField(c),
		processField(c),
		section("cluster", "How a core node meets the others.",
			scalar("name", "name", &c.Cluster.Name, "core", "Name of the core; the same on every node.", parseName),
			scalar("listen", "host:port", &c.Cluster.Listen, "127.0.0.1:6222", "Address for the other nodes.", parseListen),
			scalar("clients", "host:port", &c.Cluster.Clients, "127.0.0.1:4222", "Address for uplinks.", parseListen),
			list("routes", "host:port", &c.Cluster.Routes, "Addresses of all nodes for one another, this one's too.", parseHostPort),
			scalar("replicas", "number", &c.Cluster.Replicas, "", "Copies of each record: 1, 3 or 5. Default: 3 with three or more routes, else 1.", parseReplicas),
			path("secret", &c.Cluster.Secret, "", "File whose first line is the secret that the nodes share. Needed unless listen is a loopback address."),
			path("sites", &c.Cluster.Sites, "", "File of sites with their public keys, written by `hub enroll`. With it uplinks must log in."),
			scalar("allow_anonymous", "bool", &c.Cluster.AllowAnonymous, "false", "Accept uplinks without credentials from other machines.", parseBool),
			notYet("tls", "section", "TLS."),
		),
		notYet("sparkplug", "section", "Sparkplug B host."),
		notYet("downlink", "section", "Commands to devices."),
		notYet("alarms", "list", "Alarms over topics."),
		notYet("mqtt_out", "list", "Topics that the hub publishes as MQTT."),
		notYet("bridge", "section", "Client of existing brokers."),
	)
}

func aclField(c *Config) *Field {
	f := sections("acl", "Who may publish and subscribe to what; what is not listed is denied once there are users or an acl.",
		&c.MQTT.ACL, func() *ACLEntry { return &ACLEntry{} }, func(e *ACLEntry) *Field {
			return section("", "",
				scalar("user", "name", &e.User, "", "Name of the user, or \"*\" for everybody.", parseText),
				list("publish", "topic filter", &e.Publish, "{user} and {client} stand for user name and client id.", parseText),
				list("subscribe", "topic filter", &e.Subscribe, "Likewise. A filter permits all that it covers.", parseText),
			)
		})
	f.Example = `[{user: "*", publish: ["plant/{user}/#"], subscribe: ["cmd/{client}/#"]}]`
	return f
}

func tlsFields(t *TLS, instead string) []*Field {
	return []*Field{
		scalar("listen", "host:port", &t.Listen, "", "Address. Default: "+instead, parseListen),
		path("cert", &t.Cert, "", "Certificate chain in PEM form."),
		path("key", &t.Key, "", "Its private key in PEM form."),
		path("client_ca", &t.ClientCA, "", "CAs in PEM form. With it clients need a certificate, whose common name (or first alternative name) is their user name."),
	}
}

func topicsField(c *Config) *Field {
	spec := func(t *Topic) *Field {
		return section(t.Name, "",
			scalar("partitions", "number", &t.Config.Partitions, "1", "1 to 1000; never changes once the topic exists.", parseInt[int32](1, record.MaxPartitions)),
			section("retention", "What is kept; the older of both limits goes first.",
				scalar("time", "duration", &t.Config.RetentionTime, "168h", "By time of arrival; unlimited keeps all.", parseKeep),
				scalar("bytes", "size", &t.Config.RetentionBytes, "1GB", "Of the whole topic, as stored; unlimited keeps all.", parseLimit),
			),
			scalar("compression", "codec", &t.codec, "", "zstd, lz4, gzip, snappy or none. Default: log.compression.", parseCodecName),
			scalar("max_message_bytes", "size", &t.Config.MaxMessageBytes, "1048588", "Largest batch that a producer may send.", parseMaxMessage),
			scalar("priority", "low, normal or high", &t.Config.Priority, "normal", "When the disk is full low goes first.", parsePriority),
			scalar("durability", "fsync, interval or none", &t.Config.Durability, "fsync", "What an acknowledgement means: on disk, on disk soon, nothing.", parseDurability),
			scalar("retain_until", "group", &t.Config.RetainUntil, "", "Consumer group that must have read a record before retention drops it, as uplink.", parseText),
			notYet("compact", "bool", "Keep the last record of each key."),
		)
	}
	find := func(name string) int {
		return slices.IndexFunc(c.Topics, func(t *Topic) bool { return t.Name == name })
	}
	return &Field{
		Name: "topics", Type: "map", Doc: "Topics that are created at start, by name.",
		Example: "{telemetry: {partitions: 4, retention: {time: 168h, bytes: 2GB}, priority: low, retain_until: uplink}}",
		sample:  spec(newTopic("")),
		check:   checkTopicName,
		keys: func() []string {
			names := make([]string, len(c.Topics))
			for i, t := range c.Topics {
				names[i] = t.Name
			}
			return names
		},
		item: func(name string) *Field {
			i := find(name)
			if i < 0 {
				i = len(c.Topics)
				c.Topics = append(c.Topics, newTopic(name))
			}
			return spec(c.Topics[i])
		},
	}
}

func newTopic(name string) *Topic {
	return &Topic{Name: name, Config: record.DefaultTopicConfig()}
}

func routesField(c *Config) *Field {
	f := sections("routes", "What an MQTT publish becomes; the first that matches wins. Without a match it goes to topic mqtt, key = MQTT topic.",
		&c.Routes, func() *Route { return &Route{} }, func(r *Route) *Field {
			return section("", "",
				scalar("match", "MQTT topic pattern", &r.Match, "", "{name} is one level, captured; a last # is the rest.", parseText),
				scalar("topic", "topic", &r.Topic, "", "Where the record goes.", parseTopicName),
				scalar("key", "template", &r.Key, "", "The record's key, with {captures}. Default: the MQTT topic.", parseText),
				scalar("payload", "kind", &r.Payload, "auto", "json, cbor, senml, text, raw or auto.", parsePayload),
				section("time", "Where the payload has its time. Default: the time of arrival.",
					scalar("field", "name", &r.Time.Field, "", "Of the payload.", parseText),
					scalar("format", "format", &r.Time.Format, "unix_ms", "unix, unix_ms, rfc3339 or a layout of Go.", parseText),
					scalar("zone", "time zone", &r.Time.Zone, "UTC", "For layouts without a zone, as Europe/Berlin.", parseText),
					scalar("max_future", "duration", &r.Time.MaxFuture, "5m", "How far ahead of a trusted clock a time may be.", parseDuration),
				),
				scalar("drop", "bool", &r.Drop, "false", "Do not store what matches.", parseBool),
			)
		})
	f.Example = `[{match: "plant/{line}/{device}/telemetry", topic: telemetry, key: "{device}", payload: json, time: {field: ts, format: unix_ms}}]`
	return f
}

func processField(c *Config) *Field {
	f := sections("process", "Windows over topics.",
		&c.Process, func() *Process { return &Process{Grace: DefaultGrace, Emit: "close"} }, func(p *Process) *Field {
			find := func(name string) int {
				return slices.IndexFunc(p.Compute, func(x Compute) bool { return x.Name == name })
			}
			compute := &Field{
				Name: "compute", Type: "map", Doc: "Output fields by name, each an aggregate: count(), sum(x), mean(x), min(x), max(x).",
				Example: "{mean: mean(temperature), n: count()}",
				sample:  scalar("", "expression", new(string), "", "", parseText),
				check:   checkText,
				keys:    func() []string { return nil },
				item: func(name string) *Field {
					i := find(name)
					if i < 0 {
						i = len(p.Compute)
						p.Compute = append(p.Compute, Compute{Name: name})
					}
					return scalar(name, "expression", &p.Compute[i].Expr, "", "", parseText)
				},
			}
			return section("", "",
				scalar("name", "name", &p.Name, "", "Unique; state is kept under it.", parseTopicName),
				scalar("from", "topic", &p.From, "", "Topic that is read.", parseTopicName),
				scalar("where", "expression", &p.Where, "", "Records for which it is false are passed over.", parseText),
				list("by", "name", &p.By, "Captures or payload fields; a window for each combination of their values.", parseText),
				scalar("window", "window", &p.Window, "", "tumbling 1m.", parseWindow),
				scalar("grace", "duration", &p.Grace, "5s", "How long a window waits for stragglers.", parseDuration),
				scalar("emit", "emit", &p.Emit, "close", "When results leave: close.", parseEmit),
				compute,
				scalar("to", "topic", &p.To, "", "Topic for the results.", parseTopicName),
			)
		})
	f.Example = `[{name: temperature-1m, from: telemetry, by: [device], window: tumbling 1m, compute: {mean: mean(temperature), n: count()}, to: telemetry.1m}]`
	return f
}

func parseName(s string) (string, error) {
	if err := forward.CheckSite(s); err != nil {
		return "", err
	}
	return s, nil
}

func checkTopicName(s string) error {
	if strings.HasPrefix(s, record.InternalPrefix) {
		return fmt.Errorf("topic %q: names that begin with %s are the hub's own", s, record.InternalPrefix)
	}
	return record.CheckTopicName(s)
}

func parseTopicName(s string) (string, error) { return s, checkTopicName(s) }

func parseCommit(s string) (time.Duration, error) {
	if s == "auto" {
		return CommitAuto, nil
	}
	d, err := parseDuration(s)
	if err == nil && d > 10*time.Second {
		return 0, fmt.Errorf("%s would let a publisher wait that long: use at most 10s", s)
	}
	return d, err
}

func parseJournal(s string) (int64, error) {
	v, err := parseSize(s)
	if err == nil && (v < 1<<20 || v > 4<<30) {
		return 0, fmt.Errorf("journal of %s: use 1MiB to 4GiB", s)
	}
	return v, err
}

func parseMaxMessage(s string) (int32, error) {
	v, err := parseSize(s)
	if err == nil && (v < 1024 || v > record.MaxBatchBytes) {
		return 0, fmt.Errorf("%s is not from 1KiB to 64MiB", s)
	}
	return int32(v), err
}

func parseReplicas(s string) (int, error) {
	n, err := parseInt(1, 5)(s)
	if err != nil || n%2 == 0 {
		return 0, fmt.Errorf("%q is not 1, 3 or 5", s)
	}
	return n, nil
}

func parseCodecName(s string) (string, error) {
	_, err := record.ParseCodec(s)
	return s, err
}

func parsePriority(s string) (record.Priority, error) {
	name, err := parseOneOf("low", "normal", "high")(s)
	return map[string]record.Priority{"low": record.PriorityLow, "normal": record.PriorityNormal, "high": record.PriorityHigh}[name], err
}

func parseDurability(s string) (record.Durability, error) {
	switch s {
	case "fsync":
		return record.DurabilityFsync, nil
	case "interval", "none":
		return 0, fmt.Errorf("%s is not yet supported: every acknowledgement waits for the disk (fsync)", s)
	}
	_, err := parseOneOf("fsync", "interval", "none")(s)
	return 0, err
}

func parsePayload(s string) (string, error) {
	if s == "sparkplug" {
		return "", fmt.Errorf("sparkplug is not yet supported: use raw to store it as it comes")
	}
	return parseOneOf("json", "cbor", "senml", "text", "raw", "auto")(s)
}

func parseEmit(s string) (string, error) {
	if s == "both" || strings.HasPrefix(s, "update") {
		return "", fmt.Errorf("%q is not yet supported: use close", s)
	}
	return parseOneOf("close")(s)
}

func parseWindow(s string) (Window, error) {
	f := strings.Fields(s)
	if len(f) == 0 {
		return Window{}, fmt.Errorf("the window is empty: write tumbling and a size, as in tumbling 1m")
	}
	switch f[0] {
	case "hopping", "session", "count", "calendar":
		return Window{}, fmt.Errorf("%s windows are not yet supported: use tumbling", f[0])
	case "tumbling":
	default:
		return Window{}, fmt.Errorf("window %q is unknown: write tumbling and a size, as in tumbling 1m", s)
	}
	if len(f) != 2 {
		return Window{}, fmt.Errorf("window %q: write tumbling and one size, as in tumbling 1m", s)
	}
	d, err := parseDuration(f[1])
	if err != nil {
		return Window{}, err
	}
	if d < time.Millisecond || d%time.Millisecond != 0 || d > 366*24*time.Hour {
		return Window{}, fmt.Errorf("window size %s: use whole milliseconds, at most 366d", f[1])
	}
	return Window{Kind: "tumbling", Size: d}, nil
}

// defaultData chooses the folder when nobody named one, and says why.
func defaultData() (dir, why string) {
	const system = "/var/lib/hub"
	if _, err := os.Stat(system); err == nil {
		return system, "it exists"
	}
	if os.Geteuid() == 0 {
		if _, err := os.Stat(filepath.Dir(system)); err == nil {
			return system, "this is root"
		}
	}
	return "data", system + " does not exist and only root may make it"
}

// hostName is this machine's name with what a site's name may not hold
// replaced.
func hostName() string {
	h, err := os.Hostname()
	if err != nil || h == "" {
		return "hub"
	}
	h = strings.Map(func(r rune) rune {
		if forward.CheckSite(string(r)) == nil {
			return r
		}
		return '-'
	}, h)
	return h[:min(len(h), forward.MaxSiteName)]
}
