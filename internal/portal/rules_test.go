package portal_test

import (
	"log/slog"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/internal/portal"
	"github.com/mandate-sam/mandate/internal/web"
)

var quiet = slog.New(slog.DiscardHandler)

func TestCrossOrigin(t *testing.T) {
	for _, tt := range []struct {
		path, site, origin string
		status             int // 403, or anything else for "let through"
	}{
		{"/consent", "same-origin", "", 200},
		{"/consent", "none", "", 200},
		{"/consent", "", "", 200}, // no browser
		{"/consent", "same-origin", "null", 200},
		{"/consent", "cross-site", "https://evil.example", 403},
		{"/consent", "same-site", "https://other.example.test", 403},
		{"/consent", "", "https://evil.example", 403},
		{"/consent", "", "null", 403},
		{callback, "cross-site", global.Authority, 400},
		{callback, "", global.Authority, 400},
		{callback + "/", "cross-site", "https://evil.example", 403},
		{"/consent/callback/china", "cross-site", "https://evil.example", 403},
		{"/consent/callback", "cross-site", "https://evil.example", 403},
		{"//consent/callback/global", "cross-site", "https://evil.example", 403},
		{"/i/" + goodToken, "cross-site", "https://evil.example", 403},
		{"/", "cross-site", "https://evil.example", 403},
	} {
		s := open(t)
		r := s.request("POST", tt.path, s.form().Encode())
		for k, v := range map[string]string{"Sec-Fetch-Site": tt.site, "Origin": tt.origin} {
			if v != "" {
				r.Header.Set(k, v)
			}
		}
		if res := s.do(r); res.StatusCode != tt.status {
			t.Errorf("POST %s from %q %q: got %d, want %d\n%s", tt.path, tt.site, tt.origin, res.StatusCode, tt.status, res.text)
		}
	}
	for _, method := range []string{"PUT", "DELETE", "PATCH"} {
		s := open(t)
		r := s.request(method, callback, "")
		r.Header.Set("Sec-Fetch-Site", "cross-site")
		if res := s.do(r); res.StatusCode != 403 {
			t.Errorf("%s %s: got %d, want 403", method, callback, res.StatusCode)
		}
	}
}

func TestMethods(t *testing.T) {
	s := open(t)
	for _, tt := range []struct {
		method, path string
		status       int
		allow        string
	}{
		{"GET", callback, 405, "POST"}, {"HEAD", callback, 405, "POST"}, {"PUT", callback, 405, "POST"},
		{"GET", "/consent", 405, "POST"}, {"POST", "/i/" + goodToken, 405, "GET"}, {"POST", "/", 405, "GET"},
		{"GET", "/nowhere", 404, ""}, {"POST", "/nowhere", 404, ""}, {"GET", "/consent/callback/china", 404, ""},
		{"GET", "/", 200, ""}, {"GET", "/healthz", 200, ""}, {"GET", "/robots.txt", 200, ""}, {"GET", "/favicon.ico", 302, ""},
	} {
		res := s.do(s.request(tt.method, tt.path, ""))
		if res.StatusCode != tt.status || res.Header.Get("Allow") != tt.allow {
			t.Errorf("%s %s: got %d, Allow %q; want %d, %q", tt.method, tt.path, res.StatusCode, res.Header.Get("Allow"), tt.status, tt.allow)
		}
	}
	if s.store.changes != 0 {
		t.Errorf("%d changes by wrong methods", s.store.changes)
	}
}

