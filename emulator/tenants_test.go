package emulator_test

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/mandate-sam/mandate/emulator"
)

const (
	newPartner  = `{"id":"20000000-0000-4000-8000-0000000000a1","name":"Relecloud","domain":"relecloud.example","kind":"partner","customers":["wingtip.example"],"users":[{"id":"60000000-0000-4000-8000-0000000000a1","upn":"admin@relecloud.example","name":"Rosa Admin","mfa":true,"groups":["AdminAgents"],"admin":true}]}`
	newCustomer = `{"id":"30000000-0000-4000-8000-0000000000a1","name":"Lamna","domain":"lamna.example","kind":"customer","consented":["` + emulator.ApplicationID + `"]}`
)

// Tenants and people who are added to a running emulator are like any other.
func TestAddTenants(t *testing.T) {
	e := start(t)
	do := func(method, path, body string, want int) {
		t.Helper()
		if got, answer := admin(t, e, method, path, body); got != want {
			t.Errorf("%s %s %s: got %d, want %d: %s", method, path, body, got, want, answer)
		}
	}
	do("POST", "/emulator/tenants", newPartner, 204)
	do("POST", "/emulator/tenants", newCustomer, 204)
	do("POST", "/emulator/tenants/lamna.example/users", `{"id":"60000000-0000-4000-8000-0000000000a2","upn":"owner@lamna.example","name":"Lou Owner"}`, 204)
	do("POST", "/emulator/delegations", `{"partner":"relecloud.example","customer":"lamna.example"}`, 204)
	if all := e.Customers("relecloud.example"); len(all) != 2 || all[1].Name != "Lamna" {
		t.Errorf("customers: %+v", all)
	}
	if u, ok := e.User("owner@lamna.example"); !ok || u.Surname != "Owner" {
		t.Errorf("user: %+v", u)
	}
	rt := consented(t, e, 2, "admin@relecloud.example").str("refresh_token")
	if a := refresh(t, e, 2, "lamna.example", rt); a.status != 200 {
		t.Errorf("in the new customer: %v", a.raw)
	}
	for _, bad := range []struct{ path, body string }{
		{"/emulator/tenants", newPartner},
		{"/emulator/tenants", strings.Replace(newCustomer, "lamna", "contoso", 1)},
		{"/emulator/tenants", strings.NewReplacer("a1", "a9", "relecloud", "r2", "wingtip", "nobody").Replace(newPartner)},
		{"/emulator/tenants", strings.NewReplacer("a1", "a9", "lamna", "l2", "c0de", "dead").Replace(newCustomer)},
		{"/emulator/tenants", strings.Replace(newCustomer, "30000000", "X0000000", 1)},
		{"/emulator/tenants", `{"shoe":1}`},
		{"/emulator/tenants/nobody.example/users", `{"id":"60000000-0000-4000-8000-0000000000a3","upn":"a@b"}`},
		{"/emulator/tenants/lamna.example/users", `{"id":"60000000-0000-4000-8000-0000000000a2","upn":"other@lamna.example"}`},
		{"/emulator/tenants/lamna.example/users", `{"id":"60000000-0000-4000-8000-0000000000a4","upn":"OWNER@lamna.example"}`},
		{"/emulator/tenants/lamna.example/users", `{"upn":"x@lamna.example"}`},
		{"/emulator/tenants/lamna.example/users", `{"shoe":1}`},
		{"/emulator/delegations", `{"partner":"nobody.example","customer":"lamna.example"}`},
		{"/emulator/delegations", `{"partner":"contoso.example","customer":"nobody.example"}`},
		{"/emulator/delegations", `{"partner":"contoso.example","customer":"lamna.example","roles":["Reader"]}`},
		{"/emulator/delegations", `{"shoe":1}`},
		{"/emulator/relationships/x/approval", `{"customer":"lamna.example"}`},
		{"/emulator/relationships/x/approval", `{"shoe":1}`},
	} {
		do("POST", bad.path, bad.body, 400)
	}
	if n := len(e.Tenants()); n != 10 {
		t.Errorf("%d tenants, want 10", n)
	}
	reset(t, e)
	if n := len(e.Tenants()); n != 8 {
		t.Errorf("%d tenants after a reset, want 8", n)
	}
}

