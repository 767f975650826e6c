package mandate

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

func wantKinds(t *testing.T, w *world, want ...string) {
	t.Helper()
	if diff := cmp.Diff(want, w.audit.kinds()); diff != "" {
		t.Errorf("records (-want +got):\n%s", diff)
	}
}

func TestTokenRedeemsAndCaches(t *testing.T) {
	w := newWorld(t)
	tok, err := w.Token(t.Context(), ask())
	if err != nil {
		t.Fatal(err)
	}
	again, err := w.Token(t.Context(), ask())
	if err != nil {
		t.Fatal(err)
	}
	if tok.Access.Reveal() != "at-1" || again.Access.Reveal() != "at-1" || w.entra.calls.Load() != 1 {
		t.Errorf("got %s and %s in %d redemptions, want one token in one", tok.Access.Reveal(), again.Access.Reveal(), w.entra.calls.Load())
	}
	if tok.Generation != 1 || tok.UTI != "uti-1" || tok.CorrelationID != "corr-1" || tok.Rule != "r" || len(tok.Fingerprint) != 64 {
		t.Errorf("token %+v", tok)
	}
	// decided before Entra is asked, the refresh token stored before the
	// record that the token went out
	want := []string{"record decided", "redeem rt-0", "store rt-1", "record issued", "record issued"}
	if diff := cmp.Diff(want, w.audit.events.list()); diff != "" {
		t.Errorf("order (-want +got):\n%s", diff)
	}
	if r := w.audit.last(); r.Request == "" {
		t.Error("a record has no request id")
	}
	named := ask()
	named.ID = "given"
	if _, err := w.Token(t.Context(), named); err != nil || w.audit.last().Request != "given" {
		t.Errorf("recorded %+v, %v, want the id that was given", w.audit.last(), err)
	}
	if r := w.audit.last(); !r.Cached || r.Fingerprint != tok.Fingerprint || r.Generation != 1 || r.UTI != "uti-1" || r.Caller != "billing" || r.Purpose != "invoice" {
		t.Errorf("record of a hit: %+v", r)
	}
}

// Whatever makes two tokens different must be in the cache's key.
func TestTrap07NoTokenForAnotherScope(t *testing.T) {
	const claims = `{"access_token":{"nbf":{"essential":true,"value":"1"}}}`
	w := newWorld(t)
	for i, change := range []func(*Request){
		func(r *Request) {},
		func(r *Request) { r.Tenant = adatum },
		func(r *Request) { r.Tenant = litware },
		func(r *Request) { r.Audience = graph },
		func(r *Request) { r.Scopes = []Scope{"User.Read"} },
		func(r *Request) { r.Scopes = []Scope{"A", "User.Read"} },
		func(r *Request) { r.Claims = claims },
		func(r *Request) { r.Scopes, r.Claims = []Scope{"User.Read"}, claims },
	} {
		for range 2 {
			tok, err := w.Token(t.Context(), ask(change))
			if err != nil {
				t.Fatal(err)
			}
			if want := fmt.Sprintf("at-%d", i+1); tok.Access.Reveal() != want {
				t.Errorf("request %d: got %s, want %s", i, tok.Access.Reveal(), want)
			}
		}
	}
}

func TestTokenOtherPartnerAndApplication(t *testing.T) {
	w := newWorld(t)
	other := testKey
	other.Application = mustApp("bbbbbbbb-0000-0000-0000-00000000000b")
	g := w.vault.grants[0]
	g.Key = other
	w.vault.grants = append(w.vault.grants, g)
	if _, err := w.Token(t.Context(), ask()); err != nil {
		t.Fatal(err)
	}
	tok, err := w.Token(t.Context(), ask(func(r *Request) { r.Partner.Key = other }))
	if err != nil || tok.Access.Reveal() != "at-2" {
		t.Errorf("another application's request got %s, %v", tok.Access.Reveal(), err)
	}
}

func TestTokenDenied(t *testing.T) {
	w := newWorld(t)
	w.policy.set(Decision{Reason: "no rule allows it"})
	_, err := w.Token(t.Context(), ask())
	if !errors.Is(err, ErrDenied) || w.entra.calls.Load() != 0 {
		t.Errorf("got %v after %d redemptions, want a denial without any", err, w.entra.calls.Load())
	}
	wantKinds(t, w, KindDenied)
}

