package store

import (
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"

	"github.com/mandate-sam/mandate"
)

// A Proof shows that a browser is the one that began a sign-in: 256 random
// bits in a cookie for that sign-in only. State, nonce and PKCE verifier are
// derived from it, and the database has only its hash: whoever reads the
// database can neither finish a sign-in nor redeem its code.
type Proof struct{ text mandate.Secret }

// NewProof returns a fresh proof.
func NewProof() Proof {
	b := make([]byte, sha256.Size)
	rand.Read(b)
	return Proof{mandate.NewSecret(base64.RawURLEncoding.EncodeToString(b))}
}

// ParseProof returns the proof in a cookie's value; the error wraps
// [mandate.ErrInvalid].
func ParseProof(cookie string) (Proof, error) {
	b, err := base64.RawURLEncoding.Strict().DecodeString(cookie)
	if err != nil || len(b) != sha256.Size {
		return Proof{}, mandate.Invalid("cookie", "is not one of ours")
	}
	return Proof{mandate.NewSecret(base64.RawURLEncoding.EncodeToString(b))}, nil
}

// Cookie returns the value for the browser to keep.
func (p Proof) Cookie() mandate.Secret { return p.text }

// IsZero reports whether p is the zero Proof, which proves nothing.
func (p Proof) IsZero() bool { return p.text.IsZero() }

// Hash returns what is stored.
func (p Proof) Hash() [sha256.Size]byte { return sha256.Sum256([]byte(p.text.Reveal())) }

// Verifier returns the PKCE code verifier (RFC 7636): 43 characters.
func (p Proof) Verifier() mandate.Secret { return mandate.NewSecret(p.derive("pkce")) }

// Challenge returns the PKCE code challenge, by the method S256.
func (p Proof) Challenge() string {
	sum := sha256.Sum256([]byte(p.derive("pkce")))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// Nonce returns what the ID token must carry.
func (p Proof) Nonce() string { return p.derive("nonce") }

// State returns what the answer must bring along with the cookie.
func (p Proof) State() string { return p.derive("state") }

// Fits reports whether state is the one of this sign-in. An empty one never
// is.
func (p Proof) Fits(state string) bool {
	return state != "" && !p.IsZero() && subtle.ConstantTimeCompare([]byte(state), []byte(p.State())) == 1
}

// derive returns 256 bits which tell nothing of the proof, nor of one another.
func (p Proof) derive(use string) string {
	b, err := hkdf.Key(sha256.New, []byte(p.text.Reveal()), nil, "mandate sign-in 1: "+use, sha256.Size)
	if err != nil {
		panic(err) // only for keys of more than 255 hashes
	}
	return base64.RawURLEncoding.EncodeToString(b)
}
