package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/internal/web"
)

const goodToken = `{"partner":"contoso","audience":"graph","purpose":"support"}`

// tryAs asks for a token with an Authorization header and returns the answer.
func tryAs(t *testing.T, w *world, change func(*http.Request)) *http.Response {
	t.Helper()
	r := must(http.NewRequest("POST", w.tls.URL+"/v1/tokens", strings.NewReader(goodToken)))
	r.Header.Set("Content-Type", "application/json")
	change(r)
	resp, err := w.tls.Client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	return resp
}

func basicAuth(id, secret string) func(*http.Request) {
	return func(r *http.Request) { r.SetBasicAuth(id, secret) }
}

func TestBasic(t *testing.T) {
	w := newWorld(t)
	for _, tt := range []struct {
		name string
		auth func(*http.Request)
		want int
	}{
		{"right", basicAuth("billing", rightSecret), 200},
		{"none", func(*http.Request) {}, 401},
		{"wrong secret", basicAuth("billing", "mdt_wrong"), 401},
		{"no secret", basicAuth("billing", ""), 401},
		{"unknown id", basicAuth("nobody", rightSecret), 401},
		{"no id", basicAuth("", rightSecret), 401},
		{"an operator's name", basicAuth("uid:0", rightSecret), 401},
		{"malformed id", basicAuth("billing\n", rightSecret), 401},
		{"long id", basicAuth(strings.Repeat("b", 65), rightSecret), 401},
		{"long secret", basicAuth("billing", strings.Repeat("s", 257)), 401},
		{"bearer", func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+rightSecret) }, 401},
		{"rubbish", func(r *http.Request) { r.Header.Set("Authorization", "Basic !!!") }, 401},
		{"another scheme", func(r *http.Request) {
			r.SetBasicAuth("billing", rightSecret)
			r.Header.Set("Authorization", strings.Replace(r.Header.Get("Authorization"), "Basic ", "Bytes ", 1))
		}, 401},
		{"two headers", func(r *http.Request) {
			r.SetBasicAuth("billing", rightSecret)
			r.Header.Add("Authorization", r.Header.Get("Authorization"))
		}, 401},
	} {
		before := len(w.broker.asked())
		resp := tryAs(t, w, tt.auth)
		if resp.StatusCode != tt.want {
			t.Errorf("%s: got %d, want %d", tt.name, resp.StatusCode, tt.want)
		}
		asked := len(w.broker.asked()) - before
		if challenge := resp.Header.Get("WWW-Authenticate"); tt.want == 401 && (!strings.HasPrefix(challenge, `Basic realm="mandate"`) || asked != 0) {
			t.Errorf("%s: challenge %q, the broker was asked %d times", tt.name, challenge, asked)
		}
	}
	if strings.Contains(w.logged.String(), rightSecret) {
		t.Error("a secret is in the log")
	}
}

// Bounds must hold before anybody compares: what is too long or malformed
// never reaches the store.
func TestBasicBoundsBeforeStore(t *testing.T) {
	w := newWorld(t)
	w.store.err = errors.New("was asked")
	for _, auth := range []func(*http.Request){
		basicAuth("billing", strings.Repeat("s", 257)), basicAuth("bil ling", rightSecret), func(*http.Request) {},
	} {
		if resp := tryAs(t, w, auth); resp.StatusCode != 401 {
			t.Errorf("got %d, want 401", resp.StatusCode)
		}
	}
}

func from(address string) func(*http.Request) {
	return func(r *http.Request) { r.Header.Set("X-Forwarded-For", address) }
}

// Failures are limited per address and per id; the right secret is never
// locked out by them.
func TestFailuresAreLimited(t *testing.T) {
	proxied := func(c *Config) {
		c.Failures = web.Limit{Every: time.Hour, Burst: 3}
		c.TrustedProxies = web.Proxies{netip.MustParsePrefix("127.0.0.0/8")}
	}
	both := func(a, b func(*http.Request)) func(*http.Request) {
		return func(r *http.Request) { a(r); b(r) }
	}
	for _, tt := range []struct {
		name string
		try  func(i int) func(*http.Request)
	}{
		{"one address, many ids", func(i int) func(*http.Request) {
			return both(from("192.0.2.1"), basicAuth(fmt.Sprintf("id%d", i), "mdt_wrong"))
		}},
		{"many addresses, one id", func(i int) func(*http.Request) {
			return both(from(fmt.Sprintf("192.0.2.%d", i)), basicAuth("billing", "mdt_wrong"))
		}},
		{"one address, no credentials", func(int) func(*http.Request) { return from("192.0.2.1") }},
	} {
		w := newWorld(t, proxied)
		for i := range 6 {
			want := 401
			if i >= 3 {
				want = 429
			}
			resp := tryAs(t, w, tt.try(i))
			if resp.StatusCode != want || want == 429 && resp.Header.Get("Retry-After") == "" {
				t.Errorf("%s, try %d: got %d (Retry-After %q), want %d", tt.name, i, resp.StatusCode, resp.Header.Get("Retry-After"), want)
			}
		}
		if resp := tryAs(t, w, both(from("192.0.2.1"), basicAuth("billing", rightSecret))); resp.StatusCode != 200 {
			t.Errorf("%s: the right secret got %d, want 200", tt.name, resp.StatusCode)
		}
	}
}

