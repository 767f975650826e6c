package callers

import (
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"math/big"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/mandate-sam/mandate"
)

// issue makes a certificate of parent's, or one that signs itself.
func issue(change func(*x509.Certificate), parent *x509.Certificate, signer crypto.Signer) *x509.Certificate {
	template := &x509.Certificate{
		SerialNumber: big.NewInt(serial.Add(1)), Subject: pkix.Name{CommonName: "x"},
		NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, BasicConstraintsValid: true,
	}
	change(template)
	public := ecKey().Public()
	if parent == nil {
		parent, public = template, signer.Public()
	}
	return must(x509.ParseCertificate(must(x509.CreateCertificate(rand.Reader, template, parent, public, signer))))
}

func authority(c *x509.Certificate) {
	c.IsCA, c.KeyUsage, c.ExtKeyUsage = true, x509.KeyUsageCertSign, nil
}

func svid(ids ...string) func(*x509.Certificate) {
	return func(c *x509.Certificate) {
		for _, id := range ids {
			c.URIs = append(c.URIs, must(url.Parse(id)))
		}
	}
}

func TestCallerCertificate(t *testing.T) {
	ca, evil := issue(authority, nil, ecKey()), issue(authority, nil, rsaKey())
	between := issue(authority, ca, ecKey())
	pinned := issue(func(*x509.Certificate) {}, nil, ecKey())
	early := issue(func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Minute) }, nil, ecKey())
	pin := func(c *x509.Certificate) mandate.CallerCredential {
		sum := sha256.Sum256(c.Raw)
		return mandate.CallerCredential{Kind: mandate.CredentialCertificate, Certificate: hex.EncodeToString(sum[:])}
	}
	w := newWorld(t, caller("pinned", pin(pinned)), caller("early", pin(early)),
		caller("mesh", mandate.CallerCredential{Kind: mandate.CredentialSPIFFE, SPIFFE: "spiffe://mesh.example/billing"}),
		caller("far", mandate.CallerCredential{Kind: mandate.CredentialSPIFFE, SPIFFE: "spiffe://far.example/billing"}))
	w.cfg.Trust = func(domain string) *x509.CertPool {
		if domain != "mesh.example" {
			return nil
		}
		pool := x509.NewCertPool()
		pool.AddCert(ca)
		return pool
	}
	const id = "spiffe://mesh.example/billing"
	for want, chain := range map[string][]*x509.Certificate{
		"pinned": {pinned}, "mesh": {issue(svid(id), between, ecKey()), between},
	} {
		for range 2 {
			if got, err := w.Certificate(chain); string(got) != want || err != nil {
				t.Errorf("got %q, %v, want %q", got, err, want)
			}
		}
	}
	for what, chain := range map[string][]*x509.Certificate{
		"none":                nil,
		"the wrong authority": {issue(svid(id), evil, rsaKey())},
		"its own authority":   {issue(svid(id), nil, rsaKey())},
		"two ids":             {issue(svid(id, "spiffe://mesh.example/other"), ca, ecKey())},
		"another id":          {issue(svid("spiffe://mesh.example/billing/x"), ca, ecKey())},
		"another domain":      {issue(svid("spiffe://far.example/billing"), ca, ecKey())},
		"an authority":        {issue(func(c *x509.Certificate) { svid(id)(c); authority(c) }, ca, ecKey())},
		"a server's":          {issue(func(c *x509.Certificate) { svid(id)(c); c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }, ca, ecKey())},
		"an authority that says it signs nothing":    {issue(func(c *x509.Certificate) { svid(id)(c); c.IsCA = true }, ca, ecKey())},
		"one that signs and says it is no authority": {issue(func(c *x509.Certificate) { svid(id)(c); c.KeyUsage |= x509.KeyUsageCRLSign }, ca, ecKey())},
		"one to come":              {issue(func(c *x509.Certificate) { svid(id)(c); c.NotBefore = time.Now().Add(time.Minute) }, ca, ecKey())},
		"a pinned one to come":     {early},
		"an expired one":           {issue(func(c *x509.Certificate) { svid(id)(c); c.NotAfter = time.Now().Add(-time.Second) }, ca, ecKey())},
		"a name and no id":         {issue(func(c *x509.Certificate) { c.Subject.CommonName = id }, ca, ecKey())},
		"more than anybody needs":  {pinned, pinned, pinned, pinned, pinned, pinned},
		"the pinned one as issuer": {issue(func(*x509.Certificate) {}, nil, ecKey()), pinned},
	} {
		if got, err := w.Certificate(chain); !errors.Is(err, mandate.ErrUnauthenticated) {
			t.Errorf("%s: got %q, error %v, want %v", what, got, err, mandate.ErrUnauthenticated)
		}
	}
	// A trust domain that is not configured must not mean every authority that
	// the machine trusts.
	if _, err := w.Certificate([]*x509.Certificate{issue(svid("spiffe://far.example/billing"), ca, ecKey())}); err == nil || !strings.Contains(err.Error(), "is not configured") {
		t.Errorf("of a domain that is not configured: %v", err)
	}
	w.dir.change()
	if got, err := w.Certificate([]*x509.Certificate{pinned}); !errors.Is(err, mandate.ErrUnauthenticated) {
		t.Errorf("after the caller was removed: got %q, error %v", got, err)
	}
	for id, good := range map[string]bool{
		"spiffe://mesh.example/a": true, "spiffe://mesh.example": false, "spiffe://mesh.example/": false, "spiffe://far.example/a": false,
		"https://mesh.example/a": false, "spiffe://mesh.example/a?b": false, "spiffe://mesh.example:1/a": false, "spiffe://Mesh.example/a": false, "": false,
	} {
		if err := w.CheckSPIFFE(id); (err == nil) != good {
			t.Errorf("%q: %v", id, err)
		}
	}
}

