package mandate

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func consent(change ...func(*Consent)) Consent {
	c := Consent{
		Partner: partner, Began: time.Now(), Until: time.Now().AddDate(1, 0, 0), Audiences: []Audience{pc, graph},
		Code: NewSecret("code"), Verifier: NewSecret("verifier"), RedirectURI: "https://portal/cb", Nonce: "nonce", Address: "192.0.2.1",
	}
	for _, f := range change {
		f(&c)
	}
	return c
}

func newPartnerWorld(t *testing.T) *world {
	w := newWorld(t)
	w.vault.grants = nil
	w.entra.upn = "adele@contoso.example"
	w.entra.auth = time.Now()
	return w
}

// Either group of agents will do.
func TestConsentOfSalesAgent(t *testing.T) {
	w := newPartnerWorld(t)
	w.prober.groups = []string{"SalesAgents"}
	if _, _, err := w.Consent(t.Context(), consent()); err != nil {
		t.Error(err)
	}
}

func TestConsent(t *testing.T) {
	w := newPartnerWorld(t)
	g, receipt, err := w.Consent(t.Context(), consent())
	if err != nil {
		t.Fatal(err)
	}
	stored := w.vault.grants[0]
	if g.Generation != 1 || stored.Generation != 1 || stored.State != StateActive || stored.User != adele || receipt.Hash != "h" {
		t.Errorf("got %+v, stored %+v", g, stored)
	}
	// the newest refresh token of the probes is the one that is kept
	if stored.Refresh.Reveal() != "rt-3" {
		t.Errorf("stored %s, want rt-3", stored.Refresh.Reveal())
	}
	want := []GrantedAudience{{pc, []Scope{"user_impersonation"}}, {graph, []Scope{"user_impersonation"}}}
	if diff := cmp.Diff(want, stored.Audiences); diff != "" {
		t.Errorf("audiences (-want +got):\n%s", diff)
	}
	e := stored.Evidence
	if !e.PartnerCenter || len(e.AMR) != 2 || e.AuthTime.IsZero() || !slices.Equal(stored.AgentGroups, []string{"AdminAgents"}) {
		t.Errorf("evidence %+v, groups %v", e, stored.AgentGroups)
	}
	if w.prober.mfaToken != "at-2" || w.prober.groupToken != "at-3" {
		t.Errorf("Partner Center was shown %s, Graph %s", w.prober.mfaToken, w.prober.groupToken)
	}
	order := []string{"redeem code code", "redeem rt-1", "redeem rt-2", "record consented", "activate 1 rt-3"}
	if diff := cmp.Diff(order, w.audit.events.list()); diff != "" {
		t.Errorf("order (-want +got):\n%s", diff)
	}
	if tok, err := w.Token(t.Context(), ask()); err != nil || tok.Generation != 1 {
		t.Errorf("a token of the new grant: %+v, %v", tok, err)
	}
}

