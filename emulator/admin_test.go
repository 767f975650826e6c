package emulator_test

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/mandate-sam/mandate/emulator"
)

// admin sends an admin request, with the header that it needs, and returns
// status and body.
func admin(t *testing.T, e *emulator.Emulator, method, path, body string, change ...func(*http.Request)) (int, string) {
	t.Helper()
	req, err := http.NewRequest(method, e.Endpoints().Admin+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-Emulator-Admin", "1")
	for _, f := range change {
		f(req)
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
	return res.StatusCode, string(b)
}

func TestAdminGuard(t *testing.T) {
	e := start(t)
	header := func(name, value string) func(*http.Request) {
		return func(r *http.Request) {
			if r.Header.Set(name, value); value == "" {
				r.Header.Del(name)
			}
		}
	}
	host := func(h string) func(*http.Request) { return func(r *http.Request) { r.Host = h } }
	port := e.Endpoints().Admin[strings.LastIndex(e.Endpoints().Admin, ":"):]
	for _, row := range []struct {
		name   string
		path   string
		change func(*http.Request)
		want   int
	}{
		{"good", "/emulator/state", header("Accept", "*/*"), 200},
		{"no header", "/emulator/state", header("X-Emulator-Admin", ""), 403},
		{"wrong header", "/emulator/state", header("X-Emulator-Admin", "yes"), 403},
		{"rebound name", "/emulator/state", host("evil.example" + port), 403},
		{"address", "/emulator/state", host("127.0.0.1" + port), 403},
		{"no port", "/emulator/state", host("localhost"), 403},
		{"own origin", "/emulator/state", header("Origin", e.Endpoints().Admin), 200},
		{"login's origin", "/emulator/state", header("Origin", e.Endpoints().Login), 403},
		{"null origin", "/emulator/state", header("Origin", "null"), 403},
		{"cross-site", "/emulator/state", header("Sec-Fetch-Site", "cross-site"), 403},
		{"same-site", "/emulator/state", header("Sec-Fetch-Site", "same-site"), 403},
		{"same-origin", "/emulator/state", header("Sec-Fetch-Site", "same-origin"), 200},
		{"health needs no header", "/emulator/health", header("X-Emulator-Admin", ""), 200},
		{"health by another name", "/emulator/health", host("evil.example"), 403},
	} {
		t.Run(row.name, func(t *testing.T) {
			if got, body := admin(t, e, "GET", row.path, "", row.change); got != row.want {
				t.Errorf("got %d, want %d: %s", got, row.want, body)
			}
		})
	}
}

func TestAdminDials(t *testing.T) {
	e := start(t)
	patch := func(body string, want int) {
		t.Helper()
		if got, answer := admin(t, e, "PATCH", "/emulator/dials", body); got != want {
			t.Errorf("%s: got %d, want %d: %s", body, got, want, answer)
		}
	}
	patch(`{"mfa_demanded":{"a":false},"token_latency":"1ns","refusals":[{"code":53003,"times":2}],"id_token":{"guest":true}}`, 200)
	patch(`{"mfa_demanded":{"b":true},"access_token_lifetime":"2s"}`, 200)
	d := e.Dials()
	if len(d.MFADemanded) != 2 || d.TokenLatency != time.Nanosecond || d.AccessTokenLifetime != 2*time.Second || len(d.Refusals) != 1 || !d.IDToken.Guest {
		t.Errorf("got %+v", d)
	}
	patch(`{"refusals":[]}`, 200)
	for _, bad := range []string{`{"nothing":1}`, `{"code_lifetime":"soon"}`, `{"code_lifetime":5}`, `[]`, ``, `{"refusals":[{}]}`, `{"throttles":[{"status":200}]}`, `{"mfa_verdict":"x"}`, `{"auth_time":"x"}`, `{"id_token":{"algorithm":"none"}}`, `{"token_latency":"-1s"}`} {
		patch(bad, 400)
	}
	if d := e.Dials(); len(d.Refusals) != 0 || len(d.MFADemanded) != 2 {
		t.Errorf("a refused change left %+v", d)
	}
	_, body := admin(t, e, "GET", "/emulator/dials", "")
	var shown map[string]any
	if err := json.Unmarshal([]byte(body), &shown); err != nil || shown["access_token_lifetime"] != "2s" {
		t.Errorf("got %s, %v", body, err)
	}
}

func TestAdminActions(t *testing.T) {
	e := start(t)
	do := func(method, path, body string, want int) string {
		t.Helper()
		got, answer := admin(t, e, method, path, body)
		if got != want {
			t.Errorf("%s %s: got %d, want %d: %s", method, path, got, want, answer)
		}
		return answer
	}
	const app = "/emulator/applications/b0000000-0000-4000-8000-000000000002"
	do("PUT", app, `{"name":"New","publisher":"P","tenant":"`+emulator.CPVTenant+`","redirect_uris":["https://127.0.0.1/cb"],"secrets":["s"],"access":[{"resource":"https://graph.microsoft.com","scopes":["User.Read"]}]}`, 200)
	for _, bad := range []string{
		`{}`, `{"tenant":"nobody"}`, `{"id":"other"}`, `{"shoe":1}`, ``,
		`{"tenant":"` + emulator.CPVTenant + `","redirect_uris":["/relative"]}`,
		`{"tenant":"` + emulator.CPVTenant + `","access":[{"resource":"nothing"}]}`,
		`{"tenant":"` + emulator.CPVTenant + `","access":[{"resource":"https://graph.microsoft.com","scopes":["Fly"]}]}`,
		`{"tenant":"` + emulator.CPVTenant + `","certificates":["AAAA"]}`,
	} {
		do("PUT", "/emulator/applications/b0000000-0000-4000-8000-000000000003", bad, 400)
	}
	rt := consented(t, e, 2, "admin@contoso.example").str("refresh_token")
	if got := do("POST", "/emulator/refresh-tokens/lookup", `{"token":"`+rt+`"}`, 200); !strings.Contains(got, `"number":1`) {
		t.Errorf("got %s", got)
	}
	do("POST", "/emulator/refresh-tokens/lookup", `{"token":"x"}`, 400)
	do("POST", "/emulator/consents", `{"tenant":"wingtip.example","application":"`+emulator.ApplicationID+`","resource":"https://graph.microsoft.com"}`, 204)
	do("DELETE", "/emulator/consents?tenant=contoso.example&application="+emulator.ApplicationID+"&resource=https://graph.microsoft.com", "", 204)
	do("POST", "/emulator/consents", `{}`, 400)
	do("DELETE", "/emulator/consents?tenant=x", "", 400)
	if got := refresh(t, e, 2, "contoso.example", rt).code(); got != 65001 {
		t.Errorf("after removal: got %d, want 65001", got)
	}
	do("POST", "/emulator/revocations", `{"user":"admin@contoso.example"}`, 204)
	do("POST", "/emulator/revocations", `{"user":"nobody"}`, 400)
	if got := do("GET", "/emulator/refresh-tokens", "", 200); !strings.Contains(got, `"revoked":true`) || strings.Contains(got, rt) {
		t.Errorf("got %s", got)
	}
	if got := do("GET", "/emulator/token-requests", "", 200); !strings.Contains(got, `"error":65001`) || strings.Contains(got, rt) {
		t.Errorf("got %s", got)
	}
	do("POST", "/emulator/hold", "", 204)
	if e.Dials().Hold == nil {
		t.Error("nothing is held")
	}
	do("DELETE", "/emulator/hold", "", 204)
	do("GET", "/emulator/errors", "", 200)
	if got := do("GET", "/emulator/state", "", 200); !bytes.Contains([]byte(got), []byte(`"seed":"1"`)) {
		t.Errorf("got %s", got)
	}
	do("POST", "/emulator/reset", "", 204)
	if len(e.RefreshTokens())+len(e.TokenRequests()) != 0 {
		t.Error("reset left something")
	}
	if _, ok := e.Application("b0000000-0000-4000-8000-000000000002"); ok {
		t.Error("reset left an application")
	}
}

// The description names every route of the admin API, and no other.
func TestOpenAPI(t *testing.T) {
	e := start(t)
	code, body := admin(t, e, "GET", "/emulator/openapi.json", "")
	var doc struct {
		Paths map[string]map[string]struct {
			Responses map[string]any
		}
	}
	if err := json.Unmarshal([]byte(body), &doc); code != 200 || err != nil {
		t.Fatalf("status %d, %v", code, err)
	}
	described := make(map[string]bool)
	for path, methods := range doc.Paths {
		for method, op := range methods {
			described[strings.ToUpper(method)+" "+path] = true
			if len(op.Responses) == 0 {
				t.Errorf("%s %s has no answers", method, path)
			}
		}
	}
	for _, pattern := range e.AdminRoutes() {
		if !described[pattern] {
			t.Errorf("%s is not described", pattern)
		}
		delete(described, pattern)
	}
	for pattern := range described {
		if pattern != "GET /emulator/health" && pattern != "GET /emulator/openapi.json" {
			t.Errorf("%s is described, and not there", pattern)
		}
	}
}

func TestAdminPage(t *testing.T) {
	e := start(t)
	bare := func(r *http.Request) { r.Header.Del("X-Emulator-Admin") }
	for path, want := range map[string]string{"/emulator/page/": "Make trouble", "/emulator/page/page.js": "X-Emulator-Admin", "/emulator/page/page.css": "--accent"} {
		code, body := admin(t, e, "GET", path, "", bare)
		if code != 200 || !strings.Contains(body, want) {
			t.Errorf("%s: %d", path, code)
		}
	}
	res, err := e.Client().Get(e.Endpoints().Admin + "/emulator/page/")
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if csp := res.Header.Get("Content-Security-Policy"); !strings.Contains(csp, "default-src 'none'; script-src 'self'; style-src 'self'") || strings.Contains(csp, "unsafe") {
		t.Errorf("the page's policy is %q", csp)
	}
	code, _ := admin(t, e, "GET", "/emulator/page/", "", bare, func(r *http.Request) { r.Host = "evil.example" })
	if code != 403 {
		t.Errorf("by another name: %d", code)
	}
	if code, _ := admin(t, e, "DELETE", "/emulator/dials", "", bare); code != 403 {
		t.Errorf("a change without the header: %d", code)
	}
	e.Dial(func(d *emulator.Dials) { d.AMRAbsent = true })
	if code, _ := admin(t, e, "DELETE", "/emulator/dials", ""); code != 204 || e.Dials().AMRAbsent {
		t.Errorf("all to zero: %d, %+v", code, e.Dials())
	}
}
