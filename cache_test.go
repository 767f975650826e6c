package mandate

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
)

func tenantN(n int) TenantID {
	var t TenantID
	binary.BigEndian.PutUint64(t.guid[8:], uint64(n)+1)
	return t
}

// lives returns a token that lives that long.
func lives(d time.Duration, now time.Time) *cached {
	return &cached{Token: Token{Access: NewSecret("token"), Expires: now.Add(d)}}
}

func TestCacheKeepsAllOfAToken(t *testing.T) {
	c := newTokenCache(10)
	now := time.Now()
	want := Token{
		Access: NewSecret("header.payload.signature"), Expires: time.Unix(0, now.Add(time.Hour).UnixNano()), Tenant: adatum, Audience: graph,
		Scopes: []Scope{"Directory.Read.All", "User.Read"}, Generation: 7, Fingerprint: strings.Repeat("0123456789abcdef", 4),
		UTI: "uti", CorrelationID: "correlation",
	}
	k := cacheKey{partner: contoso, tenant: adatum, application: testApp, generation: 9, since: 40, cloud: "global", audience: graph, asked: askedKey([]Scope{"User.Read"}, "{}")}
	stored := &cached{Token: want}
	refresh := now.Add(40 * time.Minute)
	stored.refresh.Store(refresh.UnixNano())
	c.put(k, stored, now)
	got := c.get(&k, now, 0)
	if got == nil {
		t.Fatal("a token that was just stored is not there")
	}
	if diff := gocmp.Diff(want, got.Token, gocmp.AllowUnexported(TenantID{}, Secret{})); diff != "" {
		t.Errorf("token (-want +got):\n%s", diff)
	}
	if late := refresh.Sub(time.Unix(0, got.refresh.Load())); late < 0 || late >= time.Second {
		t.Errorf("it is to be renewed %v earlier than it was said", late)
	}
	if e, _ := c.hit(&k, now, 0); e.key() != k {
		t.Errorf("key: got %+v, want %+v", e.key(), k)
	}
}

// Tokens share their scopes, and callers can change what they are given.
func TestCacheScopesAreItsOwn(t *testing.T) {
	c := newTokenCache(10)
	now := time.Now()
	scopes := []Scope{"User.Read"}
	for n := range 2 {
		tok := lives(time.Hour, now)
		tok.Scopes = scopes
		c.put(cacheKey{tenant: tenantN(n)}, tok, now)
	}
	one, other := &cacheKey{tenant: tenantN(0)}, &cacheKey{tenant: tenantN(1)}
	scopes[0] = "stored with"
	c.get(one, now, 0).Scopes[0] = "handed out"
	for _, k := range []*cacheKey{one, other} {
		if got := c.get(k, now, 0).Scopes[0]; got != "User.Read" {
			t.Errorf("somebody changed the scopes to %q", got)
		}
	}
}

// Whatever part of the key differs, it is another token.
func TestCacheComparesAllOfTheKey(t *testing.T) {
	base := cacheKey{partner: contoso, tenant: adatum, application: testApp, generation: 1, cloud: "global", audience: graph, asked: "User.Read\n\n"}
	keys := []cacheKey{base}
	for _, change := range []func(*cacheKey){
		func(k *cacheKey) { k.partner = litware },
		func(k *cacheKey) { k.tenant = litware },
		func(k *cacheKey) { k.application = AppID{} },
		func(k *cacheKey) { k.generation = 2 },
		func(k *cacheKey) { k.generation = 1 + 1<<32 },
		func(k *cacheKey) { k.since = 5 },
		func(k *cacheKey) { k.cloud = "usgov" },
		func(k *cacheKey) { k.audience = pc },
		func(k *cacheKey) { k.asked = "" },
		func(k *cacheKey) { k.asked = "User.Read\n\n{}" },
	} {
		k := base
		change(&k)
		keys = append(keys, k)
	}
	now := time.Now()
	for i := range keys {
		if keys[i].generation >= 1<<32 {
			continue // can be asked for, and not be there
		}
		c := newTokenCache(10)
		tok := lives(time.Hour, now)
		tok.Generation = keys[i].generation
		c.put(keys[i], tok, now)
		for j := range keys {
			// As if all of them had the same hash.
			if got := c.find(&keys[j], c.hash(&keys[i])).header != nil; got != (i == j) {
				t.Errorf("stored for %+v, asked for %+v: found is %v", keys[i], keys[j], got)
			}
		}
	}
}

