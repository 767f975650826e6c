package portal_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/footprint"
	"github.com/mandate-sam/mandate/internal/portal"
)

// fakePeople lets whoever has goodCode sign in, with the roles that are set.
type fakePeople struct {
	mu       sync.Mutex // guards sessions, signed and asked
	sessions map[string]portal.Person
	signed   []portal.SignIn
	asked    []mandate.GrantKey // whose history was read
	filters  []portal.Filter

	roles   []string
	refusal error
	unknown error         // instead of a session
	age     time.Duration // of sign-ins; negative if Entra does not say
	state   mandate.State // of the grant; empty for active, "none" for none
	given   time.Time     // when the grant was
	lasts   time.Duration

	renewed   []portal.Person
	withdrawn []bool // whether sessions were to be ended
	report    mandate.Withdrawal
	actErr    error
	unread    error // instead of the grant
	usages    []string
}

func (f *fakePeople) Partner(_ context.Context, _ string, _ mandate.AppID, t mandate.TenantID) (mandate.Partner, error) {
	if t != tenant {
		return mandate.Partner{}, mandate.ErrUnknownPartner
	}
	return contoso, nil
}

func (f *fakePeople) SignIn(_ context.Context, in portal.SignIn) (mandate.Secret, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.signed = append(f.signed, in)
	if f.refusal != nil {
		return mandate.Secret{}, f.refusal
	}
	secret := "mdp_session-number-" + strings.Repeat("x", len(f.sessions)+1)
	signed := time.Now().Add(-f.age)
	if f.age < 0 {
		signed = time.Time{}
	}
	f.sessions[secret] = portal.Person{Partner: contoso, SignedIn: signed, User: mandate.Identity{Tenant: tenant, Object: object}, UserName: "alice@contoso.example", Roles: f.roles}
	return mandate.NewSecret(secret), nil
}

func (f *fakePeople) Session(_ context.Context, s mandate.Secret) (portal.Person, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.unknown != nil {
		return portal.Person{}, f.unknown
	}
	p, ok := f.sessions[s.Reveal()]
	if !ok {
		return p, mandate.ErrUnauthenticated
	}
	p.Roles = f.roles
	return p, nil
}

func (f *fakePeople) End(_ context.Context, s mandate.Secret) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.sessions, s.Reveal())
	return nil
}

func (f *fakePeople) Grant(context.Context, mandate.GrantKey) (mandate.Grant, time.Time, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.unread != nil {
		return mandate.Grant{}, time.Time{}, f.unread
	}
	if f.state == "none" {
		return mandate.Grant{}, time.Time{}, mandate.ErrNotFound
	}
	return mandate.Grant{
		Key: contoso.Key, Generation: 1, State: cmp.Or(f.state, mandate.StateActive), User: mandate.Identity{Tenant: tenant, Object: object},
		Consented: f.given, Until: f.given.Add(f.lasts), UserName: "alice@contoso.example",
		Evidence: mandate.Evidence{PartnerCenter: true}, Refresh: mandate.NewSecret(canary),
		Audiences: []mandate.GrantedAudience{{Audience: global.Audiences["graph"].Resource, Scopes: []string{"User.Read", "Odd.Scope"}}},
	}, time.Now(), nil
}

func (f *fakePeople) History(_ context.Context, k mandate.GrantKey, filter portal.Filter) (portal.History, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked, f.filters = append(f.asked, k), append(f.filters, filter)
	return portal.History{
		Events: []portal.Event{
			{Index: 1207, Time: time.Now(), Kind: mandate.KindDenied, Caller: "mandate:pages", Purpose: "roles", Tenant: adatum, Times: 1200, First: time.Date(2025, 1, 2, 3, 4, 5, 0, time.UTC), FirstIndex: 8},
			{Index: 7, Times: 1, Time: time.Now(), Kind: mandate.KindIssued, Caller: "billing<b>", Purpose: "invoices", Tenant: tenant},
		},
		Days:    []portal.DayCount{{Day: filter.Month, Issued: 3, Denied: 1}},
		Callers: []string{"billing<b>"}, Customers: []string{tenant.String()}, Older: 7,
	}, nil
}

func (f *fakePeople) Export(_ context.Context, k mandate.GrantKey, to io.Writer) error {
	_, err := io.WriteString(to, `{"chain":"`+k.Partner.String()+`"}`)
	return err
}

func (f *fakePeople) Names(context.Context, mandate.GrantKey) (map[string]string, error) {
	return map[string]string{adatum.String(): "Adatum <Ltd>"}, nil
}

