package mandate

import (
	"fmt"
	"sync"
	"time"
)

// challengeBudget is how many claims challenges and refused tokens a caller may
// pass on for one grant in a minute: each costs Entra a redemption.
const challengeBudget = 10

// namedBudget is how often in a minute a caller may have Entra asked for scopes
// that it names, in one tenant: there is no end of scopes, and each is another
// token. Callers that mean it name a few, and have their tokens for an hour.
const namedBudget = 60

// A budget counts what each caller has asked for.
type budget struct {
	mu   sync.Mutex // guards used
	used map[budgetKey]*budgetUse
}

type budgetKey struct {
	caller CallerID
	grant  GrantKey
	tenant TenantID // zero where it does not matter
}

type budgetUse struct {
	since time.Time
	n     int
}

// take counts once more, and reports whether that is at most most in a minute.
func (b *budget) take(k budgetKey, most int, now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.used == nil {
		b.used = make(map[budgetKey]*budgetUse)
	}
	u := b.used[k]
	if u == nil || now.Sub(u.since) >= time.Minute {
		u = &budgetUse{since: now}
		b.used[k] = u
	}
	u.n++
	return u.n <= most
}

func (b *budget) sweep(now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for k, u := range b.used {
		if now.Sub(u.since) >= time.Minute {
			delete(b.used, k)
		}
	}
}

// afford counts what a request costs that makes Entra work for its caller
// alone, and reports what was too much.
func (a *attempt) afford(now time.Time) error {
	r := a.req
	if (r.Claims != "" || r.Refused != "") && !a.challenges.take(budgetKey{caller: r.Caller, grant: r.Partner.Key}, challengeBudget, now) {
		return fmt.Errorf("%w: refused tokens and claims challenges for this partner; at most %d a minute", ErrRateLimited, challengeBudget)
	}
	if len(r.Scopes) > 0 && !a.named.take(budgetKey{r.Caller, r.Partner.Key, r.Tenant}, namedBudget, now) {
		return fmt.Errorf("%w: tokens for scopes that are named, in this tenant; at most %d a minute beside those that are in memory", ErrRateLimited, namedBudget)
	}
	return nil
}
