package portal_test

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/internal/portal"
)

const callback = "/consent/callback/global"

// An answer is one POST to the callback, to be spoiled by a row of the table.
type answer struct {
	*site
	id     string
	form   url.Values
	cookie []string // Cookie header lines; the browser's own are not sent
	path   string
	raw    string // instead of form
}

func (a *answer) request() *http.Request {
	body := a.form.Encode()
	if a.raw != "" {
		body = a.raw
	}
	r := a.site.request("POST", a.path, body)
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.Header.Set("Sec-Fetch-Site", "cross-site")
	r.Header.Set("Origin", global.Authority)
	for _, c := range a.cookie {
		r.Header.Add("Cookie", c)
	}
	return r
}

func (a *answer) name() string { return "__Host-tx-" + a.id }

// spoil returns a change of one form field.
func spoil(field string, values ...string) func(*answer) {
	return func(a *answer) {
		a.form.Del(field)
		if values != nil {
			a.form[field] = values
		}
	}
}

// TestCallback changes one thing of a good answer at a time. Where lax is
// set, the store accepts everything: the portal's own checks stand alone.
func TestCallback(t *testing.T) {
	for _, tt := range []struct {
		name     string
		lax      bool
		change   func(*answer)
		status   int
		reason   mandate.Reason // "" is a receipt
		consents int
	}{
		{"all right", false, func(*answer) {}, 303, "", 1},

		{"cookie missing", true, func(a *answer) { a.cookie = nil }, 400, mandate.ReasonTransaction, 0},
		{"cookie empty", true, func(a *answer) { a.cookie = []string{a.name() + "="} }, 400, mandate.ReasonTransaction, 0},
		{"cookie empty and state that goes with it", true, func(a *answer) {
			a.cookie = []string{a.name() + "="}
			a.form.Set("state", a.id+"."+derive(a.id, "").State.Reveal())
		}, 400, mandate.ReasonTransaction, 0},
		{"cookie missing and state that goes with none", true, func(a *answer) {
			a.cookie = nil
			a.form.Set("state", a.id+"."+derive(a.id, "").State.Reveal())
		}, 400, mandate.ReasonTransaction, 0},
		{"cookie wrong", true, func(a *answer) { a.cookie = []string{a.name() + "=wrong"} }, 400, mandate.ReasonTransaction, 0},
		{"cookie and state wrong together", false, func(a *answer) {
			a.cookie = []string{a.name() + "=wrong"}
			a.form.Set("state", a.id+"."+derive(a.id, "wrong").State.Reveal())
		}, 400, mandate.ReasonTransaction, 0},
		{"cookie of another sign-in", true, func(a *answer) {
			other, _ := a.begin()
			a.cookie = []string{a.name() + "=" + a.store.signIns[other].cookie}
		}, 400, mandate.ReasonTransaction, 0},
		{"cookie expired", false, func(a *answer) { a.store.signIns[a.id].began = time.Now().Add(-11 * time.Minute) }, 400, mandate.ReasonTransaction, 0},
		{"cookie replayed", false, func(a *answer) { a.do(a.request()) }, 400, mandate.ReasonTransaction, 1},
		{"cookie duplicated", true, func(a *answer) { a.cookie = append(a.cookie, a.name()+"=other") }, 400, mandate.ReasonTransaction, 0},
		{"cookie duplicated the other way", true, func(a *answer) { a.cookie = append([]string{a.name() + "=other"}, a.cookie...) }, 400, mandate.ReasonTransaction, 0},

		{"state missing", true, spoil("state"), 400, mandate.ReasonTransaction, 0},
		{"state empty", true, spoil("state", ""), 400, mandate.ReasonTransaction, 0},
		{"state wrong", true, func(a *answer) { a.form.Set("state", a.id+".wrong") }, 400, mandate.ReasonTransaction, 0},
		{"state without value", true, func(a *answer) { a.form.Set("state", a.id+".") }, 400, mandate.ReasonTransaction, 0},
		{"state without value, and none derived", true, func(a *answer) { a.store.blank = true; a.form.Set("state", a.id+".") }, 400, mandate.ReasonTransaction, 0},
		{"state with a short id", true, func(a *answer) {
			a.cookie = []string{"__Host-tx-a=x"}
			a.form.Set("state", "a."+derive("a", "x").State.Reveal())
		}, 400, mandate.ReasonTransaction, 0},
		{"state without point", true, func(a *answer) { a.form.Set("state", a.id) }, 400, mandate.ReasonTransaction, 0},
		{"state without id", true, func(a *answer) { a.form.Set("state", ".x"); a.cookie = []string{"__Host-tx-=x"} }, 400, mandate.ReasonTransaction, 0},
		{"state with a strange id", true, func(a *answer) { a.form.Set("state", "a b;c="+a.form.Get("state")) }, 400, mandate.ReasonTransaction, 0},
		{"state of another browser", true, func(a *answer) {
			_, other := a.begin()
			a.form.Set("state", other.Get("state"))
		}, 400, mandate.ReasonTransaction, 0},
		{"state replayed with a new code", false, func(a *answer) { a.do(a.request()); a.form.Set("code", "new") }, 400, mandate.ReasonTransaction, 1},
		{"state duplicated", true, func(a *answer) { a.form.Add("state", a.form.Get("state")) }, 400, mandate.ReasonUnacceptable, 0},
		{"state in the query", true, func(a *answer) { a.path += "?state=" + a.form.Get("state"); a.form.Del("state") }, 400, mandate.ReasonUnacceptable, 0},
		{"code in the query", true, func(a *answer) { a.path += "?code=" + goodCode; a.form.Del("code") }, 400, mandate.ReasonUnacceptable, 0},

		{"code missing", false, spoil("code"), 303, mandate.ReasonEntra, 0},
		{"code empty", false, spoil("code", ""), 303, mandate.ReasonEntra, 0},
		{"code wrong, expired or replayed at Entra", false, spoil("code", "wrong"), 303, mandate.ReasonToken, 1},
		{"code duplicated", false, spoil("code", goodCode, goodCode), 303, mandate.ReasonUnacceptable, 0},
		{"unknown field duplicated", false, spoil("session_state", "x", "y"), 303, mandate.ReasonUnacceptable, 0},

		{"nonce in the form", false, spoil("nonce", "evil"), 303, "", 1},
		{"nonce duplicated", false, spoil("nonce", "evil", "evil"), 303, mandate.ReasonUnacceptable, 0},

		{"declined", false, func(a *answer) { a.form.Del("code"); a.form.Set("error", "access_denied") }, 303, mandate.ReasonDeclined, 0},
		{"unknown error", false, func(a *answer) { a.form.Del("code"); a.form.Set("error", "novel") }, 303, mandate.ReasonEntra, 0},
		{"error replayed", false, func(a *answer) { a.form.Del("code"); a.form.Set("error", "access_denied"); a.do(a.request()) }, 400, mandate.ReasonTransaction, 0},
		{"error after which a code comes", false, func(a *answer) {
			code := a.form.Get("code")
			a.form.Del("code")
			a.form.Set("error", "access_denied")
			a.do(a.request())
			a.form = url.Values{"state": a.form["state"], "code": {code}}
		}, 400, mandate.ReasonTransaction, 0},
		{"error empty", false, func(a *answer) { a.form.Del("code"); a.form.Set("error", "") }, 303, mandate.ReasonUnacceptable, 0},
		{"error empty beside a code", false, spoil("error", ""), 303, mandate.ReasonUnacceptable, 0},
		{"error beside a code", false, spoil("error", "access_denied"), 303, mandate.ReasonUnacceptable, 0},
		{"error duplicated", false, func(a *answer) { a.form.Del("code"); a.form["error"] = []string{"access_denied", "x"} }, 303, mandate.ReasonUnacceptable, 0},
		{"error without state", true, func(a *answer) { a.form = url.Values{"error": {"access_denied"}} }, 400, mandate.ReasonTransaction, 0},

		{"id_token", false, spoil("id_token", "e30.e30."), 303, mandate.ReasonUnacceptable, 0},
		{"id_token empty", false, spoil("id_token", ""), 303, mandate.ReasonUnacceptable, 0},
		{"access_token", false, spoil("access_token", "x"), 303, mandate.ReasonUnacceptable, 0},

		{"form malformed", true, func(a *answer) { a.raw = a.form.Encode() + "&%zz" }, 400, mandate.ReasonUnacceptable, 0},
		{"form too long", true, func(a *answer) { a.form.Set("code", strings.Repeat("x", 70<<10)) }, 400, mandate.ReasonUnacceptable, 0},
		{"form empty", true, func(a *answer) { a.form = url.Values{} }, 400, mandate.ReasonTransaction, 0},
		{"begun at another authority", false, func(a *answer) { a.store.signIns[a.id].Authority = "https://login.old.example" }, 303, mandate.ReasonTransaction, 0},
		{"begun with another redirect URI", false, func(a *answer) { a.store.signIns[a.id].RedirectURI = "https://old.example.test" + callback }, 303, mandate.ReasonTransaction, 0},
		{"another cloud's callback", false, func(a *answer) { a.path = "/consent/callback/china" }, 303, mandate.ReasonTransaction, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := open(t, withChina)
			id, form := s.begin()
			a := &answer{site: s, id: id, form: form, path: callback}
			a.cookie = []string{a.name() + "=" + s.store.signIns[id].cookie}
			s.client.Jar = nil
			s.store.lax = tt.lax
			s.broker.before = func(context.Context) {
				if !s.store.signIns[id].used {
					t.Error("the code was redeemed before the sign-in was consumed")
				}
			}
			tt.change(a)

			res := s.do(a.request())
			if res.StatusCode != tt.status {
				t.Fatalf("got status %d, want %d\n%s", res.StatusCode, tt.status, res.text)
			}
			if got := len(s.broker.consents); got != tt.consents {
				t.Errorf("Consent was called %d times, want %d", got, tt.consents)
			}
			if len(s.store.strange) > 0 {
				t.Errorf("the store was asked for %q", s.store.strange)
			}
			if slices.Contains(s.store.lookups, "") {
				t.Error("a proof was derived from an empty cookie")
			}
			if res.StatusCode == http.StatusSeeOther {
				if got, want := res.Header.Get("Location"), "/consent/"+id; got != want {
					t.Fatalf("got redirect to %q, want %q", got, want)
				}
				r := s.request("GET", "/consent/"+id, "")
				r.Header.Set("Cookie", a.cookie[0])
				res = s.do(r)
			}
			if got := res.reason(); got != tt.reason {
				t.Errorf("got reason %q, want %q\n%s", got, tt.reason, res.text)
			}
			if tt.reason == "" && !strings.Contains(res.text, "Consent stored and active") {
				t.Errorf("no receipt:\n%s", res.text)
			}
			if refusedHere := tt.status == 303 && tt.reason != "" && tt.consents == 0; refusedHere && !slices.Equal(s.broker.refusals, []mandate.Reason{tt.reason}) {
				t.Errorf("recorded refusals %q, want one of %q", s.broker.refusals, tt.reason)
			}
			if tt.lax && s.store.changes > 2 { // two sign-ins begun at most
				t.Errorf("a refused answer changed something: %d calls", s.store.changes)
			}
		})
	}
}

func withChina(c *portal.Config) {
	c.Applications = append(c.Applications, application(mandate.Clouds()["china"]))
}

func TestCallbackContentTypes(t *testing.T) {
	for _, media := range []string{"", "text/plain", "application/json", "multipart/form-data; boundary=x", "application/x-www-form-urlencoded; charset=utf-7"} {
		s := open(t)
		_, form := s.begin()
		r := s.request("POST", callback, form.Encode())
		r.Header.Set("Content-Type", media)
		res := s.do(r)
		if res.StatusCode != 400 || res.reason() != mandate.ReasonUnacceptable || len(s.broker.consents) != 0 {
			t.Errorf("%q: got %d %q and %d consents, want 400 %q and none", media, res.StatusCode, res.reason(), len(s.broker.consents), mandate.ReasonUnacceptable)
		}
	}
}

// What Consent gets is what the sign-in began with, and nothing of the form
// but the code.
func TestConsentGetsWhatBegan(t *testing.T) {
	s := open(t)
	page := s.form()
	id, form := s.begin()
	form.Set("nonce", "evil")
	form.Set("until", "2099-01-01T00:00:00Z")
	s.post(callback, form)
	if len(s.broker.consents) != 1 {
		t.Fatalf("got %d consents, want 1", len(s.broker.consents))
	}
	c, proof, asked := s.broker.consents[0], derive(id, s.store.signIns[id].cookie), s.asked[0]
	for _, got := range []struct{ what, got, want string }{
		{"nonce", c.Nonce, proof.Nonce},
		{"nonce at Entra", asked.Nonce, proof.Nonce},
		{"verifier", c.Verifier.Reveal(), proof.Verifier.Reveal()},
		{"challenge", asked.Challenge, challenge(proof.Verifier.Reveal())},
		{"state at Entra", asked.State, id + "." + proof.State.Reveal()},
		{"code", c.Code.Reveal(), goodCode},
		{"redirect URI", c.RedirectURI, origin + callback},
		{"redirect URI at Entra", asked.RedirectURI, origin + callback},
		{"tenant", asked.Tenant.String(), tenant.String()},
		{"login hint", asked.LoginHint, "alice@contoso.example"},
		{"user", c.User, "alice@contoso.example"},
		{"until", c.Until.Format(time.RFC3339), page.Get("until")},
		{"partner", c.Partner.Name, "contoso"},
		{"address", c.Address, "127.0.0.1"},
		{"audiences", join(c.Audiences), "https://api.partnercenter.microsoft.com https://graph.microsoft.com https://management.azure.com"},
	} {
		if got.got != got.want {
			t.Errorf("%s: got %q, want %q", got.what, got.got, got.want)
		}
	}
	if c.Began.IsZero() {
		t.Error("no time of beginning")
	}
}

// One answer that arrives many times at once makes one grant.
func TestCallbackOnce(t *testing.T) {
	s := open(t)
	_, form := s.begin()
	var wg sync.WaitGroup
	var mu sync.Mutex
	statuses := map[int]int{}
	for range 20 {
		wg.Go(func() {
			res, err := s.client.PostForm(s.server.URL+callback, form)
			if err != nil {
				t.Error(err)
				return
			}
			res.Body.Close()
			mu.Lock()
			statuses[res.StatusCode]++
			mu.Unlock()
		})
	}
	wg.Wait()
	if len(s.broker.consents) != 1 || statuses[303] != 1 || statuses[400] != 19 {
		t.Errorf("got %d consents and statuses %v, want 1, one 303 and 19 times 400", len(s.broker.consents), statuses)
	}
}

// A browser that hangs up while its code is redeemed leaves a grant that was
// stored, and not one that was half made.
func TestBrowserHangsUp(t *testing.T) {
	s := open(t)
	id, form := s.begin()
	ctx, hangUp := context.WithCancel(t.Context())
	done := make(chan error)
	s.broker.before = func(c context.Context) {
		hangUp()
		select {
		case <-c.Done():
			done <- c.Err()
		case <-time.After(100 * time.Millisecond):
			done <- nil
		}
	}
	r := s.request("POST", callback, form.Encode()).WithContext(ctx)
	go func() {
		if res, err := s.client.Do(r); err == nil {
			res.Body.Close()
		}
	}()
	if err := <-done; err != nil {
		t.Errorf("Consent was cut off: %v", err)
	}
	for range 100 {
		if res := s.get("/consent/" + id); res.StatusCode == 200 {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Error("no result")
}

// Whatever goes wrong behind the portal, the partner gets a page, the log gets
// it once, and nobody gets a secret.
func TestCallbackFaults(t *testing.T) {
	broken := errors.New("disk-on-fire")
	for _, tt := range []struct {
		name   string
		dial   func(*site)
		status int
		text   string
		logged int // lines at level ERROR
	}{
		{"error of no kind", func(s *site) { s.broker.err = broken }, 303, "could not finish", 1},
		{"refusal that could not be recorded", func(s *site) {
			s.broker.err = errors.Join(&mandate.Refusal{Reason: mandate.ReasonMFA}, broken)
		}, 303, "Multi-factor authentication was not proven", 1},
		{"record broken", func(s *site) { s.broker.broken = broken }, 303, "", 0},
		{"outcome not stored", func(s *site) { s.store.finish = broken }, 200, "Consent stored and active", 1},
		{"store down", func(s *site) { s.store.err = broken }, 500, "Something went wrong on this site", 1},
		{"store unavailable", func(s *site) { s.store.err = mandate.ErrUnavailable }, 503, "Not available at the moment", 1},
		{"panic", func(s *site) { s.broker.panics = true }, 500, "Something went wrong on this site", 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := open(t)
			id, form := s.begin()
			tt.dial(s)
			res := s.post(callback, form)
			if res.StatusCode != tt.status {
				t.Fatalf("got %d, want %d\n%s", res.StatusCode, tt.status, res.text)
			}
			if tt.status == 303 {
				s.store.err = nil
				res = s.get("/consent/" + id)
			}
			if !strings.Contains(res.text, tt.text) || strings.Contains(res.text, "disk-on-fire") {
				t.Errorf("page should have %q and not the error:\n%s", tt.text, res.text)
			}
			if got := strings.Count(s.log.String(), "level=ERROR"); got != tt.logged {
				t.Errorf("got %d errors in the log, want %d:\n%s", got, tt.logged, s.log)
			}
			for _, secret := range []string{canary, goodCode, goodToken, s.store.signIns[id].cookie, form.Get("state")} {
				if strings.Contains(s.log.String(), secret) || strings.Contains(res.text, secret) {
					t.Errorf("%q is in the log or on the page", secret)
				}
			}
		})
	}
}

// A declined consent is a refusal even if the record is broken.
func TestRefusalNotRecorded(t *testing.T) {
	s := open(t)
	s.broker.broken = mandate.ErrUnavailable
	id, form := s.begin()
	form.Del("code")
	form.Set("error", "access_denied")
	s.post(callback, form)
	if got := s.get("/consent/" + id).reason(); got != mandate.ReasonDeclined {
		t.Errorf("got %q, want %q", got, mandate.ReasonDeclined)
	}
	if !strings.Contains(s.log.String(), "level=ERROR") {
		t.Error("nobody learns that the record is broken")
	}
}

// The words STATE and COOKIE in the corpus stand for those of a sign-in that
// has begun.
func FuzzCallback(f *testing.F) {
	s := open(f)
	id, form := s.begin()
	cookie, state := s.store.signIns[id].cookie, form.Get("state")
	s.client.Jar = nil
	s.store.lax = true
	f.Add("state=STATE&code="+goodCode, "COOKIE")
	f.Add("state=STATE&code=a&code=b", "COOKIE")
	f.Add("state=STATE&error=access_denied&error_description=x", "COOKIE")
	f.Add("state=STATE&id_token=x&code=y", "COOKIE")
	f.Add("state=STATE&code=x", "")
	f.Add("state=a&state=b", "x")
	f.Add("%zz&;", "\x00")
	f.Fuzz(func(t *testing.T, body, value string) {
		s.t = t
		before := len(s.broker.consents)
		body, value = strings.ReplaceAll(body, "STATE", state), strings.ReplaceAll(value, "COOKIE", cookie)
		r := s.request("POST", callback, body)
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.AddCookie(&http.Cookie{Name: "__Host-tx-" + id, Value: value})
		res := s.do(r)
		if res.StatusCode != 303 && res.StatusCode != 400 {
			t.Errorf("%q: status %d\n%s", body, res.StatusCode, res.text)
		}
		sent, err := url.ParseQuery(body)
		right := err == nil && len(sent["state"]) == 1 && sent.Get("state") == state && len(sent["code"]) == 1 && sent.Get("code") != ""
		if len(s.broker.consents) > before && !(right && strings.Contains(r.Header.Get("Cookie"), cookie)) {
			t.Errorf("%q with cookie %q reached Consent", body, value)
		}
	})
}
