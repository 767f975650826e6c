package emulator_test

import (
	"strings"
	"testing"

	"github.com/mandate-sam/mandate/emulator"
)

// armToken is a token for ARM in the tenant, of the user with the refresh
// token.
func armToken(t *testing.T, e *emulator.Emulator, tenant, rt string) string {
	t.Helper()
	a := token(t, e, 1, tenant, "refresh_token", "refresh_token", rt, "resource", "https://management.azure.com/")
	if a.status != 200 {
		t.Fatal(a.raw)
	}
	return a.str("access_token")
}

func TestARMTenants(t *testing.T) {
	e := start(t)
	rt := consented(t, e, 2, "admin@contoso.example").str("refresh_token")
	for _, tenant := range []string{"contoso.example", "adatum.example"} {
		a := call(t, e, e.Endpoints().ARM+"/tenants?api-version=2020-01-01", armToken(t, e, tenant, rt))
		list, _ := a.raw["value"].([]any)
		if a.status != 200 || len(list) != 4 || list[0].(map[string]any)["tenantId"] != emulator.ContosoTenant {
			t.Errorf("%s: got %d, %v, want home and three customers", tenant, a.status, a.raw)
		}
	}
	a := call(t, e, e.Endpoints().ARM+"/subscriptions?api-version=1", armToken(t, e, "contoso.example", rt))
	if list, _ := a.raw["value"].([]any); a.status != 200 || len(list) != 0 {
		t.Errorf("subscriptions of a partner: %d, %v", a.status, a.raw)
	}
}

// azureOf is the URL of the tenant's Azure subscription.
func azureOf(t *testing.T, e *emulator.Emulator, tenant string) string {
	t.Helper()
	for _, c := range e.Tenants() {
		if c.ID == tenant {
			return e.Endpoints().ARM + "/subscriptions/" + c.Subscription
		}
	}
	t.Fatal("no such tenant")
	return ""
}

