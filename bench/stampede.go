package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/singleflight"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/audit"
)

// stampedeCase is G8: many requests at the same time for one token that has
// expired.
var stampedeCase = benchCase{
	rows: []string{"G8/upstream-calls", "G8/waiters-p99", "G8/waiters-p99-disk", "G8/first-caller-cancelled"},
	run:  runStampede,
}

const (
	crowd         = 1000 // who ask
	upstreamDelay = 100 * time.Millisecond
)

func runStampede(ctx context.Context, e *env) (rows []row, err error) {
	err = withAudit(func(log *audit.Log, _ string) error {
		memory, err := newStampede(new(memoryRecorder))
		if err != nil {
			return err
		}
		disk, err := newStampede(log)
		if err != nil {
			return err
		}
		floor := new(flights)
		records := func(ctx context.Context) (float64, error) { return recordAll(ctx, log, disk.requests[0]) }
		v, err := e.interleave(ctx, "G8", choose(e, 15, 7), memory.expired, disk.expired, floor.expired, records)
		if err != nil {
			return err
		}
		harmed, err := memory.cancelled(ctx, e, choose(e, 10, 5))
		if err != nil {
			return err
		}
		rows = stampedeRows(max(memory.calls, disk.calls), floor.calls, harmed, v)
		return nil
	})
	return rows, err
}

// stampedeRows judges what was measured: v has the waits in memory, on the
// disk and of the floor, and the time of the records alone.
func stampedeRows(calls, floorCalls, harmed int64, v [][]float64) []row {
	late := &target{"value", "<=", 10}
	once := row{Name: "G8/upstream-calls", Value: number(calls), Unit: "calls", Floor: number(floorCalls), Ratio: number(calls) / number(floorCalls)}
	disk := compare("G8/waiters-p99-disk", "ms", v[1], v[2])
	disk.Note = fmt.Sprintf("the records of %d tokens alone, written at once to the same log, take %v ms", crowd, number(median(v[3])))
	cancelled := row{Name: "G8/first-caller-cancelled", Value: number(harmed), Unit: "harmed", Floor: none, Ratio: none}
	return []row{
		once.judge(&target{"value", "=", 1}, "some of those who waited asked Entra themselves"),
		compare("G8/waiters-p99", "ms", v[0], v[2]).judge(late, "those who waited are let go too slowly"),
		disk.judge(late, "nobody gets the token before its own record is encoded, hashed and flushed"),
		cancelled.judge(&target{"value", "=", 0}, "the first caller hung up, and others got no token"),
	}
}

// recordAll lets a crowd write a record each at the same moment, as everybody
// does who gets a token, and returns the milliseconds until the slowest
// hundredth could go on.
func recordAll(ctx context.Context, log *audit.Log, req mandate.Request) (float64, error) {
	return wait(0, func() error {
		_, err := log.Record(ctx, mandate.Record{
			Kind: mandate.KindIssued, Request: receiptHash[:26], Epoch: 1, Caller: req.Caller, Use: req.Use, Purpose: req.Purpose,
			Partner: req.Partner.Name, Grant: &req.Partner.Key, Generation: 1, Tenant: req.Tenant, Audience: req.Audience,
			Granted: []mandate.Scope{"user_impersonation"}, Rule: "all", Policy: "bench", Reason: "allowed",
			Fingerprint: receiptHash, UTI: "u1", Correlation: "c1", Expires: time.Now().Add(time.Hour),
		})
		return err
	})
}

// A stampede lets a crowd ask a broker for one token, another one each round.
type stampede struct {
	*world
	round int
	calls int64 // upstream, the most in any round
}

// maxStampedes is how many rounds there are tokens for.
const maxStampedes = 100

func newStampede(audit mandate.Recorder) (*stampede, error) {
	w, err := newWorld(maxStampedes, audit)
	return &stampede{world: w}, err
}

