package mandate

import (
	"context"
	"errors"
	"maps"
	"sync"
	"sync/atomic"
	"time"
)

// Stats are counts of what a [Broker] has done since it was made. None of them
// names a partner, a customer or a caller.
type Stats struct {
	Tokens    map[string]int64 // requests by outcome: "issued", or the kind of the error
	Hits      int64            // tokens handed out from memory
	Upstream  map[Call]int64   // calls to Microsoft
	KeepAlive map[string]int64 // keep-alives by outcome: "ok", "failed", "later"
	Customers map[string]int64 // refreshes of lists of customers by outcome: "ok", "failed", "no_grant"
	Pauses    map[Domain]int   // faults that are left alone just now
}

// A Call is a kind of call to Microsoft, and how it ended: "ok", or the domain
// of the fault.
type Call struct{ What, Outcome string }

// outcomes are how requests for tokens end, the first that matches.
var outcomes = []struct {
	name string
	err  error
}{
	{"unavailable", ErrUnavailable}, {"denied", ErrDenied}, {"wider_than_rule", ErrWiderThanRule}, {"no_grant", ErrNoGrant},
	{"rate_limited", ErrRateLimited}, {"upstream", ErrUpstream}, {"invalid", ErrInvalid},
	{"canceled", context.Canceled}, {"canceled", context.DeadlineExceeded},
}

// stats are counted without a lock where every request passes.
type stats struct {
	issued, hits atomic.Int64
	tokens       tally[string]
	upstream     tally[Call]
	alive        tally[string]
	customers    tally[string]
}

// token counts one request for a token.
func (s *stats) token(err error) {
	if err == nil {
		s.issued.Add(1)
		return
	}
	for _, o := range outcomes {
		if errors.Is(err, o.err) {
			s.tokens.add(o.name)
			return
		}
	}
	s.tokens.add("failed")
}

// A tally counts by key.
type tally[K comparable] struct {
	mu sync.Mutex // guards n
	n  map[K]int64
}

func (t *tally[K]) add(k K) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.n == nil {
		t.n = make(map[K]int64)
	}
	t.n[k]++
}

func (t *tally[K]) counts() map[K]int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	out := make(map[K]int64, len(t.n)+1)
	maps.Copy(out, t.n)
	return out
}

// Stats returns what was counted so far.
func (b *Broker) Stats() Stats {
	s := Stats{
		Tokens: b.stats.tokens.counts(), Hits: b.stats.hits.Load(), Upstream: b.stats.upstream.counts(),
		KeepAlive: b.stats.alive.counts(), Customers: b.stats.customers.counts(), Pauses: b.backoffs.open(time.Now()),
	}
	s.Tokens["issued"] = b.stats.issued.Load()
	return s
}

// open counts the pauses that are not over, by domain.
func (b *backoffs) open(now time.Time) map[Domain]int {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := make(map[Domain]int)
	for k, p := range b.all {
		if now.Before(p.until) {
			out[k.domain]++
		}
	}
	return out
}

// counted are calls to Microsoft that are counted.
type counted struct {
	Authority
	Prober
	calls *tally[Call]
}

func (c *counted) count(what string, err error) {
	outcome := "ok"
	var f *Fault
	switch {
	case errors.As(err, &f):
		outcome = string(f.Domain)
	case err != nil:
		outcome = "unusable"
	}
	c.calls.add(Call{what, outcome})
}

// Redeem implements [Authority].
func (c *counted) Redeem(ctx context.Context, r Redemption) (Redeemed, error) {
	out, err := c.Authority.Redeem(ctx, r)
	c.count("redeem", err)
	return out, err
}

// RedeemCode implements [Authority].
func (c *counted) RedeemCode(ctx context.Context, r CodeRedemption) (Redeemed, error) {
	out, err := c.Authority.RedeemCode(ctx, r)
	c.count("redeem_code", err)
	return out, err
}

// MFACompliant implements [Prober].
func (c *counted) MFACompliant(ctx context.Context, k GrantKey, token Secret) (bool, string, error) {
	ok, why, err := c.Prober.MFACompliant(ctx, k, token)
	c.count("mfa_verdict", err)
	return ok, why, err
}

// AgentGroups implements [Prober].
func (c *counted) AgentGroups(ctx context.Context, k GrantKey, token Secret) ([]string, error) {
	groups, err := c.Prober.AgentGroups(ctx, k, token)
	c.count("agent_groups", err)
	return groups, err
}
