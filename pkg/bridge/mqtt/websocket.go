package mqtt

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/gorilla/websocket"
)

// WebSocketPath is where MQTT over WebSocket is found.
const WebSocketPath = "/mqtt"

// Limits of WebSocket connections.
const (
	// maxRequestBytes bounds the HTTP request that opens one.
	maxRequestBytes = 16 << 10
	// webSocketBuffer is the size of its buffers, in bytes. Messages need not
	// fit: they are read in pieces, whatever length they say.
	webSocketBuffer = 1 << 10
	// controlTimeout is how long a device may take to accept an answer to a
	// ping.
	controlTimeout = 10 * time.Second
)

// subprotocols are MQTT's, by their age [MQTT-6.0.0-4]; the second is that of
// MQTT 3.1.
var subprotocols = []string{"mqtt", "mqttv3.1"}

// upgrade reads the HTTP request of a fresh connection and turns it into a
// WebSocket. It writes the answer, refusals included.
func (l *listener) upgrade(raw net.Conn) (net.Conn, error) {
	limited := &io.LimitedReader{R: raw, N: maxRequestBytes}
	r := bufio.NewReader(limited)
	req, err := http.ReadRequest(r)
	if err != nil {
		if limited.N == 0 {
			err = fmt.Errorf("a request of more than %d bytes", maxRequestBytes)
		}
		return nil, fmt.Errorf("websocket: %w", err)
	}
	answer := &reply{header: make(http.Header), conn: unhurried{raw}, in: r}
	switch {
	case req.URL.Path != WebSocketPath:
		http.Error(answer, "MQTT is at "+WebSocketPath, http.StatusNotFound)
	case websocket.IsWebSocketUpgrade(req) && !slices.ContainsFunc(websocket.Subprotocols(req), func(p string) bool { return slices.Contains(subprotocols, p) }):
		http.Error(answer, "the WebSocket subprotocol must be mqtt", http.StatusBadRequest)
	default:
		up := websocket.Upgrader{
			ReadBufferSize: webSocketBuffer, WriteBufferSize: webSocketBuffer, WriteBufferPool: &l.b.buffers,
			Subprotocols: subprotocols, CheckOrigin: l.originMay,
		}
		if ws, err := up.Upgrade(answer, req, nil); err == nil {
			return newWebSocketConn(raw, ws), nil
		} else if answer.code == 0 {
			return nil, err
		}
	}
	if err := answer.send(raw, req); err != nil {
		return nil, err
	}
	return nil, fmt.Errorf("websocket: request for %q answered with %d: %s", req.URL.Path, answer.code, bytes.TrimSpace(answer.body.Bytes()))
}

// originMay keeps web pages of others from using what lets a browser in
// without the page knowing a secret: its place behind a loopback address or a
// firewall, or its client certificate. Pages of the same host may, whatever
// their port, and all may where passwords are asked for.
func (l *listener) originMay(r *http.Request) bool {
	origin := r.Header.Get("Origin")
	if origin == "" || !l.entrance.AllowAnonymous && !l.entrance.AsksCertificates {
		return true
	}
	u, err := url.Parse(origin)
	if err != nil {
		return false
	}
	host := r.Host
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	return strings.EqualFold(u.Hostname(), strings.Trim(host, "[]"))
}

// reply is the answer to the request that opens a WebSocket.
type reply struct {
	header http.Header
	code   int
	body   bytes.Buffer
	conn   net.Conn
	in     *bufio.Reader
}

func (a *reply) Header() http.Header         { return a.header }
func (a *reply) Write(p []byte) (int, error) { return a.body.Write(p) }
func (a *reply) WriteHeader(code int)        { a.code = code }

// Hijack implements http.Hijacker.
func (a *reply) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return a.conn, bufio.NewReadWriter(a.in, bufio.NewWriterSize(a.conn, webSocketBuffer)), nil
}