// A token in memory does not outlive the permission to have it.
func TestTokenDeniedThoughCached(t *testing.T) {
	w := newWorld(t)
	if _, err := w.Token(t.Context(), ask()); err != nil {
		t.Fatal(err)
	}
	w.policy.set(Decision{Reason: "no longer"})
	if tok, err := w.Token(t.Context(), ask()); !errors.Is(err, ErrDenied) || !tok.Access.IsZero() {
		t.Errorf("got %v, want a denial", err)
	}
}

func TestTokenNotRecordedNotReleased(t *testing.T) {
	for _, kind := range []string{KindDecided, KindIssued, "all"} {
		w := newWorld(t)
		w.audit.failKind.Store(kind)
		tok, err := w.Token(t.Context(), ask())
		if !errors.Is(err, ErrUnavailable) || !tok.Access.IsZero() {
			t.Errorf("%s cannot be recorded: got %v", kind, err)
		}
		if kind != KindIssued && w.entra.calls.Load() != 0 {
			t.Errorf("%s cannot be recorded: Entra was asked all the same", kind)
		}
		w.audit.failKind.Store("")
		if _, err := w.Token(t.Context(), ask()); err != nil {
			t.Errorf("after %s could be recorded again: %v", kind, err)
		}
	}
}

func TestTokenCachedNotRecordedNotReleased(t *testing.T) {
	w := newWorld(t)
	if _, err := w.Token(t.Context(), ask()); err != nil {
		t.Fatal(err)
	}
	w.audit.failKind.Store(KindIssued)
	if tok, err := w.Token(t.Context(), ask()); !errors.Is(err, ErrUnavailable) || !tok.Access.IsZero() {
		t.Errorf("a hit that cannot be recorded: %v", err)
	}
}

func TestTokenDenialNotRecorded(t *testing.T) {
	w := newWorld(t)
	w.policy.set(Decision{})
	w.audit.failKind.Store(KindDenied)
	if _, err := w.Token(t.Context(), ask()); !errors.Is(err, ErrUnavailable) {
		t.Errorf("got %v, want ErrUnavailable", err)
	}
}

// A thousand callers of one expired token cost one redemption, whoever hangs
// up.
func TestTokenStampede(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.entra.delay = 300 * time.Millisecond
		first, hangUp := context.WithCancel(t.Context())
		gone := make(chan error, 1)
		go func() {
			_, err := w.Token(first, ask())
			gone <- err
		}()
		synctest.Wait()
		var wg sync.WaitGroup
		var mu sync.Mutex
		got := make(map[string]int)
		for range 1000 {
			wg.Go(func() {
				tok, err := w.Token(t.Context(), ask())
				if err != nil {
					t.Error(err)
				}
				mu.Lock()
				got[tok.Access.Reveal()]++
				mu.Unlock()
			})
		}
		synctest.Wait()
		hangUp()
		if err := <-gone; !errors.Is(err, context.Canceled) {
			t.Errorf("who hung up got %v", err)
		}
		wg.Wait()
		if n := w.entra.calls.Load(); n != 1 || got["at-1"] != 1000 {
			t.Errorf("%d redemptions, tokens %v, want 1 and 1000 of at-1", n, got)
		}
		kinds := w.audit.kinds()
		count := func(k string) (n int) {
			for _, x := range kinds {
				if x == k {
					n++
				}
			}
			return n
		}
		if count(KindDecided) != 1001 || count(KindIssued) != 1000 || count(KindFailed) != 1 {
			t.Errorf("records: %d decided, %d issued, %d failed", count(KindDecided), count(KindIssued), count(KindFailed))
		}
	})
}

// A slow customer blocks no other.
func TestTokenIndependentFlights(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.entra.hook = func(r Redemption) error {
			if r.Tenant == adatum {
				time.Sleep(20 * time.Second)
			}
			return nil
		}
		go w.Token(t.Context(), ask(func(r *Request) { r.Tenant = adatum }))
		synctest.Wait()
		start := time.Now()
		if _, err := w.Token(t.Context(), ask(func(r *Request) { r.Tenant = litware })); err != nil || time.Since(start) > time.Second {
			t.Errorf("got %v after %v", err, time.Since(start))
		}
		time.Sleep(time.Minute)
	})
}

func TestTokenTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.entra.delay = time.Hour
		start := time.Now()
		if _, err := w.Token(t.Context(), ask()); !errors.Is(err, ErrUpstream) || time.Since(start) != 30*time.Second {
			t.Errorf("got %v after %v, want a fault after 30 s", err, time.Since(start))
		}
	})
}

// Nobody has the access token before the refresh token that came with it is
// durable.
func TestTokenWaitsForRotation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		stored := make(chan struct{})
		w.vault.onRotate = func() { <-stored }
		got := make(chan Token, 2)
		for range 2 {
			go func() {
				tok, _ := w.Token(t.Context(), ask())
				got <- tok
			}()
		}
		synctest.Wait()
		if len(got) != 0 {
			t.Error("a token was handed out before the refresh token was stored")
		}
		close(stored)
		<-got
		<-got
	})
}

func TestTokenRotationFails(t *testing.T) {
	for _, tt := range []struct {
		err  error
		want error // nil: the token is handed out all the same
	}{
		{nil, nil},
		{ErrRotated, nil},
		{fmt.Errorf("disk: %w", ErrUnavailable), ErrUnavailable},
		{errors.New("odd"), errors.New("odd")},
		{ErrSuperseded, ErrUnavailable}, // for ever
	} {
		w := newWorld(t)
		w.vault.rotateErr = tt.err
		tok, err := w.Token(t.Context(), ask())
		if (err == nil) != (tt.want == nil) || tok.Access.IsZero() != (tt.want != nil) {
			t.Errorf("Rotate fails with %v: got %v, want %v", tt.err, err, tt.want)
		}
		if errors.Is(tt.want, ErrUnavailable) && !errors.Is(err, ErrUnavailable) {
			t.Errorf("Rotate fails with %v: got %v, want %v", tt.err, err, tt.want)
		}
		if tt.want == nil {
			continue
		}
		w.vault.rotateErr = nil
		if tok, err := w.Token(t.Context(), ask()); err != nil || tok.Access.Reveal() == "at-1" {
			t.Errorf("after Rotate failed with %v: got %s, %v, want a fresh token", tt.err, tok.Access.Reveal(), err)
		}
	}
}

func TestTrap14CustomerNeverRotates(t *testing.T) {
	w := newWorld(t)
	w.entra.user = mallory // a customer's tenant knows our user by another id
	if _, err := w.Token(t.Context(), ask(func(r *Request) { r.Tenant = adatum })); err != nil {
		t.Fatal(err)
	}
	if g := w.vault.grants[0]; g.Refresh.Reveal() != "rt-0" || g.Version != 1 {
		t.Errorf("a customer's tenant replaced the refresh token by %s", g.Refresh.Reveal())
	}
}

func TestTokenOfAnotherUser(t *testing.T) {
	for _, change := range []func(*fakeEntra){
		func(e *fakeEntra) { e.user = mallory },
		func(e *fakeEntra) { e.user.Tenant = adatum },
		func(e *fakeEntra) { e.noUser = true },
	} {
		w := newWorld(t)
		change(w.entra)
		tok, err := w.Token(t.Context(), ask())
		var f *Fault
		if !errors.As(err, &f) || f.Domain != DomainGrant || !tok.Access.IsZero() {
			t.Errorf("got %v, want a fault of the grant", err)
		}
		if g := w.vault.grants[0]; g.Refresh.Reveal() != "rt-0" {
			t.Errorf("the other user's refresh token was stored")
		}
		if w.cache.get(&cacheKey{}, time.Now(), 0) != nil || w.entra.calls.Load() != 1 {
			t.Error("something was kept")
		}
	}
}

func TestTokenNoNewRefreshToken(t *testing.T) {
	w := newWorld(t)
	w.entra.noRT = true
	if _, err := w.Token(t.Context(), ask()); err != nil {
		t.Fatal(err)
	}
	if g := w.vault.grants[0]; g.Refresh.Reveal() != "rt-0" || g.Version != 1 {
		t.Errorf("stored %s, version %d", g.Refresh.Reveal(), g.Version)
	}
}

