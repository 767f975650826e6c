package emulator_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/mandate-sam/mandate/emulator"
)

// page1 is the redirect URI of a single-page application.
const page1 = "https://panel.northwind.example/app"

const spa = "b0000000-0000-4000-8000-000000000004"

var verifier = strings.Repeat("v", 43)

// spaTokens signs admin@contoso.example in to a single-page application.
func spaTokens(t *testing.T, e *emulator.Emulator) answer {
	t.Helper()
	register(t, e, emulator.Application{
		ID: spa, Name: "Panel", Tenant: emulator.CPVTenant, SPARedirectURIs: []string{page1},
		Secrets: []string{"spa"}, Access: []emulator.Access{{Resource: emulator.Graph, Scopes: []string{"User.Read"}}},
	})
	return redeemSPA(t, e)
}

func redeemSPA(t *testing.T, e *emulator.Emulator, change ...string) answer {
	t.Helper()
	p := newWalker(t, e).signIn(authorizeURL(e, 2, "contoso.example", "client_id", spa, "redirect_uri", page1, "scope", "User.Read openid offline_access", "code_challenge", verifier), person{upn: "admin@contoso.example"})
	f := append([]string{"client_id", spa, "client_secret", "", "code", p.out.Get("code"), "redirect_uri", page1, "code_verifier", verifier}, change...)
	return token(t, e, 2, "contoso.example", "authorization_code", f...)
}

func refreshSPA(t *testing.T, e *emulator.Emulator, rt string, change ...string) answer {
	t.Helper()
	f := append([]string{"client_id", spa, "client_secret", "", "refresh_token", rt, "scope", "User.Read offline_access"}, change...)
	return token(t, e, 2, "contoso.example", "refresh_token", f...)
}

// The refresh tokens of a single-page application end at a fixed time,
// however often they are used.
func TestSPARefreshTokens(t *testing.T) {
	e := start(t)
	first := spaTokens(t, e)
	if first.status != 200 || claims(t, first.str("access_token"))["appidacr"] != "0" {
		t.Fatalf("got %v", first.raw)
	}
	second := refreshSPA(t, e, first.str("refresh_token"))
	if second.status != 200 {
		t.Fatalf("got %v", second.raw)
	}
	refused(t, refreshSPA(t, e, second.str("refresh_token"), "client_secret", "spa"), 401, 700025, "invalid_client", "")
	e.Dial(func(d *emulator.Dials) { d.SignIn.RefreshWindowSeconds = 1 })
	advance(e, time.Second)
	refused(t, refreshSPA(t, e, second.str("refresh_token")), 400, 700084, "invalid_grant", "bad_token")
}

func TestSPACodes(t *testing.T) {
	e := start(t)
	spaTokens(t, e)
	refused(t, redeemSPA(t, e, "client_secret", "spa"), 401, 700025, "invalid_client", "")
	refused(t, redeemSPA(t, e, "code_verifier", ""), 400, 501481, "invalid_grant", "")
	p := newWalker(t, e).get(authorizeURL(e, 2, "contoso.example", "client_id", spa, "redirect_uri", page1))
	if !strings.HasPrefix(p.out.Get("error_description"), "AADSTS50147: ") {
		t.Errorf("without PKCE: got %v", p.out)
	}
	for origin, want := range map[string]string{"https://panel.northwind.example": "https://panel.northwind.example", "https://evil.example": ""} {
		req, err := http.NewRequest("POST", e.Endpoints().Login+"/common/oauth2/v2.0/token", strings.NewReader(url.Values{"client_id": {spa}, "grant_type": {"refresh_token"}}.Encode()))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		req.Header.Set("Origin", origin)
		res, err := e.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		if got := readAnswer(t, res).header.Get("Access-Control-Allow-Origin"); got != want {
			t.Errorf("origin %s: allowed %q, want %q", origin, got, want)
		}
	}
}

