package vault

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/mandate-sam/mandate"
)

// wanted is a token of the active grant for an audience.
func (c *check) wanted(g mandate.Grant, audience mandate.Audience) mandate.Wanted {
	return mandate.Wanted{
		Since: g.Since, AtLeast: time.Minute,
		Key: mandate.TokenKey{Grant: c.key, Generation: g.Generation, Tenant: c.key.Partner, Audience: audience, Scopes: []mandate.Scope{"Read"}},
	}
}

// accessToken is what a redemption of g brought.
func (c *check) accessToken(g mandate.Grant, w mandate.Wanted, access string) *mandate.Token {
	return &mandate.Token{
		Access: mandate.NewSecret(access), Expires: time.Now().Add(time.Hour), Tenant: w.Key.Tenant, Audience: w.Key.Audience,
		Scopes: []mandate.Scope{"Read", "Write"}, Generation: g.Generation, Fingerprint: "of " + access, UTI: "uti", CorrelationID: "correlation",
	}
}

// take takes a turn that must be free.
func (c *check) take(ctx context.Context, w mandate.Wanted) (mandate.Turn, error) {
	turn, token, err := c.turns.Take(ctx, w)
	switch {
	case err != nil:
		return turn, fmt.Errorf("Take: %w", err)
	case token != nil:
		return turn, errors.New("Take returned a token where none will do")
	case turn.Owner == "" || turn.Key.Audience != w.Key.Audience:
		return turn, fmt.Errorf("Take returned the turn of %q for %q, want an owner, and %q", turn.Owner, turn.Key.Audience, w.Key.Audience)
	}
	return turn, nil
}

// taken waits a little, and finds out whether nobody else gets the turn.
func (c *check) taken(ctx context.Context, w mandate.Wanted) error {
	ctx, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
	defer cancel()
	if token, err := c.turns.Shared(ctx, w); err != nil || token != nil {
		return fmt.Errorf("Shared while another has the turn: got error %v, want neither one nor a token", err)
	}
	if _, token, err := c.turns.Take(ctx, w); !errors.Is(err, context.DeadlineExceeded) || token != nil {
		return fmt.Errorf("Take while another has the turn: got error %v, want %v", err, context.DeadlineExceeded)
	}
	return nil
}

// turn finds out whether one has the turn at a time.
func (c *check) turn(ctx context.Context) error {
	if c.turns == nil {
		return nil
	}
	g, err := c.vault.Open(ctx, c.key)
	if err != nil {
		return fmt.Errorf("Open: %w", err)
	}
	w := c.wanted(g, "https://turn.example")
	first, err := c.take(ctx, w)
	if err != nil {
		return err
	}
	if err := c.taken(ctx, w); err != nil {
		return err
	}
	if err := c.turns.Extend(ctx, first); err != nil {
		return fmt.Errorf("Extend: %w", err)
	}
	if err := c.turns.Release(ctx, first); err != nil {
		return fmt.Errorf("Release: %w", err)
	}
	if err := c.turns.Extend(ctx, first); !errors.Is(err, mandate.ErrSuperseded) {
		return fmt.Errorf("Extend of a turn that was released: got error %v, want %v", err, mandate.ErrSuperseded)
	}
	second, err := c.take(ctx, w)
	if err != nil {
		return err
	}
	if second.Fence <= first.Fence || second.Owner == first.Owner {
		return fmt.Errorf("the second turn has fence %d, want more than %d", second.Fence, first.Fence)
	}
	if err := c.turns.Release(ctx, first); err != nil {
		return fmt.Errorf("Release of a turn that is over: %w", err)
	}
	if err := c.taken(ctx, w); err != nil {
		return fmt.Errorf("after a turn that is over was released: %w", err)
	}
	if err := c.outOfTurn(ctx, g, w, first, second); err != nil {
		return err
	}
	return c.turns.Release(ctx, second)
}

