package emulator_test

import (
	"strings"
	"testing"

	"github.com/mandate-sam/mandate/emulator"
	"github.com/mandate-sam/mandate/emulator/directory"
)

const relationships = "/v1.0/tenantRelationships/delegatedAdminRelationships"

// delegator is Contoso's administrator with the permission to manage
// delegated administration, and the refresh token.
func delegator(t *testing.T, e *emulator.Emulator) (graph, refresh string) {
	t.Helper()
	if err := e.Consent("contoso.example", emulator.ApplicationID, emulator.Graph, "User.Read", "DelegatedAdminRelationship.ReadWrite.All"); err != nil {
		t.Fatal(err)
	}
	rt := consented(t, e, 2, "admin@contoso.example").str("refresh_token")
	return graphToken(t, e, "contoso.example", rt), rt
}

func relationshipFor(customer string) string {
	return `{"displayName":"New","duration":"P30D","customer":{"tenantId":"` + customer + `"},"accessDetails":{"unifiedRoles":[{"roleDefinitionId":"` + directory.RoleCloudAppAdmin + `"},{"roleDefinitionId":"` + directory.RoleGlobalReader + `"}]}}`
}

// The life of a relationship, and what it means for the tokens that the
// partner gets in the customer's tenant.
func TestRelationshipLife(t *testing.T) {
	e := start(t)
	tok, rt := delegator(t, e)
	ask := func() int {
		return token(t, e, 2, "wingtip.example", "refresh_token", "refresh_token", rt, "scope", "User.Read").code()
	}
	if err := e.Consent("wingtip.example", emulator.ApplicationID, emulator.Graph, "User.Read", "DelegatedAdminRelationship.ReadWrite.All"); err != nil {
		t.Fatal(err)
	}
	if got := ask(); got != 50020 {
		t.Fatalf("before: got %d, want 50020", got)
	}
	a := exchange(t, e, "POST", e.Endpoints().Graph+relationships, tok, relationshipFor(emulator.WingtipTenant))
	if a.status != 201 || a.str("status") != "created" || a.raw["activatedDateTime"] != nil || !strings.HasSuffix(a.header.Get("Location"), a.str("id")) {
		t.Fatalf("create: %d, %v", a.status, a.raw)
	}
	u := e.Endpoints().Graph + relationships + "/" + a.str("id")
	etag := a.str("@odata.etag")
	for _, row := range []struct {
		method, match, body string
		status              int
		code                string
	}{
		{"PATCH", "", `{"displayName":"Newer"}`, 428, "PreconditionRequired"},
		{"PATCH", `W/"stale"`, `{"displayName":"Newer"}`, 412, "PreconditionFailed"},
		{"PATCH", etag, `{"duration":"P3Y"}`, 400, "Request_BadRequest"},
		{"PATCH", etag, `{"duration":"30"}`, 400, "Request_BadRequest"},
		{"PATCH", etag, `{"autoExtendDuration":"P1D"}`, 400, "Request_BadRequest"},
		{"PATCH", etag, `{"customer":{"tenantId":"nobody"}}`, 400, "Request_BadRequest"},
		{"PATCH", etag, `{"accessDetails":{"unifiedRoles":[]}}`, 400, "Request_BadRequest"},
		{"PATCH", etag, `{"displayName":"Newer"}`, 200, ""},
		{"PATCH", etag, `{"displayName":"Newest"}`, 412, "PreconditionFailed"},
		{"DELETE", etag, ``, 412, "PreconditionFailed"},
	} {
		if a := exchange(t, e, row.method, u, tok, row.body, "If-Match", row.match); a.status != row.status || a.errorCode() != row.code {
			t.Errorf("%s %s with %q: got %d, %v, want %d, %s", row.method, row.body, row.match, a.status, a.raw, row.status, row.code)
		}
	}
	act := func(tok, action string, status int) answer {
		t.Helper()
		a := exchange(t, e, "POST", u+"/requests", tok, `{"action":"`+action+`"}`)
		if a.status != status {
			t.Fatalf("%s: got %d, %v, want %d", action, a.status, a.raw, status)
		}
		return a
	}
	olga := graphToken(t, e, "wingtip.example", consented(t, e, 2, "owner@wingtip.example").str("refresh_token"))
	ines := graphToken(t, e, "wingtip.example", consented(t, e, 2, "ines@wingtip.example", "scope", "offline_access User.Read").str("refresh_token"))
	act(tok, "terminate", 409)
	act(olga, "approve", 409)
	act(tok, "jump", 400)
	request := act(tok, "lockForApproval", 201)
	if got := call(t, e, request.header.Get("Location"), tok); got.status != 200 || got.str("status") != "succeeded" {
		t.Errorf("the request: %d, %v", got.status, got.raw)
	}
	if a := exchange(t, e, "PATCH", u, tok, `{"displayName":"Late"}`, "If-Match", "*"); a.status != 409 {
		t.Errorf("a change when it is locked: %d, %v", a.status, a.raw)
	}
	act(tok, "approve", 403)
	act(ines, "approve", 403)
	if got := ask(); got != 50020 {
		t.Errorf("locked: got %d, want 50020", got)
	}
	act(olga, "approve", 201)
	in := token(t, e, 2, "wingtip.example", "refresh_token", "refresh_token", rt, "scope", "User.Read")
	if in.status != 200 {
		t.Fatalf("active: %v", in.raw)
	}
	if got := claims(t, in.str("access_token"))["wids"]; len(got.([]any)) != 2 {
		t.Errorf("got wids %v", got)
	}
	if a := exchange(t, e, "PATCH", u, tok, `{"autoExtendDuration":"P180D"}`, "If-Match", "*"); a.status != 200 || a.str("autoExtendDuration") != "P180D" {
		t.Errorf("extension: %d, %v", a.status, a.raw)
	}
	if a := exchange(t, e, "DELETE", u, tok, "", "If-Match", "*"); a.status != 409 {
		t.Errorf("delete: %d, %v", a.status, a.raw)
	}
	if a := call(t, e, e.Endpoints().Graph+"/v1.0/tenantRelationships/delegatedAdminCustomers/"+emulator.WingtipTenant, tok); a.status != 200 {
		t.Errorf("the customer: %d", a.status)
	}
	act(tok, "terminate", 201)
	if got := ask(); got != 50020 {
		t.Errorf("terminated: got %d, want 50020", got)
	}
	if a := call(t, e, u, tok); a.str("status") != "terminated" {
		t.Errorf("got %v", a.raw)
	}
	act(tok, "terminate", 409)
}

