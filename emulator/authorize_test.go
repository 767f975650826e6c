package emulator_test

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/mandate-sam/mandate/emulator"
)

// Requests that name no trustworthy way back end on an error page.
func TestAuthorizeErrorPages(t *testing.T) {
	e := start(t)
	for _, row := range []struct {
		name, tenant string
		change       []string
		code         string
	}{
		{"unknown tenant", "nobody.example", nil, "90002"},
		{"no client", "contoso.example", []string{"client_id", ""}, "900144"},
		{"unknown client", "contoso.example", []string{"client_id", emulator.ContosoTenant}, "700016"},
		{"other redirect URI", "contoso.example", []string{"redirect_uri", redirect + "/x"}, "50011"},
		{"redirect URI with a slash", "contoso.example", []string{"redirect_uri", redirect + "/"}, "50011"},
		{"redirect URI in other case", "contoso.example", []string{"redirect_uri", "https://127.0.0.1:8443/Callback"}, "50011"},
		{"huge parameter", "contoso.example", []string{"state", strings.Repeat("x", 9<<10)}, "90023"},
	} {
		t.Run(row.name, func(t *testing.T) {
			p := newWalker(t, e).get(authorizeURL(e, 2, row.tenant, row.change...))
			m := code.FindStringSubmatch(p.body)
			if p.id != "error" || p.status != 400 || m == nil || m[1] != row.code {
				t.Errorf("got page %q, status %d, code %v, want %s", p.id, p.status, m, row.code)
			}
		})
	}
	t.Run("doubled parameter", func(t *testing.T) {
		p := newWalker(t, e).get(authorizeURL(e, 2, "contoso.example") + "&redirect_uri=https%3A%2F%2Fevil.example")
		if p.id != "error" {
			t.Errorf("got page %q, want an error", p.id)
		}
	})
}

// Tools listen at any port of this machine; everything else of a redirect URI
// is compared letter by letter, and the code goes back with what was asked.
func TestLoopbackRedirect(t *testing.T) {
	e := start(t)
	const page = "http://127.0.0.1:3000/page"
	app, _ := e.Application(emulator.ApplicationID)
	app.RedirectURIs = append(app.RedirectURIs, "http://localhost", "http://127.0.0.1:1/a", "https://localhost/a", "http://panel.example/a", "http://localhost.panel.example/a")
	app.SPARedirectURIs = []string{page}
	register(t, e, app)
	for uri, accepted := range map[string]bool{
		"http://localhost": true, "http://localhost:51234": true, "http://127.0.0.1:51234/a": true, "http://127.0.0.1/a": true,
		"http://localhost/": false, "http://localhost:51234/": false, "http://localhost:51234/a": false, "http://127.0.0.1:51234/b": false,
		"http://[::1]:51234": false, "https://localhost:51234/a": false, "http://LOCALHOST:51234": false, "http://localhost.evil.example:51234": false,
		"http://localhost:51234@evil.example": false, "http://localhost:x": false, "http://localhost:51234?a": false, "http://panel.example:51234/a": false, "http://localhost:1.panel.example/a": false, "http://evil.example?http://localhost:51234": false,
	} {
		p := newWalker(t, e).get(authorizeURL(e, 2, "contoso.example", "redirect_uri", uri))
		if got := p.id != "error"; got != accepted {
			t.Errorf("%s: accepted %t, want %t", uri, got, accepted)
		}
	}
	const uri = "http://localhost:51234"
	p := newWalker(t, e).signIn(authorizeURL(e, 2, "contoso.example", "redirect_uri", uri), person{upn: "admin@contoso.example"})
	refused(t, token(t, e, 2, "contoso.example", "authorization_code", "code", p.out.Get("code"), "redirect_uri", "http://localhost"), 400, 500112, "invalid_grant", "")
	if a := token(t, e, 2, "contoso.example", "authorization_code", "code", p.out.Get("code"), "redirect_uri", uri); a.status != 200 {
		t.Errorf("redeem: got %v", a.raw)
	}
	for _, uri := range []string{page, "http://127.0.0.1:4000/page"} { // a single-page application's codes need PKCE
		p = newWalker(t, e).get(authorizeURL(e, 2, "contoso.example", "redirect_uri", uri))
		if !strings.HasPrefix(p.out.Get("error_description"), "AADSTS50147") {
			t.Errorf("%s: got page %q, %v, want 50147", uri, p.id, p.out)
		}
	}
}

