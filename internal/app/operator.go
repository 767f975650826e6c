package app

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/api"
	"github.com/mandate-sam/mandate/audit"
	"github.com/mandate-sam/mandate/internal/web"
	"github.com/mandate-sam/mandate/store"
)

func (p *parts) api(a *App, c *Config, o Options, proxies web.Proxies) (*api.Server, error) {
	var apps []api.Application
	for i := range c.Applications {
		id, err := mandate.ParseAppID(c.Applications[i].ClientID)
		if err != nil {
			return nil, err
		}
		app := api.Application{Name: c.Applications[i].Name, Cloud: c.Applications[i].cloud(), ID: id}
		if app.Audiences, err = c.Applications[i].audiences(p.clouds[app.Cloud]); err != nil {
			return nil, err
		}
		apps = append(apps, app)
	}
	r := &registry{p.store, c.Portal.PublicURL}
	proofs, err := p.authenticator(c)
	if err != nil {
		return nil, err
	}
	if p.upstream.userClients, err = c.Callers.userClients(); err != nil {
		return nil, err
	}
	certificates, err := networks("api.certificate_proxies", c.API.CertificateProxies)
	if err != nil {
		return nil, err
	}
	people, err := p.signIns(c)
	if err != nil {
		return nil, err
	}
	metrics, err := p.metrics(a)
	if err != nil {
		return nil, err
	}
	keeper := &custodian{p.store, c, a.db, p.vault, a.broker, a.audit, a.rings}
	return api.New(api.Config{
		Notices: a.notices, Contacts: p.store, Notifier: a.notices,
		Customers: customers{p.store.Customers(), a.broker}, PartnerUsers: p.store, Custodian: keeper, Revoker: revoker{p.store, a.audit}, Credentials: a.rotator, Policies: p.policies, SignIns: people, Approvals: p.store, SecondPerson: c.Operators.SecondPerson, Rules: p.policies, Operators: c.Operators.uids(), Proofs: proofs, Users: p.upstream, CertificateProxies: certificates,
		Broker: a.broker, Authenticator: p.store, Partners: p.store, Registry: r, Tenants: p.upstream, Callers: register{p.store, proofs}, Grants: p.vault,
		Life: guard{a.broker, keeper}, Forecaster: &forecaster{p, a.broker}, Metrics: metrics, Secrets: &sources{a.outside},
		Audit: a.audit, Archive: a.audit, Recorder: a.audit, Epoch: p.epoch, Clouds: p.clouds, Applications: apps,
		Transport: p.upstream.transport(p.clouds), Ready: p.ready, Stopping: a.stopping, TrustedProxies: proxies, Version: o.Version, Log: a.log.With("door", "api"),
	})
}

// ready says why requests cannot be served.
func (p *parts) ready(context.Context) error {
	_, err := p.epoch.Epoch()
	return err
}

// A revoker implements [api.Revoker].
type revoker struct {
	*store.Store
	audit *audit.Log
}

// Alive implements [api.Revoker].
func (r revoker) Alive(ctx context.Context, reach mandate.Reach, now time.Time) (int, time.Time, error) {
	return r.audit.AliveWithin(ctx, reach, now)
}

// A registry gives the API what it asks for out of the store.
type registry struct {
	store     *store.Store
	publicURL string
}

// Partners implements [api.Registry].
func (r *registry) Partners(context.Context) ([]mandate.Partner, error) { return r.store.Partners() }

// Invite implements [api.Registry].
func (r *registry) Invite(ctx context.Context, i api.Invitation) (mandate.Partner, mandate.Secret, error) {
	known, err := r.store.Partner(i.Partner.Name)
	if errors.Is(err, mandate.ErrUnknownPartner) {
		if err = r.store.AddPartner(ctx, i.Partner); err == nil {
			known, err = r.store.Partner(i.Partner.Name)
		}
	}
	if err != nil {
		return known, mandate.Secret{}, err
	}
	if known.Key != i.Partner.Key {
		return known, mandate.Secret{}, fmt.Errorf("%w: partner %q is tenant %s with application %s", mandate.ErrExists, known.Name, known.Key.Partner, known.Key.Application)
	}
	_, token, err := r.store.Invite(ctx, store.Invitation{
		Partner: known, User: i.User, Term: i.Term, Expires: time.Now().Add(i.Expires), By: string(i.By), Compromised: i.Compromised,
	})
	return known, mandate.NewSecret(r.publicURL + "/i/" + token.Reveal()), err
}

// byHost makes each call with the certificate authorities of the host's cloud,
// and calls no host that is not an audience's.
type byHost map[string]http.RoundTripper

// RoundTrip implements [http.RoundTripper].
func (b byHost) RoundTrip(r *http.Request) (*http.Response, error) {
	t, ok := b[r.URL.Host]
	if !ok || r.URL.Scheme != "https" {
		return nil, fmt.Errorf("%s://%s is not an audience of any configured cloud", r.URL.Scheme, r.URL.Host)
	}
	return t.RoundTrip(r)
}

func (u *upstream) transport(clouds map[string]mandate.Cloud) byHost {
	b := make(byHost)
	for name, h := range u.http {
		for _, e := range clouds[name].Audiences {
			if at, err := url.Parse(e.URL); err == nil {
				b[at.Host] = h.Transport
			}
		}
	}
	return b
}