// A change of security state between decision and answer discards what was
// obtained, and the request is decided anew.
func TestTokenEpochChanges(t *testing.T) {
	for _, tt := range []struct {
		name   string
		tenant TenantID
		noRT   bool
		at     func(*world, func())
	}{
		{"while Entra is asked, own tenant", contoso, false, func(w *world, change func()) { w.entra.hook = func(Redemption) error { change(); return nil } }},
		{"while Entra is asked, no rotation", contoso, true, func(w *world, change func()) { w.entra.hook = func(Redemption) error { change(); return nil } }},
		{"while Entra is asked, customer", adatum, false, func(w *world, change func()) { w.entra.hook = func(Redemption) error { change(); return nil } }},
		{"while the token is recorded", contoso, false, func(w *world, change func()) {
			w.audit.onRecord = func(r Record) {
				if r.Kind == KindIssued {
					change()
				}
			}
		}},
		{"right after the decision", contoso, false, func(w *world, change func()) { w.policy.onDecide = func(*Request) { change() } }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			w.entra.noRT = tt.noRT
			once := sync.OnceFunc(func() {
				w.vault.epoch.n.Add(1)
				w.policy.set(Decision{Reason: "revoked"})
			})
			tt.at(w, once)
			tok, err := w.Token(t.Context(), ask(func(r *Request) { r.Tenant = tt.tenant }))
			if !errors.Is(err, ErrDenied) || !tok.Access.IsZero() {
				t.Errorf("got %v, want a denial under the new epoch", err)
			}
		})
	}
}

func TestTokenEpochUnknown(t *testing.T) {
	w := newWorld(t)
	if _, err := w.Token(t.Context(), ask()); err != nil {
		t.Fatal(err)
	}
	w.vault.epoch.lost.Store(true)
	if tok, err := w.Token(t.Context(), ask()); !errors.Is(err, ErrUnavailable) || !tok.Access.IsZero() {
		t.Errorf("got %v, want ErrUnavailable", err)
	}
}

// An epoch that only concerns others costs one read of the grant and no token.
func TestTokenEpochOfOthers(t *testing.T) {
	w := newWorld(t)
	for range 3 {
		for range 3 {
			if _, err := w.Token(t.Context(), ask()); err != nil {
				t.Fatal(err)
			}
		}
		w.vault.epoch.n.Add(1)
	}
	if w.entra.calls.Load() != 1 || w.vault.heads.Load() != 3 {
		t.Errorf("%d redemptions and %d reads, want 1 and 3", w.entra.calls.Load(), w.vault.heads.Load())
	}
}

// Nothing is decided, not even a denial, while the epoch is not known.
func TestTokenDeniedInUnknownEpoch(t *testing.T) {
	w := newWorld(t)
	w.policy.set(Decision{})
	w.vault.epoch.lost.Store(true)
	if _, err := w.Token(t.Context(), ask()); !errors.Is(err, ErrUnavailable) || len(w.audit.kinds()) != 0 {
		t.Errorf("got %v, records %v", err, w.audit.kinds())
	}
}

// A hit that was decided under an old epoch is not recorded as handed out.
func TestTokenCachedInOldEpoch(t *testing.T) {
	w := newWorld(t)
	if _, err := w.Token(t.Context(), ask()); err != nil {
		t.Fatal(err)
	}
	before := len(w.audit.kinds())
	revoke := sync.OnceFunc(func() {
		w.vault.epoch.n.Add(1)
		w.policy.set(Decision{Reason: "revoked"})
	})
	w.policy.onDecide = func(*Request) { revoke() }
	if _, err := w.Token(t.Context(), ask()); !errors.Is(err, ErrDenied) {
		t.Errorf("got %v, want a denial", err)
	}
	if kinds := w.audit.kinds()[before:]; slices.Contains(kinds, KindIssued) {
		t.Errorf("records %v", kinds)
	}
}

