package entra

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"math/big"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"github.com/google/go-cmp/cmp"

	"github.com/mandate-sam/mandate"
)

// A countingSigner signs and counts; hold and err are its dials.
type countingSigner struct {
	fileSigner
	hold chan struct{}
	err  error

	mu sync.Mutex // guards n
	n  int
}

func (s *countingSigner) Sign(ctx context.Context, digest []byte) ([]byte, error) {
	s.mu.Lock()
	s.n++
	s.mu.Unlock()
	if s.hold != nil {
		<-s.hold
	}
	if s.err != nil {
		return nil, s.err
	}
	return s.fileSigner.Sign(ctx, digest)
}

func newSigner(until time.Time) *countingSigner {
	return &countingSigner{fileSigner: fileSigner{der: testCertificate(testKey(), until), key: testKey()}}
}

func assertionOf(t *testing.T, c *Certificate, tokenURL string) string {
	t.Helper()
	form := url.Values{}
	if err := c.Authenticate(ctx(), form, app, tokenURL, time.Now()); err != nil {
		t.Fatal(err)
	}
	if got := form.Get("client_assertion_type"); got != "urn:ietf:params:oauth:client-assertion-type:jwt-bearer" || len(form) != 2 {
		t.Errorf("form %v", form)
	}
	return form.Get("client_assertion")
}

// An independent implementation accepts the assertion and finds in it what
// Microsoft's "certificate credentials" asks for.
func TestAssertion(t *testing.T) {
	s := newSigner(time.Now().AddDate(1, 0, 0))
	c := must(NewCertificate(s))
	raw := assertionOf(t, c, authority+"/x")
	tok, err := jwt.ParseSigned(raw, []jose.SignatureAlgorithm{jose.PS256})
	if err != nil {
		t.Fatal(err)
	}
	h := tok.Headers[0]
	if h.ExtraHeaders["x5t#S256"] != thumbprint(s.der) || h.ExtraHeaders["typ"] != "JWT" {
		t.Errorf("header %+v, want the thumbprint %s", h, thumbprint(s.der))
	}
	var got jwt.Claims
	if err := tok.Claims(&testKey().PublicKey, &got); err != nil {
		t.Fatal(err)
	}
	if err := got.ValidateWithLeeway(jwt.Expected{Issuer: appID, Subject: appID, AnyAudience: jwt.Audience{authority + "/x"}, Time: time.Now()}, 0); err != nil {
		t.Error(err)
	}
	now := time.Now()
	if len(got.Audience) != 1 || len(got.ID) < 20 || got.Expiry.Time().Sub(got.NotBefore.Time()) != 10*time.Minute {
		t.Errorf("claims %+v", got)
	}
	if d := now.Sub(got.NotBefore.Time()); d < assertionSkew || d > assertionSkew+3*time.Second {
		t.Errorf("valid since %v, want %v", d, assertionSkew)
	}
	if d := now.Sub(got.IssuedAt.Time()); d < 0 || d > 3*time.Second {
		t.Errorf("issued %v ago", d)
	}
}

func TestAssertionIsCached(t *testing.T) {
	testKey()
	synctest.Test(t, func(t *testing.T) {
		s := newSigner(time.Now().AddDate(1, 0, 0))
		c := must(NewCertificate(s))
		one := assertionOf(t, c, "https://one.test")
		for range 100 {
			if assertionOf(t, c, "https://one.test") != one {
				t.Fatal("another assertion for the same endpoint")
			}
		}
		if s.n != 1 {
			t.Errorf("%d signatures for 100 calls, want 1", s.n)
		}
		if assertionOf(t, c, "https://two.test") == one {
			t.Error("the same assertion for another endpoint")
		}
		form := url.Values{}
		c.Authenticate(ctx(), form, must(mandate.ParseAppID(userID)), "https://one.test", time.Now())
		if form.Get("client_assertion") == one {
			t.Error("the same assertion for another application")
		}
		life := assertionLife - assertionSkew - assertionMargin
		time.Sleep(life - 2*time.Second)
		if assertionOf(t, c, "https://one.test") != one {
			t.Error("renewed too early")
		}
		time.Sleep(3 * time.Second)
		next := assertionOf(t, c, "https://one.test")
		if next == one {
			t.Error("not renewed before the margin")
		}
		if assertionOf(t, c, "https://one.test") != next {
			t.Error("the renewed one is not cached")
		}
	})
}

// All who wait share one signature, and one who hangs up harms nobody.
func TestAssertionIsSignedOnce(t *testing.T) {
	testKey()
	synctest.Test(t, func(t *testing.T) {
		s := newSigner(time.Now().AddDate(1, 0, 0))
		s.hold = make(chan struct{})
		c := must(NewCertificate(s))
		first, hangUp := withCancel()
		var wg sync.WaitGroup
		wg.Go(func() {
			if err := c.Authenticate(first, url.Values{}, app, "https://one.test", time.Now()); !errors.Is(err, context.Canceled) {
				t.Errorf("who hung up got %v", err)
			}
		})
		synctest.Wait()
		for range 20 {
			wg.Go(func() { assertionOf(t, c, "https://one.test") })
		}
		synctest.Wait()
		hangUp()
		synctest.Wait()
		close(s.hold)
		wg.Wait()
		if s.n != 1 {
			t.Errorf("%d signatures, want 1", s.n)
		}
	})
}

