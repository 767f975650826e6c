package app

import (
	"cmp"
	"context"
	"crypto/x509"
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/callers"
	outbound "github.com/mandate-sam/mandate/internal/upstream"
	"github.com/mandate-sam/mandate/store"
)

// API configures the callers' door.
type API struct {
	Listener `yaml:",inline"`

	// PublicURL is the origin at which callers know it, such as
	// https://mandate.example.com:8444. An assertion that a caller signs is for
	// PublicURL + /v1/tokens; without one none is taken.
	PublicURL string `yaml:"public_url"`

	// CertificateProxies are the addresses or networks of proxies that end
	// TLS and say in Client-Cert (RFC 9440) which certificate a caller has
	// shown. They must take that header away from whatever a caller sends.
	CertificateProxies []string `yaml:"certificate_proxies"`
}

// Callers says whose word counts for workloads.
type Callers struct {
	Issuers      []Issuer      `yaml:"issuers"`
	TrustDomains []TrustDomain `yaml:"trust_domains"`

	// UserClients are the client IDs for which the ID tokens of partners' users
	// may be that callers send along, beside the applications' own.
	UserClients []string `yaml:"user_clients"`
}

// An Issuer is an OpenID Connect issuer whose tokens may stand for callers.
type Issuer struct {
	Name     string `yaml:"name"`
	Kind     string `yaml:"kind"`     // entra, kubernetes, github or oidc
	Audience string `yaml:"audience"` // of tokens for this broker, and for nothing else

	URL     string `yaml:"url"`      // its tokens' iss; default for entra and github
	KeysURL string `yaml:"keys_url"` // where its keys are; default for entra, github and URL + /openid/v1/jwks of a cluster
	Roots   Path   `yaml:"roots"`    // PEM file of the only certificate authorities that count; default: the system's

	Tenant string `yaml:"tenant"` // of entra
	Cloud  string `yaml:"cloud"`  // of entra; default global
}

// A TrustDomain is a SPIFFE trust domain.
type TrustDomain struct {
	Name   string `yaml:"name"`   // such as mesh.example
	Bundle Path   `yaml:"bundle"` // PEM file of its authorities; read again when it changes
}

const githubIssuer = "https://token.actions.githubusercontent.com"

// tokenPath is the path of our token endpoint.
const tokenPath = "/v1/tokens"

// tokenURL returns the audience of callers' own assertions, or "".
func (a *API) tokenURL() string {
	if a.PublicURL == "" {
		return ""
	}
	return a.PublicURL + tokenPath
}

func (a *API) check() error {
	if err := a.Listener.check("api"); err != nil {
		return err
	}
	if a.PublicURL != "" {
		if err := checkOrigin("api.public_url", a.PublicURL); err != nil {
			return err
		}
	}
	_, err := networks("api.certificate_proxies", a.CertificateProxies)
	return err
}

// networks reads addresses and networks.
func networks(field string, in []string) ([]netip.Prefix, error) {
	c := Config{TrustedProxies: in}
	out, err := c.proxies()
	return out, renamed(field, err)
}

// issuer returns the issuer in the terms of package callers.
func (i *Issuer) issuer(clouds map[string]mandate.Cloud, h *http.Client) (callers.Issuer, error) {
	out := callers.Issuer{Name: i.Name, Kind: i.Kind, URL: i.URL, Audience: i.Audience, KeysURL: i.KeysURL, HTTP: h}
	switch i.Kind {
	case callers.KindEntra:
		tenant, err := mandate.ParseTenantID(i.Tenant)
		if err != nil {
			return out, renamed("tenant", err)
		}
		cloud, ok := clouds[cmp.Or(i.Cloud, "global")]
		if !ok {
			return out, mandate.Invalid("cloud", "%.40q is neither one of Microsoft's (global, usgov, china) nor in clouds", i.Cloud)
		}
		out.URL = cmp.Or(i.URL, strings.Replace(cloud.IssuerV2, "{tenantid}", tenant.String(), 1))
		out.KeysURL = cmp.Or(i.KeysURL, cloud.Authority+"/"+tenant.String()+"/discovery/v2.0/keys")
	case callers.KindGitHub:
		out.URL = cmp.Or(i.URL, githubIssuer)
		out.KeysURL = cmp.Or(i.KeysURL, out.URL+"/.well-known/jwks")
	case callers.KindKubernetes:
		out.KeysURL = cmp.Or(i.KeysURL, strings.TrimRight(i.URL, "/")+"/openid/v1/jwks")
	}
	return out, out.Check()
}

// checkCallers checks whose word counts.
func (c *Config) checkCallers(clouds map[string]mandate.Cloud) error {
	for n := range c.Callers.Issuers {
		if _, err := c.Callers.Issuers[n].issuer(clouds, http.DefaultClient); err != nil {
			return at(fmt.Sprintf("callers.issuers[%d]", n), err)
		}
	}
	if _, err := c.Callers.userClients(); err != nil {
		return renamed("callers.user_clients", err)
	}
	seen := make(map[string]bool)
	for n, d := range c.Callers.TrustDomains {
		if d.Name == "" || d.Bundle == "" || d.Name != strings.ToLower(d.Name) || strings.ContainsAny(d.Name, "/: ") || seen[d.Name] {
			return at(fmt.Sprintf("callers.trust_domains[%d]", n), mandate.Invalid("name", "%.60q must be a trust domain such as mesh.example, there once, and have a bundle", d.Name))
		}
		seen[d.Name] = true
	}
	return nil
}

