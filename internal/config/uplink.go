package config

import (
	"fmt"
	"net/url"

	"edgehub/pkg/log/record"
)

// Uplink is the configuration of an uplink, checked, with defaults filled in.
type Uplink struct {
	Hub         string   // host:port of the hub's Kafka listener
	Core        []string // URLs of core nodes: tls, nats, wss, ws
	Credentials string   // path of a NATS credentials file; "": none
	Topics      []*UplinkTopic
	Bandwidth   int64  // bytes a second; 0: no limit
	Group       string // consumer group that keeps the cursor
	HTTP        Listener
}

// UplinkTopic is a topic to forward.
type UplinkTopic struct {
	Name     string
	Priority int // higher goes first
}

func uplinkFields(u *Uplink) *Field {
	topics := sections("topics", "What is forwarded. A plain name is short for {name: …}.", &u.Topics,
		func() *UplinkTopic { return &UplinkTopic{} },
		func(t *UplinkTopic) *Field {
			return section("", "",
				scalar("name", "topic", &t.Name, "", "The topic, by the same name at hub and core.", parseTopicName),
				scalar("priority", "number", &t.Priority, "0", "0 to 100; higher goes first.", parseInt(0, 100)),
			)
		})
	topics.short = "name"
	topics.Example = "[{name: alarms, priority: 10}, {name: telemetry, priority: 1}]"
	core := list("core", "URL", &u.Core, "Core nodes: tls://host:4222, wss://host:443; nats:// and ws:// without credentials on this machine only.", parseCoreURL)
	core.Example = `["tls://core-1:4222", "tls://core-2:4222", "tls://core-3:4222"]`
	return section("", "",
		scalar("hub", "host:port", &u.Hub, "127.0.0.1:9092", "The hub's Kafka listener.", parseHostPort),
		core,
		path("credentials", &u.Credentials, "", "NATS credentials of this site, as `hub enroll` writes them."),
		topics,
		scalar("bandwidth", "rate", &u.Bandwidth, "unlimited", "Most bytes a second on the link, as 256KB/s or 2Mbit/s.", parseRate),
		scalar("group", "group", &u.Group, "uplink", "Consumer group in the hub that keeps the place.", parseGroup),
		section("http", "Health, metrics and status of the uplink.",
			scalar("listen", "host:port", &u.HTTP.Listen, "127.0.0.1:8090", "Address; off is none.", parseListen),
			scalar("allow_anonymous", "bool", &u.HTTP.AllowAnonymous, "false", "Answer other machines without a login.", parseBool),
			notYet("tls", "section", "TLS."),
			notYet("users", "path", "File of users with passwords."),
		),
		notYet("live_first", "bool", "Send new records before the backlog."),
		notYet("tls", "section", "Own certificate authority for tls:// and wss://."),
	)
}

// UplinkKeys lists every key of uplink.yaml.
func UplinkKeys() []Documented {
	var out []Documented
	flatten(uplinkFields(&Uplink{}), "", &out)
	return out
}

// LoadUplink reads the configuration of an uplink, as Load does a hub's; its
// variables begin with UPLINK_.
func LoadUplink(path string, env, set []string) (*Uplink, error) {
	u := &Uplink{Hub: "127.0.0.1:9092", Group: "uplink", HTTP: Listener{Listen: "127.0.0.1:8090"}}
	l := newLoader(uplinkFields(u), UplinkKeys(), "UPLINK_")
	l.sources(path, env, set)
	if err := l.rep.err(); err != nil {
		return nil, err
	}
	u.check(&l.rep)
	if err := l.rep.err(); err != nil {
		return nil, err
	}
	return u, nil
}

func (u *Uplink) check(r *Report) {
	if len(u.Core) == 0 {
		r.Addf("core", "no core: name at least one node, as in core: [\"tls://core-1:4222\"]")
	}
	if len(u.Topics) == 0 {
		r.Addf("topics", "nothing to forward: name at least one topic, as in topics: [{name: telemetry}]")
	}
	for i, s := range u.Core {
		p, err := url.Parse(s)
		if err != nil {
			continue // parseCoreURL took it
		}
		host := p.Host
		if p.Port() == "" {
			host = p.Hostname() + ":0"
		}
		if (p.Scheme == "nats" || p.Scheme == "ws") && u.Credentials == "" && !Loopback(host) {
			r.Addf(fmt.Sprintf("core[%d]", i), "%s without credentials is for this machine only: use tls:// or wss://, or name a file by credentials", s)
		}
	}
	names := map[string]int{}
	for i, t := range u.Topics {
		at := fmt.Sprintf("topics[%d]", i)
		if t.Name == "" {
			r.Addf(at, "%s has no name", at)
			continue
		}
		if first, dup := names[t.Name]; dup {
			r.Addf(at+".name", "topic %q stands here a second time: the first is topics[%d]", t.Name, first)
		}
		names[t.Name] = i
	}
	if a := u.HTTP.Listen; a != Off && !Loopback(a) && !u.HTTP.AllowAnonymous {
		r.Addf("http.listen", "http.listen %q is open to other machines without a login: add http.allow_anonymous: true to answer everybody, or listen on a loopback address, as in 127.0.0.1:%s", a, portOf(a))
	}
}

func parseGroup(s string) (string, error) {
	if err := checkText(s); err != nil {
		return "", err
	}
	if len(s) > record.MaxTopicName {
		return "", fmt.Errorf("the name has %d bytes: use at most %d", len(s), record.MaxTopicName)
	}
	return s, nil
}
