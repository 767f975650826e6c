package emulator_test

import (
	"crypto/sha256"
	"encoding/base64"
	"strings"
	"testing"

	"github.com/mandate-sam/mandate/emulator"
)

func allowTokens(t *testing.T, e *emulator.Emulator, id, access bool) {
	t.Helper()
	app, _ := e.Application(emulator.ApplicationID)
	app.IssueIDTokens, app.IssueAccessTokens = id, access
	register(t, e, app)
}

func half(s string) string {
	sum := sha256.Sum256([]byte(s))
	return base64.RawURLEncoding.EncodeToString(sum[:16])
}

// What the authorization endpoint answers with is bound together by hashes.
func TestHybrid(t *testing.T) {
	e := start(t)
	allowTokens(t, e, true, true)
	for _, version := range []int{1, 2} {
		for _, row := range []struct {
			kind          string
			mode          string
			code, id, tok bool
		}{
			{"code id_token", "form_post", true, true, false},
			{"id_token code", "fragment", true, true, false},
			{"code id_token", "", true, true, false},
			{"id_token", "form_post", false, true, false},
			{"id_token token", "fragment", false, true, true},
		} {
			p := newWalker(t, e).signIn(authorizeURL(e, version, "contoso.example", "response_type", row.kind, "response_mode", row.mode), person{upn: "admin@contoso.example"})
			if p.out.Has("code") != row.code || p.out.Has("id_token") != row.id || p.out.Has("access_token") != row.tok || p.out.Has("refresh_token") || p.out.Get("state") != "a state" {
				t.Errorf("v%d %s: got %v", version, row.kind, p.out)
				continue
			}
			if err := verify(t, e, version, p.out.Get("id_token")); err != nil {
				t.Errorf("v%d %s: %v", version, row.kind, err)
			}
			checkHashes(t, p)
			if row.code {
				a := token(t, e, version, "contoso.example", "authorization_code", "code", p.out.Get("code"), "redirect_uri", redirect)
				if c := claims(t, a.str("id_token")); a.status != 200 || c["c_hash"] != nil || c["at_hash"] != nil {
					t.Errorf("v%d %s: redeemed, got %v", version, row.kind, c)
				}
			}
		}
	}
}

func checkHashes(t *testing.T, p page) {
	t.Helper()
	c := claims(t, p.out.Get("id_token"))
	for claim, value := range map[string]string{"c_hash": p.out.Get("code"), "at_hash": p.out.Get("access_token")} {
		got, _ := c[claim].(string)
		if want := half(value); value != "" && got != want || value == "" && got != "" {
			t.Errorf("got %s %q for %q", claim, got, value)
		}
	}
	if c["nonce"] != "a-nonce" {
		t.Errorf("got nonce %v", c["nonce"])
	}
	if p.out.Has("access_token") && (p.out.Get("token_type") != "Bearer" || p.out.Get("expires_in") == "" || !p.out.Has("scope")) {
		t.Errorf("got %v", p.out)
	}
}

func TestHybridRefusals(t *testing.T) {
	e := start(t)
	for _, row := range []struct {
		name       string
		id, access bool
		change     []string
		err, code  string
	}{
		{"off", false, false, []string{"response_type", "code id_token"}, "unsupported_response_type", "AADSTS700054: response_type 'id_token'"},
		{"access token off", true, false, []string{"response_type", "id_token token"}, "unsupported_response_type", "AADSTS700054: response_type 'token'"},
		{"code token", true, true, []string{"response_type", "code token"}, "unsupported_response_type", "AADSTS700054"},
		{"unknown", true, true, []string{"response_type", "code magic"}, "unsupported_response_type", "AADSTS700054"},
		{"no nonce", true, true, []string{"response_type", "code id_token", "nonce", ""}, "invalid_request", "AADSTS900144"},
		{"query", true, true, []string{"response_type", "code id_token", "response_mode", "query"}, "invalid_request", "AADSTS90023"},
		{"no openid", true, true, []string{"response_type", "code id_token", "scope", "User.Read"}, "invalid_scope", "AADSTS70011"},
	} {
		allowTokens(t, e, row.id, row.access)
		p := newWalker(t, e).get(authorizeURL(e, 2, "contoso.example", append([]string{"response_mode", ""}, row.change...)...))
		if p.out.Get("error") != row.err || !strings.HasPrefix(p.out.Get("error_description"), row.code) || p.out.Has("id_token") || p.out.Has("code") {
			t.Errorf("%s: got %v, want %s, %s", row.name, p.out, row.err, row.code)
		}
	}
}
