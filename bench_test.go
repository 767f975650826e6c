package mandate

import (
	"flag"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

var (
	benchPartners = flag.Int("bench.partners", 10_000, "partners in the cache, three audiences each")
	benchRounds   = flag.Int("bench.rounds", 21, "interleaved rounds")
	benchTokens   = flag.Int("bench.tokens", 1_000_000, "tokens in the cache and on the wheel where memory and upkeep are measured")
)

// floorKey and floorCache are what a good engineer writes in ten minutes: 64
// maps behind RWMutexes, and a look at the clock. BenchmarkCache measures the
// token cache beside it. The module in bench runs the benchmarks of this file
// and prints what they report.
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

// lookups is how many look-ups are measured at a time.
const lookups = 20_000

// A filled is a cache with three tokens for each of some partners.
type filled struct {
	*tokenCache
	keys []cacheKey
	next [lookups]cacheKey // those that are looked up next
}

func fill(partners, size int) *filled {
	now := time.Now()
	f := &filled{tokenCache: newTokenCache(3 * partners)}
	text := strings.Repeat("a", size)
	for range partners {
		var partner TenantID
		for j := range partner.guid {
			partner.guid[j] = byte(rand.Uint32())
		}
		for j := range 3 {
			k := cacheKey{
				partner: partner, tenant: partner, application: testApp, generation: 1, since: 1, cloud: "global",
				audience: Audience("https://api-" + strconv.Itoa(j) + ".example.com"),
			}
			f.put(k, sample(&k, text, now), now)
			f.keys = append(f.keys, k)
		}
	}
	return f
}

// sample is a token as Entra issues them.
func sample(k *cacheKey, access string, now time.Time) *cached {
	life := time.Hour + time.Duration(rand.Int64N(int64(30*time.Minute)))
	t := &cached{Token: Token{
		Access: NewSecret(access), Expires: now.Add(life), Tenant: k.tenant, Audience: k.audience, Generation: k.generation,
		Scopes: []Scope{"user_impersonation"}, Fingerprint: strings.Repeat("0123456789abcdef", 4),
		UTI: "0123456789abcdefghijkl", CorrelationID: "01234567-89ab-cdef-0123-456789abcdef",
	}}
	t.refresh.Store(now.Add(life * 3 / 4).UnixNano())
	return t
}

// nanoseconds returns how long it takes to look up a random key. The key is at
// hand, as that of a request is.
func (f *filled) nanoseconds() float64 {
	for i := range f.next {
		f.next[i] = f.keys[rand.IntN(len(f.keys))]
	}
	start, n := time.Now(), 0
	for i := range f.next {
		if e, ok := f.hit(&f.next[i], time.Now(), time.Minute); ok && e.access() != "" {
			n++
		}
	}
	took := time.Since(start)
	if n != lookups {
		panic("miss")
	}
	return float64(took) / lookups
}

func newFloorCache(keys []cacheKey) (*floorCache, []floorKey) {
	c := new(floorCache)
	for i := range c {
		c[i].m = make(map[floorKey]*floorToken)
	}
	floorKeys := make([]floorKey, len(keys))
	for i, k := range keys {
		f := floorKey{k.partner.String(), k.tenant.String(), string(k.audience)}
		c[f.shard()].m[f] = &floorToken{token: "token", expires: time.Now().Add(time.Hour)}
		floorKeys[i] = f
	}
	return c, floorKeys
}

// interleave runs two in turns and returns the medians of what each returns,
// and of a's ratio to b's. Neither always comes first.
func interleave(a, b func() float64) (mine, other, ratio float64) {
	var as, bs, ratios []float64
	for round := range *benchRounds + 1 {
		var x, y float64
		if round%2 == 0 {
			x, y = a(), b()
		} else {
			y, x = b(), a()
		}
		if round > 0 { // the first warms up
			as, bs, ratios = append(as, x), append(bs, y), append(ratios, x/y)
		}
	}
	return median(as), median(bs), median(ratios)
}

func median(v []float64) float64 {
	slices.Sort(v)
	return v[len(v)/2]
}

// BenchmarkCache looks up random keys in the token cache and in the floor.
func BenchmarkCache(b *testing.B) {
	f := fill(*benchPartners, 2000)
	floor, floorKeys := newFloorCache(f.keys)
	next := make([]floorKey, lookups)
	var mine, other, ratio float64
	for b.Loop() {
		mine, other, ratio = interleave(f.nanoseconds, func() float64 {
			for i := range next {
				next[i] = floorKeys[rand.IntN(len(floorKeys))]
			}
			start := time.Now()
			for i := range next {
				if _, ok := floor.get(next[i], time.Now()); !ok {
					b.Fatal("miss")
				}
			}
			return float64(time.Since(start)) / lookups
		})
	}
	b.ReportMetric(mine, "cache-ns")
	b.ReportMetric(other, "floor-ns")
	b.ReportMetric(ratio, "ratio")
	b.ReportMetric(testing.AllocsPerRun(1000, func() { f.hit(&f.keys[0], time.Now(), 0) }), "cache-allocs")
}

// BenchmarkCacheGrowth compares random look-ups among ten times as many
// partners as usual with those of one.
func BenchmarkCacheGrowth(b *testing.B) {
	many, one := fill(10**benchPartners, 2000), fill(1, 2000)
	var large, small, ratio float64
	for b.Loop() {
		large, small, ratio = interleave(many.nanoseconds, one.nanoseconds)
	}
	b.ReportMetric(large, "large-ns")
	b.ReportMetric(small, "small-ns")
	b.ReportMetric(ratio, "ratio")
}

// BenchmarkCacheHot lets two goroutines look up the same key, and says how
// many times as much they do as one alone. Beside it stands the same with two
// caches, where nothing is shared: what this machine's processors can do.
func BenchmarkCacheHot(b *testing.B) {
	a, other := fill(1, 2000), fill(1, 2000)
	var together, apart, ratio float64
	for b.Loop() {
		together, apart, ratio = interleave(func() float64 { return speedup(a, a) }, func() float64 { return speedup(a, other) })
	}
	b.ReportMetric(together, "speedup")
	b.ReportMetric(apart, "apart-speedup")
	b.ReportMetric(ratio, "ratio")
}

func speedup(caches ...*filled) float64 {
	alone := throughput(caches[0])
	return throughput(caches...) / alone
}

// throughput returns how many look-ups of their first key caches answer in a
// second, each with a goroutine of its own.
func throughput(caches ...*filled) float64 {
	const slice = 20 * time.Millisecond
	var all sync.WaitGroup
	counts := make([]float64, len(caches))
	for i, c := range caches {
		all.Go(func() {
			k, n, start := c.keys[0], 0, time.Now()
			for now := start; now.Sub(start) < slice; now = time.Now() {
				for range 16 {
					if _, ok := c.hit(&k, now, time.Minute); ok {
						n++
					}
				}
			}
			counts[i] = float64(n) / time.Since(start).Seconds()
		})
	}
	all.Wait()
	sum := 0.0
	for _, n := range counts {
		sum += n
	}
	return sum
}

// BenchmarkCacheMemory fills a cache with tokens of 1,500 to 2,500 bytes, and
// compares the heap with their bytes: when they are first stored, and when as
// many were replaced. It also says how long the garbage collector takes.
func BenchmarkCacheMemory(b *testing.B) {
	for b.Loop() {
		n := *benchTokens
		before := heap()
		c := newTokenCache(n)
		lengths := make([]int32, n)
		before += 4 * float64(n)
		store := func(i int, now time.Time) {
			lengths[i] = int32(1500 + rand.IntN(1001))
			k := cacheKey{
				partner: tenantN(i % 10_000), tenant: tenantN(i), application: testApp, generation: 1, since: 1, cloud: "global",
				audience: []Audience{pc, graph}[i%2],
			}
			c.put(k, sample(&k, longText[:lengths[i]], now), now)
		}
		bytes := func() (sum float64) {
			for _, l := range lengths {
				sum += float64(l)
			}
			return sum
		}
		now := time.Now()
		for i := range n {
			store(i, now)
		}
		b.ReportMetric((heap()-before)/bytes(), "heap-ratio")
		b.ReportMetric(bytes()/float64(n), "token-bytes")
		b.ReportMetric(collection(), "gc-ms")
		for range n {
			store(rand.IntN(n), now)
		}
		b.ReportMetric((heap()-before)/bytes(), "churned-ratio")
		runtime.KeepAlive(c)
	}
}

var longText = strings.Repeat("abcdefghij", 250)

// heap returns how many bytes are alive.
func heap() float64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc)
}

