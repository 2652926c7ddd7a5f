package auth

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"edgehub/pkg/auth/authtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestBadCertificateFilesAreNamed(t *testing.T) {
	ca := authtest.NewCA(t, "ca")
	cert, key := ca.Issue("hub")
	_, other := ca.Issue("other")
	noise := filepath.Join(ca.Dir, "noise.pem")
	if err := os.WriteFile(noise, []byte("noise"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name        string
		files       Files
		field, want string
	}{
		{"no cert", Files{Cert: "/nonexistent.pem", Key: key}, "cert", "/nonexistent.pem: no such file or directory"},
		{"folder", Files{Cert: ca.Dir, Key: key}, "cert", "is no file"},
		{"noise cert", Files{Cert: noise, Key: key}, "cert", "no certificate in PEM form"},
		{"noise key", Files{Cert: cert, Key: noise}, "key", noise},
		{"another key", Files{Cert: cert, Key: other}, "key", "not the private key"},
		{"noise ca", Files{Cert: cert, Key: key, ClientCA: noise}, "client_ca", "no certificate in PEM form"},
		{"no ca", Files{Cert: cert, Key: key, ClientCA: noise + "x"}, "client_ca", "no such file"},
	} {
		_, err := LoadCertificates(c.files)
		var fe *FileError
		if !errors.As(err, &fe) || fe.Field != c.field || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q of %s", c.name, err, c.want, c.field)
		}
	}
	good, err := LoadCertificates(Files{Cert: cert, Key: key, ClientCA: ca.File})
	if err != nil {
		t.Fatal(err)
	}
	before, _ := good.Config().GetConfigForClient(nil)
	if err := os.WriteFile(cert, []byte("noise"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := good.Reload(); err == nil {
		t.Error("noise was taken over")
	}
	if after, _ := good.Config().GetConfigForClient(nil); after != before {
		t.Error("a failed reload changed the certificates")
	}
}

func TestNameOf(t *testing.T) {
	u, _ := url.Parse("urn:dev:1")
	for want, c := range map[string]*x509.Certificate{
		"cn":        {Subject: pkix.Name{CommonName: "cn"}, DNSNames: []string{"dns"}},
		"dns":       {DNSNames: []string{"dns"}, EmailAddresses: []string{"mail"}},
		"mail":      {EmailAddresses: []string{"mail"}},
		"urn:dev:1": {URIs: []*url.URL{u}},
		"":          {},
	} {
		if got := NameOf(c); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