func TestARMResourceGroupsAndDeployments(t *testing.T) {
	e := start(t)
	tok := armToken(t, e, "adatum.example", consented(t, e, 2, "admin@contoso.example").str("refresh_token"))
	sub := azureOf(t, e, emulator.AdatumTenant)
	group := sub + "/resourcegroups/rg-new"
	deploy := group + "/providers/Microsoft.Resources/deployments/d1"
	const v = "?api-version=2021-04-01"
	const template = `{"properties":{"mode":"Incremental","template":{"resources":[]},"parameters":{"a":{"value":1}}}}`
	for i, row := range []struct {
		method, url, body string
		status            int
		code              string
	}{
		{"GET", group + v, "", 404, "ResourceGroupNotFound"},
		{"PUT", deploy + v, template, 404, "ResourceGroupNotFound"},
		{"PUT", group + v, "", 400, "InvalidRequestContent"},
		{"PUT", group + v, "[]", 400, "InvalidRequestContent"},
		{"PUT", group + v, "{}", 400, "LocationRequired"},
		{"PUT", sub + "/resourcegroups/a%20b" + v, `{"location":"x"}`, 400, "InvalidResourceName"},
		{"PUT", sub + "/resourcegroups/" + strings.Repeat("a", 91) + v, `{"location":"x"}`, 400, "InvalidResourceName"},
		{"PUT", group, `{"location":"westeurope"}`, 400, "MissingApiVersionParameter"},
		{"PUT", group + v, `{"location":"West Europe","tags":{"a":"b"}}`, 201, ""},
		{"PUT", strings.ToUpper(sub[len(e.Endpoints().ARM):]), "", 400, "MissingApiVersionParameter"},
		{"PUT", group + v, `{"location":"westeurope"}`, 200, ""},
		{"PUT", group + v, `{"location":"eastus"}`, 409, "InvalidResourceGroupLocation"},
		{"GET", sub + "/resourceGroups/RG-NEW" + v, "", 200, ""},
		{"GET", sub + "/resourceGroups" + v, "", 200, ""},
		{"PUT", deploy + v, "{}", 400, "InvalidTemplate"},
		{"PUT", deploy + v, `{"properties":{"mode":"x","template":{}}}`, 400, "InvalidTemplate"},
		{"PUT", deploy + v, `{"properties":7}`, 400, "InvalidRequestContent"},
		{"GET", deploy + v, "", 404, "DeploymentNotFound"},
		{"POST", group + "x/providers/Microsoft.Resources/deployments/d1/validate" + v, template, 404, "ResourceGroupNotFound"},
		{"POST", deploy + "/validate" + v, "{}", 400, "InvalidTemplate"},
		{"POST", deploy + "/validate" + v, template, 200, ""},
		{"HEAD", deploy + v, "", 404, ""}, // validated, and not made
		{"PUT", deploy + v, template, 201, ""},
		{"PUT", deploy + v, template, 200, ""},
		{"GET", deploy + v, "", 200, ""},
		{"HEAD", deploy + v, "", 204, ""},
		{"GET", deploy + "/operationStatuses/x" + v, "", 404, "DeploymentNotFound"},
		{"DELETE", deploy + "x" + v, "", 404, "DeploymentNotFound"},
		{"DELETE", deploy + v, "", 204, ""},
		{"GET", deploy + v, "", 404, "DeploymentNotFound"},
		{"PATCH", group + v, "[]", 400, "InvalidRequestContent"},
		{"PATCH", group + v, `{"tags":{"a":"c"}}`, 200, ""},
		{"PATCH", group + "x" + v, `{}`, 404, "ResourceGroupNotFound"},
		{"DELETE", group + "x" + v, "", 404, "ResourceGroupNotFound"},
		{"HEAD", group + v, "", 204, ""},
		{"HEAD", group + "x" + v, "", 404, ""},
		{"POST", group + v, "", 404, "NotFound"},
	} {
		u := row.url
		if strings.HasPrefix(u, "/") {
			u = e.Endpoints().ARM + u
		}
		if a := exchange(t, e, row.method, u, tok, row.body); a.status != row.status || a.errorCode() != row.code {
			t.Errorf("%d: %s %s: got %d, %v, want %d, %s", i, row.method, u, a.status, a.raw, row.status, row.code)
		}
	}
	a := exchange(t, e, "PUT", deploy+v, tok, template)
	if got := a.raw["properties"].(map[string]any)["provisioningState"]; got != "Accepted" {
		t.Errorf("got %v", got)
	}
	if poll := call(t, e, a.header.Get("Azure-AsyncOperation"), tok); poll.status != 200 || poll.str("status") != "Succeeded" {
		t.Errorf("poll %q: %d, %v", a.header.Get("Azure-AsyncOperation"), poll.status, poll.raw)
	}
	if got := call(t, e, deploy+v, tok).raw["properties"].(map[string]any)["provisioningState"]; got != "Succeeded" {
		t.Errorf("got %v", got)
	}
}

