package app

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/internal/portal"
)

// fakeRoles is what an operator allowed, and what Graph says.
type fakeRoles struct {
	mu     sync.Mutex // guards the fields below
	given  []string
	groups []string
	err    error
	asked  int
	delay  time.Duration
}

func (f *fakeRoles) PartnerUserRoles(context.Context, mandate.GrantKey, mandate.ObjectID) ([]string, error) {
	return f.given, nil
}

func (f *fakeRoles) AgentGroups(context.Context, mandate.GrantKey, mandate.ObjectID) ([]string, error) {
	time.Sleep(f.delay)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked++
	return f.groups, f.err
}

func identity(t *testing.T, tenant, object string) (mandate.GrantKey, mandate.Identity) {
	t.Helper()
	id, err := mandate.ParseTenantID(tenant)
	if err != nil {
		t.Fatal(err)
	}
	o, err := mandate.ParseObjectID(object)
	if err != nil {
		t.Fatal(err)
	}
	return mandate.GrantKey{Cloud: "global", Partner: id}, mandate.Identity{Tenant: id, Object: o}
}

const (
	contosoTenant  = "11111111-2222-3333-4444-555555555555"
	fabrikamTenant = "66666666-2222-3333-4444-555555555555"
	someObject     = "99999999-8888-7777-6666-555555555555"
)

func TestPartnerRoles(t *testing.T) {
	k, user := identity(t, contosoTenant, someObject)
	_, stranger := identity(t, fabrikamTenant, someObject)
	down := &mandate.Fault{Domain: mandate.DomainAudience, Description: "not permitted"}
	viewer := []string{mandate.PartnerViewer}
	for _, tt := range []struct {
		name    string
		f       *fakeRoles
		user    mandate.Identity
		want    []string
		unknown bool
		asked   int
	}{
		{"nobody", &fakeRoles{}, user, nil, false, 1},
		{"allowed", &fakeRoles{given: viewer}, user, viewer, false, 1},
		{"allowed everything", &fakeRoles{given: mandate.PartnerRoles()}, user, mandate.PartnerRoles(), false, 0},
		{"an Admin agent", &fakeRoles{groups: []string{"AdminAgents"}}, user, mandate.PartnerRoles(), false, 1},
		{"an Admin agent who was allowed less", &fakeRoles{given: viewer, groups: []string{"AdminAgents"}}, user, mandate.PartnerRoles(), false, 1},
		{"another agent", &fakeRoles{groups: []string{"HelpdeskAgents", "SalesAgents"}}, user, nil, false, 1},
		{"of another tenant", &fakeRoles{given: viewer, groups: []string{"AdminAgents"}}, stranger, nil, false, 0},
		{"Graph does not tell", &fakeRoles{err: down}, user, nil, true, 1},
		{"Graph errs and tells", &fakeRoles{err: down, groups: []string{"AdminAgents"}}, user, nil, true, 1},
		{"no grant to ask with", &fakeRoles{err: &mandate.NoGrantError{State: mandate.StateSuspended}}, user, nil, true, 1},
		{"allowed, and Graph does not tell", &fakeRoles{given: viewer, err: down}, user, viewer, false, 1},
	} {
		p := &partnerRoles{given: tt.f, agents: tt.f}
		got, err := p.of(t.Context(), k, tt.user, false)
		var r *mandate.Refusal
		if unknown := errors.As(err, &r) && r.Reason == mandate.ReasonRoleUnknown; !slices.Equal(got, tt.want) || unknown != tt.unknown || !unknown && err != nil || tt.f.asked != tt.asked {
			t.Errorf("%s: got %v, %v, asked %d", tt.name, got, err, tt.f.asked)
		}
	}
}

