package config

import (
	"fmt"
	"net"
	"slices"
	"strings"

	"edgehub/pkg/log/record"
)

// Check judges what this package cannot (patterns, expressions). It adds what
// it finds wrong to r. It is called only with a configuration that decoded
// without a problem.
type Check func(c *Config, r *Report)

// Load reads the configuration of a hub: the file at path ("" for none, "-"
// for standard input), then variables HUB_… of env (as os.Environ), then each
// of set ("a.b.c=value"). All problems come back together as an *Error.
func Load(path string, env, set []string, checks ...Check) (*Config, error) {
	c := &Config{
		Role:  Edge,
		MQTT:  MQTT{Listener: Listener{Listen: "127.0.0.1:1883"}},
		Kafka: Kafka{Listener: Listener{Listen: "127.0.0.1:9092"}},
		HTTP:  Listener{Listen: "127.0.0.1:8080"},
		Log:   Log{CommitInterval: CommitAuto, Journal: 64_000_000, Compression: record.Zstd},
		Clock: "auto",
		Cluster: Cluster{
			Name: "core", Listen: "127.0.0.1:6222", Clients: "127.0.0.1:4222",
		},
	}
	l := newLoader(hubFields(c), HubKeys(), "HUB_")
	l.sources(path, env, set)
	if err := l.rep.err(); err != nil {
		return nil, err
	}
	c.finish(&l.rep)
	c.check(&l.rep)
	if len(l.rep.problems) == 0 {
		for _, f := range checks {
			f(c, &l.rep)
		}
	}
	if err := l.rep.err(); err != nil {
		return nil, err
	}
	return c, nil
}

// HubKeys lists every key of hub.yaml.
func HubKeys() []Documented {
	var out []Documented
	flatten(hubFields(&Config{}), "", &out)
	return out
}

// finish fills in what depends on other values.
func (c *Config) finish(r *Report) {
	if c.Name == "" {
		c.Name = hostName()
	}
	if c.Data == "" {
		c.Data, c.DataChosen = defaultData()
	}
	if c.Role == CoreNode && !r.Given("mqtt.listen") {
		c.MQTT.Listen = Off
	}
	if t := &c.MQTT.TLS; t.given() && t.Listen == "" {
		t.Listen = besides(c.MQTT.Listen, "8883")
	}
	if w := &c.MQTT.WebSocket; w.TLS.given() && w.TLS.Listen == "" {
		if w.TLS.Listen, w.Listen = w.Listen, ""; w.TLS.Listen == "" {
			w.TLS.Listen = besides(c.MQTT.Listen, "8083")
		}
	}
	if c.Cluster.Replicas == 0 {
		c.Cluster.Replicas = 1
		if len(c.Cluster.Routes) >= 3 {
			c.Cluster.Replicas = 3
		}
	}
	for _, t := range c.Topics {
		t.Config.Compression = c.Log.Compression
		if t.codec != "" {
			t.Config.Compression, _ = record.ParseCodec(t.codec)
		}
	}
}

// besides is the address of another port on the interfaces of addr.
func besides(addr, port string) string {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		host = "127.0.0.1"
	}
	return net.JoinHostPort(host, port)
}

func (c *Config) check(r *Report) {
	c.checkListeners(r)
	c.checkTLS(r, "mqtt.tls", c.MQTT.TLS)
	c.checkTLS(r, "mqtt.websocket.tls", c.MQTT.WebSocket.TLS)
	for i, rt := range c.Routes {
		at := fmt.Sprintf("routes[%d]", i)
		if rt.Match == "" {
			r.Addf(at, "%s has no match: name the MQTT topics that it takes", at)
		}
		switch {
		case rt.Topic == "" && !rt.Drop:
			r.Addf(at, "%s has neither topic nor drop: true: say where its messages go", at)
		case rt.Topic != "" && rt.Drop:
			r.Addf(at+".drop", "%s has both topic and drop: true: leave one out", at)
		}
	}
	for i, e := range c.MQTT.ACL {
		if e.User == "" {
			at := fmt.Sprintf("mqtt.acl[%d]", i)
			r.Addf(at, "%s has no user: name one, or write user: \"*\" for everybody", at)
		}
	}
	c.checkProcess(r)
	if c.Role == CoreNode {
		c.checkCore(r)
		return
	}
	for _, key := range []string{"cluster.routes", "cluster.secret", "cluster.sites"} {
		if r.Given(key) {
			r.Addf(key, "%s is for a core node: say role: core, or leave it out", key)
		}
	}
}

