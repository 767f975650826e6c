package vault

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/mandate-sam/mandate"
)

// A Subject is what [Check] exercises. All of its parts are of one store.
type Subject struct {
	Vault    mandate.Vault
	Epoch    mandate.Epoch    // which the vault raises
	Turns    mandate.Turns    // nil if it has none
	Schedule mandate.Schedule // nil if it has none
	Custody  mandate.Custody  // nil if it is not one
}

// Check exercises a store and reports the first way in which it is not a
// proper [mandate.Vault], and, where it is said to be those as well,
// [mandate.Turns], [mandate.Schedule] and [mandate.Custody]. It is the test of every
// implementation, and what an operator runs against their own.
//
// It uses grants of k and of keys that differ from k in one part; none of them
// may exist before. It leaves behind an active grant of k whose refresh token
// is no real one: use a partner that does not exist. Nothing else may raise the
// epoch meanwhile.
func Check(ctx context.Context, s Subject, k mandate.GrantKey) error {
	c := check{s.Vault, s.Epoch, s.Turns, s.Schedule, s.Custody, k}
	for _, step := range []struct {
		name string
		run  func(context.Context) error
	}{
		{"before the first consent", c.absent},
		{"first consent", c.first},
		{"rotation", c.rotation},
		{"rotations at once", c.rotationsAtOnce},
		{"second consent", c.second},
		{"consents at once", c.consentsAtOnce},
		{"fall-back", c.fallbacks},
		{"candidates", c.candidates},
		{"turns", c.turn},
		{"shared tokens", c.shared},
		{"turns at once", c.turnsAtOnce},
		{"schedule", c.due},
		{"custody", c.custodian},
		{"another key", c.otherKeys},
	} {
		if err := step.run(ctx); err != nil {
			return fmt.Errorf("%s: %w", step.name, err)
		}
	}
	return nil
}

type check struct {
	vault    mandate.Vault
	epoch    mandate.Epoch
	turns    mandate.Turns
	schedule mandate.Schedule
	custody  mandate.Custody
	key      mandate.GrantKey
}

// candidate is a grant as a consent makes it.
func (c *check) candidate(generation int64, refresh string) mandate.Grant {
	now := time.Now().Truncate(time.Millisecond)
	return mandate.Grant{
		Key: c.key, Generation: generation, Version: 1, State: mandate.StateActive, Origin: mandate.OriginConsent, Due: now.Add(time.Hour),
		User:     mandate.Identity{Tenant: c.key.Partner, Object: mandate.ObjectID(c.key.Partner)},
		UserName: "somebody@example.com", Consented: now, Redeemed: now, Until: now.Add(time.Hour),
		Evidence:    mandate.Evidence{PartnerCenter: true, AMR: []mandate.TokenAMR{{Token: "id_token", Methods: []string{"pwd", "mfa"}}}, AuthTime: now.UTC()},
		Audiences:   []mandate.GrantedAudience{{Audience: "https://example.com", Scopes: []mandate.Scope{"Read", "Write"}}},
		AgentGroups: []string{"AdminAgents"},
		Refresh:     mandate.NewSecret(refresh),
	}
}

func (c *check) absent(ctx context.Context) error {
	for _, read := range c.readers() {
		_, err := read(ctx, c.key)
		var none *mandate.NoGrantError
		if !errors.As(err, &none) || none.Generation != 0 || none.State != "" {
			return fmt.Errorf("reading what is not there: got error %v, want a NoGrantError without a generation", err)
		}
	}
	g := c.candidate(1, "never stored")
	if err := c.rotate(ctx, g, "next"); !errors.Is(err, mandate.ErrSuperseded) {
		return fmt.Errorf("Keep of what is not there: got error %v, want %v", err, mandate.ErrSuperseded)
	}
	g.Generation = 2
	return c.refused(ctx, g)
}

func (c *check) first(ctx context.Context) error {
	before, err := c.epoch.Epoch()
	if err != nil {
		return err
	}
	g := c.candidate(1, "first")
	if err := c.activate(ctx, g); err != nil {
		return err
	}
	if err := c.vault.Keep(ctx, mandate.Keep{Grant: g, Epoch: before, Next: mandate.NewSecret("under the old epoch")}); !errors.Is(err, mandate.ErrSuperseded) {
		return fmt.Errorf("Keep under an epoch that is over: got error %v, want %v", err, mandate.ErrSuperseded)
	}
	if err := c.is(ctx, g); err != nil {
		return err
	}
	return c.refused(ctx, g)
}

