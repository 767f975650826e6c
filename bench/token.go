package main

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/audit"
)

// tokenCase is [mandate.Broker.Token] whole, on a hit: decision, cache,
// comparison with the rule, record and receipt, with fakes in memory.
var tokenCase = benchCase{
	rows: []string{"G1/token-memory", "G1/token-memory-allocs"},
	run:  runToken,
}

const (
	manyPartners = 10_000 // three audiences each
	slice        = 10_000 // look-ups in a round
)

func runToken(ctx context.Context, e *env) ([]row, error) {
	w, err := newWorld(manyPartners, new(memoryRecorder))
	if err != nil {
		return nil, err
	}
	e.say("G1/token-memory: filling the cache")
	if err := w.warm(ctx); err != nil {
		return nil, err
	}
	floor := newFloor(w.requests)
	v, err := e.interleave(ctx, "G1/token-memory", choose(e, 31, 11),
		func(ctx context.Context) (float64, error) { return w.hits(ctx, slice) },
		func(context.Context) (float64, error) { return floor.hits(slice) })
	if err != nil {
		return nil, err
	}
	allocs := testing.AllocsPerRun(1000, func() { _, err = w.broker.Token(ctx, w.requests[0]) })
	return []row{
		compare("G1/token-memory", "us", v[0], v[1]).report(),
		row{Name: "G1/token-memory-allocs", Value: number(allocs), Unit: "allocs", Floor: none, Ratio: none}.report(),
	}, err
}

// hits asks for n random tokens and returns the microseconds that one takes.
func (w *world) hits(ctx context.Context, n int) (float64, error) {
	order := rand.Perm(len(w.requests))[:min(n, len(w.requests))]
	before, start := w.entra.calls.Load(), time.Now()
	for _, i := range order {
		if _, err := w.broker.Token(ctx, w.requests[i]); err != nil {
			return 0, err
		}
	}
	took := time.Since(start)
	if w.entra.calls.Load() != before {
		return 0, fmt.Errorf("some of the hits were none")
	}
	return perOperation(took, len(order)), nil
}

func perOperation(d time.Duration, n int) float64 {
	return float64(d) / float64(time.Microsecond) / float64(n)
}

// A floorCache is what one writes in ten minutes: 64 maps behind locks, keys of
// strings, and a look at the clock. The token cache alone is measured beside
// the same.
type floorCache struct {
	keys  []floorKey
	shard [64]struct {
		mu  sync.RWMutex // guards all
		all map[floorKey]*floorToken
	}
}

type floorKey struct{ partner, tenant, audience string }

type floorToken struct {
	token   string
	expires time.Time
}

func (k *floorKey) shard() uint {
	h := uint(len(k.audience))
	for i := range 8 {
		h = h*31 + uint(k.tenant[i])
	}
	return h & 63
}

func newFloor(requests []mandate.Request) *floorCache {
	c := new(floorCache)
	for i := range c.shard {
		c.shard[i].all = make(map[floorKey]*floorToken)
	}
	for i := range requests {
		r := &requests[i]
		k := floorKey{r.Partner.Key.Partner.String(), r.Tenant.String(), string(r.Audience)}
		c.keys = append(c.keys, k)
		c.shard[k.shard()].all[k] = &floorToken{"token", time.Now().Add(time.Hour)}
	}
	return c
}

func (c *floorCache) get(k *floorKey, now time.Time) (string, bool) {
	s := &c.shard[k.shard()]
	s.mu.RLock()
	t := s.all[*k]
	s.mu.RUnlock()
	if t == nil || !t.expires.After(now) {
		return "", false
	}
	return t.token, true
}

func (c *floorCache) hits(n int) (float64, error) {
	order := rand.Perm(len(c.keys))[:min(n, len(c.keys))]
	start := time.Now()
	for _, i := range order {
		if _, ok := c.get(&c.keys[i], time.Now()); !ok {
			return 0, fmt.Errorf("the floor missed")
		}
	}
	return perOperation(time.Since(start), len(order)), nil
}

// tokenDiskCase is the same with the real audit log on a disk and 64 callers,
// whose records are flushed together.
var tokenDiskCase = benchCase{
	rows: []string{"G1/token-disk"},
	run:  runTokenDisk,
}

func runTokenDisk(ctx context.Context, e *env) (rows []row, err error) {
	err = withAudit(func(log *audit.Log, dir string) error {
		w, err := newWorld(1000, log)
		if err != nil {
			return err
		}
		e.say("G1/token-disk: filling the cache")
		if err := w.warm(ctx); err != nil {
			return err
		}
		floor, err := newDiskFloor(dir, log)
		if err != nil {
			return err
		}
		defer floor.file.Close()
		each := choose(e, 100, 50)
		v, err := e.interleave(ctx, "G1/token-disk", choose(e, 21, 9),
			func(ctx context.Context) (float64, error) { return w.hitsTogether(ctx, each) },
			func(context.Context) (float64, error) { return floor.append(each) })
		rows = []row{compare("G1/token-disk", "us", v[0], v[1]).report()}
		return err
	})
	return rows, err
}

// hitsTogether lets 64 callers ask for each random tokens, and returns the
// microseconds of wall time for one.
func (w *world) hitsTogether(ctx context.Context, each int) (float64, error) {
	start := time.Now()
	err := concurrently(callers, func(int) error {
		for range each {
			if _, err := w.broker.Token(ctx, w.requests[rand.IntN(len(w.requests))]); err != nil {
				return err
			}
		}
		return nil
	})
	return perOperation(time.Since(start), callers*each), err
}

// A diskFloor appends finished lines, 64 with every flush: what durable
// records cost if nothing else did.
type diskFloor struct {
	file  *os.File
	batch []byte
}

// newDiskFloor makes a floor whose lines are as long as log's.
func newDiskFloor(dir string, log *audit.Log) (*diskFloor, error) {
	last, err := log.Last(1)
	if err != nil {
		return nil, err
	}
	file, err := os.OpenFile(filepath.Join(dir, "floor"), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	return &diskFloor{file, bytes.Repeat(append(last[0], '\n'), callers)}, err
}

func (f *diskFloor) append(batches int) (float64, error) {
	start := time.Now()
	for range batches {
		if _, err := f.file.Write(f.batch); err != nil {
			return 0, err
		}
		if err := f.file.Sync(); err != nil {
			return 0, err
		}
	}
	return perOperation(time.Since(start), batches*callers), nil
}
