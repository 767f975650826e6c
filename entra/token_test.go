package entra

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/mandate-sam/mandate"
)

func TestRequestBodies(t *testing.T) {
	refresh := func(c *Client) error {
		r := redemption(partner)
		_, err := c.Redeem(ctx(), r)
		return err
	}
	narrow := func(c *Client) error {
		r := redemption(customer)
		r.Audience, r.Scopes, r.Claims = "https://arm.test/", []string{"a.b", "c"}, `{"access_token":{}}`
		_, err := c.Redeem(ctx(), r)
		return err
	}
	code := func(c *Client) error {
		c.RedeemCode(ctx(), codeRedemption()) // the ID token is missing
		return nil
	}
	basic := func(more url.Values) url.Values {
		more.Set("client_id", appID)
		more.Set("client_secret", canarySecret)
		return more
	}
	codeForm := func(more url.Values) url.Values {
		for k, v := range map[string]string{"grant_type": "authorization_code", "code": canaryCode, "code_verifier": canaryVerifier, "redirect_uri": "https://onboard.test/callback"} {
			more.Set(k, v)
		}
		return basic(more)
	}
	ids := map[string]bool{}
	for _, tt := range []struct {
		name    string
		version Version
		do      func(*Client) error
		url     string
		want    url.Values
	}{
		{"v2 refresh", V2, refresh, partnerID + "/oauth2/v2.0/token", basic(url.Values{"grant_type": {"refresh_token"}, "refresh_token": {canaryRefresh}, "scope": {"https://graph.test/.default openid profile offline_access"}})},
		{"v1 refresh", V1, refresh, partnerID + "/oauth2/token", basic(url.Values{"grant_type": {"refresh_token"}, "refresh_token": {canaryRefresh}, "resource": {graph}, "scope": {"openid"}})},
		{"v2 scopes at a customer's", V2, narrow, customerID + "/oauth2/v2.0/token", basic(url.Values{"grant_type": {"refresh_token"}, "refresh_token": {canaryRefresh}, "claims": {`{"access_token":{}}`}, "scope": {"https://arm.test//a.b https://arm.test//c"}})},
		{"v1 scopes at a customer's", V1, narrow, customerID + "/oauth2/token", basic(url.Values{"grant_type": {"refresh_token"}, "refresh_token": {canaryRefresh}, "claims": {`{"access_token":{}}`}, "resource": {"https://arm.test/"}})},
		{"v2 code", V2, code, partnerID + "/oauth2/v2.0/token", codeForm(url.Values{"scope": {"https://pc.test/.default openid profile offline_access"}})},
		{"v1 code", V1, code, partnerID + "/oauth2/token", codeForm(url.Values{"resource": {"https://pc.test"}, "scope": {"openid"}})},
	} {
		f := newFake()
		f.body = answerV2(nil)
		if err := tt.do(newClient(t, f, tt.version)); err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		if got, want := f.urls[0], "POST "+authority+"/"+tt.url; got != want {
			t.Errorf("%s: sent to %s, want %s", tt.name, got, want)
		}
		if d := cmp.Diff(tt.want, f.forms[0]); d != "" {
			t.Errorf("%s: (-want +got)\n%s", tt.name, d)
		}
		h := f.headers[0]
		if id := h.Get("client-request-id"); ids[id] {
			t.Errorf("%s: the id %s is used again", tt.name, id)
		}
		ids[h.Get("client-request-id")] = true
		if !regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`).MatchString(h.Get("client-request-id")) ||
			h.Get("return-client-request-id") != "true" || h.Get("Accept") != "application/json" || h.Get("Content-Type") != "application/x-www-form-urlencoded" {
			t.Errorf("%s: headers %v", tt.name, h)
		}
	}
}

func TestAnswers(t *testing.T) {
	v1 := `{"token_type":"bearer","scope":"user_impersonation","expires_in":"3600","ext_expires_in":"3600","expires_on":"1388444763","not_before":"1388440863","resource":"https://graph.test","access_token":"opaque","refresh_token":"next"}`
	for _, tt := range []struct {
		name    string
		version Version
		body    string
		life    time.Duration
		scopes  []string
		amr     []string
		iat     int64
		uti     string
	}{
		{"v2", V2, answerV2(nil), 4000 * time.Second, []string{"User.Read"}, []string{"pwd", "mfa"}, 1700000000, "U1"},
		{"v1", V1, v1, time.Hour, []string{"user_impersonation"}, nil, 0, ""},
		{"scope from the token", V2, answerV2(map[string]any{"scope": nil, "access_token": accessToken(map[string]any{"scp": "b a openid"})}), 4000 * time.Second, []string{"a", "b"}, nil, 0, ""},
		{"claims of odd types", V2, answerV2(map[string]any{"access_token": accessToken(map[string]any{"amr": "mfa", "uti": "U"})}), 4000 * time.Second, []string{"User.Read"}, nil, 0, ""},
		{"expires_on alone", V2, answerV2(map[string]any{"expires_in": nil, "expires_on": time.Now().Add(time.Hour).Unix()}), time.Hour, []string{"User.Read"}, []string{"pwd", "mfa"}, 1700000000, "U1"},
	} {
		f := newFake()
		f.body, f.header = tt.body, http.Header{"Client-Request-Id": {"echoed"}}
		before := time.Now()
		got, err := newClient(t, f, tt.version).Redeem(ctx(), redemption(partner))
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		if d := got.Expires.Sub(before.Add(tt.life)); d < -2*time.Second || d > 2*time.Second {
			t.Errorf("%s: expires %v off", tt.name, d)
		}
		if d := cmp.Diff(tt.scopes, got.Scopes); d != "" {
			t.Errorf("%s: scopes (-want +got)\n%s", tt.name, d)
		}
		if d := cmp.Diff(tt.amr, got.AMR); d != "" {
			t.Errorf("%s: amr (-want +got)\n%s", tt.name, d)
		}
		if got.Refresh.Reveal() != "next" || got.Access.IsZero() || got.UTI != tt.uti || got.User != nil || got.CorrelationID != "echoed" {
			t.Errorf("%s: got %+v", tt.name, got)
		}
		if want := (time.Time{}); tt.iat != 0 && got.IssuedAt.Unix() != tt.iat || tt.iat == 0 && got.IssuedAt != want {
			t.Errorf("%s: issued at %v", tt.name, got.IssuedAt)
		}
	}
}

func TestGranted(t *testing.T) {
	for _, tt := range []struct {
		scope    string
		audience mandate.Audience
		want     []string
	}{
		{"https://arm.test//user_impersonation https://arm.test//.default", "https://arm.test/", []string{"user_impersonation"}},
		{"https://arm.test/user_impersonation", "https://arm.test/", []string{"user_impersonation"}},
		{"https://arm.test//user_impersonation", "https://arm.test", []string{"user_impersonation"}},
		{"HTTPS://Graph.test/User.Read User.Read openid profile email offline_access", graph, []string{"User.Read"}},
		{"https://graph.test/openid .default", graph, []string{}},
		{"https://other.test/All https://graph.test.evil/x", graph, []string{"https://graph.test.evil/x", "https://other.test/All"}},
		{"https://graph.test/", graph, []string{"https://graph.test/"}},
	} {
		if d := cmp.Diff(tt.want, granted(tt.scope, tt.audience)); d != "" {
			t.Errorf("granted(%q): (-want +got)\n%s", tt.scope, d)
		}
	}
}

// Each row is an answer of which nothing may be believed.
func TestUnusableAnswers(t *testing.T) {
	for _, tt := range []struct {
		name   string
		status int
		header http.Header
		body   string
	}{
		{"HTML", 200, http.Header{"Content-Type": {"text/html"}}, answerV2(nil)},
		{"no content type", 200, http.Header{"Content-Type": nil}, answerV2(nil)},
		{"not JSON", 200, nil, "<html>"},
		{"empty", 200, nil, ""},
		{"a list", 200, nil, "[]"},
		{"a key twice", 200, nil, strings.Replace(answerV2(nil), "{", `{"access_token":"CANARY",`, 1)},
		{"a key twice, at the end", 200, nil, strings.TrimSuffix(answerV2(nil), "}") + `,"token_type":"Bearer"}`},
		{"something after", 200, nil, answerV2(nil) + "{}"},
		{"no access token", 200, nil, answerV2(map[string]any{"access_token": nil})},
		{"access token of another case", 200, nil, answerV2(map[string]any{"access_token": nil, "Access_Token": "x"})},
		{"a quote in the token", 200, nil, answerV2(map[string]any{"access_token": `a"b`})},
		{"a line feed in the token", 200, nil, answerV2(map[string]any{"access_token": "a\r\nX-Admin: yes"})},
		{"an equals sign within", 200, nil, answerV2(map[string]any{"access_token": "a=b"})},
		{"a letter of another script", 200, nil, answerV2(map[string]any{"access_token": "a.é.c"})},
		{"no type", 200, nil, answerV2(map[string]any{"token_type": nil})},
		{"PoP", 200, nil, answerV2(map[string]any{"token_type": "pop"})},
		{"no lifetime", 200, nil, answerV2(map[string]any{"expires_in": nil})},
		{"lifetime 0", 200, nil, answerV2(map[string]any{"expires_in": 0})},
		{"lifetime negative", 200, nil, answerV2(map[string]any{"expires_in": -1})},
		{"lifetime of over 48 hours", 200, nil, answerV2(map[string]any{"expires_in": 48*3600 + 1})},
		{"lifetime no number", 200, nil, answerV2(map[string]any{"expires_in": "soon"})},
		{"lifetime overflows", 200, nil, answerV2(map[string]any{"expires_in": "9223372036854775808"})},
		{"expired", 200, nil, answerV2(map[string]any{"expires_in": nil, "expires_on": "1388444763"})},
		{"too long", 200, nil, answerV2(map[string]any{"x": strings.Repeat("y", maxAnswer)})},
		{"too long by spaces", 200, nil, answerV2(nil) + strings.Repeat(" ", maxAnswer)},
		{"accepted", 202, nil, answerV2(nil)},
		{"redirect", 302, http.Header{"Location": {"https://evil.test/"}}, answerV2(nil)},
		{"HTML error", 502, http.Header{"Content-Type": {"text/html"}}, "<h1>Bad gateway</h1>"},
		{"HTML that reads as an error", 400, http.Header{"Content-Type": {"text/html"}}, `{"error":"invalid_grant","error_codes":[50173]}`},
		{"error without one", 400, nil, `{"error_codes":[50173]}`},
	} {
		f := newFake()
		f.status, f.header, f.body = tt.status, tt.header, tt.body
		_, err := newClient(t, f, V2).Redeem(ctx(), redemption(partner))
		if got := wantFault(t, err); got.Domain != mandate.DomainTransient || got.Remedy != mandate.RemedyRetry || got.CorrelationID == "" {
			t.Errorf("%s: %+v", tt.name, got)
		}
		if len(f.forms) != 1 {
			t.Errorf("%s: %d requests, want 1", tt.name, len(f.forms))
		}
	}
	f := newFake()
	f.body = answerV2(map[string]any{"expires_in": 48 * 3600})
	if _, err := newClient(t, f, V2).Redeem(ctx(), redemption(partner)); err != nil {
		t.Errorf("lifetime of 48 hours: %v", err)
	}
}