// next returns the request of this round. Its token is in the cache, but ends
// too soon to be handed out.
func (s *stampede) next(ctx context.Context) (mandate.Request, error) {
	req := s.requests[3*s.round]
	s.round++
	s.entra.delay.Store(0)
	s.entra.life.Store(int64(time.Second))
	_, err := s.broker.Token(ctx, req)
	s.entra.delay.Store(int64(upstreamDelay))
	s.entra.life.Store(int64(time.Hour))
	s.entra.calls.Store(0)
	select {
	case <-s.entra.started:
	default:
	}
	return req, err
}

// expired is a round: everybody asks at once.
func (s *stampede) expired(ctx context.Context) (float64, error) {
	req, err := s.next(ctx)
	if err != nil {
		return 0, err
	}
	late, err := wait(upstreamDelay, func() error { _, err := s.broker.Token(ctx, req); return err })
	s.calls = max(s.calls, s.entra.calls.Load())
	return late, err
}

// cancelled lets one caller begin, everybody else join, and the first hang up.
// It returns how many of the others got no token.
func (s *stampede) cancelled(ctx context.Context, e *env, rounds int) (harmed int64, err error) {
	for round := range rounds {
		e.say("G8/first-caller-cancelled: round %d of %d", round+1, rounds)
		n, err := s.cancelFirst(ctx)
		if err != nil {
			return 0, err
		}
		harmed += n
		s.calls = max(s.calls, s.entra.calls.Load())
	}
	return harmed, nil
}

func (s *stampede) cancelFirst(ctx context.Context) (int64, error) {
	req, err := s.next(ctx)
	if err != nil {
		return 0, err
	}
	first, hangUp := context.WithCancel(ctx)
	defer hangUp()
	ended := make(chan error, 1)
	go func() { _, err := s.broker.Token(first, req); ended <- err }()
	select {
	case <-s.entra.started: // the redemption is the first caller's
	case err := <-ended:
		return 0, fmt.Errorf("the first caller ended before Entra was asked: %w", err)
	}
	time.AfterFunc(upstreamDelay/2, hangUp)
	var harmed atomic.Int64
	_ = concurrently(crowd-1, func(int) error {
		if _, err := s.broker.Token(ctx, req); err != nil {
			harmed.Add(1)
		}
		return nil
	})
	if err := <-ended; !errors.Is(err, context.Canceled) {
		return 0, fmt.Errorf("the first caller should have been cancelled, but ended with: %v", err)
	}
	return harmed.Load(), ctx.Err()
}

// wait lets a crowd call f at the same moment, and returns by how many
// milliseconds more than delay the slowest hundredth had to wait.
func wait(delay time.Duration, f func() error) (float64, error) {
	waits := make([]time.Duration, crowd)
	start := make(chan struct{})
	var ready sync.WaitGroup
	ready.Add(crowd)
	var begin time.Time
	done := make(chan error, 1)
	go func() {
		done <- concurrently(crowd, func(i int) error {
			ready.Done()
			<-start
			err := f()
			waits[i] = time.Since(begin)
			return err
		})
	}()
	ready.Wait()
	begin = time.Now()
	close(start)
	err := <-done
	return milliseconds(percentile(waits, 99) - delay), err
}

// flights is the floor: golang.org/x/sync/singleflight with a map in front of
// it, which is looked at again inside the flight.
type flights struct {
	group singleflight.Group
	calls int64

	mu     sync.RWMutex // guards tokens
	tokens []string
}

// expired is a round with a key of its own.
func (f *flights) expired(ctx context.Context) (float64, error) {
	key := fmt.Sprint(len(f.tokens))
	var calls atomic.Int64
	late, err := wait(upstreamDelay, func() error {
		if f.has(key) {
			return nil
		}
		done := f.group.DoChan(key, func() (any, error) {
			if f.has(key) {
				return nil, nil
			}
			calls.Add(1)
			err := sleep(ctx, upstreamDelay)
			f.mu.Lock()
			defer f.mu.Unlock()
			f.tokens = append(f.tokens, key)
			return nil, err
		})
		select {
		case r := <-done:
			return r.Err
		case <-ctx.Done():
			return ctx.Err()
		}
	})
	f.calls = max(f.calls, calls.Load())
	return late, err
}

func (f *flights) has(key string) bool {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return slices.Contains(f.tokens, key)
}