// What came with the fixture can be ended through Graph, and given again.
func TestRelationshipOfTheFixture(t *testing.T) {
	e := start(t)
	tok, rt := delegator(t, e)
	ask := func() int {
		return token(t, e, 2, "adatum.example", "refresh_token", "refresh_token", rt, "scope", "User.Read").code()
	}
	u := e.Endpoints().Graph + relationships
	id := directory.RelationshipID(emulator.ContosoTenant, emulator.AdatumTenant)
	if a := exchange(t, e, "POST", u+"/"+id+"/requests", tok, `{"action":"terminate"}`); a.status != 201 {
		t.Fatalf("got %d, %v", a.status, a.raw)
	}
	if got := ask(); got != 50020 {
		t.Errorf("terminated: got %d, want 50020", got)
	}
	list, _ := call(t, e, u, tok).raw["value"].([]any)
	if len(list) != 3 || list[2].(map[string]any)["status"] != "terminated" {
		t.Errorf("got %v", list)
	}
	e.Delegate(emulator.ContosoTenant, emulator.AdatumTenant)
	if got := ask(); got != 0 {
		t.Errorf("given again: got %d", got)
	}
	if list, _ := call(t, e, u, tok).raw["value"].([]any); len(list) != 3 {
		t.Errorf("got %v", list)
	}
	a := exchange(t, e, "POST", u, tok, strings.Replace(relationshipFor(""), `"customer":{"tenantId":""},`, "", 1))
	if a.status != 201 || a.raw["customer"] != nil {
		t.Fatalf("got %d, %v", a.status, a.raw)
	}
	if err := e.ApproveRelationship(a.str("id"), "adatum.example"); err == nil {
		t.Error("approved before it was locked")
	}
	exchange(t, e, "POST", u+"/"+a.str("id")+"/requests", tok, `{"action":"lockForApproval"}`)
	if err := e.ApproveRelationship(a.str("id"), "adatum.example"); err != nil {
		t.Fatal(err)
	}
	exchange(t, e, "POST", u+"/"+id+"/requests", tok, `{"action":"terminate"}`)
	if got := ask(); got != 0 {
		t.Errorf("one of two was ended: got %d", got)
	}
	e.Undelegate(emulator.ContosoTenant, emulator.AdatumTenant)
	if got := ask(); got != 50020 {
		t.Errorf("undelegated: got %d", got)
	}
	if err := e.ApproveRelationship("nothing", "adatum.example"); err == nil {
		t.Error("an unknown relationship was approved")
	}
}

