package mqtt

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"edgehub/pkg/auth/authtest"
	"edgehub/pkg/log"
	"edgehub/pkg/route"
)

// passwords are users whose passwords are checked at once.
type passwords struct {
	mu sync.Mutex
	of map[string]string
}

func (p *passwords) Login(_ context.Context, user, password, address string) error {
	if address != "127.0.0.1" {
		return fmt.Errorf("login from %q", address)
	}
	if have := p.Version(user); have == "" || have != password {
		return errors.New("wrong password")
	}
	return nil
}

func (p *passwords) Version(user string) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.of[user]
}

func (p *passwords) set(user, password string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.of[user] = password
}

func twoUsers() *passwords { return &passwords{of: map[string]string{"ann": "a", "bob": "b"}} }

// loginPacket is a CONNECT with user and password, and a will on topic will;
// "" leaves either out.
func loginPacket(id string, version byte, user, password, will string, clean bool) []byte {
	var flags byte
	if clean {
		flags |= 2
	}
	if user != "" {
		flags |= 0xc0
	}
	if will != "" {
		flags |= 4
	}
	parts := [][]byte{text("MQTT"), {version, flags, 0, 0}}
	if version == 5 {
		parts = append(parts, []byte{5, 0x11, 0, 0, 0x10, 0})
	}
	parts = append(parts, text(id))
	if will != "" {
		if version == 5 {
			parts = append(parts, []byte{0})
		}
		parts = append(parts, text(will), text("gone"))
	}
	if user != "" {
		parts = append(parts, text(user), text(password))
	}
	return packet(typeConnect<<4, parts...)
}

func (w *wire) login(id string, version byte, user, password string) *wire {
	w.t.Helper()
	w.send(loginPacket(id, version, user, password, "", true))
	if p := w.read(); p[0] != typeConnack<<4 || p[3] != 0 {
		w.t.Fatalf("answer to CONNECT: % x", p)
	}
	return w
}

func subscribePacket(version byte, id uint16, filter string) []byte {
	parts := [][]byte{{byte(id >> 8), byte(id)}}
	if version == 5 {
		parts = append(parts, []byte{0})
	}
	return packet(0x82, append(parts, text(filter), []byte{1})...)
}

