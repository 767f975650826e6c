package emulator_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/mandate-sam/mandate/emulator"
)

// api is an application with an API of its own, which calls others.
const api = "b0000000-0000-4000-8000-000000000003"

func registerAPI(t *testing.T, e *emulator.Emulator, tokenVersion int) {
	t.Helper()
	register(t, e, emulator.Application{
		ID: api, Name: "API", Tenant: emulator.CPVTenant, RedirectURIs: []string{redirect}, Secrets: []string{"api"},
		IdentifierURIs: []string{"https://api.northwind.example"}, AccessTokenVersion: tokenVersion,
		Exposes: []emulator.Scope{{Name: "access_as_user", Text: "Use the API as you."}},
		Access:  []emulator.Access{{Resource: emulator.Graph, Scopes: []string{"User.Read"}}},
	})
}

// userToken is a token of the user for the API, by the fixture's application.
func userToken(t *testing.T, e *emulator.Emulator, upn, scope string, change ...string) string {
	t.Helper()
	a := consented(t, e, 2, upn, append([]string{"scope", scope}, change...)...)
	return a.str("access_token")
}

// onBehalf exchanges the assertion as the API.
func onBehalf(t *testing.T, e *emulator.Emulator, version int, tenant, assertion string, change ...string) answer {
	t.Helper()
	f := []string{"client_id", api, "client_secret", "api", "assertion", assertion, "requested_token_use", "on_behalf_of"}
	if version == 1 {
		f = append(f, "resource", "https://graph.microsoft.com")
	} else {
		f = append(f, "scope", "https://graph.microsoft.com/User.Read offline_access")
	}
	return token(t, e, version, tenant, "urn:ietf:params:oauth:grant-type:jwt-bearer", append(f, change...)...)
}

func TestOnBehalfOf(t *testing.T) {
	e := start(t)
	for _, version := range []int{1, 2} {
		for tokenVersion, scope := range map[int]string{1: "https://api.northwind.example/access_as_user", 2: "api://" + api + "/.default"} {
			t.Run(fmt.Sprintf("v%d with a token of version %d", version, tokenVersion), func(t *testing.T) {
				reset(t, e)
				registerAPI(t, e, tokenVersion)
				if err := e.Consent("contoso.example", emulator.ApplicationID, api, "access_as_user"); err != nil {
					t.Fatal(err)
				}
				assertion := userToken(t, e, "admin@contoso.example", scope)
				checkAPIToken(t, e, tokenVersion, assertion)
				refused(t, onBehalf(t, e, version, "contoso.example", assertion), 400, 65001, "invalid_grant", "consent_required")
				if err := e.Consent("contoso.example", api, emulator.Graph); err != nil {
					t.Fatal(err)
				}
				for _, tenant := range []string{"contoso.example", "common"} {
					a := onBehalf(t, e, version, tenant, assertion)
					if a.status != 200 || a.str("refresh_token") == "" {
						t.Fatalf("at %s: got %v", tenant, a.raw)
					}
					c := claims(t, a.str("access_token"))
					if c["appid"] != api || c["upn"] != "admin@contoso.example" || c["scp"] != "User.Read" || fmt.Sprint(c["amr"]) != "[pwd mfa]" || c["tid"] != emulator.ContosoTenant {
						t.Errorf("at %s: got claims %v", tenant, c)
					}
					if _, ok := a.raw["expires_in"].(string); ok != (version == 1) {
						t.Errorf("v%d: expires_in is %T", version, a.raw["expires_in"])
					}
					again := token(t, e, 2, "contoso.example", "refresh_token", "client_id", api, "client_secret", "api", "refresh_token", a.str("refresh_token"), "scope", "User.Read")
					if again.status != 200 {
						t.Errorf("its refresh token: %v", again.raw)
					}
				}
			})
		}
	}
}

// checkAPIToken checks the format that the API asks for.
func checkAPIToken(t *testing.T, e *emulator.Emulator, version int, raw string) {
	t.Helper()
	c := claims(t, raw)
	want := map[string]any{"ver": "1.0", "aud": "https://api.northwind.example", "appid": emulator.ApplicationID, "azp": nil, "iss": issuer(e, 1), "upn": "admin@contoso.example"}
	if version == 2 {
		want = map[string]any{"ver": "2.0", "aud": api, "appid": nil, "azp": emulator.ApplicationID, "azpacr": "1", "iss": issuer(e, 2), "upn": nil, "amr": nil, "preferred_username": "admin@contoso.example"}
	}
	for name, v := range want {
		if c[name] != v {
			t.Errorf("version %d: got %s %v, want %v", version, name, c[name], v)
		}
	}
	if c["scp"] != "access_as_user" {
		t.Errorf("got scp %v", c["scp"])
	}
}