// Requests that are wrong in other ways go back to the application.
func TestAuthorizeErrorsGoBack(t *testing.T) {
	e := start(t)
	for _, row := range []struct {
		name    string
		version int
		change  []string
		err     string
		code    string
	}{
		{"implicit", 2, []string{"response_type", "id_token"}, "unsupported_response_type", "AADSTS700054"},
		{"hybrid", 2, []string{"response_type", "code id_token"}, "unsupported_response_type", "AADSTS700054"},
		{"no response type", 2, []string{"response_type", ""}, "invalid_request", "AADSTS900144"},
		{"response mode", 2, []string{"response_mode", "carrier_pigeon"}, "invalid_request", "AADSTS90023"},
		{"prompt", 2, []string{"prompt", "admin_consent"}, "invalid_request", "AADSTS90023"},
		{"no scope", 2, []string{"scope", ""}, "invalid_request", "AADSTS900144"},
		{"resource on v2", 2, []string{"resource", "https://graph.microsoft.com"}, "invalid_request", "AADSTS901002"},
		{"scope of nothing", 2, []string{"scope", "https://graph.microsoft.com"}, "invalid_scope", "AADSTS70011"},
		{"unknown scope", 2, []string{"scope", "https://graph.microsoft.com/Fly"}, "invalid_scope", "AADSTS70011"},
		{"default and another", 2, []string{"scope", "https://graph.microsoft.com/.default User.Read"}, "invalid_scope", "AADSTS70011"},
		{"unknown resource", 2, []string{"scope", "https://nothing.example/.default"}, "invalid_resource", "AADSTS500011"},
		{"unknown v1 resource", 1, []string{"resource", "https://nothing.example"}, "invalid_resource", "AADSTS500011"},
		{"short challenge", 2, []string{"code_challenge", "short"}, "invalid_request", "AADSTS50147"},
		{"challenge method", 2, []string{"code_challenge", strings.Repeat("a", 43), "code_challenge_method", "MD5"}, "invalid_request", "AADSTS50147"},
		{"claims", 2, []string{"claims", "{"}, "invalid_request", "AADSTS90023"},
		{"silent without session", 2, []string{"prompt", "none"}, "login_required", "AADSTS50058"},
	} {
		t.Run(row.name, func(t *testing.T) {
			p := newWalker(t, e).get(authorizeURL(e, row.version, "contoso.example", row.change...))
			if p.out.Get("error") != row.err || !strings.HasPrefix(p.out.Get("error_description"), row.code+": ") || p.out.Get("state") != "a state" || p.out.Has("code") {
				t.Errorf("got %v, want %s and %s", p.out, row.err, row.code)
			}
		})
	}
}

func TestWhoMayConsent(t *testing.T) {
	e := start(t)
	for _, row := range []struct {
		name  string
		who   person
		err   string
		code  string
		pages []string
	}{
		{"accepts", person{upn: "admin@contoso.example"}, "", "", []string{"account", "signin", "mfa", "consent"}},
		{"declines", person{upn: "admin@contoso.example", decline: true}, "access_denied", "AADSTS65004", []string{"account", "signin", "mfa", "consent"}},
		{"no administrator", person{upn: "helpdesk@contoso.example"}, "consent_required", "AADSTS90094", []string{"account", "signin", "mfa", "approval"}},
		{"no second factor", person{upn: "nomfa@contoso.example"}, "", "", []string{"account", "signin", "consent"}},
		{"sales", person{upn: "Sales@Contoso.example"}, "", "", []string{"account", "signin", "mfa", "consent"}},
		{"guest", person{upn: guest}, "", "", []string{"account", "signin", "mfa", "consent"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			reset(t, e)
			w := newWalker(t, e)
			p := w.signIn(authorizeURL(e, 2, "contoso.example"), row.who)
			if p.out.Get("error") != row.err || !strings.HasPrefix(p.out.Get("error_description"), row.code) {
				t.Errorf("got %v, want error %q, %q", p.out, row.err, row.code)
			}
			if !slices.Equal(w.pages, row.pages) {
				t.Errorf("got pages %q, want %q", w.pages, row.pages)
			}
		})
	}
}

