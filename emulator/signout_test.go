package emulator_test

import (
	"net/http"
	"net/url"
	"testing"

	"github.com/mandate-sam/mandate/emulator"
)

// Signing out ends the browser's session and nothing else.
func TestSignOut(t *testing.T) {
	e := start(t)
	for _, path := range []string{"/common/oauth2/logout", "/contoso.example/oauth2/v2.0/logout"} {
		reset(t, e)
		w := newWalker(t, e)
		p := w.signIn(authorizeURL(e, 2, "contoso.example"), person{upn: "admin@contoso.example"})
		rt := token(t, e, 2, "contoso.example", "authorization_code", "code", p.out.Get("code"), "redirect_uri", redirect).str("refresh_token")
		if p := w.get(authorizeURL(e, 2, "contoso.example", "prompt", "none")); !p.out.Has("code") {
			t.Fatalf("before: got %v", p.out)
		}
		if p := w.get(w.login + path); p.id != "signed_out" {
			t.Errorf("%s: got page %q", path, p.id)
		}
		if p := w.get(authorizeURL(e, 2, "contoso.example", "prompt", "none")); p.out.Get("error") != "login_required" {
			t.Errorf("after: got %v", p.out)
		}
		if a := refresh(t, e, 2, "contoso.example", rt); a.status != 200 {
			t.Errorf("the refresh token: %v", a.raw)
		}
	}
}

func TestAfterSignOut(t *testing.T) {
	e := start(t)
	for _, row := range []struct {
		tenant, uri, client string
		page                string
	}{
		{"common", redirect, "", "out"},
		{"common", redirect, emulator.ApplicationID, "out"},
		{"common", redirect, "x", "signed_out"},
		{"common", "https://evil.example/", "", "signed_out"},
		{"common", "", "", "signed_out"},
		{"nobody.example", redirect, "", "error"},
	} {
		w := newWalker(t, e)
		q := url.Values{"post_logout_redirect_uri": {row.uri}, "client_id": {row.client}, "state": {"a state"}}
		p := w.get(w.login + "/" + row.tenant + "/oauth2/v2.0/logout?" + q.Encode())
		if p.id != row.page || p.id == "out" && p.out.Get("state") != "a state" {
			t.Errorf("%+v: got page %q, %v", row, p.id, p.out)
		}
	}
}

func TestUserRealm(t *testing.T) {
	e := start(t)
	for upn, want := range map[string]string{"admin@contoso.example": "Managed", "x@CONTOSO.example": "Managed", "x@nobody.example": "Unknown", "x": "Unknown"} {
		a := call(t, e, e.Endpoints().Login+"/common/userrealm/"+upn+"?api-version=1.0", "")
		if a.str("account_type") != want || a.str("ver") != "1.0" {
			t.Errorf("%s: got %v", upn, a.raw)
		}
	}
}

// Pages of any site may ask for what is public, and ask first whether they may.
func TestDiscoveryMethods(t *testing.T) {
	e := start(t)
	for _, path := range []string{
		"/common/discovery/instance?api-version=1.1&authorization_endpoint=" + url.QueryEscape(e.Endpoints().Login+"/common/oauth2/authorize"),
		"/common/.well-known/openid-configuration", "/contoso.example/v2.0/.well-known/openid-configuration",
		"/common/discovery/keys", "/contoso.example/discovery/v2.0/keys",
	} {
		for method, want := range map[string]int{"GET": 200, "HEAD": 200, "OPTIONS": 204} {
			req, err := http.NewRequest(method, e.Endpoints().Login+path, nil)
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Origin", "https://app.example")
			res, err := e.Client().Do(req)
			if err != nil {
				t.Fatal(err)
			}
			res.Body.Close()
			if res.StatusCode != want || res.Header.Get("Access-Control-Allow-Origin") != "*" {
				t.Errorf("%s %s: got %d, %v", method, path, res.StatusCode, res.Header)
			}
		}
	}
}
