package mandate

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
)

// fakeAgents knows who is in which groups.
type fakeAgents struct {
	groups map[ObjectID][]string
	err    error
	asked  []string // tokens
	hook   func()
}

func (f *fakeAgents) AgentGroupsOf(_ context.Context, _ GrantKey, user ObjectID, token Secret) ([]string, error) {
	f.asked = append(f.asked, token.Reveal())
	if f.hook != nil {
		f.hook()
	}
	return f.groups[user], f.err
}

func newAgentsWorld(t *testing.T) (*world, *fakeAgents) {
	t.Helper()
	w, f := newWorld(t), &fakeAgents{groups: map[ObjectID][]string{mallory.Object: {"AdminAgents"}}}
	w.vault.grants[0].Audiences = append(w.vault.grants[0].Audiences, GrantedAudience{graph, []Scope{"Directory.Read.All"}})
	cfg := w.Broker.cfg
	cfg.Agents = f
	var err error
	if w.Broker, err = New(cfg); err != nil {
		t.Fatal(err)
	}
	return w, f
}

// Graph is asked each time, with a token of the partner's grant that is on the
// record before and after it is had.
func TestAgentGroups(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, f := newAgentsWorld(t)
		for range 2 {
			groups, err := w.AgentGroups(t.Context(), testKey, mallory.Object)
			if err != nil || !slices.Equal(groups, []string{"AdminAgents"}) {
				t.Fatalf("got %v, %v", groups, err)
			}
		}
		if groups, err := w.AgentGroups(t.Context(), testKey, adele.Object); err != nil || len(groups) != 0 {
			t.Errorf("somebody else is in %v, %v", groups, err)
		}
		if len(f.asked) != 3 || w.entra.calls.Load() != 1 {
			t.Errorf("asked %v, with %d redemptions", f.asked, w.entra.calls.Load())
		}
		first := w.audit.records[0]
		if first.Kind != KindDecided || first.Caller != agentsCaller || first.Audience != graph || first.Tenant != contoso || w.audit.last().Kind != KindIssued || !w.audit.last().Cached {
			t.Errorf("records %+v", w.audit.records)
		}
	})
}

// What is not a clear answer is none: no grant, no record, a failing Graph, a
// lockdown, a grant that ended meanwhile.
func TestAgentGroupsUnknown(t *testing.T) {
	fault := &Fault{Domain: DomainGrant, Status: unauthorized, Description: "no more"}
	for name, tt := range map[string]struct {
		damage func(*world, *fakeAgents)
		want   error
		asked  int
	}{
		"suspended":     {func(w *world, _ *fakeAgents) { w.vault.grants[0].State = StateSuspended }, ErrNoGrant, 0},
		"withdrawn":     {func(w *world, _ *fakeAgents) { w.vault.grants[0].State = StateWithdrawn }, ErrNoGrant, 0},
		"never":         {func(w *world, _ *fakeAgents) { w.vault.grants = nil }, ErrNoGrant, 0},
		"without Graph": {func(w *world, _ *fakeAgents) { w.vault.grants[0].Audiences = w.vault.grants[0].Audiences[:1] }, ErrNoGrant, 0},
		"not recorded":  {func(w *world, _ *fakeAgents) { w.audit.failKind.Store(KindDecided) }, ErrUnavailable, 0},
		"outcome lost":  {func(w *world, _ *fakeAgents) { w.audit.failKind.Store(KindIssued) }, ErrUnavailable, 0},
		"locked down":   {func(w *world, _ *fakeAgents) { w.Broker.cfg.Lock = shut{} }, ErrLocked, 0},
		"epoch unknown": {func(w *world, _ *fakeAgents) { w.vault.epoch.lost.Store(true) }, ErrUnavailable, 0},
		"Graph refuses": {func(_ *world, f *fakeAgents) { f.err = fault }, ErrUpstream, 2},
		"nobody to ask": {func(w *world, _ *fakeAgents) { w.Broker.cfg.Agents = nil }, ErrNotFound, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w, f := newAgentsWorld(t)
				tt.damage(w, f)
				f.groups = nil
				if groups, err := w.AgentGroups(t.Context(), testKey, mallory.Object); !errors.Is(err, tt.want) || len(groups) != 0 {
					t.Errorf("got %v, %v, want %v", groups, err, tt.want)
				}
				if len(f.asked) != tt.asked {
					t.Errorf("Graph was asked with %v", f.asked)
				}
			})
		})
	}
}

// shut is a lockdown.
type shut struct{}

func (shut) Lockdown() (*Lockdown, error) { return &Lockdown{Reason: "drill"}, nil }
