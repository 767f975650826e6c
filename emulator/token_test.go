package emulator_test

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/mandate-sam/mandate/emulator"
)

// Types and fields differ between the versions: v1 writes only strings.
func TestAnswerShapes(t *testing.T) {
	e := start(t)
	v1 := consented(t, e, 1, "admin@contoso.example")
	for name, v := range v1.raw {
		if _, ok := v.(string); !ok {
			t.Errorf("v1 %s is %T, want a string", name, v)
		}
	}
	for _, name := range []string{"token_type", "scope", "expires_in", "ext_expires_in", "expires_on", "not_before", "resource", "access_token", "refresh_token", "id_token"} {
		if v1.str(name) == "" {
			t.Errorf("v1 lacks %s", name)
		}
	}
	if got := v1.str("scope"); got != "user_impersonation" {
		t.Errorf("v1 got scope %q, want bare names", got)
	}
	v2 := token(t, e, 2, "contoso.example", "refresh_token", "refresh_token", v1.str("refresh_token"), "scope", "https://api.partnercenter.microsoft.com/user_impersonation offline_access openid")
	if _, ok := v2.raw["expires_in"].(float64); !ok {
		t.Errorf("v2 expires_in is %T, want a number", v2.raw["expires_in"])
	}
	if got, want := v2.str("scope"), "https://api.partnercenter.microsoft.com/user_impersonation openid"; got != want {
		t.Errorf("v2 got scope %q, want %q", got, want)
	}
	for _, name := range []string{"expires_on", "not_before", "resource"} {
		if _, ok := v2.raw[name]; ok {
			t.Errorf("v2 has %s", name)
		}
	}
	for name, want := range map[string]string{"Cache-Control": "no-store, no-cache", "Pragma": "no-cache", "Content-Type": "application/json; charset=utf-8", "Expires": "-1"} {
		if got := v2.header.Get(name); got != want {
			t.Errorf("got %s %q, want %q", name, got, want)
		}
	}
}

// An ID token comes along with a v2 answer if it was asked for, and a refresh
// token if the sign-in did so, or was asked for later: a refresh token brings
// the next whatever the scope.
func TestOIDCScopes(t *testing.T) {
	e := start(t)
	rt := consented(t, e, 2, "admin@contoso.example").str("refresh_token")
	for scope, id := range map[string]bool{
		"User.Read": false, "User.Read openid": true, "User.Read offline_access": false, "openid offline_access User.Read": true,
	} {
		a := token(t, e, 2, "contoso.example", "refresh_token", "refresh_token", rt, "scope", scope)
		if got := a.str("id_token") != ""; got != id || a.str("refresh_token") == "" {
			t.Errorf("scope %q: got id_token %t, want %t, and a refresh token: %v", scope, got, id, a.raw)
		}
	}
	for _, row := range []struct {
		name               string
		version            int
		asked, redeemed    string
		idToken, refreshed bool
	}{
		{"neither", 2, "User.Read", "User.Read", false, false},
		{"sign-in", 2, "openid offline_access User.Read", "User.Read", false, true},
		{"redemption", 2, "User.Read", "openid offline_access User.Read", true, true},
		{"sign-in, and no scope", 2, "openid offline_access User.Read", "", true, true},
		{"sign-in of v1", 1, "", "User.Read", false, true},
	} {
		p := newWalker(t, e).signIn(authorizeURL(e, row.version, "contoso.example", "scope", row.asked), person{upn: "admin@contoso.example"})
		a := token(t, e, 2, "contoso.example", "authorization_code", "code", p.out.Get("code"), "redirect_uri", redirect, "scope", row.redeemed)
		if id, rt := a.str("id_token") != "", a.str("refresh_token") != ""; a.status != 200 || id != row.idToken || rt != row.refreshed {
			t.Errorf("offline_access asked for by %s: got id_token %t, refresh_token %t, want %t, %t: %v", row.name, id, rt, row.idToken, row.refreshed, a.raw)
		}
	}
	a := token(t, e, 1, "contoso.example", "refresh_token", "refresh_token", rt, "resource", emulator.Graph)
	if a.str("id_token") != "" || a.str("refresh_token") == "" {
		t.Errorf("v1 without scope=openid: got %v", a.raw)
	}
	a = token(t, e, 1, "contoso.example", "refresh_token", "refresh_token", rt, "resource", emulator.Graph, "scope", "openid")
	if a.str("id_token") == "" || claims(t, a.str("access_token"))["aud"] != emulator.Graph {
		t.Errorf("v1 with scope=openid: got %v", a.raw)
	}
}