// send writes a refusal.
func (a *reply) send(to io.Writer, req *http.Request) error {
	a.header.Set("Connection", "close")
	r := http.Response{
		StatusCode: a.code, ProtoMajor: 1, ProtoMinor: 1, Request: req, Header: a.header, Close: true,
		ContentLength: int64(a.body.Len()), Body: io.NopCloser(bytes.NewReader(a.body.Bytes())),
	}
	return r.Write(to)
}

// unhurried is a socket whose write deadlines are not the library's to set.
type unhurried struct{ net.Conn }

func (unhurried) SetDeadline(time.Time) error      { return nil }
func (unhurried) SetWriteDeadline(time.Time) error { return nil }

// webSocketConn is the bytes of MQTT in a WebSocket: those of all binary
// messages in their order, however they are cut [MQTT-6.0.0-2].
type webSocketConn struct {
	net.Conn // the socket, or TLS over it
	ws       *websocket.Conn
	message  io.Reader // the message that is being read

	writeMu sync.Mutex // serialises data, answers to pings and the goodbye

	mu    sync.Mutex
	limit time.Time // the write deadline that was set last
}

func newWebSocketConn(socket net.Conn, ws *websocket.Conn) *webSocketConn {
	w := &webSocketConn{Conn: socket, ws: ws}
	ws.SetPingHandler(func(data string) error { return w.control(websocket.PongMessage, []byte(data)) })
	ws.SetCloseHandler(func(code int, _ string) error {
		_ = w.control(websocket.CloseMessage, websocket.FormatCloseMessage(code, ""))
		return nil
	})
	return w
}

var errNotBinary = errors.New("websocket: a text message: MQTT is in binary ones")

// Read implements net.Conn.
func (w *webSocketConn) Read(p []byte) (int, error) {
	for {
		if w.message == nil {
			kind, r, err := w.ws.NextReader()
			var bye *websocket.CloseError
			switch {
			case errors.As(err, &bye):
				return 0, io.EOF
			case err != nil:
				return 0, err
			case kind != websocket.BinaryMessage: // [MQTT-6.0.0-1]
				_ = w.control(websocket.CloseMessage, websocket.FormatCloseMessage(websocket.CloseUnsupportedData, "binary messages only"))
				return 0, errNotBinary
			}
			w.message = r
		}
		n, err := w.message.Read(p)
		if err == io.EOF { // of the message
			w.message, err = nil, nil
		}
		if n > 0 || err != nil || len(p) == 0 {
			return n, err
		}
	}
}

// Write implements net.Conn: p is one message.
func (w *webSocketConn) Write(p []byte) (int, error) {
	w.writeMu.Lock()
	defer w.writeMu.Unlock()
	w.mu.Lock() // an answer to a ping may have set another one
	_ = w.Conn.SetWriteDeadline(w.limit)
	w.mu.Unlock()
	if err := w.ws.WriteMessage(websocket.BinaryMessage, p); err != nil {
		return 0, err
	}
	return len(p), nil
}

// SetWriteDeadline implements net.Conn. It counts for a write that hangs, too.
func (w *webSocketConn) SetWriteDeadline(t time.Time) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.limit = t
	return w.Conn.SetWriteDeadline(t)
}

// control writes a control message behind what is being written.
func (w *webSocketConn) control(kind int, data []byte) error {
	w.writeMu.Lock()
	defer w.writeMu.Unlock()
	return w.controlWithin(controlTimeout, kind, data)
}

// controlWithin writes a control message. The caller holds writeMu.
func (w *webSocketConn) controlWithin(d time.Duration, kind int, data []byte) error {
	until := time.Now().Add(d)
	w.mu.Lock()
	_ = w.Conn.SetWriteDeadline(until)
	w.mu.Unlock()
	return w.ws.WriteControl(kind, data, until)
}

// Close says goodbye, unless a write hangs, and ends the connection.
func (w *webSocketConn) Close() error {
	if w.writeMu.TryLock() {
		_ = w.controlWithin(goodbyeTimeout, websocket.CloseMessage, websocket.FormatCloseMessage(websocket.CloseNormalClosure, ""))
		w.writeMu.Unlock()
	}
	return w.Conn.Close()
}
