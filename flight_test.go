package mandate

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func dead() error { return &Fault{Domain: DomainGrant, Codes: []int{50173}} }

// While the active generation is dead the one before stands in, if it is the
// same user's, still may, and works itself; what it brings is stored in its own
// place.
func TestFallback(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*world, *Grant)
		want   bool
	}{
		{"stands in", nil, true},
		{"its day is over", func(_ *world, g *Grant) { g.Fallback = time.Now().Add(-time.Second) }, false},
		{"its end is over", func(_ *world, g *Grant) { g.Until = time.Now().Add(-time.Second) }, false},
		{"another user", func(_ *world, g *Grant) { g.User = mallory }, false},
		{"dead too", func(w *world, _ *Grant) { w.entra.hook = func(Redemption) error { return dead() } }, false},
		{"none", func(_ *world, g *Grant) { g.State = StateReplaced }, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			old := w.vault.grants[0]
			w.vault.grants[0].Generation = 2
			old.State, old.Fallback, old.Refresh = StateFallback, time.Now().Add(time.Hour), NewSecret("rt-old")
			w.vault.grants = append([]Grant{old}, w.vault.grants...)
			var presented []string
			w.entra.hook = func(r Redemption) error {
				presented = append(presented, r.Refresh.Reveal())
				if r.Refresh.Reveal() == "rt-0" {
					return dead()
				}
				return nil
			}
			if tt.change != nil {
				tt.change(w, &w.vault.grants[0])
			}
			tok, err := w.Token(t.Context(), ask())
			if !tt.want {
				// What may not stand in is not shown to Entra either.
				if !errors.Is(err, ErrUpstream) || slices.Contains(presented, "rt-old") {
					t.Errorf("got %+v, %v; presented %q", tok, err, presented)
				}
				return
			}
			if err != nil || tok.Generation != 1 || w.audit.last().Generation != 1 {
				t.Errorf("got %+v, %v; last record %+v", tok, err, w.audit.last())
			}
			if w.vault.grants[1].Refresh.Reveal() != "rt-0" || w.vault.grants[0].Refresh.Reveal() == "rt-old" {
				t.Errorf("stored in the wrong place: %q and %q", w.vault.grants[0].Refresh.Reveal(), w.vault.grants[1].Refresh.Reveal())
			}
		})
	}
}

// A change of the grant's state makes every token of before unreachable, even
// if the generation stays: suspended and resumed.
func TestTokenSinceState(t *testing.T) {
	w := newWorld(t)
	first, err := w.Token(t.Context(), ask())
	if err != nil {
		t.Fatal(err)
	}
	w.vault.grants[0].Since = w.vault.epoch.n.Add(1)
	second, err := w.Token(t.Context(), ask())
	if err != nil || second.Access.Reveal() == first.Access.Reveal() {
		t.Errorf("after suspend and resume: %v", err)
	}
	w.vault.epoch.n.Add(1) // a policy change, say
	third, err := w.Token(t.Context(), ask())
	if err != nil || third.Access.Reveal() != second.Access.Reveal() {
		t.Errorf("a change that is not the grant's cost its tokens: %v", err)
	}
}

// fakeTurns is one desk for several brokers.
type fakeTurns struct {
	mu     sync.Mutex // guards all below
	taken  map[string]bool
	shared map[string]Token
	fence  int64
	looked int
	err    error

	extended atomic.Int64
}

func (d *fakeTurns) Take(ctx context.Context, w Wanted) (Turn, *Token, error) {
	k := fmt.Sprintf("%+v", w.Key)
	for {
		d.mu.Lock()
		t, ok := d.shared[k]
		switch {
		case d.err != nil:
			defer d.mu.Unlock()
			return Turn{}, nil, d.err
		case ok && time.Until(t.Expires) > w.AtLeast && t.Fingerprint != w.Not:
			defer d.mu.Unlock()
			return Turn{}, &t, nil
		case !d.taken[k]:
			defer d.mu.Unlock()
			d.taken[k] = true
			d.fence++
			return Turn{Key: w.Key, Owner: "r", Fence: d.fence}, nil, nil
		}
		d.mu.Unlock()
		select {
		case <-time.After(time.Millisecond):
		case <-ctx.Done():
			return Turn{}, nil, ctx.Err()
		}
	}
}

func (d *fakeTurns) Shared(_ context.Context, w Wanted) (*Token, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.looked++
	t, ok := d.shared[fmt.Sprintf("%+v", w.Key)]
	if d.err != nil || !ok || time.Until(t.Expires) <= w.AtLeast || t.Fingerprint == w.Not {
		return nil, d.err
	}
	return &t, nil
}

func (d *fakeTurns) Extend(_ context.Context, t Turn) error {
	d.extended.Add(1)
	return nil
}

func (d *fakeTurns) Release(_ context.Context, t Turn) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.taken, fmt.Sprintf("%+v", t.Key))
	return nil
}

// keeping is a vault that shares what is kept.
type keeping struct {
	*fakeVault
	desk *fakeTurns
}

