package mandate

import (
	"errors"
	"strings"
	"testing"
	"time"
)

func anImport(change ...func(*Import)) Import {
	in := Import{Partner: partner, Audiences: []Audience{pc, graph}, Refresh: NewSecret("rt-elsewhere"), From: "standard input", By: operator}
	for _, f := range change {
		f(&in)
	}
	return in
}

func TestImport(t *testing.T) {
	w := newPartnerWorld(t)
	g, receipt, err := w.Import(t.Context(), anImport())
	if err != nil || receipt.Hash != "h" || !g.Refresh.IsZero() {
		t.Fatalf("%+v, %v", g, err)
	}
	stored := w.vault.grants[0]
	if stored.Origin != OriginImport || stored.State != StateActive || stored.User != adele || stored.Refresh.Reveal() != "rt-3" {
		t.Errorf("stored %+v", stored)
	}
	if left := time.Until(stored.Until); left > ImportLife || left < ImportLife-time.Minute {
		t.Errorf("it lasts %v", left)
	}
	// auth_time is in the answer, and yet nobody signed in here.
	if e := stored.Evidence; !e.PartnerCenter || !e.AuthTime.IsZero() || len(e.AMR) != 2 {
		t.Errorf("evidence %+v", e)
	}
	wantKinds(t, w, KindChanged, KindConsented)
	if r := w.audit.last(); r.Caller != "uid:1000" || !strings.Contains(r.Detail, "standard input") || r.User == nil {
		t.Errorf("record %+v", r)
	}
}

// Entra may answer without another refresh token; then the one that was brought
// is kept.
func TestImportKeepsWhatItWasGiven(t *testing.T) {
	w := newPartnerWorld(t)
	w.entra.noRT = true
	in := anImport()
	if _, _, err := w.Import(t.Context(), in); err != nil {
		t.Fatal(err)
	}
	if got := w.vault.grants[0].Refresh.Reveal(); got != in.Refresh.Reveal() {
		t.Errorf("kept %q, want %q", got, in.Refresh.Reveal())
	}
}

func TestImportUntil(t *testing.T) {
	now := time.Now()
	for asked, want := range map[time.Time]time.Time{
		{}: now.Add(ImportLife), now.AddDate(1, 0, 0): now.Add(ImportLife), now.AddDate(0, 0, 7): now.AddDate(0, 0, 7),
	} {
		in := Import{Until: asked}
		if got := in.until(now); !got.Equal(want) {
			t.Errorf("asked %v: got %v, want %v", asked, got, want)
		}
	}
}

func TestImportDryRun(t *testing.T) {
	w := newPartnerWorld(t)
	g, _, err := w.Import(t.Context(), anImport(func(in *Import) { in.DryRun = true }))
	if err != nil || g.UserName != "adele@contoso.example" || !g.Refresh.IsZero() || len(g.Audiences) != 2 || len(w.vault.grants) != 0 {
		t.Errorf("%+v, %v, stored %+v", g, err, w.vault.grants)
	}
	wantKinds(t, w, KindChanged)
}

// An import that would replace anything waits for an operator.
func TestImportStaged(t *testing.T) {
	for state, want := range map[State]Reason{StateActive: ReasonWeaker, StateSuspended: ReasonSuspended} {
		w := newPartnerWorld(t)
		w.add(Grant{Generation: 1, State: state, Refresh: NewSecret("rt-a")})
		_, _, err := w.Import(t.Context(), anImport())
		var r *Refusal
		if !errors.As(err, &r) || r.Staged != 2 || r.Reason != want || w.vault.grants[0].State != state || w.vault.grants[1].State != StateCandidate {
			t.Errorf("%s: got %v, %+v", state, err, w.vault.grants)
		}
		wantKinds(t, w, KindChanged, KindStaged)
	}
	w := newPartnerWorld(t)
	w.add(Grant{Generation: 1, State: StateReplaced})
	if g, _, err := w.Import(t.Context(), anImport()); err != nil || g.Generation != 2 {
		t.Errorf("where nothing is replaced: %+v, %v", g, err)
	}
}

func TestImportRefused(t *testing.T) {
	for name, tt := range map[string]struct {
		dial   func(*world)
		change func(*Import)
		want   Reason
	}{
		"another tenant":   {func(w *world) { w.entra.user.Tenant = adatum }, nil, ReasonTenant},
		"guest":            {func(w *world) { w.entra.guest = true }, nil, ReasonGuest},
		"another user":     {nil, func(in *Import) { in.User = "bob@contoso.example" }, ReasonUser},
		"no ID token":      {func(w *world) { w.entra.noUser = true }, nil, ReasonToken},
		"no MFA":           {func(w *world) { w.prober.ok = false }, nil, ReasonMFA},
		"amr without mfa":  {func(w *world) { w.entra.amr = []string{"pwd"} }, nil, ReasonMFA},
		"ID token's amr":   {func(w *world) { w.entra.idAMR = []string{"pwd"} }, nil, ReasonMFA},
		"no agent":         {func(w *world) { w.prober.groups = nil }, nil, ReasonRole},
		"the token is bad": {func(w *world) { w.entra.hook = func(Redemption) error { return &Fault{Domain: DomainGrant} } }, nil, ReasonEntra},
		"not stored":       {func(w *world) { w.vault.rotateErr = ErrSuperseded }, nil, ReasonSiteProblem},
	} {
		w := newPartnerWorld(t)
		if tt.dial != nil {
			tt.dial(w)
		}
		in := anImport()
		if tt.change != nil {
			tt.change(&in)
		}
		_, _, err := w.Import(t.Context(), in)
		var r *Refusal
		if !errors.As(err, &r) || r.Reason != tt.want || len(w.vault.grants) != 0 {
			t.Errorf("%s: got %v, want %s; stored %+v", name, err, tt.want, w.vault.grants)
		}
		if last := w.audit.last(); last.Kind != KindRefused || last.Caller != "uid:1000" || strings.Contains(last.Reason, "rt-") {
			t.Errorf("%s: record %+v", name, last)
		}
	}
}

func TestImportNotTried(t *testing.T) {
	for name, tt := range map[string]struct {
		dial   func(*world)
		change func(*Import)
		want   error
	}{
		"no token":       {nil, func(in *Import) { in.Refresh = Secret{} }, ErrInvalid},
		"few audiences":  {nil, func(in *Import) { in.Audiences = in.Audiences[:1] }, ErrInvalid},
		"withdrawn":      {func(w *world) { w.add(Grant{Generation: 1, State: StateWithdrawn}) }, nil, ErrNoGrant},
		"no database":    {func(w *world) { w.vault.headErr = ErrUnavailable }, nil, ErrUnavailable},
		"no epoch":       {func(w *world) { w.vault.epoch.lost.Store(true) }, nil, ErrUnavailable},
		"not recordable": {func(w *world) { w.audit.failKind.Store("all") }, nil, ErrUnavailable},
	} {
		w := newPartnerWorld(t)
		if tt.dial != nil {
			tt.dial(w)
		}
		in := anImport()
		if tt.change != nil {
			tt.change(&in)
		}
		if _, _, err := w.Import(t.Context(), in); !errors.Is(err, tt.want) || w.entra.calls.Load() != 0 {
			t.Errorf("%s: got %v after %d redemptions, want %v after none", name, err, w.entra.calls.Load(), tt.want)
		}
	}
}
