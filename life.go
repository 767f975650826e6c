package mandate

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Custody is what an operator can do to stored grants beside activating them;
// a [Vault] that is also one is needed for it. Every change raises the epoch,
// and survives a crash when it returned nil.
type Custody interface {
	// Suspend stops the active generation from serving, and destroys the
	// fall-back. If none is active the error is a [*NoGrantError].
	Suspend(context.Context, GrantKey) error

	// Resume lets the suspended generation serve again. If there is none the
	// error wraps [ErrNotFound].
	Resume(context.Context, GrantKey) error

	// Rollback makes the fall-back active and destroys the generation that
	// was. If nothing may stand in for the active one the error wraps
	// [ErrNotFound]: what was suspended or withdrawn never comes back.
	Rollback(context.Context, GrantKey) error

	// Discard destroys the candidate. If there is none the error wraps
	// [ErrNotFound].
	Discard(context.Context, GrantKey) error

	// Held returns the active or suspended generation with its refresh token,
	// or a [*NoGrantError].
	Held(context.Context, GrantKey) (Grant, error)

	// Withdraw destroys every refresh token of a grant for good, of whatever
	// generation. If there is none the error is a [*NoGrantError]. What could
	// not be destroyed is in the answer.
	Withdraw(context.Context, GrantKey) ([]Remnant, error)

	// Grants returns every generation of a partner's grants, the newest first;
	// of all partners if the ID is zero. None has its refresh token.
	Grants(context.Context, TenantID) ([]Grant, error)
}

// A Remnant is a copy of a refresh token that could not be destroyed.
type Remnant struct {
	What  string    // such as "secret x in the vault is deleted but can be recovered"
	Until time.Time // when it goes by itself; zero if that is not known
}

// Suspend stops a partner's grant from serving. Its refresh token is kept, and
// nothing that was obtained with it is handed out any more.
func (b *Broker) Suspend(ctx context.Context, p Partner, by By) (Receipt, error) {
	return b.change(ctx, p, by, Record{Detail: "suspend the grant"}, func() error {
		return b.cfg.Custody.Suspend(ctx, p.Key)
	})
}

// Resume lets a suspended grant serve again.
func (b *Broker) Resume(ctx context.Context, p Partner, by By) (Receipt, error) {
	return b.change(ctx, p, by, Record{Detail: "resume the grant"}, func() error {
		return b.cfg.Custody.Resume(ctx, p.Key)
	})
}

// Rollback makes the generation before the active one active again, if it may
// still stand in, redeems, and answers for the same user as when it was given.
// The generation that it replaces is destroyed.
func (b *Broker) Rollback(ctx context.Context, p Partner, by By) (Grant, Receipt, error) {
	ctx = context.WithoutCancel(ctx)
	g, err := b.cfg.Vault.Fallback(ctx, p.Key)
	if err != nil {
		return Grant{}, Receipt{}, notWaiting(err, "the partner has no generation to roll back to")
	}
	rec := Record{Detail: fmt.Sprintf("roll back to generation %d", g.Generation), Generation: g.Generation, User: &g.User}
	n := Notice{Kind: NoticeRolledBack, Generation: g.Generation, Who: string(by.Caller), About: who(g), Also: []string{g.UserName}}
	var receipt Receipt
	err = b.tell(ctx, p, n, func() (err error) {
		receipt, err = b.change(ctx, p, by, rec, func() error {
			if err := b.tryFallback(ctx, &g); err != nil {
				return err
			}
			return b.cfg.Custody.Rollback(ctx, p.Key)
		})
		return err
	})
	if err != nil {
		return Grant{}, receipt, err
	}
	g.State, g.Fallback, g.Refresh = StateActive, time.Time{}, Secret{}
	return g, receipt, nil
}

// tryFallback redeems g once, and keeps the refresh token that comes back.
func (b *Broker) tryFallback(ctx context.Context, g *Grant) error {
	if len(g.Audiences) == 0 {
		return fmt.Errorf("%w: the generation before names no audience", ErrNoGrant)
	}
	epoch, err := b.cfg.Epoch.Epoch()
	if err != nil {
		return err
	}
	r, err := b.probeAudience(ctx, g, g.Audiences[0].Audience)
	if err != nil {
		return err
	}
	if r.Refresh.IsZero() || r.Refresh.Reveal() == g.Refresh.Reveal() {
		return nil
	}
	err = b.cfg.Vault.Keep(ctx, Keep{Grant: *g, Epoch: epoch, Next: r.Refresh})
	if errors.Is(err, ErrRotated) {
		return nil
	}
	return err
}

