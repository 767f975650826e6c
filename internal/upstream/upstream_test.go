package upstream

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"
)

func TestParseOrigin(t *testing.T) {
	for in, want := range map[string]string{
		"https://a.test": "https://a.test", "https://a.test:8443": "https://a.test:8443", "https://a.test/": "https://a.test", "https://[::1]:1": "https://[::1]:1",
	} {
		if got, err := ParseOrigin(in); err != nil || got.String() != want {
			t.Errorf("ParseOrigin(%q) = %v, %v, want %s", in, got, err, want)
		}
	}
	for _, in := range []string{
		"", "a.test", "http://a.test", "https://", "https:a.test", "https://u@a.test", "https://a.test/v1", "https://a.test?canary", "https://a.test#x", "https://a.test:x", ":canary",
	} {
		if got, err := ParseOrigin(in); err == nil || got != nil || strings.Contains(err.Error(), "canary") {
			t.Errorf("ParseOrigin(%q) = %v, %v, want an error that does not repeat it", in, got, err)
		}
	}
}

// No redirect is followed and no cookie kept, whatever the HTTP client does
// otherwise, and the caller's client stays as it was.
func TestDirect(t *testing.T) {
	asked := 0
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, err := r.Cookie("c"); err == nil {
			t.Error("a cookie came back")
		}
		asked++
		http.SetCookie(w, &http.Cookie{Name: "c", Value: "v"})
		http.Redirect(w, r, "/elsewhere", http.StatusTemporaryRedirect)
	}))
	defer s.Close()
	own := s.Client()
	own.Jar, _ = cookiejar.New(nil)
	h := Direct(own)
	for n := range 2 {
		status, header, _, err := Do(h, request(t, s.URL), 1<<10)
		if err != nil || status != http.StatusTemporaryRedirect || header.Get("Location") != "/elsewhere" || asked != n+1 {
			t.Errorf("got %d, %v, %v after %d requests, want the redirect itself", status, header, err, asked)
		}
	}
	if h == own || h.Timeout != 30*time.Second || own.Timeout != 0 || own.Jar == nil || own.CheckRedirect != nil {
		t.Errorf("made %+v of %+v", h, own)
	}
	if got := Direct(&http.Client{Timeout: time.Minute}).Timeout; got != time.Minute {
		t.Errorf("a timeout of a minute became %v", got)
	}
}

func request(t *testing.T, u string) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(context.Background(), http.MethodGet, u, nil)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// A fake answers with a body, or with an error.
type fake struct {
	status int
	body   io.ReadCloser
	err    error
}

func (f fake) RoundTrip(r *http.Request) (*http.Response, error) {
	if f.err != nil {
		return nil, f.err
	}
	return &http.Response{StatusCode: f.status, Header: http.Header{"X": {"y"}}, Body: f.body, Request: r}, nil
}

// A stream is a body that ends in err, and knows whether it was closed.
type stream struct {
	io.Reader
	err    error
	read   int
	closed bool
}

func (s *stream) Read(p []byte) (int, error) {
	n, err := s.Reader.Read(p)
	s.read += n
	if err == io.EOF {
		err = s.err
	}
	return n, err
}

func (s *stream) Close() error { s.closed = true; return nil }

func TestDo(t *testing.T) {
	down := errors.New("down")
	for _, tt := range []struct {
		name   string
		length int
		end    error
		want   string // in the error
	}{
		{"empty", 0, io.EOF, ""},
		{"as long as may be", 100, io.EOF, ""},
		{"too long", 101, io.EOF, "longer than 100 bytes"},
		{"endless", 1 << 20, io.EOF, "longer than 100 bytes"},
		{"broken off", 5, down, "read answer: down"},
	} {
		s := &stream{Reader: strings.NewReader(strings.Repeat("x", tt.length)), err: tt.end}
		status, header, body, err := Do(&http.Client{Transport: fake{status: 418, body: s}}, request(t, "https://a.test/canary"), 100)
		if tt.want == "" && (err != nil || status != 418 || header.Get("X") != "y" || len(body) != tt.length) {
			t.Errorf("%s: got %d, %v, %d bytes, %v", tt.name, status, header, len(body), err)
		}
		if tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want) || status != 0 || header != nil || body != nil) {
			t.Errorf("%s: got %d, %v, %d bytes, %v, want %q", tt.name, status, header, len(body), err, tt.want)
		}
		if !s.closed || s.read > 101 {
			t.Errorf("%s: closed %v after %d bytes", tt.name, s.closed, s.read)
		}
	}
	s := &stream{Reader: strings.NewReader("x"), err: io.EOF}
	if status, _, _, err := Do(&http.Client{Transport: fake{status: 101, body: s}}, request(t, "https://a.test"), 100); err == nil || status != 0 || s.read != 0 || !s.closed {
		t.Errorf("101: got %d, %v, closed %v after %d bytes", status, err, s.closed, s.read)
	}
	_, _, _, err := Do(&http.Client{Transport: fake{err: down}}, request(t, "https://a.test/canary"), 100)
	if !errors.Is(err, down) || strings.Contains(err.Error(), "canary") {
		t.Errorf("got %v, want %v without the URL", err, down)
	}
}

func TestWithoutURL(t *testing.T) {
	down := errors.New("down")
	if got := WithoutURL(down); got != down {
		t.Errorf("got %v, want %v", got, down)
	}
	if got := WithoutURL(&url.Error{Op: "Get", URL: "https://canary", Err: down}); got != down {
		t.Errorf("got %v, want %v", got, down)
	}
}

func TestIsJSON(t *testing.T) {
	for in, want := range map[string]bool{
		"application/json": true, "Application/JSON; charset=utf-8": true, "application/json;odata.metadata=minimal": true,
		"": false, "text/html": false, "application/jsonp": false, "text/html; application/json": false, "application/json, text/html": false,
	} {
		if got := IsJSON(http.Header{"Content-Type": {in}}); got != want {
			t.Errorf("IsJSON of %q = %v, want %v", in, got, want)
		}
	}
}

func TestRetryAfter(t *testing.T) {
	now := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	for v, want := range map[string]time.Duration{
		"": 0, "0": 0, "-1": 0, "-5": 0, "5": 5 * time.Second, "120": 2 * time.Minute, "x": 0, "99999999999999": 0, "864000": 24 * time.Hour,
		"Sat, 21 Nov 2026 12:00:30 GMT": 30 * time.Second, "Sat, 21 Nov 2026 11:00:00 GMT": 0,
		"Sat, 21 Nov 2099 11:00:00 GMT": 24 * time.Hour, "Sat, 21 Nov 2099 12:00:30 GMT": 24 * time.Hour,
	} {
		if got := RetryAfter(http.Header{"Retry-After": {v}}, now); got != want {
			t.Errorf("Retry-After %q: got %v, want %v", v, got, want)
		}
	}
}

func TestRequestID(t *testing.T) {
	one, two := RequestID(), RequestID()
	if v4 := regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`); one == two || !v4.MatchString(one) {
		t.Errorf("got %s, %s", one, two)
	}
}
