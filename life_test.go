package mandate

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// move gives the generation in one of the states from the state to.
func (v *fakeVault) move(k GrantKey, to State, none error, from ...State) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.rotateErr != nil {
		return v.rotateErr
	}
	moved := false
	for i := range v.grants {
		if g := &v.grants[i]; g.Key == k && slices.Contains(from, g.State) {
			moved, g.State, g.Since = true, to, v.epoch.n.Load()+1
			if to != StateActive && to != StateSuspended {
				g.Refresh = Secret{}
			}
		}
	}
	if !moved {
		return none
	}
	v.epoch.n.Add(1)
	v.trace.add("%s", to)
	return nil
}

func (v *fakeVault) Suspend(_ context.Context, k GrantKey) error {
	return v.move(k, StateSuspended, &NoGrantError{}, StateActive)
}

func (v *fakeVault) Resume(_ context.Context, k GrantKey) error {
	return v.move(k, StateActive, ErrNotFound, StateSuspended)
}

func (v *fakeVault) Rollback(_ context.Context, k GrantKey) error {
	if _, err := v.in(k, StateFallback); err != nil {
		return ErrNotFound
	}
	if err := v.move(k, StateReplaced, ErrNotFound, StateActive); err != nil {
		return err
	}
	return v.move(k, StateActive, ErrNotFound, StateFallback)
}

func (v *fakeVault) Discard(_ context.Context, k GrantKey) error {
	return v.move(k, StateDiscarded, ErrNotFound, StateCandidate)
}

func (v *fakeVault) Held(_ context.Context, k GrantKey) (Grant, error) {
	if g, err := v.in(k, StateSuspended); err == nil {
		return g, nil
	}
	return v.in(k, StateActive)
}

func (v *fakeVault) Withdraw(_ context.Context, k GrantKey) ([]Remnant, error) {
	return v.remnants, v.move(k, StateWithdrawn, &NoGrantError{}, StateActive, StateSuspended, StateFallback, StateCandidate)
}

func (v *fakeVault) Grants(context.Context, TenantID) ([]Grant, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return slices.Clone(v.grants), nil
}

var operator = By{Caller: "uid:1000", Ticket: "T-1"}

// twoAudiences is what a grant has that a consent brought.
var twoAudiences = []GrantedAudience{{pc, []Scope{"user_impersonation"}}, {graph, []Scope{"user_impersonation"}}}

// add stores one more generation.
func (w *world) add(g Grant) {
	g.Key, g.Version, g.Audiences = testKey, 1, twoAudiences
	if g.User == (Identity{}) {
		g.User = adele
	}
	if g.Until.IsZero() {
		g.Until = time.Now().AddDate(1, 0, 0)
	}
	w.vault.grants = append(w.vault.grants, g)
}

func TestSuspendAndResume(t *testing.T) {
	w := newWorld(t)
	first, err := w.Token(t.Context(), ask())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Suspend(t.Context(), partner, operator); err != nil {
		t.Fatal(err)
	}
	if r := w.audit.last(); r.Kind != KindChanged || r.Caller != "uid:1000" || r.Ticket != "T-1" || r.Partner != "contoso" || *r.Grant != testKey || !strings.Contains(r.Detail, "suspend") {
		t.Errorf("record %+v", r)
	}
	if tok, err := w.Token(t.Context(), ask()); !errors.Is(err, ErrNoGrant) || !tok.Access.IsZero() {
		t.Errorf("while suspended: %v", err)
	}
	if _, err := w.Resume(t.Context(), partner, operator); err != nil {
		t.Fatal(err)
	}
	again, err := w.Token(t.Context(), ask())
	if err != nil || again.Access.Reveal() == first.Access.Reveal() {
		t.Errorf("after resuming: %v, or the token of before", err)
	}
	if _, err := w.Resume(t.Context(), partner, operator); !errors.Is(err, ErrNotFound) || w.audit.last().Kind != KindFailed {
		t.Errorf("resuming what serves: %v, record %+v", err, w.audit.last())
	}
}