// A refresh token that lies idle dies; each use brings one with a new window.
func TestRefreshWindow(t *testing.T) {
	e := start(t)
	idle := consented(t, e, 2, "admin@contoso.example").str("refresh_token")
	e.Dial(func(d *emulator.Dials) { d.SignIn.RefreshWindowSeconds = 200 })
	used := idle
	for range 3 {
		advance(e, 100*time.Second)
		a := token(t, e, 2, "contoso.example", "refresh_token", "refresh_token", used, "scope", "User.Read offline_access")
		if a.status != 200 {
			t.Fatalf("in use: got %v", a.raw)
		}
		used = a.str("refresh_token")
	}
	for _, version := range []int{1, 2} {
		a := refresh(t, e, version, "contoso.example", idle)
		refused(t, a, 400, 700082, "invalid_grant", "bad_token")
		if !strings.Contains(a.str("error_description"), "was inactive for 90.00:00:00") {
			t.Errorf("got %q", a.str("error_description"))
		}
	}
}

func TestSignInFrequency(t *testing.T) {
	e := start(t)
	rt := consented(t, e, 2, "admin@contoso.example").str("refresh_token")
	e.Dial(func(d *emulator.Dials) { d.SignIn.FrequencySeconds = 3600 })
	if a := refresh(t, e, 2, "contoso.example", rt); a.status != 200 {
		t.Errorf("got %v", a.raw)
	}
	e.Dial(func(d *emulator.Dials) { d.SignIn.FrequencySeconds = 1 })
	advance(e, time.Second)
	for _, version := range []int{1, 2} {
		refused(t, refresh(t, e, version, "contoso.example", rt), 400, 70043, "invalid_grant", "bad_token")
	}
}

// What ends a refresh token depends on the client and on who says so.
func TestRevocationTable(t *testing.T) {
	e := start(t)
	const upn = "admin@contoso.example"
	for _, row := range []struct {
		name                 string
		event                func() error
		confidential, public int // codes afterwards
	}{
		{"nothing", func() error { return nil }, 0, 0},
		{"password", func() error { return e.ChangePassword(upn) }, 0, 50173},
		{"revoked", func() error { return e.Revoke(upn) }, 50173, 50173},
	} {
		reset(t, e)
		confidential := consented(t, e, 2, upn).str("refresh_token")
		public := spaTokens(t, e).str("refresh_token")
		if err := row.event(); err != nil {
			t.Fatal(err)
		}
		if got := refresh(t, e, 2, "contoso.example", confidential).code(); got != row.confidential {
			t.Errorf("%s: a confidential client gets %d, want %d", row.name, got, row.confidential)
		}
		if got := refreshSPA(t, e, public).code(); got != row.public {
			t.Errorf("%s: a public client gets %d, want %d", row.name, got, row.public)
		}
	}
	if err := e.ChangePassword("nobody@contoso.example"); err == nil {
		t.Error("an unknown user's password was changed")
	}
}

// A guest's tokens are revoked at home only.
func TestRevokeGuest(t *testing.T) {
	e := start(t)
	rt := consented(t, e, 2, guest).str("refresh_token")
	if err := e.Revoke("guest_adventure-works.example#EXT#@contoso.example"); err != nil {
		t.Fatal(err)
	}
	if a := refresh(t, e, 2, "contoso.example", rt); a.status != 200 {
		t.Errorf("revoked where they visit: got %v", a.raw)
	}
	if err := e.Revoke(guest); err != nil {
		t.Fatal(err)
	}
	refused(t, refresh(t, e, 2, "contoso.example", rt), 400, 50173, "invalid_grant", "bad_token")
}

