package demo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/api"
	"github.com/mandate-sam/mandate/emulator"
	"github.com/mandate-sam/mandate/internal/app"
	"github.com/mandate-sam/mandate/internal/database"
)

// second is the other partner of the demonstration, and who consents there.
const (
	second      = "fabrikam"
	secondAdmin = "admin@fabrikam.example"
)

// through asks for a token in a customer's tenant, through a partner.
func (d *Demo) through(ctx context.Context, partner, tenant string) error {
	_, err := d.Operator.Token(ctx, api.TokenRequest{Partner: partner, Tenant: tenant, Audience: "graph", Purpose: Purpose})
	return err
}

// refused expects a denial that says so, is recorded, and never asked Entra.
func (d *Demo) refused(t *testing.T, partner, tenant string, words ...string) {
	t.Helper()
	before := len(d.Emulator.TokenRequests())
	err := d.through(t.Context(), partner, tenant)
	if !errors.Is(err, mandate.ErrDenied) {
		t.Fatalf("%s for %s: got error %v, want %v", partner, tenant, err, mandate.ErrDenied)
	}
	if err := contains(err.Error(), words...); err != nil {
		t.Error(err)
	}
	_, last := d.records(t)
	if last.Kind != mandate.KindDenied || last.Partner != partner || last.Tenant.String() != tenant || contains(last.Reason, words...) != nil {
		t.Errorf("%s for %s: recorded %+v", partner, tenant, last)
	}
	for _, r := range d.Emulator.TokenRequests()[before:] {
		if r.Tenant == tenant {
			t.Errorf("%s for %s: Entra was asked: %+v", partner, tenant, r)
		}
	}
}

