package mandate

import (
	"hash/maphash"
	"math"
	"math/bits"
	"runtime"
	"strings"
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

// asks returns the scopes and the claims that k was made of.
func (k *cacheKey) asks() (scopes []Scope, claims string) {
	i := strings.LastIndexByte(k.asked, '\n')
	if i > 0 {
		scopes = strings.Split(k.asked[:i-1], "\n")
	}
	return scopes, k.asked[i+1:]
}

// cached is a token with the time from which it should be renewed.
type cached struct {
	Token
	refresh atomic.Int64 // Unix nanoseconds; see newCached
}

// A tokenCache holds tokens until they expire, at most so many. A hit takes no
// lock, allocates nothing, and writes to nothing that others read; a million
// tokens are a few thousand objects to the garbage collector. All else takes
// one lock, since what is stored has come over a network just before.
//
// The bytes are in the arena. A token has a number, by which ref leads to its
// record and the wheel knows it; a slot of the index, found by the hash of the
// key, holds the number and some bits of the hash.
//
// Readers trust nothing but the record that they find: they compare all of the
// key, and the expiry. A slot, a number or a slab may be given to another
// token while they look, and then they find that it is not theirs. Only a
// token that is moved could be missed; see moves.
type tokenCache struct {
	seed  maphash.Seed
	slots []atomic.Uint32 // a power of two, at most three quarters of them taken
	refs  []atomic.Uint64 // by number
	arena *arena

	// moves is odd while the writer moves slots or gives up a slab. A miss
	// counts only if it has not changed meanwhile.
	moves atomic.Uint32

	mu    sync.Mutex // guards all stores to what is above, and what is below
	wheel *wheel     // when to look at a token again; see sweep
	free  []uint32   // numbers that were given back
	used  uint32     // numbers below it were given out
	hand  uint32     // where the search for a victim goes on
}

const (
	// meanRecord times the number of tokens is how many bytes of them the
	// cache holds at most.
	meanRecord = 4 << 10

	// recheck is how long a token that is due is left alone after it was
	// found unused, or was given out to be renewed.
	recheck = 30 * time.Second

	// batch is how many tokens are looked at before others may have the lock.
	batch = 2048
)

func newTokenCache(max int) *tokenCache {
	max = min(max, 1<<numberBits-2) // so that no slot is zero but an empty one
	return &tokenCache{
		seed:  maphash.MakeSeed(),
		slots: make([]atomic.Uint32, 1<<bits.Len(uint(max*4/3))),
		refs:  make([]atomic.Uint64, max),
		arena: newArena(max * meanRecord),
		wheel: newWheel(max, time.Now()),
	}
}

// A slot is a number and one in its lower bits, and above them bits of the
// key's hash. Zero is an empty slot.
const numberBits = 24

func slotOf(id, hash uint32) uint32 { return hash&^(1<<numberBits-1) | (id + 1) }
func numberIn(slot uint32) uint32   { return slot&(1<<numberBits-1) - 1 }

func (c *tokenCache) hash(k *cacheKey) uint32 {
	var b [64]byte
	copy(b[:], k.tenant.guid[:])
	copy(b[16:], k.partner.guid[:])
	copy(b[32:], k.application.guid[:])
	for i := range 8 {
		b[48+i], b[56+i] = byte(k.generation>>(8*i)), byte(k.since>>(8*i))
	}
	h := maphash.Bytes(c.seed, b[:])
	h = bits.RotateLeft64(h, 23) ^ maphash.String(c.seed, string(k.audience))
	if k.asked != "" {
		h = bits.RotateLeft64(h, 23) ^ maphash.String(c.seed, k.asked)
	}
	return uint32(h) ^ uint32(h>>32)
}

func (c *tokenCache) hashOf(e entry) uint32 {
	k := e.key()
	return c.hash(&k)
}

// get returns the token for k if it lives longer than now plus atLeast. Of all
// who find a token due to be renewed, one in a while is told so; the others
// see a time that never comes.
func (c *tokenCache) get(k *cacheKey, now time.Time, atLeast time.Duration) *cached {
	e, ok := c.hit(k, now, atLeast)
	if !ok {
		return nil
	}
	t := &cached{Token: e.copy()}
	renewal := e.due()
	if renewal <= now.UnixNano() && !c.claim(e, now) {
		renewal = math.MaxInt64
	}
	t.refresh.Store(renewal)
	return t
}

// claim reports whether the caller is the first for as long as retryRenewal
// who wants to renew e.
func (c *tokenCache) claim(e entry, now time.Time) bool {
	for {
		r := ref(c.refs[e.id].Load())
		if r.place() != e.ref.place() || !r.claimable(now) {
			return false
		}
		if c.refs[e.id].CompareAndSwap(uint64(r), uint64(r.claimed(now))) {
			return true
		}
	}
}

// hit is get without a copy: it allocates nothing. It notes that the token was
// used.
func (c *tokenCache) hit(k *cacheKey, now time.Time, atLeast time.Duration) (entry, bool) {
	hash := c.hash(k)
	for {
		before := c.moves.Load()
		e := c.find(k, hash)
		switch {
		case e.header != nil:
			if e.expires-now.UnixNano() <= int64(atLeast) {
				return entry{}, false
			}
			if e.ref&refUsed == 0 {
				c.refs[e.id].CompareAndSwap(uint64(e.ref), uint64(e.ref|refUsed))
			}
			return e, true
		case before&1 == 0 && c.moves.Load() == before:
			return entry{}, false
		}
		runtime.Gosched()
	}
}

// find returns the token for k, or none.
func (c *tokenCache) find(k *cacheKey, hash uint32) entry {
	mask := uint32(len(c.slots) - 1)
	for i := hash & mask; ; i = (i + 1) & mask {
		slot := c.slots[i].Load()
		if slot == 0 {
			return entry{}
		}
		if (slot^hash)>>numberBits != 0 {
			continue
		}
		if e := c.entry(numberIn(slot)); e.header != nil && e.is(k) {
			return e
		}
	}
}

// entry returns the token with a number, or none.
func (c *tokenCache) entry(id uint32) entry {
	r := ref(c.refs[id].Load())
	e := c.arena.at(r)
	e.id, e.ref = id, r
	return e
}

// put stores t. A cache that is full forgets another token first.
func (c *tokenCache) put(k cacheKey, t *cached, now time.Time) {
	hash := c.hash(&k)
	h, text, ok := newRecord(&k, t)
	if !ok {
		return // a cache may forget
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.makeRoom(length(text))
	was := c.find(&k, hash)
	id := was.id
	if was.header == nil {
		id = c.number(now)
	}
	r := c.arena.write(h, &shared{k.cloud, k.application, k.audience, t.Scopes}, text[:]...)
	c.refs[id].Store(uint64(r))
	if was.header == nil {
		c.insert(hash, id)
	} else {
		c.arena.forget(was.ref)
	}
	c.wheel.add(id, time.Unix(0, c.entry(id).due()))
	c.compact()
}

// len returns how many tokens there are.
func (c *tokenCache) len() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return int(c.used) - len(c.free)
}

// number returns a number that is free, if need be another token's.
func (c *tokenCache) number(now time.Time) uint32 {
	if len(c.free) == 0 && int(c.used) == len(c.refs) {
		c.remove(c.victim(now))
	}
	if n := len(c.free); n > 0 {
		id := c.free[n-1]
		c.free = c.free[:n-1]
		return id
	}
	c.used++
	return c.used - 1
}

// insert makes the first empty slot for hash lead to a number.
func (c *tokenCache) insert(hash, id uint32) {
	mask := uint32(len(c.slots) - 1)
	i := hash & mask
	for c.slots[i].Load() != 0 {
		i = (i + 1) & mask
	}
	c.slots[i].Store(slotOf(id, hash))
}

// remove forgets a token.
func (c *tokenCache) remove(id uint32) {
	e := c.entry(id)
	c.moves.Add(1)
	c.vacate(id, c.hashOf(e))
	c.refs[id].Store(0)
	c.moves.Add(1)
	c.arena.forget(e.ref)
	c.wheel.remove(id)
	c.free = append(c.free, id)
}

// vacate empties the slot of a number, and moves others up that stand behind
// it because it was taken, so that no search ends before them.
func (c *tokenCache) vacate(id, hash uint32) {
	mask := uint32(len(c.slots) - 1)
	i := hash & mask
	for numberIn(c.slots[i].Load()) != id {
		i = (i + 1) & mask
	}
	for j := (i + 1) & mask; ; j = (j + 1) & mask {
		slot := c.slots[j].Load()
		if slot == 0 {
			break
		}
		home := c.hashOf(c.entry(numberIn(slot))) & mask
		if (j-home)&mask >= (j-i)&mask {
			c.slots[i].Store(slot)
			i = j
		}
	}
	c.slots[i].Store(0)
}
