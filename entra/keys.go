package entra

import (
	"context"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/internal/keyset"
	"github.com/mandate-sam/mandate/internal/upstream"
)

const (
	// keysLife is how long fetched keys are used without asking again.
	keysLife   = 24 * time.Hour
	minKeyBits = 2048
)

// A signingKey is one of Entra's keys and the issuer that it signs for, "" if
// the key does not say. The issuer is Entra's own addition to RFC 7517.
type signingKey struct {
	public *rsa.PublicKey
	issuer string
}

// A keySet is the keys that Entra publishes, fetched when they are needed:
// whoever presents tokens with made-up key ids does not make us ask each time.
type keySet struct {
	http *http.Client
	url  string
	keys *keyset.Set[signingKey]
}

func newKeySet(h *http.Client, url string) *keySet {
	s := &keySet{http: h, url: url}
	s.keys = keyset.New(keysLife, s.download)
	return s
}

// get returns the key with an id. The error is a [*tokenError] if there is no
// such key, and a [*mandate.Fault] if there are no keys at all.
func (s *keySet) get(ctx context.Context, id string) (signingKey, error) {
	key, err := s.keys.Get(ctx, id)
	switch {
	case err == nil:
		return key, nil
	case errors.Is(err, keyset.ErrUnknown):
		return signingKey{}, &tokenError{reason: mandate.ReasonToken, detail: fmt.Sprintf("its key %.40q is not one that Entra publishes", id), unknown: true}
	}
	return signingKey{}, keysFault(err)
}

func keysFault(err error) error {
	return &mandate.Fault{Domain: mandate.DomainTransient, Remedy: mandate.RemedyRetry, Cause: fmt.Errorf("fetch Entra's signing keys: %w", err)}
}

func (s *keySet) download(ctx context.Context) (map[string]signingKey, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", "application/json")
	status, h, body, err := upstream.Do(s.http, req, maxAnswer)
	switch {
	case err != nil:
		return nil, err
	case status != http.StatusOK:
		return nil, fmt.Errorf("status %d", status)
	case !upstream.IsJSON(h):
		return nil, errors.New("the answer is not JSON")
	}
	return parseKeys(body)
}

// parseKeys returns the RSA keys for signatures in a key set. One that cannot
// be used is left out, so that a new kind of key does not take the others away;
// a set with none is an error.
func parseKeys(body []byte) (map[string]signingKey, error) {
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(body, &set); err != nil {
		return nil, errors.New("the key set is not readable JSON")
	}
	keys := make(map[string]signingKey)
	for _, raw := range set.Keys {
		var own struct {
			Issuer string `json:"issuer"`
		}
		var jwk jose.JSONWebKey
		if json.Unmarshal(raw, &own) != nil || jwk.UnmarshalJSON(raw) != nil || jwk.KeyID == "" {
			continue
		}
		if jwk.Use != "" && jwk.Use != "sig" || jwk.Algorithm != "" && jwk.Algorithm != string(jose.RS256) {
			continue
		}
		if key, ok := jwk.Key.(*rsa.PublicKey); ok && key.N.BitLen() >= minKeyBits {
			keys[jwk.KeyID] = signingKey{key, own.Issuer}
		}
	}
	if len(keys) == 0 {
		return nil, errors.New("the key set has no usable key")
	}
	return keys, nil
}
