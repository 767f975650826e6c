package mandate

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// fakeSchedule keeps due times in the grants of a fake vault.
type fakeSchedule struct{ v *fakeVault }

func (s fakeSchedule) Due(_ context.Context, now time.Time, limit int) ([]Grant, error) {
	s.v.mu.Lock()
	defer s.v.mu.Unlock()
	var out []Grant
	for _, g := range s.v.grants {
		if g.State == StateActive && !g.Due.After(now) {
			g.Refresh = Secret{}
			out = append(out, g)
		}
	}
	slices.SortStableFunc(out, func(a, b Grant) int { return a.Due.Compare(b.Due) })
	return out[:min(len(out), limit)], nil
}

func (s fakeSchedule) find(g Grant) *Grant {
	for i := range s.v.grants {
		if h := &s.v.grants[i]; h.Key == g.Key && h.Generation == g.Generation && h.State == StateActive {
			return h
		}
	}
	return nil
}

func (s fakeSchedule) Claim(_ context.Context, g Grant, until time.Time) (bool, error) {
	s.v.mu.Lock()
	defer s.v.mu.Unlock()
	h := s.find(g)
	if h == nil || !h.Due.Equal(g.Due) {
		return false, nil
	}
	h.Due = until
	return true, nil
}

func (s fakeSchedule) Attempted(_ context.Context, g Grant, next time.Time, fault string) error {
	s.v.mu.Lock()
	defer s.v.mu.Unlock()
	if h := s.find(g); h != nil {
		h.Due, h.Attempted, h.LastFault, h.Failures = next, time.Now(), fault, h.Failures+1
		if fault == "" {
			h.Failures = 0
		}
	}
	return nil
}

func aliveWorld(t *testing.T, partners int) *world {
	w := newWorld(t)
	g := w.vault.grants[0]
	w.vault.grants = nil
	w.entra.noUser = false
	for i := range partners {
		g.Key.Partner = mustTenant(fmt.Sprintf("55555555-0000-0000-0000-%012d", i))
		g.User.Tenant, g.Refresh = g.Key.Partner, NewSecret(fmt.Sprintf("rt-of-%d", i))
		g.Redeemed = time.Now().Add(-30 * 24 * time.Hour)
		g.Until = time.Now().AddDate(10, 0, 0)
		w.vault.grants = append(w.vault.grants, g)
	}
	cfg := w.Broker.cfg
	cfg.KeepAlive = KeepAlive{Schedule: fakeSchedule{w.vault}}
	cfg.Authority = perTenant{w.entra}
	var err error
	if w.Broker, err = New(cfg); err != nil {
		t.Fatal(err)
	}
	return w
}

// perTenant is an Entra whose users are each in the tenant that is asked.
type perTenant struct{ *fakeEntra }

func (p perTenant) Redeem(ctx context.Context, r Redemption) (Redeemed, error) {
	out, err := p.fakeEntra.Redeem(ctx, r)
	if out.User != nil {
		out.User.Tenant = r.Tenant
	}
	return out, err
}

// Every grant is redeemed well inside its window, though nobody asks; those that fail
// starve none.
func TestTrap17FailingGrantsStarveNone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := aliveWorld(t, 20)
		bad := w.vault.grants[3].Key.Partner
		var mu sync.Mutex
		last, longest := map[TenantID]time.Time{}, time.Duration(0)
		w.entra.hook = func(r Redemption) error {
			if r.Tenant == bad {
				return dead()
			}
			mu.Lock()
			defer mu.Unlock()
			if at, ok := last[r.Tenant]; ok {
				longest = max(longest, time.Since(at))
			}
			last[r.Tenant] = time.Now()
			return nil
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- w.Run(ctx) }()
		time.Sleep(100 * 24 * time.Hour)
		cancel()
		<-done
		if len(last) != 19 || longest > 11*24*time.Hour || longest < 7*24*time.Hour {
			t.Errorf("%d grants were kept alive, the longest pause was %v", len(last), longest)
		}
		g := w.vault.grants[3]
		if g.Failures < 90 || g.LastFault == "" || g.State != StateActive || g.Refresh.IsZero() {
			t.Errorf("the failing grant: %+v", g)
		}
		if n := w.entra.calls.Load(); n > 19*14+250 {
			t.Errorf("%d calls in a hundred days", n)
		}
	})
}

