package app

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/entra"
	"github.com/mandate-sam/mandate/internal/portal"
	"github.com/mandate-sam/mandate/store"
)

// An onboarding gives the portal what it asks for out of the store. It
// implements [portal.Invitations], [portal.Transactions] and
// [portal.Outcomes].
type onboarding struct {
	store   *store.Store
	issuers map[appKey]string // of the ID tokens that each application takes
}

// issuer returns whose answers are accepted for a grant.
func (o *onboarding) issuer(k mandate.GrantKey) string {
	return o.issuers[appKey{k.Cloud, k.Application}]
}

// issuers returns the issuer that each application's generation of endpoints
// has, with "{tenantid}" in it.
func (c *Config) issuers(clouds map[string]mandate.Cloud) (map[appKey]string, error) {
	out := make(map[appKey]string)
	for i := range c.Applications {
		a := &c.Applications[i]
		id, err := mandate.ParseAppID(a.ClientID)
		if err != nil {
			return nil, err
		}
		cloud := clouds[a.cloud()]
		out[appKey{cloud.Name, id}] = cloud.IssuerV2
		if a.version() == entra.V1 {
			out[appKey{cloud.Name, id}] = cloud.IssuerV1
		}
	}
	return out, nil
}

// Invitation implements [portal.Invitations].
func (o *onboarding) Invitation(ctx context.Context, token mandate.Secret) (portal.Invitation, error) {
	i, err := o.store.Invitation(ctx, token)
	out := portal.Invitation{ID: i.ID, Partner: i.Partner, User: i.User, Term: i.Term, Expires: i.Expires}
	if err != nil {
		return out, invitationError(err)
	}
	pending, err := o.store.Pending(ctx, i.ID)
	if err == nil && len(pending) > 0 {
		out.Unfinished = pending[0].Began
	}
	return out, err
}

// invitationError says in the portal's terms why an invitation cannot be used.
func invitationError(err error) error {
	var e *store.InvitationError
	if !errors.As(err, &e) {
		return err
	}
	switch e.State {
	case store.InvitationUsed:
		return fmt.Errorf("%w: %w", portal.ErrInvitationUsed, err)
	case store.InvitationExpired:
		return fmt.Errorf("%w: %w", portal.ErrInvitationExpired, err)
	}
	return fmt.Errorf("%w: %w", portal.ErrInvitationUnknown, err)
}

// Begin implements [portal.Transactions].
func (o *onboarding) Begin(ctx context.Context, s portal.Start) (portal.Proof, error) {
	i, p := s.Invitation, store.NewProof()
	kind, err := kindOf(&s)
	if err != nil {
		return portal.Proof{}, err
	}
	t, err := o.store.Begin(ctx, store.Transaction{
		ID: rand.Text(), Proof: p.Hash(), Kind: kind, Partner: i.Partner,
		Authority: s.Authority, Issuer: o.issuer(i.Partner.Key), Invitation: i.ID,
		RedirectURI: s.RedirectURI, User: i.User, Until: s.Until, Audiences: s.Audiences,
	})
	if err != nil {
		return portal.Proof{}, err
	}
	return proof(t.ID, p), nil
}

// signInKinds are the kinds of transactions of people of partners, by the page
// to which the sign-in leads.
var signInKinds = map[string]string{
	"": store.KindPartner, "renew": store.KindPartnerRenew, "withdraw": store.KindPartnerWithdraw, "usage": store.KindPartnerUsage,
}

// kindOf returns the kind of transaction that a sign-in is.
func kindOf(s *portal.Start) (string, error) {
	switch kind := signInKinds[s.To]; {
	case s.SignIn && kind != "":
		return kind, nil
	case s.SignIn || s.To != "":
		return "", fmt.Errorf("a sign-in cannot lead to %q", s.To)
	case s.Renewal:
		return store.KindRenewal, nil
	}
	return store.KindConsent, nil
}

// startOf is what a transaction of that kind began with. ok is false if it is
// none of the portal's.
func startOf(kind string) (s portal.Start, ok bool) {
	for to, k := range signInKinds {
		if k == kind {
			return portal.Start{SignIn: true, To: to}, true
		}
	}
	return portal.Start{Renewal: kind == store.KindRenewal}, kind == store.KindRenewal || kind == store.KindConsent
}

// redirectURI is where Entra sends browsers back to, for one cloud.
func redirectURI(publicURL, cloud string) string { return publicURL + "/consent/callback/" + cloud }

func proof(id string, p store.Proof) portal.Proof {
	return portal.Proof{ID: id, Cookie: p.Cookie(), State: mandate.NewSecret(p.State()), Nonce: p.Nonce(), Verifier: p.Verifier()}
}

