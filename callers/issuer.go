package callers

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4/json"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/internal/keyset"
	"github.com/mandate-sam/mandate/internal/upstream"
)

// The kinds of [Issuer]. They differ in which claims name a workload for good.
const (
	KindEntra      = "entra"      // an app registration or managed identity: tid and oid
	KindKubernetes = "kubernetes" // a service account's uid
	KindGitHub     = "github"     // a workflow: repository_id
	KindOIDC       = "oidc"       // any other: sub
)

// An Issuer is one whose tokens may stand for callers.
type Issuer struct {
	Name string // by which registrations name it
	Kind string
	URL  string // the iss of its tokens, exactly

	// Audience is what its tokens must be for, and for nothing else: a name
	// that means this broker, and that no other service takes.
	Audience string

	// KeysURL is where it publishes its keys. It is never taken from what
	// somebody presents.
	KeysURL string

	HTTP *http.Client // asks for the keys
}

// pins are the claims that must be pinned for a kind, because nobody can come
// to have another's.
var pins = map[string][]string{
	KindEntra:      {"tid", "oid"},
	KindKubernetes: {serviceAccountUID},
	KindGitHub:     {"repository_id"},
	KindOIDC:       {"sub"},
}

// serviceAccountUID is how the uid in a Kubernetes token's "kubernetes.io"
// claim is written in a registration.
const serviceAccountUID = "kubernetes.io/serviceaccount/uid"

// Check reports the first field that is wrong, as an error wrapping
// [mandate.ErrInvalid].
func (i *Issuer) Check() error {
	switch {
	case !mandate.Name(i.Name):
		return mandate.Invalid("name", "must be a short name of letters, digits, '-', '_' or '.'")
	case pins[i.Kind] == nil:
		return mandate.Invalid("kind", "%.40q is none of entra, kubernetes, github and oidc", i.Kind)
	case i.HTTP == nil:
		return mandate.Invalid("http", "is missing")
	}
	for field, s := range map[string]string{"url": i.URL, "keys_url": i.KeysURL} {
		if u, err := url.Parse(s); err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil || u.Fragment != "" {
			return mandate.Invalid(field, "%.120q must begin with https://", s)
		}
	}
	if strings.Contains(i.URL, "{") || strings.Contains(i.URL, "/common/") || strings.Contains(i.URL, "/organizations/") {
		return mandate.Invalid("url", "must be the issuer of one tenant, exactly as its tokens say")
	}
	return i.checkAudience()
}

// shared are audiences that tokens have for somebody else, or by default. Who
// took one could be shown a token that was meant for another service, which
// that service can replay.
var shared = []string{
	"api://azureadtokenexchange", "api://azureadtokenexchangeusgov", "api://azureadtokenexchangechina",
	"https://kubernetes.default.svc", "https://kubernetes.default.svc.cluster.local", "kubernetes.default.svc", "kubernetes", "kubernetes.default",
	"sts.amazonaws.com", "vault", "api", "default",
	"https://graph.microsoft.com", "00000003-0000-0000-c000-000000000000", "https://management.azure.com", "https://management.core.windows.net",
	"https://vault.azure.net", "https://api.partnercenter.microsoft.com",
}

func (i *Issuer) checkAudience() error {
	a := strings.ToLower(strings.TrimRight(i.Audience, "/"))
	switch {
	case len(a) < 3 || len(a) > 300:
		return mandate.Invalid("audience", "is required: a name that means this broker and nothing else")
	case strings.HasPrefix(a, "https://github.com") || strings.HasPrefix(a, "https://token.actions.githubusercontent.com"):
		return mandate.Invalid("audience", "%.120q is what GitHub's tokens have by default; take one that means this broker and nothing else", i.Audience)
	case a == strings.ToLower(strings.TrimRight(i.URL, "/")):
		return mandate.Invalid("audience", "is the issuer itself, as a cluster's tokens have by default; take one that means this broker and nothing else")
	}
	for _, s := range shared {
		if a == s {
			return mandate.Invalid("audience", "%.120q means another service; take one that means this broker and nothing else", i.Audience)
		}
	}
	return nil
}

// CheckClaims reports what is wrong with the claims that a registration pins.
func (a *Authenticator) CheckClaims(issuer string, claims map[string]string) error {
	is := a.names[issuer]
	if is == nil {
		return mandate.Invalid("issuer", "%.60q is not a name of the configured issuers", issuer)
	}
	if len(claims) > 20 {
		return mandate.Invalid("claims", "are more than 20")
	}
	for name, value := range claims {
		if name == "" || value == "" || len(name) > 200 || len(value) > 500 {
			return mandate.Invalid("claims", "%.60q is empty or too long", name)
		}
	}
	for _, name := range pins[is.Kind] {
		if claims[name] == "" {
			return mandate.Invalid("claims", "must pin %s: it is what names a workload of %s for good", name, issuer)
		}
	}
	return nil
}

// keysLife is how long fetched keys are used without asking again.
const keysLife = time.Hour

// maxKeys is the longest key set that is read, in bytes.
const maxKeys = 1 << 20

// An issuerKey is one of an issuer's keys, and the issuer that it signs for, ""
// if the key does not say. That is Entra's own addition to RFC 7517.
type issuerKey struct {
	public any
	issuer string
}

type issuer struct {
	*Issuer
	keys *keyset.Set[issuerKey]
}

func newIssuer(i *Issuer) *issuer {
	is := &issuer{Issuer: i}
	is.keys = keyset.New(keysLife, is.download)
	return is
}

func (i *issuer) version() uint64 { return i.keys.Version() }

func (i *issuer) download(ctx context.Context) (map[string]issuerKey, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, i.KeysURL, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", "application/json")
	status, _, body, err := upstream.Do(upstream.Direct(i.HTTP), req, maxKeys)
	switch {
	case err != nil:
		return nil, err
	case status != http.StatusOK:
		return nil, fmt.Errorf("status %d", status)
	}
	return parseIssuerKeys(body)
}

// parseIssuerKeys returns the keys for signatures in a key set. One that
// cannot be used is left out, so that a new kind of key does not take the
// others away; a set with none is an error.
func parseIssuerKeys(body []byte) (map[string]issuerKey, error) {
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(body, &set); err != nil {
		return nil, errors.New("the key set is not readable JSON")
	}
	keys := make(map[string]issuerKey)
	for _, raw := range set.Keys {
		var own struct {
			Issuer string `json:"issuer"`
		}
		k, err := parseKey(raw)
		if err != nil || k.KeyID == "" || json.Unmarshal(raw, &own) != nil {
			continue
		}
		keys[k.KeyID] = issuerKey{k.Key, own.Issuer}
	}
	if len(keys) == 0 {
		return nil, errors.New("the key set has no usable key")
	}
	return keys, nil
}

// key returns the key that a token names.
func (i *issuer) key(ctx context.Context, t *token) (issuerKey, error) {
	if t.kid == "" {
		return issuerKey{}, refuse("the token names no key")
	}
	k, err := i.keys.Get(ctx, t.kid)
	switch {
	case errors.Is(err, keyset.ErrUnknown):
		return k, refuse("the token's key is not one that %s publishes", i.Name)
	case err != nil:
		return k, fmt.Errorf("%w: the keys of issuer %s: %w", mandate.ErrUnavailable, i.Name, err)
	}
	return k, fitting(k, t.Signatures[0].Header.Algorithm)
}

func fitting(k issuerKey, algorithm string) error {
	if err := fits(k.public, algorithm); err != nil || algorithm == "" {
		return refuse("the token's algorithm is not one for its key")
	}
	return nil
}