// A server that redirects gets nothing sent after it, and a cookie that it sets
// does not come back.
func TestRedirectIsNotFollowed(t *testing.T) {
	var asked atomic.Int64
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if asked.Add(1); r.Header.Get("Cookie") != "" {
			t.Error("a cookie is sent")
		}
		http.SetCookie(w, &http.Cookie{Name: "c", Value: "v"})
		http.Redirect(w, r, "/elsewhere", http.StatusTemporaryRedirect)
	}))
	defer s.Close()
	cloud := testCloud()
	cloud.Authority = s.URL
	h := s.Client()
	h.Jar = jar{}
	h.CheckRedirect = func(*http.Request, []*http.Request) error { return nil }
	c := must(New(Config{Cloud: cloud, Application: app, Credential: must(NewSecret(mandate.NewSecret(canarySecret))), HTTP: h}))
	for n := range 2 {
		_, err := c.Redeem(ctx(), redemption(partner))
		if f := wantFault(t, err); f.Status != 307 {
			t.Errorf("fault %+v, want status 307", f)
		}
		if got := int(asked.Load()); got != n+1 {
			t.Fatalf("%d requests, want %d", got, n+1)
		}
	}
	if err := h.CheckRedirect(nil, nil); err != nil || h.Timeout != 0 {
		t.Error("the caller's own client was changed")
	}
	if c.http.Timeout != 30*time.Second {
		t.Errorf("timeout %v, want %v", c.http.Timeout, 30*time.Second)
	}
}

