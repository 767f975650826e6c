package web_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"testing/fstest"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/internal/web"
)

type order struct {
	Name  string `json:"name"`
	Count int    `json:"count"`
	Inner struct {
		Deep bool `json:"deep"`
	} `json:"inner"`
}

func TestRead(t *testing.T) {
	for _, tt := range []struct {
		body, media string
		field       string // "" is accepted
	}{
		{`{"name":"a","count":2,"inner":{"deep":true}}`, "application/json", ""},
		{`{"name":"a"}`, "application/json; charset=UTF-8", ""},
		{`{}`, "application/json", ""},
		{`{"name":"a"}`, "", "Content-Type"},
		{`{"name":"a"}`, "text/plain", "Content-Type"},
		{`{"name":"a"}`, "application/json; charset=latin1", "Content-Type"},
		{`{"name":"a","nmae":"b"}`, "application/json", "nmae"},
		{`{"name":"a","name":"b"}`, "application/json", "name"},
		{`{"name":"a","NAME":"b"}`, "application/json", "NAME"},
		{`{"inner":{"deep":true,"deep":false}}`, "application/json", "deep"},
		{`{"name":[{"x":1,"x":2}]}`, "application/json", "x"},
		{`{"name":7}`, "application/json", "name"},
		{`{"inner":{"deep":"yes"}}`, "application/json", "inner.deep"},
		{`{"count":1.5}`, "application/json", "count"},
		{`{"name":"a"}{}`, "application/json", "body"},
		{`{"name":"a"} x`, "application/json", "body"},
		{`{"name":"a"`, "application/json", "body"},
		{`{"name":`, "application/json", "body"},
		{``, "application/json", "body"},
		{`null`, "application/json", "body"},
		{`[]`, "application/json", "body"},
		{"{\"name\":\"\xff\"}", "application/json", "body"},
		{`{"name":"` + strings.Repeat("x", 64<<10) + `"}`, "application/json", "body"},
	} {
		r := httptest.NewRequest("POST", "/", strings.NewReader(tt.body))
		r.Header.Set("Content-Type", tt.media)
		_, err := web.Read[order](httptest.NewRecorder(), r)
		var invalid *mandate.InvalidError
		if errors.As(err, &invalid); tt.field == "" && err != nil || tt.field != "" && (invalid == nil || invalid.Field != tt.field) {
			t.Errorf("%.60q as %q: got %v, want field %q", tt.body, tt.media, err, tt.field)
		}
	}
	r := httptest.NewRequest("POST", "/", strings.NewReader(`{}`))
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Content-Encoding", "gzip")
	if _, err := web.Read[order](httptest.NewRecorder(), r); !errors.Is(err, mandate.ErrInvalid) {
		t.Errorf("an encoded body: got %v", err)
	}
}

func FuzzRead(f *testing.F) {
	for _, s := range []string{`{"name":"a","count":2}`, `{"a":{"b":[1,{"c":null}]}}`, `{"name":"a","name":"b"}`, `{`, `[[[`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		r := httptest.NewRequest("POST", "/", bytes.NewReader(body))
		r.Header.Set("Content-Type", "application/json")
		if _, err := web.Read[order](httptest.NewRecorder(), r); err != nil && !errors.Is(err, mandate.ErrInvalid) {
			t.Errorf("%q: %v is not the caller's fault", body, err)
		}
	})
}

// A body that ends before its length, whichever way it is read, is no request.
func TestReadTornBody(t *testing.T) {
	for _, n := range []int64{20, 5000} {
		r := httptest.NewRequest("POST", "/", io.MultiReader(strings.NewReader(`{"name":"a"}`), iotest.ErrReader(io.ErrUnexpectedEOF)))
		r.Header.Set("Content-Type", "application/json")
		r.ContentLength = n
		_, err := web.Read[order](httptest.NewRecorder(), r)
		if !errors.Is(err, mandate.ErrInvalid) || !strings.Contains(err.Error(), "could not be read to its end") {
			t.Errorf("of %d bytes: got %v", n, err)
		}
	}
}

func TestReadForm(t *testing.T) {
	for _, tt := range []struct {
		body, media, field string
	}{
		{"a=1&b=2&b=3", "application/x-www-form-urlencoded", ""},
		{"a=1", "application/json", "Content-Type"},
		{"a=%zz", "application/x-www-form-urlencoded", "body"},
		{"a=" + strings.Repeat("x", 64<<10), "application/x-www-form-urlencoded", "body"},
	} {
		r := httptest.NewRequest("POST", "/?a=query&c=query", strings.NewReader(tt.body))
		r.Header.Set("Content-Type", tt.media)
		form, err := web.ReadForm(httptest.NewRecorder(), r)
		var invalid *mandate.InvalidError
		if errors.As(err, &invalid); tt.field == "" && err != nil || tt.field != "" && (invalid == nil || invalid.Field != tt.field) {
			t.Errorf("%.60q: got %v, want field %q", tt.body, err, tt.field)
		}
		if err == nil && (form.Get("a") != "1" || form.Has("c") || web.Duplicate(form) != "b") {
			t.Errorf("got %v with duplicate %q", form, web.Duplicate(form))
		}
	}
}

