package vault

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/internal/database"
)

// TestEverythingAtOnce lets replicas redeem, share and rotate while an operator
// suspends, resumes, renews, rolls back and sweeps. Nobody may see another
// error than that something has changed, and nothing that was decided before a
// suspension may be stored after it.
func TestEverythingAtOnce(t *testing.T) {
	onBoth(t, func(t *testing.T, cfg database.Config) {
		all := replicas(t, cfg)
		holding(t, all[0])
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		for i := range 8 {
			v := all[i%len(all)]
			wg.Go(func() {
				for n := 0; ctx.Err() == nil; n++ {
					if err := redeem(v, fmt.Sprint("https://", (i+n)%3), fmt.Sprint(i, " ", n)); unexpected(err) {
						t.Errorf("redeem: %v", err)
					}
				}
			})
		}
		v := all[len(all)-1]
		for range 10 {
			for _, err := range []error{v.Suspend(ctx, contoso), keptWhileSuspended(t, v), v.Resume(ctx, contoso), renewNow(ctx, v), renewNow(ctx, v), v.Rollback(ctx, contoso), v.Sweep(ctx)} {
				if unexpected(err) {
					t.Errorf("operator: %v", err)
				}
			}
		}
		cancel()
		wg.Wait()
		if _, err := v.Open(t.Context(), contoso); err != nil {
			t.Errorf("Open after all that: %v", err)
		}
		if err := CheckMoved(t.Context(), v); err != nil {
			t.Error(err)
		}
	})
}

// unexpected reports whether an error is none of those that tell of a change.
func unexpected(err error) bool {
	for _, e := range []error{nil, mandate.ErrSuperseded, mandate.ErrRotated, mandate.ErrNoGrant, mandate.ErrNotFound} {
		if errors.Is(err, e) {
			return false
		}
	}
	return true
}

// redeem does what a broker does, for a token that others may want too.
func redeem(v *SQL, audience, what string) error {
	ctx := context.Background()
	epoch, err := patient{v.db}.Epoch()
	if err != nil {
		return err
	}
	g, err := v.Open(ctx, contoso)
	if err != nil {
		return err
	}
	c := &check{vault: v, epoch: patient{v.db}, turns: v, key: contoso}
	w := c.wanted(g, mandate.Audience(audience))
	w.Not = "of " + what
	turn, token, err := v.Take(ctx, w)
	if err != nil || token != nil {
		return err
	}
	err = v.Keep(ctx, mandate.Keep{Grant: g, Epoch: epoch, Turn: turn, Next: mandate.NewSecret("refresh " + what), Token: c.accessToken(g, w, what)})
	if err != nil && !errors.Is(err, mandate.ErrRotated) {
		return errors.Join(err, v.Release(ctx, turn))
	}
	return err
}

// keptWhileSuspended looks whether anything moves in a grant that is suspended.
func keptWhileSuspended(t *testing.T, v *SQL) error {
	state := func() (s string) {
		err := v.db.QueryRow(t.Context(), `SELECT max(version * 1000000 + generation) || ' ' || (SELECT count(sealed) FROM turns)
			FROM grants WHERE state = 'suspended'`).Scan(&s)
		if err != nil {
			t.Error(err)
		}
		return s
	}
	before := state()
	time.Sleep(20 * time.Millisecond)
	if after := state(); after != before {
		t.Errorf("a suspended grant went from %q to %q", before, after)
	}
	return nil
}

func renewNow(ctx context.Context, v *SQL) error {
	g, err := v.Head(ctx, contoso)
	if err != nil {
		return err
	}
	return v.Activate(ctx, candidate(v.db, contoso, g.Last+1, "renewed"))
}