// A single-tenant application is at home in its tenant only.
func TestSingleTenant(t *testing.T) {
	e := start(t)
	register(t, e, emulator.Application{
		ID: spa, Name: "At home", Tenant: emulator.ContosoTenant, SingleTenant: true, RedirectURIs: []string{redirect}, Secrets: []string{"s"},
	})
	for tenant, want := range map[string]int{"contoso.example": 900144, "common": 50194, "organizations": 50194, "fabrikam.example": 700016} {
		if a := token(t, e, 2, tenant, "refresh_token", "client_id", spa, "client_secret", "s"); a.code() != want {
			t.Errorf("token at %s: got %d, want %d", tenant, a.code(), want)
		}
		p := newWalker(t, e).get(authorizeURL(e, 2, tenant, "client_id", spa))
		if m := code.FindStringSubmatch(p.body); (m == nil) != (tenant == "contoso.example") {
			t.Errorf("authorize at %s: got page %q, %v", tenant, p.id, m)
		}
	}
}

// A public client goes without a credential; it does not act for itself.
func TestPublicClient(t *testing.T) {
	e := start(t)
	registerTool(t, e)
	for _, grant := range []string{"client_credentials", "urn:ietf:params:oauth:grant-type:jwt-bearer"} {
		refused(t, token(t, e, 2, "contoso.example", grant, "client_id", tool, "client_secret", ""), 401, 7000218, "invalid_client", "")
	}
	p := newWalker(t, e).signIn(authorizeURL(e, 2, "contoso.example", "client_id", tool, "scope", "User.Read offline_access", "code_challenge", verifier), person{upn: "admin@contoso.example"})
	a := token(t, e, 2, "contoso.example", "authorization_code", "client_id", tool, "client_secret", "", "code", p.out.Get("code"), "redirect_uri", redirect, "code_verifier", verifier)
	if a.status != 200 || a.str("refresh_token") == "" {
		t.Errorf("got %v", a.raw)
	}
}

// Names that no tenant could have are told apart from tenants that are not
// there.
func TestTenantNames(t *testing.T) {
	e := start(t)
	for name, want := range map[string]int{"nobody.example": 90002, "%20x": 900023, "a%2Fb": 900023, "caf%C3%A9": 900023} {
		refused(t, token(t, e, 2, name, "refresh_token"), 400, want, "invalid_request", "")
	}
}

// The admin API tells a change of password from a revocation.
func TestAdminRevocations(t *testing.T) {
	e := start(t)
	rt := consented(t, e, 2, "admin@contoso.example").str("refresh_token")
	for _, row := range []struct {
		body   string
		status int
		code   int
	}{
		{`{"user":"admin@contoso.example","password":true}`, 204, 0},
		{`{"user":"nobody@contoso.example","password":true}`, 400, 0},
		{`{"user":"admin@contoso.example"}`, 204, 50173},
	} {
		if got, body := admin(t, e, "POST", "/emulator/revocations", row.body); got != row.status {
			t.Errorf("%s: got %d %s, want %d", row.body, got, body, row.status)
		}
		if got := refresh(t, e, 2, "contoso.example", rt).code(); got != row.code {
			t.Errorf("%s: then got %d, want %d", row.body, got, row.code)
		}
	}
}

// That one redirect URI is a single-page application's does not free the
// others from showing a credential.
func TestWebRedirectNeedsCredential(t *testing.T) {
	e := start(t)
	app, _ := e.Application(emulator.ApplicationID)
	app.SPARedirectURIs = []string{page1}
	register(t, e, app)
	p := newWalker(t, e).signIn(authorizeURL(e, 2, "contoso.example"), person{upn: "admin@contoso.example"})
	f := []string{"code", p.out.Get("code"), "redirect_uri", redirect}
	refused(t, token(t, e, 2, "contoso.example", "authorization_code", append(f, "client_secret", "")...), 401, 7000218, "invalid_client", "")
	rt := token(t, e, 2, "contoso.example", "authorization_code", f...).str("refresh_token")
	refused(t, token(t, e, 2, "contoso.example", "refresh_token", "refresh_token", rt, "scope", "User.Read", "client_secret", ""), 401, 7000218, "invalid_client", "")
}
