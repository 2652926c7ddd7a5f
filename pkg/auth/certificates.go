package auth

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
)

// Files are the PEM files of a TLS listener.
type Files struct {
	Cert     string // certificate chain, the listener's own first
	Key      string // its private key
	ClientCA string // CAs of client certificates, which are then required; "": nobody is asked for one
}

// FileError is what is wrong with one of the files.
type FileError struct {
	Field string // cert, key or client_ca
	Path  string
	Err   error
}

// Error says which file, what is wrong with it and what to do.
func (e *FileError) Error() string { return fmt.Sprintf("%s: %v", e.Path, e.Err) }

func (e *FileError) Unwrap() error { return e.Err }

// Certificates are those of one TLS listener. Reload replaces them for
// connections that come from then on. All methods may be called from any
// goroutine.
type Certificates struct {
	files  Files
	config atomic.Pointer[tls.Config]
}

// LoadCertificates reads and checks the files. Its errors are *FileError.
func LoadCertificates(f Files) (*Certificates, error) {
	c := &Certificates{files: f}
	return c, c.Reload()
}

// Reload reads the files again. With an error the old certificates stay.
func (c *Certificates) Reload() error {
	t, err := c.files.load()
	if err != nil {
		return err
	}
	c.config.Store(t)
	return nil
}

// Files are the files that the certificates come from.
func (c *Certificates) Files() Files { return c.files }

// Config is for tls.Server: TLS 1.2 or later, and a client certificate of one
// of the CAs if there are any. It follows Reload.
func (c *Certificates) Config() *tls.Config {
	return &tls.Config{
		MinVersion:         tls.VersionTLS12,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return c.config.Load(), nil },
	}
}

func (f Files) load() (*tls.Config, error) {
	cert, err := readPEM("cert", f.Cert)
	if err != nil {
		return nil, err
	}
	key, err := readPEM("key", f.Key)
	if err != nil {
		return nil, err
	}
	if !x509.NewCertPool().AppendCertsFromPEM(cert) {
		return nil, &FileError{"cert", f.Cert, errors.New("no certificate in PEM form: name the listener's certificate, followed by those between it and its CA")}
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return nil, &FileError{"key", f.Key, fmt.Errorf("not the private key in PEM form of %s: %w", f.Cert, err)}
	}
	out := &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{pair}}
	if f.ClientCA == "" {
		return out, nil
	}
	ca, err := readPEM("client_ca", f.ClientCA)
	if err != nil {
		return nil, err
	}
	out.ClientCAs = x509.NewCertPool()
	if !out.ClientCAs.AppendCertsFromPEM(ca) {
		return nil, &FileError{"client_ca", f.ClientCA, errors.New("no certificate in PEM form: name the CA that signs the clients' certificates")}
	}
	out.ClientAuth = tls.RequireAndVerifyClientCert
	return out, nil
}

// maxPEM bounds a PEM file, in bytes.
const maxPEM = 4 << 20

func readPEM(field, path string) ([]byte, error) {
	st, err := os.Stat(path)
	switch {
	case err != nil:
	case !st.Mode().IsRegular():
		err = errors.New("is no file")
	case st.Size() > maxPEM:
		err = fmt.Errorf("has %d bytes: at most %d are read", st.Size(), maxPEM)
	}
	var b []byte
	if err == nil {
		b, err = os.ReadFile(path)
	}
	if err == nil {
		return b, nil
	}
	var pe *os.PathError
	if errors.As(err, &pe) {
		err = fmt.Errorf("%w: name a PEM file that the hub's user may read", pe.Err)
	}
	return nil, &FileError{field, path, err}
}

// NameOf is who a verified certificate is for: its common name, else its
// first DNS name, mail address or URI; "" if it has none.
func NameOf(c *x509.Certificate) string {
	switch {
	case c.Subject.CommonName != "":
		return c.Subject.CommonName
	case len(c.DNSNames) > 0:
		return c.DNSNames[0]
	case len(c.EmailAddresses) > 0:
		return c.EmailAddresses[0]
	case len(c.URIs) > 0:
		return c.URIs[0].String()
	}
	return ""
}
