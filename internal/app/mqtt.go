package app

import (
	"errors"
	"fmt"
	"maps"
	"net"

	"edgehub/internal/config"
	"edgehub/pkg/auth"
	"edgehub/pkg/bridge/mqtt"
)

// openMQTT opens the broker with all its listeners.
func (e *edge) openMQTT(c *config.Config, o mqtt.Options) error {
	var err error
	if e.certificates, err = loadCertificates(c); err != nil {
		return err
	}
	if o.ACL, err = acl(c); err != nil {
		return err
	}
	m := c.MQTT
	if m.Users != "" {
		list, err := config.LoadUsers(m.Users)
		if err == nil {
			e.users, err = auth.NewUsers(list)
		}
		if err != nil {
			return fmt.Errorf("mqtt.users: %w", err)
		}
		o.Users = e.users
		if len(m.ACL) == 0 {
			o.Logger.Warn("mqtt.users without mqtt.acl: users may log in, and do nothing")
		}
	}
	if m.Listener.On() {
		o.Plain = mqtt.Entrance{Listen: m.Listen, AllowAnonymous: m.AllowAnonymous || config.Loopback(m.Listen)}
	}
	if m.TLS.On() {
		o.TLS = e.entrance(m, m.TLS.Listen, "mqtt.tls")
	}
	if w := m.WebSocket; w.On() {
		o.WebSocket = mqtt.Entrance{Listen: w.Listen, AllowAnonymous: m.AllowAnonymous || config.Loopback(w.Listen)}
	}
	if t := m.WebSocket.TLS; t.On() {
		o.WebSocketTLS = e.entrance(m, t.Listen, "mqtt.websocket.tls")
	}
	b, err := mqtt.Listen(o)
	var le *mqtt.ListenError
	if errors.As(err, &le) {
		return listenError(le.Key, le.Address, le.Err)
	}
	if err != nil {
		return err
	}
	e.mqtt.Store(b)
	return nil
}

// mqttAddresses are those of the broker's listeners, by their names.
func mqttAddresses(b *mqtt.Broker) map[string]net.Addr {
	out := map[string]net.Addr{
		"mqtt": b.Addr(), "mqtt.tls": b.TLSAddr(),
		"mqtt.websocket": b.WebSocketAddr(), "mqtt.websocket.tls": b.WebSocketTLSAddr(),
	}
	maps.DeleteFunc(out, func(_ string, a net.Addr) bool { return a == nil })
	return out
}

// entrance is one with TLS. Whoever must show a certificate is not anonymous.
func (e *edge) entrance(m config.MQTT, listen, section string) mqtt.Entrance {
	certs := e.certificates[section]
	asks := certs.Files().ClientCA != ""
	return mqtt.Entrance{
		Listen: listen, TLS: certs.Config(), AsksCertificates: asks, CertificateName: auth.NameOf,
		AllowAnonymous: !asks && (m.AllowAnonymous || config.Loopback(listen)),
	}
}

// loadCertificates reads those of all TLS listeners, by section.
func loadCertificates(c *config.Config) (map[string]*auth.Certificates, error) {
	out := map[string]*auth.Certificates{}
	for at, t := range tlsSections(c) {
		certs, err := auth.LoadCertificates(tlsFiles(t))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", at, err)
		}
		out[at] = certs
	}
	return out, nil
}

// reloadUsers reads the file of users again and ends the connections of those
// who are gone or have another password, after it has given out the new acl.
func (e *edge) reloadUsers(c *config.Config) error {
	b := e.mqtt.Load()
	if b == nil {
		return nil
	}
	permissions, err := acl(c)
	if err != nil {
		return err
	}
	if e.users != nil {
		list, err := config.LoadUsers(c.MQTT.Users)
		if err == nil {
			err = e.users.Set(list)
		}
		if err != nil {
			return fmt.Errorf("mqtt.users: %w", err)
		}
	}
	b.SetACL(permissions)
	b.CheckLogins()
	return nil
}

// reloadCertificates reads the files again; each that is bad keeps what it
// had.
func (e *edge) reloadCertificates() error {
	for at, certs := range e.certificates {
		if err := certs.Reload(); err != nil {
			return fmt.Errorf("%s: %w", at, err)
		}
	}
	return nil
}
