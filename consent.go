package mandate

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// CandidateLife is how long an operator may take to decide on a candidate.
const CandidateLife = 7 * 24 * time.Hour

// A Consent is what came back from a partner's browser, together with what
// the server kept about the sign-in when it began.
type Consent struct {
	Partner Partner

	// User is whom the invitation is for: an object ID, or a user name that
	// the ID token must show. Empty lets any user of the tenant consent.
	User string

	Began       time.Time  // when the sign-in was started here
	Until       time.Time  // the end of the grant, as the partner read it
	Audiences   []Audience // all must answer; Partner Center first, then Graph, then any others
	Code        Secret
	Verifier    Secret // PKCE
	RedirectURI string
	Nonce       string
	Address     string // of the browser, for the record

	// Compromised is set of a renewal that was asked for because the user's
	// account was compromised: the generation before does not stand in for it.
	Compromised bool

	// Renewal is set if the partner began by itself, without an invitation. It
	// takes the place of a grant that is there, and begins none.
	Renewal bool
}

// Consent makes an active grant out of an authorization code.
//
// The code is redeemed with the application's credential; then every audience
// is redeemed once with the new refresh token, and Partner Center is asked for
// its verdict on MFA. Only if MFA is proven, the user is an agent of the
// partner and everything answers is the grant recorded, sealed and activated
// as the next generation.
//
// The error is a [*Refusal], which is recorded and after which nothing is
// stored; if the record itself failed, the error wraps that one too. One whose
// Staged is set is different: everything was proven, but what is active may be
// replaced only if an operator says so, and the grant waits for that.
func (b *Broker) Consent(ctx context.Context, c Consent) (Grant, Receipt, error) {
	// The partner's browser may hang up, but what Entra was asked must end.
	ctx = context.WithoutCancel(ctx)
	g, receipt, err := b.consent(ctx, &c)
	if err == nil {
		return g, receipt, nil
	}
	var r *Refusal
	if !errors.As(err, &r) {
		r = &Refusal{Reason: ReasonSiteProblem, Err: err}
	}
	if r.Staged > 0 {
		return Grant{}, receipt, r // that it waits is recorded
	}
	return Grant{}, Receipt{}, b.Refuse(ctx, c.Partner, r, c.Address)
}

// Refuse records a refused consent, and returns r joined with the error of
// recording it, if there was one.
func (b *Broker) Refuse(ctx context.Context, p Partner, r *Refusal, address string) error {
	return b.refuse(ctx, p, r, By{Address: address})
}

func (b *Broker) refuse(ctx context.Context, p Partner, r *Refusal, by By) error {
	rec := Record{
		Kind: KindRefused, Partner: p.Name, Caller: by.Caller, Address: by.Address, Ticket: by.Ticket,
		Tenant: p.Key.Partner, Audience: r.Audience, Reason: r.Error(),
	}
	if !p.Key.Partner.IsZero() {
		rec.Grant = &p.Key
	}
	if r.Fault != nil {
		rec.Correlation = r.Fault.CorrelationID
	}
	if _, err := b.cfg.Audit.Record(ctx, rec); err != nil {
		return errors.Join(r, err)
	}
	return r
}

func (b *Broker) consent(ctx context.Context, c *Consent) (Grant, Receipt, error) {
	if len(c.Audiences) < 2 {
		return Grant{}, Receipt{}, errors.New("a consent needs Partner Center and Graph among its audiences")
	}
	last, err := b.predecessor(ctx, c.Partner.Key)
	if err != nil {
		return Grant{}, Receipt{}, err
	}
	if err := last.renewable(c); err != nil {
		return Grant{}, Receipt{}, err
	}
	g, err := b.candidate(ctx, c)
	if err != nil {
		return Grant{}, Receipt{}, err
	}
	g.Generation, g.Version, g.Origin, g.Renewal = last.Last+1, 1, OriginConsent, c.Renewal
	g, receipt, err := b.install(ctx, c.Partner, g, last.admits(&g), Record{Address: c.Address})
	if c.Renewal && errors.Is(err, ErrSuperseded) {
		err = &Refusal{Reason: ReasonEnded, Detail: "the grant changed while it was renewed", Err: err}
	}
	return g, receipt, err
}

// renewable returns a [*Refusal] if c would begin again, by itself, what was
// ended: withdrawn by whomever.
func (g *Grant) renewable(c *Consent) error {
	if !c.Renewal || g.State == StateActive || g.State == StateSuspended {
		return nil
	}
	return &Refusal{Reason: ReasonEnded, Detail: "no grant of the partner's is there to be renewed"}
}

