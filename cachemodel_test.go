package mandate

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// modelKey is one of a few keys, so that they meet.
func modelKey(n byte) cacheKey {
	return cacheKey{
		cloud: "global", application: testApp, partner: tenantN(int(n % 4)), tenant: tenantN(int(n % 32)),
		generation: int64(n % 2), audience: []Audience{pc, graph}[n/128], asked: strings.Repeat("s\n", int(n%3)),
	}
}

// A model is a cache with a map beside it.
type model struct {
	cache *tokenCache
	all   map[cacheKey]Token
	full  bool // the cache may have forgotten something
}

// modelCheck drives a cache and a map by a program of bytes. The cache may
// have forgotten what the map has if there was too much of it, but nothing
// else may differ.
func modelCheck(t *testing.T, max int, program []byte) {
	c := newTokenCache(max)
	m := &model{cache: c, all: make(map[cacheKey]Token)}
	now := time.Unix(1_000_000, 0)
	c.wheel = newWheel(max, now)
	for i := 0; i+2 < len(program); i += 3 {
		op, n, v := program[i], program[i+1], program[i+2]
		k := modelKey(n)
		switch op % 8 {
		case 0, 1, 2:
			tok := Token{
				Access: NewSecret(fmt.Sprint(i) + strings.Repeat("x", int(v)*97)), Expires: now.Add(time.Duration(v) * time.Minute),
				Tenant: k.tenant, Audience: k.audience, Generation: k.generation, Scopes: []Scope{fmt.Sprint(v % 5)}, UTI: fmt.Sprint(v),
			}
			put := &cached{Token: tok}
			put.refresh.Store(now.Add(time.Duration(v) * 45 * time.Second).UnixNano())
			c.put(k, put, now)
			m.all[k] = tok
			m.full = m.full || len(m.all) > max
		case 3:
			now = now.Add(time.Duration(v) * time.Second)
			for _, r := range c.sweep(now) {
				if want, ok := m.all[r.key]; !ok || !want.Expires.After(now) {
					t.Fatalf("step %d: %+v is due, and there is no such token", i, r.key)
				}
			}
		case 4:
			if v%16 == 0 {
				c.drop(GrantKey{k.cloud, k.application, k.partner})
				maps.DeleteFunc(m.all, func(o cacheKey, _ Token) bool { return o.partner == k.partner })
			}
		default:
			m.get(t, i, k, now)
		}
		if c.len() > max {
			t.Fatalf("step %d: %d tokens of at most %d", i, c.len(), max)
		}
	}
	m.end(t, now)
}

func (m *model) get(t *testing.T, step int, k cacheKey, now time.Time) {
	want, ok := m.all[k]
	got := m.cache.get(&k, now, 0)
	switch {
	case got == nil:
		if ok && want.Expires.After(now) && !m.full {
			t.Fatalf("step %d: a token is forgotten, and there was always room", step)
		}
	case !ok || !want.Expires.After(now):
		t.Fatalf("step %d: got a token that is not in the map, or expired", step)
	case got.Access.Reveal() != want.Access.Reveal() || got.Tenant != want.Tenant || got.Audience != want.Audience ||
		got.Scopes[0] != want.Scopes[0] || got.UTI != want.UTI || !got.Expires.Equal(want.Expires):
		t.Fatalf("step %d: got another token than was stored", step)
	}
}

// end looks at everything once more, and at the books.
func (m *model) end(t *testing.T, now time.Time) {
	c := m.cache
	for k := range m.all {
		m.get(t, -1, k, now)
	}
	alive := 0
	for id := range c.used {
		if e := c.entry(id); e.header != nil {
			alive += e.size()
			if c.find(new(e.key()), c.hashOf(e)).id != id {
				t.Fatalf("token %d cannot be found", id)
			}
		}
	}
	open := 0
	if c.arena.open != nil {
		open = c.arena.open.left()
	}
	if c.arena.total != alive+c.arena.dead+open {
		t.Errorf("%d bytes are not %d alive, %d dead and %d empty", c.arena.total, alive, c.arena.dead, open)
	}
	c.sweep(now.Add(1000 * time.Hour))
	if c.len() != 0 {
		t.Errorf("%d tokens never expire", c.len())
	}
}