func (c *check) rotation(ctx context.Context) error {
	old, err := c.vault.Open(ctx, c.key)
	if err != nil {
		return fmt.Errorf("Open: %w", err)
	}
	before, err := c.epoch.Epoch()
	if err != nil {
		return err
	}
	if err := c.vault.Keep(ctx, mandate.Keep{Grant: old, Epoch: before, Next: mandate.NewSecret("rotated")}); err != nil {
		return fmt.Errorf("Keep: %w", err)
	}
	if after, err := c.epoch.Epoch(); err != nil || after != before {
		return fmt.Errorf("Keep changed the epoch from %d to %d (error %v); it is no change of security state", before, after, err)
	}
	now, err := c.vault.Open(ctx, c.key)
	if err != nil {
		return fmt.Errorf("Open after Keep: %w", err)
	}
	if now.Version <= old.Version || now.Redeemed.Before(old.Redeemed) {
		return fmt.Errorf("Keep left version %d, redeemed %v; want more than %d, and not before %v", now.Version, now.Redeemed, old.Version, old.Redeemed)
	}
	want := old
	want.Version, want.Redeemed, want.Refresh = now.Version, now.Redeemed, mandate.NewSecret("rotated")
	if err := c.is(ctx, want); err != nil {
		return err
	}
	if err := c.rotate(ctx, old, "stale"); !errors.Is(err, mandate.ErrRotated) || errors.Is(err, mandate.ErrSuperseded) {
		return fmt.Errorf("Keep of a version that is over: got error %v, want %v", err, mandate.ErrRotated)
	}
	if err := c.vault.Keep(ctx, mandate.Keep{Grant: old, Epoch: before - 1, Next: mandate.NewSecret("stale and late")}); !errors.Is(err, mandate.ErrSuperseded) {
		return fmt.Errorf("Keep of a version and under an epoch that are over: got error %v, want %v", err, mandate.ErrSuperseded)
	}
	early := now
	early.Version++
	if err := c.rotate(ctx, early, "early"); !errors.Is(err, mandate.ErrSuperseded) {
		return fmt.Errorf("Keep of a version that is still to come: got error %v, want %v", err, mandate.ErrSuperseded)
	}
	return c.is(ctx, want)
}

// atOnce is how many try the same thing at the same time.
const atOnce = 8

func (c *check) rotationsAtOnce(ctx context.Context) error {
	g, err := c.vault.Open(ctx, c.key)
	if err != nil {
		return fmt.Errorf("Open: %w", err)
	}
	winner, err := race(func(i int) error { return c.rotate(ctx, g, fmt.Sprint("racer ", i)) }, mandate.ErrRotated)
	if err != nil {
		return fmt.Errorf("Keep: %w", err)
	}
	now, err := c.vault.Open(ctx, c.key)
	if err != nil {
		return fmt.Errorf("Open: %w", err)
	}
	if want := fmt.Sprint("racer ", winner); now.Refresh.Reveal() != want {
		return fmt.Errorf("Keep of %q returned nil, and another's token is stored", want)
	}
	return nil
}

func (c *check) second(ctx context.Context) error {
	old, err := c.vault.Open(ctx, c.key)
	if err != nil {
		return fmt.Errorf("Open: %w", err)
	}
	if err := c.refused(ctx, c.candidate(old.Generation+2, "skips one")); err != nil {
		return err
	}
	g := c.candidate(old.Generation+1, "second")
	if err := c.activate(ctx, g); err != nil {
		return err
	}
	return c.is(ctx, g)
}

func (c *check) consentsAtOnce(ctx context.Context) error {
	old, err := c.vault.Head(ctx, c.key)
	if err != nil {
		return fmt.Errorf("Head: %w", err)
	}
	winner, err := race(func(i int) error {
		return c.vault.Activate(ctx, c.candidate(old.Generation+1, fmt.Sprint("racer ", i)))
	}, mandate.ErrSuperseded)
	if err != nil {
		return fmt.Errorf("Activate: %w", err)
	}
	g, err := c.vault.Open(ctx, c.key)
	if err != nil {
		return fmt.Errorf("Open: %w", err)
	}
	if g.Generation != old.Generation+1 || g.Refresh.Reveal() != fmt.Sprint("racer ", winner) {
		return fmt.Errorf("Activate returned nil to one, and another's grant is stored (generation %d)", g.Generation)
	}
	return nil
}

// otherKeys finds out whether a grant is found by less than its whole key.
func (c *check) otherKeys(ctx context.Context) error {
	for i := range 3 {
		k := c.key
		switch i {
		case 0:
			k.Cloud += "x"
		case 1:
			k.Application = mandate.AppID(flip(mandate.TenantID(k.Application)))
		case 2:
			k.Partner = flip(k.Partner)
		}
		for _, read := range c.readers() {
			if _, err := read(ctx, k); !errors.Is(err, mandate.ErrNoGrant) {
				return fmt.Errorf("reading %v, where only %v was stored: got error %v, want %v", k, c.key, err, mandate.ErrNoGrant)
			}
		}
	}
	return nil
}

// flip returns an ID which differs from t in its last digit.
func flip(t mandate.TenantID) mandate.TenantID {
	s := []byte(t.String())
	s[len(s)-1] = "123456789abcdefe"[max(0, slices.Index([]byte("0123456789abcdef"), s[len(s)-1]))]
	other, err := mandate.ParseTenantID(string(s))
	if err != nil {
		panic(err) // the new digit is never 0
	}
	return other
}