// install activates g as the next generation, or stages it if an operator must
// decide. What is done is recorded first; by says who does it and from where.
func (b *Broker) install(ctx context.Context, p Partner, g Grant, objection *Refusal, by Record) (Grant, Receipt, error) {
	by.Kind, g.State = KindConsented, StateActive
	if objection != nil {
		by.Kind, g.State, g.Fallback = KindStaged, StateCandidate, time.Now().Add(CandidateLife)
		by.Reason = objection.Error()
	}
	by.Partner, by.Grant, by.Generation, by.Tenant = p.Name, &g.Key, g.Generation, g.Key.Partner
	by.User, by.Evidence, by.Expires = &g.User, &g.Evidence, g.Until
	n, err := b.installing(ctx, &g, objection, by.Caller)
	if err != nil {
		return Grant{}, Receipt{}, err
	}
	var receipt Receipt
	err = b.tell(ctx, p, n, func() (err error) {
		if receipt, err = b.cfg.Audit.Record(ctx, by); err != nil {
			return fmt.Errorf("record consent: %w", err)
		}
		return b.put(ctx, g)
	})
	switch {
	case err != nil:
		return Grant{}, Receipt{}, err
	case objection != nil:
		objection.Staged = g.Generation
		return Grant{}, receipt, objection
	}
	b.cache.drop(g.Key)
	return g, receipt, nil
}

// put stores g in its state.
func (b *Broker) put(ctx context.Context, g Grant) error {
	doing, do := "activate", b.cfg.Vault.Activate
	if g.State == StateCandidate {
		doing, do = "stage", b.cfg.Vault.Stage
	}
	if err := do(ctx, g); err != nil {
		return fmt.Errorf("%s grant: %w", doing, err)
	}
	return nil
}

// predecessor returns the last generation, with nothing but its number and
// state if that is not active.
func (b *Broker) predecessor(ctx context.Context, k GrantKey) (Grant, error) {
	g, err := b.cfg.Vault.Head(ctx, k)
	var none *NoGrantError
	if !errors.As(err, &none) {
		return g, err
	}
	return Grant{Last: none.Generation, State: none.State}, nil
}

// admits returns a [*Refusal] if next may not replace g without an operator:
// another user, fewer audiences or scopes, or weaker evidence. A suspended
// grant cannot be replaced by its partner: somebody suspended it for a reason.
func (g *Grant) admits(next *Grant) *Refusal {
	switch g.State {
	case StateActive:
	case StateSuspended:
		return &Refusal{Reason: ReasonSuspended}
	default:
		return nil // nothing is replaced
	}
	if g.User != next.User {
		return &Refusal{Reason: ReasonOtherUser, Detail: "the active grant is of another user"}
	}
	for _, had := range g.Audiences {
		i := slices.IndexFunc(next.Audiences, func(a GrantedAudience) bool { return a.Audience == had.Audience })
		if i < 0 {
			return &Refusal{Reason: ReasonWeaker, Audience: had.Audience, Detail: "the active grant has this audience, the new one has not"}
		}
		for _, s := range had.Scopes {
			if !slices.Contains(next.Audiences[i].Scopes, s) {
				return &Refusal{Reason: ReasonWeaker, Audience: had.Audience, Detail: "the active grant has the scope " + s + ", the new one has not"}
			}
		}
	}
	if next.Evidence.AuthTime.IsZero() && !g.Evidence.AuthTime.IsZero() {
		return &Refusal{Reason: ReasonWeaker, Detail: "the active grant proves the time of its MFA, the new one does not"}
	}
	return nil
}

// candidate redeems the code and probes everything, without storing anything.
func (b *Broker) candidate(ctx context.Context, c *Consent) (Grant, error) {
	r, err := b.redeemCode(ctx, c)
	if err != nil {
		return Grant{}, err
	}
	if err := c.expects(r.User); err != nil {
		return Grant{}, err
	}
	if r.Refresh.IsZero() {
		return Grant{}, &Refusal{Reason: ReasonNoRefresh, Detail: "offline_access was not granted"}
	}
	g := Grant{
		Key: c.Partner.Key, User: r.User.Identity, UserName: r.User.UserName,
		Consented: time.Now(), Redeemed: time.Now(), Until: c.Until, Compromised: c.Compromised, Refresh: r.Refresh,
	}
	g.Evidence.note("id_token", r.User.AMR)
	if !r.User.AuthTime.Before(c.Began.Truncate(time.Second)) {
		g.Evidence.AuthTime = r.User.AuthTime
	}
	if err := b.probe(ctx, c.Audiences, &g); err != nil {
		return Grant{}, err
	}
	if err := g.Evidence.check(); err != nil {
		return Grant{}, err
	}
	return g, nil
}

func (b *Broker) redeemCode(ctx context.Context, c *Consent) (Redeemed, error) {
	ctx, cancel := context.WithTimeout(ctx, b.cfg.Timeout)
	defer cancel()
	r, err := b.cfg.Authority.RedeemCode(ctx, CodeRedemption{
		Key: c.Partner.Key, Code: c.Code, Verifier: c.Verifier, RedirectURI: c.RedirectURI,
		Nonce: c.Nonce, Audience: c.Audiences[0],
	})
	if err != nil {
		return r, refusal(err, "")
	}
	if r.User == nil {
		return r, &Refusal{Reason: ReasonToken, Detail: "Entra sent no ID token"}
	}
	return r, nil
}

