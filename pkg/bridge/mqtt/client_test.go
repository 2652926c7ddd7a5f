package mqtt

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"net"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	paho5 "github.com/eclipse/paho.golang/paho"
	paho "github.com/eclipse/paho.mqtt.golang"

	"edgehub/pkg/log"
	"edgehub/pkg/log/record"
	"edgehub/pkg/route"
)

// checkSequence checks that the values of records are 0, 1, 2 … n-1.
func checkSequence(t *testing.T, got []record.Record, n int) {
	t.Helper()
	if len(got) != n {
		t.Fatalf("%d records, want %d", len(got), n)
	}
	for i, r := range got {
		if string(r.Value) != fmt.Sprint(i) {
			t.Fatalf("record %d is %q", i, r.Value)
		}
	}
}

func TestPaho311(t *testing.T) {
	for _, qos := range []byte{0, 1, 2} {
		t.Run(fmt.Sprint("QoS ", qos), func(t *testing.T) {
			l := openLog(t, log.Options{})
			b := startBroker(t, Options{Log: l})
			server := "tcp://" + b.Addr().String()
			const n = 1000
			received := make(chan string, n)
			sub := paho.NewClient(paho.NewClientOptions().AddBroker(server).SetClientID("sub"))
			waitToken(t, sub.Connect())
			defer sub.Disconnect(100)
			waitToken(t, sub.Subscribe("plant/#", qos, func(_ paho.Client, m paho.Message) { received <- string(m.Payload()) }))

			pub := paho.NewClient(paho.NewClientOptions().AddBroker(server).SetClientID("pub"))
			waitToken(t, pub.Connect())
			defer pub.Disconnect(100)
			var tokens []paho.Token
			for i := range n {
				tokens = append(tokens, pub.Publish("plant/a", qos, false, fmt.Sprint(i)))
				if i%100 == 99 { // the engine drops what a subscriber's queue of 128 cannot take
					for ; len(tokens) > 0; tokens = tokens[1:] {
						waitToken(t, tokens[0])
					}
					for j := i - 99; j <= i; j++ {
						select {
						case got := <-received:
							if got != fmt.Sprint(j) {
								t.Fatalf("received %q, want %d", got, j)
							}
						case <-time.After(patience):
							t.Fatalf("message %d was not delivered", j)
						}
					}
				}
			}
			waitStored(t, l, n)
			checkSequence(t, stored(t, l, route.DefaultTopic), n)
		})
	}
}

func waitToken(t *testing.T, token paho.Token) {
	t.Helper()
	if !token.WaitTimeout(patience) {
		t.Fatal("timeout")
	}
	if err := token.Error(); err != nil {
		t.Fatal(err)
	}
}

// waitStored waits until a topic has n durable records: QoS 0 is not
// acknowledged.
func waitStored(t *testing.T, l *log.Log, n int64) {
	t.Helper()
	p, err := l.Partition(route.DefaultTopic, 0)
	if err != nil {
		t.Fatal(err)
	}
	wake := make(chan struct{}, 1)
	defer p.Watch(wake)()
	deadline := time.After(patience)
	for p.Offsets().HighWatermark < n {
		select {
		case <-wake:
		case <-deadline:
			t.Fatalf("%d records are durable, want %d", p.Offsets().HighWatermark, n)
		}
	}
}

func TestPahoV5(t *testing.T) {
	for _, qos := range []byte{1, 2} {
		t.Run(fmt.Sprint("QoS ", qos), func(t *testing.T) {
			l := openLog(t, log.Options{})
			b := startBroker(t, Options{Log: l})
			c := connectV5(t, b, "v5")
			const n = 1000
			var all sync.WaitGroup
			order := make(chan int)
			// paho.golang publishes in order only from one goroutine; it
			// waits for each answer, so many goroutines make many in flight.
			for range 50 {
				all.Go(func() {
					for i := range order {
						r, err := c.Publish(context.Background(), &paho5.Publish{Topic: "plant/a", QoS: qos, Payload: fmt.Append(nil, i)})
						if err != nil || r.ReasonCode != 0 {
							t.Errorf("publish %d: %v, %v", i, r, err)
						}
					}
				})
			}
			for i := range n {
				order <- i
			}
			close(order)
			all.Wait()
			seen := make(map[string]bool)
			for _, r := range stored(t, l, route.DefaultTopic) {
				seen[string(r.Value)] = true
			}
			if len(seen) != n {
				t.Errorf("%d different records, want %d", len(seen), n)
			}
		})
	}
}

