package partnercenter

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/mandate-sam/mandate"
)

const (
	canary = "CANARY-token.with/+="
	tid    = "11111111-2222-4333-8444-555555555502"
	oid    = "cccccccc-bbbb-4ccc-8ddd-eeeeeeeeee01"
)

var token = mandate.NewSecret(canary)

func ctx() context.Context { return context.Background() }

// A fakePC answers with what its dials say, in turn; the last answer stays.
type fakePC struct {
	answers []answer
	asked   []*http.Request
}

type answer struct {
	status int
	header http.Header
	body   string
	err    error
}

func (f *fakePC) RoundTrip(r *http.Request) (*http.Response, error) {
	a := f.answers[min(len(f.asked), len(f.answers)-1)]
	f.asked = append(f.asked, r)
	if a.err != nil {
		return nil, a.err
	}
	if a.header == nil {
		a.header = http.Header{}
	}
	if a.header.Get("Content-Type") == "" {
		a.header.Set("Content-Type", "application/json; charset=utf-8")
	}
	return &http.Response{StatusCode: max(a.status, 1), Header: a.header, Body: io.NopCloser(strings.NewReader(a.body)), Request: r}, nil
}

func newClient(t testing.TB, f *fakePC) *Client {
	t.Helper()
	c, err := New(Config{URL: "https://pc.test:8443", HTTP: &http.Client{Transport: f}})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func wantFault(t *testing.T, err error, d mandate.Domain, r mandate.Remedy) *mandate.Fault {
	t.Helper()
	f, ok := errors.AsType[*mandate.Fault](err)
	if !ok {
		t.Fatalf("error is %T %v, want a *mandate.Fault", err, err)
	}
	if f.Domain != d || f.Remedy != r {
		t.Errorf("fault %s, %s (%v), want %s, %s", f.Domain, f.Remedy, err, d, r)
	}
	if text := fmt.Sprintf("%v %+v %v", err, f, f.Cause); strings.Contains(text, "CANARY") {
		t.Errorf("an error repeats the token: %s", text)
	}
	return f
}

func TestNew(t *testing.T) {
	for _, u := range []string{"", "pc.test", "http://pc.test", "https://", "https://u@pc.test", "https://pc.test/v1", "https://pc.test?x", "https://pc.test#x", "https://pc.test:x"} {
		if _, err := New(Config{URL: u, HTTP: &http.Client{}}); !errors.Is(err, mandate.ErrInvalid) {
			t.Errorf("New with URL %q: %v", u, err)
		}
	}
	if _, err := New(Config{URL: "https://pc.test"}); !errors.Is(err, mandate.ErrInvalid) {
		t.Errorf("New without HTTP: %v", err)
	}
}

func TestMFACompliant(t *testing.T) {
	verdict := func(v ...string) http.Header { return http.Header{"Ismfacompliant": v} }
	for _, tt := range []struct {
		name   string
		answer answer
		ok     bool
		reason string
	}{
		{"yes", answer{status: 200, header: verdict("true"), body: "{}"}, true, ""},
		{"yes, in capitals", answer{status: 200, header: verdict("True"), body: "{}"}, true, ""},
		{"yes, twice", answer{status: 200, header: verdict("true"), body: `{"isMfaCompliant":true}`}, true, ""},
		{"yes, twice, in a string", answer{status: 200, header: verdict("true"), body: `{"IsMfaCompliant":"True"}`}, true, ""},
		{"yes, after a byte-order mark", answer{status: 200, header: verdict("true"), body: "\ufeff{}"}, true, ""},
		{"no", answer{status: 200, header: verdict("false"), body: "{}"}, false, "without MFA"},
		{"no, and yes in the body", answer{status: 200, header: verdict("False"), body: `{"isMfaCompliant":true}`}, false, "without MFA"},
		{"absent", answer{status: 200, body: "{}"}, false, "0 MFA verdicts"},
		{"absent, and yes in the body", answer{status: 200, body: `{"isMfaCompliant":true}`}, false, "0 MFA verdicts"},
		{"empty", answer{status: 200, header: verdict(""), body: "{}"}, false, "neither"},
		{"unreadable", answer{status: 200, header: verdict("yes"), body: "{}"}, false, "neither"},
		{"repeated", answer{status: 200, header: verdict("true", "true"), body: "{}"}, false, "2 MFA verdicts"},
		{"repeated in one line", answer{status: 200, header: verdict("true, true"), body: "{}"}, false, "neither"},
		{"contradicted", answer{status: 200, header: verdict("true"), body: `{"isMfaCompliant":false}`}, false, "contradicts"},
		{"contradicted in another case", answer{status: 200, header: verdict("true"), body: `{"ISMFACOMPLIANT":"False"}`}, false, "contradicts"},
		{"unreadable in the body", answer{status: 200, header: verdict("true"), body: `{"isMfaCompliant":1}`}, false, "contradicts"},
		{"null in the body", answer{status: 200, header: verdict("true"), body: `{"isMfaCompliant":null}`}, false, "contradicts"},
		{"with HTML", answer{status: 200, header: http.Header{"Ismfacompliant": {"true"}, "Content-Type": {"text/html"}}, body: "{}"}, false, "not JSON"},
		{"with broken JSON", answer{status: 200, header: verdict("true"), body: "{"}, false, "not readable"},
		{"MFA required", answer{status: 401, header: verdict("true"), body: `{"code":"900421","description":"MFA required"}`}, false, "900421"},
		{"MFA required, as a number", answer{status: 401, body: `{"Code":900421}`}, false, "900421"},
	} {
		f := &fakePC{answers: []answer{tt.answer}}
		ok, reason, err := newClient(t, f).MFACompliant(ctx(), token)
		if ok != tt.ok || err != nil || !strings.Contains(reason, tt.reason) || (reason == "") != tt.ok {
			t.Errorf("%s: got %v, %q, %v, want %v, %q", tt.name, ok, reason, err, tt.ok, tt.reason)
		}
		r := f.asked[0]
		if r.Method != "GET" || r.URL.String() != "https://pc.test:8443/v1/profiles/organization" || r.Header.Get("ValidateMfa") != "true" ||
			r.Header.Get("Authorization") != "Bearer "+canary || r.Header.Get("X-Locale") != "en-US" || r.Header.Get("Accept") != "application/json" || r.Header.Get("MS-Contract-Version") != "v1" ||
			len(r.Header.Get("MS-RequestId")) != 36 || len(r.Header.Get("MS-CorrelationId")) != 36 {
			t.Errorf("%s: request %s %v", tt.name, r.URL, r.Header)
		}
	}
}

// No other outcome is a verdict, whatever it says of MFA.
func TestFaults(t *testing.T) {
	for _, tt := range []struct {
		status int
		code   string
		domain mandate.Domain
		remedy mandate.Remedy
	}{
		{401, `"900420"`, mandate.DomainApplication, mandate.RemedyConfigure},
		{403, `900329`, mandate.DomainApplication, mandate.RemedyConfigure},
		{403, `"900308"`, mandate.DomainGrant, mandate.RemedyAdminister},
		{403, `"900309"`, mandate.DomainGrant, mandate.RemedyAdminister},
		{403, `"1002"`, mandate.DomainGrant, mandate.RemedyAdminister},
		{403, `"90000"`, mandate.DomainTransient, mandate.RemedyRetry},
		{404, `"60003"`, mandate.DomainCustomer, mandate.RemedyConfigure},
		{403, `"900421"`, mandate.DomainGrant, mandate.RemedyRenew},
		{401, `null`, mandate.DomainGrant, mandate.RemedyRenew},
		{403, `"x"`, mandate.DomainGrant, mandate.RemedyAdminister},
		{404, `{}`, mandate.DomainCustomer, mandate.RemedyConfigure},
		{400, `"2055"`, mandate.DomainAudience, mandate.RemedyConfigure},
		{409, `""`, mandate.DomainAudience, mandate.RemedyConfigure},
		{429, `""`, mandate.DomainTransient, mandate.RemedyRetry},
		{500, `""`, mandate.DomainTransient, mandate.RemedyRetry},
		{204, `""`, mandate.DomainTransient, mandate.RemedyRetry},
		{302, `""`, mandate.DomainTransient, mandate.RemedyRetry},
	} {
		f := &fakePC{answers: []answer{{status: tt.status, body: `{"code":` + tt.code + `,"description":"No\n` + canary + `"}`,
			header: http.Header{"Ms-Correlationid": {"theirs"}, "Ms-Requestid": {"req"}, "Retry-After": {"3"}, "Ismfacompliant": {"true"}, "Location": {"https://evil.test/"}}}}}
		ok, _, err := newClient(t, f).MFACompliant(ctx(), token)
		got := wantFault(t, err, tt.domain, tt.remedy)
		e, isError := errors.AsType[*Error](err)
		if ok || !isError || e.Status != tt.status || e.CorrelationID != "theirs" || e.RequestID != "req" || e.Description != "No [secret]" ||
			got.Description != "No [secret]" || got.CorrelationID != "theirs" || got.Status != tt.status || got.RetryAfter != 3*time.Second || len(f.asked) != 1 {
			t.Errorf("status %d, code %s: %v, %+v, %+v, %d requests", tt.status, tt.code, ok, got, e, len(f.asked))
		}
		if want := strings.Trim(tt.code, `"`); want != "null" && want != "{}" && e.Code != want {
			t.Errorf("code %q, want %q", e.Code, want)
		}
	}
}

func TestTransport(t *testing.T) {
	for name, a := range map[string]answer{
		"no answer": {err: errors.New("no way to " + canary)},
		"long":      {status: 200, body: strings.Repeat(" ", maxAnswer+1), header: http.Header{"Ismfacompliant": {"true"}}},
	} {
		f := &fakePC{answers: []answer{a}}
		ok, _, err := newClient(t, f).MFACompliant(ctx(), token)
		if got := wantFault(t, err, mandate.DomainTransient, mandate.RemedyRetry); ok || got.CorrelationID != f.asked[0].Header.Get("MS-CorrelationId") || strings.Contains(err.Error(), "pc.test") {
			t.Errorf("%s: %v, %+v", name, ok, got)
		}
	}
	html := &fakePC{answers: []answer{{status: 502, header: http.Header{"Content-Type": {"text/html"}}, body: `{"code":"900420"}`}}}
	_, _, err := newClient(t, html).MFACompliant(ctx(), token)
	if got := wantFault(t, err, mandate.DomainTransient, mandate.RemedyRetry); got.CorrelationID == "" {
		t.Errorf("got %+v", got)
	}
}

// No redirect is followed, and no cookie kept, whatever the HTTP client does otherwise.
func TestRealServer(t *testing.T) {
	n := 0
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n++
		http.Redirect(w, r, "/v1/elsewhere", http.StatusFound)
	}))
	defer s.Close()
	h := s.Client()
	h.Jar, _ = cookiejar.New(nil)
	c, err := New(Config{URL: s.URL, HTTP: h})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := c.MFACompliant(ctx(), token); err == nil || n != 1 {
		t.Errorf("a redirect: %v after %d requests", err, n)
	}
	if c.http.Timeout != 30*time.Second || c.http.Jar != nil {
		t.Errorf("client %+v", c.http)
	}
}