// TestNothingIsKeptOverAChangeUnderWay: a Keep that began before a renewal was
// committed, and waited for it, stores nothing, though the generation may still
// stand in, and though what the statement had read is of before.
func TestNothingIsKeptOverAChangeUnderWay(t *testing.T) {
	onBoth(t, func(t *testing.T, cfg database.Config) {
		ctx := t.Context()
		all := replicas(t, cfg)
		v, other := all[0], all[len(all)-1]
		c, g, w, turn := redeeming(t, v)
		next := candidate(v.db, contoso, 2, "renewed")
		s, err := v.seal(ctx, "", labelOf(next), next.Refresh)
		if err != nil {
			t.Fatal(err)
		}
		r, err := rowOf(next, s)
		if err != nil {
			t.Fatal(err)
		}
		epoch := epochOf(t, v.db)
		var kept [2]error
		var wg sync.WaitGroup
		err = v.db.Change(ctx, func(tx *database.Tx) error {
			_, err := succeed(ctx, tx, next, r)
			for i, turn := range []mandate.Turn{{}, turn} {
				wg.Go(func() {
					kept[i] = other.Keep(ctx, mandate.Keep{Grant: g, Epoch: epoch, Turn: turn, Next: mandate.NewSecret("late"), Token: c.accessToken(g, w, "late")})
				})
			}
			time.Sleep(200 * time.Millisecond) // so that they have begun
			return err
		})
		wg.Wait()
		if err != nil {
			t.Fatal(err)
		}
		for i, err := range kept {
			if !errors.Is(err, mandate.ErrSuperseded) {
				t.Errorf("Keep %d: got error %v, want %v", i, err, mandate.ErrSuperseded)
			}
		}
		if f, err := v.Fallback(ctx, contoso); err != nil || f.Refresh.Reveal() != "refresh" {
			t.Errorf("Fallback: got %q, %v, want the token of before", f.Refresh.Reveal(), err)
		}
	})
}

// TestKeepLeavesTheGenerationBefore: what is rotated is the one generation that
// was redeemed, also when the one before, which may still stand in, has the same
// version.
func TestKeepLeavesTheGenerationBefore(t *testing.T) {
	onBoth(t, func(t *testing.T, cfg database.Config) {
		ctx := t.Context()
		v := replicas(t, cfg)[0]
		c, _ := holding(t, v)
		activate(t, v, candidate(v.db, contoso, 2, "renewed"))
		for i := range 4 {
			g, err := v.Open(ctx, contoso)
			if err != nil {
				t.Fatal(err)
			}
			w := c.wanted(g, mandate.Audience(fmt.Sprintf("https://%d.example.com", i)))
			turn, err := c.take(ctx, w)
			if err != nil {
				t.Fatal(err)
			}
			next := fmt.Sprintf("rotated %d", i)
			err = v.Keep(ctx, mandate.Keep{Grant: g, Epoch: epochOf(t, v.db), Turn: turn, Next: mandate.NewSecret(next), Token: c.accessToken(g, w, next)})
			if err != nil {
				t.Fatal(err)
			}
			if g, err := v.Open(ctx, contoso); err != nil || g.Generation != 2 || g.Refresh.Reveal() != next {
				t.Errorf("Open: got generation %d, %q, %v", g.Generation, g.Refresh.Reveal(), err)
			}
			if f, err := v.Fallback(ctx, contoso); err != nil || f.Refresh.Reveal() != "refresh" {
				t.Errorf("Fallback at version %d: got %q, %v, want the token of before", g.Version, f.Refresh.Reveal(), err)
			}
		}
	})
}

// TestNothingIsKeptInARowThatChanges: what a Keep waits for in the grant's own
// row counts, though neither its turn nor what it had read of the epoch tells.
func TestNothingIsKeptInARowThatChanges(t *testing.T) {
	for _, change := range []string{`since = (SELECT epoch FROM head)`, `state = 'suspended'`, `version = version + 1`} {
		onBoth(t, func(t *testing.T, cfg database.Config) { keepWhileRowChanges(t, cfg, change) })
	}
}

func keepWhileRowChanges(t *testing.T, cfg database.Config, change string) {
	ctx := t.Context()
	all := replicas(t, cfg)
	v, other := all[0], all[len(all)-1]
	c, g, w, turn := redeeming(t, v)
	epoch := epochOf(t, v.db)
	var kept error
	var wg sync.WaitGroup
	err := v.db.Change(ctx, func(tx *database.Tx) error {
		_, err := tx.Exec(ctx, `UPDATE grants SET `+change+` WHERE `+ofGrant, keyArgs(contoso)...)
		wg.Go(func() {
			kept = other.Keep(ctx, mandate.Keep{Grant: g, Epoch: epoch, Turn: turn, Next: mandate.NewSecret("late"), Token: c.accessToken(g, w, "late")})
		})
		time.Sleep(200 * time.Millisecond) // so that it has begun
		return err
	})
	wg.Wait()
	if err != nil {
		t.Fatal(err)
	}
	if !errors.Is(kept, mandate.ErrSuperseded) {
		t.Errorf("%s: Keep: got error %v, want %v", change, kept, mandate.ErrSuperseded)
	}
	var late int64
	err = v.db.QueryRow(ctx, `SELECT count(*) FROM grants WHERE redeemed > $1`, g.Redeemed.UnixMilli()).Scan(&late)
	if err != nil || late > 0 {
		t.Errorf("%s: what was redeemed has been stored all the same; %v", change, err)
	}
}

