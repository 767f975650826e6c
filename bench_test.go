package mandate

import (
	"flag"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"
)

var (
	benchPartners = flag.Int("bench.partners", 10_000, "partners in the cache, three audiences each")
	benchRounds   = flag.Int("bench.rounds", 21, "interleaved rounds")
)

// floorKey and floorCache are what a good engineer writes in ten minutes: 64
// maps behind RWMutexes, and a look at the clock. BenchmarkCache measures the
// token cache beside it.
type floorKey struct{ partner, tenant, audience string }

type floorToken struct {
	token   string
	expires time.Time
}

type floorCache [64]struct {
	mu sync.RWMutex
	m  map[floorKey]*floorToken
}

func (k *floorKey) shard() uint {
	h := uint(len(k.audience))
	for i := 0; i < 8; i++ {
		h = h*31 + uint(k.tenant[i])
	}
	return h & 63
}

func (c *floorCache) get(k floorKey, now time.Time) (string, bool) {
	s := &c[k.shard()]
	s.mu.RLock()
	t, ok := s.m[k]
	s.mu.RUnlock()
	if !ok || !t.expires.After(now) {
		return "", false
	}
	return t.token, true
}

// BenchmarkCache looks up random keys in the token cache and in the floor, in
// interleaved rounds, and reports the median of each and of their ratio. The
// module in bench runs it and prints the result.
func BenchmarkCache(b *testing.B) {
	const slice = 20_000 // look-ups a round
	n := *benchPartners
	cache, floor := newTokenCache(8*n+1024), new(floorCache)
	for i := range floor {
		floor[i].m = make(map[floorKey]*floorToken)
	}
	keys, floorKeys := fill(n, cache, floor)
	order := make([]int, slice)
	var ours, theirs, ratios []float64
	for b.Loop() {
		ours, theirs, ratios = ours[:0], theirs[:0], ratios[:0]
		for round := range *benchRounds {
			for i := range order {
				order[i] = rand.IntN(len(keys))
			}
			mine := func() time.Duration {
				start := time.Now()
				for _, i := range order {
					if cache.get(&keys[i], time.Now(), time.Minute) == nil {
						b.Fatal("miss")
					}
				}
				return time.Since(start)
			}
			other := func() time.Duration {
				start := time.Now()
				for _, i := range order {
					if _, ok := floor.get(floorKeys[i], time.Now()); !ok {
						b.Fatal("miss")
					}
				}
				return time.Since(start)
			}
			var m, o time.Duration
			if round%2 == 0 { // neither is always the one with the warm cache
				m, o = mine(), other()
			} else {
				o, m = other(), mine()
			}
			ours = append(ours, float64(m.Nanoseconds())/slice)
			theirs = append(theirs, float64(o.Nanoseconds())/slice)
			ratios = append(ratios, float64(m)/float64(o))
		}
	}
	b.ReportMetric(median(ours), "cache-ns")
	b.ReportMetric(median(theirs), "floor-ns")
	b.ReportMetric(median(ratios), "ratio")
	b.ReportMetric(testing.AllocsPerRun(1000, func() { cache.get(&keys[0], time.Now(), 0) }), "cache-allocs")
}

func fill(n int, cache *tokenCache, floor *floorCache) (keys []cacheKey, floorKeys []floorKey) {
	now := time.Now()
	for range n {
		var partner TenantID
		for j := range partner.guid {
			partner.guid[j] = byte(rand.Uint32())
		}
		for j := range 3 {
			a := Audience("https://api-" + strconv.Itoa(j) + ".example.com")
			k := cacheKey{partner: partner, tenant: partner, application: testApp, generation: 1, cloud: "global", audience: a}
			cache.put(k, &cached{Token: Token{Expires: now.Add(time.Hour)}}, now)
			f := floorKey{partner.String(), partner.String(), string(a)}
			floor[f.shard()].m[f] = &floorToken{expires: now.Add(time.Hour)}
			keys, floorKeys = append(keys, k), append(floorKeys, f)
		}
	}
	return keys, floorKeys
}

func median(v []float64) float64 {
	slices.Sort(v)
	return v[len(v)/2]
}
