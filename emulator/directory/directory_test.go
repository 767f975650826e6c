package directory

import (
	"fmt"
	"slices"
	"testing"
	"time"
)

// What is found by an index is what a look at everything would find, also
// after it has changed.
func TestIndexes(t *testing.T) {
	d := New(time.Now)
	if err := d.Load(); err != nil {
		t.Fatal(err)
	}
	const guest = "guest@adventure-works.example"
	if u, ok := d.UserAnywhere("GUEST@adventure-works.example"); !ok || u.Tenant != ContosoTenant {
		t.Errorf("guest of two partners: got %+v, want Contoso's, which is the first by name", u)
	}
	if u, ok := d.UserAnywhere("admin@fabrikam.example"); !ok || u.Tenant != FabrikamTenant {
		t.Errorf("got %+v", u)
	}
	if _, ok := d.UserAnywhere(""); ok {
		t.Error("somebody has no name")
	}
	at := time.Now()
	d.RevokeAtHome(guest, at)
	for _, tenant := range []string{ContosoTenant, FabrikamTenant} {
		if u, _ := d.User(tenant, guest); !u.ValidFrom.Equal(at) {
			t.Errorf("the guest in %s was not revoked", tenant)
		}
	}
	adatum, _ := d.Tenant(AdatumTenant)
	if got, ok := d.TenantOf(adatum.Subscription); !ok || got.ID != AdatumTenant {
		t.Errorf("owner of the subscription: got %+v", got)
	}
	if _, ok := d.TenantOf(""); ok {
		t.Error("somebody owns no subscription")
	}
	d.Clear()
	if _, ok := d.UserAnywhere(guest); ok || len(d.Tenants()) != 0 {
		t.Error("something is left after Clear")
	}
	if _, ok := d.TenantOf(adatum.Subscription); ok {
		t.Error("a subscription is left after Clear")
	}
}

func TestTenantsInOrder(t *testing.T) {
	d := New(time.Now)
	for i, kind := range []string{KindCustomer, KindPartner, KindVendor, KindCustomer} {
		d.AddTenant(Tenant{ID: fmt.Sprint("id", i), Name: fmt.Sprint("T", 9-i), Domain: fmt.Sprint("d", i), Kind: kind})
		if n := len(d.Tenants()); n != i+1 {
			t.Errorf("%d tenants after adding %d", n, i+1)
		}
	}
	var ids []string
	for _, x := range d.Tenants() {
		ids = append(ids, x.ID)
	}
	if want := []string{"id2", "id1", "id3", "id0"}; !slices.Equal(ids, want) {
		t.Errorf("got %v, want %v", ids, want)
	}
	if first := d.FirstTenants(2); len(first) != 2 || first[1].ID != "id1" {
		t.Errorf("the first two: got %+v", first)
	}
	d.Tenants()[0].Name = "changed"
	if d.Tenants()[0].Name == "changed" {
		t.Error("the list is the directory's own")
	}
}

// An API is found by its names, and no longer by those that it gave up.
func TestNamesOfAPIs(t *testing.T) {
	d := New(time.Now)
	if err := d.Load(); err != nil {
		t.Fatal(err)
	}
	const id = "b0000000-0000-4000-8000-00000000c0de"
	register := func(uris ...string) {
		t.Helper()
		if err := d.Register(Application{ID: id, Name: "API", Tenant: CPVTenant, IdentifierURIs: uris}); err != nil {
			t.Fatal(err)
		}
	}
	check := func(name string, want bool) {
		t.Helper()
		if r, ok := d.Resource(name); ok != want || ok && r.ID != id {
			t.Errorf("%q: got %+v, %v, want %v", name, r, ok, want)
		}
	}
	register("https://API.example/one/")
	for _, name := range []string{id, "api://" + id, "API://" + id + "/", "https://api.example/one", "https://api.EXAMPLE/one/"} {
		check(name, true)
	}
	register("https://api.example/two")
	check("https://api.example/one", false)
	check("https://api.example/two", true)
	d.Unregister(id)
	for _, name := range []string{id, "api://" + id, "https://api.example/two", ""} {
		check(name, false)
	}
}
