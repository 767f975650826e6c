package emulator_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/mandate-sam/mandate/emulator"
	"github.com/mandate-sam/mandate/emulator/directory"
)

// daemon is an application that asks for application permissions; inventory is
// an API with roles.
const (
	daemon    = "b0000000-0000-4000-8000-0000000000d1"
	inventory = "b0000000-0000-4000-8000-0000000000a1"
)

func registerDaemon(t *testing.T, e *emulator.Emulator) {
	t.Helper()
	register(t, e, emulator.Application{
		ID: inventory, Name: "Inventory", Tenant: emulator.ContosoTenant, RedirectURIs: []string{redirect}, Secrets: []string{"inventory"},
		Exposes: []emulator.Scope{{Name: "Use", Text: "Use the inventory."}},
		AppRoles: []directory.AppRole{
			{Value: "Stock.Read", Text: "Read the stock.", Members: []string{directory.MemberApplication}},
			{Value: "Clerk", Members: []string{directory.MemberUser}},
			{Value: "Auditor"},
		},
	})
	register(t, e, emulator.Application{
		ID: daemon, Name: "Daemon", Tenant: emulator.CPVTenant, RedirectURIs: []string{redirect}, Secrets: []string{"daemon"},
		Access: []emulator.Access{{Resource: emulator.Graph, Scopes: []string{"User.Read"}, Roles: []string{"Directory.Read.All"}}, {Resource: inventory, Roles: []string{"Stock.Read"}}},
	})
}

// daemonRoles are the roles in the application's own token.
func daemonRoles(t *testing.T, e *emulator.Emulator, version int, resource string) string {
	t.Helper()
	f := []string{"client_id", daemon, "client_secret", "daemon", "resource", resource}
	if version == 2 {
		f = []string{"client_id", daemon, "client_secret", "daemon", "scope", resource + "/.default"}
	}
	a := token(t, e, version, "contoso.example", "client_credentials", f...)
	if a.status != 200 {
		t.Fatalf("got %v", a.raw)
	}
	c := claims(t, a.str("access_token"))
	if c["scp"] != nil || c["upn"] != nil {
		t.Errorf("an application's token has scp %v, upn %v", c["scp"], c["upn"])
	}
	return fmt.Sprint(c["roles"])
}

// What an administrator consents to is in the application's own tokens, and
// the services go by it.
func TestApplicationPermissions(t *testing.T) {
	for _, version := range []int{1, 2} {
		t.Run(fmt.Sprintf("v%d", version), func(t *testing.T) {
			e := start(t)
			registerDaemon(t, e)
			w := newWalker(t, e)
			p := w.signIn(adminConsentURL(e, version, "contoso.example", "client_id", daemon, "scope", "https://graph.microsoft.com/.default"), person{upn: "admin@contoso.example"})
			if p.out.Get("admin_consent") != "True" || p.out.Get("error") != "" {
				t.Fatalf("got %s %v", p.id, p.out)
			}
			if got := daemonRoles(t, e, version, "https://graph.microsoft.com"); got != "[Directory.Read.All]" {
				t.Errorf("Graph: got roles %s", got)
			}
			if got := daemonRoles(t, e, version, "api://"+inventory); got != "[Stock.Read]" {
				t.Errorf("inventory: got roles %s", got)
			}
			own := token(t, e, 2, "contoso.example", "client_credentials", "client_id", daemon, "client_secret", "daemon", "scope", "https://graph.microsoft.com/.default").str("access_token")
			if a := call(t, e, e.Endpoints().Graph+"/v1.0/users", own); a.status != 200 {
				t.Errorf("users: got %v", a.raw)
			}
			if a := exchange(t, e, "POST", e.Endpoints().Graph+"/v1.0/applications", own, `{"displayName":"x"}`); a.status != 403 {
				t.Errorf("a permission that was not given: got %v", a.raw)
			}
			if err := e.RemoveConsent("contoso.example", daemon, emulator.Graph); err != nil {
				t.Fatal(err)
			}
			if got := daemonRoles(t, e, version, "https://graph.microsoft.com"); got != "<nil>" {
				t.Errorf("after removal: got roles %s", got)
			}
		})
	}
}