func TestScopesInTokens(t *testing.T) {
	e := start(t)
	rt := consented(t, e, 2, "admin@contoso.example").str("refresh_token")
	ask := func(scope string) (string, string) {
		a := token(t, e, 2, "contoso.example", "refresh_token", "refresh_token", rt, "scope", scope)
		return a.str("scope"), fmt.Sprint(claims(t, a.str("access_token"))["scp"])
	}
	all := "User.Read Directory.Read.All DelegatedAdminRelationship.Read.All"
	scope, scp := ask("User.Read")
	if scp != all || strings.Count(scope, "https://graph.microsoft.com/") != 3 {
		t.Errorf("asked for one, got %q and %q, want all that are consented", scope, scp)
	}
	e.Dial(func(d *emulator.Dials) { d.ScopesAsAsked = true })
	if scope, scp = ask("https://graph.microsoft.com/User.Read"); scp != "User.Read" || scope != "https://graph.microsoft.com/User.Read" {
		t.Errorf("as asked: got %q and %q", scope, scp)
	}
	if _, scp = ask("https://graph.microsoft.com/.default"); scp != all {
		t.Errorf(".default: got %q, want %q", scp, all)
	}
	a := token(t, e, 2, "contoso.example", "refresh_token", "refresh_token", rt, "scope", "https://management.azure.com//user_impersonation")
	if c := claims(t, a.str("access_token")); c["aud"] != "https://management.azure.com/" || a.str("scope") != "https://management.azure.com//user_impersonation" {
		t.Errorf("two slashes: got aud %v and scope %q", c["aud"], a.str("scope"))
	}
}

func TestAccessTokenClaims(t *testing.T) {
	e := start(t)
	a := consented(t, e, 2, "admin@contoso.example")
	c := claims(t, a.str("access_token"))
	want := map[string]any{
		"aud": "https://api.partnercenter.microsoft.com", "iss": e.Endpoints().Login + "/" + emulator.ContosoTenant + "/",
		"appid": emulator.ApplicationID, "appidacr": "1", "tid": emulator.ContosoTenant, "upn": "admin@contoso.example",
		"ver": "1.0", "idtyp": "user", "scp": "user_impersonation", "acct": 0.0,
	}
	for name, v := range want {
		if c[name] != v {
			t.Errorf("got %s %v, want %v", name, c[name], v)
		}
	}
	for _, name := range []string{"oid", "sub", "uti", "wids", "iat", "nbf", "exp", "amr"} {
		if c[name] == nil {
			t.Errorf("%s is missing", name)
		}
	}
	life := time.Duration(c["exp"].(float64)-c["iat"].(float64)) * time.Second
	if life < time.Hour || life > 90*time.Minute {
		t.Errorf("got a lifetime of %s, want 60 to 90 minutes", life)
	}
	capable := token(t, e, 2, "contoso.example", "refresh_token", "refresh_token", a.str("refresh_token"), "scope", "User.Read", "claims", `{"access_token":{"xms_cc":{"values":["cp1"]}}}`)
	if n := capable.raw["expires_in"].(float64); n < 24*3600 {
		t.Errorf("a client that answers challenges got %v seconds, want a day or more", n)
	}
}

var uuid = regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)