// A jar gives a cookie to everybody.
type jar struct{}

func (jar) SetCookies(*url.URL, []*http.Cookie) {}
func (jar) Cookies(*url.URL) []*http.Cookie     { return []*http.Cookie{{Name: "c", Value: "v"}} }

// An answer or a transport that repeats what was sent does not get it into an
// error, even where a text is cut in the middle of it.
func TestSecretsAreNotRepeated(t *testing.T) {
	refresh := func(c *Client) error { _, err := c.Redeem(ctx(), redemption(partner)); return err }
	code := func(c *Client) error { _, err := c.RedeemCode(ctx(), codeRedemption()); return err }
	for _, tt := range []struct {
		name string
		do   func(*Client) error
		sent string
	}{
		{"secret", refresh, canarySecret},
		{"refresh token", refresh, canaryRefresh},
		{"escaped refresh token", refresh, url.QueryEscape(canaryRefresh)},
		{"code", code, canaryCode},
		{"verifier", code, canaryVerifier},
	} {
		for _, pad := range []int{0, maxID - 9, maxDescription - 9} {
			text := strings.Repeat("x", pad) + tt.sent
			f := newFake()
			f.err = errors.New("could not send " + text)
			f.status = 400
			f.header = http.Header{"Client-Request-Id": {text}, "X-Ms-Request-Id": {text}}
			f.body = string(must(json.Marshal(map[string]any{
				"error": text, "error_description": text + " Trace ID: " + text + " Correlation ID: " + text + " Timestamp: x",
				"suberror": text, "claims": `{"a":"` + text + `"}`, "timestamp": text, "error_codes": []string{text},
			})))
			c := newClient(t, f, V2)
			wantFault(t, tt.do(c))
			f.err = nil
			if got := wantFault(t, tt.do(c)); got.Description == "" {
				t.Errorf("%s: fault %+v without a description", tt.name, got)
			}
			if len(f.forms) != 2 {
				t.Errorf("%s: %d requests, want 2", tt.name, len(f.forms))
			}
		}
	}
}

