package app

import (
	"crypto/tls"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"github.com/mandate-sam/mandate/internal/web"
)

// listen opens a listener, which ends TLS if the configuration names a
// certificate. Clients are asked for certificates where that is of use: which of
// them count is for whoever tells callers apart to say.
func (c *Config) listen(l Listener, clients bool) (net.Listener, error) {
	ln, err := net.Listen("tcp", l.Listen)
	if err != nil {
		return nil, err
	}
	ln = web.Hold(ln)
	if l.TLS.Certificate == "" {
		return ln, nil
	}
	certs := &certificate{cert: c.file(l.TLS.Certificate), key: c.file(l.TLS.Key)}
	if _, err := certs.get(nil); err != nil {
		ln.Close()
		return nil, err
	}
	asked := tls.NoClientCert
	if clients {
		asked = tls.RequestClientCert
	}
	return tls.NewListener(ln, &tls.Config{
		MinVersion: tls.VersionTLS12, GetCertificate: certs.get, NextProtos: []string{"h2", "http/1.1"}, ClientAuth: asked,
	}), nil
}

// recheck is how often the files of a certificate are looked at.
const recheck = time.Second

// A certificate is read from its files again when they change. A pair that
// does not load leaves the last good one in service.
type certificate struct {
	cert, key string

	mu      sync.Mutex // guards the fields below
	loaded  *tls.Certificate
	stamp   [2]time.Time
	checked time.Time
}

func (c *certificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.loaded != nil && time.Since(c.checked) < recheck {
		return c.loaded, nil
	}
	c.checked = time.Now()
	stamp, err := stamps(c.cert, c.key)
	if err == nil && c.loaded != nil && stamp == c.stamp {
		return c.loaded, nil
	}
	var pair tls.Certificate
	if err == nil {
		pair, err = tls.LoadX509KeyPair(c.cert, c.key)
	}
	if err == nil {
		c.loaded, c.stamp = &pair, stamp
	}
	if c.loaded == nil {
		return nil, fmt.Errorf("load certificate: %w", err)
	}
	return c.loaded, nil
}

func stamps(files ...string) (out [2]time.Time, err error) {
	for i, name := range files {
		st, err := os.Stat(name)
		if err != nil {
			return out, err
		}
		out[i] = st.ModTime()
	}
	return out, nil
}
