package mandate

import (
	"context"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"
)

// A roll is the list of one partner's customers as this replica knows it. It is
// never changed.
type roll struct {
	epoch    int64 // in which it was read
	standing CustomerStanding
	tenants  map[TenantID]struct{}
}

// has reports whether tenant is a customer, as far as the list is young enough
// to say.
func (r *roll) has(tenant TenantID, maxAge time.Duration, now time.Time) bool {
	if r.standing.stale(maxAge, now) {
		return false
	}
	_, ok := r.tenants[tenant]
	return ok
}

// rolls are the lists that this replica knows.
type rolls struct {
	mu  sync.RWMutex // guards all
	all map[GrantKey]*roll

	flight singleflight.Group // reads and refreshes, for everybody who waits for the same
}

func (r *rolls) get(k GrantKey) *roll {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.all[k]
}

func (r *rolls) put(k GrantKey, known *roll) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.all == nil {
		r.all = make(map[GrantKey]*roll)
	}
	r.all[k] = known
}

// customer returns a [*DeniedError] unless the request is for a customer of its
// partner, or for the partner's own tenant. Only a tenant that is not on the
// list, or a list from before the last change of security state, costs more
// than a look at memory.
func (a *attempt) customer(ctx context.Context) error {
	c := &a.cfg.Customers
	if c.Register == nil || a.req.OwnTenant() {
		return nil
	}
	k, tenant := a.req.Partner.Key, a.req.Tenant
	if r := a.rolls.get(k); r != nil && r.epoch == a.epoch && r.has(tenant, c.MaxAge, time.Now()) {
		return nil
	}
	ctx, cancel := context.WithTimeoutCause(ctx, a.cfg.Timeout, errStillListing)
	defer cancel()
	r, err := a.readRoll(ctx, k, a.epoch)
	if err != nil || r.has(tenant, c.MaxAge, time.Now()) {
		return err
	}
	if r, err = a.renewRoll(ctx, k, a.epoch, customersPause); err != nil || r.has(tenant, c.MaxAge, time.Now()) {
		return err
	}
	a.decision.Allowed, a.decision.Reason = false, r.standing.unserved(a.req.Partner.Name, tenant, c.MaxAge, time.Now())
	return &DeniedError{a.decision}
}

// errStillListing is for callers who wait for a list that takes long.
var errStillListing = fmt.Errorf("%w: the partner's customers are still being listed", ErrUnavailable)

// readRoll returns the list as it is stored, because another replica may have
// refreshed it. Its members are read only if they are others than before.
func (b *Broker) readRoll(ctx context.Context, k GrantKey, epoch int64) (*roll, error) {
	v, err := b.rolls.share(ctx, b.cfg.Timeout, fmt.Sprintf("read %+v %d", k, epoch), func(ctx context.Context) (any, error) {
		known := b.rolls.get(k)
		s, err := b.cfg.Customers.Register.Standing(ctx, k)
		if err != nil {
			return nil, err
		}
		next := &roll{epoch: epoch, standing: s}
		if known != nil && known.standing.Version == s.Version && !known.standing.Altered {
			next.tenants = known.tenants
		} else if next.standing, next.tenants, err = b.cfg.Customers.Register.Members(ctx, k); err != nil {
			return nil, err
		}
		if next.standing.Altered {
			b.cfg.Log.Error("customers: "+next.standing.Fault, "partner", k.Partner)
		}
		b.rolls.put(k, next)
		return next, nil
	})
	if err != nil {
		return nil, fmt.Errorf("read the list of customers: %w", err)
	}
	return v.(*roll), nil
}

// renewRoll refreshes the list, unless that was begun less than pause ago or
// another replica is at it, and returns what is stored then. That refreshing
// failed is no error here: the standing says so.
func (b *Broker) renewRoll(ctx context.Context, k GrantKey, epoch int64, pause time.Duration) (*roll, error) {
	_, err := b.rolls.share(ctx, customersLease, fmt.Sprintf("renew %+v %v", k, pause), func(ctx context.Context) (any, error) {
		b.background.Add(1)
		defer b.background.Done()
		s, err := b.cfg.Customers.Register.Standing(ctx, k)
		if err != nil {
			return nil, err
		}
		now := time.Now()
		if !s.Running(now) && now.Sub(s.Attempted) >= pause {
			mine, err := b.cfg.Customers.Register.Claim(ctx, k, s.Attempt, now.Add(customersLease))
			if err != nil {
				return nil, err
			}
			if mine {
				return nil, b.refreshCustomers(ctx, CustomerDue{k, s.Attempt + 1}, s.Failures)
			}
		}
		return nil, b.othersRefresh(ctx, k)
	})
	if err != nil {
		return nil, fmt.Errorf("refresh the list of customers: %w", err)
	}
	return b.readRoll(ctx, k, epoch)
}

// othersRefresh waits while another replica refreshes the list.
func (b *Broker) othersRefresh(ctx context.Context, k GrantKey) error {
	for {
		s, err := b.cfg.Customers.Register.Standing(ctx, k)
		if err != nil || !s.Running(time.Now()) {
			return err
		}
		select {
		case <-time.After(200 * time.Millisecond):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// share does something once for everybody who asks for the same while it is
// done. It outlives those who give up, and has limit for itself.
func (r *rolls) share(ctx context.Context, limit time.Duration, what string, do func(context.Context) (any, error)) (any, error) {
	done := r.flight.DoChan(what, func() (any, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), limit)
		defer cancel()
		return do(ctx)
	})
	select {
	case out := <-done:
		return out.Val, out.Err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}