// What cannot be recorded is not done.
func TestLifeNotRecordedNotDone(t *testing.T) {
	for name, act := range map[string]func(*world) error{
		"suspend":  func(w *world) error { _, err := w.Suspend(t.Context(), partner, operator); return err },
		"resume":   func(w *world) error { _, err := w.Resume(t.Context(), partner, operator); return err },
		"rollback": func(w *world) error { _, _, err := w.Rollback(t.Context(), partner, operator); return err },
		"approve":  func(w *world) error { _, _, err := w.Approve(t.Context(), partner, 3, operator); return err },
		"discard":  func(w *world) error { _, err := w.Discard(t.Context(), partner, 3, operator); return err },
		"withdraw": func(w *world) error { _, err := w.Withdraw(t.Context(), partner, true, operator); return err },
		"import":   func(w *world) error { _, _, err := w.Import(t.Context(), anImport()); return err },
	} {
		w := newWorld(t)
		w.add(Grant{Generation: 2, State: StateFallback, Fallback: time.Now().Add(time.Hour), Refresh: NewSecret("rt-f")})
		w.add(Grant{Generation: 3, State: StateCandidate, Fallback: time.Now().Add(time.Hour), Refresh: NewSecret("rt-c")})
		w.audit.failKind.Store(KindChanged)
		before := w.vault.grants
		if err := act(w); !errors.Is(err, ErrUnavailable) || w.entra.calls.Load() != 0 || w.vault.epoch.n.Load() != 0 {
			t.Errorf("%s: got %v after %d redemptions, in epoch %d", name, err, w.entra.calls.Load(), w.vault.epoch.n.Load())
		}
		if diff := cmp.Diff(before, w.vault.grants, cmp.AllowUnexported(TenantID{}, AppID{}, ObjectID{}, Secret{})); diff != "" {
			t.Errorf("%s changed\n%s", name, diff)
		}
	}
}

// A grant that names no audience cannot be tried, so it does not serve.
func TestLifeWithoutAudiences(t *testing.T) {
	for name, act := range map[string]func(*world) error{
		"release":  func(w *world) error { _, err := w.Release(t.Context(), partner, operator); return err },
		"rollback": func(w *world) error { _, _, err := w.Rollback(t.Context(), partner, operator); return err },
		"approve":  func(w *world) error { _, _, err := w.Approve(t.Context(), partner, 3, operator); return err },
	} {
		w := newWorld(t)
		w.vault.grants[0].State = StateSuspended
		w.add(Grant{Generation: 2, State: StateFallback, Fallback: time.Now().Add(time.Hour), Refresh: NewSecret("rt-f")})
		w.add(Grant{Generation: 3, State: StateCandidate, Fallback: time.Now().Add(time.Hour), Refresh: NewSecret("rt-c")})
		for i := range w.vault.grants {
			w.vault.grants[i].Audiences = nil
		}
		if err := act(w); !errors.Is(err, ErrNoGrant) || w.entra.calls.Load() != 0 {
			t.Errorf("%s: got %v after %d redemptions", name, err, w.entra.calls.Load())
		}
	}
}

func TestRollback(t *testing.T) {
	w := newWorld(t)
	w.add(Grant{Generation: 2, State: StateFallback, Fallback: time.Now().Add(time.Hour), Refresh: NewSecret("rt-f")})
	g, _, err := w.Rollback(t.Context(), partner, operator)
	if err != nil || g.Generation != 2 || g.State != StateActive || !g.Refresh.IsZero() {
		t.Fatalf("got %+v, %v", g, err)
	}
	// The record comes first, and what the trial brought is kept.
	want := []string{"record changed", "redeem rt-f", "store rt-1", "replaced", "active"}
	if diff := cmp.Diff(want, w.audit.events.list()); diff != "" {
		t.Errorf("order (-want +got):\n%s", diff)
	}
	if tok, err := w.Token(t.Context(), ask()); err != nil || tok.Generation != 2 {
		t.Errorf("token %+v, %v", tok, err)
	}
}

