// Package entra speaks Microsoft Entra's dialect of OAuth 2.0 and OpenID
// Connect: it builds authorize URLs, redeems codes and refresh tokens, verifies
// ID tokens and says what Entra's errors mean.
//
// Every host comes from the [mandate.Cloud] that the client was made with,
// never from downloaded metadata; no redirect is followed and no answer is read
// beyond its limit. Nothing is ever sent twice: Entra may have replaced a
// refresh token although its answer was lost, so whether to try again is for
// the caller, who knows what is stored. Only what Entra refused to look at,
// because our clock was wrong, is sent again by Entra's.
package entra

import (
	"cmp"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/internal/upstream"
)

// A Version is one of Entra's two generations of endpoints. They differ in how
// an API is named, in the types of the answer and in what an ID token says.
type Version string

// The versions. Tokens of v1 are asked for with the parameter "resource", those
// of v2 with "scope".
const (
	V1 Version = "v1"
	V2 Version = "v2"
)

// leeway is how far Entra's clock and ours may be apart.
const leeway = 5 * time.Minute

// A Config says which application talks to which cloud.
type Config struct {
	Cloud       mandate.Cloud // must pass [mandate.Cloud.Check]
	Application mandate.AppID // the client ID
	Version     Version       // zero means V2
	Credential  Credential    // proves to Entra that we are the application

	// HTTP makes the requests. Its redirect policy and cookie jar are not
	// used: a credential must not follow a redirect. A zero Timeout means 30
	// seconds.
	HTTP *http.Client

	// Log is told when this host's clock and Entra's differ. Nil discards.
	Log *slog.Logger
}

// A Client is one application in one cloud. It implements
// [mandate.Authority] and may be used by many goroutines.
type Client struct {
	cfg   Config
	http  *http.Client
	keys  *keySet
	clock *clock
}

var _ mandate.Authority = (*Client)(nil)

// New returns a client for cfg, or an error wrapping [mandate.ErrInvalid]. It
// starts nothing and asks nobody.
func New(cfg Config) (*Client, error) {
	if cfg.Version == "" {
		cfg.Version = V2
	}
	switch {
	case cfg.Version != V1 && cfg.Version != V2:
		return nil, mandate.Invalid("version", "%.20q is neither %q nor %q", cfg.Version, V1, V2)
	case cfg.Application.IsZero():
		return nil, mandate.Invalid("application", "is missing")
	case cfg.Credential == nil:
		return nil, mandate.Invalid("credential", "is missing")
	case cfg.HTTP == nil:
		return nil, mandate.Invalid("http", "is missing")
	}
	if err := cfg.Cloud.Check(); err != nil {
		return nil, err
	}
	cfg.Log = cmp.Or(cfg.Log, slog.New(slog.DiscardHandler))
	h := upstream.Direct(cfg.HTTP)
	return &Client{cfg: cfg, http: h, keys: newKeySet(h, keysURL(cfg)), clock: &clock{log: cfg.Log}}, nil
}

// endpoint returns the URL of "authorize" or "token" for a tenant.
func (c *Client) endpoint(tenant mandate.TenantID, name string) string {
	path := "/oauth2/v2.0/"
	if c.cfg.Version == V1 {
		path = "/oauth2/"
	}
	return c.cfg.Cloud.Authority + "/" + tenant.String() + path + name
}

// keysURL returns where Entra publishes the keys that sign ID tokens. The keys
// are the same for all tenants.
func keysURL(cfg Config) string {
	if cfg.Version == V1 {
		return cfg.Cloud.Authority + "/common/discovery/keys"
	}
	return cfg.Cloud.Authority + "/common/discovery/v2.0/keys"
}

// issuer returns the issuer of the ID tokens of a tenant.
func (c *Client) issuer(tenant mandate.TenantID) string {
	if c.cfg.Version == V1 {
		return fill(c.cfg.Cloud.IssuerV1, tenant)
	}
	return fill(c.cfg.Cloud.IssuerV2, tenant)
}

// fill puts a tenant into an issuer template of Entra's.
func fill(template string, tenant mandate.TenantID) string {
	return strings.Replace(template, "{tenantid}", tenant.String(), 1)
}
