package entra

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"math/big"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"software.sslmate.com/src/go-pkcs12"

	"github.com/mandate-sam/mandate"
)

const pfxPassword = "CANARY-password"

// pfx returns a PFX file's text with a certificate for the test's key.
func pfx(t *testing.T, e *pkcs12.Encoder, password string, until time.Time, others ...[]byte) string {
	t.Helper()
	cert := must(x509.ParseCertificate(testCertificate(testKey(), until)))
	var chain []*x509.Certificate
	for _, der := range others {
		chain = append(chain, must(x509.ParseCertificate(der)))
	}
	return string(must(e.Encode(testKey(), cert, chain, password)))
}

func TestLoadPFX(t *testing.T) {
	year := time.Now().AddDate(1, 0, 0)
	issuer := testCertificate(otherKey(), year)
	password := file(t, 0o600, pfxPassword, "\r\n")
	for name, tt := range map[string]struct{ text, password string }{
		"modern":      {pfx(t, pkcs12.Modern, pfxPassword, year), password},
		"of Windows":  {pfx(t, pkcs12.LegacyDES, pfxPassword, year), password},
		"old":         {pfx(t, pkcs12.LegacyRC2, pfxPassword, year), password},
		"with chain":  {pfx(t, pkcs12.Modern, pfxPassword, year, issuer), password},
		"no password": {pfx(t, pkcs12.Modern, "", year), ""},
		"of passless": {pfx(t, pkcs12.Passwordless, "", year), ""},
	} {
		path := file(t, 0o600, tt.text)
		c, err := LoadPFX(path, tt.password)
		if err != nil || !IsPFX(path) {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if tok, err := jwt.ParseSigned(assertionOf(t, c, "u"), []jose.SignatureAlgorithm{jose.PS256}); err != nil || tok.Claims(&testKey().PublicKey, &jwt.Claims{}) != nil {
			t.Errorf("%s: the assertion does not verify", name)
		}
		if !c.NotAfter().Equal(year.Truncate(time.Second)) {
			t.Errorf("%s: expires %v, want %v", name, c.NotAfter(), year)
		}
		cert, key, err := LoadPair(tt.password, path)
		if err != nil || !key.Equal(testKey()) || !cert.NotAfter.Equal(c.NotAfter()) {
			t.Errorf("%s as a pair: %v", name, err)
		}
	}
	// A chain in the wrong order.
	wrong := string(must(pkcs12.Modern.Encode(testKey(), must(x509.ParseCertificate(issuer)), []*x509.Certificate{must(x509.ParseCertificate(testCertificate(testKey(), year)))}, pfxPassword)))
	if _, err := LoadPFX(file(t, 0o600, wrong), password); err != nil {
		t.Errorf("the issuer first: %v", err)
	}
}

func TestLoadPFXRefuses(t *testing.T) {
	year, past := time.Now().AddDate(1, 0, 0), time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
	good := pfx(t, pkcs12.Modern, pfxPassword, year)
	password := file(t, 0o600, pfxPassword)
	ec := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: year}
	ecCert := must(x509.ParseCertificate(must(x509.CreateCertificate(rand.Reader, template, template, ec.Public(), ec))))
	other := must(x509.ParseCertificate(testCertificate(otherKey(), year)))
	for _, tt := range []struct{ name, text, password, says string }{
		{"wrong password", good, file(t, 0o600, "CANARY"), "is not the PFX file's: the operator corrects it"},
		{"no password", good, "", "the operator puts it into a file and names that as password_file"},
		{"readable password", good, file(t, 0o644, pfxPassword), "chmod 600"},
		{"long password", good, file(t, 0o600, strings.Repeat("CANARY", 1000)), "longer"},
		{"absent password", good, "/nowhere", "no such file"},
		{"expired", pfx(t, pkcs12.Modern, pfxPassword, past), password, "expired on 2026-03-04"},
		{"EC", string(must(pkcs12.Modern.Encode(ec, ecCert, nil, pfxPassword))), password, "registers a certificate with an RSA key"},
		{"key of others", string(must(pkcs12.Modern.Encode(testKey(), other, nil, pfxPassword))), password, "names the key that it was made for"},
		{"no key", string(must(pkcs12.Modern.EncodeTrustStore([]*x509.Certificate{other}, pfxPassword))), password, "the operator exports it again"},
		{"cut short", good[:len(good)/2], password, "not readable"},
		{"no PFX", "0CANARY", password, "not readable"},
		{"long", strings.Repeat("0", maxPEM+1), password, "longer"},
	} {
		_, err := LoadPFX(file(t, 0o600, tt.text), tt.password)
		if err == nil || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s: got %v, want %q", tt.name, err, tt.says)
			continue
		}
		if !errors.Is(err, mandate.ErrInvalid) && !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: %v says that waiting helps", tt.name, err)
		}
		noCanary(t, err)
	}
	if _, err := LoadPFX(file(t, 0o640, good), password); err == nil || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("a readable file: %v", err)
	}
	if IsPFX(file(t, 0o600, pemOf("CERTIFICATE", testCertificate(testKey(), year)))) || IsPFX("/nowhere") || IsPFX(file(t, 0o600)) {
		t.Error("everything is a PFX file")
	}
}

func TestLoadPair(t *testing.T) {
	year := time.Now().AddDate(1, 0, 0)
	der := testCertificate(testKey(), year)
	cert, key := file(t, 0o644, pemOf("CERTIFICATE", der)), file(t, 0o600, pemOf("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(testKey())))
	c, k, err := LoadPair("", cert, key)
	if err != nil || !bytes.Equal(c.Raw, der) || !k.Equal(testKey()) {
		t.Errorf("got %v", err)
	}
	if _, _, err := LoadPair("", cert); err == nil || !strings.Contains(err.Error(), "no private key") {
		t.Errorf("without a key: %v", err)
	}
	if got, err := LoadCertificateDER(cert); err != nil || !bytes.Equal(got, der) {
		t.Errorf("certificate alone: %v", err)
	}
	for path, says := range map[string]string{key: "no certificate", "/nowhere": "no such file"} {
		if _, err := LoadCertificateDER(path); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: got %v, want %q", path, err, says)
		}
	}
}
