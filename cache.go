package mandate

import (
	"encoding/binary"
	"sync"
	"sync/atomic"
	"time"
)

// cacheKey is everything that makes two tokens different. The generation is
// part of it, so that a new consent never serves the old user's tokens.
type cacheKey struct {
	partner, tenant TenantID
	application     AppID
	generation      int64
	since           int64 // the epoch of the grant's last change of state
	cloud           string
	audience        Audience
	asked           string // scopes and claims, as the caller asked; see askedKey
}

// askedKey joins scopes and claims into one string that no other pair makes.
// Neither contains a line feed.
func askedKey(scopes []Scope, claims string) string {
	if len(scopes) == 0 && claims == "" {
		return ""
	}
	n := len(claims) + 1
	for _, s := range scopes {
		n += len(s) + 1
	}
	b := make([]byte, 0, n)
	for _, s := range scopes {
		b = append(append(b, s...), '\n')
	}
	return string(append(append(b, '\n'), claims...))
}

// shards is how many locks the cache is spread over; a power of two.
const shards = 64

// A tokenCache holds tokens until they expire, at most perShard in each shard.
// Looking one up takes a read lock of one shard and allocates nothing.
type tokenCache struct {
	perShard int
	shard    [shards]struct {
		mu  sync.RWMutex // guards all
		all map[cacheKey]*cached
		_   [64]byte // no two shards share a cache line
	}
}

// cached is a token with the time from which it should be refreshed.
type cached struct {
	Token
	refresh atomic.Int64 // Unix nanoseconds; see newCached
}

func newTokenCache(max int) *tokenCache {
	c := &tokenCache{perShard: max/shards + 1}
	for i := range c.shard {
		c.shard[i].all = make(map[cacheKey]*cached)
	}
	return c
}

// index spreads keys by the random parts of the IDs. Different audiences of
// one tenant may share a shard; that costs nothing but evenness.
func (k *cacheKey) index() uint64 {
	a := binary.LittleEndian.Uint64(k.tenant.guid[8:]) ^ binary.LittleEndian.Uint64(k.partner.guid[:8])
	a ^= uint64(len(k.audience)) << 7
	a *= 0x9e3779b97f4a7c15
	return a >> 58
}

// get returns the token for k if it lives longer than now plus atLeast.
func (c *tokenCache) get(k *cacheKey, now time.Time, atLeast time.Duration) *cached {
	s := &c.shard[k.index()]
	s.mu.RLock()
	t := s.all[*k]
	s.mu.RUnlock()
	if t == nil || t.Expires.Sub(now) <= atLeast {
		return nil
	}
	return t
}

// put stores t. In a full shard it first drops what has expired, then, if that
// was nothing, any other token: a cache may forget, but not grow.
func (c *tokenCache) put(k cacheKey, t *cached, now time.Time) {
	s := &c.shard[k.index()]
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.all[k]; !ok && len(s.all) >= c.perShard {
		dropExpired(s.all, now)
		for victim := range s.all {
			if len(s.all) < c.perShard {
				break
			}
			delete(s.all, victim)
		}
	}
	s.all[k] = t
}

// sweep drops what has expired.
func (c *tokenCache) sweep(now time.Time) {
	for i := range c.shard {
		s := &c.shard[i]
		s.mu.Lock()
		dropExpired(s.all, now)
		s.mu.Unlock()
	}
}

// drop forgets every token of one grant, whatever its generation.
func (c *tokenCache) drop(g GrantKey) {
	for i := range c.shard {
		s := &c.shard[i]
		s.mu.Lock()
		for k := range s.all {
			if k.partner == g.Partner && k.application == g.Application && k.cloud == g.Cloud {
				delete(s.all, k)
			}
		}
		s.mu.Unlock()
	}
}

func dropExpired(all map[cacheKey]*cached, now time.Time) {
	for k, t := range all {
		if !t.Expires.After(now) {
			delete(all, k)
		}
	}
}
