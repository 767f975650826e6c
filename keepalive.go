package mandate

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"time"

	"golang.org/x/sync/errgroup"
)

// KeepAlive says how grants that nobody asks for are kept from lapsing: a
// refresh token that is not redeemed for ninety days is dead, unless the
// tenant's policy makes that shorter.
type KeepAlive struct {
	Schedule Schedule // nil keeps nothing alive

	// Window is after how long without a redemption a refresh token lapses.
	// Zero means 90 days, Entra's own.
	Window time.Duration

	// Every is how long a grant may go without a redemption. Zero means a
	// tenth of Window; more than half of it is refused, so that weeks of
	// failures are survived.
	Every time.Duration

	// PerMinute bounds the redemptions of each replica. Zero means 60.
	PerMinute int
}

const (
	// aliveTick is how often what is due is looked for.
	aliveTick = time.Minute

	// aliveAtOnce is how many grants are redeemed at a time.
	aliveAtOnce = 4

	// aliveLease is how long a claimed grant is left to the replica that
	// claimed it.
	aliveLease = 5 * time.Minute

	// retryAlive is when a first failure is tried again; then twice as long,
	// and so on, up to a day.
	retryAlive = 15 * time.Minute
)

// aliveCaller is the caller in the records of the keep-alive.
const aliveCaller CallerID = "mandate:keep-alive"

// Check fills in what is zero, and reports what is out of range.
func (k *KeepAlive) Check() error {
	k.Window = cmp.Or(k.Window, 90*24*time.Hour)
	k.Every = cmp.Or(k.Every, k.Window/10)
	k.PerMinute = cmp.Or(k.PerMinute, 60)
	switch {
	case k.Window < 0 || k.Every <= 0 || k.Every > k.Window/2:
		return Invalid("keep_alive.every", "must be at most half of the window of %v", k.Window)
	case k.PerMinute < 1:
		return Invalid("keep_alive.per_minute", "must be at least 1")
	}
	return nil
}

// keepAlive looks for grants that are due until ctx is done.
func (b *Broker) keepAlive(ctx context.Context) {
	for {
		if err := b.keepDueAlive(ctx, b.cfg.KeepAlive.PerMinute); err != nil && ctx.Err() == nil {
			b.cfg.Log.Warn("keep-alive", "err", err)
		}
		select {
		case <-time.After(jitter(aliveTick)):
		case <-ctx.Done():
			return
		}
	}
}

// keepDueAlive redeems at most n grants that are due. The most overdue come
// first, and one that failed is due later, so none starves another.
func (b *Broker) keepDueAlive(ctx context.Context, n int) error {
	now := time.Now()
	due, err := b.cfg.KeepAlive.Schedule.Due(ctx, now, n)
	if err != nil {
		return fmt.Errorf("find grants that are due: %w", err)
	}
	var group errgroup.Group
	group.SetLimit(aliveAtOnce)
	for _, g := range due {
		group.Go(func() error { return b.keepGrantAlive(ctx, g) })
	}
	return group.Wait()
}

// keepGrantAlive redeems g unless another replica does or somebody's request
// just did, and notes when it is due again.
func (b *Broker) keepGrantAlive(ctx context.Context, g Grant) error {
	ctx = context.WithoutCancel(ctx) // what is begun is ended; each step has its own end
	s := b.cfg.KeepAlive.Schedule
	if mine, err := s.Claim(ctx, g, time.Now().Add(aliveLease)); err != nil || !mine {
		return err
	}
	if fresh := g.Redeemed.Add(b.cfg.KeepAlive.Every); fresh.After(time.Now()) {
		b.tellAlive(ctx, &g, nil)
		return s.Attempted(ctx, g, fresh, "")
	}
	err := b.redeemAlive(ctx, g)
	if err == nil {
		b.stats.alive.add("ok")
		b.tellAlive(ctx, &g, nil)
		return s.Attempted(ctx, g, spread(time.Now(), b.cfg.KeepAlive.Every), "")
	}
	if errors.Is(err, ErrUnavailable) || errors.Is(err, ErrSuperseded) {
		b.stats.alive.add("later")
		return err // not the grant's failure; it is due again when the claim ends
	}
	b.stats.alive.add("failed")
	b.tellAlive(ctx, &g, err)
	pause := min(retryAlive<<min(g.Failures, 7), 24*time.Hour, b.cfg.KeepAlive.Every)
	return errors.Join(err, s.Attempted(ctx, g, spread(time.Now(), pause), err.Error()))
}

// redeemAlive redeems g at the partner's own tenant, where a new refresh token
// comes from, whatever is in any cache. Nobody gets the access token.
func (b *Broker) redeemAlive(ctx context.Context, g Grant) error {
	epoch, err := b.cfg.Epoch.Epoch()
	if err != nil {
		return err
	}
	if !time.Now().Before(g.Until) {
		return fmt.Errorf("%w: the grant ended on %s", ErrNoGrant, g.Until.UTC().Format(time.DateOnly))
	}
	if len(g.Audiences) == 0 {
		return fmt.Errorf("%w: the grant names no audience", ErrNoGrant)
	}
	r := Record{
		Kind: KindDecided, Request: rand.Text(), Epoch: epoch, Caller: aliveCaller, Purpose: "keep-alive",
		Grant: &g.Key, Generation: g.Generation, Tenant: g.Key.Partner, Audience: g.Audiences[0].Audience,
	}
	if _, err := b.cfg.Audit.Record(ctx, r); err != nil {
		return fmt.Errorf("record decision: %w", err)
	}
	t, err := b.await(ctx, flight{
		redemption: Redemption{Key: g.Key, Tenant: g.Key.Partner, Audience: g.Audiences[0].Audience},
		generation: g.Generation, since: g.Since, epoch: epoch, alive: true,
	})
	r.Kind = KindRefreshed
	if err != nil {
		r.Kind, r.Reason = KindFailed, err.Error()
	} else {
		r.Granted, r.Fingerprint, r.UTI, r.Correlation, r.Expires = t.Scopes, t.Fingerprint, t.UTI, t.CorrelationID, t.Expires
	}
	_, rerr := b.cfg.Audit.Record(ctx, r)
	return errors.Join(err, rerr)
}

// spread is a time after from, a tenth earlier or later by chance, so that
// grants of one day are not for ever due together.
func spread(from time.Time, after time.Duration) time.Time { return from.Add(jitter(after)) }

func jitter(d time.Duration) time.Duration {
	return d*9/10 + time.Duration(mathrand.Int64N(int64(d)/5+1))
}