// A failure is recorded with its reason, Microsoft's correlation id and where
// the request came from; if it cannot be, the caller learns that too.
func TestTokenFailureIsRecorded(t *testing.T) {
	w := newWorld(t)
	w.entra.hook = func(Redemption) error {
		return &Fault{Domain: DomainCustomer, CorrelationID: "ms-7", Description: "no"}
	}
	from := func(r *Request) { r.Address = netip.MustParseAddr("192.0.2.7") }
	_, err := w.Token(t.Context(), ask(from))
	if r := w.audit.last(); r.Kind != KindFailed || r.Reason != err.Error() || r.Correlation != "ms-7" || r.Address != "192.0.2.7" {
		t.Errorf("got %v, record %+v", err, r)
	}
	w.audit.failKind.Store(KindFailed)
	if _, err := w.Token(t.Context(), ask()); !errors.Is(err, ErrUpstream) || !errors.Is(err, ErrUnavailable) {
		t.Errorf("an unrecorded failure: %v", err)
	}
}

func TestTokenVaultFails(t *testing.T) {
	w := newWorld(t)
	w.vault.headErr = ErrUnavailable
	if _, err := w.Token(t.Context(), ask()); !errors.Is(err, ErrUnavailable) || errors.Is(err, ErrNoGrant) {
		t.Errorf("the head cannot be read: %v", err)
	}
	w.vault.headErr = nil
	w.vault.onOpen = func() error { return errors.New("sealed with a lost key") }
	if _, err := w.Token(t.Context(), ask()); err == nil || !strings.Contains(err.Error(), "open grant: sealed with a lost key") {
		t.Errorf("the grant cannot be opened: %v", err)
	}
	w.vault.onOpen = nil
	if _, err := w.Token(t.Context(), ask()); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

// A generation that changed without an epoch is never taken for the old one.
func TestTokenGenerationWithoutEpoch(t *testing.T) {
	for what, change := range map[string]func(*Grant){
		"generation": func(g *Grant) { g.Generation = 2 }, "state, which changed and came back": func(g *Grant) { g.Since++ },
	} {
		w := newWorld(t)
		w.entra.noRT = true
		w.vault.onOpen = func() error { change(&w.vault.grants[0]); return nil }
		if tok, err := w.Token(t.Context(), ask()); !errors.Is(err, ErrUnavailable) || w.entra.calls.Load() != 0 {
			t.Errorf("%s: got %+v, %v", what, tok, err)
		}
	}
}

// Whoever comes when a redemption has just ended takes what it brought.
func TestRedeemLooksAgain(t *testing.T) {
	w := newWorld(t)
	if _, err := w.Token(t.Context(), ask()); err != nil {
		t.Fatal(err)
	}
	f := flight{redemption: Redemption{Key: testKey, Tenant: contoso, Audience: pc}, generation: 1, atLeast: time.Minute}
	if c, err := w.fly(t.Context(), f); err != nil || c.Access.Reveal() != "at-1" || w.entra.calls.Load() != 1 {
		t.Errorf("got %v, %v after %d redemptions", c, err, w.entra.calls.Load())
	}
}

func TestTokenNoGrant(t *testing.T) {
	for _, tt := range []struct {
		change func(*world)
		want   string
	}{
		{func(w *world) { w.vault.grants = nil }, "has not consented yet"},
		{func(w *world) { w.vault.grants[0].State = StateSuspended }, "suspended"},
		{func(w *world) { w.vault.grants[0].State = StateWithdrawn }, "withdrawn"},
		{func(w *world) { w.vault.grants[0].Until = time.Now().Add(-time.Second) }, "ended on"},
	} {
		w := newWorld(t)
		tt.change(w)
		_, err := w.Token(t.Context(), ask())
		if !errors.Is(err, ErrNoGrant) || !strings.Contains(err.Error(), tt.want) || w.entra.calls.Load() != 0 {
			t.Errorf("got %v, want %q", err, tt.want)
		}
		wantKinds(t, w, KindFailed)
	}
}

func TestTokenGrantEndsWhileCached(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.vault.grants[0].Until = time.Now().Add(10 * time.Minute)
		if _, err := w.Token(t.Context(), ask()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Minute)
		if _, err := w.Token(t.Context(), ask()); !errors.Is(err, ErrNoGrant) {
			t.Errorf("past the grant's end: %v", err)
		}
	})
}