// refused checks the shape of an error answer.
func refused(t *testing.T, a answer, status, code int, name, suberror string) {
	t.Helper()
	if a.status != status || a.code() != code || a.str("error") != name || a.str("suberror") != suberror {
		t.Errorf("got %d, %d, %q, %q, want %d, %d, %q, %q: %s", a.status, a.code(), a.str("error"), a.str("suberror"), status, code, name, suberror, a.str("error_description"))
		return
	}
	want := fmt.Sprintf("AADSTS%d: ", code)
	tail := fmt.Sprintf(" Trace ID: %s Correlation ID: %s Timestamp: %s", a.str("trace_id"), a.str("correlation_id"), a.str("timestamp"))
	if d := a.str("error_description"); !strings.HasPrefix(d, want) || !strings.HasSuffix(d, tail) || strings.Contains(d, "%!") {
		t.Errorf("got description %q, want %q … %q", d, want, tail)
	}
	if !uuid.MatchString(a.str("trace_id")) || !uuid.MatchString(a.str("correlation_id")) || a.header.Get("x-ms-request-id") != a.str("trace_id") {
		t.Errorf("got trace %q (header %q), correlation %q", a.str("trace_id"), a.header.Get("x-ms-request-id"), a.str("correlation_id"))
	}
	if _, err := time.Parse("2006-01-02 15:04:05Z", a.str("timestamp")); err != nil {
		t.Error(err)
	}
	if !strings.HasSuffix(a.str("error_uri"), fmt.Sprintf("/error?code=%d", code)) {
		t.Errorf("got error_uri %q", a.str("error_uri"))
	}
}

func TestTokenErrors(t *testing.T) {
	e := start(t)
	other := emulator.Application{ID: "b0000000-0000-4000-8000-000000000001", Name: "Other", Tenant: emulator.CPVTenant, RedirectURIs: []string{redirect}, Secrets: []string{"other"}}
	if err := e.Register(other); err != nil {
		t.Fatal(err)
	}
	rt := consented(t, e, 2, "admin@contoso.example").str("refresh_token")
	for _, row := range []struct {
		name          string
		version       int
		tenant, grant string
		change        []string
		status, code  int
		error, sub    string
	}{
		{"unknown tenant", 2, "nobody.example", "refresh_token", nil, 400, 90002, "invalid_request", ""},
		{"no grant", 2, "contoso.example", "", nil, 400, 900144, "invalid_request", ""},
		{"unknown grant", 2, "contoso.example", "password", nil, 400, 70003, "unsupported_grant_type", ""},
		{"no client", 2, "contoso.example", "refresh_token", []string{"client_id", ""}, 400, 900144, "invalid_request", ""},
		{"unknown client", 2, "contoso.example", "refresh_token", []string{"client_id", emulator.CPVTenant}, 400, 700016, "unauthorized_client", ""},
		{"no credential", 2, "contoso.example", "refresh_token", []string{"client_secret", ""}, 401, 7000218, "invalid_client", ""},
		{"wrong secret", 2, "contoso.example", "refresh_token", []string{"client_secret", "wrong"}, 401, 7000215, "invalid_client", ""},
		{"no assertion", 2, "contoso.example", "refresh_token", []string{"client_assertion", "a.b.c", "client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"}, 401, 50027, "invalid_client", ""},
		{"assertion type", 2, "contoso.example", "refresh_token", []string{"client_assertion", "a.b.c"}, 400, 90023, "invalid_request", ""},
		{"no refresh token", 2, "contoso.example", "refresh_token", nil, 400, 900144, "invalid_request", ""},
		{"unknown refresh token", 2, "contoso.example", "refresh_token", []string{"refresh_token", "x"}, 400, 70000, "invalid_grant", "bad_token"},
		{"another client's", 2, "contoso.example", "refresh_token", []string{"refresh_token", rt, "client_id", other.ID, "client_secret", "other", "scope", "User.Read"}, 400, 70000, "invalid_grant", "bad_token"},
		{"no scope", 2, "contoso.example", "refresh_token", []string{"refresh_token", rt}, 400, 900144, "invalid_request", ""},
		{"resource on v2", 2, "contoso.example", "refresh_token", []string{"refresh_token", rt, "resource", "https://graph.microsoft.com"}, 400, 901002, "invalid_request", ""},
		{"unknown scope", 2, "contoso.example", "refresh_token", []string{"refresh_token", rt, "scope", "Fly"}, 400, 70011, "invalid_scope", ""},
		{"unknown resource v2", 2, "contoso.example", "refresh_token", []string{"refresh_token", rt, "scope", "https://nothing.example/.default"}, 400, 500011, "invalid_resource", ""},
		{"unknown resource v1", 1, "contoso.example", "refresh_token", []string{"refresh_token", rt, "resource", "https://nothing.example"}, 400, 500011, "invalid_resource", ""},
		{"not consented v2", 2, "contoso.example", "refresh_token", []string{"refresh_token", rt, "scope", "https://vault.azure.net/.default"}, 400, 65001, "invalid_grant", "consent_required"},
		{"not consented v1", 1, "contoso.example", "refresh_token", []string{"refresh_token", rt, "resource", "https://vault.azure.net"}, 400, 65001, "invalid_grant", "consent_required"},
		{"scope not consented", 2, "contoso.example", "refresh_token", []string{"refresh_token", rt, "scope", "User.ReadWrite.All"}, 400, 65001, "invalid_grant", "consent_required"},
		{"bad claims", 2, "contoso.example", "refresh_token", []string{"refresh_token", rt, "claims", "["}, 400, 90023, "invalid_request", ""},
		{"no code", 2, "contoso.example", "authorization_code", nil, 400, 900144, "invalid_request", ""},
		{"unknown code", 2, "contoso.example", "authorization_code", []string{"code", "x"}, 400, 70000, "invalid_grant", "bad_token"},
		{"app at common", 2, "common", "client_credentials", []string{"scope", "https://graph.microsoft.com/.default"}, 400, 50059, "invalid_request", ""},
		{"app without .default", 2, "contoso.example", "client_credentials", []string{"scope", "User.Read"}, 400, 70011, "invalid_scope", ""},
		{"app without scope", 2, "contoso.example", "client_credentials", nil, 400, 70011, "invalid_scope", ""},
		{"app without resource", 1, "contoso.example", "client_credentials", nil, 400, 900144, "invalid_request", ""},
		{"app not installed", 2, "wingtip.example", "client_credentials", []string{"scope", "https://graph.microsoft.com/.default"}, 400, 700016, "unauthorized_client", ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			refused(t, token(t, e, row.version, row.tenant, row.grant, row.change...), row.status, row.code, row.error, row.sub)
		})
	}
}

