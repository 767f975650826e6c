package emulator_test

import (
	"net/url"
	"testing"

	"github.com/mandate-sam/mandate/emulator"
)

// partnerToken redeems a sign-in for Partner Center.
func partnerToken(t *testing.T, e *emulator.Emulator, upn string) string {
	t.Helper()
	return consented(t, e, 2, upn).str("access_token")
}

// appToken gets an application's own token.
func appToken(t *testing.T, e *emulator.Emulator, tenant, resource string) string {
	t.Helper()
	a := token(t, e, 1, tenant, "client_credentials", "resource", resource)
	if a.status != 200 {
		t.Fatal(a.raw)
	}
	return a.str("access_token")
}

func TestPartnerCenterRefuses(t *testing.T) {
	e := start(t)
	const pc = "https://api.partnercenter.microsoft.com"
	if err := e.Register(emulator.Application{ID: emulator.ApplicationID, RedirectURIs: []string{redirect}, Secrets: []string{emulator.ApplicationSecret},
		Access: []emulator.Access{{Resource: pc, Scopes: []string{"user_impersonation"}}, {Resource: emulator.Graph, Scopes: []string{"User.Read"}}, {Resource: emulator.AzureADGraph, Scopes: []string{"User.Read"}}}}); err != nil {
		t.Fatal(err)
	}
	admin := consented(t, e, 2, "admin@contoso.example")
	other := func(tenant, resource string) string {
		return token(t, e, 1, tenant, "refresh_token", "refresh_token", admin.str("refresh_token"), "resource", resource).str("access_token")
	}
	nomfa, tech := partnerToken(t, e, "nomfa@contoso.example"), partnerToken(t, e, "tech@contoso.example")
	app := appToken(t, e, "contoso.example", pc)
	e.Dial(func(d *emulator.Dials) { d.EnforceMFA = true })
	adatum := "/v1/customers/" + emulator.AdatumTenant
	for _, row := range []struct {
		name, path, token string
		status            int
		code              string
	}{
		{"good", "/v1/customers", admin.str("access_token"), 200, ""},
		{"profile", "/v1/profiles/organization", admin.str("access_token"), 200, ""},
		{"two slashes", "//v1//customers", admin.str("access_token"), 200, ""},
		{"customer by id", adatum, admin.str("access_token"), 200, ""},
		{"no token", "/v1/customers", "", 401, "1002"},
		{"not a token", "/v1/customers", "x.y.z", 401, "1002"},
		{"ID token", "/v1/customers", admin.str("id_token"), 401, "1002"},
		{"Graph's token", "/v1/customers", other("contoso.example", "https://graph.microsoft.com"), 401, "1002"},
		{"retired audience", "/v1/customers", other("contoso.example", "https://graph.windows.net"), 401, "900420"},
		{"without MFA", "/v1/customers", nomfa, 401, "900421"},
		{"no agent", "/v1/customers", tech, 403, "900308"},
		{"no agent's own profile", "/v1/profiles/organization", tech, 200, ""},
		{"customer's tenant", "/v1/customers", other("adatum.example", pc), 403, "900308"},
		{"application, list", "/v1/customers", app, 200, ""},
		{"application, customer", adatum, app, 200, ""},
		{"application, users", adatum + "/users", app, 403, "900329"},
		{"application, profile", "/v1/profiles/organization", app, 403, "900329"},
		{"another partner's customer", "/v1/customers/" + emulator.TailspinTenant, admin.str("access_token"), 404, "60003"},
		{"no such customer", "/v1/customers/x/users", admin.str("access_token"), 404, "60003"},
		{"no such path", "/v1/nothing", admin.str("access_token"), 404, "3000"},
	} {
		t.Run(row.name, func(t *testing.T) {
			a := call(t, e, e.Endpoints().PartnerCenter+row.path, row.token, "MS-RequestId", "r-1", "ms-correlationid", "c-1")
			if a.status != row.status || a.str("code") != row.code {
				t.Errorf("got %d, %q, want %d, %q", a.status, a.str("code"), row.status, row.code)
			}
			if a.header.Get("MS-RequestId") != "r-1" || a.header.Get("MS-CorrelationId") != "c-1" {
				t.Errorf("got ids %q, %q", a.header.Get("MS-RequestId"), a.header.Get("MS-CorrelationId"))
			}
			if got := a.header.Get("WWW-Authenticate") != ""; got != (row.status == 401) {
				t.Errorf("WWW-Authenticate: %v", a.header)
			}
			if row.status >= 400 && (a.str("description") == "" || a.raw["data"] == nil) {
				t.Errorf("got %v", a.raw)
			}
		})
	}
}