func TestAccountsOfOtherTenants(t *testing.T) {
	e := start(t)
	for _, upn := range []string{"admin@fabrikam.example", "nobody@contoso.example", "", "owner@adatum.example"} {
		w := newWalker(t, e)
		p := w.post(w.get(authorizeURL(e, 2, "contoso.example")), url.Values{"account": {upn}})
		if p.id != "account" || !strings.Contains(p.body, `id="notice"`) {
			t.Errorf("account %q: got page %q, want the picker with a notice", upn, p.id)
		}
	}
	p := newWalker(t, e).signIn(authorizeURL(e, 2, "organizations"), person{upn: "admin@fabrikam.example"})
	if !p.out.Has("code") {
		t.Errorf("organizations: got %v, want a code", p.out)
	}
	p = newWalker(t, e).signIn(authorizeURL(e, 2, "adatum.example"), person{upn: "admin@contoso.example"})
	if !p.out.Has("code") {
		t.Errorf("delegated administrator in a customer's tenant: got %v, want a code", p.out)
	}
}

// When the second factor is asked for, by whom, and whether it can be left out.
func TestWhenMFA(t *testing.T) {
	e := start(t)
	const amr = `{"id_token":{"amr":{"essential":true,"values":["mfa"]}}}`
	const acrs = `{"access_token":{"acrs":{"essential":true,"value":"c1"}}}`
	const msal = `{"id_token":{"signin_state":{"essential":false},"login_hint":{"essential":false}}}`
	for _, row := range []struct {
		name     string
		version  int
		demanded bool
		change   []string
		page     bool
		skip     bool
	}{
		{"demanded, v2", 2, true, nil, true, false},
		{"demanded, v1 with resource", 1, true, nil, true, false},
		{"demanded, v1 without resource", 1, true, []string{"resource", ""}, false, false},
		{"not demanded", 2, false, nil, false, false},
		{"amr_values", 2, false, []string{"amr_values", "mfa"}, true, true},
		{"amr_values, v1 without resource", 1, true, []string{"resource", "", "amr_values", "mfa"}, true, true},
		{"claims amr", 2, false, []string{"claims", amr}, true, true},
		{"claims acrs", 2, false, []string{"claims", acrs}, true, true},
		{"claims of a library", 2, false, []string{"claims", msal}, false, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			reset(t, e)
			e.Dial(func(d *emulator.Dials) { d.MFADemanded = map[string]bool{emulator.ContosoTenant: row.demanded} })
			w := newWalker(t, e)
			p := w.post(w.get(authorizeURL(e, row.version, "contoso.example", append(row.change, "login_hint", "admin@contoso.example")...)), url.Values{"signin": {"yes"}})
			if got := p.id == "mfa"; got != row.page {
				t.Fatalf("got page %q, MFA page wanted: %v", p.id, row.page)
			}
			if got := strings.Contains(p.body, `id="mfa-skip"`); got != row.skip {
				t.Errorf("may skip: got %v, want %v", got, row.skip)
			}
			if !row.page {
				return
			}
			wrong := w.post(p, url.Values{"otp": {"000000"}})
			if wrong.id != "mfa" || !strings.Contains(wrong.body, `id="notice"`) {
				t.Errorf("wrong code: got page %q", wrong.id)
			}
			skipped := w.post(p, url.Values{"skip": {"yes"}})
			if got := skipped.id != "mfa"; got != row.skip {
				t.Errorf("skipping led to page %q", skipped.id)
			}
		})
	}
}

