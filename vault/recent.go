package vault

import (
	"sync"
	"time"
)

// recent remembers a bounded number of things for a bounded time, and only
// within one epoch. When it is full, the half that was put first goes at once:
// every redemption puts something, and none may have to search.
type recent[K comparable, V any] struct {
	max  int
	life time.Duration

	mu         sync.Mutex // guards the rest
	epoch      int64
	young, old map[K]remembered[V]
}

type remembered[V any] struct {
	value V
	until time.Time
}

func (r *recent[K, V]) get(epoch int64, k K) (V, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.in(epoch)
	e, ok := r.young[k]
	if !ok {
		e, ok = r.old[k]
	}
	if !ok || !time.Now().Before(e.until) {
		delete(r.young, k)
		delete(r.old, k)
		var none V
		return none, false
	}
	return e.value, true
}

func (r *recent[K, V]) put(epoch int64, k K, value V) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.in(epoch); r.epoch != epoch {
		return // learned in an epoch that is over
	}
	if len(r.young) >= r.max/2 {
		r.young, r.old = make(map[K]remembered[V]), r.young
	}
	r.young[k] = remembered[V]{value, time.Now().Add(r.life)}
}

// in forgets everything if epoch is a later one.
func (r *recent[K, V]) in(epoch int64) {
	if r.young == nil || epoch > r.epoch {
		r.epoch, r.young, r.old = epoch, make(map[K]remembered[V]), nil
	}
}
