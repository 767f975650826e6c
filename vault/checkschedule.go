package vault

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/mandate-sam/mandate"
)

// due finds out whether a schedule remembers.
func (c *check) due(ctx context.Context) error {
	if c.schedule == nil {
		return nil
	}
	past := time.Unix(1, 0) // before anything else can be due
	g, err := c.next(ctx, "scheduled", func(g *mandate.Grant) { g.Due = past })
	if err != nil {
		return err
	}
	if err := c.isDue(ctx, past, true); err != nil {
		return err
	}
	if err := c.isDue(ctx, past.Add(-time.Second), false); err != nil {
		return err
	}
	if err := c.claims(ctx, g, past); err != nil {
		return err
	}
	for failures, fault := range []string{"", "no answer", "refused", ""} {
		if fault == "" {
			failures = 0
		}
		if err := c.attempt(ctx, g, past, fault, failures); err != nil {
			return err
		}
	}
	old := g
	if _, err := c.next(ctx, "later", func(g *mandate.Grant) { g.Due = time.Now().Add(time.Hour) }); err != nil {
		return err
	}
	if err := c.schedule.Attempted(ctx, old, past, "of a generation that is over"); err != nil {
		return fmt.Errorf("Attempted of a generation that is over: %w", err)
	}
	if head, err := c.vault.Head(ctx, c.key); err != nil || head.LastFault != "" || head.Due.Equal(past) {
		return fmt.Errorf("Attempted of a generation that is over changed the one that is not (error %w)", err)
	}
	return c.isDue(ctx, past, false)
}

// isDue finds out whether the grant is among those due at a time.
func (c *check) isDue(ctx context.Context, now time.Time, want bool) error {
	all, err := c.schedule.Due(ctx, now, 1)
	if err != nil {
		return fmt.Errorf("Due: %w", err)
	}
	if len(all) > 1 {
		return fmt.Errorf("Due returned %d grants, and at most 1 was asked for", len(all))
	}
	got := len(all) == 1 && all[0].Key == c.key
	if got != want {
		return fmt.Errorf("Due at %v has the grant: %t, want %t", now, got, want)
	}
	if got && (all[0].State != mandate.StateActive || !all[0].Refresh.IsZero()) {
		return errors.New("Due returned a grant that is not active, or its refresh token")
	}
	return nil
}

// claims finds out whether one of several claims a grant that is due.
func (c *check) claims(ctx context.Context, g mandate.Grant, past time.Time) error {
	lost := errors.New("claimed by another")
	_, err := race(func(int) error {
		mine, err := c.schedule.Claim(ctx, g, past.Add(time.Hour))
		if err == nil && !mine {
			return lost
		}
		return err
	}, lost)
	if err != nil {
		return fmt.Errorf("Claim: %w", err)
	}
	return c.isDue(ctx, past, false)
}

// attempt notes an attempt and finds out what is remembered of it.
func (c *check) attempt(ctx context.Context, g mandate.Grant, next time.Time, fault string, failures int) error {
	if err := c.schedule.Attempted(ctx, g, next, fault); err != nil {
		return fmt.Errorf("Attempted: %w", err)
	}
	head, err := c.vault.Head(ctx, c.key)
	if err != nil {
		return fmt.Errorf("Head: %w", err)
	}
	if head.LastFault != fault || head.Failures != failures || !head.Due.Equal(next) || head.Attempted.IsZero() {
		return fmt.Errorf("after an attempt with fault %q: got fault %q, %d failures, due %v, attempted %v; want %d failures, due %v",
			fault, head.LastFault, head.Failures, head.Due, head.Attempted, failures, next)
	}
	return c.isDue(ctx, next, true)
}