func TestRollbackRefused(t *testing.T) {
	for name, tt := range map[string]struct {
		dial func(*world)
		want error
	}{
		"nothing to roll back to": {func(w *world) { w.vault.grants = w.vault.grants[:1] }, ErrNotFound},
		"another user answers":    {func(w *world) { w.entra.user = mallory }, ErrRefused},
		"nobody answers":          {func(w *world) { w.entra.noUser = true }, ErrRefused},
		"its token is dead": {func(w *world) {
			w.entra.hook = func(Redemption) error {
				return &Fault{Domain: DomainGrant, OAuthError: "invalid_grant", Codes: []int{50173}}
			}
		}, ErrUpstream},
		"not kept": {func(w *world) { w.vault.rotateErr = ErrSuperseded }, ErrSuperseded},
	} {
		w := newWorld(t)
		w.add(Grant{Generation: 2, State: StateFallback, Fallback: time.Now().Add(time.Hour), Refresh: NewSecret("rt-f")})
		tt.dial(w)
		if _, _, err := w.Rollback(t.Context(), partner, operator); !errors.Is(err, tt.want) {
			t.Errorf("%s: got %v, want %v", name, err, tt.want)
		}
		if w.vault.grants[0].State != StateActive {
			t.Errorf("%s: the active generation is %s", name, w.vault.grants[0].State)
		}
		if n := len(w.audit.records); n > 0 && w.audit.last().Kind != KindFailed {
			t.Errorf("%s: last record %+v", name, w.audit.last())
		}
	}
}

// A candidate is proven once more, and then its user's tokens are served and
// none of the user before.
func TestApprove(t *testing.T) {
	w := newWorld(t)
	old, err := w.Token(t.Context(), ask())
	if err != nil {
		t.Fatal(err)
	}
	w.add(Grant{Generation: 2, State: StateCandidate, User: mallory, Fallback: time.Now().Add(time.Hour), Refresh: NewSecret("rt-c"),
		Evidence: Evidence{AMR: []TokenAMR{{"id_token", []string{"mfa"}}, {string(pc), []string{"pwd", "mfa"}}}}})
	w.entra.user = mallory
	g, _, err := w.Approve(t.Context(), partner, 2, operator)
	if err != nil || g.State != StateActive || g.User != mallory || !g.Refresh.IsZero() {
		t.Fatalf("got %+v, %v", g, err)
	}
	stored := w.vault.grants[1]
	if e := stored.Evidence; !e.PartnerCenter || len(e.AMR) != 3 || len(stored.Audiences) != 2 || stored.Refresh.Reveal() != "rt-3" || !stored.Fallback.IsZero() {
		t.Errorf("stored %+v", stored)
	}
	kinds := w.audit.kinds()
	if !slices.Equal(kinds[2:], []string{KindChanged, KindConsented}) {
		t.Errorf("records %v", kinds)
	}
	tok, err := w.Token(t.Context(), ask())
	if err != nil || tok.Access.Reveal() == old.Access.Reveal() || tok.Generation != 2 {
		t.Errorf("token %+v, %v", tok, err)
	}
}

func TestApproveRefused(t *testing.T) {
	for name, tt := range map[string]struct {
		dial func(*world)
		want error
	}{
		"no candidate":      {func(w *world) { w.vault.grants = w.vault.grants[:1] }, ErrNotFound},
		"another candidate": {func(w *world) { w.vault.grants[1].Generation = 3 }, ErrInvalid},
		"MFA lost":          {func(w *world) { w.prober.ok = false }, ErrRefused},
		"no agent any more": {func(w *world) { w.prober.groups = nil }, ErrRefused},
		"another user":      {func(w *world) { w.entra.user = mallory }, ErrRefused},
		"amr lost":          {func(w *world) { w.entra.amr = []string{"pwd"} }, ErrRefused},
		"amr never had":     {func(w *world) { w.vault.grants[1].Evidence.AMR = []TokenAMR{{"id_token", []string{"pwd"}}} }, ErrRefused},
		"audience lost": {func(w *world) {
			w.entra.hook = func(r Redemption) error {
				if r.Audience == graph {
					return &Fault{Domain: DomainAudience, Codes: []int{65001}}
				}
				return nil
			}
		}, ErrRefused},
		"not recorded": {func(w *world) { w.audit.failKind.Store(KindConsented) }, ErrUnavailable},
		"not stored":   {func(w *world) { w.vault.rotateErr = ErrSuperseded }, ErrSuperseded},
	} {
		w := newWorld(t)
		w.add(Grant{Generation: 2, State: StateCandidate, Fallback: time.Now().Add(time.Hour), Refresh: NewSecret("rt-c")})
		tt.dial(w)
		g, _, err := w.Approve(t.Context(), partner, 2, operator)
		if !errors.Is(err, tt.want) || !g.Refresh.IsZero() {
			t.Errorf("%s: got %+v, %v, want %v", name, g, err, tt.want)
		}
		if w.vault.grants[0].State != StateActive || len(w.vault.grants) > 1 && w.vault.grants[1].State != StateCandidate {
			t.Errorf("%s: the grants changed: %+v", name, w.vault.grants)
		}
	}
}

