package vault

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/internal/database"
)

// partner returns the key of another partner's grant.
func partner(i int) mandate.GrantKey {
	k := contoso
	k.Partner = tenant(fmt.Sprintf("bbbbbbbb-0000-4000-8000-%012d", i))
	return k
}

// populate stores grants in every state, and returns what opens.
func populate(t *testing.T, v *SQL) map[string]string {
	t.Helper()
	ctx := t.Context()
	for i := range 4 {
		activate(t, v, candidate(v.db, partner(i), 1, fmt.Sprint("first ", i)))
		activate(t, v, candidate(v.db, partner(i), 2, fmt.Sprint("second ", i)))
		c := check{key: partner(i)}
		if err := v.Stage(ctx, c.staged(3, fmt.Sprint("staged ", i))); err != nil {
			t.Fatal(err)
		}
	}
	g, err := v.Open(ctx, partner(0))
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(rotate(ctx, v, g, "rotated 0"), v.Suspend(ctx, partner(1)), v.withdraw(ctx, partner(2)), v.Rollback(ctx, partner(3))); err != nil {
		t.Fatal(err)
	}
	return everything(t, v)
}

// everything returns the refresh token of every row that has one, and the
// state of the others.
func everything(t *testing.T, v *SQL) map[string]string {
	t.Helper()
	rows, err := v.rows(t.Context(), `SELECT `+columns+` FROM grants`)
	if err != nil {
		t.Fatal(err)
	}
	all := make(map[string]string)
	for _, r := range rows {
		name := fmt.Sprintf("%s/%d version %d", r.partner, r.generation, r.version)
		all[name] = r.state
		if !r.keyID.Valid {
			continue
		}
		g, err := v.unsealed(t.Context(), &r)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		all[name] += " " + g.Refresh.Reveal()
	}
	return all
}

func same(t *testing.T, got, want map[string]string) {
	t.Helper()
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
}

func TestCopy(t *testing.T) {
	onBoth(t, func(t *testing.T, cfg database.Config) {
		for _, tt := range []struct {
			name      string
			home      string // of the target
			otherKeys bool
		}{
			{"as it is", "", false},
			{"to other keys", "", true},
			{"to a home", "away", false},
			{"to a home, with other keys", "away", true},
		} {
			t.Run(tt.name, func(t *testing.T) {
				from := newVault(t, openDB(t, sqlite(t)), openKeys(t, t.TempDir()+"/keys"))
				want := populate(t, from)
				keys := from.key.(*KeyFile)
				if tt.otherKeys {
					keys = openKeys(t, t.TempDir()+"/keys")
				}
				cfg := cfg
				if cfg.URL == "" {
					cfg = sqlite(t)
				}
				to, err := New(Config{DB: openDB(t, cfg), Key: keys, Homes: map[string]Home{"away": &fakeHome{}},
					HomeOf: func(mandate.GrantKey) string { return tt.home }})
				if err != nil {
					t.Fatal(err)
				}
				if cfg.URL != "" {
					if _, err := to.db.Exec(t.Context(), `DELETE FROM grants`); err != nil {
						t.Fatal(err)
					}
				}
				for range 2 { // again changes nothing
					if err := Copy(t.Context(), from, to, nil); err != nil {
						t.Fatal(err)
					}
					same(t, everything(t, to), want)
				}
				epoch := epochOf(t, to.db)
				if err := Copy(t.Context(), from, to, nil); err != nil || epochOf(t, to.db) != epoch {
					t.Errorf("a copy that changed nothing raised the epoch (error %v)", err)
				}
				same(t, everything(t, from), want)
				if err := CheckMoved(t.Context(), to); err != nil {
					t.Error(err)
				}
			})
		}
	})
}