func TestAssertionCacheIsBounded(t *testing.T) {
	c := must(NewCertificate(newSigner(time.Now().AddDate(1, 0, 0))))
	now := time.Now()
	for i := range maxAssertions {
		until := now.Add(time.Hour)
		if i < 10 {
			until = now.Add(-time.Second)
		}
		c.cache[assertionKey{app, string(rune(i))}] = assertion{until: until}
	}
	n := len(c.cache)
	for range maxAssertions - n { // surrogates collide
		c.cache[assertionKey{app, rand.Text()}] = assertion{until: now.Add(time.Hour)}
	}
	assertionOf(t, c, "https://one.test")
	if got := len(c.cache); got != maxAssertions-10+1 {
		t.Errorf("%d assertions are kept, want only the expired gone", got)
	}
	for range 10 {
		assertionOf(t, c, rand.Text())
	}
	if got := len(c.cache); got > maxAssertions {
		t.Errorf("%d assertions are kept, want at most %d", got, maxAssertions)
	}
}

func TestCertificateFaults(t *testing.T) {
	testKey()
	synctest.Test(t, func(t *testing.T) {
		s := newSigner(time.Now().AddDate(0, 0, 1))
		f := newFake()
		f.body = answerV2(nil)
		c := must(New(Config{Cloud: testCloud(), Application: app, Credential: must(NewCertificate(s)), HTTP: &http.Client{Transport: f}}))
		if _, err := c.Redeem(ctx(), redemption(partner)); err != nil {
			t.Fatal(err)
		}
		if f.forms[0].Get("client_assertion") == "" || f.forms[0].Has("client_secret") {
			t.Errorf("form %v", f.forms[0])
		}
		tok := must(jwt.ParseSigned(f.forms[0].Get("client_assertion"), []jose.SignatureAlgorithm{jose.PS256}))
		var claims jwt.Claims
		if err := tok.Claims(&testKey().PublicKey, &claims); err != nil || claims.Audience[0] != authority+"/"+partnerID+"/oauth2/v2.0/token" {
			t.Errorf("audience %v, %v", claims.Audience, err)
		}

		s.err = errors.New("the vault is down")
		time.Sleep(time.Hour)
		_, err := c.Redeem(ctx(), redemption(partner))
		if got := wantFault(t, err); got.Domain != application || got.Remedy != mandate.RemedyRetry || !errors.Is(err, s.err) {
			t.Errorf("signer down: %+v", got)
		}
		s.err = nil
		time.Sleep(24 * time.Hour)
		_, err = c.Redeem(ctx(), redemption(partner))
		if got := wantFault(t, err); got.Domain != application || got.Remedy != mandate.RemedyCredential || !strings.Contains(err.Error(), "expired on 2000-01-02") {
			t.Errorf("certificate expired: %v", err)
		}
		gone, hangUp := withCancel()
		hangUp()
		_, err = c.Redeem(gone, redemption(partner))
		if got := wantFault(t, err); got.Domain != transient {
			t.Errorf("caller gone: %+v", got)
		}
		if len(f.forms) != 1 {
			t.Errorf("%d requests, want 1", len(f.forms))
		}
	})
}

func TestSecret(t *testing.T) {
	for value, says := range map[string]string{
		"":                                      "empty",
		strings.Repeat("x", 1<<10):              "",
		strings.Repeat("x", 1+1<<10):            "longer",
		"aaaaaaaa-BBBB-4ccc-8ddd-eeeeeeeeee01":  "this is the secret's id, not its value",
		"aaaaaaaa-bbbb-4ccc-8ddd-eeeeeeeeee01x": "",
		canarySecret:                            "",
	} {
		_, err := NewSecret(mandate.NewSecret(value))
		if says == "" && err != nil || says != "" && (!errors.Is(err, mandate.ErrInvalid) || !strings.Contains(err.Error(), says)) {
			t.Errorf("NewSecret of %d bytes: %v, want %q", len(value), err, says)
		}
	}
}

// file writes a file with a mode, whatever the umask.
func file(t *testing.T, mode os.FileMode, text ...string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "f")
	if err := errors.Join(os.WriteFile(path, []byte(strings.Join(text, "")), 0o600), os.Chmod(path, mode)); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestLoadSecret(t *testing.T) {
	form := url.Values{}
	s, err := LoadSecret(file(t, 0o400, canarySecret+"\r\n"))
	if err != nil {
		t.Fatal(err)
	}
	s.Authenticate(ctx(), form, app, "", time.Now())
	if d := cmp.Diff(url.Values{"client_secret": {canarySecret}}, form); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
	for _, tt := range []struct{ path, says string }{
		{file(t, 0o640, canarySecret), "chmod 600"},
		{file(t, 0o604, canarySecret), "chmod 600"},
		{file(t, 0o700, canarySecret), "chmod 600"},
		{file(t, 0o600, "\n"), "empty"},
		{file(t, 0o600, strings.Repeat("CANARY", 1000)), "longer"},
		{file(t, 0o600, appID), "secret's id"},
		{t.TempDir(), "not a regular file"},
		{"/nowhere", "no such file"},
	} {
		_, err := LoadSecret(tt.path)
		if err == nil || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("got %v, want %q", err, tt.says)
			continue
		}
		noCanary(t, err)
	}
}

