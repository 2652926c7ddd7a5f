package app

import (
	"errors"
	"fmt"

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
	m := c.MQTT
	if m.Listener.On() {
		o.Plain = mqtt.Entrance{Listen: m.Listen, AllowAnonymous: m.AllowAnonymous || config.Loopback(m.Listen)}
	}
	if m.TLS.On() {
		o.TLS = e.entrance(m, m.TLS.Listen, "mqtt.tls")
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

// entrance is one with TLS. Whoever must show a certificate is not anonymous.
func (e *edge) entrance(m config.MQTT, listen, section string) mqtt.Entrance {
	certs := e.certificates[section]
	return mqtt.Entrance{
		Listen: listen, TLS: certs.Config(), CertificateName: auth.NameOf,
		AllowAnonymous: certs.Files().ClientCA == "" && (m.AllowAnonymous || config.Loopback(listen)),
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
