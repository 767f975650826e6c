package api

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mandate-sam/mandate"
)

var goodCall = CallRequest{Partner: "contoso", Audience: "partnercenter", Method: "GET", Path: "/v1/customers?size=2", Purpose: "support"}

const goodCallJSON = `{"partner":"contoso","audience":"partnercenter","method":"GET","path":"/v1/customers","purpose":"support"}`

func TestCall(t *testing.T) {
	w := newWorld(t)
	var got *http.Request
	var body string
	w.serve = func(rw http.ResponseWriter, r *http.Request) {
		got, body = r, string(must(io.ReadAll(r.Body)))
		h := rw.Header()
		h.Set("Content-Type", "application/json; charset=utf-8")
		h.Set("ETag", `"1"`)
		h.Set("MS-RequestId", "theirs")
		h.Set("Set-Cookie", "session=1")
		h.Set("WWW-Authenticate", "Bearer")
		h.Set("X-Secret-Sauce", "1")
		rw.WriteHeader(201)
		io.WriteString(rw, `{"id":1}`)
	}
	in := CallRequest{
		Partner: "contoso", Tenant: adatumID.String(), Audience: "partnercenter", Method: "POST", Path: "//v1/customers?a=b c",
		Body: `{"x":1}`, Purpose: "support", Ticket: "T-1", Headers: map[string]string{"if-match": "*", "X-Locale": "de-DE", "Prefer": "a"},
	}
	a, err := w.operator.Call(t.Context(), in)
	if err != nil {
		t.Fatal(err)
	}
	if a.Status != 201 || string(a.Body) != `{"id":1}` || a.Rule != "support" || a.Record != (mandate.Receipt{Index: 1, Hash: "abc"}) {
		t.Errorf("answer %+v", a)
	}
	for name, want := range map[string]string{
		"ETag": `"1"`, "MS-RequestId": "theirs", "Content-Type": "application/json; charset=utf-8",
		"Set-Cookie": "", "WWW-Authenticate": "", "X-Secret-Sauce": "", "Cache-Control": "no-store",
	} {
		if v := a.Header.Get(name); v != want {
			t.Errorf("header %s of the answer is %q, want %q", name, v, want)
		}
	}
	uuid := regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`)
	h := got.Header
	if got.Method != "POST" || got.RequestURI != "/v1/customers?a=b%20c" || body != `{"x":1}` || h.Get("Authorization") != "Bearer "+canary {
		t.Errorf("the API got %s %s with %q and %v", got.Method, got.RequestURI, body, h)
	}
	if h.Get("X-Locale") != "de-DE" || h.Get("If-Match") != "*" || h.Get("Prefer") != "a" || h.Get("Content-Type") != "application/json" ||
		!uuid.MatchString(h.Get("MS-RequestId")) || !uuid.MatchString(h.Get("MS-CorrelationId")) {
		t.Errorf("the API got the headers %v", h)
	}
	r := w.broker.asked()[0]
	if r.Use != mandate.UseCall || r.Detail != "POST /v1/customers" || r.Tenant != adatumID || r.Ticket != "T-1" || r.Caller != ownCaller() || r.Audience != "https://pc.test" {
		t.Errorf("the broker was asked for %+v", r)
	}
}

func TestCallDefaults(t *testing.T) {
	w := newWorld(t)
	var h http.Header
	w.serve = func(_ http.ResponseWriter, r *http.Request) { h = r.Header }
	for audience, locale := range map[string]string{"partnercenter": "en-US", "graph": ""} {
		in := goodCall
		in.Audience = audience
		if _, err := w.operator.Call(t.Context(), in); err != nil {
			t.Fatal(err)
		}
		if h.Get("X-Locale") != locale || (h.Get("MS-RequestId") == "") != (locale == "") || h.Get("Accept") != "application/json" || h.Get("Content-Type") != "" {
			t.Errorf("%s got the headers %v", audience, h)
		}
	}
}

// Every field has a limit, and nobody is asked for a token for a request that
// is not one.
func TestCallFields(t *testing.T) {
	w := newWorld(t)
	w.serve = func(http.ResponseWriter, *http.Request) { t.Error("the API was called") }
	for _, tt := range []struct {
		field string
		set   map[string]any
	}{
		{"partner", map[string]any{"partner": ""}},
		{"tenant", map[string]any{"tenant": "x"}},
		{"audience", map[string]any{"audience": "x"}},
		{"audience", map[string]any{"audience": "nowhere"}},
		{"purpose", map[string]any{"purpose": nil}},
		{"ticket", map[string]any{"ticket": "\n"}},
		{"method", map[string]any{"method": ""}},
		{"method", map[string]any{"method": "get"}},
		{"method", map[string]any{"method": "CONNECT"}},
		{"method", map[string]any{"method": "TRACE"}},
		{"method", map[string]any{"method": "GET /x HTTP/1.1\r\n"}},
		{"path", map[string]any{"path": nil}},
		{"path", map[string]any{"path": "/../x"}},
		{"path", map[string]any{"path": "https://evil.test/v1/customers"}},
		{"body", map[string]any{"body": "x"}},
		{"body", map[string]any{"body": "x", "method": "HEAD"}},
		{"all", map[string]any{"all": true, "method": "POST"}},
		{"all", map[string]any{"all": 1}},
		{"headers", map[string]any{"headers": map[string]string{"Authorization": "Bearer mine"}}},
		{"headers", map[string]any{"headers": map[string]string{"authorization": "Bearer mine"}}},
		{"headers", map[string]any{"headers": map[string]string{"Cookie": "a=b"}}},
		{"headers", map[string]any{"headers": map[string]string{"Host": "evil.test"}}},
		{"headers", map[string]any{"headers": map[string]string{"Connection": "X-Locale"}}},
		{"headers", map[string]any{"headers": map[string]string{"X-HTTP-Method-Override": "DELETE"}}},
		{"headers", map[string]any{"headers": map[string]string{"X-Forwarded-For": "::1"}}},
		{"headers", map[string]any{"headers": map[string]string{"Ms-ContinuationToken": "x"}}},
		{"headers", map[string]any{"headers": map[string]string{"Prefer": "a\r\nHost: evil.test"}}},
		{"headers", map[string]any{"headers": map[string]string{"Prefer": strings.Repeat("a", maxHeaderValue+1)}}},
		{"scopes", map[string]any{"scopes": []string{"a"}}},
	} {
		status, _, body := post(t, w.operator, "/v1/call", merge(goodCallJSON, tt.set))
		wantField(t, status, body, tt.field)
		if strings.Contains(body, "Bearer mine") {
			t.Errorf("the answer repeats a credential: %s", body)
		}
	}
	status, _, body := post(t, w.operator, "/v1/call", merge(goodCallJSON, map[string]any{"method": "PUT", "body": strings.Repeat("x", 64<<10)}))
	wantField(t, status, body, "body")
	if asks := w.broker.asked(); len(asks) != 0 {
		t.Errorf("the broker was asked %d times", len(asks))
	}
}

// Whatever the API does, the token goes to it alone and comes back to nobody.
func TestCallNoTokenLeaks(t *testing.T) {
	var stray atomic.Int32
	evil := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { stray.Add(1) }))
	defer evil.Close()
	hijack := func(rw http.ResponseWriter, before string) {
		c, _, err := http.NewResponseController(rw).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		io.WriteString(c, before)
		c.Close()
	}
	for _, tt := range []struct {
		name   string
		serve  http.HandlerFunc
		status int
	}{
		{"body", func(rw http.ResponseWriter, r *http.Request) {
			io.WriteString(rw, `{"you sent":"`+r.Header.Get("Authorization")+`"}`)
		}, 502},
		{"end of a long body", func(rw http.ResponseWriter, r *http.Request) {
			io.WriteString(rw, strings.Repeat("x", 100_000)+canary[:10])
			http.NewResponseController(rw).Flush()
			io.WriteString(rw, canary[10:])
		}, 502},
		{"header", func(rw http.ResponseWriter, r *http.Request) { rw.Header().Set("Location", "/x?t="+canary) }, 502},
		{"error page", func(rw http.ResponseWriter, r *http.Request) { http.Error(rw, canary, 500) }, 502},
		{"redirect", func(rw http.ResponseWriter, r *http.Request) { http.Redirect(rw, r, evil.URL+"/x", http.StatusFound) }, 302},
		{"redirect with body", func(rw http.ResponseWriter, r *http.Request) {
			http.Redirect(rw, r, evil.URL+"/x", http.StatusTemporaryRedirect)
		}, 307},
		{"no answer", func(rw http.ResponseWriter, r *http.Request) { hijack(rw, "") }, 502},
		{"bad version", func(rw http.ResponseWriter, r *http.Request) { hijack(rw, canary+" 200 OK\r\n\r\n") }, 502},
		{"bad header", func(rw http.ResponseWriter, r *http.Request) { hijack(rw, "HTTP/1.1 200 OK\r\n"+canary+"\r\n\r\n") }, 502},
		{"bad length", func(rw http.ResponseWriter, r *http.Request) {
			hijack(rw, "HTTP/1.1 200 OK\r\nContent-Length: "+canary+"\r\n\r\n")
		}, 502},
		{"bad chunk", func(rw http.ResponseWriter, r *http.Request) {
			hijack(rw, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"+canary+"\r\n\r\n")
		}, 502},
		{"half an answer", func(rw http.ResponseWriter, r *http.Request) {
			hijack(rw, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n"+canary)
		}, 502},
	} {
		for _, all := range []bool{false, true} {
			w := newWorld(t)
			w.serve = tt.serve
			status, h, body := post(t, w.operator, "/v1/call", merge(goodCallJSON, map[string]any{"all": all}))
			if status != tt.status {
				t.Errorf("%s (all %v): got %d %s, want %d", tt.name, all, status, body, tt.status)
			}
			if strings.Contains(body+fmt.Sprint(h)+w.logged.String(), canary) {
				t.Errorf("%s (all %v): the token is in the answer or the log: %s %v %s", tt.name, all, body, h, w.logged)
			}
		}
	}
	if n := stray.Load(); n != 0 {
		t.Errorf("%d requests were redirected", n)
	}
}

func TestCallTooLong(t *testing.T) {
	w := newWorld(t)
	size := maxAnswer
	w.serve = func(rw http.ResponseWriter, _ *http.Request) { rw.Write(make([]byte, size)) }
	a, err := w.operator.Call(t.Context(), goodCall)
	if err != nil || len(a.Body) != maxAnswer {
		t.Fatalf("%v; got %d bytes of %d", err, len(a.Body), maxAnswer)
	}
	size++
	if _, err := w.operator.Call(t.Context(), goodCall); !errors.Is(err, mandate.ErrUpstream) || !strings.Contains(err.Error(), "16 MiB") {
		t.Errorf("got %v, want a refusal of what is too long", err)
	}
}

// An API's answer keeps its status, and is told apart from the server's own.
func TestCallStatus(t *testing.T) {
	w := newWorld(t)
	for _, tt := range []struct {
		status int
		body   string
		want   string
	}{
		{401, `{"code":"900421","description":"MFA required.","data":[]}`, "401 Unauthorized: 900421: MFA required."},
		{404, `{"code":60003,"description":"No tenant."}`, "404 Not Found: 60003: No tenant."},
		{403, `{"error":{"code":"Authorization_RequestDenied","message":"No."}}`, "403 Forbidden: Authorization_RequestDenied: No."},
		{503, "busy", "503 Service Unavailable"},
		{429, `{"error":"x"}`, "429 Too Many Requests"},
		{204, "", ""},
	} {
		calls := 0
		w.serve = func(rw http.ResponseWriter, _ *http.Request) {
			calls++
			rw.WriteHeader(tt.status)
			io.WriteString(rw, tt.body)
		}
		a, err := w.operator.Call(t.Context(), goodCall)
		want := 1
		if tt.status == 401 {
			want = 2 // once more, with another token
		}
		if err != nil || a.Status != tt.status || string(a.Body) != tt.body || calls != want {
			t.Errorf("%d: got %+v, %v after %d calls, want it as it is after %d", tt.status, a, err, calls, want)
			continue
		}
		if err = a.Err(); (err == nil) != (tt.want == "") || err != nil && err.Error() != "the API answered "+tt.want {
			t.Errorf("%d: got %v, want %q", tt.status, err, tt.want)
		}
	}
	w.broker.set(&mandate.DeniedError{Decision: mandate.Decision{Reason: "no rule"}})
	if _, err := w.operator.Call(t.Context(), goodCall); !errors.Is(err, mandate.ErrDenied) {
		t.Errorf("got %v, want a denial", err)
	}
}

// A call whose token is refused is made once more, with another token: one that
// meets the API's challenge, or any but the refused.
func TestTrap08RetryWithNewToken(t *testing.T) {
	const claims = `{"access_token":{"nbf":{"essential":true,"value":"1700000000"}}}`
	for _, tt := range []struct{ header, claims string }{
		{"Bearer", ""},
		{`Bearer error="insufficient_claims", claims="` + base64.StdEncoding.EncodeToString([]byte(claims)) + `"`, claims},
		{`Bearer error="insufficient_claims", claims="` + base64.RawURLEncoding.EncodeToString([]byte(claims)) + `"`, claims},
		{`Bearer claims="!!"`, ""},
		{`Bearer claims="` + base64.StdEncoding.EncodeToString([]byte("no JSON")), ""},
	} {
		w := newWorld(t)
		var sent []string
		w.serve = func(rw http.ResponseWriter, r *http.Request) {
			sent = append(sent, r.Header.Get("Authorization"))
			if len(sent) == 1 {
				rw.Header().Set("WWW-Authenticate", tt.header)
				rw.WriteHeader(401)
				return
			}
			io.WriteString(rw, "fine")
		}
		w.broker.number = true
		a, err := w.operator.Call(t.Context(), goodCall)
		if err != nil || a.Status != 200 || len(sent) != 2 || sent[0] == sent[1] {
			t.Fatalf("%s: got %+v, %v; sent %v", tt.header, a, err, sent)
		}
		asks := w.broker.asked()
		if asks[0].Refused != "" || asks[1].Refused != "fp-1" || asks[1].Claims != tt.claims {
			t.Errorf("%s: the second token was asked for with %+v", tt.header, asks[1])
		}
	}
}

