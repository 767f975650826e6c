package emulator_test

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mandate-sam/mandate/emulator"
	"github.com/mandate-sam/mandate/emulator/directory"
	"github.com/mandate-sam/mandate/emulator/fault"
)

// exchange sends a request with a bearer token, a body and pairs of header
// names and values. An answer without a body has no raw.
func exchange(t *testing.T, e *emulator.Emulator, method, u, bearer, body string, headers ...string) answer {
	t.Helper()
	req, err := http.NewRequest(method, u, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if bearer != "" {
		req.Header.Set("Authorization", "Bearer "+bearer)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	res, err := e.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	a := answer{status: res.StatusCode, header: res.Header}
	if len(bytes.TrimSpace(b)) > 0 && json.Unmarshal(b, &a.raw) != nil {
		t.Fatalf("%s %s: answer with status %d is no JSON object: %.200q", method, u, a.status, b)
	}
	return a
}

// errorCode is the code of a Graph or ARM error.
func (a answer) errorCode() string {
	e, _ := a.raw["error"].(map[string]any)
	code, _ := e["code"].(string)
	return code
}

const (
	graphID   = emulator.Graph
	consentTo = `{"applicationId":"` + emulator.ApplicationID + `","displayName":"CPV Marketplace","applicationGrants":[{"enterpriseApplicationId":"` + graphID + `","scope":"User.Read,Directory.Read.All"}]}`
)

func consentsOf(e *emulator.Emulator, customer string) string {
	return e.Endpoints().PartnerCenter + "/v1/customers/" + customer + "/applicationconsents"
}

// What the consent is for: before it no token in the customer's tenant, after
// it one with the scopes, and after it is taken back none, nor any use for the
// one that was issued.
func TestConsentMakesTokensWork(t *testing.T) {
	e := start(t)
	admin := consented(t, e, 2, "admin@fabrikam.example")
	rt, tok := admin.str("refresh_token"), admin.str("access_token")
	ask := func() answer {
		return token(t, e, 2, "wingtip.example", "refresh_token", "refresh_token", rt, "scope", "User.Read")
	}
	url := consentsOf(e, emulator.WingtipTenant)
	refused(t, ask(), 400, 90099, "invalid_grant", "")
	if a := call(t, e, url+"/"+emulator.ApplicationID, tok); a.status != 404 {
		t.Errorf("a consent that nobody gave: %d, %v", a.status, a.raw)
	}
	a := exchange(t, e, "POST", url, tok, consentTo)
	if a.status != 201 || a.str("applicationId") != emulator.ApplicationID || a.str("displayName") != "CPV Marketplace" || a.raw["applicationGrants"] == nil {
		t.Fatalf("got %d, %v", a.status, a.raw)
	}
	first := ask()
	if got := claims(t, first.str("access_token"))["scp"]; got != "User.Read Directory.Read.All" {
		t.Errorf("got scp %v", got)
	}
	users := e.Endpoints().Graph + "/v1.0/users"
	if a := call(t, e, users, first.str("access_token")); a.status != 200 {
		t.Errorf("the token does not work: %d, %v", a.status, a.raw)
	}
	again := exchange(t, e, "POST", url, tok, consentTo)
	if again.status != 409 || again.str("description") != "Permission entry already exists." {
		t.Errorf("the same again: %d, %v", again.status, again.raw)
	}
	if a := call(t, e, url, tok); a.status != 200 || a.raw["totalCount"] != 1.0 {
		t.Errorf("list: %d, %v", a.status, a.raw)
	}
	if a := exchange(t, e, "DELETE", url+"/"+emulator.ApplicationID, tok, ""); a.status != 204 {
		t.Fatalf("delete: %d, %v", a.status, a.raw)
	}
	refused(t, ask(), 400, 90099, "invalid_grant", "")
	if a := exchange(t, e, "DELETE", url+"/"+emulator.ApplicationID, tok, ""); a.status != 404 {
		t.Errorf("delete again: %d, %v", a.status, a.raw)
	}
	if a := exchange(t, e, "POST", url, tok, strings.ReplaceAll(consentTo, "User.Read,Directory.Read.All", "Directory.Read.All")); a.status != 201 {
		t.Fatalf("consent again: %d, %v", a.status, a.raw)
	}
	if a := call(t, e, users, first.str("access_token")); a.status != 401 {
		t.Errorf("a token from before the removal works again: %d", a.status)
	}
	if a := call(t, e, users, token(t, e, 2, "wingtip.example", "refresh_token", "refresh_token", rt, "scope", "Directory.Read.All").str("access_token")); a.status != 200 {
		t.Errorf("a token from after it does not: %d", a.status)
	}
}

// Clients write scopes with commas, blanks or both, and properties in any case.
func TestConsentScopes(t *testing.T) {
	e := start(t)
	admin := consented(t, e, 2, "admin@fabrikam.example")
	url := consentsOf(e, emulator.WingtipTenant)
	for _, scope := range []string{"User.Read,Directory.Read.All", "User.Read, Directory.Read.All", "user.read directory.read.all", " User.Read,,Directory.Read.All,User.Read "} {
		body := `{"ApplicationId":"` + strings.ToUpper(emulator.ApplicationID) + `","ApplicationGrants":[{"EnterpriseApplicationId":"` + graphID + `","Scope":"` + scope + `"},{"EnterpriseApplicationId":"` + emulator.ARM + `","Scope":"user_impersonation"}]}`
		if a := exchange(t, e, "POST", url, admin.str("access_token"), body); a.status != 201 {
			t.Fatalf("%q: %d, %v", scope, a.status, a.raw)
		}
		a := token(t, e, 2, "wingtip.example", "refresh_token", "refresh_token", admin.str("refresh_token"), "scope", "https://graph.microsoft.com/.default")
		if got := claims(t, a.str("access_token"))["scp"]; got != "User.Read Directory.Read.All" {
			t.Errorf("%q: got %v", scope, got)
		}
		if a := exchange(t, e, "DELETE", url+"/"+emulator.ApplicationID, admin.str("access_token"), ""); a.status != 204 {
			t.Fatal(a.raw)
		}
	}
}

// Another resource can be added later, but not a resource that is there.
func TestConsentOneResourceAtATime(t *testing.T) {
	e := start(t)
	tok := partnerToken(t, e, "admin@fabrikam.example")
	url := consentsOf(e, emulator.WingtipTenant)
	arm := strings.NewReplacer(graphID, emulator.ARM, "User.Read,Directory.Read.All", "user_impersonation").Replace(consentTo)
	both := strings.Replace(arm, `"applicationGrants":[`, `"applicationGrants":[{"enterpriseApplicationId":"`+emulator.KeyVault+`","scope":"user_impersonation"},`, 1)
	for i, row := range []struct {
		body   string
		status int
	}{{consentTo, 201}, {arm, 201}, {both, 409}} {
		if a := exchange(t, e, "POST", url, tok, row.body); a.status != row.status {
			t.Errorf("%d: got %d, %v, want %d", i, a.status, a.raw, row.status)
		}
	}
	item, _ := call(t, e, url+"/"+emulator.ApplicationID, tok).raw["applicationGrants"].([]any)
	if len(item) != 2 {
		t.Errorf("got grants %v, want Graph's and ARM's: what is refused must have no effect", item)
	}
}

func TestConsentRefused(t *testing.T) {
	e := start(t)
	const other = "a0000000-0000-4000-8000-00000000beef"
	if err := e.Register(emulator.Application{ID: other, Name: "Another", Tenant: emulator.CPVTenant, Secrets: []string{"s"}}); err != nil {
		t.Fatal(err)
	}
	e.Uninstall(emulator.TailspinTenant, emulator.KeyVault)
	e.DelegateRoles(emulator.FabrikamTenant, emulator.LitwareTenant, directory.RoleGlobalReader)
	admin := consented(t, e, 2, "admin@fabrikam.example")
	tok := admin.str("access_token")
	away := token(t, e, 1, "tailspin.example", "refresh_token", "refresh_token", admin.str("refresh_token"), "resource", "https://api.partnercenter.microsoft.com").str("access_token")
	grant := func(resource, scope string) string {
		return `{"applicationId":"` + emulator.ApplicationID + `","applicationGrants":[{"enterpriseApplicationId":"` + resource + `","scope":"` + scope + `"}]}`
	}
	for _, row := range []struct {
		name, token, customer, body string
		status                      int
		code                        string
	}{
		{"no token", "", emulator.WingtipTenant, consentTo, 401, "1002"},
		{"application's own token", appToken(t, e, "fabrikam.example", "https://api.partnercenter.microsoft.com"), emulator.WingtipTenant, consentTo, 403, "900329"},
		{"token of the customer's tenant", away, emulator.TailspinTenant, consentTo, 403, "900308"},
		{"sales agent", partnerToken(t, e, "sales@fabrikam.example"), emulator.WingtipTenant, consentTo, 403, "900308"},
		{"no agent", partnerToken(t, e, "tech@fabrikam.example"), emulator.WingtipTenant, consentTo, 403, "900308"},
		{"another application", tok, emulator.WingtipTenant, strings.ReplaceAll(consentTo, emulator.ApplicationID, other), 403, "900308"},
		{"no role in the customer's tenant", tok, emulator.LitwareTenant, consentTo, 403, "900308"},
		{"another partner's customer", tok, emulator.AdatumTenant, consentTo, 404, "60003"},
		{"no such customer", tok, "nobody", consentTo, 404, "60003"},
		{"resource absent in the customer's tenant", tok, emulator.TailspinTenant, grant(emulator.KeyVault, "user_impersonation"), 400, "2000"},
		{"unknown resource", tok, emulator.WingtipTenant, grant("a0000000-0000-4000-8000-00000000dead", "x"), 400, "2000"},
		{"resource by URL", tok, emulator.WingtipTenant, grant("https://graph.microsoft.com", "User.Read"), 400, "2000"},
		{"unknown scope", tok, emulator.WingtipTenant, grant(graphID, "User.Read,Nothing"), 400, "2000"},
		{"no scope", tok, emulator.WingtipTenant, grant(graphID, " , "), 400, "2000"},
		{"no grants", tok, emulator.WingtipTenant, `{"applicationId":"` + emulator.ApplicationID + `"}`, 400, "2000"},
		{"no application", tok, emulator.WingtipTenant, `{"applicationGrants":[{}]}`, 400, "2000"},
		{"empty body", tok, emulator.WingtipTenant, "", 400, "2000"},
		{"a list", tok, emulator.WingtipTenant, "[]", 400, "2000"},
		{"cut short", tok, emulator.WingtipTenant, consentTo[:40], 400, "2000"},
		{"wrong types", tok, emulator.WingtipTenant, `{"applicationId":7,"applicationGrants":"x"}`, 400, "2000"},
		{"too long", tok, emulator.WingtipTenant, `{"displayName":"` + strings.Repeat("x", 2<<20) + `"}`, 400, "2000"},
	} {
		t.Run(row.name, func(t *testing.T) {
			a := exchange(t, e, "POST", consentsOf(e, row.customer), row.token, row.body)
			if a.status != row.status || a.str("code") != row.code || a.str("description") == "" || a.str("source") == "" {
				t.Errorf("got %d, %v, want %d, %s", a.status, a.raw, row.status, row.code)
			}
			if strings.Contains(a.str("description"), "json") {
				t.Errorf("the error talks of the program: %q", a.str("description"))
			}
		})
	}
	for _, row := range []struct {
		customer, app string
		status        int
	}{{emulator.TailspinTenant, other, 403}, {emulator.AdatumTenant, emulator.ApplicationID, 404}, {emulator.LitwareTenant, emulator.ApplicationID, 403}, {emulator.WingtipTenant, emulator.ApplicationID, 404}} {
		if a := exchange(t, e, "DELETE", consentsOf(e, row.customer)+"/"+row.app, tok, ""); a.status != row.status {
			t.Errorf("DELETE %v: got %d, %v", row, a.status, a.raw)
		}
	}
}

func TestConsentBudget(t *testing.T) {
	e := start(t)
	tok := partnerToken(t, e, "admin@fabrikam.example")
	var mu sync.Mutex
	got := map[int]int{}
	var wg sync.WaitGroup
	client := e.Client() // one, whose connections stay open
	refused := func() bool { mu.Lock(); defer mu.Unlock(); return got[429] > 0 }
	for range 8 {
		wg.Go(func() {
			for range 500 {
				if refused() {
					return
				}
				req, _ := http.NewRequest("GET", consentsOf(e, emulator.WingtipTenant), nil)
				req.Header.Set("Authorization", "Bearer "+tok)
				res, err := client.Do(req)
				if err != nil {
					t.Error(err)
					return
				}
				res.Body.Close()
				mu.Lock()
				got[res.StatusCode]++
				mu.Unlock()
				if res.StatusCode == 429 && res.Header.Get("Retry-After") == "" {
					t.Error("no Retry-After")
				}
			}
		})
	}
	wg.Wait()
	if got[200] < 50 || got[429] == 0 || len(got) != 2 {
		t.Errorf("got %v, want at least 50 answers and then refusals", got)
	}
}

func TestOrdersAndSubscriptions(t *testing.T) {
	e := start(t)
	tok := partnerToken(t, e, "sales@fabrikam.example")
	base := e.Endpoints().PartnerCenter + "/v1/customers/" + emulator.LitwareTenant
	order := `{"referenceCustomerId":"` + emulator.LitwareTenant + `","billingCycle":"annual","currencyCode":"EUR","lineItems":[{"lineItemNumber":0,"offerId":"CFQ7TTC0LH18:0001:X","friendlyName":"Mail","quantity":5}]}`
	a := exchange(t, e, "POST", base+"/orders", tok, order)
	if a.status != 201 || a.str("status") != "completed" || a.str("billingCycle") != "annual" {
		t.Fatalf("got %d, %v", a.status, a.raw)
	}
	sub := a.raw["lineItems"].([]any)[0].(map[string]any)["subscriptionId"].(string)
	if got := call(t, e, base+"/orders", tok); got.raw["totalCount"] != 1.0 {
		t.Errorf("orders: %v", got.raw)
	}
	if got := call(t, e, base+"/orders/"+a.str("id"), tok); got.str("id") != a.str("id") {
		t.Errorf("order: %v", got.raw)
	}
	if got := call(t, e, base+"/subscriptions", tok); got.raw["totalCount"] != 2.0 {
		t.Errorf("subscriptions: %v, want the Azure plan and the one ordered", got.raw)
	}
	other := partnerToken(t, e, "sales@contoso.example")
	if got := call(t, e, base+"/subscriptions", other); got.raw["totalCount"] != 1.0 {
		t.Errorf("another partner's view: %v", got.raw)
	}
	if got := call(t, e, base+"/subscriptions/"+sub, other); got.status != 404 {
		t.Errorf("another partner's subscription: %d", got.status)
	}
	one := call(t, e, base+"/subscriptions/"+sub, tok)
	etag := one.raw["attributes"].(map[string]any)["etag"].(string)
	for _, row := range []struct {
		name, path, etag, body string
		status                 int
		code                   string
	}{
		{"another etag", sub, "x", `{"quantity":6}`, 412, "2055"},
		{"the etag", sub, etag, `{"quantity":6}`, 200, ""},
		{"the etag again", sub, etag, `{"quantity":7}`, 412, "2055"},
		{"any etag", sub, "*", `{"status":"suspended","autoRenewEnabled":false}`, 200, ""},
		{"no etag", sub, "", `{"friendlyName":"Post"}`, 200, ""},
		{"negative", sub, "", `{"quantity":-1}`, 400, "2000"},
		{"unknown status", sub, "", `{"status":"sad"}`, 400, "2000"},
		{"no JSON", sub, "", `{`, 400, "2000"},
		{"unknown", "x", "", `{"quantity":6}`, 404, "3000"},
	} {
		if a := exchange(t, e, "PATCH", base+"/subscriptions/"+row.path, tok, row.body, "If-Match", row.etag); a.status != row.status || a.str("code") != row.code {
			t.Errorf("%s: got %d, %v, want %d, %s", row.name, a.status, a.raw, row.status, row.code)
		}
	}
	one = call(t, e, base+"/subscriptions/"+sub, tok)
	if one.raw["quantity"] != 6.0 || one.str("status") != "suspended" || one.str("friendlyName") != "Post" || one.raw["autoRenewEnabled"] != false {
		t.Errorf("got %v", one.raw)
	}
	for _, body := range []string{"", "{}", `{"lineItems":[{}]}`, `{"lineItems":[{"offerId":"x","quantity":0}]}`, `{"lineItems":[{"offerId":"x","quantity":1e9}]}`, `{"lineItems":[{"offerId":"x","quantity":1.5}]}`, strings.Replace(order, emulator.LitwareTenant, emulator.AdatumTenant, 1)} {
		if a := exchange(t, e, "POST", base+"/orders", tok, body); a.status != 400 || a.str("code") != "2000" {
			t.Errorf("%s: got %d, %v", body, a.status, a.raw)
		}
	}
	if a := call(t, e, base+"/orders/x", tok); a.status != 404 {
		t.Errorf("got %d", a.status)
	}
	reset(t, e)
	if got := call(t, e, base+"/orders", tok); got.raw["totalCount"] != 0.0 {
		t.Errorf("after a reset: %v", got.raw)
	}
}

// A write that is repeated with its MS-RequestId happens once.
func TestWriteOnce(t *testing.T) {
	e := start(t)
	tok := partnerToken(t, e, "admin@fabrikam.example")
	base := e.Endpoints().PartnerCenter + "/v1/customers/" + emulator.WingtipTenant
	order := `{"lineItems":[{"offerId":"o","quantity":1}]}`
	first := exchange(t, e, "POST", base+"/orders", tok, order, "ms-requestid", "r-1")
	for _, row := range []struct {
		name, path, body, id string
		status               int
		same                 bool
	}{
		{"again", "/orders", order, "r-1", 201, true},
		{"another id", "/orders", order, "r-2", 201, false},
		{"another body", "/orders", `{"lineItems":[{"offerId":"p","quantity":1}]}`, "r-1", 409, false},
		{"another path", "/applicationconsents", consentTo, "r-1", 409, false},
	} {
		a := exchange(t, e, "POST", base+row.path, tok, row.body, "MS-RequestId", row.id)
		if a.status != row.status || (a.str("id") == first.str("id")) != row.same {
			t.Errorf("%s: got %d, %v", row.name, a.status, a.raw)
		}
	}
	var wg sync.WaitGroup
	for range 5 {
		wg.Go(func() {
			if a := exchange(t, e, "POST", base+"/applicationconsents", tok, consentTo, "MS-RequestId", "r-3"); a.status != 201 {
				t.Errorf("got %d, %v", a.status, a.raw)
			}
		})
	}
	wg.Wait()
	if got := call(t, e, base+"/orders", tok); got.raw["totalCount"] != 2.0 {
		t.Errorf("got %v, want two orders", got.raw)
	}
	refused := exchange(t, e, "POST", base+"/orders", tok, "{}", "MS-RequestId", "r-4")
	mended := exchange(t, e, "POST", base+"/orders", tok, order, "MS-RequestId", "r-4")
	if refused.status != 400 || mended.status != 201 {
		t.Errorf("got %d, then %d: what was refused must not be remembered", refused.status, mended.status)
	}
}

func TestPartnerRequests(t *testing.T) {
	e := start(t)
	good, bad := partnerToken(t, e, "admin@contoso.example"), partnerToken(t, e, "nomfa@contoso.example")
	app := appToken(t, e, "contoso.example", "https://api.partnercenter.microsoft.com")
	pc := e.Endpoints().PartnerCenter
	call(t, e, pc+"/v1/customers", good, "MS-RequestId", "q-1")
	call(t, e, pc+"/v1/customers/x", bad)
	call(t, e, pc+"/v1/customers", app)
	call(t, e, pc+"/v1/customers", partnerToken(t, e, "admin@fabrikam.example"))
	a := call(t, e, pc+"/v1/partnerRequests?size=1", good)
	items, _ := a.raw["items"].([]any)
	if a.status != 200 || len(items) != 1 || a.str("continuationToken") == "" {
		t.Fatalf("got %d, %v", a.status, a.raw)
	}
	items, _ = call(t, e, pc+"/v1/partnerRequests", good).raw["items"].([]any)
	if len(items) != 3 {
		t.Fatalf("got %v, want this partner's users' calls only", items)
	}
	for i, want := range []map[string]any{
		1: {"operationName": "GET v1/customers/{customer}", "upn": "nomfa@contoso.example", "mfaCompliant": false, "tenantId": emulator.ContosoTenant},
		2: {"operationName": "GET v1/customers", "upn": "admin@contoso.example", "mfaCompliant": true, "requestId": "q-1", "ipAddress": "127.0.0.1", "applicationId": emulator.ApplicationID},
	} {
		got := items[i].(map[string]any)
		for name, v := range want {
			if got[name] != v {
				t.Errorf("%d: got %s %v, want %v", i, name, got[name], v)
			}
		}
	}
}

// The report counts calls by day and application; it is a bare list.
func TestMFAAdoption(t *testing.T) {
	e := start(t)
	good, bad := partnerToken(t, e, "admin@contoso.example"), partnerToken(t, e, "nomfa@contoso.example")
	pc := e.Endpoints().PartnerCenter
	day := time.Now().UTC()
	call(t, e, pc+"/v1/customers", good)
	call(t, e, pc+"/v1/customers", bad)
	report := func(query string) (rows []map[string]any) {
		t.Helper()
		req, err := http.NewRequest("GET", pc+"/v1/applicationmfaadoptionstatus"+query, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+good)
		res, err := e.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		if err := json.NewDecoder(res.Body).Decode(&rows); err != nil || res.Header.Get("MS-CV") == "" {
			t.Fatalf("%s: got %d, %v", query, res.StatusCode, err)
		}
		return rows
	}
	rows := report("")
	if len(rows) != 1 || rows[0]["totalRequestCount"] != 2.0 || rows[0]["mfaCompliantRequestCount"] != 1.0 || rows[0]["applicationId"] != emulator.ApplicationID || rows[0]["applicationName"] == "" {
		t.Errorf("got %v", rows)
	}
	if rows := report("?startDate=" + day.AddDate(0, 0, -1).Format(time.DateOnly) + "&endDate=" + day.AddDate(0, 0, 1).Format(time.DateOnly)); len(rows) != 1 {
		t.Errorf("got %v", rows)
	}
	if rows := report("?endDate=" + day.AddDate(0, 0, -2).Format(time.DateOnly)); len(rows) != 0 {
		t.Errorf("got %v", rows)
	}
	if a := call(t, e, pc+"/v1/applicationmfaadoptionstatus?startDate=May", good); a.status != 400 {
		t.Errorf("got %d, %v", a.status, a.raw)
	}
	users, _ := call(t, e, pc+"/v1/nonMfaCompliantPartnerPrincipals", good).raw["items"].([]any)
	if len(users) != 1 || users[0].(map[string]any)["upn"] != "nomfa@contoso.example" {
		t.Errorf("got %v", users)
	}
}

func TestPartnerCenterErrorsByDial(t *testing.T) {
	e := start(t)
	tok := partnerToken(t, e, "admin@contoso.example")
	for code, status := range map[string]int{"900309": 403, "90000": 403, "900308": 403, "900421": 401, "900420": 401, "60003": 404, "2055": 412, "1002": 401, "12345": 400} {
		e.Dial(func(d *emulator.Dials) { d.ServiceErrors = []fault.ServiceError{{Code: code}} })
		if a := call(t, e, e.Endpoints().PartnerCenter+"/v1/customers", tok); a.status != status || a.str("code") != code {
			t.Errorf("%s: got %d, %v, want %d", code, a.status, a.raw, status)
		}
		if a := call(t, e, e.Endpoints().PartnerCenter+"/v1/customers", tok); a.status != 200 {
			t.Errorf("%s: the error stays: %d, %v", code, a.status, a.raw)
		}
	}
}