func customersPage(next string, ids ...string) answer {
	var items []string
	for _, id := range ids {
		items = append(items, `{"id":"x","companyProfile":{"tenantId":"`+id+`","companyName":"Fab\u0007rikam","domain":"f.test"},"attributes":{}}`)
	}
	links := ""
	if next != "" {
		links = `,"Links":{"self":{},"next":{"uri":"` + next + `","method":"GET","headers":[{"key":"ms-continuationtoken","value":"place"},{"key":"Authorization","value":"evil"}]}}`
	}
	return answer{status: 200, body: `{"totalCount":2,"items":[` + strings.Join(items, ",") + `]` + links + `}`}
}

func TestCustomers(t *testing.T) {
	other := strings.Replace(tid, "02", "03", 1)
	f := &fakePC{answers: []answer{customersPage("/customers?size=1&seekOperation=Next", tid), customersPage("https://pc.test:8443/v1//customers?size=2", other), {status: 200, body: `{"items":[{"id":"` + tid + `"}],"links":{"next":{"uri":""}}}`}}}
	var got []string
	for c, err := range newClient(t, f).Customers(ctx(), token) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, c.Tenant.String()+" "+c.Name+" "+c.Domain)
	}
	if d := cmp.Diff([]string{tid + " Fabrikam f.test", other + " Fabrikam f.test", tid + "  "}, got); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
	var asked []string
	for _, r := range f.asked {
		asked = append(asked, r.URL.String()+" "+r.Header.Get(continuation)+" "+r.Header.Get("Authorization"))
	}
	want := []string{
		"https://pc.test:8443/v1/customers?size=500  Bearer " + canary,
		"https://pc.test:8443/v1/customers?size=1&seekOperation=Next place Bearer " + canary,
		"https://pc.test:8443/v1/customers?size=2 place Bearer " + canary,
	}
	if d := cmp.Diff(want, asked); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
}