// A keep-alive asks Entra although the cache has a token, since it is the
// refresh token that must be used; and is recorded.
func TestTrap03KeepAliveBypassesCache(t *testing.T) {
	w := aliveWorld(t, 1)
	p := partner
	p.Key = w.vault.grants[0].Key
	if _, err := w.Token(t.Context(), ask(func(r *Request) { r.Partner, r.Tenant = p, p.Key.Partner })); err != nil {
		t.Fatal(err)
	}
	w.vault.grants[0].Redeemed = time.Now().Add(-40 * 24 * time.Hour)
	if err := w.keepDueAlive(t.Context(), 10); err != nil {
		t.Fatal(err)
	}
	if w.entra.calls.Load() != 2 || w.audit.last().Kind != KindRefreshed || w.audit.last().Caller != aliveCaller {
		t.Errorf("%d calls; %+v", w.entra.calls.Load(), w.audit.last())
	}
	if g := w.vault.grants[0]; time.Until(g.Due) < 8*24*time.Hour || g.Refresh.Reveal() != "rt-2" {
		t.Errorf("due in %v, %q", time.Until(g.Due), g.Refresh.Reveal())
	}
}

// What a request redeemed need not be redeemed again, and what another replica
// claimed is left to it.
func TestKeepAliveNoDoubleWork(t *testing.T) {
	w := aliveWorld(t, 2)
	w.vault.grants[0].Redeemed = time.Now().Add(-time.Hour)
	stale := w.vault.grants[1]
	w.vault.grants[1].Due = time.Now().Add(time.Minute)
	if err := errors.Join(w.keepDueAlive(t.Context(), 10), w.keepGrantAlive(t.Context(), stale)); err != nil {
		t.Fatal(err)
	}
	if w.entra.calls.Load() != 0 || time.Until(w.vault.grants[0].Due) < 8*24*time.Hour {
		t.Errorf("%d calls, due in %v", w.entra.calls.Load(), time.Until(w.vault.grants[0].Due))
	}
}

// A failure of ours is not the grant's: it is not counted against it.
func TestKeepAliveOwnFailure(t *testing.T) {
	w := aliveWorld(t, 1)
	w.audit.failKind.Store(KindDecided)
	if err := w.keepDueAlive(t.Context(), 10); !errors.Is(err, ErrUnavailable) || w.entra.calls.Load() != 0 || w.vault.grants[0].Failures != 0 {
		t.Errorf("unrecorded: %v, %d calls, %+v", err, w.entra.calls.Load(), w.vault.grants[0])
	}
	w.audit.failKind.Store("")
	w.vault.grants[0].Due, w.vault.grants[0].Until = time.Time{}, time.Now()
	if err := w.keepDueAlive(t.Context(), 10); !errors.Is(err, ErrNoGrant) || w.entra.calls.Load() != 0 {
		t.Errorf("past its end: %v", err)
	}
}

func TestKeepAliveConfig(t *testing.T) {
	for _, k := range []KeepAlive{
		{Window: time.Hour, Every: 31 * time.Minute}, {Window: -1}, {Every: -1}, {PerMinute: -1},
	} {
		if err := k.Check(); !errors.Is(err, ErrInvalid) {
			t.Errorf("%+v: %v", k, err)
		}
	}
	var k KeepAlive
	if err := k.Check(); err != nil || cmp.Compare(k.Every, 9*24*time.Hour) != 0 || k.PerMinute != 60 {
		t.Errorf("defaults: %+v, %v", k, err)
	}
}
