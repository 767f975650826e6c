package emulator_test

import (
	"strings"
	"testing"
	"time"

	"github.com/mandate-sam/mandate/emulator"
)

// What is public may be kept for a day; nothing else may be kept at all.
func TestCacheHeaders(t *testing.T) {
	e := start(t)
	login := e.Endpoints().Login
	for path, want := range map[string]string{
		"/common/discovery/instance?api-version=1.1&authorization_endpoint=" + login + "/common/oauth2/v2.0/authorize": "max-age=86400, private",
		"/common/v2.0/.well-known/openid-configuration":                                                                "max-age=86400, private",
		"/common/.well-known/openid-configuration":                                                                     "max-age=86400, private",
		"/common/discovery/v2.0/keys":                                                                                  "max-age=86400, private",
		"/nobody.example/v2.0/.well-known/openid-configuration":                                                        "no-store, no-cache",
		"/common/userrealm/admin@contoso.example":                                                                      "no-store, no-cache",
	} {
		if got := call(t, e, login+path, "").header.Get("Cache-Control"); got != want {
			t.Errorf("%s: got Cache-Control %q, want %q", path, got, want)
		}
	}
	a := refresh(t, e, 2, "contoso.example", consented(t, e, 2, "admin@contoso.example").str("refresh_token"))
	if got := a.header.Get("x-ms-clitelem"); got != "1,0,0,," {
		t.Errorf("got x-ms-clitelem %q", got)
	}
}

// A token that lives for long comes with the time at which to ask for another.
func TestRefreshIn(t *testing.T) {
	e := start(t)
	rt := consented(t, e, 2, "admin@contoso.example").str("refresh_token")
	for life, want := range map[time.Duration][2]any{
		time.Hour:      {nil, nil},
		24 * time.Hour: {"43200", 43200.0},
	} {
		e.Dial(func(d *emulator.Dials) { d.AccessTokenLifetime = life })
		for i, want := range want {
			if got := refresh(t, e, i+1, "contoso.example", rt).raw["refresh_in"]; got != want {
				t.Errorf("v%d, %v: got refresh_in %v, want %v", i+1, life, got, want)
			}
		}
	}
}

// Access tokens for Graph have the claims of real ones.
func TestGraphTokenClaims(t *testing.T) {
	e := start(t)
	rt := consented(t, e, 2, "admin@contoso.example").str("refresh_token")
	for _, version := range []int{1, 2} {
		c := claims(t, refresh(t, e, version, "contoso.example", rt).str("access_token"))
		for _, name := range strings.Fields("aud iss iat nbf exp acct acr acrs aio amr app_displayname appid appidacr family_name given_name idtyp ipaddr name oid platf puid rh scp sid sub tenant_region_scope tid unique_name upn uti ver wids xms_st xms_tcdt") {
			if c[name] == nil {
				t.Errorf("v%d: no claim %s", version, name)
			}
		}
	}
}

// Without the scope profile a v2 ID token does not say who that is, but by a
// name of its own.
func TestIDTokenProfile(t *testing.T) {
	e := start(t)
	rt := consented(t, e, 2, "admin@contoso.example").str("refresh_token")
	for scope, want := range map[string]bool{"openid": false, "openid profile": true} {
		c := claims(t, token(t, e, 2, "contoso.example", "refresh_token", "refresh_token", rt, "scope", scope).str("id_token"))
		for _, name := range []string{"name", "oid", "preferred_username"} {
			if got := c[name] != nil; got != want {
				t.Errorf("scope %q: %s is there: %v", scope, name, got)
			}
		}
		if c["sub"] == nil || c["tid"] != emulator.ContosoTenant {
			t.Errorf("scope %q: got sub %v, tid %v", scope, c["sub"], c["tid"])
		}
	}
}