func TestConsentRefused(t *testing.T) {
	fault := func(d Domain, codes ...int) error { return &Fault{Domain: d, Codes: codes, CorrelationID: "ms-1"} }
	failing := func(a Audience, err error) func(*world) {
		return func(w *world) {
			w.entra.hook = func(r Redemption) error {
				if r.Audience == a {
					return err
				}
				return nil
			}
		}
	}
	for _, tt := range []struct {
		name   string
		dial   func(*world)
		change func(*Consent)
		want   Reason
	}{
		{"code refused", func(w *world) { w.entra.code = func(CodeRedemption) error { return fault(DomainGrant, 54005) } }, nil, ReasonEntra},
		{"our credential", func(w *world) { w.entra.code = func(CodeRedemption) error { return fault(DomainApplication, 7000222) } }, nil, ReasonApplication},
		{"Entra down", func(w *world) { w.entra.code = func(CodeRedemption) error { return fault(DomainTransient) } }, nil, ReasonUnavailable},
		{"admin needed", func(w *world) { w.entra.code = func(CodeRedemption) error { return fault(DomainGrant, 90094) } }, nil, ReasonAdmin},
		{"ID token bad", func(w *world) { w.entra.code = func(CodeRedemption) error { return &Refusal{Reason: ReasonToken} } }, nil, ReasonToken},
		{"no ID token", func(w *world) { w.entra.noUser = true }, nil, ReasonToken},
		{"another tenant", func(w *world) { w.entra.user.Tenant = adatum }, nil, ReasonTenant},
		{"guest", func(w *world) { w.entra.guest = true }, nil, ReasonGuest},
		{"another user by name", nil, func(c *Consent) { c.User = "bob@contoso.example" }, ReasonUser},
		{"another user by id", nil, func(c *Consent) { c.User = mallory.Object.String() }, ReasonUser},
		{"no refresh token", func(w *world) { w.entra.noRT = true }, nil, ReasonNoRefresh},
		{"first audience refused", failing(pc, fault(DomainAudience, 65001)), nil, ReasonAudience},
		{"second audience refused", failing(graph, fault(DomainAudience, 65001)), nil, ReasonAudience},
		{"conditional access", failing(graph, fault(DomainGrant, 53003)), nil, ReasonConditional},
		{"MFA wanted", failing(pc, fault(DomainGrant, 50076)), nil, ReasonMFA},
		{"probe answers for another user", func(w *world) {
			w.entra.hook = func(Redemption) error { w.entra.user = mallory; return nil }
		}, nil, ReasonToken},
		{"probe answers for nobody", func(w *world) {
			w.entra.hook = func(Redemption) error { w.entra.noUser = true; return nil }
		}, nil, ReasonToken},
		{"amr without mfa", func(w *world) { w.entra.amr = []string{"pwd"} }, nil, ReasonMFA},
		{"amr empty", func(w *world) { w.entra.amr = []string{} }, nil, ReasonMFA},
		{"ID token's amr without mfa", func(w *world) { w.entra.idAMR = []string{"pwd"} }, nil, ReasonMFA},
		{"Partner Center says no", func(w *world) { w.prober.ok, w.prober.why = false, "header absent" }, nil, ReasonMFA},
		{"Partner Center refuses", func(w *world) { w.prober.mfaErr = fault(DomainGrant, 900421) }, nil, ReasonMFA},
		{"Partner Center down", func(w *world) { w.prober.mfaErr = fault(DomainTransient) }, nil, ReasonUnavailable},
		{"no agent", func(w *world) { w.prober.groups = []string{"HelpdeskAgents"} }, nil, ReasonRole},
		{"no group", func(w *world) { w.prober.groups = nil }, nil, ReasonRole},
		{"agent unknown", func(w *world) { w.prober.groupsErr = fault(DomainTransient) }, nil, ReasonRoleUnknown},
		{"not recorded that it waits", func(w *world) {
			w.vault.grants = []Grant{{Key: testKey, Generation: 3, State: StateSuspended}}
			w.audit.failKind.Store(KindStaged)
		}, nil, ReasonSiteProblem},
		{"not recorded", func(w *world) { w.audit.failKind.Store(KindConsented) }, nil, ReasonSiteProblem},
		{"not stored", func(w *world) { w.vault.rotateErr = ErrSuperseded }, nil, ReasonSiteProblem},
		{"too few audiences", nil, func(c *Consent) { c.Audiences = c.Audiences[:1] }, ReasonSiteProblem},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newPartnerWorld(t)
			if tt.dial != nil {
				tt.dial(w)
			}
			before := slices.Clone(w.vault.grants)
			c := consent()
			if tt.change != nil {
				tt.change(&c)
			}
			_, _, err := w.Consent(t.Context(), c)
			var r *Refusal
			if !errors.As(err, &r) || r.Reason != tt.want || !errors.Is(err, ErrRefused) {
				t.Errorf("got %v, want %s", err, tt.want)
			}
			if strings.HasSuffix(err.Error(), ": ") {
				t.Errorf("%q ends before it says what is wrong", err)
			}
			if len(w.vault.grants) != len(before) {
				t.Errorf("a refused consent stored %+v", w.vault.grants)
			}
			if last := w.audit.last(); last.Grant == nil || *last.Grant != testKey {
				t.Errorf("the record does not name the grant: %+v", last)
			}
			if last := w.audit.last(); last.Kind != KindRefused || last.Reason == "" || last.Address != "192.0.2.1" {
				t.Errorf("last record %+v", last)
			}
			if r != nil && r.Fault != nil && w.audit.last().Correlation != "ms-1" {
				t.Errorf("Microsoft's correlation id is lost: %+v", w.audit.last())
			}
		})
	}
}

