package callers

import (
	"context"
	"crypto/sha256"
	"slices"
	"strconv"
	"time"

	"github.com/go-jose/go-jose/v4"
	// This JSON is case-sensitive and refuses an object that has a key twice.
	"github.com/go-jose/go-jose/v4/json"

	"github.com/mandate-sam/mandate"
)

const (
	// maxToken is the longest token that is looked at, in bytes.
	maxToken = 16 << 10

	// assertionLife is the longest life of a caller's own assertion.
	assertionLife = 5 * time.Minute

	maxJTI = 256 // bytes
)

// algorithms are those that a signature may have. None is symmetric: a public
// key is never a shared secret.
var algorithms = []jose.SignatureAlgorithm{jose.RS256, jose.PS256, jose.ES256, jose.EdDSA}

// Token returns the caller that a JWT stands for: one that it has signed itself
// (private_key_jwt, RFC 7523), or one of an issuer that is trusted for it. If
// it is refused, the caller is the one that it names, or "".
func (a *Authenticator) Token(ctx context.Context, raw string) (mandate.CallerID, error) {
	if len(raw) > maxToken {
		return "", refuse("the token is longer than %d bytes", maxToken)
	}
	ix, err := a.current()
	if err != nil {
		return "", err
	}
	hash, now := sha256.Sum256([]byte(raw)), time.Now()
	if id, ok := a.known(hash, ix.epoch, now); ok {
		return id, nil
	}
	j, err := parse(raw)
	if err != nil {
		return "", err
	}
	if is := a.issuers[j.said.Issuer]; is != nil {
		return a.workload(ctx, ix, is, j, hash, now)
	}
	return a.assertion(ctx, ix, j, now)
}

// A token is a JWT that was taken apart. Nothing of it is to be believed
// before the signature was verified.
type token struct {
	*jose.JSONWebSignature
	said claims // by the token's own word
	kid  string
}

// claims are those that every token is judged by.
type claims struct {
	Issuer    string          `json:"iss"`
	Subject   string          `json:"sub"`
	Audience  json.RawMessage `json:"aud"`
	ID        string          `json:"jti"`
	Expires   *number         `json:"exp"`
	IssuedAt  *number         `json:"iat"`
	NotBefore *number         `json:"nbf"`
}

// A number is a time in seconds. RFC 7519 allows fractions.
type number float64

func (n *number) UnmarshalJSON(b []byte) error {
	v, err := strconv.ParseFloat(string(b), 64)
	if err == nil && (v < 0 || v > 1e11) {
		err = strconv.ErrRange
	}
	*n = number(v)
	return err
}

func (n *number) time() time.Time { return time.UnixMilli(int64(*n * 1000)) }

func parse(raw string) (*token, error) {
	jws, err := jose.ParseSignedCompact(raw, algorithms)
	if err != nil {
		return nil, refuse("it is not a JWT signed with RS256, PS256, ES256 or EdDSA")
	}
	t := &token{JSONWebSignature: jws, kid: jws.Signatures[0].Header.KeyID}
	if err := json.Unmarshal(jws.UnsafePayloadWithoutVerification(), &t.said); err != nil {
		return nil, refuse("the claims of the token are malformed")
	}
	return t, nil
}

// times checks that a token is valid now.
func (c *claims) times(now time.Time) error {
	switch {
	case c.Expires == nil || c.IssuedAt == nil:
		return refuse("the token has no exp or no iat")
	case !c.Expires.time().After(now):
		return refuse("the token expired at %s; is the clock right?", c.Expires.time().UTC().Format(time.RFC3339))
	case c.IssuedAt.time().After(now.Add(leeway)):
		return refuse("the token was issued in the future; is the clock right?")
	case c.NotBefore != nil && c.NotBefore.time().After(now.Add(leeway)):
		return refuse("the token is not valid yet; is the clock right?")
	}
	return nil
}

// assertion verifies what a caller has signed itself. It is used up last, when
// nothing else is wrong with it.
func (a *Authenticator) assertion(ctx context.Context, ix *index, t *token, now time.Time) (mandate.CallerID, error) {
	c := &t.said
	if !mandate.Name(c.Issuer) {
		return "", refuse("no configured issuer and no caller has signed the token")
	}
	id := mandate.CallerID(c.Issuer)
	keys := slices.DeleteFunc(slices.Clone(ix.keys[id]), func(k key) bool { return !holder{id, k.expires}.valid(now) })
	if err := t.verify(keys); err != nil {
		return id, err
	}
	var audience string
	switch {
	case c.Subject != c.Issuer:
		return id, refuse("the assertion's sub is not its iss")
	case a.cfg.TokenURL == "":
		return id, refuse("this server takes no assertions: its public_url is not configured")
	case json.Unmarshal(c.Audience, &audience) != nil || audience != a.cfg.TokenURL:
		return id, refuse("the assertion's aud is not the one string %s", a.cfg.TokenURL)
	case c.ID == "" || len(c.ID) > maxJTI:
		return id, refuse("the assertion's jti is missing or too long")
	}
	if err := c.times(now); err != nil {
		return id, err
	}
	if c.Expires.time().Sub(c.IssuedAt.time()) > assertionLife {
		return id, refuse("the assertion lives for more than %v", assertionLife)
	}
	return id, a.cfg.Directory.UseAssertion(ctx, id, c.ID, c.Expires.time())
}

// verify verifies a token with one of a caller's keys: the one that it names,
// or any if it names none.
func (t *token) verify(keys []key) error {
	for _, k := range keys {
		if t.kid != "" && k.KeyID != "" && t.kid != k.KeyID {
			continue
		}
		if fits(k.Key, t.Signatures[0].Header.Algorithm) == nil {
			if _, err := t.Verify(k.Key); err == nil {
				return nil
			}
		}
	}
	return refuse("no key of the caller's has signed the assertion")
}
