package vault

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/internal/database"
)

// A fakeHome keeps blobs in memory. Its dials are what a real one does on bad
// days.
type fakeHome struct {
	mu       sync.Mutex // guards what follows
	blobs    map[string]map[string][]byte
	puts     int
	gets     int
	conflict int   // how many Puts fail first, as somebody else was faster
	busy     error // every call fails, as with 429
	disabled bool  // Get fails
	remains  string
	keep     error // Destroy fails

	// What a bad implementation does.
	latest   bool // Get returns the last version, whatever the ref
	alias    bool // Put does not copy
	stubborn bool // Destroy does nothing
}

var errBusy = errors.New("429: too many requests")

func (h *fakeHome) Put(_ context.Context, name string, blob []byte) (string, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.busy != nil {
		return "", h.busy
	}
	if h.conflict > 0 {
		h.conflict--
		return "", errors.New("409: conflict")
	}
	if !h.alias {
		blob = bytes.Clone(blob)
	}
	if h.blobs == nil {
		h.blobs = make(map[string]map[string][]byte)
	}
	if h.blobs[name] == nil {
		h.blobs[name] = make(map[string][]byte)
	}
	h.puts++
	ref := fmt.Sprint("v", len(h.blobs[name])+1)
	h.blobs[name][ref] = blob
	return ref, nil
}

func (h *fakeHome) Get(_ context.Context, name, ref string) ([]byte, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.gets++
	if h.busy != nil {
		return nil, h.busy
	}
	if h.latest {
		ref = fmt.Sprint("v", len(h.blobs[name]))
	}
	b, ok := h.blobs[name][ref]
	if !ok || h.disabled {
		return nil, errors.New("404: gone or disabled")
	}
	return bytes.Clone(b), nil
}

func (h *fakeHome) Destroy(_ context.Context, name string) (string, time.Time, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := errors.Join(h.busy, h.keep); err != nil {
		return "", time.Time{}, err
	}
	if h.blobs[name] == nil || h.stubborn {
		return "", time.Time{}, nil
	}
	delete(h.blobs, name)
	return h.remains, time.Unix(1e9, 0), nil
}

func (h *fakeHome) names() (all []string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for name := range h.blobs {
		all = append(all, name)
	}
	return all
}

func TestCheckHome(t *testing.T) {
	if err := CheckHome(t.Context(), &fakeHome{remains: "a soft-deleted secret"}); err != nil {
		t.Error(err)
	}
	if err := CheckHome(t.Context(), &fakeHome{conflict: 0}); err != nil {
		t.Error(err)
	}
	for name, h := range map[string]*fakeHome{
		"latest":   {latest: true},
		"alias":    {alias: true},
		"busy":     {busy: errBusy},
		"disabled": {disabled: true},
		"stubborn": {stubborn: true},
		"keeps":    {keep: errBusy},
	} {
		if err := CheckHome(t.Context(), h); err == nil {
			t.Errorf("%s: CheckHome found nothing wrong", name)
		}
	}
}

