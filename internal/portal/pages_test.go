package portal_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/internal/portal"
)

func challenge(verifier string) string {
	sum := sha256.Sum256([]byte(verifier))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

func join(audiences []mandate.Audience) string {
	var s []string
	for _, a := range audiences {
		s = append(s, string(a))
	}
	return strings.Join(s, " ")
}

// reasons reads the constants of type Reason from the source of package
// mandate, so that a new one without a page fails.
func reasons(t *testing.T) []mandate.Reason {
	t.Helper()
	var out []mandate.Reason
	for _, name := range must(filepath.Glob("../../*.go")) {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file := must(parser.ParseFile(token.NewFileSet(), name, nil, 0))
		ast.Inspect(file, func(n ast.Node) bool {
			spec, ok := n.(*ast.ValueSpec)
			if !ok {
				return true
			}
			if typ, ok := spec.Type.(*ast.Ident); ok && typ.Name == "Reason" {
				for _, v := range spec.Values {
					out = append(out, mandate.Reason(must(strconv.Unquote(v.(*ast.BasicLit).Value))))
				}
			}
			return true
		})
	}
	if len(out) < 20 {
		t.Fatalf("found only %d reasons: %q", len(out), out)
	}
	return out
}

var heading = regexp.MustCompile(`<h1>([^<]+)</h1>`)

func TestEveryReasonHasItsPage(t *testing.T) {
	titles := map[string]mandate.Reason{}
	for _, reason := range reasons(t) {
		s := open(t)
		s.broker.err = &mandate.Refusal{
			Reason: reason, Detail: "detail-for-the-operator", Audience: global.Audiences["graph"].Resource,
			Fault: &mandate.Fault{Codes: []int{50076}, Description: "Microsoft's own words", CorrelationID: "corr-77", TraceID: "trace-77", Timestamp: "2026-11-21 07:06:17Z"},
		}
		id, form := s.begin()
		s.post(callback, form)
		res := s.get("/consent/" + id)
		if res.StatusCode != http.StatusOK || res.reason() != reason {
			t.Errorf("%s: got status %d and reason %q\n%s", reason, res.StatusCode, res.reason(), res.text)
			continue
		}
		title := heading.FindStringSubmatch(res.text)[1]
		if other, ok := titles[title]; ok {
			t.Errorf("%s and %s share the page %q", reason, other, title)
		}
		titles[title] = reason
		for _, want := range []string{"What to do next", "Whose move it is", "<li>", "corr-77", "AADSTS50076", "Microsoft&#39;s own words", "help@fabrikam.example"} {
			if !strings.Contains(res.text, want) {
				t.Errorf("%s: the page lacks %q", reason, want)
			}
		}
		for _, not := range []string{"detail-for-the-operator", "{publisher}", "{partner}", "{application}", "{user}", "{api}", "ZgotmplZ"} {
			if strings.Contains(res.text, not) {
				t.Errorf("%s: the page has %q", reason, not)
			}
		}
		if status := `class="status bad">No consent was stored<`; strings.Contains(res.text, status) != (reason != mandate.ReasonTransaction) {
			t.Errorf("%s: wrong status line", reason)
		}
		left := strings.Contains(res.text, "now exist</strong>") && strings.Contains(res.text, "Remove-MgServicePrincipal") && strings.Contains(res.text, appID.String())
		none := reason == mandate.ReasonDeclined || reason == mandate.ReasonAdmin || reason == mandate.ReasonInvitation
		if left == none {
			t.Errorf("%s: says what is left in the tenant: %v, want %v", reason, left, !none)
		}
	}
}

func TestInvitationSaysEverything(t *testing.T) {
	s := open(t)
	text := s.get("/i/" + goodToken).text
	for _, want := range []string{
		"Fabrikam Marketplace", "Fabrikam Inc.", "Contoso CSP", tenant.String(), appID.String(), "alice@contoso.example",
		"Microsoft Partner Center", "Microsoft Graph", "Azure Resource Manager", "Work in Partner Center with your rights",
		"User.Read", "Directory.Read.All", "Manage Azure as you &lt;can&gt;.", "90 days", "your password", "How to withdraw",
		"login.microsoftonline.com", "Continue to Microsoft", `lang="en"`, "Skip to the content",
		time.Now().Add(90 * 24 * time.Hour).UTC().Format("2 January 2006"),
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	if n := strings.Count(text, "<h1"); n != 1 {
		t.Errorf("got %d h1, want 1", n)
	}
	if strings.Contains(text, "<script") || strings.Contains(text, "style=") || strings.Contains(text, "not finished") {
		t.Error("the page has a script, an inline style or a sign-in that never was")
	}
}

func TestInvitationIsNeverConsumed(t *testing.T) {
	s := open(t)
	for range 3 {
		for _, method := range []string{"GET", "HEAD"} {
			if res := s.do(s.request(method, "/i/"+goodToken, "")); res.StatusCode != 200 || len(res.Cookies()) != 0 {
				t.Fatalf("%s: status %d, cookies %v", method, res.StatusCode, res.Cookies())
			}
		}
	}
	if s.store.changes != 0 {
		t.Errorf("reading changed something %d times", s.store.changes)
	}
}

func TestUnfinished(t *testing.T) {
	s := open(t)
	s.begin()
	text := s.get("/i/" + goodToken).text
	for _, want := range []string{"Your last sign-in is not finished", "AADSTS50011", "help@fabrikam.example", "correlation ID", "Continue to Microsoft"} {
		if !strings.Contains(text, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
}

func TestInvitationsThatDoNotOpen(t *testing.T) {
	s := open(t)
	_, form := s.begin()
	late := s.form()
	s.post(callback, form)
	for _, tt := range []struct {
		token    string
		status   int
		recorded int
	}{
		{"unknown-token", 404, 0},
		{"bad!token", 404, 0},
		{"x", 404, 0},
		{strings.Repeat("x", 200), 404, 0},
		{"expired-token-contoso", 410, 1},
		{goodToken, 410, 1}, // used
	} {
		s.broker.refusals, s.store.strange = nil, nil
		res := s.get("/i/" + tt.token)
		if res.StatusCode != tt.status || res.reason() != mandate.ReasonInvitation || len(s.broker.refusals) != tt.recorded {
			t.Errorf("GET %s: got %d %q, %d recorded; want %d, %d", tt.token, res.StatusCode, res.reason(), len(s.broker.refusals), tt.status, tt.recorded)
		}
		s.broker.refusals = nil
		if len(s.store.strange) > 0 {
			t.Errorf("the store was asked for %q", s.store.strange)
		}
		late.Set("invitation", tt.token)
		res = s.post("/consent", late)
		if res.StatusCode != tt.status || res.reason() != mandate.ReasonInvitation || len(s.broker.refusals) != tt.recorded {
			t.Errorf("POST %s: got %d %q, %d recorded; want %d, %d", tt.token, res.StatusCode, res.reason(), len(s.broker.refusals), tt.status, tt.recorded)
		}
	}
}

// The cookie proves one sign-in, travels with Entra's cross-site POST and
// lasts ten minutes; afterwards it shows the result, and needs to cross no
// site any more.
func TestCookies(t *testing.T) {
	s := open(t)
	res := s.post("/consent", s.form())
	if len(res.Cookies()) != 1 {
		t.Fatalf("got cookies %v, want one", res.Cookies())
	}
	c := res.Cookies()[0]
	if !strings.HasPrefix(c.Name, "__Host-tx-") || c.SameSite != http.SameSiteNoneMode || !c.Secure || !c.HttpOnly || c.Path != "/" || c.Domain != "" || c.MaxAge != 600 {
		t.Errorf("got cookie %+v", c)
	}
	_, form := s.begin()
	res = s.post(callback, form)
	c = res.Cookies()[0]
	if !strings.HasPrefix(c.Name, "__Host-tx-") || c.SameSite != http.SameSiteLaxMode || !c.Secure || !c.HttpOnly || c.Path != "/" || c.MaxAge != 3600 {
		t.Errorf("got cookie %+v", c)
	}
}

func TestReceipt(t *testing.T) {
	s := open(t)
	id, form := s.begin()
	s.post(callback, form)
	text := s.get("/consent/" + id).text
	for _, want := range []string{
		"Contoso CSP", tenant.String(), "Fabrikam Marketplace", "alice@contoso.example", object.String(), "AdminAgents",
		"MFA confirmed", "Partner Center, on your own token", "Signed in by password and a second factor", "access token for Microsoft Graph", "MFA proven, time not proven",
		"Scope.Of.graph", "Azure Resource Manager", "1, the first", strings.Repeat("c0ffee", 10), ">41<", "What happens next", "How to withdraw",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the receipt lacks %q", want)
		}
	}
	if strings.Contains(text, canary) || strings.Contains(text, "[secret]") {
		t.Error("the receipt speaks of the token")
	}

	s = open(t)
	at := time.Date(2026, 11, 21, 7, 6, 0, 0, time.UTC)
	s.broker.grant = func(g *mandate.Grant) { g.Evidence.AuthTime, g.Generation = at, 2 }
	id, form = s.begin()
	s.post(callback, form)
	text = s.get("/consent/" + id).text
	if !strings.Contains(text, "Signed in at 21 November 2026, 07:06 UTC") || strings.Contains(text, "not proven") || !strings.Contains(text, "replaces the earlier") {
		t.Errorf("the receipt of a renewal with a known time:\n%s", text)
	}
}

func TestResultOnlyInTheBrowserThatSignedIn(t *testing.T) {
	s := open(t)
	id, form := s.begin()
	if res := s.get("/consent/" + id); res.StatusCode != 404 {
		t.Errorf("before the end: got %d, want 404", res.StatusCode)
	}
	s.post(callback, form)
	cookie := s.store.signIns[id].cookie
	for _, tt := range []struct {
		name, header string
		status       int
	}{
		{"right", "__Host-tx-" + id + "=" + cookie, 200},
		{"missing", "", 404},
		{"empty", "__Host-tx-" + id + "=", 404},
		{"wrong", "__Host-tx-" + id + "=wrong", 404},
		{"twice", "__Host-tx-" + id + "=" + cookie + "; __Host-tx-" + id + "=wrong", 404},
		{"of another", "__Host-tx-otherother=" + cookie, 404},
	} {
		s.client.Jar = nil
		r := s.request("GET", "/consent/"+id, "")
		if tt.header != "" {
			r.Header.Set("Cookie", tt.header)
		}
		res := s.do(r)
		if res.StatusCode != tt.status {
			t.Errorf("cookie %s: got %d, want %d", tt.name, res.StatusCode, tt.status)
		}
		if told := strings.Contains(res.text, "only in the browser that signed in"); told != (tt.status == 404) {
			t.Errorf("cookie %s: told why: %v", tt.name, told)
		}
		if leaks := strings.Contains(res.text, "alice@contoso.example"); leaks != (tt.status == 200) {
			t.Errorf("cookie %s: result shown: %v", tt.name, leaks)
		}
	}
}

// The outcome goes through JSON into the store, and must come out the same.
func TestOutcomeJSON(t *testing.T) {
	s := open(t)
	id, form := s.begin()
	s.post(callback, form)
	want := *s.store.signIns[id].outcome
	data := must(json.Marshal(want))
	var got portal.Outcome
	if err := json.Unmarshal(data, &got); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(must(json.Marshal(got))), string(data)); diff != "" {
		t.Error(diff)
	}
	if bytes.Contains(data, []byte("efresh")) || bytes.Contains(data, []byte("[secret]")) {
		t.Errorf("the outcome speaks of the token: %s", data)
	}
}

var assets = regexp.MustCompile(`/assets/[^"]+`)

func TestAssets(t *testing.T) {
	s := open(t)
	for _, path := range assets.FindAllString(s.get("/").text, -1) {
		res := s.get(path)
		if res.StatusCode != 200 || !strings.Contains(res.Header.Get("Cache-Control"), "immutable") || len(res.text) > 10<<10 {
			t.Errorf("%s: status %d, Cache-Control %q, %d bytes", path, res.StatusCode, res.Header.Get("Cache-Control"), len(res.text))
		}
	}
}

func TestBanner(t *testing.T) {
	fake := global
	fake.Name, fake.Authority, fake.Custom = "emulator", "https://localhost:8443", true
	fake.Audiences = map[string]mandate.Endpoint{}
	for name, e := range global.Audiences {
		fake.Audiences[name] = mandate.Endpoint{Resource: e.Resource, URL: "https://localhost:9443"}
	}
	for name, tt := range map[string]struct {
		change func(*portal.Config)
		want   bool
	}{
		"real":     {func(*portal.Config) {}, false},
		"setting":  {func(c *portal.Config) { c.Emulated = true }, true},
		"by cloud": {func(c *portal.Config) { c.Applications = append(c.Applications, application(fake)) }, true},
	} {
		s := open(t, tt.change)
		for _, path := range []string{"/", "/i/" + goodToken, "/i/unknown-token", "/x"} {
			if got := strings.Contains(s.get(path).text, "Emulated cloud"); got != tt.want {
				t.Errorf("%s: %s has the banner: %v, want %v", name, path, got, tt.want)
			}
		}
	}
}

func TestStyleSheetIsSmall(t *testing.T) {
	if data := must(os.ReadFile("site.css")); len(data) > 10<<10 {
		t.Errorf("site.css has %d bytes, want at most %d", len(data), 10<<10)
	}
}