// outOfTurn finds out whether nothing is kept of a turn that is over: neither
// the access token nor the refresh token.
func (c *check) outOfTurn(ctx context.Context, g mandate.Grant, w mandate.Wanted, over, now mandate.Turn) error {
	epoch, err := c.epoch.Epoch()
	if err != nil {
		return err
	}
	early, late := over, now
	early.Fence, late.Fence = now.Fence, over.Fence
	for _, turn := range []mandate.Turn{over, early, late} {
		for _, next := range []mandate.Secret{{}, mandate.NewSecret("out of turn")} {
			k := mandate.Keep{Grant: g, Epoch: epoch, Turn: turn, Next: next, Token: c.accessToken(g, w, "out of turn")}
			if err := c.vault.Keep(ctx, k); !errors.Is(err, mandate.ErrSuperseded) {
				return fmt.Errorf("Keep out of turn: got error %v, want %v", err, mandate.ErrSuperseded)
			}
		}
	}
	if now, err := c.vault.Open(ctx, c.key); err != nil || now.Version != g.Version {
		return fmt.Errorf("Keep returned %w, and stored the refresh token (error %w)", mandate.ErrSuperseded, err)
	}
	return nil
}

// shared finds out whether a token reaches others, and only as long as it may.
func (c *check) shared(ctx context.Context) error {
	if c.turns == nil {
		return nil
	}
	g, err := c.vault.Open(ctx, c.key)
	if err != nil {
		return fmt.Errorf("Open: %w", err)
	}
	w := c.wanted(g, "https://shared.example")
	token := c.accessToken(g, w, "shared")
	if err := c.share(ctx, g, w, token, mandate.Secret{}); err != nil {
		return err
	}
	if err := c.got(ctx, w, token); err != nil {
		return err
	}
	for name, change := range map[string]func(*mandate.Wanted){
		"later epoch":        func(w *mandate.Wanted) { w.Since += 1000 },
		"longer life":        func(w *mandate.Wanted) { w.AtLeast = 2 * time.Hour },
		"another":            func(w *mandate.Wanted) { w.Not = token.Fingerprint },
		"another's tenant":   func(w *mandate.Wanted) { w.Key.Tenant = flip(w.Key.Tenant) },
		"other scopes":       func(w *mandate.Wanted) { w.Key.Scopes = []mandate.Scope{"Read", "Write"} },
		"other claims":       func(w *mandate.Wanted) { w.Key.Claims = "{}" },
		"another audience":   func(w *mandate.Wanted) { w.Key.Audience += "x" },
		"another generation": func(w *mandate.Wanted) { w.Key.Generation++ },
		"another partner":    func(w *mandate.Wanted) { w.Key.Grant.Partner = flip(w.Key.Grant.Partner) },
	} {
		other := w
		change(&other)
		turn, err := c.take(ctx, other)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if err := c.turns.Release(ctx, turn); err != nil {
			return fmt.Errorf("Release: %w", err)
		}
	}
	if err := c.overtaken(ctx, g); err != nil {
		return err
	}
	return c.sharedIsVoid(ctx, w, token)
}

// share takes a turn and keeps what came of it.
func (c *check) share(ctx context.Context, g mandate.Grant, w mandate.Wanted, token *mandate.Token, next mandate.Secret) error {
	turn, err := c.take(ctx, w)
	if err != nil {
		return err
	}
	epoch, err := c.epoch.Epoch()
	if err != nil {
		return err
	}
	if err := c.vault.Keep(ctx, mandate.Keep{Grant: g, Epoch: epoch, Turn: turn, Next: next, Token: token}); err != nil {
		return fmt.Errorf("Keep: %w", err)
	}
	return nil
}

// got finds out whether another gets token.
func (c *check) got(ctx context.Context, w mandate.Wanted, token *mandate.Token) error {
	got, err := c.turns.Shared(ctx, w)
	if err != nil || got == nil {
		return fmt.Errorf("Shared: got error %v, want a token that was stored and will do", err)
	}
	if err := asKept(got, token); err != nil {
		return err
	}
	turn, got, err := c.turns.Take(ctx, w)
	switch {
	case err != nil:
		return fmt.Errorf("Take: %w", err)
	case got == nil || turn.Owner != "":
		return errors.New("Take returned a turn where a token was stored that will do")
	}
	return asKept(got, token)
}