func TestCacheAgainstAMap(t *testing.T) {
	for _, max := range []int{1, 2, 7, 64, 1000} {
		program := make([]byte, 30_000)
		for i := range program {
			program[i] = byte(rand.Uint32())
		}
		modelCheck(t, max, program)
	}
}

func FuzzCache(f *testing.F) {
	f.Add(uint8(4), []byte{0, 1, 9, 5, 1, 0, 3, 0, 200, 5, 1, 0, 4, 1, 16})
	f.Add(uint8(1), []byte{0, 1, 9, 0, 2, 9, 0, 3, 9, 5, 1, 0, 5, 2, 0, 5, 3, 0})
	f.Fuzz(func(t *testing.T, max uint8, program []byte) { modelCheck(t, int(max)+1, program) })
}

// Readers meet every kind of change, and never see a token of another key, nor
// one that is older than what was stored before they looked; and what nobody
// removes is always there.
func TestCacheReadersDuringChanges(t *testing.T) {
	const keys, stays = 400, 100 // the first of the keys are never removed
	c := newTokenCache(8 * keys)
	now := time.Now()
	var stored [keys]atomic.Int64
	write := func(n int, version int64) {
		tok := lives(time.Hour, now)
		tok.Access = NewSecret(fmt.Sprintf("%d/%d/%s", n, version, strings.Repeat("x", 1+rand.IntN(9_000))))
		tok.Scopes = []Scope{fmt.Sprint(n)}
		partner := contoso
		if n >= stays {
			partner = adatum
		}
		c.put(cacheKey{partner: partner, tenant: tenantN(n)}, tok, now)
		stored[n].Store(version)
	}
	for n := range stays {
		write(n, 1)
	}
	var done atomic.Bool
	var readers sync.WaitGroup
	for range 2 {
		readers.Go(func() {
			for !done.Load() {
				n := rand.IntN(keys)
				k := cacheKey{partner: contoso, tenant: tenantN(n)}
				if n >= stays {
					k.partner = adatum
				}
				before := stored[n].Load()
				e, ok := c.hit(&k, now, 0)
				if !ok {
					if n < stays {
						t.Errorf("key %d was missed", n)
						return
					}
					continue
				}
				var of int
				var version int64
				if _, err := fmt.Sscanf(e.access()[:min(20, len(e.access()))], "%d/%d/", &of, &version); err != nil || of != n || version < before || e.shared.scopes[0] != fmt.Sprint(n) {
					t.Errorf("key %d, version %d or later: got %.30q of %v", n, before, e.access(), e.shared.scopes)
					return
				}
			}
		})
	}
	for version := int64(2); version < 1000; version++ {
		write(rand.IntN(keys), version)
		if version%200 == 0 {
			c.drop(GrantKey{Partner: adatum})
		}
	}
	done.Store(true)
	readers.Wait()
	if c.arena.number < 8 {
		t.Errorf("only %d slabs were written: nothing was compacted", c.arena.number)
	}
}

// However tokens come and go, little of the memory is dead.
func TestCacheCompacts(t *testing.T) {
	const max = 1000
	c := newTokenCache(max)
	now := time.Now()
	text := strings.Repeat("x", 2500)
	for i := range 10 * max {
		tok := lives(time.Hour, now)
		tok.Access = NewSecret(text[:1500+rand.IntN(1000)])
		c.put(cacheKey{tenant: tenantN(rand.IntN(max))}, tok, now)
		if limit := c.arena.total/maxDead + 2*slabText; c.arena.dead > limit {
			t.Fatalf("step %d: %d of %d bytes are dead, want at most %d", i, c.arena.dead, c.arena.total, limit)
		}
	}
	if c.len() < max*99/100 {
		t.Errorf("%d tokens of %d", c.len(), max)
	}
}