func (v keeping) Keep(ctx context.Context, k Keep) error {
	if err := v.fakeVault.Keep(ctx, k); err != nil {
		return err
	}
	v.desk.mu.Lock()
	defer v.desk.mu.Unlock()
	key := fmt.Sprintf("%+v", k.Turn.Key)
	v.desk.shared[key] = *k.Token
	delete(v.desk.taken, key)
	return nil
}

// replicas returns two brokers that share a vault and a desk.
func replicas(t *testing.T) (*world, *Broker, *Broker, *fakeTurns) {
	w := newWorld(t)
	desk := &fakeTurns{taken: map[string]bool{}, shared: map[string]Token{}}
	cfg := w.Broker.cfg
	cfg.Turns, cfg.Vault = desk, keeping{w.vault, desk}
	one, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	two, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return w, one, two, desk
}

// While Entra does not answer one replica, or will not, it hands out what
// another has obtained, of which it need not have heard before.
func TestTurnsShareWhatIsGood(t *testing.T) {
	for _, fault := range []*Fault{
		{Domain: DomainTransient, Status: 503}, {Domain: DomainApplication, Codes: []int{7000222}}, {Domain: DomainGrant, Codes: []int{50173}},
	} {
		t.Run(string(fault.Domain), func(t *testing.T) {
			w, one, two, desk := replicas(t)
			shared, err := one.Token(t.Context(), ask())
			if err != nil {
				t.Fatal(err)
			}
			w.entra.hook = func(Redemption) error { return fault }
			other := ask(func(r *Request) { r.Audience = graph })
			if _, err := two.Token(t.Context(), other); !errors.Is(err, ErrUpstream) {
				t.Fatal(err)
			}
			before := w.entra.calls.Load()
			got, err := two.Token(t.Context(), ask())
			if err != nil || got.Access.Reveal() != shared.Access.Reveal() || w.entra.calls.Load() != before {
				t.Fatalf("got %v, %v after %d calls more", got.Fingerprint, err, w.entra.calls.Load()-before)
			}
			if r := w.audit.last(); r.Kind != KindIssued || r.Fingerprint != got.Fingerprint || !r.Cached {
				t.Errorf("recorded %+v", r)
			}
			looked := desk.looked
			if _, err := two.Token(t.Context(), ask()); err != nil || desk.looked != looked {
				t.Errorf("the second time: %v, looked again %d times", err, desk.looked-looked)
			}
			if _, err := two.Token(t.Context(), other); !errors.Is(err, ErrUpstream) || w.entra.calls.Load() != before {
				t.Errorf("what nobody has: %v", err)
			}
			desk.err = ErrUnavailable
			if _, err := two.Token(t.Context(), other); !errors.Is(err, ErrUpstream) || !errors.Is(err, ErrUnavailable) {
				t.Errorf("what cannot be looked up: %v", err)
			}
		})
	}
}

// Who comes while another tries whether Entra answers again gets what is good,
// too; but what keeps a grant alive is redeemed or nothing.
func TestTurnsShareDuringATrial(t *testing.T) {
	_, one, two, _ := replicas(t)
	shared, err := one.Token(t.Context(), ask())
	if err != nil {
		t.Fatal(err)
	}
	g, _ := one.cfg.Vault.Head(t.Context(), ask().Partner.Key)
	f := flight{redemption: Redemption{Key: ask().Partner.Key, Tenant: contoso, Audience: ask().Audience}, generation: g.Generation, since: g.Since, epoch: shared.Epoch}
	fault := &Fault{Domain: DomainTransient}
	two.backoffs.settle(&f, fault, false, time.Now())
	if got, err := two.fly(t.Context(), f); err != nil || got.Fingerprint != shared.Fingerprint {
		t.Errorf("got %v, %v", got, err)
	}
	f.alive = true
	if got, err := two.fly(t.Context(), f); !errors.Is(err, ErrUpstream) {
		t.Errorf("to keep it alive: %v, %v", got, err)
	}
}

// Two replicas redeem a token once, also one of a customer's tenant.
func TestTurnsShare(t *testing.T) {
	for _, tenant := range []TenantID{contoso, adatum} {
		w, one, two, _ := replicas(t)
		var group sync.WaitGroup
		var failed atomic.Int64
		for i := range 200 {
			b := []*Broker{one, two}[i%2]
			group.Go(func() {
				if _, err := b.Token(t.Context(), ask(func(r *Request) { r.Tenant = tenant })); err != nil {
					failed.Add(1)
				}
			})
		}
		group.Wait()
		if w.entra.calls.Load() != 1 || failed.Load() != 0 {
			t.Errorf("%d redemptions, %d failed", w.entra.calls.Load(), failed.Load())
		}
	}
}

// A turn of which nothing came is given back; without a turn nothing is tried.
func TestTurnsReleased(t *testing.T) {
	w, one, two, desk := replicas(t)
	w.entra.hook = func(Redemption) error { return &Fault{Domain: DomainTransient} }
	if _, err := one.Token(t.Context(), ask()); !errors.Is(err, ErrUpstream) {
		t.Fatal(err)
	}
	if len(desk.taken) != 0 {
		t.Fatal("the turn is still taken")
	}
	w.entra.hook = nil
	if _, err := two.Token(t.Context(), ask()); err != nil {
		t.Error(err)
	}
	desk.err = ErrUnavailable
	before := w.entra.calls.Load()
	if _, err := two.Token(t.Context(), ask(func(r *Request) { r.Audience = graph })); !errors.Is(err, ErrUnavailable) || w.entra.calls.Load() != before {
		t.Errorf("without a turn: %v", err)
	}
}