func TestTransportFault(t *testing.T) {
	f := newFake()
	f.err = context.DeadlineExceeded
	_, err := newClient(t, f, V2).Redeem(ctx(), redemption(partner))
	got := wantFault(t, err)
	if got.Domain != mandate.DomainTransient || got.Remedy != mandate.RemedyRetry || !errors.Is(err, context.DeadlineExceeded) || got.CorrelationID != f.headers[0].Get("client-request-id") {
		t.Errorf("got %+v", got)
	}
	if strings.Contains(err.Error(), "login.test") {
		t.Errorf("the error repeats the URL: %v", err)
	}
}

// What is wrong before anything is sent is not sent.
func TestRefusedRedemptions(t *testing.T) {
	for _, tt := range []struct {
		name   string
		spoil  func(*mandate.Redemption)
		domain mandate.Domain
	}{
		{"another application", func(r *mandate.Redemption) { r.Key.Application = must(mandate.ParseAppID(userID)) }, mandate.DomainApplication},
		{"another cloud", func(r *mandate.Redemption) { r.Key.Cloud = "global" }, mandate.DomainApplication},
		{"no partner", func(r *mandate.Redemption) { r.Key.Partner = mandate.TenantID{} }, mandate.DomainGrant},
		{"no tenant", func(r *mandate.Redemption) { r.Tenant = mandate.TenantID{} }, mandate.DomainGrant},
		{"no audience", func(r *mandate.Redemption) { r.Audience = "" }, mandate.DomainAudience},
		{"two audiences", func(r *mandate.Redemption) { r.Audience = "https://a https://b" }, mandate.DomainAudience},
		{"two scopes in one", func(r *mandate.Redemption) { r.Scopes = []string{"a b"} }, mandate.DomainAudience},
		{"an empty scope", func(r *mandate.Redemption) { r.Scopes = []string{"a", ""} }, mandate.DomainAudience},
		{"a quoted scope", func(r *mandate.Redemption) { r.Scopes = []string{`a"`} }, mandate.DomainAudience},
		{"an escaped scope", func(r *mandate.Redemption) { r.Scopes = []string{`a\b`} }, mandate.DomainAudience},
		{"a long scope", func(r *mandate.Redemption) { r.Scopes = []string{strings.Repeat("a", 513)} }, mandate.DomainAudience},
		{"a control character", func(r *mandate.Redemption) { r.Scopes = []string{"a\x7f"} }, mandate.DomainAudience},
	} {
		f := newFake()
		r := redemption(partner)
		tt.spoil(&r)
		_, err := newClient(t, f, V2).Redeem(ctx(), r)
		if got := wantFault(t, err); got.Domain != tt.domain || got.Remedy != mandate.RemedyConfigure {
			t.Errorf("%s: %+v", tt.name, got)
		}
		if len(f.forms) != 0 {
			t.Errorf("%s: was sent", tt.name)
		}
	}
	for name, spoil := range map[string]func(*mandate.CodeRedemption){
		"nonce":    func(r *mandate.CodeRedemption) { r.Nonce = "" },
		"verifier": func(r *mandate.CodeRedemption) { r.Verifier = mandate.Secret{} },
	} {
		f := newFake()
		r := codeRedemption()
		spoil(&r)
		_, err := newClient(t, f, V2).RedeemCode(ctx(), r)
		wantRefusal(t, err, mandate.ReasonTransaction)
		if len(f.forms) != 0 {
			t.Errorf("no %s: was sent", name)
		}
	}
	r := codeRedemption()
	r.Key.Cloud = "global"
	f := newFake()
	_, err := newClient(t, f, V2).RedeemCode(ctx(), r)
	if got := wantFault(t, err); got.Domain != mandate.DomainApplication || len(f.forms) != 0 {
		t.Errorf("a code for another cloud: %+v after %d requests", got, len(f.forms))
	}
}