func TestCodeErrors(t *testing.T) {
	e := start(t)
	verifier := strings.Repeat("v", 43)
	sum := sha256.Sum256([]byte(verifier))
	s256 := base64.RawURLEncoding.EncodeToString(sum[:])
	for _, row := range []struct {
		name      string
		authorize []string
		tenant    string
		change    []string
		code      int
	}{
		{"good", nil, "contoso.example", nil, 0},
		{"good at common", nil, "common", nil, 0},
		{"tenant in capitals", nil, "CONTOSO.EXAMPLE", nil, 0},
		{"empty verifier is none", nil, "contoso.example", []string{"code_verifier", ""}, 0},
		{"only redirect URI may be left out", nil, "contoso.example", []string{"redirect_uri", ""}, 0},
		{"S256", []string{"code_challenge", s256, "code_challenge_method", "S256"}, "contoso.example", []string{"code_verifier", verifier}, 0},
		{"plain", []string{"code_challenge", verifier}, "contoso.example", []string{"code_verifier", verifier}, 0},
		{"wrong verifier", []string{"code_challenge", s256, "code_challenge_method", "S256"}, "contoso.example", []string{"code_verifier", strings.Repeat("w", 43)}, 501481},
		{"no verifier", []string{"code_challenge", s256, "code_challenge_method", "S256"}, "contoso.example", nil, 501481},
		{"verifier without challenge", nil, "contoso.example", []string{"code_verifier", verifier}, 501481},
		{"other tenant", nil, "fabrikam.example", nil, 700005},
		{"other redirect URI", nil, "contoso.example", []string{"redirect_uri", redirect + "/"}, 500112},
	} {
		t.Run(row.name, func(t *testing.T) {
			reset(t, e)
			p := newWalker(t, e).signIn(authorizeURL(e, 2, "contoso.example", row.authorize...), person{upn: "admin@contoso.example"})
			form := append([]string{"code", p.out.Get("code"), "redirect_uri", redirect}, row.change...)
			if a := token(t, e, 2, row.tenant, "authorization_code", form...); a.code() != row.code {
				t.Fatalf("got %d, want %d: %v", a.code(), row.code, a.raw)
			}
			if row.code == 0 {
				refused(t, token(t, e, 2, row.tenant, "authorization_code", form...), 400, 54005, "invalid_grant", "")
			}
		})
	}
}

