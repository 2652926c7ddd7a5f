package app

import (
	"crypto/tls"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"edgehub/internal/config"
	"edgehub/pkg/auth/authtest"
	"edgehub/pkg/bridge/mqtt"
)

func TestMQTTOverTLS(t *testing.T) {
	ca := authtest.NewCA(t, "ca")
	cert, key := ca.Issue("hub")
	data := t.TempDir()
	load := func() *config.Config {
		return load(t, "", "data="+data, "mqtt.listen=off", "mqtt.tls.listen=127.0.0.1:0",
			"mqtt.tls.cert="+cert, "mqtt.tls.key="+key, "mqtt.tls.client_ca="+ca.File)
	}
	h := start(t, load())
	serial := func() string {
		c, err := tls.Dial("tcp", address(t, h, "mqtt.tls"), ca.Client("press-7"))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		return c.ConnectionState().PeerCertificates[0].SerialNumber.String()
	}
	if a, ok := h.Status(t.Context()).Listeners["mqtt"]; ok {
		t.Errorf("MQTT without TLS is open at %s", a)
	}
	first := serial()
	ca.Issue("hub") // in the same files
	if err := h.Reload(load()); err != nil {
		t.Fatal(err)
	}
	if serial() == first {
		t.Error("the old certificate after a reload")
	}
}

func TestBadCertificateIsAProblemOfTheConfiguration(t *testing.T) {
	file := filepath.Join(t.TempDir(), "hub.yaml")
	if err := os.WriteFile(file, []byte("mqtt:\n  tls:\n    cert: missing.pem\n    key: missing.key\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := LoadConfig(file, nil, nil)
	want := file + ":3:11: mqtt.tls.cert: " + filepath.Join(filepath.Dir(file), "missing.pem") + ": no such file or directory"
	if err == nil || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("got %v, want %s", err, want)
	}
}

func TestMQTTOverWebSocket(t *testing.T) {
	ca := authtest.NewCA(t, "ca")
	cert, key := ca.Issue("hub")
	h := start(t, load(t, "", "data="+t.TempDir(), "mqtt.websocket.listen=127.0.0.1:0",
		"mqtt.websocket.tls={listen: 127.0.0.1:0, cert: "+cert+", key: "+key+"}"))
	for _, server := range []string{"tcp://" + address(t, h, "mqtt"), "ws://" + address(t, h, "mqtt.websocket") + "/mqtt"} {
		d, err := mqtt.Dial(t.Context(), mqtt.DeviceOptions{Server: server, ClientID: "device"})
		if err != nil {
			t.Fatalf("%s: %v", server, err)
		}
		d.Close()
	}
	c, err := tls.Dial("tcp", address(t, h, "mqtt.websocket.tls"), ca.Client(""))
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
}