func (f *fakePeople) Usage(_ context.Context, k mandate.GrantKey, days int, customer mandate.TenantID) (footprint.Report, error) {
	if f.state == "none" {
		return footprint.Report{}, mandate.ErrNotFound
	}
	f.usages = append(f.usages, fmt.Sprint(k.Partner, days, customer))
	return footprint.Report{Days: days, Audiences: []footprint.Audience{
		{Resource: global.Audiences["graph"].Resource, Tokens: 1200, Calls: 34, Last: time.Now(), Tenants: []footprint.Tenant{{Tenant: adatum, Tokens: 1233}, {Tenant: tenant, Calls: 1}},
			Scopes: []footprint.Scope{{Scope: "User.Read", Verdict: footprint.Keep}, {Scope: "Directory.Read.All", Verdict: footprint.Drop}}},
		{Resource: global.Audiences["arm"].Resource, Scopes: []footprint.Scope{{Scope: "user_impersonation", Verdict: footprint.Unknown}}},
	}}, nil
}

func (f *fakePeople) Renew(_ context.Context, who portal.Person, _ string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.renewed = append(f.renewed, who)
	return f.actErr
}

func (f *fakePeople) Withdraw(_ context.Context, _ portal.Person, endSessions bool, _ string) (mandate.Withdrawal, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.withdrawn = append(f.withdrawn, endSessions)
	return f.report, f.actErr
}

// Records are given to whoever has signed in and may look, and to nobody else.
func TestPartnerDownload(t *testing.T) {
	s, f := look(t, mandate.PartnerViewer)
	if res := s.get("/partner/records.jsonl"); res.StatusCode != http.StatusForbidden || strings.Contains(res.text, "chain") {
		t.Errorf("without a session: %d", res.StatusCode)
	}
	s.signIn()
	res := s.get("/partner/records.jsonl")
	if res.StatusCode != http.StatusOK || !strings.Contains(res.text, tenant.String()) || !strings.HasPrefix(res.Header.Get("Content-Disposition"), "attachment") {
		t.Errorf("got %d, %v, %s", res.StatusCode, res.Header, res.text)
	}
	f.roles = nil
	if res := s.get("/partner/records.jsonl"); res.StatusCode != http.StatusForbidden || strings.Contains(res.text, "chain") {
		t.Errorf("without a role: %d", res.StatusCode)
	}
}

// look opens a site with the pages of partners.
func look(t *testing.T, roles ...string) (*site, *fakePeople) {
	t.Helper()
	f := &fakePeople{sessions: map[string]portal.Person{}, roles: roles, given: time.Now().Add(-time.Hour), lasts: 90 * 24 * time.Hour}
	return open(t, func(c *portal.Config) { c.People, c.Records, c.Grants = f, f, f }), f
}

// A sign-in is begun for one partner of one application, and tells Entra of
// nobody who is signed in for another.
func TestPartnerSignInForm(t *testing.T) {
	s, f := look(t, mandate.PartnerViewer)
	this := tenant.String()
	for name, tt := range map[string]struct {
		form   url.Values
		status int
	}{
		"a tenant twice":       {url.Values{"tenant": {this, adatum.String()}}, http.StatusBadRequest},
		"an application twice": {url.Values{"tenant": {this}, "application": {"", ""}}, http.StatusBadRequest},
		"no tenant":            {url.Values{}, http.StatusBadRequest},
		"another application":  {url.Values{"tenant": {this}, "application": {"global/" + this}}, http.StatusBadRequest},
		"an unknown tenant":    {url.Values{"tenant": {adatum.String()}}, http.StatusNotFound},
	} {
		if res := s.post("/partner/signin", tt.form); res.StatusCode != tt.status || len(s.asked) != 0 {
			t.Errorf("%s: %d, want %d; Entra was asked %d times", name, res.StatusCode, tt.status, len(s.asked))
		}
	}
	s.signIn()
	for _, other := range []bool{false, true} {
		for secret, p := range f.sessions {
			if other {
				p.Partner.Key.Partner = adatum
			}
			f.sessions[secret] = p
		}
		s.leave()
		if hint := s.asked[len(s.asked)-1].LoginHint; (hint == "") != other {
			t.Errorf("another partner's %v: Entra is told of %q", other, hint)
		}
	}
}

// leave begins a sign-in, and returns Entra's answer.
func (s *site) leave() url.Values {
	s.t.Helper()
	res := s.post("/partner/signin", url.Values{"tenant": {tenant.String()}})
	target, ok := strings.CutPrefix(res.Header.Get("Refresh"), "0;url=")
	if !ok {
		s.t.Fatalf("POST /partner/signin: %d\n%s", res.StatusCode, res.text)
	}
	return url.Values{"state": {must(url.Parse(target)).Query().Get("state")}, "code": {goodCode}}
}

