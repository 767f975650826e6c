package emulator_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/mandate-sam/mandate/emulator"
)

func exampleFixture(t testing.TB) string {
	t.Helper()
	data, err := os.ReadFile("../cmd/emulator/tenants.yaml")
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestFixture(t *testing.T) {
	f, err := emulator.ParseFixture([]byte(exampleFixture(t)))
	if err != nil {
		t.Fatal(err)
	}
	e, err := emulator.Open(emulator.Config{Fixture: f})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	for range 2 { // and again after a reset
		if got := len(e.Tenants()); got != 3 {
			t.Errorf("%d tenants, want 3", got)
		}
		u, ok := e.User("admin@partner.example")
		if !ok || !u.MFA || len(u.Groups) != 1 || len(u.Roles) != 1 || u.GivenName != "Ann" {
			t.Errorf("user %+v", u)
		}
		if a, ok := e.Application("a0000000-0000-4000-8000-0000000000f1"); !ok || len(a.Access) != 3 {
			t.Errorf("application %+v", a)
		}
		if _, ok := e.Application(emulator.ApplicationID); ok {
			t.Error("the built-in application is there too")
		}
		if err := e.Reset(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestFixtureRefuses(t *testing.T) {
	good := exampleFixture(t)
	for _, tt := range []struct{ old, new, want string }{
		{good, "", "no tenants"},
		{"kind: vendor", "kind: vendr", "none of vendor, partner and customer"},
		{"kind: vendor", "knd: vendor", "unknown field \"knd\""},
		{"customers: [customer.example]", "customers: [nobody.example]", "nobody.example"},
		{"10000000-0000-4000-8000-0000000000f1", "one", "no GUID"},
		{"domain: customer.example", "domain: partner.example", "twice"},
		{"domain: customer.example", "domain: Customer.example", "lower case"},
		{"upn: owner@customer.example", "upn: ADMIN@partner.example", "twice"},
		{"upn: owner@customer.example", "upn: owner", "UPN"},
		{"kind: vendor", "kind: vendor\n    customers: [customer.example]", "only a partner"},
		{"tenant: 10000000-0000-4000-8000-0000000000f1", "tenant: 10000000-0000-4000-8000-0000000000f9", "tenant of the fixture"},
	} {
		text := strings.Replace(good, tt.old, tt.new, 1)
		if text == good {
			t.Errorf("%q is not in the fixture", tt.old)
		}
		if _, err := emulator.ParseFixture([]byte(text)); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%q for %q: got %v, want %q", tt.new, tt.old, err, tt.want)
		}
	}
	unregistered := strings.Replace(good, "consented: [a0000000-0000-4000-8000-0000000000f1]", "consented: [a0000000-0000-4000-8000-0000000000f9]", 1)
	f, err := emulator.ParseFixture([]byte(unregistered))
	if err != nil {
		t.Fatal(err)
	}
	if e, err := emulator.Open(emulator.Config{Fixture: f}); err == nil {
		e.Close()
		t.Error("a consent to an application that is not registered")
	}
}

// A fixture may be large.
func TestLargeFixture(t *testing.T) {
	var b strings.Builder
	b.WriteString("tenants:\n")
	for i := range 2000 {
		fmt.Fprintf(&b, "- {id: 30000000-0000-4000-8000-%012x, name: C%d, domain: c%d.example, kind: customer, users: [{id: 60000000-0000-4000-8000-%012x, upn: u@c%d.example, name: U}]}\n", i, i, i, i, i)
	}
	f, err := emulator.ParseFixture([]byte(b.String()))
	if err != nil {
		t.Fatal(err)
	}
	e, err := emulator.Open(emulator.Config{Fixture: f})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	if len(e.Tenants()) != 2000 {
		t.Errorf("%d tenants", len(e.Tenants()))
	}
}

// JSON with the same keys is read as JSON, and as strictly.
func TestFixtureInJSON(t *testing.T) {
	const tenant = `{"id": "10000000-0000-4000-8000-0000000000f1", "name": "V", "domain": "v.example", "kind": "vendor"}`
	f, err := emulator.ParseFixture([]byte(`{"tenants": [` + tenant + `], "applications": [
		{"id": "a0000000-0000-4000-8000-0000000000f1", "name": "A", "tenant": "10000000-0000-4000-8000-0000000000f1", "redirect_uris": ["https://a.example/"]}]}`))
	if err != nil {
		t.Fatal(err)
	}
	if len(f.Tenants) != 1 || f.Tenants[0].Domain != "v.example" || len(f.Applications[0].RedirectURIs) != 1 {
		t.Errorf("got %+v", f)
	}
	for text, want := range map[string]string{
		`{"tenants": []}`: "no tenants",
		`{"tenants": [` + strings.Replace(tenant, "kind", "knd", 1) + `]}`:   `unknown field "knd"`,
		`{"tenants": [` + strings.Replace(tenant, "vendor", "who", 1) + `]}`: "none of vendor",
	} {
		if _, err := emulator.ParseFixture([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", text, err, want)
		}
	}
}

func FuzzFixture(f *testing.F) {
	f.Add(exampleFixture(f))
	f.Add(`{"tenants": [{"id": "10000000-0000-4000-8000-0000000000f1", "name": "V", "domain": "v.example", "kind": "vendor", "users": []}]}`)
	f.Fuzz(func(t *testing.T, text string) { _, _ = emulator.ParseFixture([]byte(text)) })
}
