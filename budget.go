package mandate

import (
	"sync"
	"time"
)

// challengeBudget is how many claims challenges and refused tokens a caller may
// pass on for one grant in a minute: each costs Entra a redemption.
const challengeBudget = 10

// A budget counts them per caller and grant.
type budget struct {
	mu   sync.Mutex // guards used
	used map[budgetKey]*budgetUse
}

type budgetKey struct {
	caller CallerID
	grant  GrantKey
}

type budgetUse struct {
	since time.Time
	n     int
}

// take counts one challenge, and reports whether it is within the budget.
func (b *budget) take(c CallerID, g GrantKey, now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.used == nil {
		b.used = make(map[budgetKey]*budgetUse)
	}
	u := b.used[budgetKey{c, g}]
	if u == nil || now.Sub(u.since) >= time.Minute {
		u = &budgetUse{since: now}
		b.used[budgetKey{c, g}] = u
	}
	u.n++
	return u.n <= challengeBudget
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
