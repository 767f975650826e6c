package mandate

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func mustTenant(s string) TenantID {
	t, err := ParseTenantID(s)
	if err != nil {
		panic(err)
	}
	return t
}

func mustApp(s string) AppID {
	a, err := ParseAppID(s)
	if err != nil {
		panic(err)
	}
	return a
}

func mustObject(s string) ObjectID {
	o, err := ParseObjectID(s)
	if err != nil {
		panic(err)
	}
	return o
}

var (
	contoso = mustTenant("11111111-0000-0000-0000-000000000001")
	adatum  = mustTenant("22222222-0000-0000-0000-000000000002")
	litware = mustTenant("33333333-0000-0000-0000-000000000003")
	testApp = mustApp("aaaaaaaa-0000-0000-0000-00000000000a")
	adele   = Identity{contoso, mustObject("dddddddd-0000-0000-0000-00000000000d")}
	mallory = Identity{contoso, mustObject("eeeeeeee-0000-0000-0000-00000000000e")}
	testKey = GrantKey{"global", testApp, contoso}
	partner = Partner{Name: "contoso", Key: testKey}
)

const (
	pc    = Audience("https://api.partnercenter.microsoft.com")
	graph = Audience("https://graph.microsoft.com")
)

// A world is a broker with fakes around it, each with dials.
type world struct {
	*Broker
	entra  *fakeEntra
	prober *fakeProber
	vault  *fakeVault
	policy *fakePolicy
	audit  *fakeAudit
}

func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{
		entra:  &fakeEntra{life: time.Hour, user: adele, scopes: []Scope{"user_impersonation"}, amr: []string{"pwd", "mfa"}},
		prober: &fakeProber{ok: true, groups: []string{"AdminAgents"}},
		vault:  &fakeVault{},
		policy: &fakePolicy{decision: Decision{Allowed: true, Rule: "r", Consented: true}},
		audit:  &fakeAudit{},
	}
	w.vault.grants = []Grant{{
		Key: testKey, Generation: 1, Version: 1, State: StateActive, User: adele,
		Until: time.Now().AddDate(1, 0, 0), Refresh: NewSecret("rt-0"),
		Audiences: []GrantedAudience{{pc, []Scope{"user_impersonation"}}},
	}}
	w.entra.trace, w.vault.trace, w.audit.trace = &w.audit.events, &w.audit.events, &w.audit.events
	var err error
	w.Broker, err = New(Config{Authority: w.entra, Prober: w.prober, Vault: w.vault, Policy: w.policy, Audit: w.audit, Epoch: &w.vault.epoch,
		Custody: w.vault, Sessions: w.prober, Issued: w.prober})
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func ask(change ...func(*Request)) Request {
	r := Request{Caller: "billing", Use: UseToken, Partner: partner, Tenant: contoso, Audience: pc, Purpose: "invoice"}
	for _, c := range change {
		c(&r)
	}
	return r
}

// events is what happened, in order, across the fakes.
type events struct {
	mu  sync.Mutex // guards all
	all []string
}

func (e *events) add(format string, args ...any) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.all = append(e.all, fmt.Sprintf(format, args...))
}

func (e *events) list() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.all)
}

// fakeEntra answers redemptions with numbered tokens.
type fakeEntra struct {
	trace  *events
	calls  atomic.Int64
	life   time.Duration
	delay  time.Duration
	user   Identity
	noUser bool
	guest  bool
	upn    string
	auth   time.Time
	amr    []string
	idAMR  []string
	scopes []Scope
	noRT   bool
	hook   func(Redemption) error // runs before the answer
	code   func(CodeRedemption) error
}

func (e *fakeEntra) Redeem(ctx context.Context, r Redemption) (Redeemed, error) {
	n := e.calls.Add(1)
	e.trace.add("redeem %s", r.Refresh.Reveal())
	select {
	case <-time.After(e.delay):
	case <-ctx.Done():
		return Redeemed{}, &Fault{Domain: DomainTransient, Cause: ctx.Err()}
	}
	if e.hook != nil {
		if err := e.hook(r); err != nil {
			return Redeemed{}, err
		}
	}
	return e.answer(n), nil
}