func TestMFAVerdict(t *testing.T) {
	e := start(t)
	tokens := map[bool]string{true: partnerToken(t, e, "admin@contoso.example"), false: partnerToken(t, e, "nomfa@contoso.example")}
	for _, row := range []struct {
		dial   string
		mfa    bool
		header string
		body   any
	}{
		{"", true, "true", nil}, {"", false, "false", nil},
		{"absent", true, "", nil},
		{"body", true, "", true}, {"body", false, "", false},
		{"contradict", true, "false", nil}, {"contradict", false, "true", nil},
		{"garbage", true, "maybe", nil},
		{"true", false, "true", nil}, {"false", true, "false", nil},
	} {
		e.Dial(func(d *emulator.Dials) { d.MFAVerdict = row.dial })
		a := call(t, e, e.Endpoints().PartnerCenter+"/v1/profiles/organization", tokens[row.mfa], "ValidateMfa", "true")
		if got := a.header.Get("isMfaCompliant"); got != row.header || a.raw["isMfaCompliant"] != row.body {
			t.Errorf("dial %q, MFA %v: got header %q, body %v, want %q, %v", row.dial, row.mfa, got, a.raw["isMfaCompliant"], row.header, row.body)
		}
	}
	e.Dial(func(d *emulator.Dials) { d.MFAVerdict = "" })
	if a := call(t, e, e.Endpoints().PartnerCenter+"/v1/customers", tokens[true]); a.header.Get("isMfaCompliant") != "" {
		t.Error("a verdict that nobody asked for")
	}
}

func TestAMRAbsent(t *testing.T) {
	e := start(t)
	e.Dial(func(d *emulator.Dials) { d.AMRAbsent = true })
	a := consented(t, e, 1, "admin@contoso.example")
	for _, name := range []string{"access_token", "id_token"} {
		if got := claims(t, a.str(name))["amr"]; got != nil {
			t.Errorf("%s has amr %v", name, got)
		}
	}
}

func TestPaging(t *testing.T) {
	e := start(t)
	tok := partnerToken(t, e, "sales@contoso.example")
	base := e.Endpoints().PartnerCenter + "/v1/"
	var names []string
	next, cont := "/customers?size=1", ""
	for pages := 0; next != ""; pages++ {
		if pages == 4 {
			t.Fatal("the pages do not end")
		}
		a := call(t, e, base+next, tok, "MS-ContinuationToken", cont)
		if a.status != 200 {
			t.Fatalf("%s: %v", next, a.raw)
		}
		for _, item := range a.raw["items"].([]any) {
			names = append(names, item.(map[string]any)["companyProfile"].(map[string]any)["companyName"].(string))
		}
		links := a.raw["links"].(map[string]any)
		n, ok := links["next"].(map[string]any)
		if next = ""; ok {
			next = n["uri"].(string)
			h := n["headers"].([]any)[0].(map[string]any)
			if cont = h["value"].(string); h["key"] != "MS-ContinuationToken" || cont != a.str("continuationToken") {
				t.Errorf("got header %v", h)
			}
		}
	}
	if len(names) != 3 || names[0] != "Adatum" {
		t.Errorf("got %q, want three customers", names)
	}
	for _, q := range []string{"size=0", "size=501", "size=x", "seekOperation=Next", "seekOperation=Last&continuationToken=x", "seekOperation=Next&continuationToken=x", "filter=x", "filter=" + url.QueryEscape(`{"Field":"Shoe","Operator":"starts_with"}`)} {
		if a := call(t, e, base+"customers?"+q, tok); a.status != 400 {
			t.Errorf("%s: got %d, want 400", q, a.status)
		}
	}
	for _, filter := range []string{`{"Field":"CompanyName","Value":"lit","Operator":"starts_with"}`, `{"value":"lit","field":"CompanyName","fieldType":"String","operator":"StartsWith"}`} {
		if a := call(t, e, base+"customers?filter="+url.QueryEscape(filter), tok); a.raw["totalCount"] != 1.0 {
			t.Errorf("filter %s: got %v", filter, a.raw)
		}
	}
	if a := call(t, e, base+"customers?filter="+url.QueryEscape(`{"Field":"CompanyName","Value":"lit","Operator":"Equals"}`), tok); a.status != 400 {
		t.Errorf("filter of another kind: got %d, want 400", a.status)
	}
	foreign := call(t, e, base+"customers?size=1", partnerToken(t, e, "admin@fabrikam.example")).str("continuationToken")
	if a := call(t, e, base+"customers?size=1&seekOperation=Next", tok, "MS-ContinuationToken", foreign); a.status != 400 {
		t.Errorf("another partner's continuation: got %d, want 400", a.status)
	}
}