// A refused redemption leaves the code to whoever is entitled to it.
func TestRefusedRedemptionKeepsCode(t *testing.T) {
	e := start(t)
	p := newWalker(t, e).signIn(authorizeURL(e, 2, "contoso.example"), person{upn: "admin@contoso.example"})
	form := []string{"code", p.out.Get("code"), "redirect_uri", redirect}
	token(t, e, 2, "fabrikam.example", "authorization_code", form...)
	if a := token(t, e, 2, "contoso.example", "authorization_code", form...); a.status != 200 {
		t.Errorf("got %v", a.raw)
	}
}

func TestV1ResourceOfCode(t *testing.T) {
	e := start(t)
	p := newWalker(t, e).signIn(authorizeURL(e, 1, "contoso.example"), person{upn: "admin@contoso.example"})
	a := token(t, e, 1, "contoso.example", "authorization_code", "code", p.out.Get("code"), "redirect_uri", redirect, "resource", "https://graph.microsoft.com")
	refused(t, a, 400, 90023, "invalid_request", "")

	p = newWalker(t, e).signIn(authorizeURL(e, 1, "common", "resource", ""), person{upn: "admin@contoso.example"})
	a = token(t, e, 1, "common", "authorization_code", "code", p.out.Get("code"), "redirect_uri", redirect)
	if a.str("resource") != emulator.AzureADGraph || a.str("id_token") == "" {
		t.Errorf("no resource at all: got %v", a.raw)
	}
}

func TestBasicAuthentication(t *testing.T) {
	e := start(t)
	for secret, want := range map[string]int{emulator.ApplicationSecret: 200, "wrong": 401} {
		f := url.Values{"grant_type": {"client_credentials"}, "scope": {"https://graph.microsoft.com/.default openid offline_access profile"}}
		req, err := http.NewRequest("POST", e.Endpoints().Login+"/adatum.example/oauth2/v2.0/token", strings.NewReader(f.Encode()))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		req.SetBasicAuth(url.QueryEscape(emulator.ApplicationID), url.QueryEscape(secret))
		res, err := e.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		a := readAnswer(t, res)
		if a.status != want {
			t.Errorf("secret %q: got %d, want %d: %v", secret, a.status, want, a.raw)
		}
		if want == 200 && len(a.raw) != 4 {
			t.Errorf("an application's token comes with %v", a.raw)
		}
	}
}

func TestCorrelationID(t *testing.T) {
	e := start(t)
	const id = "11111111-2222-4333-8444-555555555555"
	a := token(t, e, 2, "contoso.example", "refresh_token", "client-request-id", id)
	if a.str("correlation_id") != id {
		t.Errorf("from the body: got %q, want %q", a.str("correlation_id"), id)
	}
	a = token(t, e, 2, "contoso.example", "refresh_token", "client-request-id", "x\r\ny")
	if !uuid.MatchString(a.str("correlation_id")) {
		t.Errorf("got %q, want one of the emulator's own", a.str("correlation_id"))
	}
}

func TestTokenLog(t *testing.T) {
	e := start(t)
	first := consented(t, e, 2, "admin@contoso.example")
	again := token(t, e, 1, "adatum.example", "refresh_token", "refresh_token", first.str("refresh_token"), "resource", "https://graph.microsoft.com")
	token(t, e, 1, "contoso.example", "refresh_token", "refresh_token", first.str("refresh_token"), "resource", "https://vault.azure.net")
	log := e.TokenRequests()
	if len(log) != 3 {
		t.Fatalf("got %d requests, want 3", len(log))
	}
	sum := sha256.Sum256([]byte(again.str("access_token")))
	got, want := log[1], emulator.TokenRequest{
		Time: log[1].Time, Version: 1, Grant: "refresh_token", Tenant: emulator.AdatumTenant, Client: emulator.ApplicationID,
		User: log[0].User, Resource: "https://graph.microsoft.com", Presented: 1, Answered: 2, Status: 200,
		AccessTokenSHA256: hex.EncodeToString(sum[:]), CorrelationID: log[1].CorrelationID,
	}
	if got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if log[0].Answered != 1 || log[2].Error != 65001 || log[2].Presented != 1 || log[2].Answered != 0 {
		t.Errorf("got %+v", log)
	}
}
