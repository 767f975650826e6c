package app

import (
	"crypto/x509"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/mandate-sam/mandate"
)

// Whoever can write a file of authorities is believed by their word.
func TestAuthoritiesThatOthersWrite(t *testing.T) {
	dir := t.TempDir()
	cert, _ := writePair(t, dir, 1)
	for mode, want := range map[os.FileMode]string{0o600: "", 0o444: "", 0o644: "", 0o664: "others must not write it", 0o646: "others must not write it"} {
		if err := os.Chmod(string(cert), mode); err != nil {
			t.Fatal(err)
		}
		err := addAuthorities(x509.NewCertPool(), string(cert))
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("mode %#o: got %v, want %q", mode, err, want)
		}
	}
	none := filepath.Join(dir, "none.pem")
	if err := os.WriteFile(none, []byte("nothing"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := addAuthorities(x509.NewCertPool(), none); err == nil || !strings.Contains(err.Error(), "no certificate in PEM form") {
		t.Errorf("no certificate: %v", err)
	}
}

// A bundle that others came to be able to write is not read again.
func TestBundleThatOthersWrite(t *testing.T) {
	dir := t.TempDir()
	cert, _ := writePair(t, dir, 1)
	b := &bundle{file: string(cert)}
	first := b.pool()
	if first == nil {
		t.Fatal("a bundle is not read")
	}
	again := func(mode os.FileMode) *x509.CertPool {
		t.Helper()
		writePair(t, dir, 2)
		later := time.Now().Add(time.Hour)
		if err := os.Chtimes(b.file, later, later); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(b.file, mode); err != nil {
			t.Fatal(err)
		}
		b.checked = time.Time{}
		return b.pool()
	}
	if got := again(0o666); got != first {
		t.Error("a bundle that everybody can write was read")
	}
	if got := again(0o644); got == first {
		t.Error("a bundle that changed was not read")
	}
}

// A configuration says who may do what.
func TestConfigThatOthersWrite(t *testing.T) {
	path := filepath.Join(t.TempDir(), "mandate.yaml")
	if err := os.WriteFile(path, []byte(Example()), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, mode := range []os.FileMode{0o600, 0o644, 0o620, 0o602} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		_, err := LoadConfig(path)
		if refused := mode&0o022 != 0; refused != (err != nil) || refused && !strings.Contains(err.Error(), "chmod go-w") {
			t.Errorf("mode %#o: %v", mode, err)
		}
	}
}

// Wherever authorities are named, the file is one that others cannot write.
func TestEveryFileOfAuthorities(t *testing.T) {
	dir := t.TempDir()
	cert, _ := writePair(t, dir, 1)
	if err := os.Chmod(string(cert), 0o666); err != nil {
		t.Fatal(err)
	}
	c := Config{UpstreamRoots: cert, Callers: Callers{TrustDomains: []TrustDomain{{"mesh.example", cert}}}}
	for what, read := range map[string]func() error{
		"upstream_roots": func() error { _, err := c.httpClient(mandate.Clouds()["global"]); return err },
		"of a server":    func() error { _, err := c.baoHTTP(&BaoServer{Roots: cert}); return err },
		"of a mail host": func() error { _, err := c.noticeRoots(cert); return err },
		"of an issuer":   func() error { _, err := c.clientWith(string(cert)); return err },
		"trust domains":  func() error { _, err := new(parts).authenticator(&c); return err },
	} {
		if err := read(); err == nil || !strings.Contains(err.Error(), "others must not write it") {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// A check loads what listeners need, and says whose the keys should be.
func TestCheckTLS(t *testing.T) {
	dir := t.TempDir()
	cert, key := writePair(t, dir, 1)
	c := Config{Portal: Portal{Listener: Listener{TLS: TLS{cert, key}}}, API: API{Listener: Listener{TLS: TLS{cert, key}}}, Metrics: Listener{TLS: TLS{cert, key}}}
	said := func() (ok, not int) {
		for _, f := range CheckFiles(c) {
			if strings.HasSuffix(f.Subject, " tls") && f.OK {
				ok++
			} else if strings.HasSuffix(f.Subject, " tls") {
				not++
			}
		}
		return ok, not
	}
	for mode, good := range map[os.FileMode]bool{0o600: true, 0o640: true, 0o644: false, 0o660: false} {
		if err := os.Chmod(string(key), mode); err != nil {
			t.Fatal(err)
		}
		if ok, not := said(); good && ok != 3 || !good && not != 3 {
			t.Errorf("mode %#o: %d are good and %d are not", mode, ok, not)
		}
	}
	if err := os.Remove(string(cert)); err != nil {
		t.Fatal(err)
	}
	if ok, not := said(); ok != 0 || not != 3 {
		t.Errorf("without the certificate %d are good and %d are not", ok, not)
	}
	c.Portal.TLS, c.API.TLS, c.Metrics.TLS = TLS{}, TLS{}, TLS{}
	if ok, not := said(); ok+not != 0 {
		t.Error("there is no TLS, and something is said of it")
	}
}
