package vault

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/mandate-sam/mandate"
)

// next activates a grant as the next generation, changed by change.
func (c *check) next(ctx context.Context, refresh string, change func(*mandate.Grant)) (mandate.Grant, error) {
	last, err := c.vault.Head(ctx, c.key)
	if err != nil {
		return mandate.Grant{}, fmt.Errorf("Head: %w", err)
	}
	g := c.candidate(last.Last+1, refresh)
	if change != nil {
		change(&g)
	}
	return g, c.activate(ctx, g)
}

// otherUser makes g another user's.
func otherUser(g *mandate.Grant) {
	g.User.Object = mandate.ObjectID(flip(mandate.TenantID(g.User.Object)))
}

// fallbacks finds out what stands in for what.
func (c *check) fallbacks(ctx context.Context) error {
	for i, tt := range []struct {
		name   string
		change func(*mandate.Grant)
		want   bool
	}{
		{"the same user", nil, true},
		{"another user", otherUser, false},
		{"an import", func(g *mandate.Grant) { otherUser(g); g.Origin = mandate.OriginImport }, false},
		{"the same user, by consent", otherUser, true},
		{"a compromised user", func(g *mandate.Grant) { otherUser(g); g.Compromised = true }, false},
	} {
		old, err := c.vault.Open(ctx, c.key)
		if err != nil {
			return fmt.Errorf("Open: %w", err)
		}
		if _, err := c.next(ctx, fmt.Sprint("fall-back ", i), tt.change); err != nil {
			return fmt.Errorf("%s: %w", tt.name, err)
		}
		if err := c.fallback(ctx, old, tt.want); err != nil {
			return fmt.Errorf("%s: %w", tt.name, err)
		}
	}
	return c.fallbackKeeps(ctx)
}

// fallback finds out whether old is the fall-back now, or nothing is.
func (c *check) fallback(ctx context.Context, old mandate.Grant, want bool) error {
	got, err := c.vault.Fallback(ctx, c.key)
	if !want {
		if !errors.Is(err, mandate.ErrNoGrant) || !got.Refresh.IsZero() {
			return fmt.Errorf("Fallback where there must be none: got generation %d and error %v, want %v", got.Generation, err, mandate.ErrNoGrant)
		}
		return nil
	}
	if err != nil {
		return fmt.Errorf("Fallback: %w", err)
	}
	if got.State != mandate.StateFallback || got.Generation != old.Generation || got.Refresh.Reveal() != old.Refresh.Reveal() {
		return fmt.Errorf("Fallback returned generation %d, %s; want generation %d with its token", got.Generation, got.State, old.Generation)
	}
	if left := time.Until(got.Fallback); left <= mandate.FallbackLife-time.Hour || left > mandate.FallbackLife+time.Hour {
		return fmt.Errorf("the fall-back may stand in for %v, want about %v", left, mandate.FallbackLife)
	}
	if got.Since <= old.Since {
		return fmt.Errorf("the fall-back's state has changed in epoch %d, and it was active since %d", got.Since, old.Since)
	}
	return nil
}

// fallbackKeeps finds out whether a fall-back's token is rotated like another.
func (c *check) fallbackKeeps(ctx context.Context) error {
	before, err := c.epoch.Epoch()
	if err != nil {
		return err
	}
	old, err := c.vault.Open(ctx, c.key)
	if err != nil {
		return fmt.Errorf("Open: %w", err)
	}
	if _, err := c.next(ctx, "after the fall-back", func(g *mandate.Grant) { g.User = old.User }); err != nil {
		return err
	}
	if err := c.vault.Keep(ctx, mandate.Keep{Grant: old, Epoch: before, Next: mandate.NewSecret("too late")}); !errors.Is(err, mandate.ErrSuperseded) {
		return fmt.Errorf("Keep of what was active in an epoch that is over: got error %v, want %v", err, mandate.ErrSuperseded)
	}
	f, err := c.vault.Fallback(ctx, c.key)
	if err != nil {
		return fmt.Errorf("Fallback: %w", err)
	}
	if err := c.refused(ctx, c.candidate(f.Generation, "in the place of a fall-back")); err != nil {
		return err
	}
	if err := c.rotate(ctx, f, "rotated fall-back"); err != nil {
		return fmt.Errorf("Keep of a fall-back: %w", err)
	}
	if f, err = c.vault.Fallback(ctx, c.key); err != nil || f.Refresh.Reveal() != "rotated fall-back" {
		return fmt.Errorf("Fallback after Keep: got error %v, want the token that was kept", err)
	}
	if _, err := c.next(ctx, "of another user", nil); err != nil {
		return err
	}
	if err := c.rotate(ctx, f, "of a generation that was replaced"); !errors.Is(err, mandate.ErrSuperseded) {
		return fmt.Errorf("Keep of a generation that was replaced: got error %v, want %v", err, mandate.ErrSuperseded)
	}
	return nil
}