func (c *Callers) userClients() ([]mandate.AppID, error) {
	var out []mandate.AppID
	for _, s := range c.UserClients {
		id, err := mandate.ParseAppID(s)
		if err != nil {
			return nil, err
		}
		out = append(out, id)
	}
	return out, nil
}

// authenticator makes what tells callers by their tokens and certificates.
func (p *parts) authenticator(c *Config) (*callers.Authenticator, error) {
	cfg := callers.Config{Directory: p.store, TokenURL: c.API.tokenURL()}
	for n := range c.Callers.Issuers {
		i := &c.Callers.Issuers[n]
		h, err := c.issuerClient(i, p)
		if err != nil {
			return nil, fmt.Errorf("callers: issuer %s: %w", i.Name, err)
		}
		issuer, err := i.issuer(p.clouds, h)
		if err != nil {
			return nil, err
		}
		cfg.Issuers = append(cfg.Issuers, issuer)
	}
	domains := make(map[string]*bundle)
	for _, d := range c.Callers.TrustDomains {
		b := &bundle{file: c.file(d.Bundle)}
		if err := addAuthorities(x509.NewCertPool(), b.file); err != nil {
			return nil, fmt.Errorf("callers: trust domain %s: %w", d.Name, err)
		}
		domains[d.Name] = b
	}
	cfg.Trust = func(domain string) *x509.CertPool {
		if b := domains[domain]; b != nil {
			return b.pool()
		}
		return nil
	}
	return callers.New(cfg)
}

// issuerClient returns what asks an issuer for its keys: with the authorities
// that are named, with those of a custom cloud, or with the system's.
func (c *Config) issuerClient(i *Issuer, p *parts) (*http.Client, error) {
	if i.Roots == "" {
		return c.httpClient(p.clouds[cmp.Or(i.Cloud, "global")])
	}
	return c.clientWith(c.file(i.Roots))
}

// clientWith returns a client for which only the authorities of a file count.
func (c *Config) clientWith(file string) (*http.Client, error) {
	own := Config{Clouds: []Cloud{{Name: "issuer", Roots: Path(file)}}}
	h, err := own.httpClient(mandate.Cloud{Name: "issuer", Custom: true})
	if err != nil {
		return nil, err
	}
	return outbound.Direct(h), nil
}

// A bundle is the authorities of a trust domain, read again when the file
// changes. A file that cannot be read leaves the last good one in service.
type bundle struct {
	file string

	mu      sync.Mutex // guards the fields below
	roots   *x509.CertPool
	stamp   time.Time
	checked time.Time
}

func (b *bundle) pool() *x509.CertPool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if time.Since(b.checked) < recheck {
		return b.roots
	}
	b.checked = time.Now()
	st, err := os.Stat(b.file)
	if err != nil || b.roots != nil && st.ModTime().Equal(b.stamp) {
		return b.roots
	}
	roots := x509.NewCertPool()
	if err := addAuthorities(roots, b.file); err == nil {
		b.roots, b.stamp = roots, st.ModTime()
	}
	return b.roots
}

// A register holds the callers for the API: nothing is registered that could
// never be shown here.
type register struct {
	*store.Store
	proofs *callers.Authenticator
}

// Callers implements [api.Callers].
func (r register) Callers(context.Context) ([]mandate.Caller, error) { return r.Store.Callers() }

// Register implements [api.Callers].
func (r register) Register(ctx context.Context, c mandate.Caller) (mandate.Caller, mandate.Secret, error) {
	for i := range c.Credentials {
		if err := r.proofs.Check(&c.Credentials[i]); err != nil {
			return c, mandate.Secret{}, err
		}
	}
	if b := c.Binding.Partner; b != "" {
		if _, err := r.Partner(b); err != nil {
			return c, mandate.Secret{}, renamedBinding(err)
		}
	}
	return r.Store.Register(ctx, c)
}

func renamedBinding(err error) error {
	return mandate.Invalid("binding.partner", "%v", err)
}

// AddCredential implements [api.Callers].
func (r register) AddCredential(ctx context.Context, id mandate.CallerID, c mandate.CallerCredential) (mandate.CallerCredential, mandate.Secret, error) {
	if err := r.proofs.Check(&c); err != nil {
		return c, mandate.Secret{}, err
	}
	return r.Store.AddCredential(ctx, id, c)
}

// User implements [api.Users]: with the client that redeems for the very
// application.
func (u *upstream) User(ctx context.Context, k mandate.GrantKey, raw string) (mandate.Identity, error) {
	c := u.entra[appKey{k.Cloud, k.Application}]
	if c == nil {
		return mandate.Identity{}, fmt.Errorf("application %s in cloud %q is not configured", k.Application, k.Cloud)
	}
	user, err := c.VerifyUser(ctx, raw, k.Partner, u.userClients)
	if err != nil {
		return mandate.Identity{}, err
	}
	return user.Identity, nil
}

// sweepCallers forgets assertions and sessions that have ended, until ctx is
// done.
func (a *App) sweepCallers(ctx context.Context, s *store.Store) error {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for {
		select {
		case now := <-tick.C:
			if err := s.SweepCallers(ctx, now); err != nil && ctx.Err() == nil {
				a.log.Warn("sweep callers", "err", err)
			}
		case <-ctx.Done():
			return nil
		}
	}
}