// expects returns a [*Refusal] if the user who signed in is not one who may
// consent.
func (c *Consent) expects(u *IDToken) error {
	switch {
	case u.Tenant != c.Partner.Key.Partner:
		return &Refusal{Reason: ReasonTenant, Detail: "signed in to tenant " + u.Tenant.String()}
	case u.Guest:
		return &Refusal{Reason: ReasonGuest}
	case c.User != "" && !strings.EqualFold(c.User, u.Object.String()) && !strings.EqualFold(c.User, u.UserName):
		return &Refusal{Reason: ReasonUser, Detail: "signed in as another user than the invited one"}
	}
	return nil
}

// probe redeems every audience once and asks Partner Center, which is the
// first of them, and Graph, which is the second.
func (b *Broker) probe(ctx context.Context, audiences []Audience, g *Grant) error {
	tokens := make(map[Audience]Secret)
	for _, a := range audiences {
		r, err := b.probeAudience(ctx, g, a)
		if err != nil {
			return err
		}
		tokens[a] = r.Access
		g.Audiences = append(g.Audiences, GrantedAudience{a, r.Scopes})
		g.Evidence.note(string(a), r.AMR)
		if !r.Refresh.IsZero() {
			g.Refresh = r.Refresh
		}
	}
	ctx, cancel := context.WithTimeout(ctx, b.cfg.Timeout)
	defer cancel()
	ok, why, err := b.cfg.Prober.MFACompliant(ctx, g.Key, tokens[audiences[0]])
	if err != nil {
		return refusal(err, audiences[0])
	}
	if !ok {
		return &Refusal{Reason: ReasonMFA, Detail: "Partner Center: " + why}
	}
	g.Evidence.PartnerCenter = true
	return b.probeAgent(ctx, g, tokens[audiences[1]])
}

func (b *Broker) probeAudience(ctx context.Context, g *Grant, a Audience) (Redeemed, error) {
	ctx, cancel := context.WithTimeout(ctx, b.cfg.Timeout)
	defer cancel()
	r, err := b.cfg.Authority.Redeem(ctx, Redemption{Key: g.Key, Tenant: g.Key.Partner, Audience: a, Refresh: g.Refresh})
	if err != nil {
		return r, refusal(err, a)
	}
	if r.User == nil || r.User.Identity != g.User {
		return r, &Refusal{Reason: ReasonToken, Audience: a, Detail: "Entra answered for another user than the one who signed in"}
	}
	return r, nil
}

// probeAgent asks Graph whether the user acts for the partner at all. A user
// in neither group can sign in and consent, and then reach no customer.
func (b *Broker) probeAgent(ctx context.Context, g *Grant, graph Secret) error {
	groups, err := b.cfg.Prober.AgentGroups(ctx, g.Key, graph)
	if err != nil {
		var f *Fault
		errors.As(err, &f)
		return &Refusal{Reason: ReasonRoleUnknown, Fault: f, Err: err}
	}
	if !slices.Contains(groups, "AdminAgents") && !slices.Contains(groups, "SalesAgents") {
		return &Refusal{Reason: ReasonRole, Detail: "groups: " + cmp.Or(strings.Join(groups, ", "), "none")}
	}
	g.AgentGroups = groups
	return nil
}

// note keeps the methods of one token, if it names any.
func (e *Evidence) note(token string, methods []string) {
	if methods != nil {
		e.AMR = append(e.AMR, TokenAMR{token, methods})
	}
}

// check returns a [*Refusal] if a token that says how its user signed in does
// not say MFA. Partner Center's verdict was asked before.
func (e *Evidence) check() error {
	for _, t := range e.AMR {
		if !slices.Contains(t.Methods, "mfa") {
			return &Refusal{Reason: ReasonMFA, Detail: fmt.Sprintf("%s says the user signed in by %s", t.Token, strings.Join(t.Methods, ", "))}
		}
	}
	return nil
}

// refusal turns what Entra or Partner Center said during a consent into the
// reason that the partner reads.
func refusal(err error, a Audience) error {
	var f *Fault
	if r := (*Refusal)(nil); errors.As(err, &r) || !errors.As(err, &f) {
		return err
	}
	r := &Refusal{Audience: a, Fault: f, Reason: ReasonEntra}
	switch {
	case f.has(90093, 90094):
		r.Reason = ReasonAdmin
	case f.MFA():
		r.Reason = ReasonMFA
	case f.ConditionalAccess():
		r.Reason = ReasonConditional
	case f.Domain == DomainTransient:
		r.Reason = ReasonUnavailable
	case f.Domain == DomainApplication:
		r.Reason = ReasonApplication
	case f.Domain == DomainAudience:
		r.Reason = ReasonAudience
	}
	return r
}
