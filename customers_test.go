package mandate

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// Customers of either source are served, others are not, and the partner's own
// tenant is no customer.
func TestCustomersOfSources(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newCustomersWorld(t)
		w.directory.tell(SourcePartnerCenter, adatum, contoso)
		w.directory.tell(SourceGDAP, litware, adatum)
		stranger := mustTenant("44444444-0000-0000-0000-000000000004")
		w.want(t, contoso)
		if n := w.directory.asked(SourcePartnerCenter); n != 0 {
			t.Errorf("asked %d times for the partner's own tenant", n)
		}
		w.want(t, adatum)
		w.want(t, litware)
		w.want(t, stranger, "contoso has no relationship with tenant "+stranger.String(), "Partner Center and GDAP", stamp(time.Now()), "the partner must")
		if n := w.register.standing().Count; n != 2 {
			t.Errorf("%d customers", n)
		}
		// What the refresh did with tokens is on the record.
		var details []string
		for _, r := range w.about(TenantID{}) {
			if r.Caller == customersCaller {
				if r.Purpose != customersPurpose || r.Tenant != contoso || r.Use != "" {
					t.Errorf("recorded %+v", r)
				}
				details = append(details, r.Kind+" "+r.Detail)
			}
		}
		want := []string{"decided GET /v1/customers", "issued GET /v1/customers", "decided GET relationships", "issued GET relationships"}
		if !slices.Equal(details, want) {
			t.Errorf("recorded %q, want %q", details, want)
		}
	})
}

// However many ask, and for however many tenants, a miss costs one refresh a
// minute.
func TestCustomersMissOnceAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newCustomersWorld(t)
		w.directory.tell(SourcePartnerCenter, adatum)
		w.directory.delay = 2 * time.Second
		var group sync.WaitGroup
		for i := range 50 {
			group.Go(func() { w.want(t, mustTenant(fmt.Sprintf("66666666-0000-0000-0000-%012d", i+1)), "no relationship") })
			group.Go(func() { w.want(t, adatum) })
		}
		group.Wait()
		time.Sleep(50 * time.Second)
		w.want(t, litware, "no relationship")
		if n := w.directory.asked(SourcePartnerCenter); n != 1 {
			t.Errorf("%d refreshes within a minute", n)
		}
		w.directory.tell(SourcePartnerCenter, adatum, litware)
		time.Sleep(10 * time.Second)
		w.want(t, litware)
		if n := w.directory.asked(SourcePartnerCenter); n != 2 {
			t.Errorf("%d refreshes", n)
		}
	})
}

// A hit reads nothing, and allocates nothing.
func TestCustomersHit(t *testing.T) {
	w := newCustomersWorld(t)
	var many []TenantID
	for i := range 100_000 {
		many = append(many, mustTenant(fmt.Sprintf("77777777-0000-0000-0000-%012d", i+1)))
	}
	w.directory.tell(SourcePartnerCenter, many...)
	w.want(t, many[7])
	read := w.register.members
	req := ask(func(r *Request) { r.Tenant = many[99_999] })
	a := attempt{Broker: w.Broker, req: &req}
	a.epoch, _ = w.vault.epoch.Epoch()
	if n := testing.AllocsPerRun(1000, func() {
		if a.customer(t.Context()) != nil {
			t.Fatal("denied")
		}
	}); n != 0 || w.register.members != read {
		t.Errorf("%v allocations, %d reads", n, w.register.members-read)
	}
}

// A customer that is gone is denied once a refresh has seen it, though its
// token is in memory; one that failed removes nobody.
func TestCustomersGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newCustomersWorld(t)
		w.directory.tell(SourcePartnerCenter, adatum, litware)
		w.directory.tell(SourceGDAP, adatum)
		w.want(t, adatum)
		w.want(t, litware)
		w.directory.tell(SourcePartnerCenter, adatum)
		w.directory.fail(SourceGDAP, &Fault{Domain: DomainTransient, Description: "throttled", Status: 429})
		s, err := w.RefreshCustomers(t.Context(), partner, By{Caller: "uid:1"})
		if err != nil || s.Failures != 1 || !strings.Contains(s.Fault, "throttled") || s.Count != 2 {
			t.Errorf("got %+v, %v", s, err)
		}
		w.want(t, litware)
		w.want(t, mustTenant("44444444-0000-0000-0000-000000000004"), "no relationship", "throttled")
		w.directory.fail(SourceGDAP, nil)
		if s, err = w.RefreshCustomers(t.Context(), partner, By{Caller: "uid:1"}); err != nil || s.Count != 1 || s.Fault != "" {
			t.Errorf("got %+v, %v", s, err)
		}
		w.want(t, litware, "no relationship")
		w.want(t, adatum) // GDAP and Partner Center alike
	})
}

// While nobody can be asked, the last list serves for a day.
func TestCustomersTooOld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newCustomersWorld(t)
		w.directory.fail(SourcePartnerCenter, &Fault{Domain: DomainTransient, Description: "down"})
		w.want(t, adatum, "is not known", "down", "mandate customer refresh contoso")
		w.directory.fail(SourcePartnerCenter, nil)
		w.directory.tell(SourcePartnerCenter, adatum)
		time.Sleep(time.Minute)
		w.want(t, adatum)
		w.directory.fail(SourcePartnerCenter, &Fault{Domain: DomainTransient, Description: "down"})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- w.Run(ctx) }()
		time.Sleep(23*time.Hour + 50*time.Minute)
		w.want(t, adatum)
		if s := w.register.standing(); s.Failures < 10 {
			t.Errorf("in a day %d refreshes failed", s.Failures)
		}
		time.Sleep(time.Hour)
		w.want(t, adatum, "too old", "down", "mandate customer refresh contoso")
		w.directory.fail(SourcePartnerCenter, nil)
		time.Sleep(2 * time.Hour)
		w.want(t, adatum)
		cancel()
		<-done
	})
}

