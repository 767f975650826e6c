package entra

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/internal/privatefile"
)

// maxFederated is the longest token of another issuer, in bytes.
const maxFederated = 16 << 10

// A Source gives the token of another issuer that Entra takes in place of a
// credential, and its end. It is asked for every request, so it remembers what
// is costly; a token that has ended is an error.
type Source func(context.Context) (token mandate.Secret, until time.Time, err error)

// A Federated credential authenticates by the token of another issuer, such as
// a Kubernetes cluster or the managed identity of the machine ("Workload
// identity federation"). There is nothing to keep secret and nothing to
// rotate.
type Federated struct{ source Source }

// NewFederated returns the credential for a source.
func NewFederated(s Source) *Federated { return &Federated{s} }

// Check reports whether there is a token now.
func (f *Federated) Check(ctx context.Context) error {
	return f.Authenticate(ctx, url.Values{}, mandate.AppID{}, "", time.Now())
}

// Authenticate implements [Credential].
func (f *Federated) Authenticate(ctx context.Context, form url.Values, _ mandate.AppID, _ string, _ time.Time) error {
	ctx, cancel := context.WithTimeout(ctx, signTimeout)
	defer cancel()
	token, until, err := f.source(ctx)
	if err != nil {
		return fmt.Errorf("federated credential: %w", err)
	}
	if !time.Now().Before(until) {
		return mandate.Invalid("federated credential", "the token expired at %s", until.UTC().Format(time.RFC3339))
	}
	form.Set("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer")
	form.Set("client_assertion", token.Reveal())
	return nil
}

// TokenFile returns the source whose token is in a file that somebody else
// renews, as Kubernetes does for a service account. The file is read for every
// request: reading costs less than knowing whether it has changed. Nobody but
// its owner may write it; that others in the pod may read it is how Kubernetes
// makes it.
func TokenFile(path string) Source {
	return func(context.Context) (mandate.Secret, time.Time, error) {
		b, mode, err := privatefile.Read(path, maxFederated)
		if err != nil {
			return mandate.Secret{}, time.Time{}, mandate.Invalid("token_file", "%v", err)
		}
		if mode.Perm()&0o022 != 0 {
			return mandate.Secret{}, time.Time{}, mandate.Invalid("token_file", "%s has mode %#o; others must not write it: chmod 644 %s", path, mode.Perm(), path)
		}
		raw := strings.TrimSpace(string(b))
		until, ok := expiry(raw)
		if !ok {
			return mandate.Secret{}, time.Time{}, mandate.Invalid("token_file", "%s has no JWT with an expiry in it", path)
		}
		if !time.Now().Before(until) {
			return mandate.Secret{}, time.Time{}, mandate.Invalid("token_file", "the token in %s expired at %s: what renews that file, such as the kubelet, has stopped", path, until.UTC().Format(time.RFC3339))
		}
		return mandate.NewSecret(raw), until, nil
	}
}

// expiry returns when a JWT ends. Nothing is verified: Entra does that.
func expiry(jwt string) (time.Time, bool) {
	parts := strings.Split(jwt, ".")
	if len(parts) != 3 {
		return time.Time{}, false
	}
	b, err := base64.RawURLEncoding.DecodeString(parts[1])
	var claims struct {
		Expires json.Number `json:"exp"`
	}
	if err != nil || json.Unmarshal(b, &claims) != nil {
		return time.Time{}, false
	}
	exp, err := claims.Expires.Float64()
	if err != nil || exp < 1 || exp > 1e11 {
		return time.Time{}, false
	}
	return time.Unix(int64(exp), 0), true
}
