package api

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/mandate-sam/mandate"
)

// fakeCustomers has a partner with one customer, and one that is gone.
type fakeCustomers struct {
	err error
	by  mandate.By
}

var listed = time.Now().Add(-90 * time.Second)

func (f *fakeCustomers) Standing(context.Context, mandate.GrantKey) (mandate.CustomerStanding, error) {
	return mandate.CustomerStanding{Count: 1, Sources: []string{mandate.SourcePartnerCenter}, AsOf: listed, Due: listed.Add(time.Hour), Failures: 1, Fault: "throttled"}, f.err
}

func (f *fakeCustomers) List(ctx context.Context, k mandate.GrantKey) (mandate.CustomerStanding, []mandate.Customer, error) {
	s, err := f.Standing(ctx, k)
	return s, []mandate.Customer{
		{Tenant: adatumID, Name: "Adatum", Domain: "adatum.example", Sources: []string{mandate.SourceGDAP}, Relationship: "support", Ends: listed, Extends: true, First: listed, Last: listed},
		{Tenant: contosoID, Sources: []string{}, Gone: true},
	}, err
}

func (f *fakeCustomers) Serving(_ context.Context, t mandate.TenantID) (map[mandate.GrantKey]mandate.Customer, error) {
	if t != adatumID {
		return nil, f.err
	}
	return map[mandate.GrantKey]mandate.Customer{contoso.Key: {Tenant: t, Name: "Adatum", Sources: []string{mandate.SourceGDAP}}, {Cloud: "other"}: {Tenant: t}}, f.err
}

func (f *fakeCustomers) Refresh(ctx context.Context, p mandate.Partner, by mandate.By) (mandate.CustomerStanding, error) {
	f.by = by
	return f.Standing(ctx, p.Key)
}

func customerScenes() []scene {
	down := func(w *world) { w.customers.err = mandate.ErrUnavailable }
	const list, refresh, show = "GET /v1/partners/{partner}/customers", "POST /v1/partners/{partner}/customers/refresh", "GET /v1/customers/{tenant}"
	const contosos = "/v1/partners/contoso/customers"
	return []scene{
		{op: list, status: "200", path: contosos},
		{op: list, status: "400", path: "/v1/partners/a%20b/customers"},
		{op: list, status: "404", path: "/v1/partners/nobody/customers"},
		{op: list, status: "503", path: contosos, damage: down},
		{op: refresh, status: "200", path: contosos + "/refresh", body: `{"ticket":"T-1"}`},
		{op: refresh, status: "400", path: contosos + "/refresh", body: `{"ticket":"\n"}`},
		{op: refresh, status: "404", path: "/v1/partners/nobody/customers/refresh", body: `{}`},
		{op: refresh, status: "503", path: contosos + "/refresh", body: `{}`, damage: down},
		{op: show, status: "200", path: "/v1/customers/" + adatumID.String()},
		{op: show, status: "400", path: "/v1/customers/adatum.example"},
		{op: show, status: "404", path: "/v1/customers/" + contosoID.String()},
		{op: show, status: "503", path: "/v1/customers/" + adatumID.String(), damage: down},
	}
}

func TestCustomers(t *testing.T) {
	w := newWorld(t)
	list, err := w.operator.Customers(t.Context(), "contoso")
	if err != nil || list.Count != 1 || len(list.Customers) != 2 || list.Age < 90 || list.Age > 120 || !list.Customers[1].Gone || list.Fault != "throttled" {
		t.Errorf("got %+v, %v", list, err)
	}
	list, err = w.operator.RefreshCustomers(t.Context(), "contoso", ActRequest{Ticket: "T-1"})
	if err != nil || list.Partner != "contoso" || list.Customers != nil || w.customers.by.Ticket != "T-1" || w.customers.by.Caller == "" {
		t.Errorf("got %+v, %v, by %+v", list, err, w.customers.by)
	}
	served, err := w.operator.Customer(t.Context(), adatumID)
	if err != nil || len(served) != 1 || served[0].Partner != "contoso" || served[0].Customer.Name != "Adatum" || !served[0].Customer.Last.Equal(listed) {
		t.Errorf("got %+v, %v", served, err)
	}
	if _, err = w.operator.Customer(t.Context(), contosoID); !errors.Is(err, mandate.ErrNotFound) {
		t.Errorf("got %v", err)
	}
	if _, err = w.operator.Customers(t.Context(), "../x"); !errors.Is(err, mandate.ErrInvalid) {
		t.Errorf("got %v", err)
	}
	w.server.cfg.Customers = nil
	if _, err = w.operator.Customers(t.Context(), "contoso"); !errors.Is(err, mandate.ErrNotFound) {
		t.Errorf("got %v", err)
	}
}