func TestTokenWiderThanRule(t *testing.T) {
	for _, tt := range []struct {
		name    string
		granted []Scope
		d       Decision
		wider   bool
	}{
		{"listed", []Scope{"A", "B"}, Decision{Scopes: []Scope{"A", "B", "C"}}, false},
		{"one more", []Scope{"A", "B", "D"}, Decision{Scopes: []Scope{"A", "B", "C"}}, true},
		{"case differs", []Scope{"a"}, Decision{Scopes: []Scope{"A"}}, true},
		{"none listed", []Scope{"A"}, Decision{}, true},
		{"consented", []Scope{"A", "D"}, Decision{Consented: true}, false},
		{"life within", []Scope{"A"}, Decision{Consented: true, MaxTokenLife: time.Hour}, false},
		{"life beyond", []Scope{"A"}, Decision{Consented: true, MaxTokenLife: 59 * time.Minute}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			w.entra.scopes = tt.granted
			tt.d.Allowed, tt.d.Rule = true, "narrow"
			w.policy.set(tt.d)
			for range 2 { // fresh, then cached
				tok, err := w.Token(t.Context(), ask())
				if tt.wider != errors.Is(err, ErrWiderThanRule) || tt.wider != tok.Access.IsZero() {
					t.Fatalf("got %v, want wider: %v", err, tt.wider)
				}
				var we *WiderError
				if tt.wider && (!errors.As(err, &we) || we.Rule != "narrow") {
					t.Errorf("got %#v", err)
				}
			}
			if tt.wider && w.audit.last().Kind != KindFailed {
				t.Errorf("last record %+v", w.audit.last())
			}
		})
	}
}

func TestTokenExpiry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		ctx := t.Context()
		w.Token(ctx, ask())
		time.Sleep(59*time.Minute - time.Nanosecond) // renewed ahead by whoever asks now
		if tok, _ := w.Token(ctx, ask()); tok.Access.Reveal() != "at-1" {
			t.Errorf("a token with a minute left was not served: %s", tok.Access.Reveal())
		}
		synctest.Wait()
		if tok, _ := w.Token(ctx, ask()); tok.Access.Reveal() != "at-2" {
			t.Errorf("after the renewal: %s", tok.Access.Reveal())
		}
		time.Sleep(59 * time.Minute)
		if tok, _ := w.Token(ctx, ask()); tok.Access.Reveal() != "at-3" {
			t.Errorf("a token with less than a minute left was served: %s", tok.Access.Reveal())
		}
	})
}

func TestTokenMinLifetime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		long := func(r *Request) { r.MinLifetime = 40 * time.Minute }
		w.Token(t.Context(), ask())
		time.Sleep(19 * time.Minute)
		if tok, _ := w.Token(t.Context(), ask(long)); tok.Access.Reveal() != "at-1" {
			t.Errorf("41 minutes left: got %s", tok.Access.Reveal())
		}
		time.Sleep(2 * time.Minute)
		if tok, _ := w.Token(t.Context(), ask(long)); tok.Access.Reveal() != "at-2" {
			t.Errorf("39 minutes left: got %s", tok.Access.Reveal())
		}
	})
}

func TestTokenRenewsAhead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		ctx, stop := context.WithCancel(t.Context())
		ran := make(chan error, 1)
		go func() { ran <- w.Run(ctx) }()
		w.Token(t.Context(), ask())
		time.Sleep(41 * time.Minute) // before 70 % of an hour
		w.Token(t.Context(), ask())
		synctest.Wait()
		if n := w.entra.calls.Load(); n != 1 {
			t.Errorf("%d redemptions before renewal was due", n)
		}
		time.Sleep(8 * time.Minute) // after 80 %
		w.entra.delay = 10 * time.Second
		for range 100 {
			start := time.Now()
			tok, err := w.Token(t.Context(), ask())
			if err != nil || tok.Access.Reveal() != "at-1" || time.Since(start) != 0 {
				t.Fatalf("while renewing: %s, %v after %v", tok.Access.Reveal(), err, time.Since(start))
			}
		}
		stop()
		if err := <-ran; err != nil || w.entra.calls.Load() != 2 { // Run waits for it
			t.Errorf("Run returned %v after %d redemptions", err, w.entra.calls.Load())
		}
		if tok, _ := w.Token(t.Context(), ask()); tok.Access.Reveal() != "at-2" {
			t.Errorf("after the renewal: %s", tok.Access.Reveal())
		}
		if !slices.Contains(w.audit.kinds(), KindRefreshed) {
			t.Error("the renewal was not recorded")
		}
	})
}

