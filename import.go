package mandate

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// ImportLife is how long an imported grant lasts at most: its MFA was proven
// to somebody else, and a consent that is given here should take its place.
const ImportLife = 30 * 24 * time.Hour

// An Import is a refresh token that was obtained elsewhere.
type Import struct {
	Partner   Partner
	User      string     // whose it is expected to be, as in a [Consent]; empty takes any user of the tenant
	Until     time.Time  // the end that is asked for; zero, or one too late, means [ImportLife] from now
	Audiences []Audience // as in a [Consent]
	Refresh   Secret
	From      string // where it is from, for the record: "standard input"
	DryRun    bool   // prove everything and store nothing
	By        By
}

// Import makes a grant out of a refresh token that was obtained elsewhere.
// Everything that a consent proves is proven: tenant, user, MFA, audiences and
// agent groups; only when the user signed in is nobody's to say here.
//
// It becomes active if nothing is replaced by it. Otherwise it waits for an
// operator: the error is a [*Refusal] whose Staged is set. Any other error
// means that nothing was stored; a [*Refusal] is recorded. Of a dry run the
// grant is returned as it would be, and nothing is stored.
func (b *Broker) Import(ctx context.Context, in Import) (Grant, Receipt, error) {
	ctx = context.WithoutCancel(ctx)
	if in.Refresh.IsZero() || len(in.Audiences) < 2 {
		return Grant{}, Receipt{}, Invalid("refresh_token", "is missing, or there are too few audiences to try it with")
	}
	last, err := b.predecessor(ctx, in.Partner.Key)
	if err != nil {
		return Grant{}, Receipt{}, err
	}
	if last.State == StateWithdrawn {
		return Grant{}, Receipt{}, &NoGrantError{Generation: last.Last, State: last.State}
	}
	receipt, err := b.recordImport(ctx, &in)
	if err != nil {
		return Grant{}, Receipt{}, err
	}
	g, err := b.imported(ctx, &in)
	if err == nil {
		g.Generation, g.Version, g.Origin = last.Last+1, 1, OriginImport
		if in.DryRun {
			g.State, g.Refresh = StateCandidate, Secret{}
			return g, receipt, nil
		}
		g, receipt, err = b.install(ctx, in.Partner, g, last.admitsImport(), Record{
			Caller: in.By.Caller, Address: in.By.Address, Ticket: in.By.Ticket, Detail: "import from " + in.From,
		})
	}
	g.Refresh = Secret{}
	return g, receipt, b.importError(ctx, &in, err)
}

// recordImport records that a refresh token is about to be tried.
func (b *Broker) recordImport(ctx context.Context, in *Import) (Receipt, error) {
	rec := Record{
		Kind: KindChanged, Caller: in.By.Caller, Address: in.By.Address, Ticket: in.By.Ticket,
		Partner: in.Partner.Name, Grant: &in.Partner.Key, Tenant: in.Partner.Key.Partner, Detail: "import a refresh token from " + in.From,
	}
	if in.DryRun {
		rec.Detail += ", to see whether it would do"
	}
	var err error
	if rec.Epoch, err = b.cfg.Epoch.Epoch(); err != nil {
		return Receipt{}, err
	}
	receipt, err := b.cfg.Audit.Record(ctx, rec)
	if err != nil {
		return receipt, fmt.Errorf("record import: %w", err)
	}
	return receipt, nil
}

// importError records a refusal that is none of those that stage.
func (b *Broker) importError(ctx context.Context, in *Import, err error) error {
	var r *Refusal
	switch {
	case err == nil:
		return nil
	case !errors.As(err, &r):
		r = &Refusal{Reason: ReasonSiteProblem, Err: err}
	case r.Staged > 0:
		return r
	}
	return b.refuse(ctx, in.Partner, r, in.By)
}

// imported redeems the token at the partner's tenant and proves everything,
// without storing anything.
func (b *Broker) imported(ctx context.Context, in *Import) (Grant, error) {
	g := Grant{Key: in.Partner.Key, Consented: time.Now(), Redeemed: time.Now(), Until: in.until(time.Now()), Refresh: in.Refresh}
	r, err := b.redeemImport(ctx, in)
	if err != nil {
		return Grant{}, err
	}
	c := Consent{Partner: in.Partner, User: in.User}
	if err := c.expects(r.User); err != nil {
		return Grant{}, err
	}
	g.User, g.UserName = r.User.Identity, r.User.UserName
	if !r.Refresh.IsZero() {
		g.Refresh = r.Refresh
	}
	g.Evidence.note("id_token", r.User.AMR)
	if err := b.probe(ctx, in.Audiences, &g); err != nil {
		return Grant{}, err
	}
	return g, g.Evidence.check()
}

// until is the end of the grant: what was asked, and never later than
// [ImportLife] from now.
func (in *Import) until(now time.Time) time.Time {
	if latest := now.Add(ImportLife); in.Until.IsZero() || in.Until.After(latest) {
		return latest
	}
	return in.Until
}

// redeemImport asks Entra whose the token is.
func (b *Broker) redeemImport(ctx context.Context, in *Import) (Redeemed, error) {
	ctx, cancel := context.WithTimeout(ctx, b.cfg.Timeout)
	defer cancel()
	k := in.Partner.Key
	r, err := b.cfg.Authority.Redeem(ctx, Redemption{Key: k, Tenant: k.Partner, Audience: in.Audiences[0], Refresh: in.Refresh})
	if err != nil {
		return r, refusal(err, in.Audiences[0])
	}
	if r.User == nil {
		return r, &Refusal{Reason: ReasonToken, Detail: "Entra sent no ID token, so that nobody knows whose the refresh token is"}
	}
	return r, nil
}

// admitsImport returns a [*Refusal] if an import may not take g's place
// without an operator, which is so whenever something is replaced: what was
// proven here is worth more than what was proven elsewhere.
func (g *Grant) admitsImport() *Refusal {
	switch g.State {
	case StateActive:
		return &Refusal{Reason: ReasonWeaker, Detail: "an imported grant would replace the active one"}
	case StateSuspended:
		return &Refusal{Reason: ReasonSuspended}
	}
	return nil
}