// A thousand customers of one partner are warmed thirty-two at a time, and
// another partner does not wait behind them.
func TestTrap13SlowPartnerBlocksNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		other := partner
		other.Key.Partner = litware
		g := w.vault.grants[0]
		g.Key, g.User.Tenant = other.Key, litware
		w.vault.grants = append(w.vault.grants, g)
		w.entra.delay = 300 * time.Millisecond
		w.entra.noRT = true
		var group sync.WaitGroup
		var failed atomic.Int64
		start := time.Now()
		for i := range 1000 {
			group.Go(func() {
				tenant := mustTenant(fmt.Sprintf("44444444-0000-0000-0000-%012d", i))
				if _, err := w.Token(t.Context(), ask(func(r *Request) { r.Tenant = tenant })); err != nil {
					failed.Add(1)
				}
			})
		}
		time.Sleep(time.Millisecond)
		begun := time.Now()
		if _, err := w.Token(t.Context(), ask(func(r *Request) { r.Partner, r.Tenant = other, adatum })); err != nil || time.Since(begun) > 301*time.Millisecond {
			t.Errorf("another partner waited %v: %v", time.Since(begun), err)
		}
		group.Wait()
		if took := time.Since(start); took > 15*time.Second || took < 9*time.Second || failed.Load() != 0 {
			t.Errorf("took %v, %d failed", took, failed.Load())
		}
		if len(w.lanes.all) != 0 {
			t.Errorf("%d lanes are left", len(w.lanes.all))
		}
	})
}

// Who cannot be served in time is told so, and nothing piles up.
func TestLanesFull(t *testing.T) {
	var l lanes
	ctx, cancel := context.WithCancel(t.Context())
	var leave []func()
	for range laneWidth {
		f, err := l.enter(ctx, testKey)
		if err != nil {
			t.Fatal(err)
		}
		leave = append(leave, f)
	}
	n, _ := l.join(testKey)
	n.users = laneWidth + laneQueue
	if _, err := l.enter(ctx, testKey); !errors.Is(err, ErrRateLimited) {
		t.Errorf("the queue is full: %v", err)
	}
	n.users = laneWidth
	cancel()
	if _, err := l.enter(ctx, testKey); !errors.Is(err, ErrRateLimited) {
		t.Errorf("no slot in time: %v", err)
	}
	for _, f := range leave {
		f()
	}
	if len(l.all) != 0 {
		t.Error("the lane is left")
	}
}

// A turn is kept for as long as Entra takes, and no longer.
func TestTurnsExtended(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, one, _, desk := replicas(t)
		w.entra.delay = 25 * time.Second
		if _, err := one.Token(t.Context(), ask()); err != nil {
			t.Fatal(err)
		}
		if n := desk.extended.Load(); n != 12 {
			t.Errorf("extended %d times in 25 s", n)
		}
		time.Sleep(time.Minute)
		if n := desk.extended.Load(); n != 12 {
			t.Errorf("extended %d times after the end", n)
		}
	})
}

// TestFlightNames: flights that differ in anything are not one, and the name
// knows every field there is.
func TestFlightNames(t *testing.T) {
	if f, r := reflect.TypeFor[flight]().NumField(), reflect.TypeFor[Redemption]().NumField(); f != 7 || r != 6 {
		t.Errorf("a flight has %d fields and a redemption %d: are all of them in the name?", f, r)
	}
	names := map[string]int{}
	for i, change := range []func(*flight){
		func(*flight) {},
		func(f *flight) { f.redemption.Key.Cloud = "x" },
		func(f *flight) { f.redemption.Key.Application = AppID{guid{1}} },
		func(f *flight) { f.redemption.Key.Partner = TenantID{guid{1}} },
		func(f *flight) { f.redemption.Tenant = TenantID{guid{1}} },
		func(f *flight) { f.redemption.Audience = "x" },
		func(f *flight) { f.redemption.Claims = "x" },
		func(f *flight) { f.redemption.Scopes = []Scope{""} },
		func(f *flight) { f.redemption.Scopes = []Scope{"x"} },
		func(f *flight) { f.redemption.Scopes = []Scope{"x", "y"} },
		func(f *flight) { f.redemption.Scopes = []Scope{"xy"} },
		func(f *flight) { f.generation = 1 },
		func(f *flight) { f.since = 1 },
		func(f *flight) { f.epoch = 1 },
		func(f *flight) { f.atLeast = 1 },
		func(f *flight) { f.renews = "x" },
		func(f *flight) { f.alive = true },
	} {
		var f flight
		change(&f)
		if other, ok := names[f.name()]; ok {
			t.Errorf("flights %d and %d have the same name", other, i)
		}
		names[f.name()] = i
	}
}