func (d *Demo) refresh(t *testing.T, partner string) api.CustomerList {
	t.Helper()
	list, err := d.Operator.RefreshCustomers(t.Context(), partner, api.ActRequest{})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// A tenant that neither Partner Center nor GDAP tells of is denied; one that has
// become a customer is served at once, and one that is none any more is not,
// though its token is in memory.
func TestCustomersComeAndGo(t *testing.T) {
	t.Parallel()
	d := consented(t)
	ctx := t.Context()
	d.refused(t, Partner, emulator.TailspinTenant, "contoso has no relationship with tenant "+emulator.TailspinTenant, "Partner Center and GDAP as of", "the partner must")
	if err := d.through(ctx, Partner, emulator.AdatumTenant); err != nil {
		t.Fatal(err)
	}
	d.Emulator.Undelegate(emulator.ContosoTenant, emulator.AdatumTenant)
	if list := d.refresh(t, Partner); list.Count != 2 || list.Fault != "" || list.Age > 60 || len(list.Sources) != 2 {
		t.Errorf("got %+v", list)
	}
	d.refused(t, Partner, emulator.AdatumTenant, "has no relationship")
	if err := d.through(ctx, Partner, emulator.LitwareTenant); err != nil {
		t.Error(err)
	}
	list, err := d.Operator.Customers(ctx, Partner)
	if err != nil || len(list.Customers) != 3 || !list.Customers[0].Gone || list.Customers[1].Relationship == "" || list.Customers[1].Ends.IsZero() || !list.Customers[1].Extends {
		t.Errorf("got %+v, %v", list, err)
	}
	d.Emulator.Delegate(emulator.ContosoTenant, emulator.AdatumTenant)
	d.refresh(t, Partner)
	if err := d.through(ctx, Partner, emulator.AdatumTenant); err != nil {
		t.Error(err)
	}
}

// Whoever writes the database makes no tenant a partner's customer: the whole
// list counts for nothing, and the refusal names its row, until Microsoft was
// asked again.
func TestDatabaseWriterInsertsCustomer(t *testing.T) {
	t.Parallel()
	d := consented(t)
	ctx := t.Context()
	if err := d.through(ctx, Partner, emulator.AdatumTenant); err != nil {
		t.Fatal(err)
	}
	d.stopProduct(t)
	db, err := database.Open(ctx, database.Config{File: d.File("data/mandate.db"), Schemas: app.Schemas()})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.Exec(ctx, `INSERT INTO customers SELECT cloud, application, partner, $1, name, domain, sources, relationship, ends, extends, first_seen, gone, added
		FROM customers WHERE tenant = $2`, emulator.TailspinTenant, emulator.AdatumTenant); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	d.again(t)
	for _, tenant := range []string{emulator.TailspinTenant, emulator.AdatumTenant} {
		d.refused(t, Partner, tenant, "altered by somebody else", `row "emulator/`+emulator.ApplicationID+`/`+emulator.ContosoTenant+`" of customer_lists`, "mandate customer refresh contoso")
	}
	d.refresh(t, Partner)
	d.refused(t, Partner, emulator.TailspinTenant, "contoso has no relationship")
	if err := d.through(ctx, Partner, emulator.AdatumTenant); err != nil {
		t.Error(err)
	}
}

// A right holds through the partner that a request names, and through no other,
// however many partners serve the customer.
func TestConfusedDeputyCustomerOfAnotherPartner(t *testing.T) {
	t.Parallel()
	d := consented(t)
	in, err := d.Operator.Invite(t.Context(), api.InviteRequest{Name: second, Tenant: emulator.FabrikamTenant, User: secondAdmin})
	if err != nil {
		t.Fatal(err)
	}
	if page := d.follow(t, in.Link, attempt{user: secondAdmin}); contains(page.Text(), "Consent stored and active") != nil {
		t.Fatal(page.Text())
	}
	for _, serves := range [][2]string{
		{Partner, emulator.AdatumTenant}, {Partner, emulator.LitwareTenant}, {second, emulator.LitwareTenant}, {second, emulator.TailspinTenant},
	} {
		if err := d.through(t.Context(), serves[0], serves[1]); err != nil {
			t.Errorf("%s for its own customer %s: %v", serves[0], serves[1], err)
		}
	}
	d.refused(t, Partner, emulator.TailspinTenant, "contoso has no relationship")
	d.refused(t, second, emulator.AdatumTenant, "fabrikam has no relationship")
	d.refused(t, Partner, emulator.FabrikamTenant, "contoso has no relationship") // another partner is no customer
	d.refused(t, Partner, emulator.CPVTenant, "contoso has no relationship")
	litware, err := mandate.ParseTenantID(emulator.LitwareTenant)
	if err != nil {
		t.Fatal(err)
	}
	served, err := d.Operator.Customer(t.Context(), litware)
	if err != nil || len(served) != 2 || served[0].Partner != Partner || served[1].Partner != second || served[0].Customer.Name != "Litware" {
		t.Errorf("got %+v, %v", served, err)
	}
	// Losing it as one partner's customer leaves the other's right alone.
	d.Emulator.Undelegate(emulator.ContosoTenant, emulator.LitwareTenant)
	d.refresh(t, Partner)
	d.refused(t, Partner, emulator.LitwareTenant, "contoso has no relationship")
	if err := d.through(t.Context(), second, emulator.LitwareTenant); err != nil {
		t.Error(err)
	}
}

// A partner with more customers than fit onto a page has all of them.
func TestCustomersPages(t *testing.T) {
	t.Parallel()
	d := consented(t)
	const many = 1100
	for i := range many {
		tenant := emulator.FixtureTenant{ID: fmt.Sprintf("38000000-0000-4000-8000-%012d", i), Name: fmt.Sprintf("Many %d", i), Domain: fmt.Sprintf("many-%d.example", i), Kind: "customer"}
		if err := d.Emulator.AddTenant(tenant); err != nil {
			t.Fatal(err)
		}
		d.Emulator.Delegate(emulator.ContosoTenant, tenant.ID)
	}
	if list := d.refresh(t, Partner); list.Count != many+3 || list.Fault != "" {
		t.Errorf("%d customers, %s", list.Count, list.Fault)
	}
	list, err := d.Operator.Customers(t.Context(), Partner)
	if err != nil || len(list.Customers) != many+3 {
		t.Fatalf("%d customers, %v", len(list.Customers), err)
	}
	for _, c := range list.Customers {
		if !slices.Equal(c.Sources, []string{mandate.SourceGDAP, mandate.SourcePartnerCenter}) {
			t.Fatalf("not from both sources: %+v", c)
		}
	}
}

// While Partner Center or Graph does not answer the last list serves, and whoever
// is not on it is told why.
func TestCustomersWithoutMicrosoft(t *testing.T) {
	t.Parallel()
	d := consented(t)
	d.refresh(t, Partner)
	for _, weather := range []func(*emulator.Dials){
		func(dials *emulator.Dials) { dials.Outage = []string{"partnercenter"} },
		func(dials *emulator.Dials) { dials.Outage = []string{"graph"} },
		func(dials *emulator.Dials) {
			dials.Throttles = []emulator.Throttle{{Service: "partnercenter", RetryAfter: 30, Times: 5}}
		},
	} {
		d.Emulator.Undelegate(emulator.ContosoTenant, emulator.ProsewareTenant)
		d.Emulator.Dial(weather)
		if list := d.refresh(t, Partner); list.Count != 3 || list.Failures == 0 || list.Fault == "" {
			t.Errorf("got %+v", list)
		}
		list, err := d.Operator.Customers(t.Context(), Partner)
		if err != nil || slices.ContainsFunc(list.Customers, func(c mandate.Customer) bool { return c.Gone }) {
			t.Errorf("a failure made somebody go: %+v, %v", list, err)
		}
		if err := d.through(t.Context(), Partner, emulator.AdatumTenant); err != nil {
			t.Error(err)
		}
		d.refused(t, Partner, emulator.TailspinTenant, "no relationship", "cannot be refreshed")
		d.Emulator.Dial(func(dials *emulator.Dials) { dials.Outage, dials.Throttles = nil, nil })
	}
	if list := d.refresh(t, Partner); list.Count != 2 || list.Fault != "" {
		t.Errorf("got %+v", list)
	}
	d.refused(t, Partner, emulator.ProsewareTenant, "no relationship")
}

// Replicas that are asked at once for customers refresh the list once between
// them; that a customer is gone is known to all of them within a second.
func TestReplicasOneRefreshOfCustomers(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 2)
	var group sync.WaitGroup
	for i := range 40 {
		group.Go(func() {
			if _, err := f.replicas[i%2].ask(t.Context(), "graph", emulator.AdatumTenant); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	if n := f.refreshes(t); n != 1 {
		t.Errorf("%d refreshes", n)
	}
	f.Emulator.Undelegate(emulator.ContosoTenant, emulator.AdatumTenant)
	if list, err := f.replicas[0].client.RefreshCustomers(t.Context(), Partner, api.ActRequest{}); err != nil || list.Count != 2 {
		t.Fatalf("%+v, %v", list, err)
	}
	// The machine is busy with other tests: what counts is that nobody asks again.
	within(t, 5*time.Second, "the other replica's refusal", func() bool {
		_, err := f.replicas[1].ask(t.Context(), "graph", emulator.AdatumTenant)
		return errors.Is(err, mandate.ErrDenied)
	})
	if n := f.refreshes(t); n != 2 {
		t.Errorf("%d refreshes", n)
	}
}

// refreshes counts in all replicas' records how often customers were listed.
func (f *fleet) refreshes(t *testing.T) (n int) {
	t.Helper()
	seen := make(map[string]bool)
	for _, r := range f.replicas {
		lines, err := r.client.Audit(t.Context(), 1000)
		if err != nil {
			t.Fatal(err)
		}
		for _, line := range lines {
			var rec mandate.Record
			if err := json.Unmarshal(line, &rec); err != nil {
				t.Fatal(err)
			}
			if rec.Caller == "mandate:customers" && rec.Kind == mandate.KindDecided && strings.HasSuffix(rec.Detail, "/v1/customers") && !seen[rec.Request] {
				seen[rec.Request] = true
				n++
			}
		}
	}
	return n
}
