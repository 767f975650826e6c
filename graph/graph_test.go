package graph

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

const canary = "CANARY-token.with/+="

var token = mandate.NewSecret(canary)

func ctx() context.Context { return context.Background() }

// A fakeGraph answers with what its dials say, in turn; the last answer stays.
type fakeGraph struct {
	answers []answer
	asked   []*http.Request
}

type answer struct {
	status int
	header http.Header
	body   string
	err    error
}

func (f *fakeGraph) RoundTrip(r *http.Request) (*http.Response, error) {
	a := f.answers[min(len(f.asked), len(f.answers)-1)]
	f.asked = append(f.asked, r)
	if a.err != nil {
		return nil, a.err
	}
	if a.header == nil {
		a.header = http.Header{}
	}
	if a.header.Get("Content-Type") == "" {
		a.header.Set("Content-Type", "application/json;odata.metadata=minimal;odata.streaming=true;IEEE754Compatible=false;charset=utf-8")
	}
	return &http.Response{StatusCode: a.status, Header: a.header, Body: io.NopCloser(strings.NewReader(a.body)), Request: r}, nil
}

func newClient(t testing.TB, f *fakeGraph) *Client {
	t.Helper()
	c, err := New(Config{URL: "https://graph.test:8443", HTTP: &http.Client{Transport: f}})
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

// page is a page of memberOf.
func page(next string, objects ...string) answer {
	if next != "" {
		next = `,"@odata.nextLink":"` + next + `"`
	}
	return answer{status: 200, body: `{"@odata.context":"c","value":[` + strings.Join(objects, ",") + `]` + next + `}`}
}

func group(name string) string {
	return `{"@odata.type":"#microsoft.graph.group","displayName":"` + name + `","securityEnabled":true}`
}

func TestNew(t *testing.T) {
	for _, u := range []string{"", "graph.test", "http://graph.test", "https://", "https://u@graph.test", "https://graph.test/v1.0", "https://graph.test?x", "https://graph.test#x", "https://graph.test:x"} {
		if _, err := New(Config{URL: u, HTTP: &http.Client{}}); !errors.Is(err, mandate.ErrInvalid) {
			t.Errorf("New with URL %q: %v", u, err)
		}
	}
	if _, err := New(Config{URL: "https://graph.test"}); !errors.Is(err, mandate.ErrInvalid) {
		t.Errorf("New without HTTP: %v", err)
	}
}

func TestAgentGroups(t *testing.T) {
	const (
		hidden = `{"@odata.type":"#microsoft.graph.group","displayName":null}`
		role   = `{"@odata.type":"#microsoft.graph.directoryRole","displayName":"AdminAgents"}`
		social = `{"@odata.type":"#microsoft.graph.group","displayName":"AdminAgents","securityEnabled":false}`
		bare   = `{"@odata.type":"#microsoft.graph.group","displayName":"AdminAgents"}`
	)
	for _, tt := range []struct {
		name  string
		pages []answer
		want  []string
	}{
		{"all", []answer{page("", group("SalesAgents"), group("Others"), group("AdminAgents"), group("HelpdeskAgents"))}, []string{"AdminAgents", "HelpdeskAgents", "SalesAgents"}},
		{"on the second page", []answer{page("https://graph.test:8443/v1.0/me/memberOf?$skiptoken=x", group("Others")), page("", group("SalesAgents"))}, []string{"SalesAgents"}},
		{"on a page of the user's own address", []answer{page("https://graph.test:8443/v1.0/users/x/memberOf?$skiptoken=x", group("AdminAgents")), page("")}, []string{"AdminAgents"}},
		{"twice", []answer{page("", group("SalesAgents"), group("SalesAgents"))}, []string{"SalesAgents"}},
		{"none", []answer{page("", group("Others"))}, []string{}},
		{"no groups", []answer{page("")}, []string{}},
		{"in other case", []answer{page("", group("adminagents"))}, []string{}},
		{"like one", []answer{page("", group("AdminAgents "), group("My AdminAgents"))}, []string{}},
		{"a role of that name", []answer{page("", role)}, []string{}},
		{"a Microsoft 365 group of that name", []answer{page("", social)}, []string{}},
		{"an object of no type", []answer{page("", `{"displayName":"AdminAgents","securityEnabled":true}`)}, []string{}},
		{"a group that does not say whether it is for security", []answer{page("", bare)}, []string{"AdminAgents"}},
		{"one found, one hidden", []answer{page("", hidden, group("SalesAgents"))}, []string{"SalesAgents"}},
	} {
		f := &fakeGraph{answers: tt.pages}
		got, err := newClient(t, f).AgentGroups(ctx(), token)
		if d := cmp.Diff(tt.want, got); err != nil || d != "" {
			t.Errorf("%s: %v (-want +got)\n%s", tt.name, err, d)
		}
		if len(f.asked) != len(tt.pages) {
			t.Errorf("%s: %d pages are asked for, want %d", tt.name, len(f.asked), len(tt.pages))
		}
		r := f.asked[0]
		if r.Method != "GET" || r.URL.Host != "graph.test:8443" || r.URL.Path != "/v1.0/me/memberOf" || r.URL.Query().Get("$select") != "displayName,securityEnabled" ||
			r.Header.Get("Authorization") != "Bearer "+canary || r.Header.Get("Accept") != "application/json" || len(r.Header.Get("client-request-id")) != 36 {
			t.Errorf("%s: request %s %v", tt.name, r.URL, r.Header)
		}
	}
	_, err := newClient(t, &fakeGraph{answers: []answer{page("", hidden, group("Others"))}}).AgentGroups(ctx(), token)
	wantFault(t, err, mandate.DomainAudience, mandate.RemedyConfigure)
}

// Somebody else's groups are asked for by object ID; a user that Graph does not
// know is in none, and every other refusal is no answer.
func TestAgentGroupsOf(t *testing.T) {
	user, err := mandate.ParseObjectID("99999999-8888-7777-6666-555555555555")
	if err != nil {
		t.Fatal(err)
	}
	f := &fakeGraph{answers: []answer{page("", group("AdminAgents")), {status: 404, body: `{"error":{"code":"Request_ResourceNotFound"}}`}, {status: 403, body: `{"error":{"code":"Authorization_RequestDenied"}}`}}}
	c := newClient(t, f)
	if got, err := c.AgentGroupsOf(ctx(), token, user); err != nil || len(got) != 1 || got[0] != "AdminAgents" {
		t.Errorf("got %v, %v", got, err)
	}
	if at := f.asked[0].URL.Path; at != "/v1.0/users/99999999-8888-7777-6666-555555555555/memberOf" {
		t.Errorf("asked %s", at)
	}
	if got, err := c.AgentGroupsOf(ctx(), token, user); err != nil || len(got) != 0 {
		t.Errorf("an unknown user: %v, %v", got, err)
	}
	if got, err := c.AgentGroupsOf(ctx(), token, user); err == nil || len(got) != 0 {
		t.Errorf("not permitted: %v, %v", got, err)
	}
}

// The token does not go where a page says.
func TestNextPage(t *testing.T) {
	for _, link := range []string{
		"https://evil.test/v1.0/me/memberOf", "http://graph.test:8443/v1.0/me/memberOf", "//evil.test/v1.0/x", "https://graph.test/v1.0/me/memberOf",
		"https://u@graph.test:8443/v1.0/me", "https://graph.test:8443/beta/me", "https://graph.test:8443/v1.0/../beta/me", "https://graph.test:8443/v1.0", "/v1.0/me/memberOf", ":",
	} {
		f := &fakeGraph{answers: []answer{page(link, group("AdminAgents"))}}
		got, err := newClient(t, f).AgentGroups(ctx(), token)
		if wantFault(t, err, mandate.DomainTransient, mandate.RemedyRetry); got != nil || len(f.asked) != 1 {
			t.Errorf("next page %q: got %v after %d requests", link, got, len(f.asked))
		}
	}
	f := &fakeGraph{answers: []answer{page("https://graph.test:8443/v1.0/me/memberOf?again")}}
	_, err := newClient(t, f).AgentGroups(ctx(), token)
	if wantFault(t, err, mandate.DomainTransient, mandate.RemedyRetry); len(f.asked) != maxPages {
		t.Errorf("%d pages are asked for, want %d", len(f.asked), maxPages)
	}
}

func TestFaults(t *testing.T) {
	for status, want := range map[int]struct {
		domain mandate.Domain
		remedy mandate.Remedy
	}{
		401: {mandate.DomainGrant, mandate.RemedyRenew},
		403: {mandate.DomainAudience, mandate.RemedyConfigure},
		400: {mandate.DomainAudience, mandate.RemedyConfigure},
		404: {mandate.DomainAudience, mandate.RemedyConfigure},
		429: {mandate.DomainTransient, mandate.RemedyRetry},
		500: {mandate.DomainTransient, mandate.RemedyRetry},
		204: {mandate.DomainTransient, mandate.RemedyRetry},
		302: {mandate.DomainTransient, mandate.RemedyRetry},
	} {
		f := &fakeGraph{answers: []answer{{status: status, header: http.Header{"Retry-After": {"3"}, "Request-Id": {"header"}, "Location": {"https://evil.test/"}},
			body: `{"error":{"code":"Authorization_RequestDenied","message":"Insufficient\nprivileges. ` + canary + `","innerError":{"date":"2021-10-29T17:16:30","request-id":"inner","client-request-id":"c"}}}`}}}
		_, err := newClient(t, f).AgentGroups(ctx(), token)
		got := wantFault(t, err, want.domain, want.remedy)
		e, isError := errors.AsType[*Error](err)
		if !isError || e.Code != "Authorization_RequestDenied" || e.Status != status || e.RequestID != "inner" || got.CorrelationID != "inner" ||
			got.Description != "Insufficient privileges. [secret]" || got.RetryAfter != 3*time.Second || len(f.asked) != 1 {
			t.Errorf("status %d: %+v, %+v", status, got, e)
		}
	}
	for name, tt := range map[string]struct {
		answer answer
		id     string
	}{
		"HTML":                {answer{status: 401, header: http.Header{"Content-Type": {"text/html"}, "Request-Id": {"header"}}, body: `{"error":{"code":"x"}}`}, "header"},
		"an error of no form": {answer{status: 401, body: `{"error":"x"}`}, ""},
	} {
		f := &fakeGraph{answers: []answer{tt.answer}}
		_, err := newClient(t, f).AgentGroups(ctx(), token)
		got := wantFault(t, err, mandate.DomainGrant, mandate.RemedyRenew)
		if tt.id == "" {
			tt.id = f.asked[0].Header.Get("client-request-id")
		}
		if e, _ := errors.AsType[*Error](err); got.CorrelationID != tt.id || e.Code != "" {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

func TestUnusableAnswers(t *testing.T) {
	for name, a := range map[string]answer{
		"no answer": {err: errors.New("no way to " + canary)},
		"long":      {status: 200, body: `{"value":[]}` + strings.Repeat(" ", maxAnswer)},
		"HTML":      {status: 200, header: http.Header{"Content-Type": {"text/html"}}, body: `{"value":[]}`},
		"no list":   {status: 200, body: `{}`},
		"null":      {status: 200, body: `{"value":null}`},
		"broken":    {status: 200, body: `{"value":[`},
	} {
		got, err := newClient(t, &fakeGraph{answers: []answer{a}}).AgentGroups(ctx(), token)
		if wantFault(t, err, mandate.DomainTransient, mandate.RemedyRetry); got != nil || strings.Contains(err.Error(), "graph.test") {
			t.Errorf("%s: got %v, %v", name, got, err)
		}
	}
}

// No redirect is followed, and no cookie kept, whatever the HTTP client does
// otherwise.
func TestRealServer(t *testing.T) {
	n := 0
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n++
		http.Redirect(w, r, "/v1.0/elsewhere", http.StatusFound)
	}))
	defer s.Close()
	h := s.Client()
	h.Jar, _ = cookiejar.New(nil)
	c, err := New(Config{URL: s.URL, HTTP: h})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.AgentGroups(ctx(), token); err == nil || n != 1 {
		t.Errorf("a redirect: %v after %d requests", err, n)
	}
	if c.http.Timeout != 30*time.Second || c.http.Jar != nil {
		t.Errorf("client %+v", c.http)
	}
}

func TestErrorWithoutCode(t *testing.T) {
	if got := (&Error{Status: 403}).Error(); !strings.HasSuffix(got, "answered 403") {
		t.Errorf("error without a code: %q", got)
	}
}

func FuzzMemberOf(f *testing.F) {
	f.Add(page("https://graph.test:8443/v1.0/me/memberOf?x", group("AdminAgents")).body)
	f.Add(page("//evil.test/v1.0/x").body)
	f.Add(`{"value":[null,{}]}`)
	f.Fuzz(func(t *testing.T, body string) {
		g := &fakeGraph{answers: []answer{{status: 200, body: body}, {status: 500}}}
		groups, err := newClient(t, g).AgentGroups(ctx(), token)
		if err != nil && groups != nil || len(groups) > len(agentGroups) {
			t.Fatalf("got %v, %v", groups, err)
		}
		for _, r := range g.asked {
			if r.URL.Scheme != "https" || r.URL.Host != "graph.test:8443" || !strings.HasPrefix(r.URL.Path, "/v1.0/") {
				t.Fatalf("the token went to %s", r.URL)
			}
		}
	})
}