// The token does not go where a page says, only on in the same collection.
func TestNextPage(t *testing.T) {
	for _, uri := range []string{
		"https://evil.test/v1/customers?x", "http://pc.test:8443/v1/customers", "//evil.test/v1/customers", "https://pc.test/v1/customers",
		"https://u@pc.test:8443/v1/customers", "/invoices", "/customers/../invoices", "/v1/../customers", "/customers/" + tid + "/users", ":", "customers%2f..",
	} {
		f := &fakePC{answers: []answer{customersPage(uri)}}
		var last error
		for _, err := range newClient(t, f).Customers(ctx(), token) {
			last = err
		}
		wantFault(t, last, mandate.DomainTransient, mandate.RemedyRetry)
		if len(f.asked) != 1 {
			t.Errorf("next page %q is asked for: %v", uri, f.asked[1].URL)
		}
	}
}

func TestPagesEnd(t *testing.T) {
	f := &fakePC{answers: []answer{customersPage("/customers?again")}}
	var last error
	for _, err := range newClient(t, f).Customers(ctx(), token) {
		last = err
	}
	if wantFault(t, last, mandate.DomainTransient, mandate.RemedyRetry); len(f.asked) != maxPages {
		t.Errorf("%d pages are asked for, want %d", len(f.asked), maxPages)
	}
	f = &fakePC{answers: []answer{customersPage("/customers?again", tid)}}
	for range newClient(t, f).Customers(ctx(), token) {
		break
	}
	if len(f.asked) != 1 {
		t.Errorf("%d pages are asked for after the loop ended, want 1", len(f.asked))
	}
	for name, body := range map[string]string{"no JSON": "<", "an id that is none": `{"items":[{"id":"x"}]}`} {
		n := 0
		for _, err := range newClient(t, &fakePC{answers: []answer{{status: 200, body: body}}}).Customers(ctx(), token) {
			wantFault(t, err, mandate.DomainTransient, mandate.RemedyRetry)
			n++
		}
		if n != 1 {
			t.Errorf("%s: %d results, want 1", name, n)
		}
	}
}

