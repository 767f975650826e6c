package entra

import (
	"context"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
	"golang.org/x/sync/singleflight"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/internal/upstream"
)

const (
	// keysLife is how long fetched keys are used without asking again, and
	// keysPause the shortest time between two requests: whoever presents
	// tokens with made-up key ids must not make us ask Entra each time. With
	// no keys at all we ask again after keysRetry.
	keysLife  = 24 * time.Hour
	keysPause = time.Minute
	keysRetry = 5 * time.Second

	keysTimeout = 10 * time.Second
	minKeyBits  = 2048
)

// A signingKey is one of Entra's keys and the issuer that it signs for, "" if
// the key does not say. The issuer is Entra's own addition to RFC 7517.
type signingKey struct {
	public *rsa.PublicKey
	issuer string
}

// A keySet is the keys that Entra publishes, fetched when they are needed.
type keySet struct {
	http   *http.Client
	url    string
	flight singleflight.Group

	mu      sync.Mutex // guards what follows
	keys    map[string]signingKey
	fetched time.Time // when keys came
	asked   time.Time // when the last request began
	asking  bool      // it is still under way
}

func newKeySet(h *http.Client, url string) *keySet { return &keySet{http: h, url: url} }

// get returns the key with an id. The error is a [*tokenError] if there is no
// such key, and a [*mandate.Fault] if there are no keys at all.
func (s *keySet) get(ctx context.Context, id string) (signingKey, error) {
	key, ok, ask := s.lookup(id)
	if ask {
		if err := s.refresh(ctx); err != nil && !ok {
			return signingKey{}, err
		}
		key, ok, _ = s.lookup(id)
	}
	if !ok {
		return signingKey{}, s.missing(id)
	}
	return key, nil
}

// lookup returns the key with an id, and whether Entra should and may be asked:
// because the keys are old or the id is unknown, and the last request is long
// enough ago or is still to be answered.
func (s *keySet) lookup(id string) (key signingKey, ok, ask bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	key, ok = s.keys[id]
	pause := keysPause
	if len(s.keys) == 0 {
		pause = keysRetry
	}
	stale := time.Since(s.fetched) >= keysLife
	return key, ok, !ok && s.asking || (!ok || stale) && time.Since(s.asked) >= pause
}

func (s *keySet) missing(id string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.keys) == 0 {
		return keysFault(errors.New("the last request failed"))
	}
	return &tokenError{reason: mandate.ReasonToken, detail: fmt.Sprintf("its key %.40q is not one that Entra publishes", id), unknown: true}
}

// refresh fetches the keys once for everybody who waits; one who hangs up harms
// nobody else.
func (s *keySet) refresh(ctx context.Context) error {
	done := s.flight.DoChan("", func() (any, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), keysTimeout)
		defer cancel()
		return nil, s.fetch(ctx)
	})
	select {
	case <-ctx.Done():
		return keysFault(ctx.Err())
	case r := <-done:
		return r.Err
	}
}

// fetch replaces the keys by those that Entra publishes now. If it fails the
// old ones stay: an outage of Entra's must not become one of ours.
func (s *keySet) fetch(ctx context.Context) error {
	if !s.begin() {
		return nil
	}
	keys, err := s.download(ctx)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asking = false
	if err != nil {
		return keysFault(err)
	}
	s.keys, s.fetched = keys, time.Now()
	return nil
}

// begin notes a request, or says that one was made just now: by a flight that
// ended between somebody's look-up and this one.
func (s *keySet) begin() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if time.Since(s.asked) < keysRetry {
		return false
	}
	s.asked, s.asking = time.Now(), true
	return true
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
