package entra

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"math/big"
	"net/url"
	"strings"
	"time"

	"github.com/mandate-sam/mandate"
)

// With returns a client that differs from c in its credential alone.
func (c *Client) With(credential Credential) *Client {
	other := *c
	other.cfg.Credential = credential
	return &other
}

// Own returns an access token of the application's own, for nobody's user: the
// client credentials grant of RFC 6749, section 4.4, at a tenant that the
// application is installed in. The error is a [*mandate.Fault]. It is how a
// credential can be tried without touching any grant.
func (c *Client) Own(ctx context.Context, tenant mandate.TenantID, a mandate.Audience) (mandate.Secret, error) {
	if tenant.IsZero() || !isScope(string(a)) {
		return mandate.Secret{}, configure(mandate.DomainApplication, "no tenant or no API is named")
	}
	form := url.Values{"grant_type": {"client_credentials"}}
	if c.cfg.Version == V1 {
		form.Set("resource", string(a))
	} else {
		form.Set("scope", strings.TrimSuffix(string(a), "/")+"/.default")
	}
	out, err := c.ask(ctx, tenant, a, form, false)
	return out.Access, err
}

// A PKCS1Signer makes the signatures that Graph wants of whoever changes an
// application's certificates.
type PKCS1Signer interface {
	// SignPKCS1 returns the RSASSA-PKCS1-v1_5 signature of a SHA-256 digest:
	// RS256 in RFC 7518, section 3.3.
	SignPKCS1(ctx context.Context, digest []byte) ([]byte, error)
}

// proofAudience is the audience of proofs of possession, whatever the cloud.
const proofAudience = "00000002-0000-0000-c000-000000000000"

// Proof returns a proof of possession of the certificate's key, which Graph's
// addKey and removeKey want ("Generate proof of possession tokens for rolling
// keys"). object is the object ID of the registration.
func (c *Certificate) Proof(ctx context.Context, object string) (mandate.Secret, error) {
	signer, ok := c.signer.(PKCS1Signer)
	if !ok {
		return mandate.Secret{}, errors.New("where the certificate's key is, it makes no RS256 signatures, which Graph wants")
	}
	sum := sha256.Sum256(c.cert.Raw)
	header, err := encode(map[string]string{"alg": "RS256", "typ": "JWT", "x5t#S256": base64.RawURLEncoding.EncodeToString(sum[:]), "x5t": c.x5t()})
	if err != nil {
		return mandate.Secret{}, err
	}
	from := time.Now().Round(0).Add(-assertionSkew).Truncate(time.Second)
	body, err := encode(map[string]any{"aud": proofAudience, "iss": object, "nbf": from.Unix(), "exp": from.Add(assertionLife).Unix()})
	if err != nil {
		return mandate.Secret{}, err
	}
	digest := sha256.Sum256([]byte(header + "." + body))
	ctx, cancel := context.WithTimeout(ctx, signTimeout)
	defer cancel()
	sig, err := signer.SignPKCS1(ctx, digest[:])
	if err != nil {
		return mandate.Secret{}, err
	}
	return mandate.NewSecret(header + "." + body + "." + base64.RawURLEncoding.EncodeToString(sig)), nil
}

func (c *Certificate) x5t() string {
	sum := sha1.Sum(c.cert.Raw)
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// DER returns the certificate.
func (c *Certificate) DER() []byte { return c.cert.Raw }

// ID returns the thumbprint of the certificate as Entra's portal shows it. It
// is no secret.
func (c *Certificate) ID() string { return Thumbprint(c.cert.Raw) }

// Thumbprint returns that of a certificate, as Entra's portal shows it.
func Thumbprint(der []byte) string {
	sum := sha1.Sum(der)
	return strings.ToUpper(hex.EncodeToString(sum[:]))
}

// ID tells this secret from others by the hash of it, which is of no use to
// guess a secret of Entra's making.
func (s *Secret) ID() string {
	sum := sha256.Sum256([]byte("mandate client secret\x00" + s.value.Reveal()))
	return hex.EncodeToString(sum[:10])
}

// hintLength is how much of a secret Entra shows, to tell it from others.
const hintLength = 3

// Hint returns what Entra shows of the secret.
func (s *Secret) Hint() string {
	v := s.value.Reveal()
	return v[:min(hintLength, len(v))]
}

// keyBits is the size of keys that are made here, as Key Vault makes them.
const keyBits = 2048

// GenerateCertificate makes an RSA key and a certificate for it that it has
// signed itself, as an application's usually is, and returns both in PEM form.
// What it returns first is no secret, and the second is nothing but.
func GenerateCertificate(name string, life time.Duration) (der []byte, pair mandate.Secret, err error) {
	key, err := rsa.GenerateKey(rand.Reader, keyBits)
	if err != nil {
		return nil, mandate.Secret{}, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, mandate.Secret{}, err
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: name}, KeyUsage: x509.KeyUsageDigitalSignature,
		NotBefore: now.Add(-5 * time.Minute), NotAfter: now.Add(life),
	}
	if der, err = x509.CreateCertificate(rand.Reader, template, template, key.Public(), key); err != nil {
		return nil, mandate.Secret{}, err
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, mandate.Secret{}, err
	}
	text := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})) +
		string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}))
	return der, mandate.NewSecret(text), nil
}