func TestUsers(t *testing.T) {
	f := &fakePC{answers: []answer{{status: 200, body: `{"items":[{"id":"` + oid + `","userPrincipalName":"ada@f.test","displayName":"Ada"}]}`}}}
	customer, _ := mandate.ParseTenantID(tid)
	for u, err := range newClient(t, f).Users(ctx(), token, customer) {
		if err != nil || u.ID.String() != oid || u.UserName != "ada@f.test" || u.Name != "Ada" {
			t.Errorf("got %+v, %v", u, err)
		}
	}
	if got := f.asked[0].URL.String(); got != "https://pc.test:8443/v1/customers/"+tid+"/users?size=500" {
		t.Errorf("asked for %s", got)
	}
}

func TestErrorWithoutCode(t *testing.T) {
	if got := (&Error{Status: 403}).Error(); !strings.HasSuffix(got, "answered 403") {
		t.Errorf("error without a code: %q", got)
	}
}

func FuzzVerdict(f *testing.F) {
	f.Add("true", `{"isMfaCompliant":true}`)
	f.Add("false", `{"isMfaCompliant":"true"}`)
	f.Add(" TRUE ", "{}")
	f.Fuzz(func(t *testing.T, header, body string) {
		h := http.Header{"Content-Type": {"application/json"}, "Ismfacompliant": {header}}
		if ok, reason := verdict(h, []byte(body)); ok && !strings.EqualFold(header, "true") || ok != (reason == "") {
			t.Fatalf("%q, %q: %v, %q", header, body, ok, reason)
		}
	})
}

func FuzzPage(f *testing.F) {
	f.Add(customersPage("/customers?x", tid).body)
	f.Add(`{"links":{"next":{"uri":"//evil"}}}`)
	f.Fuzz(func(t *testing.T, body string) {
		pc := &fakePC{answers: []answer{{status: 200, body: body}, {status: 500}}}
		for range newClient(t, pc).Customers(ctx(), token) {
		}
		for _, r := range pc.asked {
			if r.URL.Host != "pc.test:8443" || r.URL.Scheme != "https" || r.URL.Path != "/v1/customers" {
				t.Fatalf("the token went to %s", r.URL)
			}
		}
	})
}