// Only an administrator can consent to application permissions, and sees them
// on the page.
func TestApplicationPermissionsNeedAnAdministrator(t *testing.T) {
	e := start(t)
	registerDaemon(t, e)
	u := authorizeURL(e, 2, "contoso.example", "client_id", daemon, "scope", "openid https://graph.microsoft.com/.default")
	w := newWalker(t, e)
	p := w.signIn(u, person{upn: "helpdesk@contoso.example"})
	if w.pages[len(w.pages)-1] != "approval" {
		t.Errorf("a user got pages %q, %v", w.pages, p.out)
	}
	if got := daemonRolesOrNone(t, e); got != "" {
		t.Errorf("got roles %s", got)
	}
	w = newWalker(t, e)
	if p = w.signIn(u, person{upn: "admin@contoso.example"}); p.out.Get("code") == "" {
		t.Fatalf("got %s %v", p.id, p.out)
	}
	if got := daemonRoles(t, e, 2, "https://graph.microsoft.com"); got != "[Directory.Read.All]" {
		t.Errorf("got roles %s", got)
	}
	// Named scopes bring no application permissions along.
	if err := e.RemoveConsent("contoso.example", daemon, ""); err != nil {
		t.Fatal(err)
	}
	newWalker(t, e).signIn(authorizeURL(e, 2, "contoso.example", "client_id", daemon, "scope", "openid User.Read"), person{upn: "admin@contoso.example"})
	if got := daemonRoles(t, e, 2, "https://graph.microsoft.com"); got != "<nil>" {
		t.Errorf("after consent to a scope: got roles %s", got)
	}
}

// daemonRolesOrNone is empty if the application is not there at all.
func daemonRolesOrNone(t *testing.T, e *emulator.Emulator) string {
	t.Helper()
	a := token(t, e, 2, "contoso.example", "client_credentials", "client_id", daemon, "client_secret", "daemon", "scope", "https://graph.microsoft.com/.default")
	if a.code() == 700016 {
		return ""
	}
	return fmt.Sprint(claims(t, a.str("access_token"))["roles"])
}

// A user's roles are in tokens for the API and in ID tokens for its client,
// and nowhere else.
func TestUserRoles(t *testing.T) {
	e := start(t)
	registerDaemon(t, e)
	const upn = "admin@contoso.example"
	if err := e.AssignRoles("contoso.example", upn, inventory, "clerk", "Auditor"); err != nil {
		t.Fatal(err)
	}
	sign := func() (access, id map[string]any) {
		p := newWalker(t, e).signIn(authorizeURL(e, 2, "contoso.example", "client_id", inventory, "scope", "openid api://"+inventory+"/Use"), person{upn: upn})
		a := token(t, e, 2, "contoso.example", "authorization_code", "client_id", inventory, "client_secret", "inventory", "code", p.out.Get("code"), "redirect_uri", redirect)
		if a.status != 200 {
			t.Fatal(a.raw)
		}
		return claims(t, a.str("access_token")), claims(t, a.str("id_token"))
	}
	access, id := sign()
	if got := fmt.Sprint(access["roles"], id["roles"]); got != "[Clerk Auditor] [Clerk Auditor]" {
		t.Errorf("got roles %s", got)
	}
	if c := claims(t, consented(t, e, 2, upn).str("access_token")); c["roles"] != nil {
		t.Errorf("a token for Partner Center has roles %v", c["roles"])
	}
	if err := e.RemoveRoles("contoso.example", upn, inventory, "Clerk"); err != nil {
		t.Fatal(err)
	}
	if access, _ = sign(); fmt.Sprint(access["roles"]) != "[Auditor]" {
		t.Errorf("after removal: got roles %v", access["roles"])
	}
	for _, row := range []struct{ principal, role string }{{upn, "Stock.Read"}, {daemon, "Clerk"}, {upn, "None"}, {"nobody@contoso.example", "Auditor"}} {
		if err := e.AssignRoles("contoso.example", row.principal, inventory, row.role); err == nil {
			t.Errorf("%s got the role %s", row.principal, row.role)
		}
	}
	err := e.Register(emulator.Application{ID: daemon, Access: []emulator.Access{{Resource: inventory, Roles: []string{"Clerk"}}}})
	if err == nil || !strings.Contains(err.Error(), "Clerk") {
		t.Errorf("an application that asks for a user's role: got %v", err)
	}
}