// A resource group is deleted a while after the request, which clients follow
// at the place that the answer names, or by asking for the group.
func TestARMDeletesResourceGroup(t *testing.T) {
	e := start(t)
	tok := armToken(t, e, "adatum.example", consented(t, e, 2, "admin@contoso.example").str("refresh_token"))
	sub := azureOf(t, e, emulator.AdatumTenant)
	const v = "?api-version=2021-04-01"
	a := exchange(t, e, "DELETE", sub+"/resourcegroups/rg-web"+v, tok, "")
	poll := a.header.Get("Location")
	if a.status != 202 || !strings.HasPrefix(poll, sub+"/operationresults/") || a.header.Get("Retry-After") == "" {
		t.Fatalf("got %d, %v", a.status, a.header)
	}
	if again := exchange(t, e, "DELETE", sub+"/resourcegroups/RG-WEB"+v, tok, ""); again.status != 202 || again.header.Get("Location") != poll {
		t.Errorf("again: got %d, %v", again.status, again.header)
	}
	for _, row := range []struct{ method, path, body, code string }{
		{"PUT", "", `{"location":"westeurope"}`, "ResourceGroupBeingDeleted"},
		{"PATCH", "", `{}`, "ResourceGroupBeingDeleted"},
		{"PUT", "/providers/Microsoft.Resources/deployments/d", `{}`, "ResourceGroupBeingDeleted"},
	} {
		if a := exchange(t, e, row.method, sub+"/resourcegroups/rg-web"+row.path+v, tok, row.body); a.status != 409 || a.errorCode() != row.code {
			t.Errorf("%s: got %d, %v", row.method, a.status, a.raw)
		}
	}
	other := armToken(t, e, "proseware.example", consented(t, e, 2, "admin@contoso.example").str("refresh_token"))
	if a := call(t, e, strings.Replace(poll, sub, azureOf(t, e, emulator.ProsewareTenant), 1), other); a.errorCode() != "OperationNotFound" {
		t.Errorf("another subscription: %d, %v", a.status, a.raw)
	}
	if a := exchange(t, e, "GET", poll, tok, ""); a.status != 202 || a.header.Get("Location") != poll {
		t.Errorf("first poll: %d, %v", a.status, a.header)
	}
	for range 2 {
		if a := exchange(t, e, "GET", poll, tok, ""); a.status != 200 {
			t.Errorf("poll: %d, %v", a.status, a.raw)
		}
	}
	if a := call(t, e, sub+"/resourcegroups/rg-web"+v, tok); a.status != 404 {
		t.Errorf("it is still there: %d", a.status)
	}
	if a := call(t, e, sub+"/operationresults/x"+v, tok); a.errorCode() != "OperationNotFound" {
		t.Errorf("got %d, %v", a.status, a.raw)
	}
	exchange(t, e, "DELETE", sub+"/resourcegroups/rg-data"+v, tok, "")
	a = call(t, e, sub+"/resourcegroups/rg-data"+v, tok)
	if a.status != 200 || a.raw["properties"].(map[string]any)["provisioningState"] != "Deleting" {
		t.Errorf("got %d, %v", a.status, a.raw)
	}
	if a := call(t, e, sub+"/resourcegroups/rg-data"+v, tok); a.status != 404 {
		t.Errorf("got %d, %v", a.status, a.raw)
	}
	if list, _ := call(t, e, sub+"/resourcegroups"+v, tok).raw["value"].([]any); len(list) != 0 {
		t.Errorf("got %v", list)
	}
}

func TestARMRefuses(t *testing.T) {
	e := start(t)
	rt := consented(t, e, 2, "admin@contoso.example").str("refresh_token")
	tok := armToken(t, e, "adatum.example", rt)
	app := appToken(t, e, "adatum.example", "https://management.azure.com/")
	if err := e.Consent("adatum.example", emulator.ApplicationID, emulator.ARM); err != nil {
		t.Fatal(err)
	}
	ines := armToken(t, e, "adatum.example", consented(t, e, 2, "ines@adatum.example", "scope", "offline_access https://management.azure.com/user_impersonation").str("refresh_token"))
	const v, body = "?api-version=1", `{"location":"westeurope"}`
	own, other := azureOf(t, e, emulator.AdatumTenant), azureOf(t, e, emulator.ProsewareTenant)
	for _, row := range []struct {
		name, method, url, token, challenge string
		status                              int
		code                                string
	}{
		{"no token", "GET", own + v, "", "/" + emulator.AdatumTenant, 401, "AuthenticationFailed"},
		{"no token, no subscription", "GET", e.Endpoints().ARM + "/subscriptions" + v, "", "/common", 401, "AuthenticationFailed"},
		{"another tenant's subscription", "GET", other + v, tok, "/" + emulator.ProsewareTenant, 401, "InvalidAuthenticationTokenTenant"},
		{"nobody's subscription", "GET", e.Endpoints().ARM + "/subscriptions/x" + v, tok, "", 404, "SubscriptionNotFound"},
		{"application reads", "GET", own + "/resourcegroups" + v, app, "", 200, ""},
		{"application writes", "PUT", own + "/resourcegroups/x" + v, app, "", 403, "AuthorizationFailed"},
		{"user writes", "PUT", own + "/resourcegroups/x" + v, ines, "", 403, "AuthorizationFailed"},
		{"user reads", "GET", own + "/resourcegroups/rg-web" + v, ines, "", 200, ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			a := exchange(t, e, row.method, row.url, row.token, body)
			if a.status != row.status || a.errorCode() != row.code {
				t.Errorf("got %d, %v, want %d, %s", a.status, a.raw, row.status, row.code)
			}
			want := ""
			if row.challenge != "" {
				want = `Bearer authorization_uri="` + e.Endpoints().Login + row.challenge + `", error="invalid_token", error_description="`
			}
			if h := a.header.Get("WWW-Authenticate"); !strings.HasPrefix(h, want) || want == "" && h != "" {
				t.Errorf("got challenge %q, want %q", h, want)
			}
		})
	}
}
