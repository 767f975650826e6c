package mandate

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
)

// keepCustomers refreshes the lists that are due until ctx is done.
func (b *Broker) keepCustomers(ctx context.Context) {
	for {
		select {
		case <-time.After(jitter(customersTick)):
		case <-ctx.Done():
			return
		}
		if err := b.refreshDue(ctx, b.cfg.Customers.PerMinute*int(customersTick/time.Minute)); err != nil && ctx.Err() == nil {
			b.cfg.Log.Warn("refresh customers", "err", err)
		}
	}
}

// refreshDue refreshes at most n lists that are due. The most overdue come
// first, and one that failed is due later, so none starves another.
func (b *Broker) refreshDue(ctx context.Context, n int) error {
	due, err := b.cfg.Customers.Register.Due(ctx, time.Now(), n)
	if err != nil {
		return fmt.Errorf("find lists that are due: %w", err)
	}
	var group errgroup.Group
	group.SetLimit(customersAtOnce)
	for _, d := range due {
		group.Go(func() error {
			if ctx.Err() != nil {
				return nil // what is not begun is due again after the next start
			}
			epoch, err := b.cfg.Epoch.Epoch()
			if err != nil {
				return err
			}
			// Whoever asks for a customer meanwhile waits for the same.
			_, err = b.renewRoll(ctx, d.Key, epoch, customersPause)
			return err
		})
	}
	return group.Wait()
}

// refreshCustomers does the refresh that was claimed. What goes wrong at
// Microsoft's is noted and is no error here; the list stays as it was.
func (b *Broker) refreshCustomers(ctx context.Context, d CustomerDue, failures int) error {
	began := time.Now()
	asking, cancel := context.WithTimeout(ctx, customersTimeout)
	defer cancel()
	defer context.AfterFunc(b.ending, cancel)()
	sources, found, err := b.askCustomers(asking, d.Key)
	for n := 1; n < rounds && errors.Is(err, ErrSuperseded); n++ {
		sources, found, err = b.askCustomers(asking, d.Key)
	}
	c := &b.cfg.Customers
	if err == nil {
		err = c.Register.Replace(ctx, d.Key, CustomerRefresh{
			Attempt: d.Attempt, Began: began, Next: spread(time.Now(), c.Every), Sources: sources, Customers: found,
		})
		if err == nil {
			b.stats.customers.add("ok")
			return nil
		}
	}
	pause := min(retryCustomers<<min(failures, 8), c.Every)
	if errors.Is(err, ErrNoGrant) {
		b.stats.customers.add("no_grant") // a partner that was only invited is nobody's trouble
		pause = c.Every
	} else {
		b.stats.customers.add("failed")
		b.cfg.Log.Warn("refresh customers", "partner", d.Key.Partner, "err", err)
	}
	return c.Register.Failed(ctx, d.Key, d.Attempt, spread(time.Now(), pause), err.Error())
}

// askCustomers asks every source that the partner's consent covers, and returns
// who was asked and what they told. One failure is the failure of it all: whom
// the others do not know would look gone.
func (b *Broker) askCustomers(ctx context.Context, k GrantKey) (asked []string, found []Customer, err error) {
	epoch, err := b.cfg.Epoch.Epoch()
	if err == nil {
		err = b.locked()
	}
	if err != nil {
		return nil, nil, err
	}
	g, err := b.headOf(ctx, k, epoch)
	if err != nil {
		return nil, nil, err
	}
	all := make(map[TenantID]Customer)
	for _, s := range b.cfg.Customers.Directory.Sources(k) {
		if !s.consented(&g) {
			continue
		}
		told, err := b.askSource(ctx, &g, epoch, s)
		if err != nil {
			return nil, nil, fmt.Errorf("%s: %w", s.Detail, err)
		}
		asked = append(asked, s.Name)
		for _, c := range told {
			if c.Tenant != k.Partner {
				c.Sources = []string{s.Name}
				all[c.Tenant] = all[c.Tenant].and(c)
			}
		}
	}
	if len(asked) == 0 {
		return nil, nil, errors.New("the partner's consent covers neither Partner Center nor its delegated admin relationships; invite it again, for an audience that tells of customers")
	}
	return asked, slices.Collect(maps.Values(all)), nil
}

// consented reports whether the grant reaches the source. What a consent does
// not cover is known beforehand, so that a refusal in spite of it is a failure,
// and never an empty list.
func (s *CustomerSource) consented(g *Grant) bool {
	for _, a := range g.Audiences {
		if a.Audience == s.Audience {
			return len(s.Scopes) == 0 || slices.ContainsFunc(a.Scopes, func(has Scope) bool {
				return slices.ContainsFunc(s.Scopes, func(want Scope) bool { return strings.EqualFold(has, want) })
			})
		}
	}
	return false
}

// and returns what two sources, or one source twice, told of a customer.
func (c Customer) and(o Customer) Customer {
	if c.Tenant.IsZero() {
		return o
	}
	if o.Relationship != "" && (c.Relationship == "" || o.later(&c)) {
		c.Relationship, c.Ends, c.Extends = o.Relationship, o.Ends, o.Extends
	}
	if c.Name == "" {
		c.Name = o.Name
	}
	if c.Domain == "" {
		c.Domain = o.Domain
	}
	c.Sources = append(slices.Clone(c.Sources), o.Sources...)
	slices.Sort(c.Sources)
	c.Sources = slices.Compact(c.Sources)
	return c
}

// later reports whether c's relationship ends later than o's.
func (c *Customer) later(o *Customer) bool {
	if c.Extends != o.Extends {
		return c.Extends
	}
	return c.Ends.After(o.Ends)
}

// askSource asks one source.
func (b *Broker) askSource(ctx context.Context, g *Grant, epoch int64, s CustomerSource) (told []Customer, err error) {
	err = b.runErrand(ctx, g, epoch, errand{customersCaller, customersPurpose, s.Audience, s.Detail}, func(token Secret) (err error) {
		told, err = b.cfg.Customers.Directory.Customers(ctx, g.Key, s.Name, token)
		return err
	})
	return told, err
}

// RefreshCustomers refreshes the list of a partner's customers now, or waits
// for the refresh that is under way, and returns how it stands. If refreshing
// failed the standing says why.
func (b *Broker) RefreshCustomers(ctx context.Context, p Partner, by By) (CustomerStanding, error) {
	if b.cfg.Customers.Register == nil {
		return CustomerStanding{}, fmt.Errorf("%w: this server keeps no lists of customers", ErrNotFound)
	}
	rec := Record{
		Detail: "refresh the list of customers", Caller: by.Caller, Address: by.Address, Ticket: by.Ticket,
		Partner: p.Name, Grant: &p.Key, Tenant: p.Key.Partner,
	}
	var r *roll
	_, err := Change(ctx, b.cfg.Audit, b.cfg.Epoch, rec, func() error {
		epoch, err := b.cfg.Epoch.Epoch()
		if err == nil {
			r, err = b.renewRoll(ctx, p.Key, epoch, 0)
		}
		return err
	})
	if err != nil {
		return CustomerStanding{}, err
	}
	return r.standing, nil
}
