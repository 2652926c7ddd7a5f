package mqtt

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"
	"github.com/gorilla/websocket"

	"edgehub/pkg/auth/authtest"
	"edgehub/pkg/log"
	"edgehub/pkg/route"
)

func startWebSocket(t testing.TB, o Options) *Broker {
	t.Helper()
	o.WebSocket = Entrance{Listen: "127.0.0.1:0", AllowAnonymous: true}
	return startBroker(t, o)
}

// dialFrames is a device that writes its own WebSocket messages.
func dialFrames(t testing.TB, b *Broker) *websocket.Conn {
	t.Helper()
	d := websocket.Dialer{Subprotocols: []string{"mqtt"}, HandshakeTimeout: patience}
	c, _, err := d.Dial("ws://"+b.WebSocketAddr().String()+WebSocketPath, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetReadDeadline(time.Now().Add(patience))
	return c
}

// frames reads the bytes of binary messages.
type frames struct {
	*websocket.Conn
	rest []byte
}

func (f *frames) Read(p []byte) (int, error) {
	for len(f.rest) == 0 {
		kind, b, err := f.ReadMessage()
		if err != nil {
			return 0, err
		}
		if kind != websocket.BinaryMessage {
			return 0, fmt.Errorf("message of kind %d", kind)
		}
		f.rest = b
	}
	n := copy(p, f.rest)
	f.rest = f.rest[n:]
	return n, nil
}

func TestPahoOverWebSocket(t *testing.T) {
	ca := authtest.NewCA(t, "ca")
	secure, _ := tlsEntrance(t, ca, false)
	for _, scheme := range []string{"ws", "wss"} {
		t.Run(scheme, func(t *testing.T) {
			l := openLog(t, log.Options{})
			b := startWebSocket(t, Options{Log: l, WebSocketTLS: secure})
			addr := b.WebSocketAddr()
			if scheme == "wss" {
				addr = b.WebSocketTLSAddr()
			}
			c := paho.NewClient(paho.NewClientOptions().AddBroker(scheme + "://" + addr.String() + WebSocketPath).
				SetClientID("web").SetTLSConfig(ca.Client("")))
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
		})
	}
}

// Packets may be cut over messages anyhow, messages may be empty, and pings may
// come between.
func TestWebSocketMessagesAreAStream(t *testing.T) {
	const n = 20
	var stream []byte
	stream = append(stream, connectPacket("cut", 4, true)...)
	for i := range n {
		stream = append(stream, publishPacket(4, "cut/topic", 1, false, uint16(i+1), []byte(fmt.Sprint(i)))...)
	}
	for _, size := range []int{1, 2, 7, 50, len(stream)} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			l := openLog(t, log.Options{})
			b := startWebSocket(t, Options{Log: l})
			c := dialFrames(t, b)
			pongs := make(chan string, 1)
			c.SetPongHandler(func(s string) error { pongs <- s; return nil })
			for rest := stream; len(rest) > 0; {
				part := rest[:min(size, len(rest))]
				rest = rest[len(part):]
				for _, p := range [][]byte{part, nil} {
					if err := c.WriteMessage(websocket.BinaryMessage, p); err != nil {
						t.Fatal(err)
					}
				}
			}
			if err := c.WriteControl(websocket.PingMessage, []byte("there?"), time.Now().Add(patience)); err != nil {
				t.Fatal(err)
			}
			answers := make([]byte, 4+4*n)
			if _, err := io.ReadFull(&frames{Conn: c}, answers); err != nil {
				t.Fatal(err)
			}
			for i := range n {
				if p := answers[4+4*i:]; p[0] != typePuback<<4 || int(p[3]) != i+1 {
					t.Fatalf("ack %d is % x", i, p[:4])
				}
			}
			checkSequence(t, stored(t, l, route.DefaultTopic), n)
			// The pong is there or comes; only a read finds it.
			_ = c.WriteMessage(websocket.BinaryMessage, []byte{0xe0, 0})
			for {
				if _, _, err := c.ReadMessage(); err != nil {
					break
				}
			}
			select {
			case s := <-pongs:
				if s != "there?" {
					t.Errorf("pong %q", s)
				}
			default:
				t.Error("no pong")
			}
		})
	}
}

func TestNoAckBeforeDurableOverWebSocket(t *testing.T) {
	l := openLog(t, log.Options{CommitInterval: 300 * time.Millisecond})
	c := dialFrames(t, startWebSocket(t, Options{Log: l}))
	send := func(p ...byte) {
		if err := c.WriteMessage(websocket.BinaryMessage, p); err != nil {
			t.Fatal(err)
		}
	}
	send(bytes.Join([][]byte{connectPacket("c", 4, true), publishPacket(4, "a", 1, false, 9, nil), {0xc0, 0}}, nil)...)
	got := make([]byte, 10)
	if _, err := io.ReadFull(&frames{Conn: c}, got); err != nil {
		t.Fatal(err)
	}
	if got[4] != 0xd0 || got[6] != typePuback<<4 || got[9] != 9 {
		t.Errorf("got % x, want CONNACK, PINGRESP, PUBACK", got)
	}
	if n := len(stored(t, l, route.DefaultTopic)); n != 1 {
		t.Errorf("%d records are durable at the ack", n)
	}
}