func TestSuccessIsNotLimited(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.Failures = web.Limit{Every: time.Hour, Burst: 1} })
	for range 5 {
		if resp := tryAs(t, w, basicAuth("billing", rightSecret)); resp.StatusCode != 200 {
			t.Fatalf("got %d, want 200", resp.StatusCode)
		}
	}
}

// A store that cannot answer has not said that the secret is wrong.
func TestAuthenticateUnavailable(t *testing.T) {
	w := newWorld(t)
	w.store.err = fmt.Errorf("%w: database", mandate.ErrUnavailable)
	for range 30 {
		if resp := tryAs(t, w, basicAuth("billing", rightSecret)); resp.StatusCode != 503 {
			t.Fatalf("got %d, want 503", resp.StatusCode)
		}
	}
}

// What is for operators is not there for callers, whoever asks.
func TestCallersDoorHasNoOperations(t *testing.T) {
	w := newWorld(t)
	for _, rt := range operatorRoutes {
		path := strings.Replace(rt.path, "{partner}", "contoso", 1)
		if status, _, body := send(t, w.caller, rt.method, path, "{}"); status != 404 {
			t.Errorf("%s %s: got %d %s, want 404", rt.method, rt.path, status, body)
		}
	}
}

func TestWrongMethod(t *testing.T) {
	w := newWorld(t)
	for _, c := range []*Client{w.caller, w.operator} {
		status, h, body := send(t, c, "DELETE", "/v1/tokens", "")
		if status != 405 || h.Get("Allow") != "POST" || !strings.Contains(body, "method_not_allowed") {
			t.Errorf("got %d, Allow %q, %s", status, h.Get("Allow"), body)
		}
	}
	if _, h, _ := send(t, w.operator, "PUT", "/v1/partners", ""); h.Get("Allow") != "GET, POST" {
		t.Errorf("Allow is %q, want GET, POST", h.Get("Allow"))
	}
}

func TestReady(t *testing.T) {
	var ready error
	w := newWorld(t, func(c *Config) { c.Ready = func(context.Context) error { return ready } })
	for _, tt := range []struct {
		err            error
		health, status int
	}{{nil, 200, 200}, {errors.New("the database is down"), 200, 503}} {
		ready = tt.err
		health, _, _ := send(t, w.caller, "GET", "/healthz", "")
		status, _, body := send(t, w.caller, "GET", "/readyz", "")
		if health != tt.health || status != tt.status || strings.Contains(body, "database") {
			t.Errorf("%v: healthz %d, readyz %d %s", tt.err, health, status, body)
		}
		st, err := w.operator.Status(t.Context())
		if err != nil || st.Ready != (tt.err == nil) || tt.err != nil && st.Reason != tt.err.Error() {
			t.Errorf("status %+v, %v", st, err)
		}
	}
}

// FuzzBasicAuth holds what reads credentials against net/http, as far as they
// could be somebody's.
func FuzzBasicAuth(f *testing.F) {
	for _, s := range []string{"Basic YTpi", "basic YTpi", "Basic YTpiOmM=", "Basic YQ==", "Basic ", "Basic", "Bearer YTpi", "Basic YTpi=", "Basic " + strings.Repeat("YTpi", 200), "\x00Basic YTpi"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, shown string) {
		possible := func(id, secret string, ok bool) bool { return ok && mandate.Name(id) && len(secret) <= maxSecret }
		r := http.Request{Header: http.Header{"Authorization": {shown}}}
		wantID, wantSecret, wantOK := r.BasicAuth()
		id, secret, ok := basicOf(r.Header["Authorization"])
		if got, want := possible(id, secret, ok), possible(wantID, wantSecret, wantOK); got != want || got && (id != wantID || secret != wantSecret) {
			t.Errorf("%q: got %q, %q, %v, want %q, %q, %v", shown, id, secret, ok, wantID, wantSecret, wantOK)
		}
	})
}
