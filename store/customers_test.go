package store

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/internal/database"
)

func customer(n int, change ...func(*mandate.Customer)) mandate.Customer {
	c := mandate.Customer{
		Tenant: tenant(fmt.Sprintf("cccccccc-0000-4000-8000-%012d", n)), Name: fmt.Sprintf("Customer %d", n), Domain: fmt.Sprintf("c%d.example", n),
		Sources: []string{mandate.SourcePartnerCenter},
	}
	for _, f := range change {
		f(&c)
	}
	return c
}

func gdap(ends time.Time) func(*mandate.Customer) {
	return func(c *mandate.Customer) {
		c.Sources, c.Relationship, c.Ends = []string{mandate.SourceGDAP, mandate.SourcePartnerCenter}, "support", ends
	}
}

// refresh claims a partner's list and replaces it.
func refresh(t *testing.T, c *Customers, k mandate.GrantKey, all ...mandate.Customer) {
	t.Helper()
	s, err := c.Standing(t.Context(), k)
	if err != nil {
		t.Fatal(err)
	}
	if ok, err := c.Claim(t.Context(), k, s.Attempt, time.Now().Add(time.Minute)); !ok || err != nil {
		t.Fatalf("claimed: %t, %v", ok, err)
	}
	r := mandate.CustomerRefresh{
		Attempt: s.Attempt + 1, Began: time.Now().Truncate(time.Millisecond), Next: time.Now().Add(time.Hour),
		Sources: []string{mandate.SourcePartnerCenter, mandate.SourceGDAP}, Customers: all,
	}
	if err := c.Replace(t.Context(), k, r); err != nil {
		t.Fatal(err)
	}
}