func TestAddress(t *testing.T) {
	proxies := web.Proxies{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/8")}
	for _, tt := range []struct {
		remote    string
		forwarded []string
		want      string
	}{
		{"192.0.2.1:99", nil, "192.0.2.1"},
		{"192.0.2.1:99", []string{"198.51.100.1"}, "192.0.2.1"}, // not from a proxy
		{"10.0.0.1:99", []string{"198.51.100.1"}, "198.51.100.1"},
		{"[::ffff:10.0.0.1]:99", []string{"198.51.100.1"}, "198.51.100.1"},
		{"[fd00::1]:99", []string{"2001:db8::7"}, "2001:db8::7"},
		{"10.0.0.1:99", []string{"203.0.113.9, 198.51.100.1"}, "198.51.100.1"},
		{"10.0.0.1:99", []string{"203.0.113.9", "198.51.100.1, 10.2.3.4"}, "198.51.100.1"},
		{"10.0.0.1:99", []string{"203.0.113.9, 10.9.9.9"}, "203.0.113.9"},
		{"10.0.0.1:99", []string{"203.0.113.9, garbage"}, "10.0.0.1"},
		{"10.0.0.1:99", []string{"203.0.113.9, garbage, 10.5.5.5"}, "10.5.5.5"},
		{"10.0.0.1:99", []string{""}, "10.0.0.1"},
		{"10.0.0.1:99", nil, "10.0.0.1"},
		{"10.0.0.1:99", []string{"10.1.1.1"}, "10.1.1.1"},
		{"10.0.0.1:99", []string{"198.51.100.1:4711"}, "198.51.100.1"},
		{"10.0.0.1:99", []string{"[2001:db8::7]:4711"}, "2001:db8::7"},
		{"10.0.0.1:99", []string{"[2001:db8::7]"}, "2001:db8::7"},
		{"@", nil, "invalid IP"},
	} {
		r := &http.Request{RemoteAddr: tt.remote, Header: http.Header{"X-Forwarded-For": tt.forwarded}}
		if got := proxies.Address(r).String(); got != tt.want {
			t.Errorf("%s via %q: got %s, want %s", tt.remote, tt.forwarded, got, tt.want)
		}
	}
}

func TestAddressKey(t *testing.T) {
	for a, want := range map[string]string{
		"192.0.2.1": "192.0.2.1", "::ffff:192.0.2.1": "192.0.2.1", "2001:db8:1:2:3:4:5:6": "2001:db8:1:2::/64", "fe80::1%eth0": "fe80::/64",
	} {
		if got := web.AddressKey(netip.MustParseAddr(a)); got != want {
			t.Errorf("%s: got %s, want %s", a, got, want)
		}
	}
	web.AddressKey(netip.Addr{}) // a Unix socket's; must not panic
}

func TestLimiter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := web.NewLimiter(web.Limit{Every: 10 * time.Second, Burst: 2}, 3)
		allow := func(key string, want bool) {
			t.Helper()
			checked := l.Check(key)
			err := l.Allow(key)
			if (err == nil) != want || (checked == nil) != want {
				t.Errorf("%s: Allow %v, Check %v, want allowed: %v", key, err, checked, want)
			}
			var retry *web.RetryError
			if err != nil && (!errors.Is(err, mandate.ErrRateLimited) || !errors.As(err, &retry) || retry.After <= 0 || retry.After > 10*time.Second) {
				t.Errorf("%s: got %v", key, err)
			}
		}
		allow("a", true)
		allow("a", true)
		for range 5 {
			allow("a", false) // is not counted
		}
		allow("b", true)
		time.Sleep(10 * time.Second)
		allow("a", true)
		allow("a", false)
		allow("q", true)
		allow("q", true)
		allow("q", false)
		for i := range 10 { // others push out who was quiet for longest
			allow("x"+strconv.Itoa(i), true)
			allow("a", false)
		}
		allow("q", true) // forgotten: no more than three are remembered
	})
}

