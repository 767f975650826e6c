package emulator_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/mandate-sam/mandate/emulator"
)

func TestCodeFlow(t *testing.T) {
	e := start(t)
	for _, version := range []int{1, 2} {
		for _, mode := range []string{"query", "form_post", "fragment"} {
			t.Run(fmt.Sprintf("v%d %s", version, mode), func(t *testing.T) {
				reset(t, e)
				w := newWalker(t, e)
				p := w.signIn(authorizeURL(e, version, "contoso.example", "response_mode", mode), person{upn: "admin@contoso.example"})
				if p.out.Get("code") == "" || p.out.Get("state") != "a state" || p.out.Get("session_state") == "" {
					t.Fatalf("callback got %v", p.out)
				}
				last := map[string][]string{"form_post": {"form_post"}}[mode]
				if want := append([]string{"account", "signin", "mfa", "consent"}, last...); !slices.Equal(w.pages, want) {
					t.Errorf("got pages %q, want %q", w.pages, want)
				}
				a := token(t, e, version, "contoso.example", "authorization_code", "code", p.out.Get("code"), "redirect_uri", redirect, "client_info", "1")
				if a.status != 200 || a.str("access_token") == "" || a.str("refresh_token") == "" || a.str("id_token") == "" || a.str("client_info") == "" {
					t.Fatalf("token got %v", a.raw)
				}
				if got := claims(t, a.str("access_token"))["amr"]; fmt.Sprint(got) != "[pwd mfa]" {
					t.Errorf("got amr %v, want [pwd mfa]", got)
				}
				if n, ok := e.RefreshTokenNumber(a.str("refresh_token")); n != 1 || !ok {
					t.Errorf("got refresh token number %d, %v, want 1", n, ok)
				}
			})
		}
	}
}

func TestRefreshAndServices(t *testing.T) {
	e := start(t)
	for _, version := range []int{1, 2} {
		t.Run(fmt.Sprintf("v%d", version), func(t *testing.T) {
			reset(t, e)
			rt := consented(t, e, version, "admin@contoso.example").str("refresh_token")
			ask := func(tenant, resource string) answer {
				t.Helper()
				p := []string{"refresh_token", rt, "resource", resource}
				if version == 2 {
					p = []string{"refresh_token", rt, "scope", "openid offline_access " + resource + "/.default"}
				}
				a := token(t, e, version, tenant, "refresh_token", p...)
				if a.status != 200 {
					t.Fatalf("refresh for %s in %s: %v", resource, tenant, a.raw)
				}
				return a
			}
			ep := e.Endpoints()
			pc := ask(emulator.ContosoTenant, "https://api.partnercenter.microsoft.com")
			c := call(t, e, ep.PartnerCenter+"/v1/customers", pc.str("access_token"), "ValidateMfa", "true")
			if c.status != 200 || c.raw["totalCount"] != 3.0 || c.header.Get("isMfaCompliant") != "true" {
				t.Errorf("customers: %d %v %v", c.status, c.raw, c.header)
			}
			c = call(t, e, ep.PartnerCenter+"/v1//customers/"+emulator.AdatumTenant+"/users", pc.str("access_token"))
			if c.status != 200 || c.raw["totalCount"] != 3.0 {
				t.Errorf("customer's users: %d %v", c.status, c.raw)
			}
			g := ask(emulator.ContosoTenant, ep.Graph)
			c = call(t, e, ep.Graph+"/v1.0/me", g.str("access_token"))
			if c.str("userPrincipalName") != "admin@contoso.example" {
				t.Errorf("me: %v", c.raw)
			}
			c = call(t, e, ep.Graph+"/v1.0/me/memberOf", g.str("access_token"))
			if len(c.raw["value"].([]any)) != 2 {
				t.Errorf("memberOf: %v, want a group and a role", c.raw)
			}
			m := ask(emulator.AdatumTenant, "https://management.azure.com/")
			c = call(t, e, ep.ARM+"/subscriptions?api-version=2022-12-01", m.str("access_token"))
			subs, _ := c.raw["value"].([]any)
			if len(subs) != 1 {
				t.Fatalf("subscriptions: %v", c.raw)
			}
			c = call(t, e, ep.ARM+subs[0].(map[string]any)["id"].(string)+"/resourcegroups?api-version=2021-04-01", m.str("access_token"))
			if groups, _ := c.raw["value"].([]any); len(groups) != 2 {
				t.Errorf("resource groups: %v", c.raw)
			}
			if got := len(e.RefreshTokens()); got != 4 {
				t.Errorf("got %d refresh tokens, want 4", got)
			}
		})
	}
}