func TestCacheExpiry(t *testing.T) {
	c := newTokenCache(10)
	now := time.Now()
	k := cacheKey{tenant: contoso}
	c.put(k, lives(time.Minute, now), now)
	for _, tt := range []struct {
		later, atLeast time.Duration
		want           bool
	}{
		{0, 0, true},
		{0, time.Minute - 1, true},
		{0, time.Minute, false},
		{time.Minute - 1, 0, true},
		{time.Minute, 0, false},
		{time.Hour, 0, false},
	} {
		if got := c.get(&k, now.Add(tt.later), tt.atLeast) != nil; got != tt.want {
			t.Errorf("%v later, for at least %v: found is %v, want %v", tt.later, tt.atLeast, got, tt.want)
		}
	}
}

func TestCacheBound(t *testing.T) {
	now := time.Now()
	c := newTokenCache(1000)
	for i := range 5000 {
		c.put(cacheKey{tenant: tenantN(i)}, lives(time.Hour, now), now)
	}
	if c.len() != 1000 {
		t.Errorf("a cache for 1000 holds %d", c.len())
	}
	last := cacheKey{tenant: tenantN(4999)}
	if c.get(&last, now, 0) == nil {
		t.Error("it forgot what was stored last")
	}
}

// However large tokens are, a cache holds a limited number of bytes of them.
func TestCacheBoundInBytes(t *testing.T) {
	now := time.Now()
	c := newTokenCache(1000)
	large := lives(time.Hour, now)
	large.Access = NewSecret(strings.Repeat("x", 50_000))
	for i := range 1000 {
		c.put(cacheKey{tenant: tenantN(i)}, large, now)
	}
	if limit := len(c.arena.slabs) * slabText; c.arena.total > limit*5/4 || limit > 2*1000*meanRecord {
		t.Errorf("a cache for 1000 tokens takes %d bytes, want at most %d", c.arena.total, limit)
	}
	if n := c.len(); n < 50 || n > 1000*2*meanRecord/50_000 {
		t.Errorf("it holds %d large tokens", n)
	}
	last := cacheKey{tenant: tenantN(999)}
	if c.get(&last, now, 0) == nil {
		t.Error("it forgot what was stored last")
	}
	large.Access = NewSecret(strings.Repeat("x", maxRecord))
	c.put(last, large, now)
	if got := c.get(&last, now, 0); got == nil || len(got.Access.Reveal()) != 50_000 {
		t.Error("a token that is too large to keep took the place of another")
	}
}

// A full cache forgets what has expired before anything else, and what nobody
// uses before what somebody does.
func TestCacheForgetsTheLeastUseful(t *testing.T) {
	now := time.Now()
	c := newTokenCache(3)
	key := func(n int) *cacheKey { return &cacheKey{tenant: tenantN(n)} }
	c.put(*key(0), lives(time.Hour, now), now)
	c.put(*key(1), lives(time.Minute, now), now)
	c.put(*key(2), lives(time.Hour, now), now)
	if c.get(key(0), now, 0) == nil {
		t.Fatal("token 0 is not there")
	}
	now = now.Add(2 * time.Minute)
	for _, step := range []struct{ stored, forgotten int }{{3, 1}, {4, 2}} {
		c.put(*key(step.stored), lives(time.Hour, now), now)
		if c.find(key(step.forgotten), c.hash(key(step.forgotten))).header != nil {
			t.Errorf("storing token %d did not make it forget token %d", step.stored, step.forgotten)
		}
		if c.len() != 3 {
			t.Errorf("it holds %d of at most 3", c.len())
		}
	}
}

func TestCacheDropsOneGrant(t *testing.T) {
	c := newTokenCache(3 * batch)
	now := time.Now()
	others := []cacheKey{
		{cloud: "usgov", application: testApp, partner: contoso},
		{cloud: "global", application: testApp, partner: adatum},
		{cloud: "global", partner: contoso},
	}
	for _, k := range others {
		c.put(k, lives(time.Hour, now), now)
	}
	for i := range 2*batch + 100 {
		c.put(cacheKey{cloud: "global", application: testApp, partner: contoso, tenant: tenantN(i)}, lives(time.Hour, now), now)
	}
	c.drop(testKey)
	if c.len() != len(others) {
		t.Errorf("%d tokens are left, want %d", c.len(), len(others))
	}
	for _, k := range others {
		if c.get(&k, now, 0) == nil {
			t.Errorf("the token of %+v is gone", k)
		}
	}
}