func (c *check) readers() []func(context.Context, mandate.GrantKey) (mandate.Grant, error) {
	return []func(context.Context, mandate.GrantKey) (mandate.Grant, error){c.vault.Head, c.vault.Open}
}

// rotate rotates under the current epoch.
func (c *check) rotate(ctx context.Context, g mandate.Grant, next string) error {
	epoch, err := c.epoch.Epoch()
	if err != nil {
		return err
	}
	return c.vault.Keep(ctx, mandate.Keep{Grant: g, Epoch: epoch, Next: mandate.NewSecret(next)})
}

// activate activates g, and finds out whether that raised the epoch.
func (c *check) activate(ctx context.Context, g mandate.Grant) error {
	before, err := c.epoch.Epoch()
	if err != nil {
		return err
	}
	if err := c.vault.Activate(ctx, g); err != nil {
		return fmt.Errorf("Activate: %w", err)
	}
	if after, err := c.epoch.Epoch(); err != nil || after <= before {
		return fmt.Errorf("Activate left the epoch at %d (error %v), want more than %d", after, err, before)
	}
	return c.is(ctx, g)
}

// refused finds out whether g cannot be activated, and nothing comes of it.
func (c *check) refused(ctx context.Context, g mandate.Grant) error {
	before, err := c.epoch.Epoch()
	if err != nil {
		return err
	}
	if err := c.vault.Activate(ctx, g); !errors.Is(err, mandate.ErrSuperseded) {
		return fmt.Errorf("Activate of generation %d out of turn: got error %v, want %v", g.Generation, err, mandate.ErrSuperseded)
	}
	if after, err := c.epoch.Epoch(); err != nil || after != before {
		return fmt.Errorf("Activate returned an error, and changed the epoch from %d to %d (error %v)", before, after, err)
	}
	return nil
}

// is finds out whether g is what Head and Open return.
func (c *check) is(ctx context.Context, g mandate.Grant) error {
	head, err := c.vault.Head(ctx, c.key)
	if err != nil {
		return fmt.Errorf("Head: %w", err)
	}
	if !head.Refresh.IsZero() {
		return errors.New("Head returned the refresh token")
	}
	open, err := c.vault.Open(ctx, c.key)
	if err != nil {
		return fmt.Errorf("Open: %w", err)
	}
	if open.Refresh.Reveal() != g.Refresh.Reveal() {
		return errors.New("Open returned another refresh token than was stored last")
	}
	for _, got := range []mandate.Grant{head, open} {
		if field := differs(got, g); field != "" {
			return fmt.Errorf("%s came back as other than it was stored", field)
		}
	}
	return nil
}

// race runs try at once for several, of whom one must win and all others lose
// with the error lost. It returns the winner.
func race(try func(i int) error, lost error) (winner int, err error) {
	var errs [atOnce]error
	var wg sync.WaitGroup
	for i := range errs {
		wg.Go(func() { errs[i] = try(i) })
	}
	wg.Wait()
	won := 0
	for i, err := range errs {
		if err == nil {
			winner, won = i, won+1
		} else if !errors.Is(err, lost) {
			return 0, fmt.Errorf("the loser of a race got error %v, want %v", err, lost)
		}
	}
	if won != 1 {
		return 0, fmt.Errorf("%d of %d won a race, want 1", won, atOnce)
	}
	return winner, nil
}

// differs names the first field in which a stored grant is not what was given
// to be stored, the refresh token left out.
func differs(got, want mandate.Grant) string {
	for _, f := range []struct {
		name string
		same bool
	}{
		{"Key", got.Key == want.Key},
		{"Generation", got.Generation == want.Generation},
		{"Version", got.Version == want.Version},
		{"State", got.State == want.State},
		{"Origin", got.Origin == want.Origin},
		{"Compromised", got.Compromised == want.Compromised},
		{"User", got.User == want.User && got.UserName == want.UserName},
		{"Consented", got.Consented.Equal(want.Consented)},
		{"Until", got.Until.Equal(want.Until)},
		{"Redeemed", got.Redeemed.Equal(want.Redeemed)},
		{"Evidence", sameEvidence(got.Evidence, want.Evidence)},
		{"Audiences", slices.EqualFunc(got.Audiences, want.Audiences, sameAudience)},
		{"AgentGroups", slices.Equal(got.AgentGroups, want.AgentGroups)},
	} {
		if !f.same {
			return f.name
		}
	}
	return ""
}

func sameAudience(a, b mandate.GrantedAudience) bool {
	return a.Audience == b.Audience && slices.Equal(a.Scopes, b.Scopes)
}

func sameEvidence(a, b mandate.Evidence) bool {
	return a.PartnerCenter == b.PartnerCenter && a.AuthTime.Equal(b.AuthTime) &&
		slices.EqualFunc(a.AMR, b.AMR, func(a, b mandate.TokenAMR) bool { return a.Token == b.Token && slices.Equal(a.Methods, b.Methods) })
}