func (c *Config) checkProcess(r *Report) {
	names := map[string]int{}
	for i, p := range c.Process {
		at := fmt.Sprintf("process[%d]", i)
		for _, need := range []struct {
			key     string
			missing bool
		}{
			{"name", p.Name == ""}, {"from", p.From == ""}, {"window", p.Window.Kind == ""},
			{"compute", len(p.Compute) == 0}, {"to", p.To == ""},
		} {
			if need.missing {
				r.Addf(at, "%s has no %s", at, need.key)
			}
		}
		if p.Name != "" {
			if first, dup := names[p.Name]; dup {
				r.Addf(at+".name", "the name %q is taken by process[%d]: names are unique", p.Name, first)
			}
			names[p.Name] = i
		}
		if p.From != "" && p.From == p.To {
			r.Addf(at+".to", "%s reads and writes topic %s: it would feed on its own results", at, p.To)
		} else if p.From != "" && p.To != "" && c.feedsItself(p) {
			r.Addf(at+".to", "topic %s leads, over other processes, back to %s: %s would feed on its own results", p.To, p.From, at)
		}
		by := map[string]bool{}
		for j, b := range p.By {
			if by[b] {
				r.Addf(fmt.Sprintf("%s.by[%d]", at, j), "%q stands in by twice", b)
			}
			by[b] = true
		}
		for _, x := range p.Compute {
			if x.Expr == "" {
				r.Addf(at+".compute."+x.Name, "%s has no expression, as in mean(temperature)", x.Name)
			}
			switch {
			case by[x.Name]:
				r.Addf(at+".compute."+x.Name, "%q is in by as well: results would have it twice", x.Name)
			case x.Name == "window_start" || x.Name == "window_end" || x.Name == "rev" || x.Name == "kind":
				r.Addf(at+".compute."+x.Name, "every result has a %q already: choose another name", x.Name)
			}
		}
	}
}

// feedsItself says whether what p writes comes back to it.
func (c *Config) feedsItself(p *Process) bool {
	reach := []string{p.To}
	for i := 0; i < len(reach); i++ {
		if reach[i] == p.From {
			return true
		}
		for _, next := range c.Process {
			if next.From == reach[i] && !slices.Contains(reach, next.To) {
				reach = append(reach, next.To)
			}
		}
	}
	return false
}

