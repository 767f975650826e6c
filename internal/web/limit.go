package web

import (
	"container/list"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/mandate-sam/mandate"
)

// A Limit says how often something may happen: Burst times at once, and then
// once per Every.
type Limit struct {
	Every time.Duration
	Burst int
}

// A Limiter holds one [Limit] for each of many keys, such as client
// addresses. It remembers a bounded number of keys and forgets the one that
// was quiet for longest, so that nobody can fill the memory; who was forgotten
// starts with a full burst.
type Limiter struct {
	limit Limit
	max   int

	mu     sync.Mutex // guards recent and of
	recent *list.List // of *bucket, the latest used in front
	of     map[string]*list.Element
}

type bucket struct {
	key string
	*rate.Limiter
}

// NewLimiter returns a limiter that remembers at most max keys.
func NewLimiter(limit Limit, max int) *Limiter {
	return &Limiter{limit: limit, max: max, recent: list.New(), of: make(map[string]*list.Element)}
}

// Allow counts one event for key. If that is one too many it is not counted,
// and the error wraps [mandate.ErrRateLimited] and says when to try again.
func (l *Limiter) Allow(key string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	r := l.bucket(key).ReserveN(now, 1)
	if wait := r.DelayFrom(now); wait > 0 {
		r.CancelAt(now)
		return &RetryError{mandate.ErrRateLimited, wait}
	}
	return nil
}

// Check returns what [Limiter.Allow] would, and counts nothing: for limits on
// failures, which are known only afterwards.
func (l *Limiter) Check(key string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	e := l.of[key]
	if e == nil {
		return nil
	}
	missing := 1 - e.Value.(*bucket).TokensAt(time.Now())
	if missing <= 0 {
		return nil
	}
	return &RetryError{mandate.ErrRateLimited, time.Duration(missing * float64(l.limit.Every))}
}

// bucket returns the bucket of key and makes it the latest used.
func (l *Limiter) bucket(key string) *bucket {
	if e := l.of[key]; e != nil {
		l.recent.MoveToFront(e)
		return e.Value.(*bucket)
	}
	for len(l.of) >= l.max {
		oldest := l.recent.Back()
		delete(l.of, l.recent.Remove(oldest).(*bucket).key)
	}
	b := &bucket{key, rate.NewLimiter(rate.Every(l.limit.Every), l.limit.Burst)}
	l.of[key] = l.recent.PushFront(b)
	return b
}

// AddressKey returns the key under which a client is limited: its IPv4
// address, or the /64 of an IPv6 one, because everybody has a whole /64.
func AddressKey(a netip.Addr) string {
	if a.Is6() && !a.Is4In6() {
		prefix, _ := a.WithZone("").Prefix(64)
		return prefix.String()
	}
	return a.Unmap().String()
}
