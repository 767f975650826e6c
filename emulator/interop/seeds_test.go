package interop_test

import (
	"bufio"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"github.com/coreos/go-oidc/v3/oidc"

	"github.com/mandate-sam/mandate/emulator"
)

// The requests and answers of Microsoft's article "Enable secure application
// model" (9 December 2021), as it prints them, without its wrong lengths and
// stray spaces. The first answer is cut off there, in the middle of its last
// field.
const (
	articleAuthorize = `https://login.microsoftonline.com/common/oauth2/authorize?client_id=Application-Id&response_mode=form_post&response_type=code%20id_token&scope=openid%20profile&nonce=1`

	articleRedirect = `https://localhost:44395/`

	articleCode = `POST https://login.microsoftonline.com/CSPTenantID/oauth2/token HTTP/1.1
Content-Type: application/x-www-form-urlencoded
Host: login.microsoftonline.com
Expect: 100-continue

resource=https%3a%2f%2fapi.partnercenter.microsoft.com&client_id=Application-Id&client_secret=Application-Secret&grant_type=authorization_code&code=AuthorizationCodeValue`

	articleCodeAnswer = `{"token_type":"Bearer","scope":"user_impersonation","expires_in":"3599","ext_expires_in":"3599","expires_on":"1547579127","not_before":"1547575227","resource":"https://api.partnercenter.microsoft.com","access_token":"Access"}`

	articleRefresh = `POST https://login.microsoftonline.com/CSPTenantID/oauth2/token HTTP/1.1
Content-Type: application/x-www-form-urlencoded
Host: login.microsoftonline.com
Expect: 100-continue

resource=https%3a%2f%2fapi.partnercenter.microsoft.com&client_id=Application-Id&client_secret=Application-Secret&grant_type=refresh_token&refresh_token=RefreshTokenVlaue&scope=openid`

	articleRefreshAnswer = `{"token_type":"Bearer","scope":"user_impersonation","expires_in":"3600","ext_expires_in":"3600","expires_on":"1547581389","not_before":"1547577489","resource":"https://api.partnercenter.microsoft.com","access_token":"AccessTokenValue","id_token":"IDTokenValue"}`

	articleUsers = `GET https://api.partnercenter.microsoft.com/v1/customers/CustomerTenantId/users HTTP/1.1
Authorization: Bearer AccessTokenValue
Accept: application/json
X-Locale: en-US
Host: api.partnercenter.microsoft.com

`
)

// TestSeeds goes through the article from its sign-in link to its call of
// Partner Center, with only the placeholders filled.
func TestSeeds(t *testing.T) {
	e := start(t)
	change(t, e, func(a *emulator.Application) { a.RedirectURIs, a.IssueIDTokens = []string{articleRedirect}, true })
	fill := map[string]string{
		"Application-Id": emulator.ApplicationID, "Application-Secret": emulator.ApplicationSecret,
		"CSPTenantID": emulator.ContosoTenant, "CustomerTenantId": emulator.AdatumTenant,
	}
	back := newBrowser(t, e).signIn(filled(e, articleAuthorize, fill), admin)
	checkHybrid(t, e, back)
	fill["AuthorizationCodeValue"] = url.QueryEscape(back.Query().Get("code"))

	got := replay(t, e, articleCode, fill)
	compare(t, got, articleCodeAnswer)
	fill["RefreshTokenVlaue"] = url.QueryEscape(fmt.Sprint(got["refresh_token"]))

	got = replay(t, e, articleRefresh, fill)
	compare(t, got, articleRefreshAnswer)
	fill["AccessTokenValue"] = fmt.Sprint(got["access_token"])

	users := replay(t, e, articleUsers, fill)
	if items, _ := users["items"].([]any); len(items) == 0 {
		t.Errorf("got no users: %v", users)
	}

	v2 := strings.NewReplacer("/oauth2/token", "/oauth2/v2.0/token", "resource=", "scope=", "partnercenter.microsoft.com&", "partnercenter.microsoft.com%2fuser_impersonation%20openid%20offline_access&", "&scope=openid", "")
	got = replay(t, e, v2.Replace(articleRefresh), fill)
	compare(t, got, `{"token_type":"Bearer","expires_in":3600,"ext_expires_in":3600,"access_token":"","refresh_token":"","id_token":"","scope":"https://api.partnercenter.microsoft.com/user_impersonation openid"}`)
	for _, name := range []string{"resource", "expires_on", "not_before"} {
		if got[name] != nil {
			t.Errorf("v2 answers with %s %v", name, got[name])
		}
	}
}

