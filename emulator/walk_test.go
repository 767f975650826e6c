package emulator_test

import (
	"encoding/base64"
	"encoding/json"
	"html"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"github.com/mandate-sam/mandate/emulator"
)

const redirect = "https://127.0.0.1:8443/callback"

// start starts an emulator that ends with the test.
func start(t *testing.T) *emulator.Emulator {
	t.Helper()
	e, err := emulator.Open(emulator.Config{Seed: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	return e
}

// reset brings an emulator back to its start, which is faster than another.
func reset(t *testing.T, e *emulator.Emulator) {
	t.Helper()
	if err := e.Reset(); err != nil {
		t.Fatal(err)
	}
}

// A walker is a browser of sorts: it keeps cookies, follows redirects within
// the login host, and fills in the forms as their ids say.
type walker struct {
	t      *testing.T
	login  string
	client *http.Client
	pages  []string // ids of the pages seen
}

func newWalker(t *testing.T, e *emulator.Emulator) *walker {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	c := e.Client()
	c.Jar = jar
	return &walker{t: t, login: e.Endpoints().Login, client: c}
}

// A page is where the walker has come to: a page of the login host, or the
// way out of it.
type page struct {
	id, body, action string
	out              url.Values // parameters for the application, if this is the way out
	csp              string
	status           int
}

var (
	pageID = regexp.MustCompile(`<main id="page-([a-z_]+)">`)
	otp    = regexp.MustCompile(`id="otp-shown">(\d+)<`)
	action = regexp.MustCompile(`<form id="[a-z_-]+" method="post" action="([^"]+)"`)
	hidden = regexp.MustCompile(`<input type="hidden" name="([^"]+)" value="([^"]*)">`)
	code   = regexp.MustCompile(`id="error-code">(\d+)<`)
)

func (w *walker) do(req *http.Request) page {
	w.t.Helper()
	res, err := w.client.Do(req)
	if err != nil {
		w.t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	if loc := res.Header.Get("Location"); loc != "" {
		return w.follow(req, loc)
	}
	p := page{body: string(body), csp: res.Header.Get("Content-Security-Policy"), status: res.StatusCode}
	if m := pageID.FindStringSubmatch(p.body); m != nil {
		p.id = m[1]
	}
	if m := action.FindStringSubmatch(p.body); m != nil {
		p.action = html.UnescapeString(m[1])
	}
	if p.id == "form_post" {
		p.out = url.Values{}
		for _, m := range hidden.FindAllStringSubmatch(p.body, -1) {
			p.out.Set(m[1], html.UnescapeString(m[2]))
		}
	}
	w.pages = append(w.pages, p.id)
	return p
}

func (w *walker) follow(req *http.Request, location string) page {
	w.t.Helper()
	u, err := req.URL.Parse(location)
	if err != nil {
		w.t.Fatal(err)
	}
	if strings.HasPrefix(u.String(), w.login+"/") {
		return w.get(u.String())
	}
	q := u.RawQuery
	if u.Fragment != "" {
		q = u.EscapedFragment()
	}
	out, err := url.ParseQuery(q)
	if err != nil {
		w.t.Fatal(err)
	}
	return page{id: "out", out: out}
}

func (w *walker) get(u string) page {
	w.t.Helper()
	req, err := http.NewRequest("GET", u, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	return w.do(req)
}

func (w *walker) post(p page, form url.Values) page {
	w.t.Helper()
	req, err := http.NewRequest("POST", w.login+p.action, strings.NewReader(form.Encode()))
	if err != nil {
		w.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	return w.do(req)
}

// A person is how somebody answers the pages.
type person struct {
	upn     string
	skipMFA bool
	decline bool
}

// signIn walks from the authorization request to the way out.
func (w *walker) signIn(authorize string, who person) page {
	w.t.Helper()
	return w.walk(w.get(authorize), who)
}

// walk answers page after page, from p to the way out.
func (w *walker) walk(p page, who person) page {
	w.t.Helper()
	for range 10 {
		switch p.id {
		case "account":
			p = w.post(p, url.Values{"account": {who.upn}})
		case "signin":
			p = w.post(p, url.Values{"signin": {"yes"}})
		case "mfa":
			answer := url.Values{"otp": {otp.FindStringSubmatch(p.body)[1]}}
			if who.skipMFA {
				answer = url.Values{"skip": {"yes"}}
			}
			p = w.post(p, answer)
		case "consent":
			decision := "accept"
			if who.decline {
				decision = "cancel"
			}
			p = w.post(p, url.Values{"decision": {decision}})
		case "approval":
			p = w.post(p, url.Values{"decision": {"return"}})
		default:
			return p
		}
	}
	w.t.Fatalf("the sign-in does not end; pages %q", w.pages)
	return p
}

// authorizeURL is an authorization request with the usual parameters, changed
// by pairs of names and values. An empty value drops the parameter.
func authorizeURL(e *emulator.Emulator, version int, tenant string, change ...string) string {
	path := map[int]string{1: "/oauth2/authorize", 2: "/oauth2/v2.0/authorize"}[version]
	q := url.Values{
		"client_id": {emulator.ApplicationID}, "response_type": {"code"}, "redirect_uri": {redirect},
		"state": {"a state"}, "nonce": {"a-nonce"}, "response_mode": {"query"},
	}
	if version == 1 {
		q.Set("resource", "https://api.partnercenter.microsoft.com")
	} else {
		q.Set("scope", "openid profile offline_access https://api.partnercenter.microsoft.com/.default")
	}
	set(q, change...)
	return e.Endpoints().Login + "/" + tenant + path + "?" + q.Encode()
}

func set(q url.Values, change ...string) {
	for i := 0; i+1 < len(change); i += 2 {
		if q.Set(change[i], change[i+1]); change[i+1] == "" {
			q.Del(change[i])
		}
	}
}

// answer is a token answer of either version, or an error.
type answer struct {
	status int
	header http.Header
	raw    map[string]any
}

func (a answer) str(name string) string {
	s, _ := a.raw[name].(string)
	return s
}

func (a answer) code() int {
	codes, _ := a.raw["error_codes"].([]any)
	if len(codes) == 0 {
		return 0
	}
	return int(codes[0].(float64))
}

// token sends a token request with the fixture's secret, changed by pairs of
// names and values.
func token(t *testing.T, e *emulator.Emulator, version int, tenant, grant string, change ...string) answer {
	t.Helper()
	path := map[int]string{1: "/oauth2/token", 2: "/oauth2/v2.0/token"}[version]
	f := url.Values{"grant_type": {grant}, "client_id": {emulator.ApplicationID}, "client_secret": {emulator.ApplicationSecret}}
	set(f, change...)
	res, err := e.Client().PostForm(e.Endpoints().Login+"/"+tenant+path, f)
	if err != nil {
		t.Fatal(err)
	}
	return readAnswer(t, res)
}

func readAnswer(t *testing.T, res *http.Response) answer {
	t.Helper()
	defer res.Body.Close()
	a := answer{status: res.StatusCode, header: res.Header}
	if err := json.NewDecoder(res.Body).Decode(&a.raw); err != nil {
		t.Fatalf("answer with status %d is no JSON: %v", res.StatusCode, err)
	}
	return a
}

// consented signs admin@contoso.example in and redeems the code.
func consented(t *testing.T, e *emulator.Emulator, version int, upn string, change ...string) answer {
	t.Helper()
	_, domain, _ := strings.Cut(upn, "@")
	if upn == guest {
		domain = "contoso.example"
	}
	p := newWalker(t, e).signIn(authorizeURL(e, version, domain, change...), person{upn: upn})
	if p.out.Get("code") == "" {
		t.Fatalf("sign-in of %s: no code: page %s, %v", upn, p.id, p.out)
	}
	a := token(t, e, version, domain, "authorization_code", "code", p.out.Get("code"), "redirect_uri", redirect)
	if a.status != 200 {
		t.Fatalf("redeem code of %s: %v", upn, a.raw)
	}
	return a
}

const guest = "guest@adventure-works.example"

// claims decodes a token without verifying it.
func claims(t *testing.T, raw string) map[string]any {
	t.Helper()
	parts := strings.Split(raw, ".")
	if len(parts) != 3 {
		t.Fatalf("token has %d parts", len(parts))
	}
	b, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		t.Fatal(err)
	}
	var c map[string]any
	if err := json.Unmarshal(b, &c); err != nil {
		t.Fatal(err)
	}
	return c
}

// call sends a GET with a bearer token and pairs of header names and values.
func call(t *testing.T, e *emulator.Emulator, u, bearer string, headers ...string) answer {
	t.Helper()
	req, err := http.NewRequest("GET", u, nil)
	if err != nil {
		t.Fatal(err)
	}
	if bearer != "" {
		req.Header.Set("Authorization", "Bearer "+bearer)
	}
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	res, err := e.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	return readAnswer(t, res)
}
