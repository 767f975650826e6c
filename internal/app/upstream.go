package app

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"slices"
	"time"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/entra"
	"github.com/mandate-sam/mandate/graph"
	"github.com/mandate-sam/mandate/partnercenter"
)

// An appKey names one application in one cloud.
type appKey struct {
	cloud string
	id    mandate.AppID
}

// An upstream is everything that is asked over the network: Entra for each
// application, Partner Center and Graph for each cloud. It implements
// [mandate.Authority], [mandate.Prober] and [mandate.CustomerDirectory].
type upstream struct {
	entra         map[appKey]*entra.Client
	partnercenter map[string]*partnercenter.Client
	graph         map[string]*graph.Client
	http          map[string]*http.Client // by cloud
	audiences     map[string]map[string]mandate.Endpoint
	live          map[string]*liveCredential // by the application's name
	ends          []credentialEnd
	userClients   []mandate.AppID
}

func newUpstream(ctx context.Context, c *Config, o *outside) (*upstream, error) {
	u := &upstream{
		entra: make(map[appKey]*entra.Client), partnercenter: make(map[string]*partnercenter.Client),
		graph: make(map[string]*graph.Client), http: make(map[string]*http.Client),
		audiences: make(map[string]map[string]mandate.Endpoint), live: make(map[string]*liveCredential),
	}
	for i := range c.Applications {
		a := &c.Applications[i]
		if err := u.add(ctx, o, a); err != nil {
			return nil, fmt.Errorf("application %s: %w", a.Name, err)
		}
	}
	return u, nil
}

func (u *upstream) add(ctx context.Context, o *outside, a *Application) error {
	c, cloud := o.config, o.clouds[a.cloud()]
	id, err := mandate.ParseAppID(a.ClientID)
	if err != nil {
		return err
	}
	credential := &liveCredential{outside: o, application: a}
	if err := credential.load(ctx, ""); err != nil {
		return err
	}
	u.live[a.Name] = credential
	u.note(a.Name, credential, a.Credential.expires())
	if err := u.addCloud(c, cloud); err != nil {
		return err
	}
	u.entra[appKey{cloud.Name, id}], err = entra.New(entra.Config{
		Cloud: cloud, Application: id, Version: a.version(), Credential: credential, HTTP: u.http[cloud.Name], Log: o.log,
	})
	return err
}

func (u *upstream) addCloud(c *Config, cloud mandate.Cloud) (err error) {
	if u.http[cloud.Name] != nil {
		return nil
	}
	h, err := c.httpClient(cloud)
	if err != nil {
		return err
	}
	u.http[cloud.Name], u.audiences[cloud.Name] = h, cloud.Audiences
	if u.partnercenter[cloud.Name], err = partnercenter.New(partnercenter.Config{URL: cloud.Audiences[mandate.PartnerCenter].URL, HTTP: h}); err != nil {
		return err
	}
	u.graph[cloud.Name], err = graph.New(graph.Config{URL: cloud.Audiences[mandate.Graph].URL, HTTP: h})
	return err
}

// httpClient returns a client for one cloud's hosts. For a custom cloud only
// the authorities pinned for it count; for Microsoft's the system's do, and
// those of upstream_roots.
func (c *Config) httpClient(cloud mandate.Cloud) (*http.Client, error) {
	roots, err := x509.SystemCertPool()
	if err != nil {
		roots = x509.NewCertPool()
	}
	file := c.file(c.UpstreamRoots)
	if cloud.Custom {
		i := slices.IndexFunc(c.Clouds, func(cc Cloud) bool { return cc.Name == cloud.Name })
		roots, file = x509.NewCertPool(), c.file(c.Clouds[i].Roots)
	}
	if file != "" {
		if err := addAuthorities(roots, file); err != nil {
			return nil, fmt.Errorf("roots: %w", err)
		}
	}
	return &http.Client{
		Timeout: 30 * time.Second,
		Transport: &http.Transport{
			Proxy:                 http.ProxyFromEnvironment,
			DialContext:           (&net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
			TLSClientConfig:       &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
			ForceAttemptHTTP2:     true,
			MaxIdleConnsPerHost:   64,
			IdleConnTimeout:       90 * time.Second,
			TLSHandshakeTimeout:   10 * time.Second,
			ResponseHeaderTimeout: 25 * time.Second,
		},
	}, nil
}

func (u *upstream) client(k mandate.GrantKey) (*entra.Client, error) {
	if c := u.entra[appKey{k.Cloud, k.Application}]; c != nil {
		return c, nil
	}
	return nil, &mandate.Fault{
		Domain: mandate.DomainApplication, Remedy: mandate.RemedyConfigure,
		Description: fmt.Sprintf("application %s in cloud %q is not in the configuration", k.Application, k.Cloud),
	}
}

// Redeem implements [mandate.Authority].
func (u *upstream) Redeem(ctx context.Context, r mandate.Redemption) (mandate.Redeemed, error) {
	c, err := u.client(r.Key)
	if err != nil {
		return mandate.Redeemed{}, err
	}
	return c.Redeem(ctx, r)
}

// RedeemCode implements [mandate.Authority].
func (u *upstream) RedeemCode(ctx context.Context, r mandate.CodeRedemption) (mandate.Redeemed, error) {
	c, err := u.client(r.Key)
	if err != nil {
		return mandate.Redeemed{}, err
	}
	return c.RedeemCode(ctx, r)
}

// Tenant implements [api.Tenants].
func (u *upstream) Tenant(ctx context.Context, k mandate.GrantKey, domain string) (mandate.TenantID, error) {
	c, err := u.client(k)
	if err != nil {
		return mandate.TenantID{}, err
	}
	return c.Tenant(ctx, domain)
}

// MFACompliant implements [mandate.Prober].
func (u *upstream) MFACompliant(ctx context.Context, k mandate.GrantKey, token mandate.Secret) (bool, string, error) {
	return u.partnercenter[k.Cloud].MFACompliant(ctx, token)
}

// AgentGroups implements [mandate.Prober].
func (u *upstream) AgentGroups(ctx context.Context, k mandate.GrantKey, token mandate.Secret) ([]string, error) {
	return u.graph[k.Cloud].AgentGroups(ctx, token)
}