// The second factor is inherited from the sign-in, though the token's format
// or a dial hides it.
func TestOnBehalfOfInheritsMFA(t *testing.T) {
	e := start(t)
	registerAPI(t, e, 2)
	for _, app := range []string{emulator.ApplicationID, api} {
		for _, resource := range []string{api, emulator.Graph} {
			if err := e.Consent("contoso.example", app, resource, map[string]string{api: "access_as_user", emulator.Graph: "User.Read"}[resource]); err != nil {
				t.Fatal(err)
			}
		}
	}
	weak := userToken(t, e, "nomfa@contoso.example", "api://"+api+"/.default")
	strong := userToken(t, e, "admin@contoso.example", "api://"+api+"/.default")
	e.Dial(func(d *emulator.Dials) { d.MFAResources = []string{emulator.Graph}; d.AMRAbsent = true })
	refused(t, onBehalf(t, e, 1, "contoso.example", weak), 400, 50079, "interaction_required", "basic_action")
	a := onBehalf(t, e, 2, "contoso.example", weak)
	refused(t, a, 400, 50079, "invalid_grant", "basic_action")
	if a.str("claims") == "" {
		t.Error("no claims for the user to be asked for")
	}
	if a := onBehalf(t, e, 2, "contoso.example", strong); a.status != 200 {
		t.Errorf("with MFA: %v", a.raw)
	}
}

func TestOnBehalfOfRefusals(t *testing.T) {
	e := start(t)
	registerAPI(t, e, 1)
	for _, app := range []string{emulator.ApplicationID, api} {
		if err := e.Consent("contoso.example", app, api, "access_as_user"); err != nil {
			t.Fatal(err)
		}
	}
	graph := consented(t, e, 2, "admin@contoso.example", "scope", "openid User.Read")
	good := userToken(t, e, "admin@contoso.example", "api://"+api+"/access_as_user")
	e.Dial(func(d *emulator.Dials) { d.AccessTokenLifetime = time.Nanosecond })
	old := userToken(t, e, "admin@contoso.example", "api://"+api+"/access_as_user")
	e.Dial(func(d *emulator.Dials) { d.AccessTokenLifetime = 0 })
	self := consented(t, e, 2, "admin@contoso.example", "scope", "openid api://"+api+"/access_as_user")
	own := token(t, e, 2, "contoso.example", "client_credentials", "client_id", api, "client_secret", "api", "scope", "api://"+api+"/.default")
	for _, row := range []struct {
		name      string
		assertion string
		tenant    string
		change    []string
		status    int
		code      int
		err       string
		sub       string
	}{
		{"no assertion", "", "contoso.example", nil, 400, 900144, "invalid_request", ""},
		{"no use", good, "contoso.example", []string{"requested_token_use", ""}, 400, 900144, "invalid_request", ""},
		{"another use", good, "contoso.example", []string{"requested_token_use", "fun"}, 400, 90023, "invalid_request", ""},
		{"no token", "x", "contoso.example", nil, 400, 50027, "invalid_grant", ""},
		{"garbage", "a.b.c", "contoso.example", nil, 400, 50013, "invalid_grant", ""},
		{"tampered", good[:len(good)-20] + "AAAAAAAAAAAAAAAAAAAA", "contoso.example", nil, 400, 50013, "invalid_grant", ""},
		{"expired", old, "contoso.example", nil, 400, 500133, "invalid_grant", ""},
		{"another audience", graph.str("access_token"), "contoso.example", nil, 400, 50013, "invalid_grant", ""},
		{"an ID token", self.str("id_token"), "contoso.example", nil, 400, 50013, "invalid_grant", ""},
		{"an application's own", own.str("access_token"), "contoso.example", nil, 400, 50013, "invalid_grant", ""},
		{"another tenant", good, "fabrikam.example", nil, 400, 50013, "invalid_grant", ""},
		{"another client", good, "contoso.example", []string{"client_id", emulator.ApplicationID, "client_secret", emulator.ApplicationSecret}, 400, 50013, "invalid_grant", ""},
		{"no credential", good, "contoso.example", []string{"client_secret", ""}, 401, 7000218, "invalid_client", ""},
		{"not consented", good, "contoso.example", nil, 400, 65001, "invalid_grant", "consent_required"},
	} {
		for _, version := range []int{1, 2} {
			t.Run(fmt.Sprintf("v%d %s", version, row.name), func(t *testing.T) {
				refused(t, onBehalf(t, e, version, row.tenant, row.assertion, row.change...), row.status, row.code, row.err, row.sub)
			})
		}
	}
	refused(t, onBehalf(t, e, 1, "contoso.example", good, "resource", ""), 400, 900144, "invalid_request", "")
	refused(t, onBehalf(t, e, 2, "contoso.example", good, "scope", ""), 400, 900144, "invalid_request", "")
	if err := e.Revoke("admin@contoso.example"); err != nil {
		t.Fatal(err)
	}
	refused(t, onBehalf(t, e, 2, "contoso.example", good), 400, 50173, "invalid_grant", "bad_token")
}

// An application needs no consent for its own API.
func TestOwnAPI(t *testing.T) {
	e := start(t)
	registerAPI(t, e, 2)
	p := newWalker(t, e).signIn(authorizeURL(e, 2, "contoso.example", "client_id", api, "scope", api+"/access_as_user"), person{upn: "admin@contoso.example"})
	a := token(t, e, 2, "contoso.example", "authorization_code", "client_id", api, "client_secret", "api", "code", p.out.Get("code"), "redirect_uri", redirect)
	if c := claims(t, a.str("access_token")); c["aud"] != api || c["azp"] != api {
		t.Errorf("got claims %v", c)
	}
}
