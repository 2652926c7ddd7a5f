package uplink_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"edgehub/pkg/bridge/uplink"

	"github.com/nats-io/nkeys"
)

func decodeSig(s string) ([]byte, error) { return base64.RawURLEncoding.DecodeString(s) }

func echo(subject string, msg []byte) ([]byte, bool) { return msg, subject != "nobody" }

func newSink(t *testing.T, o uplink.NATSOptions) *uplink.NATSSink {
	t.Helper()
	s, err := uplink.NewNATSSink(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func connect(t *testing.T, s *uplink.NATSSink) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := s.Connect(ctx, "site-1"); err != nil {
		t.Fatalf("connect: %v; %+v", err, s.Stats())
	}
}

func answerOf(t *testing.T, c *uplink.Call) uplink.Answer {
	t.Helper()
	select {
	case a := <-c.C:
		return a
	case <-time.After(10 * time.Second):
		t.Fatal("no answer")
		return uplink.Answer{}
	}
}

func TestNATSSink(t *testing.T) {
	// Who gossips an address must not make the uplink dial it.
	gossiped, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer gossiped.Close()
	dialled := make(chan struct{})
	go func() {
		defer close(dialled)
		if c, err := gossiped.Accept(); err == nil {
			t.Error("a gossiped address was dialled")
			c.Close()
		}
	}()
	srv := newNATSServer(t, &natsServer{handle: echo, gossip: []string{gossiped.Addr().String()}})
	s := newSink(t, uplink.NATSOptions{Servers: []string{srv.url()}})
	if _, err := s.Send("up.x", nil); !errors.Is(err, uplink.ErrDisconnected) {
		t.Errorf("send before connect: %v", err)
	}
	connect(t, s)
	var calls []*uplink.Call
	for i := range 100 {
		c, err := s.Send("up.x", fmt.Appendf(nil, "message %d", i))
		if err != nil {
			t.Fatal(err)
		}
		calls = append(calls, c)
	}
	for i, c := range calls {
		if a := answerOf(t, c); a.Err != nil || string(a.Msg) != fmt.Sprintf("message %d", i) {
			t.Fatalf("answer %d: %+v", i, a)
		}
	}
	c, err := s.Send("nobody", nil)
	if err != nil {
		t.Fatal(err)
	}
	if a := answerOf(t, c); !errors.Is(a.Err, uplink.ErrNoResponders) {
		t.Errorf("nobody answers %+v", a)
	}
	if n := s.MaxMessage(); n != 1<<20 {
		t.Errorf("largest message %d", n)
	}
	if _, err := s.Send("up.x", make([]byte, 1<<20+1)); !errors.Is(err, uplink.ErrTooLarge) {
		t.Errorf("too large: %v", err)
	}
	// Cut: what is under way fails at once, and the link comes back.
	for range 3 {
		srv.cut()
		for st := s.Stats(); st.Connected; st = s.Stats() {
			time.Sleep(time.Millisecond)
		}
		connect(t, s)
	}
	if st := s.Stats(); st.Reconnects != 3 || !st.Connected || st.Server == "" || st.BytesWritten == 0 {
		t.Errorf("stats %+v", st)
	}
	gossiped.Close()
	<-dialled
	srv.mu.Lock()
	defer srv.mu.Unlock()
	if srv.connects[0]["name"] != "site-1" {
		t.Errorf("the connection is called %v", srv.connects[0]["name"])
	}
	for _, in := range srv.inboxes {
		if !strings.HasPrefix(in, "_INBOX.site-1.") {
			t.Errorf("inbox %s", in)
		}
	}
}

// A dark link does not hold calls for ever: it is noticed by asking, and
// dropped without waiting for the dead socket.
func TestNATSSinkDarkLink(t *testing.T) {
	srv := newNATSServer(t, &natsServer{handle: echo})
	s := newSink(t, uplink.NATSOptions{Servers: []string{srv.url()}})
	connect(t, s)
	srv.goDark()
	c, err := s.Send("up.x", bytes.Repeat([]byte("x"), 500_000))
	if err != nil {
		t.Fatal(err)
	}
	begun := time.Now()
	for time.Since(s.Heard()) < 1500*time.Millisecond {
		if time.Since(begun) > 10*time.Second {
			t.Fatal("the dark link is heard")
		}
		time.Sleep(100 * time.Millisecond)
	}
	s.Reconnect("test")
	if a := answerOf(t, c); !errors.Is(a.Err, uplink.ErrDisconnected) {
		t.Errorf("answer %+v", a)
	}
	connect(t, s) // the server is not dark to new connections
	// An idle link that lives is heard when asked.
	time.Sleep(600 * time.Millisecond)
	s.Heard()
	for begun := time.Now(); time.Since(s.Heard()) > 500*time.Millisecond; {
		if time.Since(begun) > 5*time.Second {
			t.Fatal("a live link is not heard")
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// On a link that lives an answer that was lost stays lost: other bytes that
// leave, pings among them, are no progress of a message that has left.
func TestNATSSinkLostAnswer(t *testing.T) {
	srv := newNATSServer(t, &natsServer{handle: func(subject string, msg []byte) ([]byte, bool) {
		if subject == "up.lost" {
			return nil, true
		}
		return msg, true
	}})
	s := newSink(t, uplink.NATSOptions{Servers: []string{srv.url()}})
	connect(t, s)
	lost, err := s.Send("up.lost", []byte("x"))
	if err != nil {
		t.Fatal(err)
	}
	defer lost.Cancel()
	sent := time.Now()
	for range 6 {
		time.Sleep(600 * time.Millisecond)
		lost.Moved()
		s.Heard() // pings
		c, err := s.Send("up.x", []byte("y"))
		if err != nil {
			t.Fatal(err)
		}
		answerOf(t, c)
	}
	if d := lost.Moved().Sub(sent); d > 2*time.Second {
		t.Errorf("a message that was lost moved for %s", d)
	}
}

func credentialsFile(t *testing.T) (path, public string) {
	t.Helper()
	kp, err := nkeys.CreateUser()
	if err != nil {
		t.Fatal(err)
	}
	seed, _ := kp.Seed()
	public, _ = kp.PublicKey()
	path = filepath.Join(t.TempDir(), "site-1.creds")
	text := fmt.Sprintf("-----BEGIN USER NKEY SEED-----\n%s\n------END USER NKEY SEED------\n", seed)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path, public
}

func TestNATSSinkCredentials(t *testing.T) {
	path, public := credentialsFile(t)
	other, _ := credentialsFile(t)
	srv := newNATSServer(t, &natsServer{handle: echo, nkey: public, deny: func(s string) bool { return s == "up.other.hello" }})
	s := newSink(t, uplink.NATSOptions{Servers: []string{srv.url()}, Credentials: path})
	connect(t, s)
	// Another site's subjects are denied, and that is told.
	if _, err := s.Send("up.other.hello", []byte("x")); err != nil {
		t.Fatal(err)
	}
	for begun := time.Now(); !strings.Contains(s.Stats().LastError, "do not allow"); {
		if time.Since(begun) > 5*time.Second {
			t.Fatalf("the refusal is not told: %+v", s.Stats())
		}
		time.Sleep(time.Millisecond)
	}
	bad := newSink(t, uplink.NATSOptions{Servers: []string{srv.url()}, Credentials: other})
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if err := bad.Connect(ctx, "site-1"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("wrong credentials: %v", err)
	}
	if st := bad.Stats(); st.Connected || !strings.Contains(strings.ToLower(st.LastError), "authorization") {
		t.Errorf("stats %+v", st)
	}
}

func TestNATSSinkFallsBack(t *testing.T) {
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	srv := newNATSServer(t, &natsServer{handle: echo})
	s := newSink(t, uplink.NATSOptions{Servers: []string{
		"tls://" + closed.Addr().String(), "wss://" + closed.Addr().String(), srv.url()}})
	connect(t, s)
	if st := s.Stats(); !st.Connected || !strings.HasPrefix(st.Server, "nats://") {
		t.Errorf("stats %+v", st)
	}
}

func TestNATSOptions(t *testing.T) {
	path, _ := credentialsFile(t)
	empty := filepath.Join(t.TempDir(), "empty")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		servers     []string
		credentials string
		want        string // part of the error, "": none
	}{
		{[]string{"tls://core-1:4222", "wss://core-1"}, "", ""},
		{[]string{"nats://127.0.0.1:4222", "nats://[::1]:4222", "nats://localhost"}, "", ""},
		{[]string{"nats://core-1:4222"}, "", "loopback only"},
		{[]string{"ws://10.0.0.1"}, "", "loopback only"},
		{[]string{"nats://core-1:4222"}, path, ""},
		{nil, "", "no core"},
		{[]string{"core-1:4222"}, "", "core-1:4222"},
		{[]string{"http://core-1"}, "", "unknown"},
		{[]string{"tls://user:secret@core-1"}, "", "credentials file"},
		{[]string{"tls://core-1"}, filepath.Join(t.TempDir(), "nothing"), "no such file"},
		{[]string{"tls://core-1"}, empty, "no NKey seed"},
	} {
		_, err := uplink.NewNATSSink(uplink.NATSOptions{Servers: c.servers, Credentials: c.credentials})
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v: %v, want %q", c.servers, err, c.want)
		}
		if err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("the error tells the password: %v", err)
		}
	}
}