// A relationship ends by itself unless it extends itself.
func TestRelationshipExpires(t *testing.T) {
	e := start(t)
	tok, _ := delegator(t, e)
	a := exchange(t, e, "POST", e.Endpoints().Graph+relationships, tok, relationshipFor(emulator.WingtipTenant))
	u := e.Endpoints().Graph + relationships + "/" + a.str("id")
	exchange(t, e, "POST", u+"/requests", tok, `{"action":"lockForApproval"}`)
	if err := e.ApproveRelationship(a.str("id"), "wingtip.example"); err != nil {
		t.Fatal(err)
	}
	customer := e.Endpoints().PartnerCenter + "/v1/customers/" + emulator.WingtipTenant
	see := func(want int) {
		t.Helper()
		pc := consented(t, e, 2, "admin@contoso.example").str("access_token")
		if got := call(t, e, customer, pc); got.status != want {
			t.Errorf("got %d, want %d", got.status, want)
		}
	}
	see(200)
	e.Dial(func(d *emulator.Dials) { d.ClockOffset = 31 * 24 * 3600e9 })
	see(404)
	tok, _ = delegator(t, e)
	if got := call(t, e, u, tok); got.str("status") != "expired" {
		t.Errorf("got %v", got.raw)
	}
}

// Those who may not change relationships, and those of others.
func TestRelationshipRefuses(t *testing.T) {
	e := start(t)
	tok, _ := delegator(t, e)
	if err := e.Consent("fabrikam.example", emulator.ApplicationID, emulator.Graph, "User.Read", "DelegatedAdminRelationship.ReadWrite.All"); err != nil {
		t.Fatal(err)
	}
	other := graphToken(t, e, "fabrikam.example", consented(t, e, 2, "admin@fabrikam.example").str("refresh_token"))
	tech := graphToken(t, e, "contoso.example", consented(t, e, 2, "tech@contoso.example", "scope", "offline_access User.Read").str("refresh_token"))
	u := e.Endpoints().Graph + relationships
	own := u + "/" + directory.RelationshipID(emulator.ContosoTenant, emulator.AdatumTenant)
	for _, row := range []struct {
		name, method, url, token, body string
		status                         int
	}{
		{"no agent creates", "POST", u, tech, relationshipFor(emulator.WingtipTenant), 403},
		{"no agent terminates", "POST", own + "/requests", tech, `{"action":"terminate"}`, 403},
		{"no agent reads", "GET", own, tech, "", 200},
		{"another partner reads", "GET", own, other, "", 404},
		{"another partner terminates", "POST", own + "/requests", other, `{"action":"terminate"}`, 404},
		{"nothing", "POST", u, tok, `{}`, 400},
		{"no JSON", "POST", u, tok, `[`, 400},
		{"with itself", "POST", u, tok, relationshipFor(emulator.ContosoTenant), 400},
		{"with nobody", "POST", u, tok, relationshipFor("x"), 400},
		{"no roles", "POST", u, tok, `{"displayName":"x","duration":"P1D","accessDetails":{"unifiedRoles":[{}]}}`, 400},
		{"unknown", "DELETE", u + "/x", tok, "", 404},
		{"unknown request", "GET", own + "/requests/x", tok, "", 404},
		{"unknown assignment", "PATCH", own + "/accessAssignments/x", tok, `{}`, 404},
	} {
		t.Run(row.name, func(t *testing.T) {
			if a := exchange(t, e, row.method, row.url, row.token, row.body, "If-Match", "*"); a.status != row.status {
				t.Errorf("got %d, %v, want %d", a.status, a.raw, row.status)
			}
		})
	}
	a := exchange(t, e, "POST", u, tok, relationshipFor(emulator.WingtipTenant))
	at := u + "/" + a.str("id")
	if a := exchange(t, e, "DELETE", at, tok, "", "If-Match", a.str("@odata.etag")); a.status != 204 {
		t.Errorf("delete: %d, %v", a.status, a.raw)
	}
	if a := call(t, e, at, tok); a.status != 404 {
		t.Errorf("got %d, %v", a.status, a.raw)
	}
}

