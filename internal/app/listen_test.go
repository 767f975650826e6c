package app

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/internal/web"
)

// writePair writes a self-signed pair with that serial number.
func writePair(t *testing.T, dir string, serial int64) (cert, key Path) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: "x"}, DNSNames: []string{"localhost"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	for name, block := range map[string]*pem.Block{"c.pem": {Type: "CERTIFICATE", Bytes: der}, "k.pem": {Type: "PRIVATE KEY", Bytes: pkcs8}} {
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return Path(filepath.Join(dir, "c.pem")), Path(filepath.Join(dir, "k.pem"))
}

// What must not be sent late can be held on every connection.
func TestListenHolds(t *testing.T) {
	cert, key := writePair(t, t.TempDir(), 1)
	for _, l := range []Listener{{Listen: "127.0.0.1:0"}, {Listen: "127.0.0.1:0", TLS: TLS{Certificate: cert, Key: key}}} {
		ln, err := new(Config).listen(l, true)
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close()
		client, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		c, err := ln.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if web.HoldContext(t.Context(), c) == t.Context() {
			t.Errorf("a %T cannot be held", c)
		}
	}
}

// A certificate that is replaced is served without a restart; a pair that does
// not load leaves the last good one.
func TestCertificateIsReloaded(t *testing.T) {
	dir := t.TempDir()
	cert, key := writePair(t, dir, 1)
	c := &certificate{cert: string(cert), key: string(key)}
	serial := func() int64 {
		t.Helper()
		c.checked = time.Time{} // as if a second had passed
		pair, err := c.get(nil)
		if err != nil {
			t.Fatal(err)
		}
		return pair.Leaf.SerialNumber.Int64()
	}
	if got := serial(); got != 1 {
		t.Errorf("got %d", got)
	}
	writePair(t, dir, 2)
	old := time.Now().Add(-time.Minute)
	os.Chtimes(string(cert), old, old) // so that the change shows whatever the clock's steps
	if got := serial(); got != 2 {
		t.Errorf("after a change: %d", got)
	}
	os.WriteFile(string(cert), []byte("rubbish"), 0o600)
	if got := serial(); got != 2 {
		t.Errorf("with rubbish: %d", got)
	}
	os.Remove(string(cert))
	if got := serial(); got != 2 {
		t.Errorf("without a file: %d", got)
	}
	if _, err := (&certificate{cert: string(cert), key: string(key)}).get(nil); err == nil {
		t.Error("nothing was loaded, and nothing said")
	}
}

func TestListen(t *testing.T) {
	cert, key := writePair(t, t.TempDir(), 7)
	c := &Config{dir: "/"}
	ln, err := c.listen(Listener{Listen: "127.0.0.1:0", TLS: TLS{cert, key}}, false)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	go http.Serve(ln, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "hello") }))
	hc := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	res, err := hc.Get("https://" + ln.Addr().String())
	if err != nil || res.TLS == nil || res.TLS.PeerCertificates[0].SerialNumber.Int64() != 7 {
		t.Errorf("got %v", err)
	}
	if _, err := c.listen(Listener{Listen: "127.0.0.1:0", TLS: TLS{"/absent", "/absent"}}, false); err == nil {
		t.Error("listening without the certificate")
	}
	if _, err := c.listen(Listener{Listen: ln.Addr().String()}, false); err == nil {
		t.Error("listening where somebody listens")
	}
}

// A call goes only to hosts of configured audiences, and only by https.
func TestTransportKnowsItsHosts(t *testing.T) {
	cloud := mandate.Clouds()["global"]
	answered := roundTrip(func(*http.Request) (*http.Response, error) { return &http.Response{StatusCode: 200}, nil })
	u := &upstream{http: map[string]*http.Client{"global": {Transport: answered}}}
	b := u.transport(map[string]mandate.Cloud{"global": cloud})
	for url, ok := range map[string]bool{
		"https://graph.microsoft.com/v1.0/me": true, "https://api.partnercenter.microsoft.com/v1/customers": true,
		"http://graph.microsoft.com/v1.0/me": false, "https://graph.microsoft.com:444/": false, "https://evil.example/": false,
		"https://graph.microsoft.com.evil.example/": false,
	} {
		req, err := http.NewRequest("GET", url, nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := b.RoundTrip(req); (err == nil) != ok {
			t.Errorf("%s: %v", url, err)
		}
	}
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }
