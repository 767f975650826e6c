package portal_test

import (
	"errors"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/internal/portal"
)

// acts are what can be done with a grant: the page, the role that it needs,
// and the form that does it.
var acts = map[string]struct{ role, word string }{
	"/partner/renew":    {mandate.PartnerRenewer, "renew"},
	"/partner/withdraw": {mandate.PartnerWithdrawer, "withdraw"},
}

// confirm is the form of an act, as its page has it, with the name typed.
func (s *site) confirm(path, typed string) url.Values {
	s.t.Helper()
	form := url.Values{"confirm": {typed}}
	for _, m := range hidden.FindAllStringSubmatch(s.get(path).text, -1) {
		form.Set(m[1], m[2])
	}
	form.Del("end_sessions")
	return form
}

// did counts what was done.
func (f *fakePeople) did() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.renewed) + len(f.withdrawn)
}

// Who has the role, has signed in just now and types the partner's name does
// it; whoever lacks any of these does not, and reads why.
func TestActNeeds(t *testing.T) {
	for path, act := range acts {
		for _, tt := range []struct {
			name   string
			roles  []string
			change func(*fakePeople)
			typed  string
			status int
			says   string
		}{
			{"allowed", []string{act.role}, nil, "contoso", 200, ""},
			{"typed with blanks around", []string{act.role}, nil, " contoso\n", 200, ""},
			{"a viewer", []string{mandate.PartnerViewer}, nil, "contoso", 403, "You may look, and not " + act.word},
			{"the other role", []string{map[string]string{"renew": mandate.PartnerWithdrawer, "withdraw": mandate.PartnerRenewer}[act.word]}, nil, "contoso", 403, "You may look, and not " + act.word},
			{"an old sign-in", []string{act.role}, func(f *fakePeople) { f.age = 10 * time.Minute }, "contoso", 403, "Sign in once more"},
			{"a sign-in of no time", []string{act.role}, func(f *fakePeople) { f.age = -1 }, "contoso", 403, "did not say that you signed in just now"},
			{"nothing typed", []string{act.role}, nil, "", 400, "That is not “contoso”"},
			{"something else typed", []string{act.role}, nil, "Contoso CSP", 400, "That is not “contoso”"},
			{"withdrawn before", []string{act.role}, func(f *fakePeople) { f.state = mandate.StateWithdrawn }, "contoso", 409, "withdrawn already"},
			{"no consent", []string{act.role}, func(f *fakePeople) { f.state = "none" }, "contoso", 409, "has no consent"},
			{"a role that is not known", []string{act.role}, func(f *fakePeople) {
				f.unknown = &mandate.Refusal{Reason: mandate.ReasonRoleUnknown, Detail: "detail-for-the-operator"}
			}, "contoso", 403, "cannot see whether you still have access"},
			{"no role any more", []string{}, nil, "contoso", 403, "Sign in at Microsoft"},
		} {
			s, f := look(t, mandate.PartnerViewer, mandate.PartnerRenewer, mandate.PartnerWithdrawer)
			f.report.Local.Result = mandate.ResultDone
			if tt.change != nil && f.age == 0 {
				aged := fakePeople{}
				tt.change(&aged)
				f.age = aged.age
			}
			s.signIn()
			form := s.confirm(path, tt.typed)
			if !form.Has("until") {
				form.Set("until", time.Now().Add(time.Hour).UTC().Format(time.RFC3339))
			}
			f.roles = tt.roles
			if tt.change != nil {
				tt.change(f)
			}
			res := s.post(path, form)
			if res.StatusCode != tt.status || !strings.Contains(res.text, tt.says) {
				t.Errorf("%s, %s: got %d, want %d with %q\n%s", path, tt.name, res.StatusCode, tt.status, tt.says, res.text)
			}
			if done := f.did() == 1; done != (tt.status == 200) {
				t.Errorf("%s, %s: done %v", path, tt.name, done)
			}
			if renewals := len(s.asked) - 1; tt.status != 200 && renewals != 0 || strings.Contains(res.text, "detail-for-the-operator") {
				t.Errorf("%s, %s: Entra was asked, or too much was said\n%s", path, tt.name, res.text)
			}
			if tt.typed == "contoso" && tt.status != 200 {
				if page := s.get(path); strings.Contains(page.text, `name="confirm"`) || strings.Count(page.text, "</html>") != 1 {
					t.Errorf("%s, %s: the form is shown, or more than one page\n%s", path, tt.name, page.text)
				}
			}
		}
	}
}

// Whoever is asked again has chosen what they had chosen, and nothing is said
// of a consent that cannot be read.
func TestActAgain(t *testing.T) {
	s, f := look(t, mandate.PartnerRoles()...)
	s.signIn()
	for _, end := range []string{"", "yes"} {
		form := s.confirm("/partner/withdraw", "no")
		if end != "" {
			form.Set("end_sessions", end)
		}
		if res := s.post("/partner/withdraw", form); strings.Contains(res.text, " checked") != (end != "") {
			t.Errorf("to end sessions was chosen as %q, and is asked again with\n%s", end, res.text)
		}
	}
	f.unread = mandate.ErrUnavailable
	for path := range acts {
		for _, res := range []reply{s.get(path), s.post(path, url.Values{"confirm": {"contoso"}})} {
			if res.StatusCode != http.StatusServiceUnavailable || strings.Contains(res.text, "no consent") || f.did() != 0 {
				t.Errorf("%s, which cannot be read: %d\n%s", path, res.StatusCode, res.text)
			}
		}
	}
}

// A form from elsewhere, one with a field twice and one without a session do
// nothing.
func TestActForms(t *testing.T) {
	for path := range acts {
		s, f := look(t, mandate.PartnerRoles()...)
		f.report.Local.Result = mandate.ResultDone
		s.signIn()
		form := s.confirm(path, "contoso")
		for name, change := range map[string]func(*http.Request){
			"another site":         func(r *http.Request) { r.Header.Set("Sec-Fetch-Site", "cross-site") },
			"a sibling":            func(r *http.Request) { r.Header.Set("Sec-Fetch-Site", "same-site") },
			"another origin":       func(r *http.Request) { r.Header.Set("Origin", "https://evil.example") },
			"a frame of no origin": func(r *http.Request) { r.Header.Set("Origin", "null") },
		} {
			r := s.request("POST", path, form.Encode())
			change(r)
			if res := s.do(r); res.StatusCode != http.StatusForbidden || f.did() != 0 {
				t.Errorf("%s from %s: %d, done %d", path, name, res.StatusCode, f.did())
			}
		}
		twice := url.Values{"confirm": {"contoso", "contoso"}, "until": form["until"]}
		if res := s.post(path, twice); res.StatusCode != http.StatusBadRequest || f.did() != 0 {
			t.Errorf("%s with a field twice: %d", path, res.StatusCode)
		}
		if res := s.do(s.request("PUT", path, "")); res.StatusCode != http.StatusMethodNotAllowed || res.Header.Get("Allow") != "GET, POST" {
			t.Errorf("PUT %s: %d", path, res.StatusCode)
		}
		s.client.Jar = nil
		if res := s.post(path, form); res.StatusCode != http.StatusForbidden || f.did() != 0 {
			t.Errorf("%s without a session: %d", path, res.StatusCode)
		}
	}
}

// Somebody whose sign-in is too old comes back to where they were, with the
// account that they had; nothing in a request leads anywhere else.
func TestActSignInAgain(t *testing.T) {
	for path := range acts {
		s, f := look(t, mandate.PartnerRoles()...)
		f.age = time.Hour
		s.signIn()
		again := s.get(path)
		form := url.Values{}
		for _, m := range hidden.FindAllStringSubmatch(again.text, -1) {
			form.Set(m[1], m[2])
		}
		f.age = 0
		res := s.post("/partner/signin", form)
		if res.StatusCode != http.StatusOK || form.Get("to") != strings.TrimPrefix(path, "/partner/") || s.asked[len(s.asked)-1].LoginHint != "alice@contoso.example" {
			t.Fatalf("%s: signing in again: %d, %v, asked %+v", path, res.StatusCode, form, s.asked)
		}
		state := must(url.Parse(strings.TrimPrefix(res.Header.Get("Refresh"), "0;url="))).Query().Get("state")
		back := s.post(callback, url.Values{"state": {state}, "code": {goodCode}})
		if at := back.Header.Get("Location"); back.StatusCode != http.StatusSeeOther || at != path {
			t.Fatalf("%s: came back to %q", path, at)
		}
		if began := f.signed[len(f.signed)-1].Began; time.Since(began) > time.Minute || began.IsZero() {
			t.Errorf("%s: the sign-in began at %v", path, began)
		}
		if page := s.get(path); !strings.Contains(page.text, `name="confirm"`) {
			t.Errorf("%s: after signing in again:\n%s", path, page.text)
		}
		for _, to := range []string{"https://evil.example/", "//evil.example", "/partner/renew", "records"} {
			form.Set("to", to)
			if res := s.post("/partner/signin", form); res.StatusCode != http.StatusBadRequest || res.Header.Get("Refresh") != "" {
				t.Errorf("to %q: %d", to, res.StatusCode)
			}
		}
	}
}

// A renewal is a consent of the same user, for as long as the one before, and
// of no invitation.
func TestRenew(t *testing.T) {
	s, f := look(t, mandate.PartnerRenewer)
	s.signIn()
	page := s.get("/partner/renew")
	if !strings.Contains(page.text, "for <strong>90 days</strong>") || !strings.Contains(page.text, "Manage Azure as you &lt;can&gt;.") {
		t.Errorf("the page says\n%s", page.text)
	}
	form := s.confirm("/partner/renew", "contoso")
	long := url.Values{"confirm": {"contoso"}, "until": {time.Now().Add(f.lasts + 2*time.Hour).UTC().Format(time.RFC3339)}}
	if res := s.post("/partner/renew", long); res.StatusCode != http.StatusBadRequest || f.did() != 0 {
		t.Errorf("a longer term than before: %d", res.StatusCode)
	}
	res := s.post("/partner/renew", form)
	target, ok := strings.CutPrefix(res.Header.Get("Refresh"), "0;url=")
	if !ok || len(f.renewed) != 1 {
		t.Fatalf("%d, recorded %d\n%s", res.StatusCode, len(f.renewed), res.text)
	}
	if asked := s.asked[1]; asked.SignIn || asked.LoginHint != "alice@contoso.example" || asked.Tenant != tenant {
		t.Errorf("Entra was asked for %+v", asked)
	}
	answer := url.Values{"state": {must(url.Parse(target)).Query().Get("state")}, "code": {goodCode}}
	res = s.post(callback, answer)
	if len(s.broker.consents) != 1 || sessionOf(res) != nil {
		t.Fatalf("%d consents, session %v", len(s.broker.consents), sessionOf(res))
	}
	c := s.broker.consents[0]
	if !c.Renewal || c.User != object.String() || c.Partner.Key != contoso.Key || len(c.Audiences) != 3 || c.Until.After(time.Now().Add(f.lasts)) {
		t.Errorf("got %+v", c)
	}
	if receipt := s.get(res.Header.Get("Location")); receipt.StatusCode != http.StatusOK || !strings.Contains(receipt.text, "Consent stored and active") || strings.Contains(receipt.text, "by a new invitation") {
		t.Errorf("the receipt: %d\n%s", receipt.StatusCode, receipt.text)
	}
	if again := s.post(callback, answer); len(s.broker.consents) != 1 || again.StatusCode != http.StatusBadRequest {
		t.Errorf("the answer counted twice: %d", again.StatusCode)
	}
	// An invitation is no renewal.
	_, answer = s.begin()
	s.post(callback, answer)
	if c := s.broker.consents[1]; c.Renewal {
		t.Error("a consent by invitation is taken for a renewal")
	}
	// What cannot be recorded is not begun.
	f.actErr = mandate.ErrUnavailable
	n := len(s.asked)
	if res := s.post("/partner/renew", s.confirm("/partner/renew", "contoso")); res.StatusCode != http.StatusServiceUnavailable || len(s.asked) != n {
		t.Errorf("without a record: %d", res.StatusCode)
	}
}

// A page about a renewal sends nobody to an invitation that there never was.
func TestRenewalRefused(t *testing.T) {
	invitation := regexp.MustCompile(`(?i)your invitation|the invitation|invited account|somebody else’s invitation`)
	for _, reason := range reasons(t) {
		s, _ := look(t, mandate.PartnerRenewer)
		s.signIn()
		s.broker.err = &mandate.Refusal{Reason: reason, Audience: global.Audiences["graph"].Resource}
		res := s.post("/partner/renew", s.confirm("/partner/renew", "contoso"))
		state := must(url.Parse(strings.TrimPrefix(res.Header.Get("Refresh"), "0;url="))).Query().Get("state")
		res = s.post(callback, url.Values{"state": {state}, "code": {goodCode}})
		page := s.get(res.Header.Get("Location"))
		if reason == mandate.ReasonInvitation {
			continue // a renewal has none
		}
		if got := page.reason(); got != reason || invitation.MatchString(page.text) {
			t.Errorf("%s: %q in\n%s", reason, invitation.FindString(page.text), page.text)
		}
	}
}

// The report is told in plain words, and says "revoked" only after Microsoft
// refused the key.
func TestWithdraw(t *testing.T) {
	for _, tt := range []struct {
		name    string
		report  mandate.Withdrawal
		err     error
		end     bool
		status  int
		says    []string
		revoked bool
	}{
		{"not asked", mandate.Withdrawal{
			Local:    mandate.Line{Result: mandate.ResultDone, Text: "as recorded"},
			Upstream: mandate.Line{Result: mandate.ResultNotAsked, Until: time.Date(2027, 2, 1, 12, 0, 0, 0, time.UTC)},
			Tokens:   mandate.Line{Result: mandate.ResultNotPermitted, Until: time.Date(2027, 1, 1, 12, 0, 0, 0, time.UTC)}, Alive: 2,
			Copies: mandate.Line{Result: mandate.ResultNotPermitted, Until: time.Date(2027, 2, 1, 12, 0, 0, 0, time.UTC)},
			Record: mandate.Receipt{Index: 77, Hash: "cafe"},
		}, nil, false, 200, []string{"Withdrawn</p>", "It is destroyed", "as recorded", "Microsoft was told nothing", "until 1 February 2027, 12:00 UTC",
			"2 passes (access tokens) are still good until 1 January 2027", "gets no new pass for", "Enterprise applications", "Not asked for", "cafe"}, false},
		{"revoked", mandate.Withdrawal{
			Local: mandate.Line{Result: mandate.ResultDone}, Upstream: mandate.Line{Result: mandate.ResultDone}, Revoked: true,
			Tokens: mandate.Line{Result: mandate.ResultDone}, Copies: mandate.Line{Result: mandate.ResultDone},
		}, nil, true, 200, []string{"Withdrawn and revoked</p>", "Your consent is withdrawn and revoked</h1>", "refuses the key: it is revoked", "None is still good", "can do nothing more on behalf of", "worthless, because Microsoft refuses it"}, true},
		{"failed upstream", mandate.Withdrawal{
			Local: mandate.Line{Result: mandate.ResultDone}, Upstream: mandate.Line{Result: mandate.ResultFailed},
			Tokens: mandate.Line{Result: mandate.ResultFailed}, Copies: mandate.Line{Result: mandate.ResultNotPermitted},
		}, nil, true, 200, []string{"it is not certain that the key is refused", "How many are still good is not known", "is not known."}, false},
		{"not permitted", mandate.Withdrawal{
			Local: mandate.Line{Result: mandate.ResultDone}, Upstream: mandate.Line{Result: mandate.ResultNotPermitted},
			Tokens: mandate.Line{Result: mandate.ResultNotPermitted}, Alive: 1, Copies: mandate.Line{Result: mandate.ResultNotPermitted},
		}, nil, true, 200, []string{"does not let this site end the sessions", "One pass (an access token) is still good"}, false},
		{"the report is not recorded", mandate.Withdrawal{Local: mandate.Line{Result: mandate.ResultDone}}, errors.New("disk full"), false, 200, []string{"It is destroyed"}, false},
		{"nothing was done", mandate.Withdrawal{}, mandate.ErrUnavailable, false, 503, []string{"does nothing without them"}, false},
		{"somebody was first", mandate.Withdrawal{}, &mandate.NoGrantError{Generation: 1, State: mandate.StateWithdrawn}, false, 409, []string{"There is nothing to withdraw"}, false},
	} {
		s, f := look(t, mandate.PartnerWithdrawer)
		s.signIn()
		form := s.confirm("/partner/withdraw", "contoso")
		if tt.end {
			form.Set("end_sessions", "yes")
		}
		f.report, f.actErr = tt.report, tt.err
		res := s.post("/partner/withdraw", form)
		if res.StatusCode != tt.status || len(f.withdrawn) != 1 || f.withdrawn[0] != tt.end {
			t.Errorf("%s: %d, asked %v", tt.name, res.StatusCode, f.withdrawn)
		}
		for _, want := range tt.says {
			if !strings.Contains(res.text, want) {
				t.Errorf("%s: the page lacks %q\n%s", tt.name, want, res.text)
			}
		}
		if strings.Contains(res.text, "can do nothing more") && !strings.Contains(res.text, "None is still good") {
			t.Errorf("%s: promises too much while passes are good\n%s", tt.name, res.text)
		}
		if got := strings.Contains(res.text, "revoked"); got != tt.revoked {
			t.Errorf("%s: says revoked %v, want %v\n%s", tt.name, got, tt.revoked, res.text)
		}
	}
}

// The same button pressed twice withdraws once.
func TestWithdrawTwice(t *testing.T) {
	s, f := look(t, mandate.PartnerWithdrawer)
	f.report.Local.Result = mandate.ResultDone
	s.signIn()
	form := s.confirm("/partner/withdraw", "contoso")
	s.post("/partner/withdraw", form)
	f.state = mandate.StateWithdrawn
	if res := s.post("/partner/withdraw", form); res.StatusCode != http.StatusConflict || f.did() != 1 || !strings.Contains(res.text, "withdrawn already") {
		t.Errorf("the second time: %d, done %d times", res.StatusCode, f.did())
	}
}

// What somebody may do is what the page offers.
func TestPartnerPageOffers(t *testing.T) {
	for _, tt := range []struct {
		role            string
		state           mandate.State
		renew, withdraw bool
	}{
		{mandate.PartnerViewer, "", false, false},
		{mandate.PartnerRenewer, "", true, false},
		{mandate.PartnerWithdrawer, "", false, true},
		{mandate.PartnerWithdrawer, mandate.StateSuspended, false, true},
		{mandate.PartnerWithdrawer, mandate.StateWithdrawn, false, false},
		{mandate.PartnerRenewer, "none", false, false},
	} {
		s, f := look(t, tt.role)
		s.signIn()
		f.state = tt.state
		page := s.get("/partner").text
		if renew, withdraw := strings.Contains(page, `href="/partner/renew"`), strings.Contains(page, `href="/partner/withdraw"`); renew != tt.renew || withdraw != tt.withdraw {
			t.Errorf("%s, %s: offers renewing %v and withdrawing %v", tt.role, tt.state, renew, withdraw)
		}
	}
}

func TestPartnerUsage(t *testing.T) {
	s, f := look(t, mandate.PartnerViewer)
	if res := s.get("/partner/usage"); len(f.usages) != 0 || !strings.Contains(res.text, "Sign in at Microsoft") {
		t.Error("shown without a session")
	}
	s.signIn()
	page := s.get("/partner/usage")
	for _, want := range []string{"last <strong>90 days</strong>", "One permission was not used", "Used 1\u202f234 times", "Never used", "See users, groups", "Not used", "May have been needed", "Adatum &lt;Ltd&gt;: used 1\u202f233 times", "your own tenant: used once"} {
		if !strings.Contains(page.text, want) {
			t.Errorf("the page lacks %q\n%s", want, page.text)
		}
	}
	one := s.get("/partner/usage?days=30&customer=" + adatum.String())
	if one.StatusCode != 200 || !strings.Contains(one.text, "for <strong>Adatum &lt;Ltd&gt;</strong>") || f.usages[len(f.usages)-1] != tenant.String()+" 30 "+adatum.String() {
		t.Errorf("%d, asked %q", one.StatusCode, f.usages)
	}
	for _, query := range []string{"days=31", "days=x", "customer=adatum", "days=30&days=90"} {
		if res := s.get("/partner/usage?" + query); res.StatusCode != http.StatusBadRequest {
			t.Errorf("%s: %d", query, res.StatusCode)
		}
	}
	f.state = "none"
	if res := s.get("/partner/usage"); res.StatusCode != 200 || !strings.Contains(res.text, "nothing to compare") {
		t.Errorf("without a consent: %d", res.StatusCode)
	}
}

// Nothing is shown of which it is not known whether the person may see it.
func TestPartnerRoleUnknown(t *testing.T) {
	s, f := look(t, mandate.PartnerViewer)
	s.signIn()
	f.unknown = &mandate.Refusal{Reason: mandate.ReasonRoleUnknown, Detail: "detail-for-the-operator"}
	for _, path := range []string{"/partner", "/partner/usage", "/partner/records.jsonl", "/partner/renew", "/partner/withdraw"} {
		res := s.get(path)
		if res.StatusCode != http.StatusForbidden || !strings.Contains(res.text, "could not be asked of Microsoft") || strings.Contains(res.text, "detail-for-the-operator") || strings.Contains(res.text, "invoices") {
			t.Errorf("%s: %d\n%s", path, res.StatusCode, res.text)
		}
	}
	var _ portal.Grants = f
}