// Of all who find a token due, one renews it; and again only after a while.
func TestCacheOneClaims(t *testing.T) {
	c := newTokenCache(1)
	now := time.Now()
	k := cacheKey{tenant: contoso}
	tok := lives(time.Hour, now)
	tok.refresh.Store(now.Add(time.Minute).UnixNano())
	c.put(k, tok, now)
	due := func(now time.Time) (n int) {
		for range 3 {
			if c.get(&k, now, 0).refresh.Load() <= now.UnixNano() {
				n++
			}
		}
		return n
	}
	for _, tt := range []struct {
		after time.Duration
		want  int
	}{{0, 0}, {time.Minute, 1}, {61 * time.Second, 0}, {89 * time.Second, 0}, {90 * time.Second, 1}, {91 * time.Second, 0}, {30 * time.Minute, 1}} {
		if got := due(now.Add(tt.after)); got != tt.want {
			t.Errorf("after %v: %d of three were told to renew it, want %d", tt.after, got, tt.want)
		}
	}
}

// What is due is renewed if it was used, returned again while that does not
// happen, and forgotten when it has expired.
func TestCacheSweep(t *testing.T) {
	c := newTokenCache(10)
	now := time.Now()
	used, idle, long := cacheKey{tenant: contoso, asked: "a\n\n"}, cacheKey{tenant: adatum}, cacheKey{tenant: litware}
	for k, life := range map[cacheKey]time.Duration{used: time.Hour, idle: time.Hour, long: 24 * time.Hour} {
		tok := lives(life, now)
		tok.Fingerprint = strings.Repeat("ab", 32)
		tok.refresh.Store(now.Add(life * 3 / 4).UnixNano())
		c.put(k, tok, now)
	}
	c.get(&used, now, 0)
	c.get(&long, now, 0)
	times := make(map[TenantID][]time.Duration)
	for after := time.Duration(0); after < 25*time.Hour; after += time.Second {
		if after == 58*time.Minute {
			c.get(&idle, now.Add(after), 0) // late, but it is used
		}
		for _, r := range c.sweep(now.Add(after)) {
			times[r.key.tenant] = append(times[r.key.tenant], after)
			if r.fingerprint != strings.Repeat("ab", 32) || r.key.tenant == contoso && r.key != used {
				t.Fatalf("got %+v", r)
			}
		}
		if _, ok := times[contoso]; after == 50*time.Minute && !ok {
			t.Fatal("a token that was used did not come")
		}
		if after == time.Hour+2*time.Second && c.len() != 1 {
			t.Errorf("after %v there are %d tokens, want 1", after, c.len())
		}
	}
	first := func(id TenantID) time.Duration { return append(times[id], 0)[0].Round(time.Minute) }
	if first(contoso) != 45*time.Minute || first(adatum) != 58*time.Minute || first(litware) != 18*time.Hour {
		t.Errorf("first due after %v, %v and %v, want 45m, 58m and 18h", first(contoso), first(adatum), first(litware))
	}
	if n := len(times[contoso]); n < 25 || n > 31 {
		t.Errorf("a token that nobody renewed came %d times in a quarter of an hour", n)
	}
	if c.len() != 0 {
		t.Errorf("%d tokens are left that have expired", c.len())
	}
}

func TestAskedKey(t *testing.T) {
	seen := make(map[string]string)
	for _, tt := range []struct {
		scopes []Scope
		claims string
	}{{nil, ""}, {[]Scope{"a"}, ""}, {[]Scope{"a", "b"}, ""}, {[]Scope{"ab"}, ""}, {nil, "a"}, {[]Scope{"a"}, "b"}, {nil, "ab"}, {[]Scope{"a", "b"}, "c"}} {
		k := cacheKey{asked: askedKey(tt.scopes, tt.claims)}
		this := fmt.Sprintf("%q %q", tt.scopes, tt.claims)
		if other, ok := seen[k.asked]; ok {
			t.Errorf("%s and %s share a key", this, other)
		}
		seen[k.asked] = this
		if scopes, claims := k.asks(); !slices.Equal(scopes, tt.scopes) || claims != tt.claims {
			t.Errorf("%s came back as %q %q", this, scopes, claims)
		}
	}
}

func TestCacheHitAllocatesNothing(t *testing.T) {
	c := newTokenCache(100)
	now := time.Now()
	k := cacheKey{tenant: contoso, audience: graph}
	c.put(k, lives(time.Hour, now), now)
	n := testing.AllocsPerRun(100, func() {
		if e, ok := c.hit(&k, now, 0); !ok || cmp.Compare(e.access(), "token") != 0 {
			t.Fatal("miss")
		}
	})
	if n != 0 {
		t.Errorf("a hit allocates %v times", n)
	}
}