// storedEpoch reads the epoch, for tests in which time passes that nobody has
// heard from the database in.
func storedEpoch(t *testing.T, db *database.DB) (n int64) {
	t.Helper()
	if err := db.QueryRow(t.Context(), `SELECT epoch FROM head`).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

func TestCustomerLists(t *testing.T) {
	inBubbles(t, func(t *testing.T, s *Store, db *database.DB) {
		addPartners(t, s, contoso, fabrikam)
		c, ctx, k := s.Customers(), t.Context(), contoso.Key
		if st, err := c.Standing(ctx, k); err != nil || st.Attempt != 0 || !st.AsOf.IsZero() {
			t.Errorf("before the first refresh: %+v, %v", st, err)
		}
		due, err := c.Due(ctx, time.Now(), 10)
		if err != nil || len(due) != 2 || due[0].Key != contoso.Key {
			t.Errorf("due: %+v, %v", due, err)
		}
		ends := time.Now().Add(24 * time.Hour).Truncate(time.Millisecond)
		epoch, first := storedEpoch(t, db), time.Now().Truncate(time.Millisecond)
		refresh(t, c, k, customer(1), customer(2, gdap(ends)))
		refresh(t, c, fabrikam.Key, customer(2), customer(3))
		time.Sleep(time.Hour)
		second := time.Now().Truncate(time.Millisecond)
		refresh(t, c, k, customer(1, func(c *mandate.Customer) { c.Name = "A new name" }), customer(2, gdap(ends)), customer(4))
		if e := storedEpoch(t, db); e != epoch {
			t.Errorf("nobody has gone, and the epoch is %d after %d", e, epoch)
		}
		st, all, err := c.List(ctx, k)
		if err != nil || st.Count != 3 || st.Version != 2 || st.Settled != 2 || !st.AsOf.Equal(second) || len(all) != 3 {
			t.Fatalf("%+v, %+v, %v", st, all, err)
		}
		same(t, "a customer", all[1], customer(2, gdap(ends), func(c *mandate.Customer) { c.First, c.Last = first, second }))
		if all[0].Name != "A new name" || !all[0].First.Equal(first) || !all[2].First.Equal(second) {
			t.Errorf("got %+v", all)
		}
		time.Sleep(time.Hour)
		refresh(t, c, k, customer(1), customer(4))
		if e := storedEpoch(t, db); e != epoch+1 {
			t.Errorf("one has gone, and the epoch is %d after %d", e, epoch)
		}
		st, members, err := c.Members(ctx, k)
		if _, in := members[customer(2).Tenant]; err != nil || in || len(members) != 2 || st.Version != 3 {
			t.Errorf("members %v of %+v, %v", members, st, err)
		}
		serving, err := c.Serving(ctx, customer(2).Tenant)
		if err != nil || len(serving) != 2 || !serving[k].Gone || !serving[k].Last.Equal(second) || serving[fabrikam.Key].Gone {
			t.Errorf("serving: %+v, %v", serving, err)
		}
		refresh(t, c, k, customer(1), customer(4))
		if st, _ = c.Standing(ctx, k); st.Version != 3 {
			t.Errorf("the same members, and the version is %d", st.Version)
		}
		refresh(t, c, k, customer(1), customer(2), customer(4)) // it is back
		if _, members, _ = c.Members(ctx, k); len(members) != 3 {
			t.Errorf("members %v", members)
		}
		if all, err := c.Standings(ctx); err != nil || len(all) != 2 || all[k].Count != 3 {
			t.Errorf("standings %+v, %v", all, err)
		}
	})
}

func TestCustomersEnding(t *testing.T) {
	inBubbles(t, func(t *testing.T, s *Store, _ *database.DB) {
		addPartners(t, s, contoso)
		c, now := s.Customers(), time.Now()
		refresh(t, c, contoso.Key, customer(1), customer(2, gdap(now.Add(48*time.Hour))), customer(3, gdap(now.Add(24*time.Hour))),
			customer(4, gdap(now.Add(24*time.Hour)), func(c *mandate.Customer) { c.Extends = true }), customer(5, gdap(now.Add(72*time.Hour))))
		all, err := c.Ending(t.Context(), now.Add(50*time.Hour))
		if of := all[contoso.Key]; err != nil || len(of) != 2 || of[0].Tenant != customer(3).Tenant {
			t.Errorf("got %+v, %v", all, err)
		}
		time.Sleep(time.Hour)
		refresh(t, c, contoso.Key)
		time.Sleep(forgetGone + time.Hour)
		refresh(t, c, contoso.Key)
		if _, all, err := c.List(t.Context(), contoso.Key); err != nil || len(all) != 0 {
			t.Errorf("after a quarter there are %d, %v", len(all), err)
		}
	})
}

// Of many who claim a list one gets it; whoever comes late changes nothing.
func TestCustomersClaim(t *testing.T) {
	each(t, func(t *testing.T, cfg database.Config) {
		s, _ := open(t, cfg)
		c, ctx, k := s.Customers(), t.Context(), contoso.Key
		var claimed atomic.Int64
		var group sync.WaitGroup
		for range 8 {
			group.Go(func() {
				if ok, err := c.Claim(ctx, k, 0, time.Now().Add(time.Hour)); err != nil {
					t.Error(err)
				} else if ok {
					claimed.Add(1)
				}
			})
		}
		group.Wait()
		if n := claimed.Load(); n != 1 {
			t.Fatalf("%d claimed it", n)
		}
		if ok, err := c.Claim(ctx, k, 1, time.Now().Add(time.Hour)); ok || err != nil {
			t.Errorf("claimed while a refresh runs: %t, %v", ok, err)
		}
		if err := c.Failed(ctx, k, 1, time.Now().Add(-time.Second), "throttled\x00\nand\xff so"); err != nil {
			t.Fatal(err)
		}
		st, err := c.Standing(ctx, k)
		if err != nil || st.Failures != 1 || st.Fault != "throttled and so" || st.Settled != 1 || st.Running(time.Now()) {
			t.Errorf("got %+v, %v", st, err)
		}
		refresh(t, c, k, customer(1))
		late := mandate.CustomerRefresh{Attempt: 1, Began: time.Now(), Next: time.Now(), Customers: []mandate.Customer{customer(2)}}
		if err := c.Replace(ctx, k, late); !errors.Is(err, mandate.ErrSuperseded) || errors.Is(err, mandate.ErrUnavailable) {
			t.Errorf("late: %v", err)
		}
		if err := errors.Join(c.Failed(ctx, k, 1, time.Now(), "late")); err != nil {
			t.Error(err)
		}
		st, members, err := c.Members(ctx, k)
		if _, in := members[customer(1).Tenant]; err != nil || !in || len(members) != 1 || st.Fault != "" {
			t.Errorf("got %+v, %v, %v", st, members, err)
		}
		gone, cancel := context.WithCancel(ctx)
		cancel()
		if _, err := c.Standing(gone, k); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
	})
}

// More customers than fit into a statement come and go.
func TestCustomersMany(t *testing.T) {
	each(t, func(t *testing.T, cfg database.Config) {
		s, _ := open(t, cfg)
		c := s.Customers()
		var all []mandate.Customer
		for i := range 2*chunk + 10 {
			all = append(all, customer(i+1))
		}
		refresh(t, c, contoso.Key, all...)
		if _, members, err := c.Members(t.Context(), contoso.Key); err != nil || len(members) != len(all) {
			t.Errorf("%d members, %v", len(members), err)
		}
		refresh(t, c, contoso.Key, all[:5]...)
		if _, members, err := c.Members(t.Context(), contoso.Key); err != nil || len(members) != 5 {
			t.Errorf("%d members, %v", len(members), err)
		}
	})
}

// Whoever can write the database makes no tenant a partner's customer, no list
// younger than it is, and brings no older list back: it counts for nothing, the
// row is named, and refreshing it puts it right.
func TestDatabaseWriterCustomers(t *testing.T) {
	each(t, func(t *testing.T, cfg database.Config) {
		s, db := running(t, cfg)
		addPartners(t, s, contoso, fabrikam)
		c, ctx, k := s.Customers(), t.Context(), contoso.Key
		refresh(t, c, fabrikam.Key, customer(7))
		refresh(t, c, k, customer(1), customer(2))
		var older struct {
			version, members, sealed, asOf int64
			tenants, seal                  []byte
		}
		if err := db.QueryRow(ctx, `SELECT version, members, sealed, as_of, tenants, seal FROM customer_lists WHERE`+ofKey, keyed(k)...).
			Scan(&older.version, &older.members, &older.sealed, &older.asOf, &older.tenants, &older.seal); err != nil {
			t.Fatal(err)
		}
		refresh(t, c, k, customer(1))
		exec := func(query string, args ...any) {
			t.Helper()
			if n, err := db.Exec(ctx, query, args...); err != nil || n == 0 {
				t.Fatalf("%s: %d, %v", query, n, err)
			}
		}
		insert := func(n int) {
			exec(`INSERT INTO customers (cloud, application, partner, tenant, name, domain, sources, relationship, extends, first_seen) VALUES ($1, $2, $3, $4, '', '', '', '', 0, 0)`,
				keyed(k, customer(n).Tenant.String())...)
		}
		for _, tt := range []struct {
			name string
			do   func()
			want string
		}{
			{"inserted", func() { insert(8) }, "rows of customers were inserted"},
			{"moved from another partner", func() {
				exec(`UPDATE customers SET partner = $1 WHERE partner = $2`, k.Partner.String(), fabrikam.Key.Partner.String())
			}, "rows of customers were inserted"},
			{"brought back", func() { exec(`UPDATE customers SET gone = NULL WHERE tenant = $1`, customer(2).Tenant.String()) }, "rows of customers were inserted"},
			{"deleted", func() { exec(`UPDATE customers SET gone = 1 WHERE tenant = $1`, customer(1).Tenant.String()) }, "rows of customers were inserted, changed or deleted; 0 are there"},
			{"made young", func() { exec(`UPDATE customer_lists SET as_of = as_of + 3600000 WHERE`+ofKey, keyed(k)...) }, "it was changed"},
			{"another version", func() { exec(`UPDATE customer_lists SET version = version + 1 WHERE`+ofKey, keyed(k)...) }, "it was changed"},
			{"another hash", func() {
				insert(9)
				exec(`UPDATE customer_lists SET tenants = $4 WHERE`+ofKey, keyed(k, sumTenants(map[mandate.TenantID]bool{customer(1).Tenant: true, customer(9).Tenant: true}))...)
			}, "it was changed"},
			{"another partner's seal", func() {
				exec(`UPDATE customer_lists SET seal = (SELECT seal FROM customer_lists WHERE partner = $4) WHERE`+ofKey, keyed(k, fabrikam.Key.Partner.String())...)
			}, "it was changed"},
			{"without a seal", func() { exec(`UPDATE customer_lists SET seal = NULL WHERE`+ofKey, keyed(k)...) }, "of an earlier version"},
			{"an older list", func() {
				exec(`UPDATE customers SET gone = NULL WHERE tenant = $1`, customer(2).Tenant.String())
				exec(`UPDATE customer_lists SET version = $4, members = $5, sealed = $6, as_of = $7, tenants = $8, seal = $9 WHERE`+ofKey,
					keyed(k, older.version, older.members, older.sealed, older.asOf, older.tenants, older.seal)...)
			}, "an older one that was put back (replayed)"},
		} {
			tt.do()
			st, members, err := c.Members(ctx, k)
			if err != nil || len(members) > 0 && st.Altered || !st.AsOf.IsZero() || !strings.Contains(st.Fault, tt.want) {
				t.Errorf("%s: %+v, %d members, %v; want %q", tt.name, st, len(members), err, tt.want)
			}
			if st.Altered != (tt.want != "of an earlier version") || st.Altered && !strings.Contains(st.Fault, `row "`+k.Cloud+`/`+k.Application.String()+`/`+k.Partner.String()+`" of customer_lists`) {
				t.Errorf("%s: %+v", tt.name, st)
			}
			if all, err := c.Standings(ctx); err != nil || strings.Contains(tt.want, "rows of") == all[k].AsOf.IsZero() {
				t.Errorf("%s: among all: %+v, %v", tt.name, all[k], err)
			}
			refresh(t, c, k, customer(1))
			refresh(t, c, fabrikam.Key, customer(7))
			st, members, err = c.Members(ctx, k)
			if _, in := members[customer(1).Tenant]; err != nil || st.AsOf.IsZero() || st.Altered || !in || len(members) != 1 {
				t.Errorf("%s: refreshed: %+v, %v, %v", tt.name, st, members, err)
			}
		}
	})
}

// What a refresh has written before it ended is on no list, and is once a later
// one has it.
func TestCustomersHalfWritten(t *testing.T) {
	s, db := openTest(t)
	addPartners(t, s, contoso)
	c, ctx, k := s.Customers(), t.Context(), contoso.Key
	refresh(t, c, k, customer(1))
	if ok, err := c.Claim(ctx, k, 1, time.Now().Add(time.Minute)); !ok || err != nil {
		t.Fatal(ok, err)
	}
	r := mandate.CustomerRefresh{Attempt: 2, Began: time.Now()}
	if err := db.Tx(ctx, func(tx *database.Tx) error { return write(ctx, tx, k, &r, []mandate.Customer{customer(2)}) }); err != nil {
		t.Fatal(err)
	}
	if err := c.Failed(ctx, k, 2, time.Now(), "half"); err != nil {
		t.Fatal(err)
	}
	before, members, err := c.Members(ctx, k)
	if err != nil || before.Altered || len(members) != 1 {
		t.Errorf("%+v, %v, %v", before, members, err)
	}
	refresh(t, c, k, customer(1), customer(2))
	after, members, err := c.Members(ctx, k)
	if err != nil || after.Altered || len(members) != 2 || after.Version == before.Version {
		t.Errorf("%+v, %v, %v", after, members, err)
	}
}