func TestSession(t *testing.T) {
	e := start(t)
	w := newWalker(t, e)
	who := person{upn: "admin@contoso.example"}
	w.signIn(authorizeURL(e, 2, "contoso.example"), who)
	for _, row := range []struct {
		name   string
		change []string
		pages  []string
	}{
		{"remembered", nil, nil},
		{"silent", []string{"prompt", "none"}, nil},
		{"fresh", []string{"prompt", "login"}, []string{"account", "signin", "mfa"}},
		{"other account", []string{"prompt", "select_account"}, []string{"account", "signin", "mfa"}},
		{"consent again", []string{"prompt", "consent"}, []string{"consent"}},
		{"another hint", []string{"login_hint", "sales@contoso.example"}, []string{"signin", "mfa", "consent"}},
		{"more scopes", []string{"scope", "https://vault.azure.net/user_impersonation", "login_hint", "admin@contoso.example"}, nil},
	} {
		t.Run(row.name, func(t *testing.T) {
			w.pages = nil
			p := w.signIn(authorizeURL(e, 2, "contoso.example", row.change...), who)
			if row.name == "more scopes" {
				if !slices.Contains(w.pages, "consent") {
					t.Errorf("got pages %q, want consent among them", w.pages)
				}
				return
			}
			if !p.out.Has("code") || !slices.Equal(w.pages, row.pages) {
				t.Errorf("got %v and pages %q, want a code and %q", p.out, w.pages, row.pages)
			}
		})
	}
}

// A sign-in belongs to the browser that began it, and ends once.
func TestInteractionIsBoundToBrowser(t *testing.T) {
	e := start(t)
	w := newWalker(t, e)
	p := w.get(authorizeURL(e, 2, "contoso.example", "login_hint", "nomfa@contoso.example"))
	stranger := newWalker(t, e)
	if got := stranger.get(w.login + p.action); got.id != "error" {
		t.Errorf("another browser sees page %q", got.id)
	}
	if got := stranger.post(p, url.Values{"signin": {"yes"}}); got.id != "error" {
		t.Errorf("another browser gets page %q", got.id)
	}
	p = w.post(p, url.Values{"signin": {"yes"}})
	if got := w.post(p, url.Values{"decision": {"accept"}}); !got.out.Has("code") {
		t.Fatalf("the browser itself gets %v", got)
	}
	if got := w.post(p, url.Values{"decision": {"accept"}}); got.id != "error" {
		t.Errorf("the same answer again gets page %q, %v", got.id, got.out)
	}
}

func TestCrossSitePost(t *testing.T) {
	e := start(t)
	w := newWalker(t, e)
	p := w.get(authorizeURL(e, 2, "contoso.example", "login_hint", "nomfa@contoso.example"))
	req, err := http.NewRequest("POST", w.login+p.action, strings.NewReader("signin=yes"))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Sec-Fetch-Site", "cross-site")
	if got := w.do(req); got.status != http.StatusForbidden {
		t.Errorf("got status %d, want 403", got.status)
	}
}

func TestPages(t *testing.T) {
	e := start(t)
	w := newWalker(t, e)
	evil := `<script>alert("x")</script>`
	if err := e.Register(emulator.Application{ID: emulator.ApplicationID, Name: evil, RedirectURIs: []string{redirect}}); err != nil {
		t.Fatal(err)
	}
	p := w.get(authorizeURL(e, 2, "contoso.example"))
	for _, want := range []string{"Emulator — not Microsoft", `name="viewport"`, "prefers-color-scheme", `value="admin@contoso.example"`, "&lt;script&gt;"} {
		if !strings.Contains(p.body, want) {
			t.Errorf("the account page lacks %q", want)
		}
	}
	if strings.Contains(p.body, evil) {
		t.Error("the application's name is not escaped")
	}
	for _, want := range []string{"default-src 'none'", "form-action 'self' https://127.0.0.1:8443;", "frame-ancestors 'none'"} {
		if !strings.Contains(p.csp, want) {
			t.Errorf("policy %q lacks %q", p.csp, want)
		}
	}
	p = w.signIn(authorizeURL(e, 2, "contoso.example", "response_mode", "form_post"), person{upn: "admin@contoso.example"})
	if !strings.Contains(p.csp, "script-src 'nonce-") || p.action != redirect {
		t.Errorf("form_post: policy %q, action %q", p.csp, p.action)
	}
}

func TestConsentPageNamesPermissions(t *testing.T) {
	e := start(t)
	w := newWalker(t, e)
	p := w.get(authorizeURL(e, 1, "contoso.example", "login_hint", "nomfa@contoso.example"))
	p = w.post(p, url.Values{"signin": {"yes"}})
	for _, want := range []string{"Northwind Panels", "Northwind Control Panel", "Partner Center", "Read the directory", "Manage Azure resources", "DelegatedAdminRelationship.Read.All"} {
		if !strings.Contains(p.body, want) {
			t.Errorf("the consent page lacks %q", want)
		}
	}
}