func TestHeadersOnEveryAnswer(t *testing.T) {
	s := open(t)
	id, form := s.begin()
	replies := map[string]reply{
		"front": s.get("/"), "invitation": s.get("/i/" + goodToken), "unknown": s.get("/i/unknown-token"), "404": s.get("/x"),
		"405": s.get(callback), "begin": s.post("/consent", s.form()), "bad form": s.post("/consent", nil),
		"callback": s.post(callback, form), "replay": s.post(callback, form), "result": s.get("/consent/" + id), "healthz": s.get("/healthz"),
	}
	for name, res := range replies {
		for header, want := range map[string]string{
			"Content-Security-Policy":      "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
			"Referrer-Policy":              "no-referrer",
			"X-Content-Type-Options":       "nosniff",
			"Strict-Transport-Security":    "max-age=63072000",
			"Cache-Control":                "no-store",
			"Cross-Origin-Opener-Policy":   "same-origin",
			"Cross-Origin-Resource-Policy": "same-origin",
			"X-Frame-Options":              "DENY",
			"X-Robots-Tag":                 "noindex, nofollow",
		} {
			if got := res.Header.Get(header); got != want {
				t.Errorf("%s: %s is %q, want %q", name, header, got, want)
			}
		}
		if res.Header.Get("X-Request-Id") == "" {
			t.Errorf("%s: no request id", name)
		}
	}
}

func TestRedirectURIComesFromConfigurationAlone(t *testing.T) {
	s := open(t)
	r := s.request("POST", "/consent", s.form().Encode())
	r.Host = "evil.example"
	for k, v := range map[string]string{
		"X-Forwarded-Host": "evil.example", "X-Forwarded-Proto": "http", "Forwarded": "host=evil.example;proto=http",
		"X-Original-Host": "evil.example", "X-Forwarded-Prefix": "/evil", "Origin": "", "Referer": "https://evil.example/",
	} {
		r.Header.Set(k, v)
	}
	if res := s.do(r); res.StatusCode != 200 {
		t.Fatalf("got %d\n%s", res.StatusCode, res.text)
	}
	if got, want := s.asked[0].RedirectURI, origin+callback; got != want {
		t.Errorf("got redirect URI %q, want %q", got, want)
	}
}

func TestAuthorizeURLMustBeAtTheAuthority(t *testing.T) {
	for _, target := range []string{"https://evil.example/", global.Authority + ".evil.example/x", "http://login.microsoftonline.com/", "/relative"} {
		s := open(t, func(c *portal.Config) {
			c.Authorize = func(portal.AuthorizeRequest) (string, error) { return target, nil }
		})
		res := s.post("/consent", s.form())
		if res.StatusCode != 500 || res.Header.Get("Refresh") != "" || len(res.Cookies()) != 0 {
			t.Errorf("%s: got %d to %q", target, res.StatusCode, res.Header.Get("Refresh"))
		}
	}
}

func TestRateLimit(t *testing.T) {
	limited := func(c *portal.Config) {
		c.Limit = web.Limit{Every: time.Hour, Burst: 3}
		c.TrustedProxies = web.Proxies{netip.MustParsePrefix("127.0.0.0/8")}
	}
	for _, tt := range []struct{ method, path string }{
		{"GET", "/i/unknown-token"}, {"POST", "/consent"}, {"POST", callback}, {"GET", "/consent/abcdefgh"},
	} {
		s := open(t, limited)
		var last reply
		for i := range 4 {
			r := s.request(tt.method, tt.path, "")
			r.Header.Set("X-Forwarded-For", "10.9.8."+strconv.Itoa(i)+", 198.51.100.7") // the left is made up
			last = s.do(r)
			if i < 3 && last.StatusCode == 429 {
				t.Fatalf("%s %s: limited at request %d", tt.method, tt.path, i+1)
			}
		}
		if last.StatusCode != 429 || last.Header.Get("Retry-After") == "" || !strings.Contains(last.text, "Too many requests") {
			t.Errorf("%s %s: got %d, Retry-After %q, want 429 with a page", tt.method, tt.path, last.StatusCode, last.Header.Get("Retry-After"))
		}
		r := s.request(tt.method, tt.path, "")
		r.Header.Set("X-Forwarded-For", "198.51.100.8")
		if res := s.do(r); res.StatusCode == 429 {
			t.Errorf("%s %s: another address is limited too", tt.method, tt.path)
		}
		if res := s.get("/"); res.StatusCode != 200 {
			t.Errorf("the front page is limited: %d", res.StatusCode)
		}
	}
}

func TestTooManyPending(t *testing.T) {
	s := open(t)
	form := s.form()
	s.store.begin = mandate.ErrRateLimited
	if res := s.post("/consent", form); res.StatusCode != 429 || len(res.Cookies()) != 0 {
		t.Errorf("got %d, cookies %v; want 429 and none", res.StatusCode, res.Cookies())
	}
}

