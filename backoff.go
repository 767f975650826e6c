package mandate

import (
	mathrand "math/rand/v2"
	"sync"
	"time"
)

// A faultKey names what a fault speaks of: the application, a grant, a
// customer's tenant, an API, or one tenant that is busy. What is zero in it
// does not matter to the domain.
type faultKey struct {
	domain     Domain
	grant      GrantKey // without the partner in the application's domain
	generation int64
	tenant     TenantID
	audience   Audience
	asked      string // scopes that were named, if what Entra says is of those; see askedKey
}

// pauses are how long a domain is left alone after its first failure in a row,
// and at most. They double in between.
var pauses = map[Domain]struct{ first, most time.Duration }{
	DomainApplication: {5 * time.Second, time.Minute},
	DomainGrant:       {5 * time.Second, 5 * time.Minute},
	DomainCustomer:    {10 * time.Second, 10 * time.Minute},
	DomainAudience:    {10 * time.Second, 10 * time.Minute},
	DomainTransient:   {time.Second, time.Minute},
}

// maxPause is the longest Retry-After that is believed.
const maxPause = 10 * time.Minute

// A pause is a domain that is left alone.
type pause struct {
	fault *Fault
	until time.Time
	last  time.Duration // how long it was meant to be
}

// backoffs remember faults, each in the domain that it belongs to, so that
// what is broken costs one upstream call in each interval, however often it is
// asked for, and stops nothing else.
type backoffs struct {
	mu  sync.Mutex // guards all
	all map[faultKey]*pause
}

// keys are the domains that a redemption can fail in. A challenge is a
// question of the caller's own: what Entra says to it concerns nobody else,
// unless it is about the application or the tenant's being busy. Whoever names
// scopes asks something of their own, too, but may ask it again and again: what
// Entra says to it is remembered, and unless it is certain to be the same to any
// scope, it closes nothing to those who ask for others. Otherwise one caller
// with a scope that does not exist would stop them all.
func (f *flight) keys() []faultKey {
	r := &f.redemption
	keys := []faultKey{
		f.keyIn(DomainApplication), f.keyIn(DomainTransient),
	}
	if r.Claims == "" {
		whole := f.keyIn(DomainGrant)
		whole.audience = ""
		keys = append(keys, whole, f.keyIn(DomainGrant), f.keyIn(DomainCustomer), f.keyIn(DomainAudience))
	}
	if asked := f.named(); asked != "" {
		for _, k := range keys[2:] {
			k.asked = asked
			keys = append(keys, k)
		}
	}
	return keys
}

func (f *flight) keyIn(d Domain) faultKey {
	r := &f.redemption
	switch d {
	case DomainApplication:
		return faultKey{domain: d, grant: GrantKey{Cloud: r.Key.Cloud, Application: r.Key.Application}}
	case DomainTransient:
		return faultKey{domain: d, grant: r.Key, tenant: r.Tenant}
	case DomainGrant:
		return faultKey{domain: d, grant: r.Key, generation: f.generation, audience: r.Audience}
	}
	return faultKey{domain: d, grant: r.Key, generation: f.generation, tenant: r.Tenant, audience: r.Audience}
}

// named is what f asks for by name, if it does.
func (f *flight) named() string { return askedKey(f.redemption.Scopes, "") }

// keyOf is the domain that fault closes. A policy of the tenant's may demand
// a fresh sign-in for one API and leave the others alone; a refresh token that
// is dead is dead for all.
func (f *flight) keyOf(fault *Fault) faultKey {
	k := f.keyIn(fault.Domain)
	if k.domain == DomainGrant && !fault.MFA() && !fault.ConditionalAccess() {
		k.audience = ""
	}
	if k.domain != DomainApplication && k.domain != DomainTransient && !fault.AnyScope() {
		k.asked = f.named()
	}
	return k
}

// known returns the fault for which f is not to be tried now, or nil.
func (b *backoffs) known(f *flight, now time.Time) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, k := range f.keys() {
		if p := b.all[k]; p != nil && now.Before(p.until) {
			return p.again(now)
		}
	}
	return nil
}

// claim is known for whoever is about to redeem: of all who come when a pause
// is over, the first may try, and the others wait for what comes of it.
func (b *backoffs) claim(f *flight, now time.Time, trial time.Duration) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	keys := f.keys()
	for _, k := range keys {
		if p := b.all[k]; p != nil && now.Before(p.until) {
			return p.again(now)
		}
	}
	for _, k := range keys {
		if p := b.all[k]; p != nil {
			p.until = now.Add(trial)
		}
	}
	return nil
}

// again is the fault as it is told to those who ask meanwhile.
func (p *pause) again(now time.Time) error {
	f := *p.fault
	f.RetryAfter = p.until.Sub(now)
	return &f
}

// settle notes what came of a redemption: fault is nil if it succeeded, and
// also if something of ours prevented it.
func (b *backoffs) settle(f *flight, fault *Fault, ok bool, now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, k := range f.keys() {
		switch p := b.all[k]; {
		case p == nil:
		case ok:
			delete(b.all, k)
		default:
			p.until = now // the trial is over; whose fault it was is said below
		}
	}
	if fault == nil {
		return
	}
	k := f.keyOf(fault)
	if f.redemption.Claims != "" && k.domain != DomainApplication && k.domain != DomainTransient {
		return
	}
	if b.all == nil {
		b.all = make(map[faultKey]*pause)
	}
	p := b.all[k]
	if p == nil {
		p = new(pause)
		b.all[k] = p
	}
	p.begin(fault, now)
}

// begin starts the next pause, twice as long as the last, or as long as Entra
// asks. A tenth of it is chance, so that replicas do not come back together.
func (p *pause) begin(f *Fault, now time.Time) {
	limits, ok := pauses[f.Domain]
	if !ok {
		limits = pauses[DomainTransient]
	}
	p.last = min(max(2*p.last, limits.first), limits.most)
	wait := max(p.last, min(f.RetryAfter, maxPause))
	p.fault, p.until = f, now.Add(wait+time.Duration(mathrand.Int64N(int64(wait/10)+1)))
}

// forgetAfter is how long after the end of its pause a fault that nobody asks
// about any more is remembered.
const forgetAfter = time.Hour

func (b *backoffs) sweep(now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for k, p := range b.all {
		if now.Sub(p.until) > forgetAfter {
			delete(b.all, k)
		}
	}
}
