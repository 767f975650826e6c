// Package token makes and checks what the emulator hands out: signed tokens,
// and refresh tokens with the ledger that numbers them.
package token

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

// A Key signs tokens with RS256, as Entra does.
type Key struct {
	private *rsa.PrivateKey
	der     []byte // its self-signed certificate

	// ID is both kid and x5t: the base64url SHA-1 of the certificate.
	ID string
}

// NewKey makes a key. It lives in memory only.
func NewKey() (*Key, error) {
	private, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return nil, fmt.Errorf("generate signing key: %w", err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: "Emulator token signing"},
		// Entra's are valid for five years. This one is so in both directions,
		// since the emulator's clock can be moved.
		NotBefore: time.Now().AddDate(-5, 0, 0),
		NotAfter:  time.Now().AddDate(5, 0, 0),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		return nil, fmt.Errorf("certify signing key: %w", err)
	}
	sum := sha1.Sum(der)
	return &Key{private: private, der: der, ID: base64.RawURLEncoding.EncodeToString(sum[:])}, nil
}

// JWK is one key of a key set in the shape that Entra publishes.
type JWK struct {
	Kty    string   `json:"kty"`
	Use    string   `json:"use"`
	Kid    string   `json:"kid"`
	X5t    string   `json:"x5t"`
	N      string   `json:"n"`
	E      string   `json:"e"`
	X5c    []string `json:"x5c"`
	Issuer string   `json:"issuer,omitempty"` // v2 key sets only
}

// JWK returns the public key. The issuer is empty in v1 key sets.
func (k *Key) JWK(issuer string) JWK {
	return JWK{
		Kty: "RSA", Use: "sig", Kid: k.ID, X5t: k.ID,
		N:      base64.RawURLEncoding.EncodeToString(k.private.N.Bytes()),
		E:      base64.RawURLEncoding.EncodeToString(big.NewInt(int64(k.private.E)).Bytes()),
		X5c:    []string{base64.StdEncoding.EncodeToString(k.der)},
		Issuer: issuer,
	}
}

// Sign returns the claims as a signed token. v1 adds x5t to the header, as
// tokens of that version have it.
func (k *Key) Sign(claims map[string]any, v1 bool) (string, error) {
	return k.SignAs(k.ID, claims, v1)
}

// SignAs is Sign with another kid, which is a lie.
func (k *Key) SignAs(kid string, claims map[string]any, v1 bool) (string, error) {
	opts := (&jose.SignerOptions{}).WithType("JWT").WithHeader("kid", kid)
	if v1 {
		opts = opts.WithHeader("x5t", kid)
	}
	return sign(jose.SigningKey{Algorithm: jose.RS256, Key: k.private}, opts, claims)
}

// SignHMAC returns the claims signed with a shared secret, which no honest
// issuer does. The key's id is in the header all the same.
func (k *Key) SignHMAC(secret string, claims map[string]any) (string, error) {
	padded := make([]byte, max(32, len(secret)))
	copy(padded, secret)
	opts := (&jose.SignerOptions{}).WithType("JWT").WithHeader("kid", k.ID)
	return sign(jose.SigningKey{Algorithm: jose.HS256, Key: padded}, opts, claims)
}

func sign(key jose.SigningKey, opts *jose.SignerOptions, claims map[string]any) (string, error) {
	signer, err := jose.NewSigner(key, opts)
	if err != nil {
		return "", fmt.Errorf("make signer: %w", err)
	}
	return jwt.Signed(signer).Claims(claims).Serialize()
}

// Unsigned returns the claims with alg none and an empty signature.
func Unsigned(claims map[string]any) (string, error) {
	body, err := json.Marshal(claims)
	if err != nil {
		return "", fmt.Errorf("encode claims: %w", err)
	}
	enc := base64.RawURLEncoding.EncodeToString
	return enc([]byte(`{"typ":"JWT","alg":"none"}`)) + "." + enc(body) + ".", nil
}

// Claims are what the emulated services read in an access token.
type Claims struct {
	Audience string   `json:"aud"`
	Expiry   int64    `json:"exp"`
	Begins   int64    `json:"nbf"`
	IssuedAt int64    `json:"iat"`
	Tenant   string   `json:"tid"`
	Subject  string   `json:"sub"`
	App      string   `json:"appid"`
	User     string   `json:"oid"`
	Scope    string   `json:"scp"`
	Type     string   `json:"idtyp"`
	AMR      []string `json:"amr"`
	UPN      string   `json:"upn"`
	Roles    []string `json:"roles"`

	// Capabilities holds "CP1" if the client answers claims challenges.
	Capabilities []string `json:"xms_cc"`

	// IssuedMicro is IssuedAt in microseconds, a claim of the emulator's own: it
	// tells a token issued just before a revocation from one issued just after.
	IssuedMicro int64 `json:"xms_emulator_iat"`

	// Methods is amr in tokens for the APIs of applications, a claim of the
	// emulator's own: what is issued on behalf of the user inherits it, though
	// the format of the token or a dial leaves amr out.
	Methods []string `json:"xms_emulator_amr"`

	ACRs []string `json:"acrs"`
}

// ErrInvalid is returned for a token that is not ours or has expired.
var ErrInvalid = errors.New("token is not valid")

// ErrExpired is the [ErrInvalid] of a token that was good once.
var ErrExpired = fmt.Errorf("%w: it has expired", ErrInvalid)

// skew is by how much a token's nbf may be ahead of the clock that reads it.
const skew = 5 * time.Minute

// Verify checks signature, expiry and nbf of an access token.
func (k *Key) Verify(raw string, now time.Time) (Claims, error) {
	var c Claims
	t, err := jwt.ParseSigned(raw, []jose.SignatureAlgorithm{jose.RS256})
	if err != nil {
		return c, fmt.Errorf("%w: %v", ErrInvalid, err)
	}
	if err := t.Claims(&k.private.PublicKey, &c); err != nil {
		return c, fmt.Errorf("%w: %v", ErrInvalid, err)
	}
	if now.Unix() >= c.Expiry {
		return c, ErrExpired
	}
	if now.Add(skew).Unix() < c.Begins {
		return c, fmt.Errorf("%w: it is not yet in force", ErrInvalid)
	}
	return c, nil
}