func TestDiscard(t *testing.T) {
	w := newWorld(t)
	w.add(Grant{Generation: 2, State: StateCandidate, Fallback: time.Now().Add(time.Hour), Refresh: NewSecret("rt-c")})
	if _, err := w.Discard(t.Context(), partner, 1, operator); !errors.Is(err, ErrInvalid) {
		t.Errorf("the active generation: %v", err)
	}
	if _, err := w.Discard(t.Context(), partner, 2, operator); err != nil || w.vault.grants[1].State != StateDiscarded {
		t.Errorf("got %v, %+v", err, w.vault.grants[1])
	}
	if _, err := w.Discard(t.Context(), partner, 2, operator); !errors.Is(err, ErrNotFound) {
		t.Errorf("twice: %v", err)
	}
	if all, err := w.Grants(t.Context(), contoso); err != nil || len(all) != 2 {
		t.Errorf("%+v, %v", all, err)
	}
}

// The word "revoked" is used only after Entra refused.
func TestWithdraw(t *testing.T) {
	revoked := &Fault{Domain: DomainGrant, OAuthError: "invalid_grant", Codes: []int{50173}, Description: "The grant was revoked."}
	refuseAfterEnd := func(f *Fault) func(*world) {
		return func(w *world) {
			w.prober.onEnd = func() { w.entra.hook = func(Redemption) error { return f } }
		}
	}
	for name, tt := range map[string]struct {
		dial     func(*world)
		ask      bool
		upstream Result
		revoked  bool
		says     string
	}{
		"not asked":        {nil, false, ResultNotAsked, false, "Enterprise applications"},
		"ended":            {refuseAfterEnd(revoked), true, ResultDone, true, "it is revoked"},
		"accepted still":   {nil, true, ResultFailed, false, "still accepted"},
		"policy refuses":   {refuseAfterEnd(&Fault{Domain: DomainGrant, OAuthError: "invalid_grant", Codes: []int{50076}}), true, ResultFailed, false, "not known"},
		"access policy":    {refuseAfterEnd(&Fault{Domain: DomainGrant, OAuthError: "invalid_grant", Codes: []int{53003}}), true, ResultFailed, false, "not known"},
		"not the grant's":  {refuseAfterEnd(&Fault{Domain: DomainCustomer, OAuthError: "invalid_grant"}), true, ResultFailed, false, "not known"},
		"Entra is silent":  {refuseAfterEnd(&Fault{Domain: DomainTransient, Description: "Busy."}), true, ResultFailed, false, "not known"},
		"not permitted":    {func(w *world) { w.prober.endErr = &Fault{Domain: DomainAudience, Status: 403} }, true, ResultNotPermitted, false, "were not ended"},
		"fails":            {func(w *world) { w.prober.endErr = &Fault{Domain: DomainTransient} }, true, ResultFailed, false, "were not ended"},
		"Graph refuses":    {func(w *world) { w.prober.endErr = &Fault{Domain: DomainGrant, Status: 401} }, true, ResultFailed, false, "were not ended"},
		"dead before":      {func(w *world) { w.entra.hook = func(Redemption) error { return revoked } }, true, ResultDone, true, "already"},
		"one audience":     {func(w *world) { w.vault.grants[0].Audiences = twoAudiences[:1] }, true, ResultNotPermitted, false, "no way"},
		"suspended before": {func(w *world) { w.vault.grants[0].State = StateSuspended; refuseAfterEnd(revoked)(w) }, true, ResultDone, true, "it is revoked"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				w.vault.grants[0].Audiences, w.vault.grants[0].Redeemed = twoAudiences, time.Now()
				w.prober.alive = 2
				w.vault.remnants = []Remnant{{"a soft-deleted secret", time.Now().AddDate(0, 0, 90)}}
				if tt.dial != nil {
					tt.dial(w)
				}
				r, err := w.Withdraw(t.Context(), partner, tt.ask, operator)
				if err != nil || r.Upstream.Result != tt.upstream || r.Revoked != tt.revoked || !strings.Contains(r.Upstream.Text, tt.says) {
					t.Errorf("got %+v, %v", r, err)
				}
				first, last := w.audit.records[0], w.audit.last()
				if strings.HasSuffix(first.Detail, ", and end the sessions of who consented") != tt.ask || first.User == nil || *first.User != adele {
					t.Errorf("recorded before: %+v", first)
				}
				if strings.HasSuffix(last.Detail, "; revoked at Entra") != tt.revoked {
					t.Errorf("recorded after: %+v", last)
				}
				all := r.Local.Text + r.Upstream.Text + r.Tokens.Text + r.Copies.Text + w.audit.last().Detail
				if strings.Contains(all, "revoked") != tt.revoked {
					t.Errorf("revoked is %v, and the report says %q", tt.revoked, all)
				}
				if strings.Contains(all, "rt-") || strings.Contains(all, "at-") {
					t.Errorf("the report has a token: %s", all)
				}
				if r.Alive != 2 || r.Tokens.Result != ResultNotPermitted || r.Tokens.Until.IsZero() || !strings.Contains(r.Copies.Text, "a soft-deleted secret (until ") {
					t.Errorf("tokens %+v, copies %+v", r.Tokens, r.Copies)
				}
				if r.Copies.Result == ResultDone != tt.revoked || r.Copies.Until.IsZero() != tt.revoked {
					t.Errorf("copies %+v", r.Copies)
				}
				if g := w.vault.grants[0]; g.State != StateWithdrawn || !g.Refresh.IsZero() {
					t.Errorf("stored %+v", g)
				}
				if _, err := w.Token(t.Context(), ask()); !errors.Is(err, ErrNoGrant) {
					t.Errorf("a token afterwards: %v", err)
				}
			})
		})
	}
}