func pemOf(kind string, der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}

func TestLoadCertificate(t *testing.T) {
	year := time.Now().AddDate(1, 0, 0)
	cert := pemOf("CERTIFICATE", testCertificate(testKey(), year))
	issuer := pemOf("CERTIFICATE", testCertificate(otherKey(), year))
	pkcs1 := pemOf("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(testKey()))
	pkcs8 := pemOf("PRIVATE KEY", must(x509.MarshalPKCS8PrivateKey(testKey())))
	other := pemOf("PRIVATE KEY", must(x509.MarshalPKCS8PrivateKey(otherKey())))
	ec := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	ecKey := pemOf("PRIVATE KEY", must(x509.MarshalPKCS8PrivateKey(ec)))
	ecCert := pemOf("CERTIFICATE", must(x509.CreateCertificate(rand.Reader, &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: year}, &x509.Certificate{SerialNumber: big.NewInt(1)}, ec.Public(), ec)))
	past := time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)

	for name, paths := range map[string][]string{
		"one file":             {file(t, 0o600, cert, pkcs8)},
		"key first":            {file(t, 0o400, pkcs1, cert)},
		"two files":            {file(t, 0o644, cert), file(t, 0o600, pkcs1)},
		"with a chain":         {file(t, 0o600, cert, issuer, pkcs8)},
		"with something other": {file(t, 0o600, "text\n", pemOf("DH PARAMETERS", []byte("x")), cert, pkcs8)},
	} {
		c, err := LoadCertificate(paths...)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if tok, err := jwt.ParseSigned(assertionOf(t, c, "u"), []jose.SignatureAlgorithm{jose.PS256}); err != nil || tok.Claims(&testKey().PublicKey, &jwt.Claims{}) != nil {
			t.Errorf("%s: the assertion does not verify", name)
		}
		if !c.NotAfter().Equal(year.Truncate(time.Second)) {
			t.Errorf("%s: expires %v, want %v", name, c.NotAfter(), year)
		}
	}
	for _, tt := range []struct {
		name  string
		paths []string
		says  string
	}{
		{"no file", nil, "no certificate"},
		{"no certificate", []string{file(t, 0o600, pkcs8)}, "no certificate"},
		{"no key", []string{file(t, 0o600, cert)}, "no private key"},
		{"key of others", []string{file(t, 0o600, cert, other)}, "does not belong"},
		{"two keys", []string{file(t, 0o600, cert, pkcs8, other)}, "more than one"},
		{"readable key", []string{file(t, 0o644, cert, pkcs8)}, "chmod 600"},
		{"readable key beside", []string{file(t, 0o644, cert), file(t, 0o640, pkcs1)}, "chmod 600"},
		{"expired", []string{file(t, 0o600, pemOf("CERTIFICATE", testCertificate(testKey(), past)), pkcs8)}, "expired on 2026-03-04"},
		{"EC", []string{file(t, 0o600, ecCert, ecKey)}, "RSA only"},
		{"EC certificate", []string{file(t, 0o600, ecCert, pkcs8)}, "RSA only"},
		{"SEC1", []string{file(t, 0o600, cert, pemOf("EC PRIVATE KEY", []byte("x")))}, "EC PRIVATE KEY"},
		{"encrypted", []string{file(t, 0o600, cert, pemOf("ENCRYPTED PRIVATE KEY", []byte("x")))}, "ENCRYPTED"},
		{"broken key", []string{file(t, 0o600, cert, pemOf("PRIVATE KEY", []byte("CANARY")))}, "not readable"},
		{"broken certificate", []string{file(t, 0o600, pemOf("CERTIFICATE", []byte("x")), pkcs8)}, "not readable"},
		{"long", []string{file(t, 0o600, strings.Repeat("x", maxPEM+1))}, "longer"},
		{"missing", []string{"/nowhere"}, "no such file"},
	} {
		if _, err := LoadCertificate(tt.paths...); err == nil || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s: got %v, want %q", tt.name, err, tt.says)
		}
	}
}

func TestShortKey(t *testing.T) {
	t.Setenv("GODEBUG", "rsa1024min=0")
	k := must(rsa.GenerateKey(rand.Reader, 1024))
	_, err := NewCertificate(&fileSigner{der: testCertificate(k, time.Now().AddDate(1, 0, 0)), key: k})
	if err == nil || !strings.Contains(err.Error(), "2048") {
		t.Errorf("a key of 1024 bits: %v", err)
	}
}
