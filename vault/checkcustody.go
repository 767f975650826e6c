package vault

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/mandate-sam/mandate"
)

// custodian finds out what an operator's acts do to a grant.
func (c *check) custodian(ctx context.Context) error {
	if c.custody == nil {
		return nil
	}
	for _, step := range []struct {
		name string
		run  func(context.Context) error
	}{
		{"Suspend and Resume", c.suspended},
		{"Rollback", c.rolledBack},
		{"Discard", c.discarded},
		{"Withdraw", c.withdrawn},
	} {
		if err := step.run(ctx); err != nil {
			return fmt.Errorf("%s: %w", step.name, err)
		}
	}
	return nil
}

// act does something to the grant, and finds out whether that raised the epoch
// and made whatever was under way worthless.
func (c *check) act(ctx context.Context, do func(context.Context, mandate.GrantKey) error) error {
	before, err := c.epoch.Epoch()
	if err != nil {
		return err
	}
	g, opens := c.vault.Open(ctx, c.key)
	if err := do(ctx, c.key); err != nil {
		return err
	}
	after, err := c.epoch.Epoch()
	if err != nil || after <= before {
		return fmt.Errorf("the epoch is %d (error %v), want more than %d", after, err, before)
	}
	if opens != nil {
		return nil
	}
	k := mandate.Keep{Grant: g, Epoch: before, Next: mandate.NewSecret("under way")}
	if err := c.vault.Keep(ctx, k); !errors.Is(err, mandate.ErrSuperseded) {
		return fmt.Errorf("Keep of what was under way: got error %v, want %v", err, mandate.ErrSuperseded)
	}
	return nil
}

// nothing finds out whether nothing is served, for the reason of a state.
func (c *check) nothing(ctx context.Context, want mandate.State) error {
	for _, read := range append(c.readers(), c.vault.Fallback) {
		_, err := read(ctx, c.key)
		var none *mandate.NoGrantError
		if !errors.As(err, &none) || none.State != want {
			return fmt.Errorf("reading the grant: got error %v, want a NoGrantError that says %q", err, want)
		}
	}
	return nil
}

// refuses finds out whether acts that have nothing to act on are refused.
func (c *check) refuses(ctx context.Context, want error, acts ...func(context.Context, mandate.GrantKey) error) error {
	for i, act := range acts {
		before, _ := c.epoch.Epoch()
		if err := act(ctx, c.key); !errors.Is(err, want) {
			return fmt.Errorf("act %d with nothing to act on: got error %v, want %v", i, err, want)
		}
		if after, err := c.epoch.Epoch(); err != nil || after != before {
			return fmt.Errorf("act %d did nothing, and raised the epoch from %d to %d (error %v)", i, before, after, err)
		}
	}
	return nil
}

func (c *check) suspended(ctx context.Context) error {
	g, err := c.next(ctx, "to be suspended", nil)
	if err != nil {
		return err
	}
	if err := c.refuses(ctx, mandate.ErrNotFound, c.custody.Resume); err != nil {
		return err
	}
	if err := c.act(ctx, c.custody.Suspend); err != nil {
		return err
	}
	if err := c.nothing(ctx, mandate.StateSuspended); err != nil {
		return err
	}
	if err := c.refuses(ctx, mandate.ErrNoGrant, c.custody.Suspend); err != nil {
		return err
	}
	if err := c.refuses(ctx, mandate.ErrNotFound, c.custody.Rollback); err != nil {
		return err
	}
	if err := c.rotate(ctx, g, "of a suspended one"); !errors.Is(err, mandate.ErrSuperseded) {
		return fmt.Errorf("Keep of a suspended grant: got error %v, want %v", err, mandate.ErrSuperseded)
	}
	if err := c.refused(ctx, c.candidate(g.Generation+1, "over a suspended one")); err != nil {
		return err
	}
	if held, err := c.custody.Held(ctx, c.key); err != nil || held.Refresh.Reveal() != "to be suspended" {
		return fmt.Errorf("Held: got error %v, want the suspended generation", err)
	}
	if err := c.act(ctx, c.custody.Resume); err != nil {
		return err
	}
	if err := c.refuses(ctx, mandate.ErrNotFound, c.custody.Rollback); err != nil {
		return fmt.Errorf("past a suspension: %w", err)
	}
	return c.is(ctx, g)
}

