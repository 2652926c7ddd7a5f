package core

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"edgehub/pkg/forward"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nkeys"
)

// Names of the server's users.
const (
	hubUser  = "hub"       // in-process only in effect: its password is random
	siteUser = "anonymous" // clients without credentials, where they are let in
)

// maxPayload is the largest NATS message, in bytes.
const maxPayload = 8 << 20

// routePing is how often nodes that have nothing to say are asked for a sign
// of life. A third ping without an answer drops the route.
const routePing = 5 * time.Second

// serverOptions are the options of the embedded server.
func serverOptions(o *Options, password string) (*server.Options, error) {
	host, port, err := splitListen(o.ClientListen)
	if err != nil {
		return nil, fmt.Errorf("cluster clients: %w", err)
	}
	so := &server.Options{
		ServerName: o.Node, Host: host, Port: port,
		NoSigs: true, MaxPayload: maxPayload, MaxPending: 256 << 20,
		JetStream: true, StoreDir: o.Dir, SyncAlways: true, DisableJetStreamBanner: true,
		TLSConfig: o.TLS, TLS: o.TLS != nil, TLSTimeout: 5,
		Cluster: server.ClusterOpts{},
	}
	if err := setUsers(so, o, password); err != nil {
		return nil, err
	}
	if o.RouteListen == "" {
		if o.Replicas > 1 {
			return nil, fmt.Errorf("%d replicas need a cluster: set its listen address and routes", o.Replicas)
		}
		return so, nil
	}
	host, port, err = splitListen(o.RouteListen)
	if err != nil {
		return nil, fmt.Errorf("cluster listen: %w", err)
	}
	if o.Secret == "" && !loopback(host) {
		return nil, fmt.Errorf("cluster listen %s: routes beyond this machine need a secret", o.RouteListen)
	}
	so.Cluster = server.ClusterOpts{Name: o.Name, Host: host, Port: port, NoAdvertise: true,
		Username: routeUser(o.Secret), Password: o.Secret, ConnectBackoff: true, PingInterval: routePing}
	for _, r := range o.Routes {
		u := &url.URL{Scheme: "nats", Host: strings.TrimPrefix(r, "nats://")}
		if _, _, err := net.SplitHostPort(u.Host); err != nil {
			return nil, fmt.Errorf("cluster route %q: %w", r, err)
		}
		if o.Secret != "" {
			u.User = url.UserPassword(routeUser(o.Secret), o.Secret)
		}
		so.Routes = append(so.Routes, u)
	}
	return so, nil
}

func routeUser(secret string) string {
	if secret == "" {
		return ""
	}
	return "route"
}

// setUsers gives the hub its own user and each site one that may touch its
// own subjects only. Without sites a listener on loopback lets in anyone, for
// uplinks' subjects; a wider one only where AllowAnonymous says so.
func setUsers(so *server.Options, o *Options, password string) error {
	so.Users = []*server.User{{Username: hubUser, Password: password}}
	so.Nkeys, so.NoAuthUser = nil, ""
	keys := map[string]string{}
	for _, s := range o.Sites {
		if err := forward.CheckSite(s.Name); err != nil {
			return err
		}
		if !nkeys.IsValidPublicUserKey(s.NKey) {
			return fmt.Errorf("site %s: %q is not a public user key (U...)", s.Name, s.NKey)
		}
		if other, twice := keys[s.NKey]; twice {
			return fmt.Errorf("sites %s and %s have one key", other, s.Name)
		}
		keys[s.NKey] = s.Name
		so.Nkeys = append(so.Nkeys, &server.NkeyUser{Nkey: s.NKey, Permissions: permissions("up."+s.Name+".>", forward.InboxPrefix(s.Name)+".>")})
	}
	if o.open() {
		if !o.AllowAnonymous && !loopback(so.Host) {
			return fmt.Errorf("cluster clients listen on %s without sites: enroll sites, or say allow_anonymous", o.ClientListen)
		}
		so.Users = append(so.Users, &server.User{Username: siteUser, Password: password, Permissions: permissions("up.>", "_INBOX.>")})
		so.NoAuthUser = siteUser
	}
	return nil
}

// open says that clients without credentials are let in.
func (o *Options) open() bool { return len(o.Sites) == 0 }

func permissions(publish, subscribe string) *server.Permissions {
	return &server.Permissions{
		Publish:   &server.SubjectPermission{Allow: []string{publish}},
		Subscribe: &server.SubjectPermission{Allow: []string{subscribe}},
	}
}

// splitListen splits host:port; port 0 is a random one, which the server
// spells -1.
func splitListen(s string) (string, int, error) {
	host, p, err := net.SplitHostPort(s)
	if err != nil {
		return "", 0, fmt.Errorf("listen address %q: use host:port", s)
	}
	port, err := strconv.ParseUint(p, 10, 16)
	if err != nil {
		return "", 0, fmt.Errorf("listen address %q: port %q", s, p)
	}
	if host == "" {
		host = "0.0.0.0"
	}
	if port == 0 {
		return host, server.RANDOM_PORT, nil
	}
	return host, int(port), nil
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// probe tells early and in plain words that an address cannot be bound.
func probe(what string, host string, port int) error {
	if port < 0 {
		return nil
	}
	l, err := net.Listen("tcp", net.JoinHostPort(host, strconv.Itoa(port)))
	if err != nil {
		return fmt.Errorf("%s: %w: is another hub or NATS server running there?", what, err)
	}
	return l.Close()
}

// serverLog passes the server's lines on and turns its fatal ones, which
// would otherwise end the process, into a state of health.
type serverLog struct {
	log   *slog.Logger
	fatal atomic.Pointer[error]
}

func (l *serverLog) Noticef(f string, a ...any) { l.log.Debug(fmt.Sprintf(f, a...)) }
func (l *serverLog) Warnf(f string, a ...any)   { l.log.Warn(fmt.Sprintf(f, a...)) }
func (l *serverLog) Errorf(f string, a ...any)  { l.log.Warn(fmt.Sprintf(f, a...)) }
func (l *serverLog) Debugf(string, ...any)      {}
func (l *serverLog) Tracef(string, ...any)      {}

func (l *serverLog) Fatalf(f string, a ...any) {
	err := fmt.Errorf(f, a...)
	l.fatal.CompareAndSwap(nil, &err)
	l.log.Error("embedded server cannot work", "error", err)
}

func (l *serverLog) err() error {
	if e := l.fatal.Load(); e != nil {
		return *e
	}
	return nil
}

func randomHex(n int) string {
	b := make([]byte, n)
	rand.Read(b)
	return hex.EncodeToString(b)
}

func randomUint64() uint64 {
	var b [8]byte
	rand.Read(b[:])
	var v uint64
	for _, x := range b {
		v = v<<8 | uint64(x)
	}
	return v
}
