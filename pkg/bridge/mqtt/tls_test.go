package mqtt

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"

	"edgehub/pkg/auth"
	"edgehub/pkg/auth/authtest"
	"edgehub/pkg/log"
	"edgehub/pkg/route"
)

// tlsEntrance is one with a certificate of ca; clients asks for theirs.
func tlsEntrance(t testing.TB, ca *authtest.CA, clients bool) (Entrance, *auth.Certificates) {
	t.Helper()
	f := auth.Files{}
	f.Cert, f.Key = ca.Issue("hub")
	if clients {
		f.ClientCA = ca.File
	}
	certs, err := auth.LoadCertificates(f)
	if err != nil {
		t.Fatal(err)
	}
	return Entrance{Listen: "127.0.0.1:0", TLS: certs.Config(), CertificateName: auth.NameOf, AsksCertificates: clients, AllowAnonymous: !clients}, certs
}

func dialTLS(t testing.TB, b *Broker, c *tls.Config) (*wire, error) {
	t.Helper()
	conn, err := tls.Dial("tcp", b.TLSAddr().String(), c)
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() { _ = conn.Close() })
	return &wire{t, conn, bufio.NewReader(conn)}, nil
}

func TestPahoOverTLS(t *testing.T) {
	ca := authtest.NewCA(t, "ca")
	l := openLog(t, log.Options{})
	e, _ := tlsEntrance(t, ca, false)
	b := startBroker(t, Options{Log: l, TLS: e})
	c := paho.NewClient(paho.NewClientOptions().AddBroker("ssl://" + b.TLSAddr().String()).SetClientID("secure").SetTLSConfig(ca.Client("")))
	waitToken(t, c.Connect())
	defer c.Disconnect(100)
	got := make(chan string, 1)
	waitToken(t, c.Subscribe("back", 1, func(_ paho.Client, m paho.Message) { got <- string(m.Payload()) }))
	const n = 300
	var tokens []paho.Token
	for i := range n {
		tokens = append(tokens, c.Publish("a", 1+byte(i%2), false, fmt.Sprint(i)))
	}
	for _, token := range tokens {
		waitToken(t, token)
	}
	checkSequence(t, stored(t, l, route.DefaultTopic), n)
	waitToken(t, c.Publish("back", 1, false, make([]byte, 100_000)))
	select {
	case s := <-got:
		if len(s) != 100_000 {
			t.Errorf("%d bytes came back", len(s))
		}
	case <-time.After(patience):
		t.Error("nothing came back")
	}
}

// The acks of a TLS connection are held as those of any other.
func TestNoAckBeforeDurableOverTLS(t *testing.T) {
	ca := authtest.NewCA(t, "ca")
	l := openLog(t, log.Options{CommitInterval: 300 * time.Millisecond})
	e, _ := tlsEntrance(t, ca, false)
	b := startBroker(t, Options{Log: l, TLS: e})
	w, err := dialTLS(t, b, ca.Client(""))
	if err != nil {
		t.Fatal(err)
	}
	w.connect("c", 4, true)
	w.send(publishPacket(4, "a", 1, false, 9, []byte("x")))
	w.send([]byte{0xc0, 0})
	if p := w.read(); p[0] != 0xd0 {
		t.Errorf("got % x before the commit, want PINGRESP", p)
	}
	if p := w.read(); p[0] != typePuback<<4 || p[3] != 9 {
		t.Errorf("got % x, want PUBACK", p)
	}
	if got := len(stored(t, l, route.DefaultTopic)); got != 1 {
		t.Errorf("%d records are durable at the ack", got)
	}
}