func acl(t testing.TB, list ...Permission) *ACL {
	t.Helper()
	a, err := NewACL(list)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestWhoIsLetIn(t *testing.T) {
	b := startBroker(t, Options{Users: twoUsers(), ACL: acl(t, Permission{User: "*", Publish: []string{"ok/#"}})})
	for _, c := range []struct {
		name, user, password, will string
		v3, v5                     byte
	}{
		{"right", "ann", "a", "", 0, 0}, {"wrong password", "ann", "b", "", 4, 0x86}, {"unknown", "eve", "a", "", 4, 0x86},
		{"anonymous", "", "", "", 5, 0x87}, {"will", "ann", "a", "ok/x", 0, 0}, {"denied will", "ann", "a", "x", 5, 0x87},
	} {
		for version, want := range map[byte]byte{4: c.v3, 5: c.v5} {
			w := dialWire(t, b)
			w.send(loginPacket(fmt.Sprint("c", version), version, c.user, c.password, c.will, true))
			if p := w.read(); p[0] != typeConnack<<4 || p[3] != want {
				t.Errorf("%s, version %d: CONNACK % x, want code %#x", c.name, version, p, want)
			}
			if want != 0 {
				w.ended()
			}
		}
	}
	if got := b.Stats().LoginsRefused; got != 8 {
		t.Errorf("%d refused logins, want 8", got)
	}
	// Who was refused leaves nothing behind.
	waitStats(t, b, "sessions of those let in only", func(s Stats) bool { return s.Sessions <= 2 })
}

// A denied publish is answered as the protocol version knows how, and is
// neither stored nor delivered.
func TestDeniedPublishes(t *testing.T) {
	l := openLog(t, log.Options{})
	b := startBroker(t, Options{Log: l, Users: twoUsers(), ACL: acl(t,
		Permission{User: "ann", Publish: []string{"ok/{client}"}}, Permission{User: "bob", Subscribe: []string{"#"}})})
	sub := dialWire(t, b).login("sub", 4, "bob", "b")
	sub.send(subscribePacket(4, 1, "#"))
	if p := sub.read(); p[0] != 0x90 || p[4] != 1 {
		t.Fatalf("SUBACK % x", p)
	}
	v5 := dialWire(t, b).login("v5", 5, "ann", "a")
	v5.send(publishPacket(5, "no", 0, false, 0, []byte("denied")))
	v5.send(publishPacket(5, "no", 1, false, 1, []byte("denied")))
	if p := v5.read(); p[0] != typePuback<<4 || p[3] != 1 || p[4] != 0x87 {
		t.Errorf("answer to QoS 1: % x", p)
	}
	v5.send(publishPacket(5, "no", 2, false, 2, []byte("denied")))
	if p := v5.read(); p[0] != typePubrec<<4 || p[3] != 2 || p[4] != 0x87 {
		t.Errorf("answer to QoS 2: % x", p)
	}
	// The topic behind an alias counts, of a publish by alias alone as well.
	alias := func(topic string, id uint16) []byte {
		return packet(0x32, text(topic), []byte{byte(id >> 8), byte(id)}, []byte{3, 0x23, 0, 1}, []byte("denied"))
	}
	for i, topic := range []string{"no", ""} {
		v5.send(alias(topic, uint16(3+i)))
		if p := v5.read(); p[0] != typePuback<<4 || int(p[3]) != 3+i || p[4] != 0x87 {
			t.Errorf("answer to alias %q: % x", topic, p)
		}
	}
	for i, topic := range []string{"ok/v5", ""} {
		v5.send(alias(topic, uint16(5+i)))
		if p := v5.read(); p[0] != typePuback<<4 || int(p[3]) != 5+i || len(p) > 4 && p[4] >= 0x80 {
			t.Errorf("answer to alias %q: % x", topic, p)
		}
	}
	for qos := range byte(3) {
		v3 := dialWire(t, b).login(fmt.Sprint("v3-", qos), 4, "ann", "a")
		v3.send(publishPacket(4, "no", qos, false, uint16(qos), []byte("denied")))
		if qos > 0 {
			v3.ended()
			continue
		}
		v3.send([]byte{0xc0, 0})
		if p := v3.read(); p[0] != 0xd0 {
			t.Errorf("after a denied QoS 0: % x", p)
		}
	}
	for range 2 {
		if p := sub.read(); p[0]>>4 != typePublish || string(p[4:9]) != "ok/v5" {
			t.Errorf("delivered: % x", p)
		}
	}
	sub.silent(50 * time.Millisecond)
	if got := stored(t, l, route.DefaultTopic); len(got) != 2 {
		t.Errorf("%d records are stored, want 2", len(got))
	}
	if got := b.Stats().Refused["denied"]; got != 8 {
		t.Errorf("%d publishes were denied, want 8", got)
	}
}

func TestDeniedSubscriptions(t *testing.T) {
	b := startBroker(t, Options{Users: twoUsers(), ACL: acl(t,
		Permission{User: "ann", Subscribe: []string{"a/+", "own/{user}/#"}}, Permission{User: "bob", Publish: []string{"#"}})})
	pub := dialWire(t, b).login("pub", 4, "bob", "b")
	pub.send(packet(0x31, text("b/retained"), []byte("x")))
	pub.send([]byte{0xc0, 0})
	pub.read()
	for version, denied := range map[byte]byte{4: 0x80, 5: 0x87} {
		w := dialWire(t, b).login(fmt.Sprint("s", version), version, "ann", "a")
		for i, c := range []struct {
			filter string
			ok     bool
		}{{"a/b", true}, {"a/+", true}, {"$share/g/a/+", true}, {"own/ann/x/#", true}, {"own/bob", false}, {"b/retained", false}, {"#", false}, {"a/#", false}, {"$share/g/#", false}, {"$SYS/#", false}} {
			w.send(subscribePacket(version, uint16(i+1), c.filter))
			p := w.read()
			if got := p[len(p)-1]; p[0] != 0x90 || c.ok && got != 1 || !c.ok && got != denied {
				t.Errorf("version %d, %s: SUBACK % x", version, c.filter, p)
			}
		}
		w.silent(20 * time.Millisecond) // nothing retained
	}
}

// A client id belongs to the user who uses it, so that nobody takes over the
// session of another.
func TestClientIDIsBoundToItsUser(t *testing.T) {
	b := startBroker(t, Options{Users: twoUsers()})
	ann := dialWire(t, b)
	ann.send(loginPacket("id", 5, "ann", "a", "", false))
	ann.read()
	try := func(user, password string) (code byte, w *wire) {
		w = dialWire(t, b)
		w.send(loginPacket("id", 5, user, password, "", true))
		p := w.read()
		return p[3], w
	}
	if code, _ := try("bob", "b"); code != 0x85 {
		t.Errorf("bob by ann's id: %#x, want 0x85", code)
	}
	ann.send([]byte{0xc0, 0})
	if p := ann.read(); p[0] != 0xd0 {
		t.Errorf("ann got % x", p)
	}
	_ = ann.Close() // the session stays
	waitStats(t, b, "end of the connections", func(s Stats) bool { return s.Connections == 0 })
	if code, _ := try("bob", "b"); code != 0x85 {
		t.Errorf("bob by the id of ann's session: %#x, want 0x85", code)
	}
	code, again := try("ann", "a")
	if code != 0 {
		t.Fatalf("ann herself: %#x", code)
	}
	again.send([]byte{0xe0, 2, 0, 5, 0x11, 0, 0, 0, 0}[:2]) // DISCONNECT
	_ = again.Close()
}

func TestClientIDIsFreeAfterItsSession(t *testing.T) {
	b := startBroker(t, Options{Users: twoUsers()})
	w := dialWire(t, b).login("id", 4, "ann", "a")
	w.send([]byte{0xe0, 0})
	w.ended()
	waitStats(t, b, "end of the connection", func(s Stats) bool { return s.Connections == 0 })
	dialWire(t, b).login("id", 4, "bob", "b")
}

func TestCertificateIsTheUser(t *testing.T) {
	ca := authtest.NewCA(t, "ca")
	e, _ := tlsEntrance(t, ca, true)
	b := startBroker(t, Options{TLS: e, Users: twoUsers(), ACL: acl(t, Permission{User: "press-7", Publish: []string{"{user}/#"}})})
	w, err := dialTLS(t, b, ca.Client("press-7"))
	if err != nil {
		t.Fatal(err)
	}
	w.login("c", 5, "bob", "whatever") // what CONNECT says does not count
	for i, topic := range []string{"press-7/x", "bob/x"} {
		w.send(publishPacket(5, topic, 1, false, uint16(i+1), nil))
		p := w.read()
		if denied := len(p) > 4 && p[4] == 0x87; denied != (i == 1) {
			t.Errorf("%s: % x", topic, p)
		}
	}
}

func TestChangesCountAtOnce(t *testing.T) {
	users := twoUsers()
	b := startBroker(t, Options{Users: users, ACL: acl(t, Permission{User: "*", Publish: []string{"#"}})})
	ann := dialWire(t, b)
	ann.send(loginPacket("ann", 5, "ann", "a", "will", true))
	ann.read()
	bob := dialWire(t, b).login("bob", 5, "bob", "b")
	b.SetACL(acl(t, Permission{User: "*", Publish: []string{"y"}}))
	ann.send(publishPacket(5, "x", 1, false, 1, nil))
	if p := ann.read(); p[4] != 0x87 {
		t.Errorf("by the new acl: % x", p)
	}
	users.set("ann", "new")
	b.CheckLogins()
	if p := ann.read(); p[0] != typeDisconnect<<4 || p[2] != 0x87 {
		t.Errorf("ann, whose password has changed, got % x", p)
	}
	ann.ended()
	bob.send([]byte{0xc0, 0})
	if p := bob.read(); p[0] != 0xd0 {
		t.Errorf("bob got % x", p)
	}
	waitStats(t, b, "end of ann's connection", func(s Stats) bool { return s.Connections == 1 })
	if got := b.Stats().Wills; got != 0 {
		t.Error("the will was sent that the new acl denies")
	}
	if got := b.Stats().Refused["denied"]; got != 2 { // with the publish
		t.Errorf("%d were denied, want 2", got)
	}
}

func TestAddressOf(t *testing.T) {
	for in, want := range map[string]string{"10.1.2.3:99": "10.1.2.3", "[::ffff:10.1.2.3]:99": "10.1.2.3", "[2001:db8:1:2:3::4]:99": "2001:db8:1:2::/64", "pipe": "pipe"} {
		if got := addressOf(named(in)); got != want {
			t.Errorf("%s: %s, want %s", in, got, want)
		}
	}
}

type named string

func (n named) Network() string { return "tcp" }
func (n named) String() string  { return string(n) }