func connectV5(t *testing.T, b *Broker, id string) *paho5.Client {
	t.Helper()
	conn, err := net.Dial("tcp", b.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	c := paho5.NewClient(paho5.ClientConfig{Conn: conn})
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	ack, err := c.Connect(ctx, &paho5.Connect{ClientID: id, CleanStart: true, KeepAlive: 30})
	if err != nil {
		t.Fatal(err)
	}
	if ack.Properties.MaximumPacketSize == nil || *ack.Properties.MaximumPacketSize != DefaultMaxPacket {
		t.Errorf("CONNACK names %v as the largest packet", ack.Properties.MaximumPacketSize)
	}
	t.Cleanup(func() { _ = c.Disconnect(&paho5.Disconnect{}) })
	return c
}

func TestV5ClientHearsOfARefusal(t *testing.T) {
	l := openLog(t, log.Options{})
	createTopic(t, l, route.DefaultTopic, 1024)
	b := startBroker(t, Options{Log: l})
	c := connectV5(t, b, "refused")
	for _, qos := range []byte{1, 2} {
		r, err := c.Publish(context.Background(), &paho5.Publish{Topic: "a", QoS: qos, Payload: make([]byte, 5000)})
		if r == nil || r.ReasonCode != 0x97 { // the client makes it an error for QoS 1 only
			t.Errorf("QoS %d: %+v, %v; want reason 0x97", qos, r, err)
		}
		if _, err := c.Publish(context.Background(), &paho5.Publish{Topic: "a", QoS: qos, Payload: []byte("x")}); err != nil {
			t.Errorf("QoS %d: after a refusal: %v", qos, err)
		}
	}
}

func TestMosquittoClients(t *testing.T) {
	l := openLog(t, log.Options{})
	b := startBroker(t, Options{Log: l})
	host, port, _ := net.SplitHostPort(b.Addr().String())
	for i, version := range []string{"mqttv311", "mqttv5"} {
		topic := "mosquitto/" + version
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		const n = 100 // less than the engine queues for a subscriber: beyond, it drops
		args := []string{"-h", host, "-p", port, "-V", version, "-q", "1", "-t", topic, "-C", fmt.Sprint(n)}
		if version == "mqttv5" { // the engine mixes up the order once a receive maximum (20 here) is reached
			args = append(args, "-D", "connect", "receive-maximum", "65535")
		}
		sub := exec.CommandContext(ctx, "mosquitto_sub", args...)
		out, err := sub.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := sub.Start(); err != nil {
			t.Fatal(err)
		}
		waitStats(t, b, "subscription", func(s Stats) bool { return s.Subscriptions > 0 })

		var lines bytes.Buffer
		for j := range n {
			fmt.Fprintln(&lines, j)
		}
		pub := exec.CommandContext(ctx, "mosquitto_pub", "-h", host, "-p", port, "-V", version, "-q", fmt.Sprint(i+1), "-t", topic, "-l")
		pub.Stdin = &lines
		if msg, err := pub.CombinedOutput(); err != nil {
			t.Fatalf("mosquitto_pub: %v: %s", err, msg)
		}
		sc := bufio.NewScanner(out)
		for j := 0; sc.Scan(); j++ {
			if strings.TrimSpace(sc.Text()) != fmt.Sprint(j) {
				t.Fatalf("%s: received %q, want %d", version, sc.Text(), j)
			}
		}
		if err := sub.Wait(); err != nil {
			t.Fatalf("mosquitto_sub: %v", err)
		}
		waitStats(t, b, "end of the subscription", func(s Stats) bool { return s.Connections == 0 })
		all := stored(t, l, route.DefaultTopic)
		checkSequence(t, all[i*n:], n)
	}
}

func TestRetainedMessageReachesLateSubscriber(t *testing.T) {
	b := startBroker(t, Options{})
	host, port, _ := net.SplitHostPort(b.Addr().String())
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if msg, err := exec.CommandContext(ctx, "mosquitto_pub", "-h", host, "-p", port, "-q", "1", "-r", "-t", "state/valve", "-m", "open").CombinedOutput(); err != nil {
		t.Fatalf("mosquitto_pub: %v: %s", err, msg)
	}
	out, err := exec.CommandContext(ctx, "mosquitto_sub", "-h", host, "-p", port, "-t", "state/#", "-C", "1", "-v").CombinedOutput()
	if err != nil || string(out) != "state/valve open\n" {
		t.Errorf("got %q, %v", out, err)
	}
}

func TestDeviceReconnectsAndSendsAgain(t *testing.T) {
	l := openLog(t, log.Options{})
	b := startBroker(t, Options{Log: l})
	d := dialDevice(t, b, DeviceOptions{ClientID: "d", Reconnect: true, InFlight: 50})
	const n = 600
	var done []<-chan error
	for i := range n {
		done = append(done, d.Publish("plant/a", fmt.Append(nil, i), 1))
		if i%100 == 50 { // cut, with publishes in flight
			for _, c := range connections(b) {
				_ = c.Close()
			}
		}
	}
	for _, c := range done {
		wait(t, c)
	}
	// First copies are in order and none is missing.
	next := 0
	for _, r := range stored(t, l, route.DefaultTopic) {
		if string(r.Value) == fmt.Sprint(next) {
			next++
		}
	}
	if next != n {
		t.Errorf("record %d is missing or out of order", next)
	}
	if s := d.Stats(); s.Acked != n || s.Connects < 2 || s.Resent == 0 {
		t.Errorf("stats: %+v", s)
	}
}

func connections(b *Broker) []*conn {
	b.ways[0].mu.Lock()
	defer b.ways[0].mu.Unlock()
	var out []*conn
	for c := range b.ways[0].conns {
		out = append(out, c)
	}
	return out
}

func TestDeviceWithoutReconnectFails(t *testing.T) {
	b := startBroker(t, Options{})
	d := dialDevice(t, b, DeviceOptions{ClientID: "d"})
	wait(t, d.Publish("a", nil, 1))
	for _, c := range connections(b) {
		_ = c.Close()
	}
	for end := time.Now().Add(patience); ; {
		if err := <-d.Publish("a", nil, 1); err != nil {
			break
		}
		if time.Now().After(end) {
			t.Fatal("publishes go on after the connection was lost")
		}
	}
}

func TestDeviceCloseFailsWhatIsInFlight(t *testing.T) {
	b := startBroker(t, Options{})
	d := dialDevice(t, b, DeviceOptions{ClientID: "d"})
	wait(t, d.Publish("a", nil, 1))
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-d.Publish("a", nil, 1); err != ErrDeviceClosed {
		t.Errorf("got %v, want %v", err, ErrDeviceClosed)
	}
}

func TestDialNamesTheServer(t *testing.T) {
	_, err := Dial(t.Context(), DeviceOptions{Server: "127.0.0.1:1", ClientID: "d"})
	if err == nil || !strings.Contains(err.Error(), "127.0.0.1:1") {
		t.Errorf("got %v", err)
	}
}