// filled is a text of the article with its placeholders filled and its hosts
// replaced by the emulator's.
func filled(e *emulator.Emulator, text string, fill map[string]string) string {
	pairs := []string{"https://login.microsoftonline.com/", e.Endpoints().Login + "/", "https://api.partnercenter.microsoft.com/", e.Endpoints().PartnerCenter + "/"}
	for name, value := range fill {
		pairs = append(pairs, name, value)
	}
	return strings.NewReplacer(pairs...).Replace(text)
}

// replay sends a request as printed, and returns the answer.
func replay(t *testing.T, e *emulator.Emulator, text string, fill map[string]string) map[string]any {
	t.Helper()
	head, body, _ := strings.Cut(filled(e, text, fill), "\n\n")
	req, err := http.ReadRequest(bufio.NewReader(strings.NewReader(strings.ReplaceAll(head, "\n", "\r\n") + "\r\n\r\n")))
	if err != nil {
		t.Fatal(err)
	}
	req.RequestURI, req.Host = "", ""
	req.Body, req.ContentLength = io.NopCloser(strings.NewReader(body)), int64(len(body))
	res, err := client(e).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var got map[string]any
	if err := json.NewDecoder(res.Body).Decode(&got); err != nil || res.StatusCode != http.StatusOK {
		t.Fatalf("status %d: %v, %v", res.StatusCode, got, err)
	}
	if kind := res.Header.Get("Content-Type"); kind != "application/json; charset=utf-8" {
		t.Errorf("got Content-Type %q", kind)
	}
	return got
}

var number = regexp.MustCompile(`^[0-9]+$`)

// compare holds an answer against the printed one: each field is there and of
// the same type. Numbers that are strings stay so; words mean the same.
func compare(t *testing.T, got map[string]any, printed string) {
	t.Helper()
	var want map[string]any
	if err := json.Unmarshal([]byte(printed), &want); err != nil {
		t.Fatal(err)
	}
	for name, w := range want {
		g := got[name]
		text, isText := w.(string)
		switch {
		case fmt.Sprintf("%T", g) != fmt.Sprintf("%T", w):
			t.Errorf("%s: got %T, want %T", name, g, w)
		case isText && number.MatchString(text) && !number.MatchString(g.(string)):
			t.Errorf("%s: got %q, want a number", name, g)
		case (name == "token_type" || name == "scope" || name == "resource") && g != w:
			t.Errorf("%s: got %q, want %q", name, g, w)
		}
	}
}

// checkHybrid checks what the sign-in sends back: a code, and an ID token that
// verifies and belongs to it.
func checkHybrid(t *testing.T, e *emulator.Emulator, back *url.URL) {
	t.Helper()
	if got := (&url.URL{Scheme: back.Scheme, Host: back.Host, Path: back.Path}).String(); got != articleRedirect {
		t.Errorf("came back to %s, want %s", got, articleRedirect)
	}
	ctx := oidc.ClientContext(t.Context(), client(e))
	provider, err := oidc.NewProvider(ctx, e.Endpoints().Login+"/"+emulator.ContosoTenant+"/")
	if err != nil {
		t.Fatal(err)
	}
	raw := back.Query().Get("id_token")
	id, err := provider.Verifier(&oidc.Config{ClientID: emulator.ApplicationID}).Verify(ctx, raw)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256([]byte(back.Query().Get("code")))
	wantClaims(t, raw, map[string]any{"c_hash": base64.RawURLEncoding.EncodeToString(sum[:16]), "tid": emulator.ContosoTenant})
	if id.Nonce != "1" {
		t.Errorf("got nonce %q, want 1", id.Nonce)
	}
}