// A pinned certificate ends, though no authority says so.
func TestCallerCertificateExpires(t *testing.T) {
	ecKey()
	rsaKey()
	synctest.Test(t, func(t *testing.T) {
		c := issue(func(c *x509.Certificate) { c.NotAfter = time.Now().Add(30 * time.Second) }, nil, ecKey())
		pin := must(ParseCertificate(string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}))))
		w := newWorld(t, caller("a", pin))
		if id, err := w.Certificate([]*x509.Certificate{c}); id != "a" || err != nil {
			t.Fatal(id, err)
		}
		time.Sleep(31 * time.Second)
		if id, err := w.Certificate([]*x509.Certificate{c}); !errors.Is(err, mandate.ErrUnauthenticated) {
			t.Errorf("after its end: got %q, %v", id, err)
		}
	})
}

// A registration has its own end, which may come before the certificate's or
// after it.
func TestCallerCertificateRegistrationEnds(t *testing.T) {
	ecKey()
	rsaKey()
	synctest.Test(t, func(t *testing.T) {
		for what, ends := range map[string][2]time.Duration{"the registration": {30 * time.Second, time.Hour}, "the certificate": {time.Hour, 30 * time.Second}} {
			c := issue(func(c *x509.Certificate) { c.NotAfter = time.Now().Add(ends[1]) }, nil, ecKey())
			pin := must(ParseCertificate(string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}))))
			pin.Expires = time.Now().Add(ends[0])
			w := newWorld(t, caller("a", pin))
			if id, err := w.Certificate([]*x509.Certificate{c}); id != "a" || err != nil {
				t.Fatal(id, err)
			}
			time.Sleep(31 * time.Second)
			if id, err := w.Certificate([]*x509.Certificate{c}); !errors.Is(err, mandate.ErrUnauthenticated) {
				t.Errorf("after the end of %s: got %q, %v", what, id, err)
			}
		}
	})
}

// Each part of the form is needed, though the trust domain be configured.
func TestCallerSPIFFEForm(t *testing.T) {
	w := newWorld(t)
	w.cfg.Trust = func(string) *x509.CertPool { return x509.NewCertPool() }
	for id, good := range map[string]bool{
		"spiffe://mesh.example/a": true, "https://mesh.example/a": false, "spiffe:///a": false, "spiffe://mesh.example:1/a": false, "spiffe://u@mesh.example/a": false,
		"spiffe://mesh.example/a?b": false, "spiffe://mesh.example/a#b": false, "spiffe://mesh.example": false, "spiffe://mesh.example/a/": false,
		"spiffe://mesh.example/" + strings.Repeat("a", 2048): false, "spiffe://mesh.example/ä": false, "spiffe://Mesh.example/a": false,
	} {
		if err := w.CheckSPIFFE(id); (err == nil) != good {
			t.Errorf("%.60q: %v", id, err)
		}
	}
	if _, err := ParseCertificate(string(pem.EncodeToMemory(&pem.Block{Type: "TRUSTED CERTIFICATE", Bytes: issue(func(*x509.Certificate) {}, nil, ecKey()).Raw}))); !errors.Is(err, mandate.ErrInvalid) {
		t.Errorf("another kind of PEM: %v", err)
	}
}

func TestCallerParseKeys(t *testing.T) {
	spki := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: must(x509.MarshalPKIXPublicKey(ecKey().Public()))})
	one := must(json.Marshal(jwk("a", rsaKey().Public(), nil)))
	set := must(json.Marshal(map[string]any{"keys": []any{jwk("a", rsaKey().Public(), nil), jwk("b", edKey.Public(), nil)}}))
	cert := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: issue(func(*x509.Certificate) {}, nil, ecKey()).Raw})
	for n, in := range map[int][]byte{1: one, 2: set, 3: append(append(append([]byte{}, spki...), spki...), cert...)} {
		if got, err := ParseKeys(in); err != nil || len(got) != n {
			t.Errorf("got %d keys, %v, want %d", len(got), err, n)
		}
	}
	private := must(jose.JSONWebKey{Key: rsaKey()}.MarshalJSON())
	secret := must(jose.JSONWebKey{Key: []byte("shared")}.MarshalJSON())
	for what, in := range map[string][]byte{
		"private": private, "a shared secret": secret, "nothing": nil, "text": []byte("hello"), "an empty set": []byte(`{"keys":[]}`),
		"a private PEM": pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: must(x509.MarshalPKCS8PrivateKey(ecKey()))}),
		"too much":      []byte(strings.Repeat(" ", 70<<10) + string(one)),
		"for another":   must(json.Marshal(jwk("a", rsaKey().Public(), map[string]any{"use": "enc"}))),
		"RS384":         must(json.Marshal(jwk("a", rsaKey().Public(), map[string]any{"alg": "RS384"}))),
	} {
		if _, err := ParseKeys(in); !errors.Is(err, mandate.ErrInvalid) {
			t.Errorf("%s: got error %v, want %v", what, err, mandate.ErrInvalid)
		}
	}
}