func TestConsentExpectedUser(t *testing.T) {
	for _, user := range []string{"", "adele@contoso.example", "ADELE@contoso.example", adele.Object.String()} {
		w := newPartnerWorld(t)
		if _, _, err := w.Consent(t.Context(), consent(func(c *Consent) { c.User = user })); err != nil {
			t.Errorf("invited %q: %v", user, err)
		}
	}
}

// Freshness is claimed only if Entra names a time after the sign-in began.
func TestConsentAuthTime(t *testing.T) {
	c := consent()
	for _, tt := range []struct {
		at     time.Time
		proven bool
	}{
		{time.Time{}, false},
		{c.Began.Add(-time.Hour), false},
		{c.Began.Add(time.Second), true},
		{c.Began.Truncate(time.Second), true}, // Entra counts whole seconds
	} {
		w := newPartnerWorld(t)
		w.entra.auth = tt.at
		g, _, err := w.Consent(t.Context(), c)
		if err != nil || g.Evidence.AuthTime.IsZero() == tt.proven {
			t.Errorf("auth_time %v: got %v, %v", tt.at, g.Evidence.AuthTime, err)
		}
	}
}

func TestReconsent(t *testing.T) {
	for _, tt := range []struct {
		name   string
		before func(*Grant)
		dial   func(*world)
		want   Reason
	}{
		{"the same", nil, nil, ""},
		{"more scopes", nil, func(w *world) { w.entra.scopes = []Scope{"More", "user_impersonation"} }, ""},
		{"had fewer audiences", func(g *Grant) { g.Audiences = g.Audiences[:1] }, nil, ""},
		{"another user", func(g *Grant) { g.User = mallory }, nil, ReasonOtherUser},
		{"fewer scopes", nil, func(w *world) { w.entra.scopes = nil }, ReasonWeaker},
		{"fewer audiences", func(g *Grant) {
			g.Audiences = append(g.Audiences, GrantedAudience{Audience: "https://management.azure.com"})
		}, nil, ReasonWeaker},
		{"time no longer proven", nil, func(w *world) { w.entra.auth = time.Time{} }, ReasonWeaker},
		{"time was not proven", func(g *Grant) { g.Evidence.AuthTime = time.Time{} }, func(w *world) { w.entra.auth = time.Time{} }, ""},
		{"suspended", func(g *Grant) { g.State = StateSuspended }, nil, ReasonSuspended},
		{"withdrawn before, another user", func(g *Grant) { g.State, g.User = StateWithdrawn, mallory }, nil, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newPartnerWorld(t)
			if _, _, err := w.Consent(t.Context(), consent()); err != nil {
				t.Fatal(err)
			}
			if tt.before != nil {
				tt.before(&w.vault.grants[0])
			}
			if tt.dial != nil {
				tt.dial(w)
			}
			old := w.vault.grants[0]
			g, _, err := w.Consent(t.Context(), consent())
			var r *Refusal
			if tt.want == "" {
				if err != nil || g.Generation != 2 || w.vault.grants[1].State != StateActive {
					t.Errorf("got generation %d, %v", g.Generation, err)
				}
				return
			}
			if !errors.As(err, &r) || r.Reason != tt.want {
				t.Errorf("got %v, want %s", err, tt.want)
			}
			if diff := cmp.Diff(old, w.vault.grants[0], cmp.AllowUnexported(TenantID{}, AppID{}, ObjectID{}, Secret{})); diff != "" {
				t.Errorf("the active grant changed:\n%s", diff)
			}
			staged := w.vault.grants[len(w.vault.grants)-1]
			if r != nil && (r.Staged != 2 || staged.Generation != 2 || staged.State != StateCandidate || staged.Fallback.Before(time.Now())) {
				t.Errorf("nothing waits for an operator: %+v, %+v", r, staged)
			}
			if last := w.audit.last(); last.Kind != KindStaged || last.Generation != 2 || last.Address != "192.0.2.1" {
				t.Errorf("last record %+v", last)
			}
		})
	}
}

