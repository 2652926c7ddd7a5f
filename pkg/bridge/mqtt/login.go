package mqtt

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"

	engine "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/packets"
)

// Users tell whose password is right.
type Users interface {
	// Login is nil if the password is the user's. It may wait, until ctx ends.
	// address is where the client comes from, without a port. An error that
	// has a method Temporary asks the client to try again.
	Login(ctx context.Context, user, password, address string) error
	// Version changes when the user's password does; "": there is no such user.
	Version(user string) string
}

// login finds out who a client is and whether it may come in. The client's
// user name is what was proven from then on, "" if nothing was. It runs on
// the goroutine that reads the connection.
func (b *Broker) login(cl *engine.Client, c *conn, pk *packets.Packet) packets.Code {
	var user string
	switch {
	case c.certificate != "":
		user = c.certificate
	case b.opt.Users != nil:
		if !pk.Connect.UsernameFlag {
			return packets.ErrNotAuthorized
		}
		user = string(pk.Connect.Username)
		version := b.opt.Users.Version(user)
		if err := b.opt.Users.Login(b.ctx, user, string(pk.Connect.Password), addressOf(c.RemoteAddr())); err != nil {
			b.log.Debug("mqtt login refused", "user", user, "remote", c.RemoteAddr().String(), "err", err)
			var t interface{ Temporary() bool }
			if errors.As(err, &t) && t.Temporary() {
				return packets.ErrServerBusy
			}
			return packets.ErrBadUsernameOrPassword
		}
		c.password = version
	case !c.entrance.AllowAnonymous:
		return packets.ErrNotAuthorized
	}
	cl.Properties.Username = []byte(user)
	if !b.owners.take(cl.ID, user) {
		return packets.ErrClientIdentifierNotValid
	}
	c.owns = cl.ID
	if will := &cl.Properties.Will; atomic.LoadUint32(&will.Flag) != 0 && !b.mayPublish(cl, will.TopicName) {
		return packets.ErrNotAuthorized
	}
	return packets.CodeSuccess
}

// addressOf is an address without its port; of IPv6 the network, since a
// machine has many addresses there.
func addressOf(a net.Addr) string {
	ap, err := netip.ParseAddrPort(a.String())
	if err != nil {
		return a.String()
	}
	ip := ap.Addr().Unmap().WithZone("")
	if ip.Is6() {
		if p, err := ip.Prefix(64); err == nil {
			return p.String()
		}
	}
	return ip.String()
}

// mayPublish and maySubscribe ask the ACL as it is now; without one everybody
// may do everything.
func (b *Broker) mayPublish(cl *engine.Client, topic string) bool {
	acl := b.acl.Load()
	return acl == nil || acl.rightsOf(cl).mayPublish(topic)
}

func (b *Broker) maySubscribe(cl *engine.Client, filter string) bool {
	acl := b.acl.Load()
	return acl == nil || acl.rightsOf(cl).maySubscribe(filter)
}

// rightsOf are what a client may do; the connection remembers them.
func (a *ACL) rightsOf(cl *engine.Client) *rights {
	c, _ := cl.Net.Conn.(*conn)
	if c != nil {
		if r := c.rights.Load(); r != nil && r.acl == a {
			return r
		}
	}
	r := a.of(string(cl.Properties.Username), cl.ID)
	if c != nil {
		c.rights.Store(r)
	}
	return r
}

// SetACL replaces what clients may do, from now on. nil: everything.
func (b *Broker) SetACL(a *ACL) { b.acl.Store(a) }

// CheckLogins ends the connections of users who are gone or have another
// password by now.
func (b *Broker) CheckLogins() {
	if b.opt.Users == nil {
		return
	}
	for _, cl := range b.server.Clients.GetAll() {
		c, ok := cl.Net.Conn.(*conn)
		if ok && c.password != "" && !cl.Closed() && b.opt.Users.Version(string(cl.Properties.Username)) != c.password {
			_ = b.server.DisconnectClient(cl, packets.ErrNotAuthorized)
		}
	}
}

// owners bind client ids to users: a session, its subscriptions and what is
// queued for it are found by the client id alone.
type owners struct {
	mu  sync.Mutex
	ids map[string]*owner
}

type owner struct {
	user  string
	conns int // connections, those that end included
}

// take notes a connection of a client id, unless the id is another user's.
func (o *owners) take(id, user string) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	w := o.ids[id]
	if w == nil {
		if o.ids == nil {
			o.ids = make(map[string]*owner)
		}
		w = &owner{user: user}
		o.ids[id] = w
	}
	if w.user != user {
		return false
	}
	w.conns++
	return true
}

// leave ends a connection's hold of a client id; session says whether the
// engine still has a session of it.
func (o *owners) leave(id string, session func(id string) bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	w := o.ids[id]
	if w == nil {
		return
	}
	if w.conns--; w.conns <= 0 && !session(id) {
		delete(o.ids, id)
	}
}

// expired ends a session's hold.
func (o *owners) expired(id string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if w := o.ids[id]; w != nil && w.conns <= 0 {
		delete(o.ids, id)
	}
}
