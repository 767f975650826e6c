package callers

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"net/url"
	"strings"
	"time"

	"github.com/mandate-sam/mandate"
)

// maxChain is how many certificates of a client are looked at.
const maxChain = 5

// Certificate returns the caller that a client certificate stands for, the
// first of chain. That the client has its key must have been proven: by the
// handshake, or to a proxy that is trusted with it.
//
// A certificate that is pinned needs no authority. One with a SPIFFE ID must be
// of an authority of that ID's trust domain.
func (a *Authenticator) Certificate(chain []*x509.Certificate) (mandate.CallerID, error) {
	if len(chain) == 0 || len(chain) > maxChain {
		return "", refuse("there is no client certificate, or too many")
	}
	ix, err := a.current()
	if err != nil {
		return "", err
	}
	leaf, now := chain[0], time.Now()
	hash := sha256.Sum256(leaf.Raw)
	if id, ok := a.known(hash, ix.epoch, now); ok {
		return id, nil
	}
	if now.Before(leaf.NotBefore) || now.After(leaf.NotAfter) {
		return "", refuse("the client certificate is not valid now")
	}
	h, n := one(ix.pinned[hash], now)
	if n == 0 {
		if h, n, err = a.spiffe(ix, chain, now); err != nil {
			return "", err
		}
	}
	if n != 1 {
		return "", refuse("the client certificate is registered for %d callers", n)
	}
	until := leaf.NotAfter
	if !h.expires.IsZero() && h.expires.Before(until) {
		until = h.expires
	}
	a.remember(hash, verified{caller: h.caller, epoch: ix.epoch, until: until}, now)
	return h.caller, nil
}

// spiffe verifies an X.509 SVID: exactly one URI, no authority itself, and of
// an authority of its trust domain.
func (a *Authenticator) spiffe(ix *index, chain []*x509.Certificate, now time.Time) (holder, int, error) {
	leaf := chain[0]
	if len(leaf.URIs) != 1 || leaf.URIs[0].Scheme != "spiffe" || leaf.IsCA || leaf.KeyUsage&(x509.KeyUsageCertSign|x509.KeyUsageCRLSign) != 0 {
		return holder{}, 0, nil
	}
	id := leaf.URIs[0]
	h, n := one(ix.spiffe[id.String()], now)
	if n != 1 {
		return h, n, nil
	}
	var roots *x509.CertPool
	if a.cfg.Trust != nil {
		roots = a.cfg.Trust(id.Host)
	}
	if roots == nil {
		return h, 0, refuse("the trust domain %.100q is not configured", id.Host)
	}
	between := x509.NewCertPool()
	for _, c := range chain[1:] {
		between.AddCert(c)
	}
	if _, err := leaf.Verify(x509.VerifyOptions{
		Roots: roots, Intermediates: between, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}); err != nil {
		return h, 0, refuse("the client certificate is of no authority of %.100q", id.Host)
	}
	return h, n, nil
}

// CheckSPIFFE reports what is wrong with a SPIFFE ID, and whether its trust
// domain is known.
func (a *Authenticator) CheckSPIFFE(id string) error {
	u, err := url.Parse(id)
	if err != nil || u.Scheme != "spiffe" || u.Host == "" || u.Port() != "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" ||
		len(u.Path) < 2 || strings.HasSuffix(u.Path, "/") || len(id) > 2048 || id != u.String() || u.Host != strings.ToLower(u.Host) {
		return mandate.Invalid("spiffe", "%.100q is not of the form spiffe://trust-domain/path", id)
	}
	if a.cfg.Trust == nil || a.cfg.Trust(u.Host) == nil {
		return mandate.Invalid("spiffe", "the trust domain %.100q is not configured", u.Host)
	}
	return nil
}

// ParseCertificate returns the pin of a certificate in PEM form, or of a hex
// SHA-256 with or without colons. The error wraps [mandate.ErrInvalid].
func ParseCertificate(text string) (mandate.CallerCredential, error) {
	c := mandate.CallerCredential{Kind: mandate.CredentialCertificate}
	if block, _ := pem.Decode([]byte(text)); block != nil {
		if _, err := x509.ParseCertificate(block.Bytes); err != nil || block.Type != "CERTIFICATE" {
			return c, mandate.Invalid("certificate", "is not a certificate in PEM form")
		}
		sum := sha256.Sum256(block.Bytes)
		c.Certificate = hex.EncodeToString(sum[:])
		return c, nil
	}
	b, err := hex.DecodeString(strings.ReplaceAll(strings.TrimSpace(text), ":", ""))
	if err != nil || len(b) != sha256.Size {
		return c, mandate.Invalid("certificate", "is neither a certificate in PEM form nor a SHA-256 in hexadecimal digits")
	}
	c.Certificate = hex.EncodeToString(b)
	return c, nil
}