func TestWebSocketGoodbyes(t *testing.T) {
	b := startWebSocket(t, Options{MaxPacket: 1000})
	for _, c := range []struct {
		name string
		kind int
		data []byte
		want int
	}{
		{"text", websocket.TextMessage, []byte("hello"), websocket.CloseUnsupportedData},
		{"no MQTT", websocket.BinaryMessage, []byte("hello"), websocket.CloseNormalClosure},
		{"too large", websocket.BinaryMessage, append([]byte{0x10, 0xff, 0xff, 0xff, 0x7f}, make([]byte, 100)...), websocket.CloseNormalClosure},
		{"goodbye", websocket.CloseMessage, websocket.FormatCloseMessage(websocket.CloseGoingAway, ""), websocket.CloseGoingAway},
	} {
		ws := dialFrames(t, b)
		if err := ws.WriteMessage(c.kind, c.data); err != nil {
			t.Fatal(err)
		}
		_, _, err := ws.ReadMessage()
		if !websocket.IsCloseError(err, c.want) {
			t.Errorf("%s: %v, want code %d", c.name, err, c.want)
		}
	}
	waitStats(t, b, "end of the connections", func(s Stats) bool { return s.Connections == 0 })
}

// A frame that says to be huge costs nothing until its bytes come.
func TestWebSocketHugeFrame(t *testing.T) {
	b := startWebSocket(t, Options{MaxPacket: 1000})
	c := dialFrames(t, b).NetConn()
	_ = c.SetDeadline(time.Now().Add(patience))
	frame := []byte{0x82, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0}
	if _, err := c.Write(append(frame, 0x30, 0xff, 0xff, 0xff, 0x7f)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, c); err != nil {
		if e, ok := err.(net.Error); ok && e.Timeout() {
			t.Error("the connection stays open")
		}
	}
}

func TestWebSocketRequests(t *testing.T) {
	b := startWebSocket(t, Options{})
	const upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
	const mqtt = "Sec-WebSocket-Protocol: mqtt\r\n"
	for _, c := range []struct {
		name, request string
		want          int // 0: the connection ends without an answer
	}{
		{"good", "GET /mqtt HTTP/1.1\r\nHost: hub:8083\r\n" + upgrade + mqtt, 101},
		{"MQTT 3.1", "GET /mqtt HTTP/1.1\r\nHost: hub\r\n" + upgrade + "Sec-WebSocket-Protocol: mqttv3.1\r\n", 101},
		{"own page", "GET /mqtt HTTP/1.1\r\nHost: hub:8083\r\nOrigin: http://hub:8080\r\n" + upgrade + mqtt, 101},
		{"page of another", "GET /mqtt HTTP/1.1\r\nHost: hub:8083\r\nOrigin: https://evil.example\r\n" + upgrade + mqtt, 403},
		{"another path", "GET / HTTP/1.1\r\nHost: hub\r\n" + upgrade + mqtt, 404},
		{"no subprotocol", "GET /mqtt HTTP/1.1\r\nHost: hub\r\n" + upgrade, 400},
		{"another subprotocol", "GET /mqtt HTTP/1.1\r\nHost: hub\r\n" + upgrade + "Sec-WebSocket-Protocol: wamp\r\n", 400},
		{"no upgrade", "GET /mqtt HTTP/1.1\r\nHost: hub\r\n", 400},
		{"another version", "GET /mqtt HTTP/1.1\r\nHost: hub\r\n" + strings.Replace(upgrade, "13", "8", 1) + mqtt, 400},
		{"post", "POST /mqtt HTTP/1.1\r\nHost: hub\r\n" + upgrade + mqtt, 405},
		{"no http", "\x10\x0d\x00\x04MQTT\r\n", 0},
		{"endless header", "GET /mqtt HTTP/1.1\r\nX: " + strings.Repeat("x", 2*maxRequestBytes) + "\r\n", 0},
	} {
		conn, err := net.Dial("tcp", b.WebSocketAddr().String())
		if err != nil {
			t.Fatal(err)
		}
		_ = conn.SetDeadline(time.Now().Add(patience))
		_, _ = io.WriteString(conn, c.request+"\r\n")
		r, err := http.ReadResponse(bufio.NewReader(conn), nil)
		got := 0
		if err == nil {
			got = r.StatusCode
			_ = r.Body.Close()
		} else if e, ok := err.(net.Error); ok && e.Timeout() {
			t.Errorf("%s: the connection stays open", c.name)
		}
		if got != c.want {
			t.Errorf("%s: status %d, want %d", c.name, got, c.want)
		}
		_ = conn.Close()
	}
}

// A WebSocket client that reads nothing does not hold up the broker's end.
func TestCloseWithWebSocketThatDoesNotRead(t *testing.T) {
	b := startWebSocket(t, Options{})
	c := dialFrames(t, b)
	sub := append(connectPacket("deaf", 4, true), packet(0x82, []byte{0, 1}, text("#"), []byte{0})...)
	if err := c.WriteMessage(websocket.BinaryMessage, sub); err != nil {
		t.Fatal(err)
	}
	w := dialWire(t, b).connect("loud", 4, true)
	waitStats(t, b, "subscription", func(s Stats) bool { return s.Subscriptions == 1 })
	payload := make([]byte, 200_000)
	for range 100 {
		w.send(publishPacket(4, "a", 0, false, 0, payload))
	}
	waitStats(t, b, "full queue", func(s Stats) bool { return s.Publishes[0] == 100 })
	begun := time.Now()
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(begun); took > 5*goodbyeTimeout {
		t.Errorf("Close took %s", took)
	}
}
