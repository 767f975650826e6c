package vault

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/internal/database"
)

var (
	_ mandate.Vault    = (*SQL)(nil)
	_ mandate.Turns    = (*SQL)(nil)
	_ mandate.Schedule = (*SQL)(nil)
	_ mandate.Custody  = (*SQL)(nil)
	_ KeyWrapper       = (*KeyFile)(nil)
)

var contoso = mandate.GrantKey{Cloud: "global", Application: mandate.AppID(tenant("aaaaaaaa-0000-4000-8000-000000000001")), Partner: tenant("bbbbbbbb-0000-4000-8000-000000000001")}

func tenant(s string) mandate.TenantID {
	t, err := mandate.ParseTenantID(s)
	if err != nil {
		panic(err)
	}
	return t
}

func openVault(t *testing.T) (*SQL, *database.DB, string) {
	t.Helper()
	dir := t.TempDir()
	db, err := database.Open(t.Context(), database.Config{File: filepath.Join(dir, "mandate.db"), Schemas: []database.Schema{Schema()}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return newVault(t, db, openKeys(t, filepath.Join(t.TempDir(), "keys"))), db, dir
}

func newVault(t *testing.T, db *database.DB, keys *KeyFile) *SQL {
	t.Helper()
	v, err := New(Config{DB: db, Key: keys, SharedKey: keys.Shared()})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func subject(v *SQL) Subject {
	return Subject{Vault: v, Epoch: patient{v.db}, Turns: v, Schedule: v, Custody: v}
}

// rotate keeps a refresh token under the current epoch.
func rotate(ctx context.Context, v *SQL, g mandate.Grant, next string) error {
	c := check{vault: v, epoch: patient{v.db}}
	return c.rotate(ctx, g, next)
}

func openKeys(t *testing.T, path string) *KeyFile {
	t.Helper()
	k, err := OpenKeyFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestSQL(t *testing.T) {
	v, _, _ := openVault(t)
	if err := Check(t.Context(), subject(v), contoso); err != nil {
		t.Error(err)
	}
	if err := Check(t.Context(), subject(v), contoso); err == nil {
		t.Error("Check passed where there was a grant already")
	}
}

// candidate is a grant that can be activated.
func candidate(db *database.DB, k mandate.GrantKey, generation int64, refresh string) mandate.Grant {
	c := check{epoch: patient{db}, key: k}
	return c.candidate(generation, refresh)
}

func activate(t *testing.T, v *SQL, g mandate.Grant) mandate.Grant {
	t.Helper()
	if err := v.Activate(t.Context(), g); err != nil {
		t.Fatal(err)
	}
	return g
}

func epochOf(t *testing.T, db *database.DB) int64 {
	t.Helper()
	e, err := patient{db}.Epoch()
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func TestNothingOpensPastItsEnd(t *testing.T) {
	v, db, _ := openVault(t)
	g := candidate(db, contoso, 1, "refresh")
	g.Until = time.Now().Add(-time.Millisecond)
	activate(t, v, g)
	if got, err := v.Head(t.Context(), contoso); err != nil || got.Generation != 1 {
		t.Errorf("Head: got %+v, %v, want generation 1: a renewal is compared with it", got, err)
	}
	_, err := v.Open(t.Context(), contoso)
	if !errors.Is(err, mandate.ErrNoGrant) || !strings.Contains(err.Error(), "ended on") {
		t.Errorf("Open: got error %v, want %v that says when the grant ended", err, mandate.ErrNoGrant)
	}
}

func TestActivateRefusesWhatIsNoGrant(t *testing.T) {
	v, db, _ := openVault(t)
	before := epochOf(t, db)
	for name, change := range map[string]func(*mandate.Grant){
		"no cloud":       func(g *mandate.Grant) { g.Key.Cloud = "" },
		"no application": func(g *mandate.Grant) { g.Key.Application = mandate.AppID{} },
		"no partner":     func(g *mandate.Grant) { g.Key.Partner = mandate.TenantID{} },
		"suspended":      func(g *mandate.Grant) { g.State = mandate.StateSuspended },
		"no such origin": func(g *mandate.Grant) { g.Origin = "found" },
		"generation 0":   func(g *mandate.Grant) { g.Generation = 0 },
		"version 0":      func(g *mandate.Grant) { g.Version = 0 },
		"no token":       func(g *mandate.Grant) { g.Refresh = mandate.Secret{} },
	} {
		g := candidate(db, contoso, 1, "refresh")
		change(&g)
		if err := v.Activate(t.Context(), g); !errors.Is(err, mandate.ErrInvalid) {
			t.Errorf("%s: got error %v, want %v", name, err, mandate.ErrInvalid)
		}
	}
	if after := epochOf(t, db); after != before {
		t.Errorf("the epoch went from %d to %d, want no change", before, after)
	}
	g := activate(t, v, candidate(db, contoso, 1, "refresh"))
	if err := rotate(t.Context(), v, g, ""); err != nil {
		t.Error(err)
	}
	if got, err := v.Open(t.Context(), contoso); err != nil || got.Refresh.Reveal() != "refresh" {
		t.Errorf("Keep of nothing changed the refresh token (error %v)", err)
	}
}

func TestLifeOfAGrant(t *testing.T) {
	v, db, _ := openVault(t)
	ctx := t.Context()
	want := func(state mandate.State, text string) {
		t.Helper()
		for _, read := range []func(context.Context, mandate.GrantKey) (mandate.Grant, error){v.Head, v.Open} {
			_, err := read(ctx, contoso)
			var none *mandate.NoGrantError
			if !errors.As(err, &none) || none.State != state || none.Generation != 1 || !strings.Contains(err.Error(), text) {
				t.Errorf("got error %v, want one about generation 1 being %s: %q", err, state, text)
			}
		}
	}
	for name, act := range map[string]func(context.Context, mandate.GrantKey) error{"Suspend": v.Suspend, "Withdraw": v.withdraw} {
		if err := act(ctx, contoso); !errors.Is(err, mandate.ErrNoGrant) {
			t.Errorf("%s of nothing: got error %v, want %v", name, err, mandate.ErrNoGrant)
		}
	}
	g := activate(t, v, candidate(db, contoso, 1, "refresh"))
	epoch := epochOf(t, db)
	raised := func(doing string) {
		t.Helper()
		if now := epochOf(t, db); now <= epoch {
			t.Errorf("%s left the epoch at %d", doing, now)
		} else {
			epoch = now
		}
	}
	if err := v.Resume(ctx, contoso); !errors.Is(err, mandate.ErrNotFound) {
		t.Errorf("Resume of an active grant: got error %v, want %v", err, mandate.ErrNotFound)
	}
	if held, err := v.Held(ctx, contoso); err != nil || held.Refresh.Reveal() != "refresh" {
		t.Errorf("Held: got error %v, want the active one", err)
	}
	old := g
	if err := rotate(ctx, v, old, "rotated"); err != nil {
		t.Fatal(err)
	}
	g.Version++
	if err := v.Suspend(ctx, contoso); err != nil {
		t.Fatal(err)
	}
	raised("Suspend")
	want(mandate.StateSuspended, "suspended")
	if err := rotate(ctx, v, old, "x"); !errors.Is(err, mandate.ErrSuperseded) {
		t.Errorf("Keep of an old version of a suspended grant: got error %v, want %v", err, mandate.ErrSuperseded)
	}
	if err := rotate(ctx, v, g, "x"); !errors.Is(err, mandate.ErrSuperseded) {
		t.Errorf("Keep of a suspended grant: got error %v, want %v", err, mandate.ErrSuperseded)
	}
	if err := v.Activate(ctx, candidate(db, contoso, 2, "x")); !errors.Is(err, mandate.ErrSuperseded) {
		t.Errorf("Activate over a suspended grant: got error %v, want %v", err, mandate.ErrSuperseded)
	}
	if err := v.Suspend(ctx, contoso); !errors.Is(err, mandate.ErrNoGrant) {
		t.Errorf("Suspend of a suspended grant: got error %v, want %v", err, mandate.ErrNoGrant)
	}
	if err := v.Resume(ctx, contoso); err != nil {
		t.Fatal(err)
	}
	raised("Resume")
	if got, err := v.Open(ctx, contoso); err != nil || got.Refresh.Reveal() != "rotated" {
		t.Errorf("Open after Resume: got error %v, want the token back", err)
	}
	if err := v.withdraw(ctx, contoso); err != nil {
		t.Fatal(err)
	}
	raised("Withdraw")
	want(mandate.StateWithdrawn, "withdrawn")
	for name, act := range map[string]func(context.Context, mandate.GrantKey) error{"Suspend": v.Suspend, "Resume": v.Resume, "Rollback": v.Rollback, "Withdraw": v.withdraw} {
		if err := act(ctx, contoso); !errors.Is(err, mandate.ErrNoGrant) && !errors.Is(err, mandate.ErrNotFound) {
			t.Errorf("%s of a withdrawn grant: got error %v, want it refused", name, err)
		}
	}
	if err := v.Activate(ctx, candidate(db, contoso, 1, "x")); !errors.Is(err, mandate.ErrSuperseded) {
		t.Errorf("Activate of a withdrawn generation: got error %v, want %v", err, mandate.ErrSuperseded)
	}
	activate(t, v, candidate(db, contoso, 2, "again"))
}

func TestGrantsListsEveryGenerationWithoutTokens(t *testing.T) {
	v, db, _ := openVault(t)
	other := contoso
	other.Partner = tenant("bbbbbbbb-0000-4000-8000-000000000002")
	activate(t, v, candidate(db, contoso, 1, "a"))
	activate(t, v, candidate(db, contoso, 2, "b"))
	activate(t, v, candidate(db, other, 1, "c"))
	for _, tt := range []struct {
		partner mandate.TenantID
		want    []mandate.State
	}{
		{contoso.Partner, []mandate.State{mandate.StateActive, mandate.StateFallback}},
		{mandate.TenantID{}, []mandate.State{mandate.StateActive, mandate.StateFallback, mandate.StateActive}},
		{tenant("bbbbbbbb-0000-4000-8000-000000000003"), nil},
	} {
		got, err := v.Grants(t.Context(), tt.partner)
		if err != nil || len(got) != len(tt.want) {
			t.Fatalf("Grants(%v): got %d, %v, want %d", tt.partner, len(got), err, len(tt.want))
		}
		for i, g := range got {
			if g.State != tt.want[i] || !g.Refresh.IsZero() {
				t.Errorf("Grants(%v)[%d]: got %s (with token: %t), want %s without", tt.partner, i, g.State, !g.Refresh.IsZero(), tt.want[i])
			}
		}
	}
}

// canary is a refresh token that must be nowhere but in memory.
const canary = "0.AXcanary-refresh-token-that-must-not-be-seen"

func TestWithdrawSaysThatTracesRemain(t *testing.T) {
	v, db, _ := openVault(t)
	activate(t, v, candidate(db, contoso, 1, "refresh"))
	err := db.View(t.Context(), func(tx *database.Tx) error {
		var n int
		if err := tx.QueryRow(t.Context(), `SELECT count(*) FROM grants`).Scan(&n); err != nil {
			return err
		}
		left, err := v.Withdraw(t.Context(), contoso)
		if err == nil && (len(left) != 1 || !strings.Contains(left[0].What, "write-ahead log")) {
			t.Errorf("Withdraw while somebody reads: got %v, want that the log has traces", left)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
	if _, err := v.Head(t.Context(), contoso); !errors.Is(err, mandate.ErrNoGrant) {
		t.Errorf("Head after Withdraw: got error %v, want %v", err, mandate.ErrNoGrant)
	}
}

func TestDatabaseDownIsUnavailable(t *testing.T) {
	v, db, _ := openVault(t)
	g := activate(t, v, candidate(db, contoso, 1, "refresh"))
	epoch := epochOf(t, db)
	db.Close()
	for name, err := range map[string]error{
		"Head":     second(v.Head(t.Context(), contoso)),
		"Open":     second(v.Open(t.Context(), contoso)),
		"Held":     second(v.Held(t.Context(), contoso)),
		"Grants":   second(v.Grants(t.Context(), contoso.Partner)),
		"Keep":     v.Keep(t.Context(), mandate.Keep{Grant: g, Epoch: epoch, Next: mandate.NewSecret("x")}),
		"Activate": v.Activate(t.Context(), candidate(db, contoso, 2, "x")),
		"Suspend":  v.Suspend(t.Context(), contoso),
		"Resume":   v.Resume(t.Context(), contoso),
		"Withdraw": v.withdraw(t.Context(), contoso),
	} {
		if !errors.Is(err, mandate.ErrUnavailable) || errors.Is(err, mandate.ErrNoGrant) {
			t.Errorf("%s: got error %v, want %v", name, err, mandate.ErrUnavailable)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := v.Head(ctx, contoso); !errors.Is(err, context.Canceled) || errors.Is(err, mandate.ErrUnavailable) {
		t.Errorf("Head of a caller who gave up: got error %v, want only %v", err, context.Canceled)
	}
}

func second[T any](_ T, err error) error { return err }

// withdraw is Withdraw, of which only the error matters.
func (v *SQL) withdraw(ctx context.Context, k mandate.GrantKey) error {
	_, err := v.Withdraw(ctx, k)
	return err
}