// withHome returns a vault whose grants are at home.
func withHome(t *testing.T, cfg database.Config, h Home) *SQL {
	t.Helper()
	keys := openKeys(t, t.TempDir()+"/keys")
	v, err := New(Config{
		DB: openDB(t, cfg), Key: keys, SharedKey: keys.Shared(),
		Homes: map[string]Home{"away": h}, HomeOf: func(mandate.GrantKey) string { return "away" },
	})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func sqlite(t *testing.T) database.Config {
	return database.Config{File: t.TempDir() + "/mandate.db", Schemas: []database.Schema{Schema()}}
}

func TestConformanceWithAHome(t *testing.T) {
	onBoth(t, func(t *testing.T, cfg database.Config) {
		h := &fakeHome{}
		v := withHome(t, cfg, h)
		if err := Check(t.Context(), subject(v), contoso); err != nil {
			t.Error(err)
		}
		var n int
		if err := v.db.QueryRow(t.Context(), `SELECT count(*) FROM grants WHERE sealed IS NOT NULL`).Scan(&n); err != nil || n > 0 {
			t.Errorf("%d sealed tokens are in the database (error %v), want all of them in the home", n, err)
		}
		for _, name := range h.names() {
			if !regexp.MustCompile(`^[0-9a-zA-Z-]{1,127}$`).MatchString(name) {
				t.Errorf("name %q, which Key Vault does not take", name)
			}
		}
	})
}

func TestAHomeIsReadOnlyWhenSomethingChanged(t *testing.T) {
	h := &fakeHome{}
	v := withHome(t, sqlite(t), h)
	g := activate(t, v, candidate(v.db, contoso, 1, "refresh"))
	for range 3 {
		if _, err := v.Open(t.Context(), contoso); err != nil {
			t.Fatal(err)
		}
	}
	if h.gets != 0 {
		t.Errorf("the home was read %d times for what was just stored there, want 0", h.gets)
	}
	again := newVaultLike(t, v)
	for range 3 {
		if _, err := again.Open(t.Context(), contoso); err != nil {
			t.Fatal(err)
		}
	}
	if h.gets != 1 {
		t.Errorf("another replica read the home %d times, want 1", h.gets)
	}
	c := check{key: contoso}
	w := c.wanted(g, "https://example.com")
	if turn, _, err := newVaultLike(t, v).Take(t.Context(), w); err != nil || turn.Fence == 0 || turn.Grant.Generation != 0 || h.gets != 1 {
		t.Errorf("Take: got generation %d, %v, and %d reads of the home; want none more", turn.Grant.Generation, err, h.gets)
	}
	if err := rotate(t.Context(), v, g, "next"); err != nil {
		t.Fatal(err)
	}
	if got, err := again.Open(t.Context(), contoso); err != nil || got.Refresh.Reveal() != "next" || h.gets != 2 {
		t.Errorf("after a rotation: got %d reads and error %v, want the new token after one more", h.gets, err)
	}
}

// newVaultLike is another replica of v, with the same database, keys and homes.
func newVaultLike(t *testing.T, v *SQL) *SQL {
	t.Helper()
	c := Config{DB: v.db, Key: v.key, SharedKey: v.shared, Homes: v.homes}
	if v.homes != nil {
		c.HomeOf = v.homeOf
	}
	other, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	return other
}

func TestAHomeThatFails(t *testing.T) {
	ctx := t.Context()
	h := &fakeHome{conflict: 1}
	v := withHome(t, sqlite(t), h)
	if err := v.Activate(ctx, candidate(v.db, contoso, 1, "refresh")); err == nil {
		t.Error("Activate returned nil, and the home did not take the token")
	}
	if _, err := v.Head(ctx, contoso); !errors.Is(err, mandate.ErrNoGrant) {
		t.Errorf("Head of a grant that was not stored: got error %v", err)
	}
	g := activate(t, v, candidate(v.db, contoso, 1, "refresh"))
	h.busy = errBusy
	if err := rotate(ctx, v, g, "next"); !errors.Is(err, errBusy) {
		t.Errorf("Keep: got error %v, want %v", err, errBusy)
	}
	if _, err := newVaultLike(t, v).Open(ctx, contoso); !errors.Is(err, errBusy) {
		t.Errorf("Open: got error %v, want %v", err, errBusy)
	}
	h.busy, h.disabled = nil, true
	if _, err := newVaultLike(t, v).Open(ctx, contoso); err == nil || errors.Is(err, mandate.ErrNoGrant) {
		t.Errorf("Open of what the home has disabled: got error %v", err)
	}
	h.disabled = false
	if got, err := newVaultLike(t, v).Open(ctx, contoso); err != nil || got.Refresh.Reveal() != "refresh" || got.Version != 1 {
		t.Errorf("Open after all that: got version %d, %v, want nothing changed", got.Version, err)
	}
	if err := rotate(ctx, v, g, strings.Repeat("x", maxBlob)); err == nil {
		t.Error("a token was stored that is larger than homes take")
	}
}

// TestAHomeKeepsNothingThatIsOver: what a change of the grant destroys is gone
// from the home at once, and not with the next sweep.
func TestAHomeKeepsNothingThatIsOver(t *testing.T) {
	ctx := t.Context()
	h := &fakeHome{}
	v := withHome(t, sqlite(t), h)
	c := check{key: contoso}
	compromised := candidate(v.db, contoso, 3, "third")
	compromised.Compromised = true
	for i, tt := range []struct {
		change func() error
		want   int
	}{
		{func() error { return v.Activate(ctx, candidate(v.db, contoso, 1, "first")) }, 1},
		{func() error { return v.Activate(ctx, candidate(v.db, contoso, 2, "second")) }, 2}, // and the fall-back
		{func() error { return v.Activate(ctx, compromised) }, 1},
		{func() error { return v.Activate(ctx, candidate(v.db, contoso, 4, "fourth")) }, 2},
		{func() error { return v.Rollback(ctx, contoso) }, 1},
		{func() error { return v.Activate(ctx, candidate(v.db, contoso, 5, "fifth")) }, 2},
		{func() error { return v.Suspend(ctx, contoso) }, 1},
		{func() error { return v.Stage(ctx, c.staged(6, "sixth")) }, 2},
		{func() error { return v.Discard(ctx, contoso) }, 1},
	} {
		if err := tt.change(); err != nil || len(h.names()) != tt.want {
			t.Errorf("after change %d (error %v) the home has %v, want %d", i, err, h.names(), tt.want)
		}
	}
}

func TestWithdrawDestroysTheHomesCopies(t *testing.T) {
	ctx := t.Context()
	h := &fakeHome{remains: "a soft-deleted secret"}
	v := withHome(t, sqlite(t), h)
	activate(t, v, candidate(v.db, contoso, 1, "first"))
	activate(t, v, candidate(v.db, contoso, 2, "second"))
	c := check{key: contoso}
	if err := v.Stage(ctx, c.staged(3, "third")); err != nil {
		t.Fatal(err)
	}
	if n := len(h.names()); n != 3 {
		t.Fatalf("the home has %d tokens, want 3", n)
	}
	h.keep = errBusy
	left, err := v.Withdraw(ctx, contoso)
	if err != nil || len(left) != 3 || !strings.Contains(left[0].What, "429") {
		t.Fatalf("Withdraw while the home destroys nothing: got %v, %v, want 3 remnants", left, err)
	}
	h.keep = nil
	if err := v.Sweep(ctx); err != nil || len(h.names()) > 0 {
		t.Errorf("after Sweep the home has %v (error %v), want nothing", h.names(), err)
	}
	activate(t, v, candidate(v.db, contoso, 4, "again"))
	left, err = v.Withdraw(ctx, contoso)
	if err != nil || len(left) != 1 || !strings.Contains(left[0].What, "a soft-deleted secret") || left[0].Until.Unix() != 1e9 {
		t.Errorf("Withdraw: got %v, %v, want what remains and until when", left, err)
	}
	if got, err := v.Grants(ctx, contoso.Partner); err != nil || len(got) != 4 || got[0].State != mandate.StateWithdrawn || got[1].State != mandate.StateWithdrawn {
		t.Errorf("Grants after Withdraw: got %+v, %v, want 4 tombstones", got, err)
	}
}