// Nothing is called without a token, and so not without a record.
func TestCallDenied(t *testing.T) {
	w := newWorld(t)
	w.serve = func(http.ResponseWriter, *http.Request) { t.Error("the API was called") }
	w.broker.set(mandate.ErrUnavailable)
	if _, err := w.operator.Call(t.Context(), goodCall); !errors.Is(err, mandate.ErrUnavailable) {
		t.Errorf("got %v, want ErrUnavailable", err)
	}
}

func TestCallHead(t *testing.T) {
	w := newWorld(t)
	w.serve = func(rw http.ResponseWriter, _ *http.Request) { rw.Header().Set("ETag", "x") }
	in := goodCall
	in.Method = "HEAD"
	if a, err := w.operator.Call(t.Context(), in); err != nil || a.Header.Get("ETag") != "x" || len(a.Body) != 0 {
		t.Errorf("got %+v, %v", a, err)
	}
}

// A status that ends nothing is not passed on, nor waited for: after 101 an API
// could keep the connection, and whoever waits, for ever.
func TestCallStatusThatIsNone(t *testing.T) {
	w := newWorld(t)
	for _, status := range []string{"101 Switching Protocols", "099 Less", "000 Nothing", "600 More", "999 Most"} {
		done := make(chan struct{})
		w.serve = func(rw http.ResponseWriter, _ *http.Request) {
			c, _, err := http.NewResponseController(rw).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			io.WriteString(c, "HTTP/1.1 "+status+"\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
			<-done
		}
		a, err := w.operator.Call(t.Context(), goodCall)
		close(done)
		if !errors.Is(err, mandate.ErrUpstream) || !strings.Contains(err.Error(), "which is none") {
			t.Errorf("%s: got %+v, %v", status, a, err)
		}
	}
}

// hanging is an API that never answers.
type hanging struct{}

func (hanging) RoundTrip(r *http.Request) (*http.Response, error) {
	<-r.Context().Done()
	return nil, r.Context().Err()
}

// Nobody is waited for without end.
func TestCallEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &Server{cfg: Config{Broker: &fakeBroker{}, Epoch: &fakeEpoch{}, Transport: hanging{}}}
		c := &call{method: "GET", alias: "graph", endpoint: mandate.Endpoint{URL: "https://graph.test"}, target: target{path: "/v1.0"}, header: http.Header{}}
		start := time.Now()
		if a, err := s.attempt(t.Context(), c, mandate.Request{}); !errors.Is(err, mandate.ErrUpstream) || time.Since(start) != callTimeout {
			t.Errorf("after %v: got %+v, %v", time.Since(start), a, err)
		}
	})
}