// Delegated administration and service principals are given and taken over
// the admin API too.
func TestAdminDelegation(t *testing.T) {
	e := start(t)
	do := func(method, path, body string, want int) {
		t.Helper()
		if got, answer := admin(t, e, method, path, body); got != want {
			t.Errorf("%s %s: got %d, want %d: %s", method, path, got, want, answer)
		}
	}
	rt := consented(t, e, 2, "admin@contoso.example").str("refresh_token")
	wids := func() string {
		t.Helper()
		a := refresh(t, e, 2, "adatum.example", rt)
		if a.status != 200 {
			return ""
		}
		b, _ := json.Marshal(claims(t, a.str("access_token"))["wids"])
		return string(b)
	}
	const reader = "f2ef992c-3afb-46b9-b7cf-a126ee74c451"
	do("POST", "/emulator/delegations", `{"partner":"contoso.example","customer":"adatum.example","roles":["`+reader+`"]}`, 204)
	if got := wids(); got != `["`+reader+`"]` {
		t.Errorf("roles: got %s", got)
	}
	do("POST", "/emulator/delegations", `{"partner":"contoso.example","customer":"adatum.example"}`, 204)
	if got := wids(); got != `["`+reader+`"]` {
		t.Errorf("roles that were not named: got %s", got)
	}
	do("DELETE", "/emulator/delegations?partner=contoso.example&customer=adatum.example", "", 204)
	if got := refresh(t, e, 2, "adatum.example", rt).code(); got != 50020 {
		t.Errorf("without delegation: got %d, want 50020", got)
	}
	do("DELETE", "/emulator/delegations?partner=contoso.example", "", 400)
	do("DELETE", "/emulator/principals?tenant=litware.example&application="+emulator.ApplicationID, "", 204)
	if got := refresh(t, e, 2, "litware.example", rt).code(); got != 90099 {
		t.Errorf("without service principal: got %d, want 90099", got)
	}
	do("DELETE", "/emulator/principals?tenant=contoso.example&application="+emulator.Graph, "", 204)
	if got := refresh(t, e, 2, "contoso.example", rt).code(); got != 500011 {
		t.Errorf("without the resource: got %d, want 500011", got)
	}
	do("DELETE", "/emulator/principals?tenant=x&application="+emulator.Graph, "", 400)
	do("DELETE", "/emulator/principals?tenant=contoso.example&application=https://graph.microsoft.com", "", 400)
}

// A long list can be asked for in part.
func TestStateInPart(t *testing.T) {
	e := start(t)
	get := func(query string) (names []string, total int) {
		t.Helper()
		code, body := admin(t, e, "GET", "/emulator/state"+query, "")
		var s struct {
			Total   int
			Tenants []struct{ Name string }
		}
		if err := json.Unmarshal([]byte(body), &s); code != 200 || err != nil {
			t.Fatalf("%s: %d, %v", query, code, err)
		}
		for _, x := range s.Tenants {
			names = append(names, x.Name)
		}
		return names, s.Total
	}
	for query, want := range map[string][]string{
		"?limit=2":                       {"Northwind Panels", "Contoso CSP"},
		"?q=TOYS":                        {"Tailspin Toys", "Wingtip Toys"},
		"?q=toys&limit=1":                {"Tailspin Toys"},
		"?q=litware.ex":                  {"Litware"},
		"?q=" + emulator.ProsewareTenant: {"Proseware"},
		"?q=nobody":                      nil,
	} {
		if got, total := get(query); !slices.Equal(got, want) || total != 8 {
			t.Errorf("%s: got %q of %d, want %q of 8", query, got, total, want)
		}
	}
	for _, query := range []string{"?limit=-1", "?limit=x"} {
		if code, _ := admin(t, e, "GET", "/emulator/state"+query, ""); code != 400 {
			t.Errorf("%s: got %d", query, code)
		}
		if code, _ := admin(t, e, "GET", "/emulator/token-requests"+query, ""); code != 400 {
			t.Errorf("log %s: got %d", query, code)
		}
	}
	refresh(t, e, 2, "contoso.example", "a")
	refresh(t, e, 1, "contoso.example", "b")
	if _, body := admin(t, e, "GET", "/emulator/token-requests?limit=1", ""); strings.Count(body, `"time"`) != 1 || !strings.Contains(body, `"version":1`) {
		t.Errorf("the last request: got %s", body)
	}
}