// Graph shows roles, and gives and takes them.
func TestGraphAppRoles(t *testing.T) {
	e := start(t)
	registerDaemon(t, e)
	if err := e.Consent("contoso.example", emulator.ApplicationID, emulator.Graph, "AppRoleAssignment.ReadWrite.All", "Application.Read.All"); err != nil {
		t.Fatal(err)
	}
	if err := e.Consent("contoso.example", daemon, emulator.Graph, "User.Read"); err != nil {
		t.Fatal(err)
	}
	tok, _ := writer(t, e)
	principal := directory.PrincipalID(emulator.ContosoTenant, daemon)
	graph := directory.PrincipalID(emulator.ContosoTenant, emulator.Graph)
	u := e.Endpoints().Graph + "/v1.0/servicePrincipals/" + principal + "/appRoleAssignments"
	const readAll = "7ab1d382-f21e-4acd-a863-ba3e13f7da61" // Directory.Read.All, the same everywhere
	body := `{"principalId":"` + principal + `","resourceId":"` + graph + `","appRoleId":"` + readAll + `"}`
	a := exchange(t, e, "POST", u, tok, body)
	if a.status != 201 || a.str("principalType") != "ServicePrincipal" || a.str("appRoleId") != readAll {
		t.Fatalf("got %d %v", a.status, a.raw)
	}
	if got := daemonRoles(t, e, 2, "https://graph.microsoft.com"); got != "[Directory.Read.All]" {
		t.Errorf("got roles %s", got)
	}
	if got := exchange(t, e, "POST", u, tok, body); got.status != 400 {
		t.Errorf("twice: got %d", got.status)
	}
	for name, bad := range map[string]string{
		"other principal": strings.Replace(body, principal, graph, 1), "unknown role": strings.Replace(body, readAll, principal, 1),
		"no resource": strings.Replace(body, graph, readAll, 1), "no body": `[]`,
	} {
		if got := exchange(t, e, "POST", u, tok, bad); got.status != 400 {
			t.Errorf("%s: got %d", name, got.status)
		}
	}
	if list := call(t, e, u, tok).raw["value"].([]any); len(list) != 1 || list[0].(map[string]any)["id"] != a.raw["id"] {
		t.Errorf("got %v", list)
	}
	if got := exchange(t, e, "DELETE", u+"/"+a.str("id"), tok, ""); got.status != 204 {
		t.Errorf("remove: got %v", got.raw)
	}
	if got := exchange(t, e, "DELETE", u+"/"+a.str("id"), tok, ""); got.status != 404 {
		t.Errorf("remove again: got %d", got.status)
	}
	if got := daemonRoles(t, e, 2, "https://graph.microsoft.com"); got != "<nil>" {
		t.Errorf("after removal: got roles %s", got)
	}
	sp := call(t, e, e.Endpoints().Graph+"/v1.0/servicePrincipals(appId='"+inventory+"')", tok)
	roles, _ := sp.raw["appRoles"].([]any)
	if len(roles) != 3 {
		t.Fatalf("got appRoles %v", sp.raw["appRoles"])
	}
	admin, _ := e.User("admin@contoso.example")
	clerk := roles[1].(map[string]any)["id"].(string)
	a = exchange(t, e, "POST", e.Endpoints().Graph+"/v1.0/users/"+admin.ID+"/appRoleAssignments", tok, `{"principalId":"`+admin.ID+`","resourceId":"`+sp.str("id")+`","appRoleId":"`+clerk+`"}`)
	if a.status != 201 || a.str("principalType") != "User" {
		t.Errorf("got %d %v", a.status, a.raw)
	}
	if list := call(t, e, e.Endpoints().Graph+"/v1.0/users/"+admin.ID+"/appRoleAssignments", tok).raw["value"].([]any); len(list) != 1 {
		t.Errorf("got %v", list)
	}
}