func TestClientCertificates(t *testing.T) {
	ca, stranger := authtest.NewCA(t, "ca"), authtest.NewCA(t, "stranger")
	e, _ := tlsEntrance(t, ca, true)
	b := startBroker(t, Options{TLS: e})
	w, err := dialTLS(t, b, ca.Client("press-7"))
	if err != nil {
		t.Fatal(err)
	}
	w.connect("c", 4, true)
	cl, ok := b.server.Clients.Get("c")
	if !ok || cl.Net.Conn.(*conn).certificate != "press-7" {
		t.Errorf("the client is not known by its certificate")
	}

	forged := ca.Client("")
	forged.Certificates = stranger.Client("press-7").Certificates
	for name, c := range map[string]*tls.Config{"none": ca.Client(""), "of a stranger": forged} {
		w, err := dialTLS(t, b, c)
		if err == nil { // TLS 1.3: the client hears of it with its first read
			_, _ = w.Write(connectPacket("bad", 4, true))
			_, err = w.next(patience)
		}
		if err == nil {
			t.Errorf("certificate %s: let in", name)
		}
	}
	waitStats(t, b, "failed handshakes", func(s Stats) bool { return s.HandshakesFailed == 2 && s.Connections == 1 })
}

// Certificates that are replaced count for connections from then on.
func TestCertificateReload(t *testing.T) {
	ca := authtest.NewCA(t, "ca")
	e, certs := tlsEntrance(t, ca, false)
	b := startBroker(t, Options{TLS: e})
	serial := func() string {
		w, err := dialTLS(t, b, ca.Client(""))
		if err != nil {
			t.Fatal(err)
		}
		return w.Conn.(*tls.Conn).ConnectionState().PeerCertificates[0].SerialNumber.String()
	}
	first := serial()
	ca.Issue("hub") // in the same files
	if got := serial(); got != first {
		t.Errorf("serial number %s before the reload, want %s", got, first)
	}
	if err := certs.Reload(); err != nil {
		t.Fatal(err)
	}
	if got := serial(); got == first {
		t.Error("the old certificate after the reload")
	}
}

func TestGarbageBeforeTLSEndsItsOwnConnectionOnly(t *testing.T) {
	ca := authtest.NewCA(t, "ca")
	e, _ := tlsEntrance(t, ca, false)
	b := startBroker(t, Options{TLS: e})
	for name, p := range map[string][]byte{
		"plain MQTT":     connectPacket("c", 4, true),
		"http":           []byte("GET / HTTP/1.1\r\n\r\n"),
		"huge record":    {0x16, 3, 1, 0xff, 0xff, 1},
		"broken hello":   {0x16, 3, 1, 0, 5, 1, 0xff, 0xff, 0xff, 0},
		"nothing at all": nil,
	} {
		c, err := net.Dial("tcp", b.TLSAddr().String())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Write(p); err != nil {
			t.Fatal(err)
		}
		_ = c.(*net.TCPConn).CloseWrite()
		_ = c.SetReadDeadline(time.Now().Add(patience))
		if _, err := io.Copy(io.Discard, c); err != nil {
			if e, ok := err.(net.Error); ok && e.Timeout() {
				t.Errorf("%s: the connection stays open", name)
			}
		}
		_ = c.Close()
	}
	w, err := dialTLS(t, b, ca.Client(""))
	if err != nil {
		t.Fatal(err)
	}
	w.connect("good", 4, true)
}

// A broker that closes waits neither for handshakes nor for clients that do
// not read.
func TestCloseDuringHandshake(t *testing.T) {
	ca := authtest.NewCA(t, "ca")
	e, _ := tlsEntrance(t, ca, false)
	b := startBroker(t, Options{TLS: e})
	c, err := net.Dial("tcp", b.TLSAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	waitStats(t, b, "connection", func(s Stats) bool { return s.Connections == 1 })
	begun := time.Now()
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(begun); took > handshakeTimeout/2 {
		t.Errorf("Close took %s", took)
	}
}

func TestCertificateThatNamesNobody(t *testing.T) {
	ca := authtest.NewCA(t, "ca")
	e, _ := tlsEntrance(t, ca, true)
	e.CertificateName = func(*x509.Certificate) string { return "" }
	b := startBroker(t, Options{TLS: e})
	w, err := dialTLS(t, b, ca.Client("x"))
	if err != nil {
		t.Fatal(err)
	}
	_, _ = w.Write(connectPacket("c", 4, true))
	w.ended()
}