func TestNewRefuses(t *testing.T) {
	for name, change := range map[string]func(*portal.Config){
		"http":                 func(c *portal.Config) { c.PublicURL = "http://consent.example.test" },
		"path":                 func(c *portal.Config) { c.PublicURL = origin + "/" },
		"query":                func(c *portal.Config) { c.PublicURL = origin + "?x" },
		"user":                 func(c *portal.Config) { c.PublicURL = "https://u@consent.example.test" },
		"empty":                func(c *portal.Config) { c.PublicURL = "" },
		"no application":       func(c *portal.Config) { c.Applications = nil },
		"application twice":    func(c *portal.Config) { c.Applications = append(c.Applications, c.Applications[0]) },
		"no publisher":         func(c *portal.Config) { c.Applications[0].Publisher = "" },
		"no graph":             func(c *portal.Config) { c.Applications[0].Audiences = c.Applications[0].Audiences[2:] },
		"unexplained":          func(c *portal.Config) { c.Applications[0].Permissions[1].Scope = "Novel.Scope" },
		"unknown API":          func(c *portal.Config) { c.Applications[0].Permissions[1].API = "novel" },
		"audience unexplained": func(c *portal.Config) { c.Applications[0].Permissions = c.Applications[0].Permissions[:3] },
		"cloud's name":         func(c *portal.Config) { c.Applications[0].Cloud.Name = "a/b" },
		"cloud":                func(c *portal.Config) { c.Applications[0].Cloud.Authority = "http://x" },
		"one name, two clouds": func(c *portal.Config) {
			other := application(mandate.Clouds()["china"])
			other.Cloud.Name = "global"
			c.Applications = append(c.Applications, other)
		},
		"no broker":    func(c *portal.Config) { c.Consenter = nil },
		"no store":     func(c *portal.Config) { c.Outcomes = nil },
		"no log":       func(c *portal.Config) { c.Log = nil },
		"no authorize": func(c *portal.Config) { c.Authorize = nil },
	} {
		s := &fakeStore{}
		cfg := portal.Config{
			PublicURL: origin, Applications: []portal.Application{application(global)}, Invitations: s, Transactions: s, Outcomes: s,
			Consenter: &fakeBroker{}, Log: quiet,
			Authorize: func(portal.AuthorizeRequest) (string, error) { return "", nil },
			Callback:  func(string, string) *mandate.Refusal { return nil },
		}
		if _, err := portal.New(cfg); err != nil {
			t.Fatalf("the good configuration: %v", err)
		}
		change(&cfg)
		if _, err := portal.New(cfg); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestBeginRefusesBadForms(t *testing.T) {
	for name, change := range map[string]func(*site, *http.Request, func(k string, v ...string)){
		"no until":        func(_ *site, _ *http.Request, set func(string, ...string)) { set("until") },
		"until malformed": func(_ *site, _ *http.Request, set func(string, ...string)) { set("until", "tomorrow") },
		"until past": func(_ *site, _ *http.Request, set func(string, ...string)) {
			set("until", time.Now().Add(-time.Hour).Format(time.RFC3339))
		},
		"until beyond the term": func(_ *site, _ *http.Request, set func(string, ...string)) {
			set("until", time.Now().Add(91*24*time.Hour).Format(time.RFC3339))
		},
		"until twice":      func(_ *site, _ *http.Request, set func(string, ...string)) { set("until", "a", "b") },
		"invitation twice": func(_ *site, _ *http.Request, set func(string, ...string)) { set("invitation", goodToken, goodToken) },
	} {
		s := open(t)
		form := s.form()
		change(s, nil, func(k string, v ...string) { form[k] = v })
		res := s.post("/consent", form)
		if res.StatusCode != 400 || s.store.changes != 0 || len(res.Cookies()) != 0 {
			t.Errorf("%s: got %d, %d changes, cookies %v; want 400 and none", name, res.StatusCode, s.store.changes, res.Cookies())
		}
	}
}