// Our own copy goes before anybody else is asked.
func TestWithdrawOrder(t *testing.T) {
	w := newWorld(t)
	w.vault.grants[0].Audiences = twoAudiences
	w.prober.onEnd = func() {
		w.entra.hook = func(Redemption) error { return &Fault{Domain: DomainGrant, OAuthError: "invalid_grant"} }
	}
	if _, err := w.Withdraw(t.Context(), partner, true, operator); err != nil {
		t.Fatal(err)
	}
	want := []string{"record changed", "withdrawn", "redeem rt-0", "redeem rt-0", "record changed"}
	if diff := cmp.Diff(want, w.audit.events.list()); diff != "" {
		t.Errorf("order (-want +got):\n%s", diff)
	}
	if _, err := w.Withdraw(t.Context(), partner, true, operator); !errors.Is(err, ErrNoGrant) || w.audit.last().Kind != KindFailed {
		t.Errorf("twice: %v, %+v", err, w.audit.last())
	}
}

func TestWithdrawUnknowns(t *testing.T) {
	w := newWorld(t)
	w.prober.aliveErr = errors.New("the log cannot be read")
	r, err := w.Withdraw(t.Context(), partner, false, operator)
	if err != nil || r.Tokens.Result != ResultFailed || r.Copies.Result != ResultNotPermitted || !r.Copies.Until.IsZero() {
		t.Errorf("got %+v, %v", r, err)
	}
	if !strings.Contains(r.Copies.Text, "is not known") {
		t.Errorf("when copies are harmless: %q", r.Copies.Text)
	}
	w = newWorld(t)
	w.vault.grants[0].Audiences = twoAudiences
	w.cfg.Issued, w.cfg.Sessions = nil, nil
	r, err = w.Withdraw(t.Context(), partner, true, operator)
	if err != nil || r.Tokens.Result != ResultFailed || r.Upstream.Result != ResultNotPermitted {
		t.Errorf("got %+v, %v", r, err)
	}
	// A fall-back alone is not held; that is said, and who it was is not.
	w = newWorld(t)
	w.vault.grants[0].State, w.prober.alive = StateFallback, 0
	r, err = w.Withdraw(t.Context(), partner, true, operator)
	if err != nil || r.Upstream.Result != ResultFailed || !strings.Contains(r.Upstream.Text, "could not be opened") || w.audit.records[0].User != nil {
		t.Errorf("got %+v, %v; recorded %+v", r, err, w.audit.records[0])
	}
	if r.Tokens.Result != ResultDone || r.Alive != 0 {
		t.Errorf("tokens %+v", r.Tokens)
	}
}