func TestCheckCountsNothing(t *testing.T) {
	l := web.NewLimiter(web.Limit{Every: time.Hour, Burst: 1}, 1)
	for range 3 {
		if err := l.Check("a"); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Allow("a"); err != nil {
		t.Fatal(err)
	}
	l.Check("b") // must not push a out
	if err := l.Check("a"); !errors.Is(err, mandate.ErrRateLimited) {
		t.Errorf("got %v, want ErrRateLimited", err)
	}
}

func TestEdge(t *testing.T) {
	var logged bytes.Buffer
	log := slog.New(slog.NewTextHandler(&logged, &slog.HandlerOptions{Level: slog.LevelDebug}))
	mux := http.NewServeMux()
	mux.HandleFunc("GET /i/{token}", func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, web.RequestID(r.Context())+" "+web.Address(r.Context()).String())
	})
	mux.HandleFunc("GET /panic", func(http.ResponseWriter, *http.Request) { panic("boom") })
	mux.HandleFunc("GET /half", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("half")); panic("boom") })
	mux.Handle("GET /json", web.JSON(log, func(http.ResponseWriter, *http.Request) error { panic("bang") }))
	mux.Handle("GET /late", web.JSON(log, func(w http.ResponseWriter, _ *http.Request) error {
		_, _ = w.Write([]byte("half"))
		return errors.New("too late")
	}))
	srv := httptest.NewUnstartedServer(web.Edge{Log: log}.Wrap(mux))
	srv.Config = web.NewServer(srv.Config.Handler, log)
	srv.Start()
	defer srv.Close()
	for _, tt := range []struct {
		path   string
		status int // 0 is a broken connection
		errors int
	}{
		{"/i/secret-token?query=secret-query", 200, 0}, {"/nowhere/secret-path", 404, 0},
		{"/panic", 500, 1}, {"/half", 0, 1}, {"/json", 500, 1}, {"/late", 0, 1},
	} {
		logged.Reset()
		status, id, text := 0, "", []byte(nil)
		res, err := http.Get(srv.URL + tt.path)
		if err == nil {
			text, err = io.ReadAll(res.Body)
			res.Body.Close()
		}
		if err == nil {
			status, id = res.StatusCode, res.Header.Get("X-Request-Id")
		}
		if status != tt.status || status != 0 && !strings.Contains(logged.String(), id) {
			t.Errorf("%s: got %d with id %q (%v), want %d\n%s", tt.path, status, id, err, tt.status, &logged)
		}
		if tt.status == 200 && string(text) != id+" 127.0.0.1" || strings.Contains(string(text), "boom") || strings.Contains(string(text), "bang") {
			t.Errorf("%s: answered %q", tt.path, text)
		}
		srv.CloseClientConnections()
		if got := strings.Count(logged.String(), "level=ERROR"); got != tt.errors || strings.Contains(logged.String(), "secret-") {
			t.Errorf("%s: logged %d errors, want %d, and nothing of path or query:\n%s", tt.path, got, tt.errors, &logged)
		}
	}
}

// A client that went away is no error, and a deadline of ours is one.
func TestHungUp(t *testing.T) {
	var logged bytes.Buffer
	h := web.JSON(slog.New(slog.NewTextHandler(&logged, nil)), func(_ http.ResponseWriter, r *http.Request) error { return context.Canceled })
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequestWithContext(ctx, "GET", "/", nil))
	if logged.Len() > 0 {
		t.Errorf("logged %s", &logged)
	}
	h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil))
	if !strings.Contains(logged.String(), "level=ERROR") {
		t.Errorf("logged %q, want an error", &logged)
	}
}

func TestErrorPageThatFails(t *testing.T) {
	h := web.Page(quiet, func(http.ResponseWriter, *http.Request, web.Problem) error { return errors.New("template") },
		func(http.ResponseWriter, *http.Request) error { return errors.New("first") })
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
	if w.Code != 500 || strings.Contains(w.Body.String(), "template") || strings.Contains(w.Body.String(), "first") {
		t.Errorf("got %d %q", w.Code, w.Body)
	}
}

func TestRenderIsAllOrNothing(t *testing.T) {
	pages, err := web.ParsePages(fstest.MapFS{
		"base.html": {Data: []byte(`<h1>{{template "content" .}}</h1>`)},
		"good.html": {Data: []byte(`{{define "content"}}{{.Text}}{{end}}`)},
		"bad.html":  {Data: []byte(`{{define "content"}}{{.None}}{{end}}`)},
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	w := httptest.NewRecorder()
	if err := pages.Render(w, 201, "good", struct{ Text string }{"<b>"}); err != nil || w.Code != 201 || w.Body.String() != "<h1>&lt;b&gt;</h1>" {
		t.Errorf("got %v, %d %q", err, w.Code, w.Body)
	}
	for _, name := range []string{"bad", "none", "base"} {
		w = httptest.NewRecorder()
		if err := pages.Render(w, 200, name, struct{ Text string }{"x"}); err == nil || w.Body.Len() != 0 {
			t.Errorf("%s: got %v and wrote %q", name, err, w.Body)
		}
	}
}

func TestServerLimits(t *testing.T) {
	s := web.NewServer(http.NotFoundHandler(), quiet)
	if s.ReadHeaderTimeout == 0 || s.ReadTimeout == 0 || s.WriteTimeout == 0 || s.IdleTimeout == 0 || s.MaxHeaderBytes == 0 || s.ErrorLog == nil {
		t.Errorf("a limit is missing: %+v", s)
	}
}