// checkListeners holds the rule that nothing is open to other machines unless
// that listener says so, and that no two listeners share an address.
func (c *Config) checkListeners(r *Report) {
	wide := func(key, addr, allowKey string, allowed bool, instead string) {
		if addr == "" || addr == Off || Loopback(addr) || allowed {
			return
		}
		r.Addf(key, "%s %q is open to other machines without a login: add %s: true to accept everybody (%s), or listen on a loopback address, as in 127.0.0.1:%s",
			key, addr, allowKey, instead, portOf(addr))
	}
	const none = "users and tls are not yet supported"
	const mqttInstead = "or name a file of users by mqtt.users"
	mqttLogin := c.MQTT.AllowAnonymous || c.MQTT.Users != ""
	wide("mqtt.listen", c.MQTT.Listen, "mqtt.allow_anonymous", mqttLogin, mqttInstead)
	wide("mqtt.tls.listen", c.MQTT.TLS.Listen, "mqtt.allow_anonymous", mqttLogin || c.MQTT.TLS.ClientCA != "", "or ask for certificates by client_ca, or name a file of users by mqtt.users")
	wide("mqtt.websocket.listen", c.MQTT.WebSocket.Listen, "mqtt.allow_anonymous", mqttLogin, mqttInstead)
	wide("mqtt.websocket.tls.listen", c.MQTT.WebSocket.TLS.Listen, "mqtt.allow_anonymous", mqttLogin || c.MQTT.WebSocket.TLS.ClientCA != "", "or ask for certificates by client_ca, or name a file of users by mqtt.users")
	wide("kafka.listen", c.Kafka.Listen, "kafka.allow_anonymous", c.Kafka.AllowAnonymous, none)
	wide("http.listen", c.HTTP.Listen, "http.allow_anonymous", c.HTTP.AllowAnonymous, none)
	type listener struct{ key, addr string }
	all := []listener{{"mqtt.listen", c.MQTT.Listen}, {"mqtt.tls.listen", c.MQTT.TLS.Listen},
		{"mqtt.websocket.listen", c.MQTT.WebSocket.Listen}, {"mqtt.websocket.tls.listen", c.MQTT.WebSocket.TLS.Listen}, {"kafka.listen", c.Kafka.Listen}, {"http.listen", c.HTTP.Listen}}
	if c.Role == CoreNode {
		wide("cluster.clients", c.Cluster.Clients, "cluster.allow_anonymous", c.Cluster.AllowAnonymous || c.Cluster.Sites != "", "or enroll sites and name their file by cluster.sites")
		if !Loopback(c.Cluster.Listen) && c.Cluster.Listen != Off && c.Cluster.Secret == "" {
			r.Addf("cluster.listen", "cluster.listen %q is open to other machines: name a file with a shared secret by cluster.secret", c.Cluster.Listen)
		}
		all = append(all, listener{"cluster.listen", c.Cluster.Listen}, listener{"cluster.clients", c.Cluster.Clients})
	}
	for i, a := range all {
		for _, b := range all[:i] {
			if overlap(a.addr, b.addr) {
				key := a.key
				if !r.Given(key) {
					key = b.key
				}
				r.Addf(key, "%s and %s both want %s", b.key, a.key, a.addr)
			}
		}
	}
}

// checkTLS holds that a TLS section has what it needs. Whether the files are
// good is for a Check.
func (c *Config) checkTLS(r *Report, at string, t TLS) {
	if !t.given() {
		return
	}
	for _, need := range []struct{ key, value string }{{"cert", t.Cert}, {"key", t.Key}} {
		if need.value == "" {
			r.Addf(at, "%s has no %s: name a file in PEM form", at, need.key)
		}
	}
}

func (c *Config) checkCore(r *Report) {
	for _, key := range []string{"routes", "process"} {
		if r.Given(key) {
			r.Addf(key, "%s is not yet supported at the core: leave it out", key)
		}
	}
	if c.MQTT.On() {
		r.Addf("mqtt", "mqtt is not yet supported at the core: leave it out")
	}
	if !c.Kafka.On() {
		r.Addf("kafka.listen", "a core node serves Kafka: give it an address")
	}
	for _, key := range []struct{ name, addr string }{{"cluster.listen", c.Cluster.Listen}, {"cluster.clients", c.Cluster.Clients}} {
		if key.addr == Off {
			r.Addf(key.name, "a core node needs %s: give it an address", key.name)
		}
	}
	if n := len(c.Cluster.Routes); n > 0 && c.Cluster.Replicas > n+1 {
		r.Addf("cluster.replicas", "%d replicas need as many nodes: cluster.routes has %d", c.Cluster.Replicas, n)
	} else if n == 0 && c.Cluster.Replicas > 1 {
		r.Addf("cluster.replicas", "%d replicas need as many nodes: name them all by cluster.routes", c.Cluster.Replicas)
	}
}

// overlap says whether two listen addresses cannot both be had.
func overlap(a, b string) bool {
	ha, pa, err1 := net.SplitHostPort(a)
	hb, pb, err2 := net.SplitHostPort(b)
	if err1 != nil || err2 != nil || pa != pb || pa == "0" {
		return false
	}
	any := func(h string) bool { return h == "" || h == "0.0.0.0" || h == "::" }
	return any(ha) || any(hb) || strings.EqualFold(ha, hb)
}

func portOf(addr string) string {
	_, port, _ := net.SplitHostPort(addr)
	return port
}