// asKept finds out whether a token is the one that was kept.
func asKept(got, token *mandate.Token) error {
	switch {
	case got.Access.Reveal() != token.Access.Reveal(), got.Tenant != token.Tenant, got.Audience != token.Audience,
		!slices.Equal(got.Scopes, token.Scopes), got.Generation != token.Generation, got.Fingerprint != token.Fingerprint,
		got.UTI != token.UTI, got.CorrelationID != token.CorrelationID:
		return errors.New("a token came back as other than it was kept")
	}
	if late := got.Expires.Sub(token.Expires); late > time.Second || late < -time.Minute {
		return fmt.Errorf("a token came back that expires %v later than it does", late)
	}
	return nil
}

// overtaken finds out what is kept of a redemption whose refresh token was
// overtaken: the access token may be.
func (c *check) overtaken(ctx context.Context, old mandate.Grant) error {
	w := c.wanted(old, "https://overtaken.example")
	if err := c.share(ctx, old, w, c.accessToken(old, w, "first"), mandate.NewSecret("rotated in turn")); err != nil {
		return err
	}
	if g, err := c.vault.Open(ctx, c.key); err != nil || g.Refresh.Reveal() != "rotated in turn" {
		return fmt.Errorf("Open after Keep in turn: got error %v, want the refresh token that was kept", err)
	}
	w = c.wanted(old, "https://customer.example")
	if err := c.share(ctx, old, w, c.accessToken(old, w, "customer"), mandate.Secret{}); err != nil {
		return fmt.Errorf("an access token alone, after a rotation: %w", err)
	}
	w = c.wanted(old, "https://late.example")
	if err := c.share(ctx, old, w, c.accessToken(old, w, "late"), mandate.NewSecret("late")); !errors.Is(err, mandate.ErrRotated) {
		return fmt.Errorf("Keep in turn of a version that is over: got error %v, want %v", err, mandate.ErrRotated)
	}
	// The turn is over.
	turn, token, err := c.turns.Take(ctx, w)
	if err != nil {
		return fmt.Errorf("Take after %w: %w", mandate.ErrRotated, err)
	}
	if token == nil {
		return c.turns.Release(ctx, turn)
	}
	return nil
}

// sharedIsVoid finds out whether nothing of before is shared after a consent,
// and no turn of before is worth anything.
func (c *check) sharedIsVoid(ctx context.Context, w mandate.Wanted, token *mandate.Token) error {
	if err := c.got(ctx, w, token); err != nil {
		return err
	}
	held := w
	held.Key.Audience = "https://held.example"
	turn, err := c.take(ctx, held)
	if err != nil {
		return err
	}
	old, err := c.vault.Open(ctx, c.key)
	if err != nil {
		return fmt.Errorf("Open: %w", err)
	}
	if _, err := c.next(ctx, "after sharing", nil); err != nil {
		return err
	}
	epoch, err := c.epoch.Epoch()
	if err != nil {
		return err
	}
	k := mandate.Keep{Grant: old, Epoch: epoch, Turn: turn, Token: c.accessToken(old, held, "void")}
	if err := c.vault.Keep(ctx, k); !errors.Is(err, mandate.ErrSuperseded) {
		return fmt.Errorf("Keep in a turn of the generation before: got error %v, want %v", err, mandate.ErrSuperseded)
	}
	turn, err = c.take(ctx, w)
	if err != nil {
		return fmt.Errorf("after another consent: %w", err)
	}
	return c.turns.Release(ctx, turn)
}

// turnsAtOnce finds out whether of many who want the same token one redeems
// it, and all get it.
func (c *check) turnsAtOnce(ctx context.Context) error {
	if c.turns == nil {
		return nil
	}
	g, err := c.vault.Open(ctx, c.key)
	if err != nil {
		return fmt.Errorf("Open: %w", err)
	}
	epoch, err := c.epoch.Epoch()
	if err != nil {
		return err
	}
	w := c.wanted(g, "https://race.example")
	_, err = race(func(i int) error {
		turn, token, err := c.turns.Take(ctx, w)
		if err != nil {
			return err
		}
		if token != nil {
			return errShared
		}
		time.Sleep(50 * time.Millisecond)
		return c.vault.Keep(ctx, mandate.Keep{Grant: g, Epoch: epoch, Turn: turn, Token: c.accessToken(g, w, fmt.Sprint("racer ", i))})
	}, errShared)
	return err
}

var errShared = errors.New("another's token will do")