func TestGraphAndARM(t *testing.T) {
	e := start(t)
	rt := consented(t, e, 2, "admin@contoso.example").str("refresh_token")
	get := func(tenant, resource string) string {
		return token(t, e, 1, tenant, "refresh_token", "refresh_token", rt, "resource", resource).str("access_token")
	}
	ep := e.Endpoints()
	home, away, arm := get("contoso.example", ep.Graph), get("adatum.example", "https://graph.microsoft.com/"), get("adatum.example", "https://management.core.windows.net/")
	app := appToken(t, e, "contoso.example", "https://graph.microsoft.com")
	if err := e.RemoveConsent("proseware.example", emulator.ApplicationID, emulator.Graph); err != nil {
		t.Fatal(err)
	}
	if err := e.Consent("proseware.example", emulator.ApplicationID, emulator.Graph, "DelegatedAdminRelationship.Read.All"); err != nil {
		t.Fatal(err)
	}
	narrow := get("proseware.example", emulator.Graph)
	sub := "/subscriptions/50000000-0004-4000-8000-000000000000"
	for _, row := range []struct {
		name, url, token string
		status           int
		code             string
	}{
		{"me", ep.Graph + "/v1.0/me", home, 200, ""},
		{"memberOf", ep.Graph + "/v1.0/me/memberOf", home, 200, ""},
		{"memberOf of an unknown type", ep.Graph + "/v1.0/me/memberOf/microsoft.graph.shoe", home, 400, "BadRequest"},
		{"organization", ep.Graph + "/v1.0/organization", away, 200, ""},
		{"domains", ep.Graph + "/v1.0/domains", away, 200, ""},
		{"users", ep.Graph + "/v1.0/users", away, 200, ""},
		{"no token", ep.Graph + "/v1.0/me", "", 401, "InvalidAuthenticationToken"},
		{"bad token", ep.Graph + "/v1.0/me", "x", 401, "InvalidAuthenticationToken"},
		{"ARM's token", ep.Graph + "/v1.0/me", arm, 401, "InvalidAuthenticationToken"},
		{"me away", ep.Graph + "/v1.0/me", away, 404, "Request_ResourceNotFound"},
		{"missing scope", ep.Graph + "/v1.0/users", narrow, 403, "Authorization_RequestDenied"},
		{"application", ep.Graph + "/v1.0/me", app, 403, "Authorization_RequestDenied"},
		{"no such segment", ep.Graph + "/v1.0/shoes", home, 400, "BadRequest"},
		{"subscriptions", ep.ARM + "/subscriptions?api-version=2022-12-01", arm, 200, ""},
		{"subscription", ep.ARM + sub + "?api-version=2022-12-01", arm, 200, ""},
		{"resource groups", ep.ARM + sub + "/resourceGroups?api%2Dversion=2021-04-01", arm, 200, ""},
		{"no version", ep.ARM + "/subscriptions", arm, 400, "MissingApiVersionParameter"},
		{"no token", ep.ARM + "/subscriptions?api-version=1", "", 401, "AuthenticationFailed"},
		{"bad token", ep.ARM + "/subscriptions?api-version=1", "x", 401, "InvalidAuthenticationToken"},
		{"Graph's token", ep.ARM + "/subscriptions?api-version=1", away, 401, "InvalidAuthenticationTokenAudience"},
		{"other subscription", ep.ARM + "/subscriptions/x?api-version=1", arm, 404, "SubscriptionNotFound"},
		{"no such path", ep.ARM + "/shoes?api-version=1", arm, 404, "NotFound"},
	} {
		t.Run(row.name, func(t *testing.T) {
			a := call(t, e, row.url, row.token)
			got, _ := a.raw["error"].(map[string]any)
			if a.status != row.status || row.code != "" && got["code"] != row.code {
				t.Errorf("got %d, %v, want %d, %s", a.status, a.raw, row.status, row.code)
			}
			if got := a.header.Get("WWW-Authenticate") != ""; got != (row.status == 401) {
				t.Errorf("WWW-Authenticate: %v", a.header)
			}
		})
	}
}
