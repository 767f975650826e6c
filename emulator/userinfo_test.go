package emulator_test

import (
	"context"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"

	"github.com/mandate-sam/mandate/emulator"
)

// A library finds the endpoint in the metadata of either version, and its
// answer is about whom the ID token is about.
func TestUserInfo(t *testing.T) {
	e := start(t)
	ctx := oidc.ClientContext(context.Background(), e.Client())
	for version, resource := range map[int]string{1: emulator.AzureADGraph, 2: "https://graph.microsoft.com"} {
		rt := consented(t, e, version, "admin@contoso.example").str("refresh_token")
		a := token(t, e, version, "contoso.example", "refresh_token", "refresh_token", rt, "resource", map[int]string{1: resource}[version], "scope", "openid profile email")
		p, err := oidc.NewProvider(ctx, issuer(e, version))
		if err != nil {
			t.Fatal(err)
		}
		info, err := p.UserInfo(ctx, oauth2.StaticTokenSource(&oauth2.Token{AccessToken: a.str("access_token")}))
		if err != nil {
			t.Errorf("v%d: %v", version, err)
			continue
		}
		var c map[string]any
		if err := info.Claims(&c); err != nil {
			t.Fatal(err)
		}
		id := claims(t, a.str("id_token"))
		if info.Subject != id["sub"] || c["name"] != id["name"] {
			t.Errorf("v%d: got %v, want what the ID token says: %v", version, c, id)
		}
		if version == 2 && (info.Email != "admin@contoso.example" || c["picture"] == nil || c["given_name"] == nil || c["family_name"] == nil) {
			t.Errorf("got %v", c)
		}
	}
}

// The answer goes as far as the token's scopes, and only a user's token for
// Graph gets one.
func TestUserInfoScopes(t *testing.T) {
	e := start(t)
	rt := consented(t, e, 2, "admin@contoso.example").str("refresh_token")
	access := func(scope string) string {
		return token(t, e, 2, "contoso.example", "refresh_token", "refresh_token", rt, "scope", scope).str("access_token")
	}
	for scope, want := range map[string]string{
		"openid":                 "sub",
		"openid email":           "email sub",
		"openid profile":         "family_name given_name name picture sub",
		"User.Read openid email": "email sub",
	} {
		a := exchange(t, e, "POST", e.Endpoints().Graph+"/oidc/userinfo", access(scope), "")
		if got := strings.Join(slices.Sorted(maps.Keys(a.raw)), " "); a.status != 200 || got != want {
			t.Errorf("scope %q: got %d %v, want %s", scope, a.status, a.raw, want)
		}
	}
	graph, login := e.Endpoints().Graph+"/oidc/userinfo", e.Endpoints().Login+"/common/openid/userinfo"
	for _, row := range []struct {
		url, token string
		want       int
	}{
		{graph, access("User.Read"), 403},
		{graph, appToken(t, e, "contoso.example", emulator.Graph), 403},
		{graph, access("openid https://management.azure.com/.default"), 401},
		{graph, "", 401},
		{login, access("openid"), 200},
		{login, appToken(t, e, "contoso.example", emulator.Graph), 401},
		{login, access("openid https://management.azure.com/.default"), 401},
		{login, "", 401},
	} {
		a := call(t, e, row.url, row.token)
		if a.status != row.want || (row.want == 401) != (a.header.Get("WWW-Authenticate") != "") {
			t.Errorf("%s: got %d %v, want %d", row.url, a.status, a.raw, row.want)
		}
	}
}