// Replicas that share the register refresh once between them, and one that
// comes too late does not bring an old list back.
func TestCustomersReplicas(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newCustomersWorld(t)
		w.directory.tell(SourcePartnerCenter, adatum)
		w.directory.delay = 3 * time.Second
		other := *w
		other.replica(t)
		var group sync.WaitGroup
		for _, r := range []*customersWorld{w, &other} {
			for range 5 {
				group.Go(func() { r.want(t, adatum) })
			}
		}
		group.Wait()
		if n := w.directory.asked(SourcePartnerCenter); n != 1 {
			t.Errorf("two replicas made %d refreshes", n)
		}
		late := CustomerRefresh{Attempt: w.register.standing().Attempt - 1, Customers: []Customer{{Tenant: litware}}}
		if err := w.register.Replace(t.Context(), testKey, late); !errors.Is(err, ErrSuperseded) {
			t.Errorf("late: %v", err)
		}
	})
}

// What the consent does not cover is not asked, and its silence is no failure.
// Without any source nothing is known.
func TestCustomersConsent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newCustomersWorld(t)
		w.vault.grants[0].Audiences[1].Scopes = []Scope{"User.Read"}
		w.directory.tell(SourcePartnerCenter, adatum)
		w.directory.fail(SourceGDAP, errors.New("must not be asked"))
		w.want(t, adatum)
		w.want(t, litware, "according to Partner Center as of")
		w.vault.grants[0].Audiences = w.vault.grants[0].Audiences[1:]
		w.vault.epoch.n.Add(1)
		s, err := w.RefreshCustomers(t.Context(), partner, By{Caller: "uid:1"})
		if err != nil || !strings.Contains(s.Fault, "covers neither") || s.Count != 1 {
			t.Errorf("got %+v, %v", s, err)
		}
	})
}

// A token that is refused is replaced once.
func TestCustomersTokenRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newCustomersWorld(t)
		w.directory.fail(SourcePartnerCenter, &Fault{Domain: DomainGrant, Status: unauthorized, Description: "no more"})
		w.want(t, adatum, "no more")
		if asked, redeemed := w.directory.asked(SourcePartnerCenter), w.entra.calls.Load(); asked != 2 || redeemed != 2 {
			t.Errorf("asked %d times, with %d tokens", asked, redeemed)
		}
	})
}

// A partner that has no grant is tried once an hour, and its failure is not
// counted as one.
func TestCustomersNoGrant(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newCustomersWorld(t)
		w.vault.grants[0].State = StateSuspended
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- w.Run(ctx) }()
		time.Sleep(10 * time.Hour)
		cancel()
		<-done
		n := w.Stats().Customers
		if n["no_grant"] < 8 || n["no_grant"] > 11 || n["failed"] != 0 || w.entra.calls.Load() != 0 {
			t.Errorf("got %v, with %d redemptions", n, w.entra.calls.Load())
		}
	})
}

// While the register cannot be reached, nothing is known and nothing is denied.
func TestCustomersUnavailable(t *testing.T) {
	w := newCustomersWorld(t)
	w.register.err = ErrUnavailable
	if _, err := w.Token(t.Context(), ask(func(r *Request) { r.Tenant = adatum })); !errors.Is(err, ErrUnavailable) || errors.Is(err, ErrDenied) {
		t.Errorf("got %v", err)
	}
	for _, c := range []CustomerCheck{{Every: time.Second}, {MaxAge: time.Hour}, {PerMinute: -1}, {Register: w.register}} {
		if c.Check() == nil {
			t.Errorf("%+v is accepted", c)
		}
	}
}

// Of several relationships with a customer the one that ends last counts.
func TestCustomerAnd(t *testing.T) {
	at := time.Now()
	early, late := Customer{Tenant: adatum, Relationship: "early", Ends: at, Sources: []string{SourceGDAP}}, Customer{Tenant: adatum, Relationship: "late", Ends: at.Add(1), Sources: []string{SourceGDAP}}
	extends := Customer{Tenant: adatum, Relationship: "extends", Ends: at.Add(-1), Extends: true, Name: "Adatum", Sources: []string{SourceGDAP}}
	reseller := Customer{Tenant: adatum, Domain: "adatum.example", Sources: []string{SourcePartnerCenter}}
	for _, tt := range []struct {
		all  []Customer
		want string
	}{{[]Customer{early, late}, "late"}, {[]Customer{late, early}, "late"}, {[]Customer{late, extends, reseller}, "extends"}, {[]Customer{reseller, extends, late}, "extends"}} {
		var got Customer
		for _, c := range tt.all {
			got = got.and(c)
		}
		if got.Relationship != tt.want || len(tt.all) == 3 && (len(got.Sources) != 2 || got.Name != "Adatum" || got.Domain == "") {
			t.Errorf("%+v: got %+v, want %s", tt.all, got, tt.want)
		}
	}
}