func (e *fakeEntra) answer(n int64) Redeemed {
	r := Redeemed{
		Access: NewSecret(fmt.Sprintf("at-%d", n)), Expires: time.Now().Add(e.life), Scopes: e.scopes, AMR: e.amr,
		Refresh: NewSecret(fmt.Sprintf("rt-%d", n)), UTI: fmt.Sprintf("uti-%d", n), CorrelationID: fmt.Sprintf("corr-%d", n),
		User: &IDToken{Identity: e.user, UserName: e.upn, Guest: e.guest, AMR: e.idAMR, AuthTime: e.auth},
	}
	if e.noUser {
		r.User = nil
	}
	if e.noRT {
		r.Refresh = Secret{}
	}
	return r
}

func (e *fakeEntra) RedeemCode(_ context.Context, r CodeRedemption) (Redeemed, error) {
	e.trace.add("redeem code %s", r.Code.Reveal())
	if e.code != nil {
		if err := e.code(r); err != nil {
			return Redeemed{}, err
		}
	}
	return e.answer(e.calls.Add(1)), nil
}

type fakeProber struct {
	ok         bool
	why        string
	mfaErr     error
	groups     []string
	groupsErr  error
	mfaToken   string
	groupToken string

	ended    string // the token with which sessions were ended
	endErr   error
	onEnd    func()
	alive    int
	aliveErr error
}

func (p *fakeProber) EndSessions(_ context.Context, _ GrantKey, s Secret) error {
	if p.endErr != nil {
		return p.endErr
	}
	p.ended = s.Reveal()
	if p.onEnd != nil {
		p.onEnd()
	}
	return nil
}

func (p *fakeProber) Alive(_ context.Context, _ GrantKey, now time.Time) (int, time.Time, error) {
	return p.alive, now.Add(time.Hour), p.aliveErr
}

func (p *fakeProber) MFACompliant(_ context.Context, _ GrantKey, s Secret) (bool, string, error) {
	p.mfaToken = s.Reveal()
	return p.ok, p.why, p.mfaErr
}

func (p *fakeProber) AgentGroups(_ context.Context, _ GrantKey, s Secret) ([]string, error) {
	p.groupToken = s.Reveal()
	return p.groups, p.groupsErr
}

// fakeEpoch can be raised and lost.
type fakeEpoch struct {
	n    atomic.Int64
	lost atomic.Bool
}

func (e *fakeEpoch) Epoch() (int64, error) {
	if e.lost.Load() {
		return 0, ErrUnavailable
	}
	return e.n.Load(), nil
}

// fakeVault keeps one partner's grants in memory.
type fakeVault struct {
	trace *events
	epoch fakeEpoch

	mu        sync.Mutex // guards grants
	grants    []Grant
	rotateErr error
	headErr   error
	remnants  []Remnant
	onOpen    func() error
	onRotate  func() // runs before the refresh token is stored
	heads     atomic.Int64
}

func (v *fakeVault) Head(_ context.Context, k GrantKey) (Grant, error) {
	v.heads.Add(1)
	if v.headErr != nil {
		return Grant{}, v.headErr
	}
	g, err := v.active(k)
	g.Refresh = Secret{}
	return g, err
}

func (v *fakeVault) Open(_ context.Context, k GrantKey) (Grant, error) {
	if v.onOpen != nil {
		if err := v.onOpen(); err != nil {
			return Grant{}, err
		}
	}
	return v.active(k)
}

func (v *fakeVault) active(k GrantKey) (Grant, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	none := &NoGrantError{}
	var active *Grant
	for _, g := range v.grants {
		if g.Key != k {
			continue
		}
		none.Generation = max(none.Generation, g.Generation)
		if g.State == StateActive {
			active = &g
		}
		if g.State != StateCandidate && g.State != StateDiscarded {
			none.State = g.State
		}
	}
	if active == nil {
		return Grant{}, none
	}
	active.Last = none.Generation
	return *active, nil
}