// Proof implements [portal.Transactions].
func (o *onboarding) Proof(id string, cookie mandate.Secret) (portal.Proof, error) {
	p, err := store.ParseProof(cookie.Reveal())
	if err != nil {
		return portal.Proof{}, fmt.Errorf("%w: %w", portal.ErrTransaction, err)
	}
	return proof(id, p), nil
}

// Consume implements [portal.Transactions].
func (o *onboarding) Consume(ctx context.Context, pp portal.Proof) (portal.Transaction, error) {
	p, err := store.ParseProof(pp.Cookie.Reveal())
	if err != nil {
		return portal.Transaction{}, fmt.Errorf("%w: %w", portal.ErrTransaction, err)
	}
	t, err := o.store.Consume(ctx, pp.ID, p)
	if err != nil {
		return portal.Transaction{}, transactionError(err)
	}
	start, ok := startOf(t.Kind)
	if !ok {
		return portal.Transaction{}, fmt.Errorf("%w: it was not of this site", portal.ErrTransaction)
	}
	if t.Issuer != o.issuer(t.Partner.Key) {
		return portal.Transaction{}, fmt.Errorf("%w: it was begun with another issuer", portal.ErrTransaction)
	}
	return portal.Transaction{
		Partner: t.Partner, SignIn: start.SignIn, To: start.To, Renewal: start.Renewal, User: t.User, Authority: t.Authority, RedirectURI: t.RedirectURI,
		Began: t.Began, Until: t.Until, Audiences: t.Audiences, Compromised: t.Compromised,
	}, nil
}

func transactionError(err error) error {
	if e := (*store.TransactionError)(nil); errors.As(err, &e) {
		return fmt.Errorf("%w: %w", portal.ErrTransaction, err)
	}
	return err
}

// Finish implements [portal.Outcomes].
func (o *onboarding) Finish(ctx context.Context, id string, out portal.Outcome) error {
	detail, err := json.Marshal(out)
	if err != nil {
		return err
	}
	s := store.Outcome{Detail: detail}
	if out.Receipt != nil {
		s.Generation, s.Receipt = out.Receipt.Generation, out.Receipt.Record
	}
	if out.Refused != nil {
		s.Reason = out.Refused.Reason
	}
	return o.store.Finish(ctx, id, s)
}

// Outcome implements [portal.Outcomes].
func (o *onboarding) Outcome(ctx context.Context, pp portal.Proof) (portal.Outcome, error) {
	p, err := store.ParseProof(pp.Cookie.Reveal())
	if err != nil {
		return portal.Outcome{}, fmt.Errorf("%w: %w", mandate.ErrNotFound, err)
	}
	_, s, err := o.store.Result(ctx, pp.ID, p)
	if err != nil {
		return portal.Outcome{}, err
	}
	var out portal.Outcome
	return out, json.Unmarshal(s.Detail, &out)
}

// authorize returns Entra's sign-in URL. It asks for a new sign-in, and not for
// the consent page: Entra takes only one of the two wishes, shows that page by
// itself to whoever has not consented, and a consent whose MFA is old is worth
// less than one whose permissions were listed once more.
func (u *upstream) authorize(apps map[appKey]mandate.Audience) func(portal.AuthorizeRequest) (string, error) {
	return func(r portal.AuthorizeRequest) (string, error) {
		k := appKey{r.Cloud, r.Application}
		c := u.entra[k]
		if c == nil {
			return "", fmt.Errorf("application %s in cloud %q is not configured", r.Application, r.Cloud)
		}
		return c.AuthorizeURL(entra.AuthorizeRequest{
			Tenant: r.Tenant, RedirectURI: r.RedirectURI, State: r.State, Nonce: r.Nonce, Challenge: r.Challenge,
			Audience: apps[k], LoginHint: r.LoginHint, SignIn: r.SignIn,
		}), nil
	}
}

// sites describes the applications for the portal.
func (c *Config) sites(clouds map[string]mandate.Cloud) ([]portal.Application, error) {
	var out []portal.Application
	for i := range c.Applications {
		a := &c.Applications[i]
		id, err := mandate.ParseAppID(a.ClientID)
		if err != nil {
			return nil, err
		}
		site := portal.Application{ID: id, Cloud: clouds[a.cloud()], Name: a.DisplayName, Publisher: a.Publisher, Contact: c.Portal.Contact}
		if site.Audiences, err = a.audiences(site.Cloud); err != nil {
			return nil, err
		}
		for _, p := range a.Permissions {
			site.Permissions = append(site.Permissions, portal.Permission{API: p.API, Scope: p.Scope, Meaning: p.Meaning})
		}
		out = append(out, site)
	}
	return out, nil
}