// TestWhyNothingWasKept: a grant that has changed counts before a refresh token
// that another replica has replaced, after which the access token still is good.
func TestWhyNothingWasKept(t *testing.T) {
	for change, want := range map[string]error{
		`version = version + 1`:                              mandate.ErrRotated,
		`version = version + 1, state = 'suspended'`:         mandate.ErrSuperseded,
		`version = version + 1, since = since + 1000`:        mandate.ErrSuperseded,
		`version = version + 1, generation = generation + 1`: mandate.ErrSuperseded,
	} {
		onBoth(t, func(t *testing.T, cfg database.Config) {
			ctx := t.Context()
			v := replicas(t, cfg)[0]
			c, g, w, turn := redeeming(t, v)
			err := v.db.Change(ctx, func(tx *database.Tx) error {
				_, err := tx.Exec(ctx, `UPDATE grants SET `+change)
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
			for _, turn := range []mandate.Turn{{}, turn} {
				k := mandate.Keep{Grant: g, Epoch: epochOf(t, v.db), Turn: turn, Next: mandate.NewSecret("late"), Token: c.accessToken(g, w, "late")}
				if err := v.Keep(ctx, k); !errors.Is(err, want) {
					t.Errorf("%s: Keep with the turn of %q: got error %v, want %v", change, turn.Owner, err, want)
				}
				k.Epoch--
				if err := v.Keep(ctx, k); !errors.Is(err, mandate.ErrSuperseded) {
					t.Errorf("%s: Keep of before, with the turn of %q: got error %v, want %v", change, turn.Owner, err, mandate.ErrSuperseded)
				}
			}
		})
	}
}

// TestKeepNeedsItsEpochAndTurn: what was decided before any change of security
// state is not kept after it, nor what another's turn brought, though the grant
// is as it was; and what is kept ends its turn.
func TestKeepNeedsItsEpochAndTurn(t *testing.T) {
	onBoth(t, func(t *testing.T, cfg database.Config) {
		ctx := t.Context()
		v := replicas(t, cfg)[0]
		c, g, w, turn := redeeming(t, v)
		for _, next := range []mandate.Secret{{}, mandate.NewSecret("next")} {
			keep := func(change string, alter func(*mandate.Keep)) error {
				k := mandate.Keep{Grant: g, Epoch: epochOf(t, v.db), Turn: turn, Next: next, Token: c.accessToken(g, w, "late")}
				if err := v.db.Change(ctx, func(tx *database.Tx) error { _, err := tx.Exec(ctx, `UPDATE grants SET `+change); return err }); err != nil {
					t.Fatal(err)
				}
				alter(&k)
				return v.Keep(ctx, k)
			}
			now := func(k *mandate.Keep) { k.Epoch = epochOf(t, v.db) }
			for name, err := range map[string]error{
				"an earlier epoch":  keep(`version = version`, func(*mandate.Keep) {}),
				"another fence":     keep(`version = version`, func(k *mandate.Keep) { now(k); k.Turn.Fence++ }),
				"a suspended grant": keep(`state = 'suspended'`, now),
				"a later grant":     keep(`state = 'active', since = since + 1000`, now),
			} {
				if !errors.Is(err, mandate.ErrSuperseded) {
					t.Errorf("%s, next %v: got error %v, want %v", name, !next.IsZero(), err, mandate.ErrSuperseded)
				}
			}
			if err := keep(`since = since - 1000`, now); err != nil {
				t.Errorf("Keep: %v", err)
			}
			var owner string
			if err := v.db.QueryRow(ctx, `SELECT owner FROM turns`).Scan(&owner); err != nil || owner != "" {
				t.Errorf("the turn has not ended: %q, %v", owner, err)
			}
			w.Not = c.accessToken(g, w, "late").Fingerprint
			var err error
			if turn, err = c.take(ctx, w); err != nil {
				t.Fatal(err)
			}
		}
	})
}