func (v *fakeVault) Keep(_ context.Context, k Keep) error {
	if v.onRotate != nil {
		v.onRotate()
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.rotateErr != nil {
		return v.rotateErr
	}
	if now, _ := v.epoch.Epoch(); now != k.Epoch {
		return ErrSuperseded
	}
	for i := range v.grants {
		h := &v.grants[i]
		if h.Generation != k.Grant.Generation || h.State != StateActive && h.State != StateFallback {
			continue
		}
		if h.Version != k.Grant.Version && !k.Next.IsZero() {
			return ErrRotated
		}
		if !k.Next.IsZero() {
			h.Refresh, h.Redeemed = k.Next, time.Now()
			h.Version++
			v.trace.add("store %s", k.Next.Reveal())
		}
		return nil
	}
	return ErrSuperseded
}

func (v *fakeVault) Fallback(_ context.Context, k GrantKey) (Grant, error) {
	return v.in(k, StateFallback)
}

func (v *fakeVault) Candidate(_ context.Context, k GrantKey) (Grant, error) {
	return v.in(k, StateCandidate)
}

func (v *fakeVault) in(k GrantKey, s State) (Grant, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, g := range v.grants {
		if g.Key == k && g.State == s {
			return g, nil
		}
	}
	return Grant{}, &NoGrantError{}
}

func (v *fakeVault) Stage(_ context.Context, g Grant) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.rotateErr != nil {
		return v.rotateErr
	}
	v.grants = append(v.grants, g)
	v.trace.add("stage %d %s", g.Generation, g.Refresh.Reveal())
	return nil
}

func (v *fakeVault) Activate(_ context.Context, g Grant) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.rotateErr != nil {
		return v.rotateErr
	}
	if g.Renewal && !slices.ContainsFunc(v.grants, func(h Grant) bool { return h.State == StateActive }) {
		return ErrSuperseded
	}
	var last int64
	for i := range v.grants {
		h := &v.grants[i]
		last = max(last, h.Generation)
		if h.State == StateActive || h.State == StateSuspended {
			h.State, h.Refresh = StateReplaced, Secret{}
		}
	}
	g.Since = v.epoch.n.Add(1)
	v.trace.add("activate %d %s", g.Generation, g.Refresh.Reveal())
	for i := range v.grants {
		if v.grants[i].Generation == g.Generation && v.grants[i].State == StateCandidate {
			v.grants[i] = g
			return nil
		}
	}
	if g.Generation != last+1 {
		return ErrSuperseded
	}
	v.grants = append(v.grants, g)
	return nil
}

type fakePolicy struct {
	mu       sync.Mutex // guards decision
	decision Decision
	onDecide func(*Request)
}

func (p *fakePolicy) Decide(r *Request) Decision {
	p.mu.Lock()
	d := p.decision
	p.mu.Unlock()
	if p.onDecide != nil {
		p.onDecide(r)
	}
	return d
}

func (p *fakePolicy) set(d Decision) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.decision = d
}

// fakeAudit keeps records, and fails for those of kind failKind.
type fakeAudit struct {
	trace    *events
	events   events
	failKind atomic.Value // string
	onRecord func(Record)

	mu      sync.Mutex // guards records
	records []Record
}

func (a *fakeAudit) Record(ctx context.Context, r Record) (Receipt, error) {
	if a.onRecord != nil {
		a.onRecord(r)
	}
	if k := a.failKind.Load(); k == r.Kind || k == "all" {
		return Receipt{}, ErrUnavailable
	}
	if err := ctx.Err(); err != nil {
		return Receipt{}, err
	}
	a.trace.add("record %s", r.Kind)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.records = append(a.records, r)
	return Receipt{Index: int64(len(a.records) - 1), Hash: "h"}, nil
}

func (a *fakeAudit) kinds() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	var out []string
	for _, r := range a.records {
		out = append(out, r.Kind)
	}
	return out
}

func (a *fakeAudit) last() Record {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.records[len(a.records)-1]
}
