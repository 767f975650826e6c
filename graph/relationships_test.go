package graph

import (
	"reflect"
	"testing"
	"time"

	"github.com/mandate-sam/mandate"
)

const (
	adatum  = "22222222-0000-4000-8000-000000000002"
	litware = "33333333-0000-4000-8000-000000000003"
)

func mustTenant(t *testing.T, s string) mandate.TenantID {
	t.Helper()
	id, err := mandate.ParseTenantID(s)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// Only relationships that give something make a customer, from all pages.
func TestCustomers(t *testing.T) {
	f := &fakeGraph{answers: []answer{
		{status: 200, body: `{"value":[
			{"displayName":"support","status":"active","endDateTime":"2027-12-31T00:00:00.0000000Z","autoExtendDuration":"PT0S","customer":{"tenantId":"` + adatum + `","displayName":"Adatum\u0007"}},
			{"displayName":"waiting","status":"approvalPending","endDateTime":null,"customer":null},
			{"displayName":"over","status":"expired","customer":{"tenantId":"` + litware + `"}},
			{"displayName":"ending","status":"terminationRequested","customer":{"tenantId":"` + litware + `"}}],
			"@odata.nextLink":"https://graph.test:8443/v1.0/tenantRelationships/delegatedAdminRelationships?$skiptoken=2"}`},
		{status: 200, body: `{"value":[{"displayName":"soon over","status":"expiring","endDateTime":"2026-12-31T00:00:00Z","autoExtendDuration":"P180D","customer":{"tenantId":"` + litware + `"}}]}`},
	}}
	got, err := newClient(t, f).Customers(ctx(), token)
	if err != nil {
		t.Fatal(err)
	}
	want := []mandate.Customer{
		{Tenant: mustTenant(t, adatum), Name: "Adatum", Relationship: "support", Ends: time.Date(2027, 12, 31, 0, 0, 0, 0, time.UTC)},
		{Tenant: mustTenant(t, litware), Relationship: "soon over", Ends: time.Date(2026, 12, 31, 0, 0, 0, 0, time.UTC), Extends: true},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if len(f.asked) != 2 || f.asked[0].URL.Path != "/v1.0/tenantRelationships/delegatedAdminRelationships" {
		t.Errorf("asked %v", f.asked)
	}
}

// Half a list is none.
func TestCustomersUnusable(t *testing.T) {
	const first = `{"value":[{"status":"active","customer":{"tenantId":"` + adatum + `"}}],"@odata.nextLink":"https://graph.test:8443/v1.0/x"}`
	for name, answers := range map[string][]answer{
		"second page refused":  {{status: 200, body: first}, {status: 403, body: `{"error":{"code":"Authorization_RequestDenied"}}`}},
		"second page no list":  {{status: 200, body: first}, {status: 200, body: `{}`}},
		"no tenant":            {{status: 200, body: `{"value":[{"status":"active","customer":{"tenantId":"adatum.example"}}]}`}},
		"a link that leads on": {{status: 200, body: `{"value":[],"@odata.nextLink":"https://elsewhere.test/v1.0/x"}`}},
		"for ever":             {{status: 200, body: `{"value":[],"@odata.nextLink":"https://graph.test:8443/v1.0/x"}`}},
	} {
		got, err := newClient(t, &fakeGraph{answers: answers}).Customers(ctx(), token)
		if err == nil || got != nil {
			t.Errorf("%s: got %v, %v", name, got, err)
		}
	}
}