func TestCopyIsBegunAgain(t *testing.T) {
	from := newVault(t, openDB(t, sqlite(t)), openKeys(t, t.TempDir()+"/keys"))
	want := populate(t, from)
	to := newVault(t, openDB(t, sqlite(t)), openKeys(t, t.TempDir()+"/keys"))
	ctx, cancel := context.WithCancel(t.Context())
	err := Copy(ctx, from, to, func(done, total int) {
		if done == 2 {
			cancel()
		}
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got error %v, want %v", err, context.Canceled)
	}
	if n := len(everything(t, to)); n == 0 || n == len(want) {
		t.Errorf("%d rows were copied before it was stopped, want some", n)
	}
	if err := Copy(t.Context(), from, to, nil); err != nil {
		t.Error(err)
	}
	same(t, everything(t, to), want)
}

func TestCopyFollowsTheSource(t *testing.T) {
	ctx := t.Context()
	from := newVault(t, openDB(t, sqlite(t)), openKeys(t, t.TempDir()+"/keys"))
	to := newVault(t, openDB(t, sqlite(t)), openKeys(t, t.TempDir()+"/keys"))
	populate(t, from)
	if err := Copy(ctx, from, to, nil); err != nil {
		t.Fatal(err)
	}
	activate(t, from, candidate(from.db, partner(0), 4, "renewed"))
	if err := errors.Join(from.Suspend(ctx, partner(3)), Copy(ctx, from, to, nil)); err != nil {
		t.Fatal(err)
	}
	same(t, everything(t, to), everything(t, from))
}

func TestCopyOverwritesNothingNewer(t *testing.T) {
	ctx := t.Context()
	for name, change := range map[string]func(v *SQL) error{
		"a later generation": func(v *SQL) error { return v.Activate(ctx, candidate(v.db, partner(0), 4, "newer")) },
		"a later version": func(v *SQL) error {
			g, err := v.Open(ctx, partner(0))
			return errors.Join(err, rotate(ctx, v, g, "newer"))
		},
		"withdrawn": func(v *SQL) error { return v.withdraw(ctx, partner(0)) },
		"suspended": func(v *SQL) error { return v.Suspend(ctx, partner(0)) },
		"discarded": func(v *SQL) error { return v.Discard(ctx, partner(0)) },
	} {
		from := newVault(t, openDB(t, sqlite(t)), openKeys(t, t.TempDir()+"/keys"))
		to := newVault(t, openDB(t, sqlite(t)), openKeys(t, t.TempDir()+"/keys"))
		populate(t, from)
		if err := errors.Join(Copy(ctx, from, to, nil), change(to)); err != nil {
			t.Fatal(err)
		}
		want := everything(t, to)
		if err := Copy(ctx, from, to, nil); !errors.Is(err, ErrNewer) {
			t.Errorf("%s: got error %v, want %v", name, err, ErrNewer)
		}
		same(t, everything(t, to), want)
	}
}

// TestMoveBetweenHomes copies a vault to itself, with another idea of where
// grants are, while they are rotated.
func TestMoveBetweenHomes(t *testing.T) {
	onBoth(t, func(t *testing.T, cfg database.Config) {
		ctx := t.Context()
		h := &fakeHome{}
		away := withHome(t, cfg, h)
		here, err := New(Config{DB: away.db, Key: away.key, Homes: away.homes})
		if err != nil {
			t.Fatal(err)
		}
		want := populate(t, here)
		if err := Copy(ctx, away, away, nil); err != nil {
			t.Fatal(err)
		}
		same(t, everything(t, away), want)
		if n := len(h.names()); n != 7 {
			t.Errorf("the home has %d tokens, want all 7", n)
		}
		stop := rotating(t, away, partner(0))
		for range 5 {
			if err := errors.Join(Copy(ctx, here, here, nil), Copy(ctx, away, away, nil)); err != nil {
				t.Error(err)
			}
		}
		last := stop()
		if g, err := newVaultLike(t, away).Open(ctx, partner(0)); err != nil || g.Refresh.Reveal() != last {
			t.Errorf("Open after all moves: got %v, %v, want the last token that was kept, %q", g.Refresh.Reveal(), err, last)
		}
		if err := Copy(ctx, here, here, nil); err != nil || len(h.names()) != 0 {
			t.Errorf("the home has %v after everything was moved back (error %v)", h.names(), err)
		}
	})
}

// rotating rotates a grant again and again until stop is called and a token
// was kept, the last of which it returns.
func rotating(t *testing.T, v *SQL, k mandate.GrantKey) (stop func() string) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	last := make(chan string)
	go func() {
		kept := ""
		for i := 0; ctx.Err() == nil || kept == "" && !t.Failed(); i++ {
			g, err := v.Open(context.Background(), k)
			if err != nil {
				t.Errorf("Open: %v", err)
				break
			}
			next := fmt.Sprint("rotation ", i)
			time.Sleep(5 * time.Millisecond) // to leave some time for others
			switch err := rotate(context.Background(), v, g, next); {
			case err == nil:
				kept = next
			case !errors.Is(err, mandate.ErrSuperseded) && !errors.Is(err, mandate.ErrRotated):
				t.Errorf("Keep: %v", err)
			}
		}
		last <- kept
	}()
	return func() string { cancel(); return <-last }
}

func TestCopyResumesNothing(t *testing.T) {
	ctx := t.Context()
	from := newVault(t, openDB(t, sqlite(t)), openKeys(t, t.TempDir()+"/keys"))
	to := newVault(t, openDB(t, sqlite(t)), openKeys(t, t.TempDir()+"/keys"))
	activate(t, from, candidate(from.db, contoso, 1, "refresh"))
	if err := errors.Join(Copy(ctx, from, to, nil), to.Suspend(ctx, contoso)); err != nil {
		t.Fatal(err)
	}
	if err := Copy(ctx, from, to, nil); !errors.Is(err, ErrNewer) {
		t.Errorf("got error %v, want %v", err, ErrNewer)
	}
	want(t, to, mandate.StateSuspended)
}