// Expiry comes from expires_in, whatever expires_on says, and keeps the
// monotonic clock's reading: a wall clock that is set meanwhile changes nothing.
func TestTrap09ExpiryFromExpiresIn(t *testing.T) {
	f := newFake()
	f.body = answerV2(map[string]any{"expires_in": 4000, "expires_on": 1388444763})
	before := time.Now()
	got, err := newClient(t, f, V2).Redeem(ctx(), redemption(partner))
	if err != nil {
		t.Fatal(err)
	}
	if life := got.Expires.Sub(before); life < 3999*time.Second || life > 4002*time.Second {
		t.Errorf("the token lives %v", life)
	}
	if !strings.Contains(got.Expires.String(), "m=") {
		t.Errorf("%v has no monotonic reading", got.Expires)
	}
}

// A token is of the characters of RFC 6750, section 2.1, and of no others: the
// API writes it without looking at them again.
func TestSendable(t *testing.T) {
	const all = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~+/"
	for c := range 256 {
		token := string([]byte{'a', byte(c), 'b'})
		if got, want := sendable(token), strings.IndexByte(all, byte(c)) >= 0; got != want {
			t.Errorf("%q: got %v, want %v", token, got, want)
		}
	}
	if !sendable("a.b.c==") || sendable("a=b") {
		t.Error("'=' is at the end, and only there")
	}
}
