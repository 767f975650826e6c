// Package keyset keeps the public keys of an issuer: fetched when they are
// needed, and rarely, whatever anybody presents. Who makes up key ids cannot
// make us ask an issuer each time.
//
// It knows neither kinds of keys nor how they are fetched.
package keyset

import (
	"context"
	"errors"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"
)

const (
	// pause is the shortest time between two requests, and retry the one
	// while there are no keys at all.
	pause = time.Minute
	retry = 5 * time.Second

	timeout = 10 * time.Second
)

// ErrUnknown: the issuer does not publish such a key, or had not when it was
// last asked.
var ErrUnknown = errors.New("the key is not one that the issuer publishes")

// A Set is the keys of one issuer. Its methods may be called concurrently.
type Set[K any] struct {
	fetch  func(context.Context) (map[string]K, error)
	life   time.Duration
	flight singleflight.Group

	mu      sync.Mutex // guards what follows
	keys    map[string]K
	fetched time.Time // when keys came
	asked   time.Time // when the last request began
	asking  bool      // it is still under way
	version uint64    // how often keys came
}

// New returns a set whose keys are fetched by fetch, which returns them by id,
// and asked for again when they are older than life.
func New[K any](life time.Duration, fetch func(context.Context) (map[string]K, error)) *Set[K] {
	return &Set[K]{fetch: fetch, life: life}
}

// Version returns a number that changes when keys were fetched.
func (s *Set[K]) Version() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.version
}

// Get returns the key with an id. The error is [ErrUnknown], or tells why there
// are no keys at all.
func (s *Set[K]) Get(ctx context.Context, id string) (K, error) {
	key, ok, ask := s.lookup(id)
	if ask {
		if err := s.refresh(ctx); err != nil && !ok {
			return key, err
		}
		key, ok, _ = s.lookup(id)
	}
	if !ok {
		return key, s.missing()
	}
	return key, nil
}

// lookup returns the key with an id, and whether the issuer should and may be
// asked: because the keys are old or the id is unknown, and the last request
// is long enough ago or is still to be answered.
func (s *Set[K]) lookup(id string) (key K, ok, ask bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	key, ok = s.keys[id]
	wait := pause
	if len(s.keys) == 0 {
		wait = retry
	}
	stale := time.Since(s.fetched) >= s.life
	return key, ok, !ok && s.asking || (!ok || stale) && time.Since(s.asked) >= wait
}

func (s *Set[K]) missing() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.keys) == 0 {
		return errors.New("the last request failed")
	}
	return ErrUnknown
}

// refresh fetches the keys once for everybody who waits; one who hangs up harms
// nobody else.
func (s *Set[K]) refresh(ctx context.Context) error {
	done := s.flight.DoChan("", func() (any, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), timeout)
		defer cancel()
		return nil, s.replace(ctx)
	})
	select {
	case <-ctx.Done():
		return ctx.Err()
	case r := <-done:
		return r.Err
	}
}

// replace replaces the keys by those that are published now. If it fails the
// old ones stay: an outage of the issuer's must not become one of ours.
func (s *Set[K]) replace(ctx context.Context) error {
	if !s.begin() {
		return nil
	}
	keys, err := s.fetch(ctx)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asking = false
	if err != nil {
		return err
	}
	s.keys, s.fetched = keys, time.Now()
	s.version++
	return nil
}

// begin notes a request, or says that one was made just now: by a flight that
// ended between somebody's look-up and this one.
func (s *Set[K]) begin() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if time.Since(s.asked) < retry {
		return false
	}
	s.asked, s.asking = time.Now(), true
	return true
}