// Graph is asked again as its word ages, and at a sign-in; an answer that does
// not come is none, whatever was said before. Who asks at the same time waits
// for the same.
func TestPartnerRolesAge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k, user := identity(t, contosoTenant, someObject)
		f := &fakeRoles{groups: []string{"AdminAgents"}, delay: time.Second}
		p := &partnerRoles{given: f, agents: f}
		var all sync.WaitGroup
		for range 5 {
			all.Go(func() {
				if got, err := p.of(t.Context(), k, user, false); err != nil || len(got) != 3 {
					t.Errorf("got %v, %v", got, err)
				}
			})
		}
		all.Wait()
		want := func(roles, asked int, again bool) {
			t.Helper()
			got, err := p.of(t.Context(), k, user, again)
			if len(got) != roles || f.asked != asked || err != nil && roles > 0 {
				t.Errorf("after %v: got %v, %v, asked %d times, want %d", rolesAge, got, err, f.asked, asked)
			}
		}
		want(3, 1, false)
		f.groups = nil
		time.Sleep(rolesAge - 2*time.Second)
		want(3, 1, false)
		want(0, 2, true)
		f.groups = []string{"AdminAgents"}
		time.Sleep(rolesAge)
		want(3, 3, false)
		time.Sleep(rolesAge)
		f.err = errors.New("down")
		want(0, 4, false)
		f.err = nil
		want(3, 5, false)
		if rolesAge > 5*time.Minute {
			t.Error("a role that was taken outlives its end by more than a few minutes")
		}
	})
}

// A sign-in is of now only if Entra says a time after it was begun here.
func TestSignedIn(t *testing.T) {
	now := time.Now()
	began := now.Add(-time.Minute)
	for name, tt := range map[string]struct{ at, want time.Time }{
		"not said":          {time.Time{}, time.Time{}},
		"before it began":   {began.Add(-time.Second - 1), time.Time{}},
		"in the second":     {began.Truncate(time.Second), began.Truncate(time.Second)},
		"after it began":    {began.Add(time.Second), began.Add(time.Second)},
		"a clock in front":  {now.Add(time.Minute), now},
		"a session of days": {now.Add(-48 * time.Hour), time.Time{}},
	} {
		if got := signedIn(tt.at, began, now); !got.Equal(tt.want) {
			t.Errorf("%s: got %v, want %v", name, got, tt.want)
		}
	}
}

// What a sign-in was begun for is what comes back, and nothing else.
func TestSignInKinds(t *testing.T) {
	for to, kind := range signInKinds {
		if s, ok := startOf(kind); !ok || !s.SignIn || s.To != to || s.Renewal {
			t.Errorf("%s: got %+v, %v", kind, s, ok)
		}
	}
	for _, kind := range []string{"", "operator sign-in", "renewal "} {
		if s, ok := startOf(kind); ok {
			t.Errorf("%q is taken for %+v", kind, s)
		}
	}
}

// What is done again and again on a day is one event; anything that differs,
// and every change, is one of its own.
func TestEventAgain(t *testing.T) {
	at := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	event := func(change func(*portal.Event)) *portal.Event {
		e := &portal.Event{Kind: mandate.KindIssued, Time: at, Caller: "billing", Purpose: "invoices", Audience: "graph", Generation: 1}
		change(e)
		return e
	}
	same := func(*portal.Event) {}
	for name, change := range map[string]func(*portal.Event){
		"day": func(e *portal.Event) { e.Time = at.Add(-12*time.Hour - 1) }, "kind": func(e *portal.Event) { e.Kind = mandate.KindDenied },
		"caller": func(e *portal.Event) { e.Caller = "x" }, "purpose": func(e *portal.Event) { e.Purpose = "x" }, "audience": func(e *portal.Event) { e.Audience = "x" },
		"tenant": func(e *portal.Event) { e.Tenant, _ = mandate.ParseTenantID(fabrikamTenant) }, "generation": func(e *portal.Event) { e.Generation = 2 }, "detail": func(e *portal.Event) { e.Detail = "x" },
	} {
		if again(event(same), event(change)) {
			t.Errorf("another %s is the same", name)
		}
	}
	if !again(event(same), event(func(e *portal.Event) { e.Time = at.Add(-11 * time.Hour) })) {
		t.Error("the same on the same day is not")
	}
	changed := func(e *portal.Event) { e.Kind = mandate.KindChanged }
	if again(event(changed), event(changed)) {
		t.Error("two changes are one")
	}
}