// The old user's tokens are not served after a new consent.
func TestConsentDropsTokens(t *testing.T) {
	w := newPartnerWorld(t)
	w.Consent(t.Context(), consent())
	first, _ := w.Token(t.Context(), ask())
	if _, _, err := w.Consent(t.Context(), consent()); err != nil {
		t.Fatal(err)
	}
	second, err := w.Token(t.Context(), ask())
	if err != nil || second.Access.Reveal() == first.Access.Reveal() || second.Generation != 2 {
		t.Errorf("after a new consent: %+v, %v", second, err)
	}
}

func TestRefuse(t *testing.T) {
	w := newPartnerWorld(t)
	err := w.Refuse(t.Context(), Partner{}, &Refusal{Reason: ReasonInvitation}, "192.0.2.9")
	if !errors.Is(err, ErrRefused) || w.audit.last().Kind != KindRefused || w.audit.last().Grant != nil {
		t.Errorf("got %v, record %+v", err, w.audit.last())
	}
	w.audit.failKind.Store("all")
	err = w.Refuse(t.Context(), partner, &Refusal{Reason: ReasonDeclined}, "")
	if !errors.Is(err, ErrRefused) || !errors.Is(err, ErrUnavailable) {
		t.Errorf("an unrecorded refusal: %v", err)
	}
}

// What a partner begins by itself takes the place of a grant that is there, and
// brings none back.
func TestRenewal(t *testing.T) {
	renewal := func(c *Consent) { c.Renewal = true }
	for _, tt := range []struct {
		name   string
		before func(*world)
		code   func(*world) // while the person signs in
		want   Reason
	}{
		{"active", nil, nil, ""},
		{"suspended", func(w *world) { w.vault.grants[0].State = StateSuspended }, nil, ReasonSuspended},
		{"another user's", func(w *world) { w.vault.grants[0].User = mallory }, nil, ReasonOtherUser},
		{"withdrawn", func(w *world) { w.vault.grants[0].State = StateWithdrawn }, nil, ReasonEnded},
		{"never given", func(w *world) { w.vault.grants = nil }, nil, ReasonEnded},
		{"withdrawn meanwhile", nil, func(w *world) { w.vault.grants[0].State = StateWithdrawn }, ReasonEnded},
	} {
		w := newPartnerWorld(t)
		if _, _, err := w.Consent(t.Context(), consent()); err != nil {
			t.Fatal(err)
		}
		if tt.before != nil {
			tt.before(w)
		}
		if tt.code != nil {
			w.entra.code = func(CodeRedemption) error { tt.code(w); return nil }
		}
		calls := w.entra.calls.Load()
		g, _, err := w.Consent(t.Context(), consent(renewal))
		if tt.before != nil && tt.want == ReasonEnded && w.entra.calls.Load() != calls {
			t.Errorf("%s: Entra was asked for what cannot be", tt.name)
		}
		var r *Refusal
		switch {
		case tt.want == "" && (err != nil || g.Generation != 2):
			t.Errorf("%s: got %+v, %v", tt.name, g, err)
		case tt.want != "" && (!errors.As(err, &r) || r.Reason != tt.want):
			t.Errorf("%s: got %v, want %s", tt.name, err, tt.want)
		}
		if tt.want == ReasonEnded && slices.ContainsFunc(w.vault.grants, func(g Grant) bool { return g.State == StateActive }) {
			t.Errorf("%s: there is an active grant", tt.name)
		}
	}
}