func (c *check) rolledBack(ctx context.Context) error {
	old, err := c.next(ctx, "before", nil)
	if err != nil {
		return err
	}
	g, err := c.next(ctx, "to be rolled back", nil)
	if err != nil {
		return err
	}
	if err := c.act(ctx, c.custody.Rollback); err != nil {
		return err
	}
	if err := c.is(ctx, old); err != nil {
		return err
	}
	if err := c.refuses(ctx, mandate.ErrNotFound, c.custody.Rollback); err != nil {
		return err
	}
	head, err := c.vault.Head(ctx, c.key)
	if err != nil || head.Last != g.Generation {
		return fmt.Errorf("Head: Last is %d (error %v), want %d", head.Last, err, g.Generation)
	}
	return c.refused(ctx, g)
}

func (c *check) discarded(ctx context.Context) error {
	g, err := c.vault.Open(ctx, c.key)
	if err != nil {
		return fmt.Errorf("Open: %w", err)
	}
	if err := c.refuses(ctx, mandate.ErrNotFound, c.custody.Discard); err != nil {
		return err
	}
	head, err := c.vault.Head(ctx, c.key)
	if err != nil {
		return fmt.Errorf("Head: %w", err)
	}
	if err := c.vault.Stage(ctx, c.staged(head.Last+1, "to be discarded")); err != nil {
		return fmt.Errorf("Stage: %w", err)
	}
	if err := c.custody.Discard(ctx, c.key); err != nil {
		return err
	}
	if _, err := c.vault.Candidate(ctx, c.key); !errors.Is(err, mandate.ErrNoGrant) {
		return fmt.Errorf("Candidate after Discard: got error %v, want %v", err, mandate.ErrNoGrant)
	}
	return c.is(ctx, g)
}

func (c *check) withdrawn(ctx context.Context) error {
	g, err := c.next(ctx, "to be withdrawn", nil)
	if err != nil {
		return err
	}
	if err := c.vault.Stage(ctx, c.staged(g.Generation+1, "to be withdrawn, too")); err != nil {
		return fmt.Errorf("Stage: %w", err)
	}
	withdraw := func(ctx context.Context, k mandate.GrantKey) error {
		_, err := c.custody.Withdraw(ctx, k)
		return err
	}
	if err := c.act(ctx, withdraw); err != nil {
		return err
	}
	if err := c.nothing(ctx, mandate.StateWithdrawn); err != nil {
		return err
	}
	if _, err := c.custody.Held(ctx, c.key); !errors.Is(err, mandate.ErrNoGrant) {
		return fmt.Errorf("Held: got error %v, want %v", err, mandate.ErrNoGrant)
	}
	if _, err := c.vault.Candidate(ctx, c.key); !errors.Is(err, mandate.ErrNoGrant) {
		return fmt.Errorf("Candidate: got error %v, want %v", err, mandate.ErrNoGrant)
	}
	if err := c.refuses(ctx, mandate.ErrNoGrant, c.custody.Suspend, withdraw); err != nil {
		return err
	}
	if err := c.refuses(ctx, mandate.ErrNotFound, c.custody.Resume, c.custody.Rollback, c.custody.Discard); err != nil {
		return err
	}
	for _, generation := range []int64{g.Generation, g.Generation + 1} {
		if err := c.refused(ctx, c.candidate(generation, "withdrawn")); err != nil {
			return err
		}
	}
	renewal := c.candidate(g.Generation+2, "renewed after all")
	renewal.Renewal = true
	if err := c.refused(ctx, renewal); err != nil {
		return err
	}
	return c.again(ctx, g.Generation+2)
}

// again consents anew, and finds out whether all tombstones are there.
func (c *check) again(ctx context.Context, generation int64) error {
	if err := c.activate(ctx, c.candidate(generation, "again")); err != nil {
		return err
	}
	all, err := c.custody.Grants(ctx, c.key.Partner)
	if err != nil {
		return fmt.Errorf("Grants: %w", err)
	}
	all = slices.DeleteFunc(all, func(g mandate.Grant) bool { return g.Key != c.key })
	if int64(len(all)) != generation {
		return fmt.Errorf("Grants has %d generations, want %d", len(all), generation)
	}
	for i, g := range all {
		if g.Generation != generation-int64(i) || !g.Refresh.IsZero() {
			return errors.New("Grants are not in order, the newest first, without their refresh tokens")
		}
	}
	return nil
}
