package app

import (
	"crypto/tls"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"edgehub/internal/config"
	"edgehub/pkg/auth"
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

// Users and permissions end to end, and what a reload makes of them.
func TestMQTTUsers(t *testing.T) {
	data, file := t.TempDir(), filepath.Join(t.TempDir(), "users.yaml")
	password := func(name, password string) {
		t.Helper()
		hash, err := auth.HashPassword(password)
		if err != nil {
			t.Fatal(err)
		}
		err = config.ChangeUsers(file, func(list []auth.User) ([]auth.User, error) {
			list = slices.DeleteFunc(list, func(u auth.User) bool { return u.Name == name })
			return append(list, auth.User{Name: name, Hash: hash}), nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	password("ann", "right")
	load := func(topic string) *config.Config {
		return load(t, "mqtt: {acl: [{user: ann, publish: [\""+topic+"\"]}]}\n", "data="+data, "mqtt.users="+file)
	}
	h := start(t, load("{user}/#"))
	dial := func(user, password string) (*mqtt.Device, error) {
		return mqtt.Dial(t.Context(), mqtt.DeviceOptions{Server: address(t, h, "mqtt"), ClientID: "d", Username: user, Password: password})
	}
	for _, c := range [][2]string{{"", ""}, {"ann", "wrong"}, {"eve", "right"}} {
		if d, err := dial(c[0], c[1]); err == nil {
			d.Close()
			t.Errorf("%q with password %q was let in", c[0], c[1])
		}
	}
	try := func(topic string) error {
		t.Helper()
		d, err := dial("ann", "right")
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		return <-d.Publish(topic, nil, 1)
	}
	if err := try("ann/x"); err != nil {
		t.Errorf("a permitted publish: %v", err)
	}
	if err := try("new/x"); err == nil {
		t.Error("a denied publish was acknowledged")
	}
	if err := h.Reload(load("new/#")); err != nil {
		t.Fatal(err)
	}
	if err := try("new/x"); err != nil {
		t.Errorf("permitted by the new acl: %v", err)
	}
	password("ann", "changed")
	if err := h.Reload(load("new/#")); err != nil {
		t.Fatal(err)
	}
	if d, err := dial("ann", "right"); err == nil {
		d.Close()
		t.Error("the old password still counts")
	}
	if d, err := dial("ann", "changed"); err != nil {
		t.Error(err)
	} else {
		d.Close()
	}
}

func TestBadPermissionsAreProblemsOfTheConfiguration(t *testing.T) {
	for yaml, want := range map[string]string{
		"mqtt:\n  acl:\n    - user: ann\n      publish: [a, \"b#\"]\n": `:4:20: mqtt.acl[0].publish[1]: "b#": # and + are whole levels`,
		"mqtt:\n  users: none.yaml\n":                                  ":2:10: mqtt.users: ",
	} {
		file := filepath.Join(t.TempDir(), "hub.yaml")
		if err := os.WriteFile(file, []byte(yaml), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := LoadConfig(file, nil, nil); err == nil || !strings.HasPrefix(err.Error(), file+want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}
