package app

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/internal/metrics"
	"github.com/mandate-sam/mandate/store"
)

// EndSessions implements [mandate.Sessions].
func (u *upstream) EndSessions(ctx context.Context, k mandate.GrantKey, token mandate.Secret) error {
	return u.graph[k.Cloud].EndSessions(ctx, token)
}

// A forecaster implements [api.Forecaster]: what the broker knows of grants,
// and what else ends.
type forecaster struct {
	*parts
	broker *mandate.Broker
}

// Forecast implements [api.Forecaster].
func (f *forecaster) Forecast(ctx context.Context) ([]mandate.Trouble, error) {
	now := time.Now()
	partners, err := f.store.Partners()
	if err != nil {
		return nil, err
	}
	names := make(map[mandate.GrantKey]string, len(partners))
	for _, p := range partners {
		names[p.Key] = p.Name
	}
	all, err := f.broker.Forecast(ctx, func(k mandate.GrantKey) string { return names[k] })
	if err != nil {
		return nil, err
	}
	invitations, err := f.waiting(ctx, now)
	if err != nil {
		return nil, err
	}
	for _, i := range invitations {
		all = append(all, mandate.Trouble{
			Time: i.Expires, Kind: mandate.TroubleInvitation, Partner: i.Partner.Name, Move: mandate.MovePartner,
			What: "an invitation ends unused", Do: "whoever has the link opens it and consents; or invite them again: mandate partner invite " + i.Partner.Name,
		})
	}
	relationships, err := f.relationships(ctx, names, now)
	if err != nil {
		return nil, err
	}
	all = append(all, relationships...)
	for _, c := range f.upstream.ends {
		all = append(all, c.trouble(now))
	}
	if l, err := f.store.Lockdown(); err == nil && l != nil {
		all = append(all, mandate.Trouble{
			Time: l.Since, Kind: mandate.TroubleServer, Move: mandate.MoveOperator,
			What: "no token is handed out: locked down by " + string(l.By) + " (" + l.Reason + ")", Do: "mandate lockdown off, when it is over",
		})
	}
	if err := f.ready(ctx); err != nil {
		all = append(all, mandate.Trouble{
			Time: now, Kind: mandate.TroubleServer, Move: mandate.MoveOperator,
			What: "this server cannot serve: " + err.Error(), Do: "see its log",
		})
	}
	mandate.SortTroubles(all)
	return all, nil
}

// waiting returns the invitations that somebody should use: of a partner that
// has consented since it was invited, none does any more.
func (f *forecaster) waiting(ctx context.Context, now time.Time) ([]store.Invitation, error) {
	invitations, err := f.store.OpenInvitations(ctx, now)
	if err != nil || len(invitations) == 0 {
		return nil, err
	}
	grants, err := f.broker.Grants(ctx, mandate.TenantID{})
	if err != nil {
		return nil, err
	}
	consented := make(map[mandate.GrantKey]time.Time)
	for _, g := range grants {
		if g.State == mandate.StateActive && g.Origin == mandate.OriginConsent {
			consented[g.Key] = g.Consented
		}
	}
	return slices.DeleteFunc(last(invitations), func(i store.Invitation) bool { return i.Created.Before(consented[i.Partner.Key]) }), nil
}

// last returns each partner's last open invitation: one that ends before
// another of the same partner keeps nobody from consenting.
func last(all []store.Invitation) []store.Invitation {
	var out []store.Invitation
	for n, i := range all { // sorted by their ends
		if !slices.ContainsFunc(all[n+1:], func(later store.Invitation) bool { return later.Partner.Name == i.Partner.Name }) {
			out = append(out, i)
		}
	}
	return out
}

// A credentialEnd is when the credential of an application ends, as far as
// that is known.
type credentialEnd struct {
	application string
	at          func() time.Time
}

// expiring is a credential that ends, and may be replaced while the server
// runs.
type expiring interface{ NotAfter() time.Time }

// note remembers when a credential ends, if it says so or the configuration
// does.
func (u *upstream) note(application string, credential any, stated time.Time) {
	if c, ok := credential.(expiring); ok && !c.NotAfter().IsZero() {
		u.ends = append(u.ends, credentialEnd{application, c.NotAfter})
	} else if !stated.IsZero() {
		u.ends = append(u.ends, credentialEnd{application, func() time.Time { return stated }})
	}
}

func (c credentialEnd) trouble(now time.Time) mandate.Trouble {
	t := mandate.Trouble{
		Time: c.at(), Kind: mandate.TroubleCredential, Move: mandate.MoveOperator,
		What: "the credential of application " + c.application + " ends, and nothing is redeemed for any partner after that",
		Do:   "replace it: mandate credential rotate " + c.application,
	}
	if !now.Before(t.Time) {
		t.What = "the credential of application " + c.application + " has ended: nothing is redeemed for any partner"
	}
	return t
}

// metricsDoor makes the door for Prometheus, if there is to be one.
func (p *parts) metricsDoor(a *App, c *Config) error {
	if c.Metrics.Listen == "" {
		return nil
	}
	h, err := p.metrics(a)
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", h)
	return a.addDoor("metrics", c, c.Metrics, mux)
}

// metrics answers for /metrics.
func (p *parts) metrics(a *App) (http.Handler, error) {
	h, err := metrics.Handler(metrics.Source{
		Stats: a.broker.Stats, Grants: a.broker.Grants, Partners: p.store.Partners, Customers: p.store.Customers().Standings, Records: a.audit.Count, Behind: a.witnessesBehind,
		Ready: p.ready, Policy: p.policies.measure, Window: a.broker.Window(), Notices: a.notices.Measure, Log: a.log,
	})
	if err != nil {
		return nil, fmt.Errorf("metrics: %w", err)
	}
	return h, nil
}
