package mandate

import (
	"encoding/binary"
	"fmt"
	"testing"
	"time"
)

func tenantN(n int) TenantID {
	var t TenantID
	binary.BigEndian.PutUint64(t.guid[8:], uint64(n)+1)
	return t
}

func TestCacheBound(t *testing.T) {
	now := time.Now()
	c := newTokenCache(1000)
	for i := range 5000 {
		c.put(cacheKey{tenant: tenantN(i)}, &cached{Token: Token{Expires: now.Add(time.Hour)}}, now)
	}
	n := 0
	for i := range c.shard {
		n += len(c.shard[i].all)
	}
	if n > 1000+shards || n < 500 {
		t.Errorf("a cache for 1000 holds %d", n)
	}
}

// A full shard forgets what has expired before anything that has not.
func TestCacheEvictsExpiredFirst(t *testing.T) {
	now := time.Now()
	c := newTokenCache(2 * shards)
	key := func(n int64) cacheKey { return cacheKey{generation: n} } // all in one shard
	for n := range int64(2) {
		c.put(key(n), &cached{Token: Token{Expires: now.Add(-time.Second)}}, now)
	}
	live := &cached{Token: Token{Expires: now.Add(time.Hour)}}
	c.put(key(2), live, now)
	c.put(key(3), live, now)
	for n := int64(2); n < 4; n++ {
		k := key(n)
		if c.get(&k, now, 0) == nil {
			t.Errorf("token %d was forgotten while an expired one was kept", n)
		}
	}
}

func TestCacheSpreads(t *testing.T) {
	c := newTokenCache(100_000)
	for i := range 10_000 {
		c.put(cacheKey{tenant: tenantN(i)}, &cached{Token: Token{Expires: time.Now().Add(time.Hour)}}, time.Now())
	}
	for i := range c.shard {
		if n := len(c.shard[i].all); n > 3*10_000/shards {
			t.Errorf("shard %d holds %d of 10,000", i, n)
		}
	}
}

func TestCacheDropsOneGrant(t *testing.T) {
	c := newTokenCache(1000)
	now := time.Now()
	mine := cacheKey{cloud: "global", application: testApp, partner: contoso}
	others := []cacheKey{
		{cloud: "usgov", application: testApp, partner: contoso},
		{cloud: "global", application: testApp, partner: adatum},
		{cloud: "global", partner: contoso},
	}
	tok := &cached{Token: Token{Expires: now.Add(time.Hour)}}
	for _, k := range append(others, mine) {
		c.put(k, tok, now)
	}
	c.drop(testKey)
	if c.get(&mine, now, 0) != nil {
		t.Error("the grant's token is still there")
	}
	for _, k := range others {
		if c.get(&k, now, 0) == nil {
			t.Errorf("the token of %+v is gone", k)
		}
	}
}

func TestAskedKey(t *testing.T) {
	seen := make(map[string]string)
	for _, tt := range []struct {
		scopes []Scope
		claims string
	}{{nil, ""}, {[]Scope{"a"}, ""}, {[]Scope{"a", "b"}, ""}, {[]Scope{"ab"}, ""}, {nil, "a"}, {[]Scope{"a"}, "b"}, {nil, "ab"}} {
		k := askedKey(tt.scopes, tt.claims)
		this := fmt.Sprintf("%q %q", tt.scopes, tt.claims)
		if other, ok := seen[k]; ok {
			t.Errorf("%s and %s share a key", this, other)
		}
		seen[k] = this
	}
}

func TestCacheGetAllocatesNothing(t *testing.T) {
	c := newTokenCache(100)
	now := time.Now()
	k := cacheKey{tenant: contoso, audience: graph}
	c.put(k, &cached{Token: Token{Expires: now.Add(time.Hour)}}, now)
	if n := testing.AllocsPerRun(100, func() { c.get(&k, now, 0) }); n != 0 {
		t.Errorf("a hit allocates %v times", n)
	}
}
