package entra

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/url"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"

	"github.com/mandate-sam/mandate"
)

// A Signer holds the private key of a certificate: a file, a key vault or a
// token.
type Signer interface {
	// Sign returns the RSASSA-PSS signature of a SHA-256 digest, with MGF1
	// SHA-256 and a salt of 32 bytes: PS256 in RFC 7518, section 3.5.
	Sign(ctx context.Context, digest []byte) ([]byte, error)

	// CertificateDER returns the certificate that was registered with Entra.
	CertificateDER() []byte
}

const (
	// assertionLife is from an assertion's nbf to its exp; Microsoft
	// recommends five to ten minutes.
	assertionLife = 10 * time.Minute

	// assertionSkew is how long before now an assertion begins to be valid,
	// so that Entra accepts it although its clock is behind ours.
	assertionSkew = time.Minute

	// assertionMargin is how long an assertion must still be valid to be used
	// again: the time of a request, and Entra's clock ahead of ours.
	assertionMargin = 2 * time.Minute

	// maxAssertions bounds the cache; there is one for each token endpoint,
	// which means for each tenant.
	maxAssertions = 10_000

	// signTimeout bounds one signature by a remote signer.
	signTimeout = 15 * time.Second
)

// A Certificate authenticates by a JWT that the certificate's key has signed
// (RFC 7523), as Microsoft's "certificate credentials" describes it. An RSA
// signature costs about a millisecond, or a call to a key vault, so an
// assertion is used again for the same endpoint until shortly before its end.
type Certificate struct {
	signer Signer
	cert   *x509.Certificate
	header string // of every assertion, encoded
	flight singleflight.Group

	mu    sync.Mutex // guards cache
	cache map[assertionKey]assertion
}

type assertionKey struct {
	client   mandate.AppID
	tokenURL string
}

type assertion struct {
	jwt   mandate.Secret
	until time.Time // exp; without a monotonic reading, as Entra compares it with a wall clock
}

// NewCertificate returns the credential for a signer. The error, which wraps
// [mandate.ErrInvalid], says why its certificate cannot be used: it is not RSA,
// is shorter than 2048 bits or has expired.
func NewCertificate(s Signer) (*Certificate, error) {
	cert, err := checkCertificate(s.CertificateDER(), time.Now())
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(cert.Raw)
	header, err := encode(map[string]string{"alg": "PS256", "typ": "JWT", "x5t#S256": base64.RawURLEncoding.EncodeToString(sum[:])})
	return &Certificate{signer: s, cert: cert, header: header, cache: make(map[assertionKey]assertion)}, err
}

func checkCertificate(der []byte, now time.Time) (*x509.Certificate, error) {
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, mandate.Invalid("certificate", "is not readable: %v", err)
	}
	switch key, ok := cert.PublicKey.(*rsa.PublicKey); {
	case !ok:
		return nil, mandate.Invalid("certificate", "has a key of type %v; Entra takes RSA only", cert.PublicKeyAlgorithm)
	case key.N.BitLen() < 2048:
		return nil, mandate.Invalid("certificate", "has an RSA key of %d bits; at least 2048 are needed", key.N.BitLen())
	case now.After(cert.NotAfter):
		return nil, mandate.Invalid("certificate", "expired on %s", cert.NotAfter.UTC().Format(time.DateOnly))
	}
	return cert, nil
}

// NotAfter returns when the certificate expires.
func (c *Certificate) NotAfter() time.Time { return c.cert.NotAfter }

// Authenticate implements [Credential].
func (c *Certificate) Authenticate(ctx context.Context, form url.Values, client mandate.AppID, tokenURL string, now time.Time) error {
	jwt, err := c.assertion(ctx, assertionKey{client, tokenURL}, now)
	if err != nil {
		return fmt.Errorf("sign client assertion: %w", err)
	}
	form.Set("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer")
	form.Set("client_assertion", jwt.Reveal())
	return nil
}

// assertion returns a cached assertion, or signs one for everybody who waits.
// The signature outlives the caller that began it, so that one who hangs up
// fails nobody else.
func (c *Certificate) assertion(ctx context.Context, k assertionKey, now time.Time) (mandate.Secret, error) {
	if jwt, ok := c.cached(k, now); ok {
		return jwt, nil
	}
	done := c.flight.DoChan(k.client.String()+" "+k.tokenURL, func() (any, error) {
		if jwt, ok := c.cached(k, now); ok {
			return jwt, nil
		}
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), signTimeout)
		defer cancel()
		return c.sign(ctx, k, now)
	})
	select {
	case <-ctx.Done():
		return mandate.Secret{}, ctx.Err()
	case r := <-done:
		if r.Err != nil {
			return mandate.Secret{}, r.Err
		}
		return r.Val.(mandate.Secret), nil
	}
}

// cached returns the assertion of before, unless it is nearly over, or has not
// begun because the clock was wrong by which it was made.
func (c *Certificate) cached(k assertionKey, now time.Time) (mandate.Secret, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	a, ok := c.cache[k]
	left := a.until.Sub(now.Round(0))
	return a.jwt, ok && left > assertionMargin && left <= assertionLife
}

// claims are those of a client assertion. Its audience is the endpoint that it
// is sent to, so that it is of no use at another.
type assertionClaims struct {
	Audience  string `json:"aud"`
	Issuer    string `json:"iss"`
	Subject   string `json:"sub"`
	ID        string `json:"jti"`
	NotBefore int64  `json:"nbf"`
	IssuedAt  int64  `json:"iat"`
	Expires   int64  `json:"exp"`
}

func (c *Certificate) sign(ctx context.Context, k assertionKey, now time.Time) (mandate.Secret, error) {
	if now.After(c.cert.NotAfter) {
		return mandate.Secret{}, mandate.Invalid("certificate", "expired on %s", c.cert.NotAfter.UTC().Format(time.DateOnly))
	}
	from := now.Round(0).Add(-assertionSkew).Truncate(time.Second)
	until := from.Add(assertionLife)
	body, err := encode(assertionClaims{
		Audience: k.tokenURL, Issuer: k.client.String(), Subject: k.client.String(), ID: rand.Text(),
		NotBefore: from.Unix(), IssuedAt: now.Unix(), Expires: until.Unix(),
	})
	if err != nil {
		return mandate.Secret{}, err
	}
	digest := sha256.Sum256([]byte(c.header + "." + body))
	sig, err := c.signer.Sign(ctx, digest[:])
	if err != nil {
		return mandate.Secret{}, err
	}
	jwt := mandate.NewSecret(c.header + "." + body + "." + base64.RawURLEncoding.EncodeToString(sig))
	c.keep(k, assertion{jwt, until}, now)
	return jwt, nil
}

// keep stores an assertion. A full cache first forgets what has expired and
// then, if it must, everything: assertions can be made again.
func (c *Certificate) keep(k assertionKey, a assertion, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.cache) >= maxAssertions {
		for k, a := range c.cache {
			if !a.until.After(now.Round(0)) {
				delete(c.cache, k)
			}
		}
	}
	if len(c.cache) >= maxAssertions {
		clear(c.cache)
	}
	c.cache[k] = a
}

// encode returns v as a segment of a JWT (RFC 7515, section 2).
func encode(v any) (string, error) {
	b, err := json.Marshal(v)
	return base64.RawURLEncoding.EncodeToString(b), err
}