// signIn signs in and returns the callback's answer.
func (s *site) signIn() reply {
	s.t.Helper()
	return s.post("/consent/callback/global", s.leave())
}

func sessionOf(r reply) *http.Cookie {
	for _, c := range r.Cookies() {
		if c.Name == "__Host-session" {
			return c
		}
	}
	return nil
}

func TestPartnerSignIn(t *testing.T) {
	s, f := look(t, mandate.PartnerViewer)
	res := s.signIn()
	c := sessionOf(res)
	if res.StatusCode != http.StatusSeeOther || res.Header.Get("Location") != "/partner" || c == nil {
		t.Fatalf("the callback answered %d, %v", res.StatusCode, res.Header)
	}
	if !c.Secure || !c.HttpOnly || c.SameSite != http.SameSiteLaxMode || c.Path != "/" || c.Domain != "" || c.MaxAge > 8*3600 {
		t.Errorf("the session's cookie is %v", c)
	}
	if !s.asked[0].SignIn || s.asked[0].Tenant != tenant || len(s.broker.consents) != 0 || len(f.signed) != 1 || f.signed[0].Nonce == "" || f.signed[0].Verifier.IsZero() {
		t.Errorf("asked %+v, consents %d, signed in %+v", s.asked, len(s.broker.consents), f.signed)
	}
	page := s.get("/partner")
	for _, want := range []string{"Contoso CSP", "alice@contoso.example", "invoices", "billing&lt;b&gt;", "See who you are", "Odd.Scope", "MFA confirmed", "<svg", "your own tenant",
		"<strong>1\u202f200 times</strong>", "2 January 2025, 03:04 UTC</time> until", "8 to 1207", "this site itself", "to see who of you may open these pages", "Adatum &lt;Ltd&gt;"} {
		if !strings.Contains(page.text, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	for _, never := range []string{canary, "<script", " style="} {
		if strings.Contains(page.text, never) {
			t.Errorf("the page has %q", never)
		}
	}
	if len(f.asked) != 1 || f.asked[0] != contoso.Key {
		t.Errorf("the history of %v was read", f.asked)
	}
}

// A refusal gives no session, shows nothing of the partner, and says why.
func TestPartnerSignInRefused(t *testing.T) {
	for _, test := range []struct {
		reason mandate.Reason
		says   string
	}{
		{mandate.ReasonTenant, "another organisation"},
		{mandate.ReasonGuest, "guest"},
		{mandate.ReasonRole, "no access"},
		{mandate.ReasonToken, "not signed in"},
		{"", "not signed in"}, // a fault of this site
	} {
		s, f := look(t, mandate.PartnerViewer)
		f.refusal = &mandate.Refusal{Reason: test.reason, Detail: "detail-for-the-operator"}
		if test.reason == "" {
			f.refusal = errors.New("detail-for-the-operator")
		}
		res := s.signIn()
		if c := sessionOf(res); c != nil || res.StatusCode != http.StatusSeeOther {
			t.Errorf("%s: %d with the session %v", test.reason, res.StatusCode, c)
		}
		page := s.get(res.Header.Get("Location"))
		if page.StatusCode != http.StatusForbidden || !strings.Contains(page.text, test.says) || strings.Contains(page.text, "detail-for-the-operator") {
			t.Errorf("%s: %d\n%s", test.reason, page.StatusCode, page.text)
		}
		if page := s.get("/partner"); strings.Contains(page.text, "invoices") || len(f.asked) != 0 {
			t.Errorf("%s: the history was shown", test.reason)
		}
	}
}

// What came back from a sign-in is taken once, in the browser that began, and
// for what it was begun for.
func TestPartnerSignInOnce(t *testing.T) {
	s, f := look(t, mandate.PartnerViewer)
	answer := s.leave()
	if res := s.post("/consent/callback/global", answer); sessionOf(res) == nil {
		t.Fatal("no session")
	}
	if res := s.post("/consent/callback/global", answer); sessionOf(res) != nil || res.StatusCode != http.StatusBadRequest {
		t.Errorf("the second answer: %d", res.StatusCode)
	}
	other := s.leave()
	s.client.Jar = nil
	if res := s.post("/consent/callback/global", other); sessionOf(res) != nil || len(f.signed) != 1 {
		t.Error("another browser signed in")
	}
	s, f = look(t, mandate.PartnerViewer)
	_, consent := s.begin()
	if res := s.post("/consent/callback/global", consent); sessionOf(res) != nil || len(f.signed) != 0 || len(s.broker.consents) != 1 {
		t.Error("a consent became a session")
	}
}

// Nothing is shown without a session, with one that ended, without a role, or
// with a session's cookie that somebody else has set.
func TestPartnerSession(t *testing.T) {
	s, f := look(t, mandate.PartnerViewer)
	hidden := func(what string) {
		t.Helper()
		if page := s.get("/partner"); strings.Contains(page.text, "invoices") || !strings.Contains(page.text, "Sign in at Microsoft") {
			t.Errorf("%s: the page is shown", what)
		}
	}
	hidden("no session")

	fixed := &http.Cookie{Name: "__Host-session", Value: "mdp_known-to-somebody-else", Path: "/", Secure: true}
	s.client.Jar.SetCookies(must(url.Parse(s.server.URL)), []*http.Cookie{fixed})
	hidden("an unknown session")
	first := sessionOf(s.signIn())
	if first == nil || first.Value == fixed.Value {
		t.Fatal("the session is the one that was there before")
	}
	if second := sessionOf(s.signIn()); second.Value == first.Value {
		t.Error("two sign-ins have one session")
	}

	f.roles = nil
	hidden("no role any more")
	f.roles = []string{mandate.PartnerWithdrawer}
	if page := s.get("/partner"); !strings.Contains(page.text, "invoices") {
		t.Error("whoever withdraws may not look")
	}
	twice := s.request("GET", "/partner", "")
	twice.Header.Add("Cookie", "__Host-session=mdp_something-else")
	if page := s.do(twice); strings.Contains(page.text, "invoices") {
		t.Error("two sessions are one")
	}
	f.mu.Lock()
	clear(f.sessions)
	f.mu.Unlock()
	hidden("an ended session")
}

// A form from elsewhere does nothing, and signing out ends the session itself.
func TestPartnerForms(t *testing.T) {
	s, f := look(t, mandate.PartnerViewer)
	s.signIn()
	for _, path := range []string{"/partner/signout", "/partner/signin"} {
		r := s.request("POST", path, url.Values{"tenant": {tenant.String()}}.Encode())
		r.Header.Set("Sec-Fetch-Site", "cross-site")
		if res := s.do(r); res.StatusCode != http.StatusForbidden {
			t.Errorf("%s from elsewhere: %d", path, res.StatusCode)
		}
	}
	if len(f.sessions) != 1 {
		t.Fatal("a form from elsewhere has signed somebody out")
	}
	if res := s.post("/partner/signout", nil); res.StatusCode != http.StatusOK || len(f.sessions) != 0 || sessionOf(res).MaxAge >= 0 {
		t.Errorf("signing out: %d, %d sessions", res.StatusCode, len(f.sessions))
	}
	for _, test := range []struct {
		tenant string
		status int
	}{{"", 400}, {"contoso", 400}, {"22222222-2222-3333-4444-555555555555", 404}} {
		if res := s.post("/partner/signin", url.Values{"tenant": {test.tenant}}); res.StatusCode != test.status || res.Header.Get("Refresh") != "" {
			t.Errorf("%q: %d", test.tenant, res.StatusCode)
		}
	}
}

func TestPartnerFilter(t *testing.T) {
	s, f := look(t, mandate.PartnerViewer)
	s.signIn()
	for _, query := range []string{"month=2026-13", "month=9999-01", "customer=contoso", "before=0", "before=x", "caller=a&caller=b", "caller=" + strings.Repeat("a", 201)} {
		if res := s.get("/partner?" + query); res.StatusCode != http.StatusBadRequest || strings.Contains(res.text, "invitation") {
			t.Errorf("%s: %d\n%s", query, res.StatusCode, res.text)
		}
	}
	if len(f.filters) != 0 {
		t.Error("a bad filter was used")
	}
	page := s.get("/partner?month=2025-02&caller=billing&before=9&customer=" + tenant.String())
	want := portal.Filter{Month: time.Date(2025, 2, 1, 0, 0, 0, 0, time.UTC), Caller: "billing", Customer: tenant.String(), Before: 9}
	if page.StatusCode != 200 || len(f.filters) != 1 || f.filters[0] != want {
		t.Errorf("%d, got %+v, want %+v", page.StatusCode, f.filters, want)
	}
	if !strings.Contains(page.text, "before=7&amp;caller=billing") || !strings.Contains(page.text, "Newest") {
		t.Error("the pages do not lead on")
	}
}