// A renewal that fails harms nobody, and is not tried with every request.
func TestTokenRenewalFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.Token(t.Context(), ask())
		time.Sleep(49 * time.Minute)
		w.entra.hook = func(Redemption) error { return &Fault{Domain: DomainTransient} }
		for range 50 {
			if tok, err := w.Token(t.Context(), ask()); err != nil || tok.Access.Reveal() != "at-1" {
				t.Fatalf("got %v", err)
			}
			synctest.Wait()
			time.Sleep(time.Second)
		}
		if n := w.entra.calls.Load(); n != 3 {
			t.Errorf("%d redemptions, want the first and one renewal each 30 s", n)
		}
	})
}

// A renewal is decided and recorded like anything else that asks Entra.
func TestTokenRenewalNotRecordedNotMade(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.Token(t.Context(), ask())
		time.Sleep(49 * time.Minute)
		w.audit.failKind.Store(KindDecided)
		w.Token(t.Context(), ask())
		synctest.Wait()
		if n := w.entra.calls.Load(); n != 1 {
			t.Errorf("%d redemptions, want 1", n)
		}
	})
}

// "The grant is dead" is believed only after the store was read again.
func TestTokenInvalidGrantRereads(t *testing.T) {
	dead := &Fault{Domain: DomainGrant, Remedy: RemedyRenew, Codes: []int{50173}}
	t.Run("another replica rotated it", func(t *testing.T) {
		w := newWorld(t)
		w.entra.hook = func(r Redemption) error {
			if r.Refresh.Reveal() == "rt-0" {
				w.vault.mu.Lock()
				w.vault.grants[0].Refresh, w.vault.grants[0].Version = NewSecret("rt-theirs"), 2
				w.vault.mu.Unlock()
				return dead
			}
			return nil
		}
		if _, err := w.Token(t.Context(), ask()); err != nil || w.entra.calls.Load() != 2 {
			t.Errorf("got %v after %d redemptions", err, w.entra.calls.Load())
		}
	})
	t.Run("it is dead", func(t *testing.T) {
		w := newWorld(t)
		w.entra.hook = func(Redemption) error { return dead }
		var f *Fault
		if _, err := w.Token(t.Context(), ask()); !errors.As(err, &f) || f != dead || w.entra.calls.Load() != 1 {
			t.Errorf("got %v after %d redemptions", err, w.entra.calls.Load())
		}
		if g := w.vault.grants[0]; g.State != StateActive || g.Refresh.IsZero() {
			t.Errorf("a failure changed the grant: %+v", g)
		}
	})
	t.Run("another domain", func(t *testing.T) {
		w := newWorld(t)
		w.entra.hook = func(Redemption) error { return &Fault{Domain: DomainApplication} }
		w.Token(t.Context(), ask())
		if w.vault.heads.Load() != 1 || w.entra.calls.Load() != 1 {
			t.Errorf("a fault of the application re-read the grant")
		}
	})
}

func TestTokenNewGeneration(t *testing.T) {
	w := newWorld(t)
	w.Token(t.Context(), ask())
	g := w.vault.grants[0]
	g.Generation, g.Refresh = 2, NewSecret("rt-new")
	if err := w.vault.Activate(t.Context(), g); err != nil {
		t.Fatal(err)
	}
	tok, err := w.Token(t.Context(), ask())
	if err != nil || tok.Access.Reveal() != "at-2" || tok.Generation != 2 {
		t.Errorf("after a new consent: %+v, %v", tok, err)
	}
	if n := w.cache.len(); n != 1 {
		t.Errorf("%d tokens in memory, the old generation's among them", n)
	}
}

// A grant that was replaced between reading its head and opening it.
func TestTokenGenerationChangesUnderway(t *testing.T) {
	w := newWorld(t)
	replace := sync.OnceFunc(func() {
		g := w.vault.grants[0]
		g.Generation, g.Refresh = 2, NewSecret("rt-new")
		w.vault.Activate(t.Context(), g)
	})
	w.audit.onRecord = func(r Record) {
		if r.Kind == KindDecided {
			replace()
		}
	}
	tok, err := w.Token(t.Context(), ask())
	if err != nil || tok.Generation != 2 {
		t.Errorf("got %+v, %v, want a token of generation 2", tok, err)
	}
}

func TestTokenClaimsBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		challenge := func(n int) func(*Request) {
			return func(r *Request) {
				r.Claims = fmt.Sprintf(`{"access_token":{"nbf":{"essential":true,"value":"%d"}}}`, n)
			}
		}
		for i := range challengeBudget {
			if _, err := w.Token(t.Context(), ask(challenge(i))); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := w.Token(t.Context(), ask(challenge(0))); err != nil {
			t.Errorf("an answered challenge: %v", err)
		}
		if _, err := w.Token(t.Context(), ask(challenge(99))); !errors.Is(err, ErrRateLimited) {
			t.Errorf("over the budget: %v", err)
		}
		if _, err := w.Token(t.Context(), ask(challenge(99), func(r *Request) { r.Caller = "other" })); err != nil {
			t.Errorf("another caller: %v", err)
		}
		time.Sleep(time.Minute)
		if _, err := w.Token(t.Context(), ask(challenge(100))); err != nil {
			t.Errorf("a minute later: %v", err)
		}
		w.challenges.sweep(time.Now().Add(time.Minute))
		if len(w.challenges.used) != 0 {
			t.Error("the budget remembers for ever")
		}
	})
}

// Scopes have no end, and so a caller cannot keep Entra busy with one more each
// time. Who has tokens in memory, names none, or is somebody else, goes on.
func TestTokenNamedBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		named := func(n int) func(*Request) {
			return func(r *Request) { r.Scopes = []Scope{fmt.Sprintf("Scope.%d", n)} }
		}
		for i := range namedBudget {
			if _, err := w.Token(t.Context(), ask(named(i))); err != nil {
				t.Fatal(err)
			}
		}
		before := w.entra.calls.Load()
		if _, err := w.Token(t.Context(), ask(named(999))); !errors.Is(err, ErrRateLimited) || w.entra.calls.Load() != before {
			t.Errorf("over the budget: %v", err)
		}
		for name, change := range map[string]func(*Request){
			"in memory":      named(0),
			"no scopes":      func(r *Request) { r.Scopes = nil },
			"another caller": func(r *Request) { named(999)(r); r.Caller = "other" },
			"another tenant": func(r *Request) { named(999)(r); r.Tenant = adatum },
		} {
			if _, err := w.Token(t.Context(), ask(change)); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		time.Sleep(time.Minute)
		if _, err := w.Token(t.Context(), ask(named(1000))); err != nil {
			t.Errorf("a minute later: %v", err)
		}
		w.named.sweep(time.Now().Add(time.Minute))
		if len(w.named.used) != 0 {
			t.Error("the budget remembers for ever")
		}
	})
}

func (b *budget) len() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.used)
}

func TestRunSweeps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		go w.Run(ctx)
		w.Token(t.Context(), ask())
		w.Token(t.Context(), ask(func(r *Request) {
			r.Scopes, r.Claims = []Scope{"User.Read"}, `{"access_token":{"nbf":{"essential":true,"value":"1"}}}`
		}))
		if w.challenges.len() != 1 || w.named.len() != 1 {
			t.Errorf("budgets of %d and %d callers", w.challenges.len(), w.named.len())
		}
		time.Sleep(61 * time.Minute)
		synctest.Wait()
		if w.cache.len() != 0 {
			t.Error("an expired token is still in memory")
		}
		if w.challenges.len() != 0 || w.named.len() != 0 {
			t.Error("the budgets remember for ever")
		}
	})
}

func TestNewRefuses(t *testing.T) {
	for what, without := range map[string]func(*Config){
		"authority": func(c *Config) { c.Authority = nil }, "vault": func(c *Config) { c.Vault = nil }, "policy": func(c *Config) { c.Policy = nil },
		"audit": func(c *Config) { c.Audit = nil }, "epoch": func(c *Config) { c.Epoch = nil },
	} {
		cfg := newWorld(t).cfg
		without(&cfg)
		if _, err := New(cfg); err == nil {
			t.Errorf("New without %s succeeded", what)
		}
	}
}
