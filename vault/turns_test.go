package vault

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/internal/database"
	"github.com/mandate-sam/mandate/internal/pgtest"
)

// holding returns a grant that is active, with a check whose methods speak of
// it.
func holding(t *testing.T, v *SQL) (*check, mandate.Grant) { return holdingOf(t, v, contoso) }

func holdingOf(t *testing.T, v *SQL, k mandate.GrantKey) (*check, mandate.Grant) {
	t.Helper()
	activate(t, v, candidate(v.db, k, 1, "refresh"))
	g, err := v.Open(t.Context(), k)
	if err != nil {
		t.Fatal(err)
	}
	return &check{vault: v, epoch: patient{v.db}, turns: v, schedule: v, key: k}, g
}

// redeeming returns a grant that is held, and the turn of who redeems it.
func redeeming(t *testing.T, v *SQL) (*check, mandate.Grant, mandate.Wanted, mandate.Turn) {
	t.Helper()
	c, g := holding(t, v)
	w := c.wanted(g, "https://example.com")
	turn, err := c.take(t.Context(), w)
	if err != nil {
		t.Fatal(err)
	}
	return c, g, w, turn
}

// knows waits until a replica has heard of an epoch.
func knows(t *testing.T, v *SQL, epoch int64) {
	t.Helper()
	for epochOf(t, v.db) < epoch {
		time.Sleep(time.Millisecond)
	}
}