// Approve activates the candidate of that generation, which is the one that
// the operator was shown. Everything is proven once more before: who consented
// may have lost the role, or the account, since.
func (b *Broker) Approve(ctx context.Context, p Partner, generation int64, by By) (Grant, Receipt, error) {
	ctx = context.WithoutCancel(ctx)
	g, err := b.candidateOf(ctx, p.Key, generation)
	if err != nil {
		return Grant{}, Receipt{}, err
	}
	rec := Record{Detail: fmt.Sprintf("approve the candidate, generation %d", generation), Generation: generation, User: &g.User}
	receipt, err := b.change(ctx, p, by, rec, func() error {
		if err := b.proveAgain(ctx, &g); err != nil {
			return err
		}
		g.Fallback = time.Time{}
		g, _, err = b.install(ctx, p, g, nil, Record{Caller: by.Caller, Address: by.Address, Ticket: by.Ticket})
		return err
	})
	g.Refresh = Secret{}
	return g, receipt, err
}

// candidateOf returns the candidate if it is of that generation.
func (b *Broker) candidateOf(ctx context.Context, k GrantKey, generation int64) (Grant, error) {
	g, err := b.cfg.Vault.Candidate(ctx, k)
	if err != nil {
		return g, notWaiting(err, "no consent of this partner's waits for a decision")
	}
	if g.Generation != generation {
		return g, Invalid("generation", "%d does not wait for a decision; generation %d does", generation, g.Generation)
	}
	return g, nil
}

// notWaiting says what is missing where a [*NoGrantError] would speak of the
// active generation.
func notWaiting(err error, what string) error {
	if none := (*NoGrantError)(nil); errors.As(err, &none) {
		return fmt.Errorf("%w: %s", ErrNotFound, what)
	}
	return err
}

// proveAgain redeems every audience of a stored grant, and asks for the
// verdict on MFA and the agent groups as a consent does. When the user signed
// in is not asked anew, and stays as it was proven.
func (b *Broker) proveAgain(ctx context.Context, g *Grant) error {
	if len(g.Audiences) < 2 {
		return fmt.Errorf("%w: the candidate names too few audiences", ErrNoGrant)
	}
	var audiences []Audience
	for _, a := range g.Audiences {
		audiences = append(audiences, a.Audience)
	}
	old := g.Evidence
	g.Audiences, g.Evidence = nil, Evidence{AuthTime: old.AuthTime}
	for _, t := range old.AMR {
		if t.Token == "id_token" {
			g.Evidence.note(t.Token, t.Methods)
		}
	}
	if err := b.probe(ctx, audiences, g); err != nil {
		return err
	}
	g.Version, g.Redeemed = g.Version+1, time.Now()
	return g.Evidence.check()
}

// Discard destroys the candidate of that generation.
func (b *Broker) Discard(ctx context.Context, p Partner, generation int64, by By) (Receipt, error) {
	g, err := b.candidateOf(ctx, p.Key, generation)
	if err != nil {
		return Receipt{}, err
	}
	rec := Record{Detail: fmt.Sprintf("discard the candidate, generation %d", generation), Generation: generation, User: &g.User}
	n := Notice{Kind: NoticeDiscarded, Generation: generation, Who: string(by.Caller), About: who(g), Also: []string{g.UserName}}
	var receipt Receipt
	err = b.tell(ctx, p, n, func() (err error) {
		receipt, err = b.change(ctx, p, by, rec, func() error { return b.cfg.Custody.Discard(ctx, p.Key) })
		return err
	})
	return receipt, err
}

// Grants returns every generation of a partner's grants, the newest first; of
// all partners if the ID is zero.
func (b *Broker) Grants(ctx context.Context, partner TenantID) ([]Grant, error) {
	return b.cfg.Custody.Grants(ctx, partner)
}