// candidates finds out whether a candidate waits, and serves nothing.
func (c *check) candidates(ctx context.Context) error {
	active, err := c.vault.Open(ctx, c.key)
	if err != nil {
		return fmt.Errorf("Open: %w", err)
	}
	if _, err := c.vault.Candidate(ctx, c.key); !errors.Is(err, mandate.ErrNoGrant) {
		return fmt.Errorf("Candidate where none was staged: got error %v, want %v", err, mandate.ErrNoGrant)
	}
	if err := c.vault.Stage(ctx, c.staged(active.Last+2, "too far")); !errors.Is(err, mandate.ErrSuperseded) {
		return fmt.Errorf("Stage of a generation after the next: got error %v, want %v", err, mandate.ErrSuperseded)
	}
	for i := range 2 { // the second takes the first one's place
		g := c.staged(active.Last+1+int64(i), fmt.Sprint("candidate ", i))
		if err := c.vault.Stage(ctx, g); err != nil {
			return fmt.Errorf("Stage: %w", err)
		}
		if err := c.waits(ctx, active, g); err != nil {
			return err
		}
		if err := c.vault.Stage(ctx, g); !errors.Is(err, mandate.ErrSuperseded) {
			return fmt.Errorf("Stage of a generation that there is already: got error %v, want %v", err, mandate.ErrSuperseded)
		}
		if err := c.rotate(ctx, g, "of a candidate"); !errors.Is(err, mandate.ErrSuperseded) {
			return fmt.Errorf("Keep of a candidate: got error %v, want %v", err, mandate.ErrSuperseded)
		}
	}
	g := c.candidate(active.Last+1, "a discarded one")
	if err := c.refused(ctx, g); err != nil {
		return err
	}
	g = c.candidate(active.Last+2, "activated candidate")
	g.Version = 3
	if err := c.activate(ctx, g); err != nil {
		return fmt.Errorf("of a candidate: %w", err)
	}
	if _, err := c.vault.Candidate(ctx, c.key); !errors.Is(err, mandate.ErrNoGrant) {
		return fmt.Errorf("Candidate after it was activated: got error %v, want %v", err, mandate.ErrNoGrant)
	}
	return c.refused(ctx, g)
}

func (c *check) staged(generation int64, refresh string) mandate.Grant {
	g := c.candidate(generation, refresh)
	g.State, g.Fallback = mandate.StateCandidate, time.Now().Add(time.Hour).Truncate(time.Millisecond)
	return g
}

// waits finds out whether g is the candidate, and active is served as before.
func (c *check) waits(ctx context.Context, active, g mandate.Grant) error {
	got, err := c.vault.Candidate(ctx, c.key)
	if err != nil {
		return fmt.Errorf("Candidate: %w", err)
	}
	if field := differs(got, g); field != "" || !got.Fallback.Equal(g.Fallback) || got.Refresh.Reveal() != g.Refresh.Reveal() {
		return fmt.Errorf("the candidate came back as other than it was staged (%s)", field)
	}
	if err := c.is(ctx, active); err != nil {
		return fmt.Errorf("after Stage: %w", err)
	}
	now, err := c.vault.Head(ctx, c.key)
	if err != nil || now.Since != active.Since || now.Last != g.Generation {
		return fmt.Errorf("after Stage, Head's Since is %d and Last %d (error %v), want %d and %d", now.Since, now.Last, err, active.Since, g.Generation)
	}
	return nil
}