// TestReplicasRedeemOnce: however many replicas and callers want a token, one
// redemption serves all.
func TestReplicasRedeemOnce(t *testing.T) {
	onBoth(t, func(t *testing.T, cfg database.Config) {
		all := replicas(t, cfg)
		c, g := holding(t, all[0])
		for _, v := range all {
			knows(t, v, g.Since)
		}
		var redeemed [8]atomic.Int32
		var wg sync.WaitGroup
		for i := range 64 {
			v := all[i%len(all)]
			n := i / 8
			w := c.wanted(g, mandate.Audience(fmt.Sprint("https://", n)))
			wg.Go(func() {
				turn, token, err := v.Take(t.Context(), w)
				if err != nil {
					t.Error(err)
					return
				}
				if token != nil {
					if token.Access.Reveal() != fmt.Sprint("token ", n) {
						t.Errorf("got %q, which is another's", token.Access.Reveal())
					}
					return
				}
				redeemed[n].Add(1)
				time.Sleep(30 * time.Millisecond)
				epoch, err := patient{v.db}.Epoch()
				if err != nil {
					t.Error(err)
				}
				if err := v.Keep(t.Context(), mandate.Keep{Grant: g, Epoch: epoch, Turn: turn, Token: c.accessToken(g, w, fmt.Sprint("token ", n))}); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		for n := range redeemed {
			if got := redeemed[n].Load(); got != 1 {
				t.Errorf("token %d was redeemed %d times, want once", n, got)
			}
		}
	})
}

// TestTurnsOfTheDead: what a replica held that died is taken over when its
// lease ends by the database's clock, and nothing of it is kept any more.
func TestTurnsOfTheDead(t *testing.T) {
	onBoth(t, func(t *testing.T, cfg database.Config) {
		ctx := t.Context()
		all := replicas(t, cfg)
		v, other := all[0], all[len(all)-1]
		c, g, w, dead := redeeming(t, v)
		var left int64
		if err := v.db.QueryRow(ctx, `SELECT lease - now_ms() FROM turns`).Scan(&left); err != nil || left <= 0 || left > mandate.TurnLease.Milliseconds() {
			t.Errorf("the lease ends in %d ms (error %v), want at most %v", left, err, mandate.TurnLease)
		}
		// As if the time had passed.
		if _, err := v.db.Exec(ctx, `UPDATE turns SET lease = now_ms() + 200`); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		turn, token, err := other.Take(ctx, w)
		if err != nil || token != nil || turn.Fence != dead.Fence+1 {
			t.Fatalf("Take: got fence %d, token %t, %v; want the turn with fence %d", turn.Fence, token != nil, err, dead.Fence+1)
		}
		if waited := time.Since(began); waited < 100*time.Millisecond || waited > 5*time.Second {
			t.Errorf("it took %v, want about 200ms", waited)
		}
		if err := v.db.QueryRow(ctx, `SELECT lease - now_ms() FROM turns`).Scan(&left); err != nil || left < mandate.TurnLease.Milliseconds()/2 {
			t.Errorf("the lease of whoever took it over ends in %d ms (error %v), want %v", left, err, mandate.TurnLease)
		}
		epoch := epochOf(t, v.db)
		k := mandate.Keep{Grant: g, Epoch: epoch, Turn: dead, Next: mandate.NewSecret("of the dead"), Token: c.accessToken(g, w, "of the dead")}
		if err := v.Keep(ctx, k); !errors.Is(err, mandate.ErrSuperseded) {
			t.Errorf("Keep of one who was taken for dead: got error %v, want %v", err, mandate.ErrSuperseded)
		}
		if err := v.Extend(ctx, dead); !errors.Is(err, mandate.ErrSuperseded) {
			t.Errorf("Extend by one who was taken for dead: got error %v, want %v", err, mandate.ErrSuperseded)
		}
		if err := v.Release(ctx, dead); err != nil {
			t.Errorf("Release by one who was taken for dead: %v, and it changes nothing", err)
		}
		if _, err := v.db.Exec(ctx, `UPDATE turns SET lease = now_ms() + 200`); err != nil {
			t.Fatal(err)
		}
		if err := other.Extend(ctx, turn); err != nil {
			t.Errorf("Extend: %v", err)
		}
		if err := v.db.QueryRow(ctx, `SELECT lease - now_ms() FROM turns`).Scan(&left); err != nil || left < mandate.TurnLease.Milliseconds()/2 {
			t.Errorf("the lease that was extended ends in %d ms (error %v), want %v", left, err, mandate.TurnLease)
		}
		if got, err := v.Open(ctx, contoso); err != nil || got.Refresh.Reveal() != "refresh" {
			t.Errorf("Open: got %q, %v, want nothing stored", got.Refresh.Reveal(), err)
		}
	})
}

// TestFencesGrow: also over a row's end, and over a change of the grant.
func TestFencesGrow(t *testing.T) {
	ctx := t.Context()
	v, _, _ := openVault(t)
	c, g := holding(t, v)
	w := c.wanted(g, "https://example.com")
	var last int64
	for i, between := range []func() error{
		func() error { return nil },
		func() error { return errors.Join(v.Suspend(ctx, contoso), v.Resume(ctx, contoso)) },
		func() error {
			_, err := v.db.Exec(ctx, `UPDATE turns SET lease = lease - 3600000`)
			for now := int64(0); err == nil && now <= last; { // as it is an hour later
				err = v.db.QueryRow(ctx, `SELECT now_ms()`).Scan(&now)
			}
			return errors.Join(err, v.Sweep(ctx))
		},
	} {
		if err := between(); err != nil {
			t.Fatal(err)
		}
		turn, err := c.take(ctx, w)
		if err != nil {
			t.Fatal(err)
		}
		if turn.Fence <= last {
			t.Errorf("turn %d has fence %d, and one before had %d", i, turn.Fence, last)
		}
		last = turn.Fence
		if err := v.Release(ctx, turn); err != nil {
			t.Fatal(err)
		}
	}
}

// TestNothingSharedOutlivesItsGrant: a shared token is gone, and what is still
// under way is worth nothing, as soon as the grant's state has changed.
func TestNothingSharedOutlivesItsGrant(t *testing.T) {
	onBoth(t, func(t *testing.T, cfg database.Config) {
		ctx := t.Context()
		v := replicas(t, cfg)[0]
		for i, change := range []func(mandate.GrantKey) error{
			func(k mandate.GrantKey) error { return errors.Join(v.Suspend(ctx, k), v.Resume(ctx, k)) },
			func(k mandate.GrantKey) error { return v.withdraw(ctx, k) },
			func(k mandate.GrantKey) error { return v.Activate(ctx, candidate(v.db, k, 2, "next")) },
			func(k mandate.GrantKey) error { return v.Suspend(ctx, k) },
		} {
			k := partner(i)
			activate(t, v, candidate(v.db, k, 1, "refresh"))
			g, err := v.Open(ctx, k)
			if err != nil {
				t.Fatal(err)
			}
			c := &check{vault: v, epoch: patient{v.db}, turns: v, key: k}
			w, late := c.wanted(g, "https://shared"), c.wanted(g, "https://late")
			if err := c.share(ctx, g, w, c.accessToken(g, w, "shared"), mandate.Secret{}); err != nil {
				t.Fatal(err)
			}
			turn, err := c.take(ctx, late)
			if err != nil {
				t.Fatal(err)
			}
			before := epochOf(t, v.db)
			if err := change(k); err != nil {
				t.Fatal(err)
			}
			for _, epoch := range []int64{before, epochOf(t, v.db)} {
				for _, next := range []mandate.Secret{{}, mandate.NewSecret("late")} {
					keep := mandate.Keep{Grant: g, Epoch: epoch, Turn: turn, Next: next, Token: c.accessToken(g, late, "late")}
					if err := v.Keep(ctx, keep); !errors.Is(err, mandate.ErrSuperseded) {
						t.Errorf("change %d: Keep of what was under way: got error %v, want %v", i, err, mandate.ErrSuperseded)
					}
				}
			}
			var sealed int
			if err := v.db.QueryRow(ctx, `SELECT count(sealed) FROM turns WHERE partner = $1`, k.Partner.String()).Scan(&sealed); err != nil || sealed > 0 {
				t.Errorf("change %d: %d shared tokens are left (error %v)", i, sealed, err)
			}
			if turn, token, err := v.Take(ctx, w); err != nil || token != nil {
				t.Errorf("change %d: a token of before was served (error %v)", i, err)
			} else if err := v.Release(ctx, turn); err != nil {
				t.Error(err)
			}
		}
	})
}

// TestAlteredTokensAreNotServed: whoever writes the database can take a shared
// token away, and not make it serve longer, wider or somewhere else.
func TestAlteredTokensAreNotServed(t *testing.T) {
	onBoth(t, func(t *testing.T, cfg database.Config) {
		ctx := t.Context()
		v := replicas(t, cfg)[0]
		c, g := holding(t, v)
		for i, stmt := range []string{
			`expires = expires + 1`,
			`epoch = epoch + 1`,
			`fingerprint = 'another'`,
			`key_id = 'another'`,
			`sealed = (SELECT sealed FROM turns o WHERE o.id <> turns.id AND o.sealed IS NOT NULL LIMIT 1)`,
			`sealed = (SELECT sealed FROM grants)`,
		} {
			w := c.wanted(g, mandate.Audience(fmt.Sprint("https://", i)))
			token := c.accessToken(g, w, "access")
			if err := c.share(ctx, g, w, token, mandate.Secret{}); err != nil {
				t.Fatal(err)
			}
			if err := c.got(ctx, w, token); err != nil {
				t.Fatal(err)
			}
			if i > 0 { // there is another by then
				if _, err := v.db.Exec(ctx, `UPDATE turns SET `+stmt+` WHERE id = $1`, idOf(w.Key)); err != nil {
					t.Fatal(err)
				}
				if turn, token, err := v.Take(ctx, w); err != nil || token != nil {
					t.Errorf("%s: the token was served (error %v)", stmt, err)
				} else if err := v.Release(ctx, turn); err != nil {
					t.Error(err)
				}
			}
		}
	})
}

// TestTokensEndByTheDatabasesClock: a token's remaining life is what counts,
// whatever the time is where it is redeemed or taken.
func TestTokensEndByTheDatabasesClock(t *testing.T) {
	ctx := t.Context()
	v, db, _ := openVault(t)
	c, g := holding(t, v)
	w := c.wanted(g, "https://example.com")
	token := c.accessToken(g, w, "access")
	// The wall clock of who redeems is ten minutes ahead; its own reading of
	// the database's clock says so.
	token.Expires = time.Now().Add(time.Hour + 10*time.Minute)
	turn, err := c.take(ctx, w)
	if err != nil {
		t.Fatal(err)
	}
	r := *v.clock.Load()
	r.at = r.at.Add(10 * time.Minute)
	v.clock.Store(&r)
	if err := v.Keep(ctx, mandate.Keep{Grant: g, Epoch: epochOf(t, db), Turn: turn, Token: token}); err != nil {
		t.Fatal(err)
	}
	_, got, err := newVaultLike(t, v).Take(ctx, w)
	if err != nil || got == nil {
		t.Fatal(got, err)
	}
	if left := time.Until(got.Expires); left > time.Hour || left < time.Hour-time.Minute {
		t.Errorf("the token lives %v more, want an hour", left)
	}
	if _, err := db.Exec(ctx, `DELETE FROM turns`); err != nil {
		t.Fatal(err)
	}
	token.Expires, w.AtLeast = time.Now().Add(-time.Minute), -time.Hour
	if err := c.share(ctx, g, w, token, mandate.Secret{}); err != nil {
		t.Fatal(err)
	}
	if _, got, err := v.Take(ctx, w); err != nil || got != nil {
		t.Errorf("to one who asks for a token of the past: got %v, %v, want none", got, err)
	}
}

// TestWhoWaitsIsTold that the turn is over, however it ends.
func TestWhoWaitsIsTold(t *testing.T) {
	onBoth(t, func(t *testing.T, cfg database.Config) {
		ctx := t.Context()
		v := replicas(t, cfg)[0]
		c, g := holding(t, v)
		notices, cancel := v.db.Subscribe(topicTurn)
		defer cancel()
		for i, end := range []func(mandate.Turn, mandate.Wanted) error{
			func(turn mandate.Turn, w mandate.Wanted) error {
				return v.Keep(ctx, mandate.Keep{Grant: g, Epoch: epochOf(t, v.db), Turn: turn, Token: c.accessToken(g, w, "access")})
			},
			func(turn mandate.Turn, w mandate.Wanted) error {
				return v.Keep(ctx, mandate.Keep{Grant: g, Epoch: epochOf(t, v.db), Turn: turn, Next: mandate.NewSecret("next"), Token: c.accessToken(g, w, "access")})
			},
			func(turn mandate.Turn, _ mandate.Wanted) error { return v.Release(ctx, turn) },
		} {
			w := c.wanted(g, mandate.Audience(fmt.Sprint("https://", i)))
			turn, err := c.take(ctx, w)
			if err != nil {
				t.Fatal(err)
			}
			told := make(chan error, 1)
			go func() { _, _, err := v.Take(ctx, w); told <- err }()
			for waited := false; !waited; {
				if err := v.db.QueryRow(ctx, `SELECT waited FROM turns WHERE id = $1`, idOf(w.Key)).Scan(&waited); err != nil {
					t.Fatal(err)
				}
			}
			if err := end(turn, w); err != nil {
				t.Fatal(err)
			}
			select {
			case name := <-notices:
				if name != nameOfTurn(idOf(w.Key)) {
					t.Errorf("end %d: got a notice of %q, want %q", i, name, nameOfTurn(idOf(w.Key)))
				}
			case <-time.After(10 * time.Second):
				t.Fatalf("end %d: nobody was told", i)
			}
			if err := <-told; err != nil {
				t.Errorf("end %d: Take: %v", i, err)
			}
		}
	})
}

func TestTakeEndsWithItsContext(t *testing.T) {
	v, db, _ := openVault(t)
	c, g := holding(t, v)
	w := c.wanted(g, "https://example.com")
	if _, err := c.take(t.Context(), w); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, _, err := v.Take(ctx, w); !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, mandate.ErrUnavailable) {
		t.Errorf("got error %v, want only %v", err, context.DeadlineExceeded)
	}
	none, err := New(Config{DB: db, Key: v.key})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := none.Take(t.Context(), w); err == nil {
		t.Error("a vault without a key for tokens gave a turn")
	}
	db.Close()
	if _, _, err := v.Take(t.Context(), w); !errors.Is(err, mandate.ErrUnavailable) {
		t.Errorf("got error %v, want %v", err, mandate.ErrUnavailable)
	}
}

func TestTokenIDsAreDistinct(t *testing.T) {
	k := mandate.TokenKey{Grant: contoso, Generation: 1, Tenant: contoso.Partner, Audience: "a", Scopes: []mandate.Scope{"b", "c"}, Claims: "d"}
	seen := map[string]mandate.TokenKey{string(idOf(k)): k}
	for _, change := range []func(*mandate.TokenKey){
		func(k *mandate.TokenKey) { k.Grant.Cloud += "x" },
		func(k *mandate.TokenKey) { k.Grant.Application = mandate.AppID(k.Tenant) },
		func(k *mandate.TokenKey) { k.Grant.Partner = flip(k.Grant.Partner) },
		func(k *mandate.TokenKey) { k.Generation++ },
		func(k *mandate.TokenKey) { k.Tenant = flip(k.Tenant) },
		func(k *mandate.TokenKey) { k.Audience = "ab" },
		func(k *mandate.TokenKey) { k.Scopes = []mandate.Scope{"bc"} },
		func(k *mandate.TokenKey) { k.Scopes = nil },
		func(k *mandate.TokenKey) { k.Scopes, k.Claims = []mandate.Scope{"b"}, "cd" },
		func(k *mandate.TokenKey) { k.Claims = "" },
	} {
		other := k
		change(&other)
		id := string(idOf(other))
		if twin, ok := seen[id]; ok {
			t.Errorf("%+v and %+v have the same ID", twin, other)
		}
		seen[id] = other
	}
	sorted := k
	sorted.Scopes = []mandate.Scope{"c", "b"}
	if string(idOf(sorted)) != string(idOf(k)) {
		t.Error("the order of scopes makes another ID")
	}
}

// TestWhatCannotBeSharedIsKept: while the keeper of the key for shared tokens is
// down, a redemption still counts, and its turn ends.
func TestWhatCannotBeSharedIsKept(t *testing.T) {
	onBoth(t, func(t *testing.T, cfg database.Config) {
		ctx := t.Context()
		v := replicas(t, cfg)[0]
		v.shared = &fakeWrapper{id: "k", err: errors.New("down")}
		c, g, w, turn := redeeming(t, v)
		k := mandate.Keep{Grant: g, Epoch: epochOf(t, v.db), Turn: turn, Next: mandate.NewSecret("next"), Token: c.accessToken(g, w, "access")}
		if err := v.Keep(ctx, k); err != nil {
			t.Fatal(err)
		}
		if g, err := v.Open(ctx, contoso); err != nil || g.Refresh.Reveal() != "next" {
			t.Errorf("Open: got error %v, want the token that was kept", err)
		}
		var shared int
		if err := v.db.QueryRow(ctx, `SELECT count(*) FROM turns WHERE sealed IS NOT NULL OR expires > 0`).Scan(&shared); err != nil || shared > 0 {
			t.Errorf("%d tokens are shared (error %v)", shared, err)
		}
		if _, err := c.take(ctx, w); err != nil {
			t.Errorf("the turn is not over: %v", err)
		}
	})
}

// BenchmarkRedemption is what a redemption costs the database: a turn taken, a
// refresh token and an access token kept.
func BenchmarkRedemption(b *testing.B) {
	for _, engine := range []string{"SQLite", "PostgreSQL"} {
		b.Run(engine, func(b *testing.B) {
			cfg := database.Config{Schemas: []database.Schema{Schema()}}
			if cfg.File = b.TempDir() + "/mandate.db"; engine == "PostgreSQL" {
				cfg.File, cfg.URL = "", pgtest.Shared(b).Database(b)
			}
			db, err := database.Open(b.Context(), cfg)
			if err != nil {
				b.Fatal(err)
			}
			defer db.Close()
			go db.Run(b.Context())
			keys, err := OpenKeyFile(b.TempDir() + "/keys")
			if err != nil {
				b.Fatal(err)
			}
			v, err := New(Config{DB: db, Key: keys, SharedKey: keys.Shared()})
			if err != nil {
				b.Fatal(err)
			}
			if err := v.Activate(b.Context(), candidate(db, contoso, 1, "refresh")); err != nil {
				b.Fatal(err)
			}
			for i := 0; b.Loop(); i++ {
				if err := redeem(v, fmt.Sprint("https://", i), fmt.Sprint(i)); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// TestATurnIsLookedAtAgain by one who saw it free, and had to wait for somebody
// who extends it, or stores a token, in that moment.
func TestATurnIsLookedAtAgain(t *testing.T) {
	onBoth(t, func(t *testing.T, cfg database.Config) {
		ctx := t.Context()
		v := replicas(t, cfg)[0]
		c, g := holding(t, v)
		w := c.wanted(g, "https://example.com")
		token := c.accessToken(g, w, "access")
		if err := c.share(ctx, g, w, token, mandate.Secret{}); err != nil {
			t.Fatal(err)
		}
		for _, tt := range []struct{ before, meanwhile string }{
			{`UPDATE turns SET epoch = epoch - 1000`, `UPDATE turns SET owner = 'another', lease = now_ms() + 60000`},
			{`UPDATE turns SET owner = ''`, `UPDATE turns SET epoch = epoch + 1000`},
		} {
			if _, err := v.db.Exec(ctx, tt.before); err != nil {
				t.Fatal(err)
			}
			type taken struct {
				turn  mandate.Turn
				token *mandate.Token
			}
			got := make(chan taken)
			err := v.db.Tx(ctx, func(tx *database.Tx) error {
				if _, err := tx.Exec(ctx, tt.meanwhile); err != nil {
					return err
				}
				go func() {
					ctx, cancel := context.WithTimeout(ctx, time.Second)
					defer cancel()
					turn, token, _ := v.Take(ctx, w)
					got <- taken{turn, token}
				}()
				time.Sleep(200 * time.Millisecond)
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			free := tt.before == `UPDATE turns SET owner = ''`
			if got := <-got; got.turn.Owner != "" || (got.token != nil) != free {
				t.Errorf("%s: got the turn of %q and a token: %v", tt.meanwhile, got.turn.Owner, got.token != nil)
			}
		}
	})
}

// TestATurnBringsTheGrant as it is now, if it can be opened.
func TestATurnBringsTheGrant(t *testing.T) {
	onBoth(t, func(t *testing.T, cfg database.Config) {
		ctx := t.Context()
		v := replicas(t, cfg)[0]
		c, g := holding(t, v)
		if err := c.rotate(ctx, g, "rotated"); err != nil {
			t.Fatal(err)
		}
		want, err := v.Open(ctx, c.key)
		if err != nil {
			t.Fatal(err)
		}
		first := c.wanted(g, "https://example.com")
		turn, err := c.take(ctx, first)
		if err != nil {
			t.Fatal(err)
		}
		got := turn.Grant
		if got.Refresh.Reveal() != "rotated" || got.Version != g.Version+1 || got.Since != g.Since || differs(got, want) != "" {
			t.Errorf("got version %d, which is other than it was stored in %q", got.Version, differs(got, want))
		}
		if err := v.Release(ctx, turn); err != nil {
			t.Fatal(err)
		}
		set := func(change string) {
			err := v.db.Change(ctx, func(tx *database.Tx) error {
				_, err := tx.Exec(ctx, `UPDATE grants SET `+change)
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		set(`state = 'suspended'`)
		if again, err := c.take(ctx, first); err != nil || again.Grant.Generation != 0 || again.Fence != turn.Fence+1 {
			t.Errorf("a grant that is suspended: got generation %d, fence %d, error %v; want fence %d", again.Grant.Generation, again.Fence, err, turn.Fence+1)
		}
		set(`state = 'active'`)
		w := c.wanted(g, "https://other.example")
		w.Key.Generation++
		for range 2 { // the row is made, and then there
			turn, err := c.take(ctx, w)
			if err != nil || turn.Grant.Generation != 0 {
				t.Errorf("a generation that is not active: got %d, error %v", turn.Grant.Generation, err)
			}
			if err := v.Release(ctx, turn); err != nil {
				t.Fatal(err)
			}
		}
		set(`until = 1`)
		if turn, err := c.take(ctx, c.wanted(g, "https://third.example")); err != nil || !turn.Grant.Refresh.IsZero() {
			t.Errorf("a grant that has ended was opened (error %v)", err)
		}
	})
}

// TestATokenOfBeforeAChangeIsNotServed: even if it is still there, and even to
// one who has not heard of the change.
func TestATokenOfBeforeAChangeIsNotServed(t *testing.T) {
	ctx := t.Context()
	for _, change := range []string{`since = since + 1000`, `state = 'suspended'`} {
		v, db, _ := openVault(t)
		c, g := holding(t, v)
		w := c.wanted(g, "https://example.com")
		token := c.accessToken(g, w, "access")
		if err := errors.Join(c.share(ctx, g, w, token, mandate.Secret{}), c.got(ctx, w, token)); err != nil {
			t.Fatal(err)
		}
		if _, err := db.Exec(ctx, `UPDATE grants SET `+change); err != nil {
			t.Fatal(err)
		}
		if _, got, err := v.Take(ctx, w); err != nil || got != nil {
			t.Errorf("after %s: the token was served (error %v)", change, err)
		}
	}
}