// collection returns how many milliseconds the garbage collector takes for
// everything there is, at best: it wants all processors, and what others do on
// them meanwhile is not its doing.
func collection() float64 {
	best := math.Inf(1)
	for range *benchRounds {
		start := time.Now()
		runtime.GC()
		best = min(best, float64(time.Since(start))/float64(time.Millisecond))
	}
	return best
}

// BenchmarkWheel lets tokens whose times are spread over 90 minutes become due
// and be added again, and looks at how long a second's worth of it takes.
func BenchmarkWheel(b *testing.B) {
	const spread = 90 * 60
	n := *benchTokens
	now := time.Unix(1_000_000, 0)
	before := heap()
	w := newWheel(n, now)
	bytes := (heap() - before) / float64(n)
	for _, id := range rand.Perm(n) {
		w.add(uint32(id), now.Add(time.Duration(rand.Int64N(int64(spread*time.Second)))))
	}
	var ticks []float64
	done := 0
	for b.Loop() {
		for range spread {
			now = now.Add(time.Second)
			start := time.Now()
			for id := range w.due(now) {
				w.add(id, now.Add((spread-1)*time.Second))
				done++
			}
			ticks = append(ticks, float64(time.Since(start))/float64(time.Microsecond))
		}
	}
	tick := median(ticks)
	b.ReportMetric(tick, "tick-us")
	b.ReportMetric(float64(done)/float64(len(ticks))/tick, "millions/s")
	b.ReportMetric(bytes, "bytes")
}
