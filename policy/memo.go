package policy

import (
	"hash/maphash"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/mandate-sam/mandate"
)

// A memo remembers what was allowed, for as long as nothing that was looked at
// can have changed: the rules are a [Set]'s, which never changes, so that is
// what the request asks for, and the time. Callers ask for the same again and
// again, and Cedar takes longer than all the rest of a token from the cache.
//
// Requests that a rule may judge by anything else, such as the address, the
// ticket or the age of MFA, are not remembered, and neither is a denial. There
// are two places for each request, by its hash, and others may take them: so
// readers take no lock, and nobody can fill the memory.
type memo struct {
	seed   maphash.Seed
	places [memoPlaces]atomic.Pointer[remembered]
}

const memoPlaces = 4096

// A remembered decision holds from when it was made until a rule that may speak
// of its request ends.
type remembered struct {
	what     asked
	decision mandate.Decision
	from     time.Time
	until    time.Time // zero: for ever
}

// asked is all of a request that a remembered decision depends on.
type asked struct {
	caller   mandate.CallerID
	partner  string
	key      mandate.GrantKey
	tenant   mandate.TenantID
	audience mandate.Audience
	purpose  string
	scopes   string
}

// askedBy returns what req asks for, and false if that may not be all that it
// is judged by.
func askedBy(req *mandate.Request) (asked, bool) {
	a := asked{req.Caller, req.Partner.Name, req.Partner.Key, req.Tenant, req.Audience, req.Purpose, strings.Join(req.Scopes, "\n")}
	return a, req.Use == mandate.UseToken && !slices.ContainsFunc(req.Scopes, func(s mandate.Scope) bool { return s == "" || strings.Contains(s, "\n") })
}

// of returns the places of a.
func (m *memo) of(a *asked) [2]*atomic.Pointer[remembered] {
	h := maphash.Comparable(m.seed, *a)
	return [2]*atomic.Pointer[remembered]{&m.places[h%memoPlaces], &m.places[h>>32%memoPlaces]}
}

// recall returns the decision that was made on what is asked, if it still
// holds.
func (m *memo) recall(a *asked, now time.Time) (mandate.Decision, bool) {
	for _, place := range m.of(a) {
		if r := place.Load(); r != nil && r.what == *a && r.holds(now) {
			return r.decision, true
		}
	}
	return mandate.Decision{}, false
}

func (r *remembered) holds(now time.Time) bool {
	return !now.Before(r.from) && (r.until.IsZero() || now.Before(r.until))
}

// note remembers a decision by the rules that were found, if it is one to be
// remembered.
func (m *memo) note(a *asked, found *candidates, d *mandate.Decision, now time.Time) {
	if !d.Allowed {
		return
	}
	r := &remembered{what: *a, decision: *d, from: now}
	for rule := range found.rules() {
		if rule.wants&^(hasAudience|hasCloud|hasPurpose|hasAsked) != 0 || rule.ticket || rule.approval > 0 {
			return
		}
		if now.Before(rule.until) && (r.until.IsZero() || rule.until.Before(r.until)) {
			r.until = rule.until
		}
	}
	places := m.of(a)
	if was := places[0].Load(); was == nil || was.what == *a || !was.holds(now) {
		places[0].Store(r)
		return
	}
	places[1].Store(r)
}