// A partner that acts in the customer's tenant already cannot give itself more
// in the customer's name.
func TestPartnerCannotApproveForCustomer(t *testing.T) {
	e := start(t)
	tok, rt := delegator(t, e)
	if err := e.Consent("adatum.example", emulator.ApplicationID, emulator.Graph, "DelegatedAdminRelationship.ReadWrite.All"); err != nil {
		t.Fatal(err)
	}
	inside := graphToken(t, e, "adatum.example", rt)
	a := exchange(t, e, "POST", e.Endpoints().Graph+relationships, tok, relationshipFor(emulator.AdatumTenant))
	u := e.Endpoints().Graph + relationships + "/" + a.str("id") + "/requests"
	exchange(t, e, "POST", u, tok, `{"action":"lockForApproval"}`)
	for _, action := range []string{"approve", "reject"} {
		if a := exchange(t, e, "POST", u, inside, `{"action":"`+action+`"}`); a.status != 403 {
			t.Errorf("%s: got %d, %v", action, a.status, a.raw)
		}
	}
	olga := graphToken(t, e, "adatum.example", consented(t, e, 2, "owner@adatum.example").str("refresh_token"))
	if a := exchange(t, e, "POST", u, olga, `{"action":"reject"}`); a.status != 201 {
		t.Errorf("got %d, %v", a.status, a.raw)
	}
	if a := exchange(t, e, "POST", u, olga, `{"action":"approve"}`); a.status != 409 {
		t.Errorf("got %d, %v", a.status, a.raw)
	}
}

func TestAccessAssignments(t *testing.T) {
	e := start(t)
	tok, rt := delegator(t, e)
	a := exchange(t, e, "POST", e.Endpoints().Graph+relationships, tok, relationshipFor(emulator.WingtipTenant))
	u := e.Endpoints().Graph + relationships + "/" + a.str("id")
	body := func(group, role string) string {
		return `{"accessContainer":{"accessContainerId":"` + group + `","accessContainerType":"securityGroup"},"accessDetails":{"unifiedRoles":[{"roleDefinitionId":"` + role + `"}]}}`
	}
	agents := directory.GroupID(emulator.ContosoTenant, directory.AdminAgents)
	add := func(body string, status int) answer {
		t.Helper()
		a := exchange(t, e, "POST", u+"/accessAssignments", tok, body)
		if a.status != status {
			t.Errorf("%s: got %d, %v, want %d", body, a.status, a.raw, status)
		}
		return a
	}
	add(body(agents, directory.RoleGlobalReader), 409)
	exchange(t, e, "POST", u+"/requests", tok, `{"action":"lockForApproval"}`)
	if err := e.ApproveRelationship(a.str("id"), "wingtip.example"); err != nil {
		t.Fatal(err)
	}
	add(`{}`, 400)
	add(body("x", directory.RoleGlobalReader), 400)
	add(body(agents, directory.RoleGlobalAdmin), 400)
	one := add(body(agents, directory.RoleGlobalReader), 201)
	add(body(agents, directory.RoleGlobalReader), 409)
	if err := e.Consent("wingtip.example", emulator.ApplicationID, emulator.Graph, "User.Read"); err != nil {
		t.Fatal(err)
	}
	wids := func() any {
		return claims(t, token(t, e, 2, "wingtip.example", "refresh_token", "refresh_token", rt, "scope", "User.Read").str("access_token"))["wids"]
	}
	if got, _ := wids().([]any); len(got) != 1 || got[0] != directory.RoleGlobalReader {
		t.Errorf("got wids %v", got)
	}
	at := u + "/accessAssignments/" + one.str("id")
	change := `{"accessDetails":{"unifiedRoles":[{"roleDefinitionId":"` + directory.RoleCloudAppAdmin + `"}]}}`
	if a := exchange(t, e, "PATCH", at, tok, change); a.status != 428 {
		t.Errorf("got %d, %v", a.status, a.raw)
	}
	if a := exchange(t, e, "PATCH", at, tok, change, "If-Match", one.str("@odata.etag")); a.status != 200 {
		t.Errorf("got %d, %v", a.status, a.raw)
	}
	if got, _ := wids().([]any); len(got) != 1 || got[0] != directory.RoleCloudAppAdmin {
		t.Errorf("got wids %v", got)
	}
	if a := exchange(t, e, "DELETE", at, tok, "", "If-Match", one.str("@odata.etag")); a.status != 412 {
		t.Errorf("got %d, %v", a.status, a.raw)
	}
	if a := exchange(t, e, "DELETE", at, tok, "", "If-Match", "*"); a.status != 204 {
		t.Errorf("got %d, %v", a.status, a.raw)
	}
	if a := call(t, e, at, tok); a.status != 404 {
		t.Errorf("got %d, %v", a.status, a.raw)
	}
}
