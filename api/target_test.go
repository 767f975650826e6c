package api

import (
	"errors"
	"net/url"
	"path"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/mandate-sam/mandate"
)

const origin = "https://api.test:8443"

func TestTarget(t *testing.T) {
	for _, tt := range []struct {
		in, path, query string // an empty path: refused
	}{
		{"/v1/customers", "/v1/customers", ""},
		{"/", "/", ""},
		{"/v1/customers/?size=40", "/v1/customers/", "size=40"},
		{"/v1?", "/v1", ""},
		{"//v1///customers//", "/v1/customers/", ""},
		{"/v1.0/users('ada@contoso.example')/$value", "/v1.0/users('ada@contoso.example')/$value", ""},
		{"/v1.0/users(%27a%27)", "/v1.0/users('a')", ""},
		{"/v1.0/%75sers", "/v1.0/users", ""},
		{"/v1.0/a%20b", "/v1.0/a%20b", ""},
		{"/v1.0/%c3%a9", "/v1.0/%C3%A9", ""},
		{"/v1.0/a%2bb+c", "/v1.0/a%2Bb+c", ""},
		{"/v1.0/drive/root:/x:/content", "/v1.0/drive/root:/x:/content", ""},
		{"/a?b=c?d/e;f", "/a", "b=c?d/e;f"},
		{`/a?$filter=name eq 'é' and {"x"}`, "/a", "$filter=name%20eq%20'%C3%A9'%20and%20%7B%22x%22%7D"},
		{"/a?b=50%25&c=%2f%2F%3b", "/a", "b=50%25&c=%2F%2F%3B"},
		{"/a?next=%61", "/a", "next=a"},
		{"/a?u=https://evil.test/", "/a", "u=https://evil.test/"},
		{`/a?b=\`, "/a", "b=%5C"},

		// Another way to write what is above, or to be elsewhere.
		{"", "", ""},
		{"v1/customers", "", ""},
		{"?a=b", "", ""},
		{"/a#b", "", ""},
		{"/a?b#c", "", ""},
		{"/a b", "", ""},
		{"/é", "", ""},
		{`/a\b`, "", ""},
		{"/a%5cb", "", ""},
		{"/a%5Cb", "", ""},
		{"/a%2fb", "", ""},
		{"/a%2Fb", "", ""},
		{"/a%00", "", ""},
		{"/a%0d%0aHost:x", "", ""},
		{"/a%7f", "", ""},
		{"/a\x00b", "", ""},
		{"/a\tb", "", ""},
		{"/a;b", "", ""},
		{"/a%3bb", "", ""},
		{"/a%252fb", "", ""},
		{"/a%25", "", ""},
		{"/a%", "", ""},
		{"/a%2", "", ""},
		{"/a%zz", "", ""},
		{"/a%ff", "", ""},
		{"/..", "", ""},
		{"/../a", "", ""},
		{"/a/../b", "", ""},
		{"/a/..", "", ""},
		{"/a/.", "", ""},
		{"/./a", "", ""},
		{"/a/%2e%2e/b", "", ""},
		{"/a/.%2E/b", "", ""},
		{"/a?b=\n", "", ""},
		{"/a?b=%0a", "", ""},
		{"/a?b=%00", "", ""},
		{"/a?b=%", "", ""},
		{"/a?b=%4", "", ""},
		{"/a<b>", "", ""},
		{"/v1.0/$batch", "", ""},
		{"/v1.0/%24Batch", "", ""},
		{"/batch?api-version=1", "", ""},
		{"/" + strings.Repeat("a", maxPath), "", ""},
		{"/a?" + strings.Repeat("a", maxQuery+1), "", ""},
	} {
		got, err := parseTarget(origin, tt.in)
		if tt.path == "" {
			var invalid *mandate.InvalidError
			if !errors.As(err, &invalid) || invalid.Field != "path" {
				t.Errorf("%.60q: got %+v, %v, want a refusal of the path", tt.in, got, err)
			}
			continue
		}
		if err != nil || got != (target{tt.path, tt.query}) {
			t.Errorf("%.60q: got %+v, %v, want %q and %q", tt.in, got, err, tt.path, tt.query)
		}
	}
}

// A host in a request is compared, and never chosen.
func TestTargetHost(t *testing.T) {
	for _, tt := range []struct {
		origin, in string
		ok         bool
	}{
		{origin, "https://api.test:8443/a", true},
		{origin, "HTTPS://API.test:8443/a", true},
		{origin, "https://api.test:8443", true},
		{origin, "https://api.test:8443?b", true},
		{"https://api.test", "https://api.test/a", true},
		{"https://api.test", "https://api.test:443/a", true},
		{"https://api.test:443", "https://api.test/a", true},

		{origin, "http://api.test:8443/a", false},
		{origin, "https://api.test/a", false},
		{origin, "https://api.test:443/a", false},
		{origin, "https://api.test:84430/a", false},
		{origin, "https://evil.test:8443/a", false},
		{origin, "https://api.test.evil.test:8443/a", false},
		{origin, "https://api.test:8443.evil.test/a", false},
		{origin, "https://api.test:8443@evil.test/a", false},
		{origin, "https://evil.test@api.test:8443/a", false},
		{origin, "https://user:pw@api.test:8443/a", false},
		{origin, `https://api.test:8443\@evil.test/a`, false},
		{origin, `https://evil.test\api.test:8443/a`, false},
		{origin, "https://evil.test#https://api.test:8443/a", false},
		{origin, "https://evil.test?https://api.test:8443/a", false},
		{origin, "https:///api.test:8443/a", false},
		{origin, "https:/api.test:8443/a", false},
		{origin, "https:api.test:8443/a", false},
		{origin, " https://api.test:8443/a", false},
		{origin, "https://api.test:8443 /a", false},
		{origin, "https://api.test.:8443/a", false},
		{origin, "https://xn--pi-8ia.test:8443/a", false},
		{origin, "file:///etc/passwd", false},
		{origin, "javascript:alert(1)", false},
		{"https://api.test", "https://api.test:80/a", false},
		{"https://api.test", "http://api.test:443/a", false},
	} {
		got, err := parseTarget(tt.origin, tt.in)
		if (err == nil) != tt.ok {
			t.Errorf("%q at %s: got %+v, %v, want ok %v", tt.in, tt.origin, got, err, tt.ok)
		}
		if err != nil && !errors.Is(err, mandate.ErrInvalid) {
			t.Errorf("%q: %v does not wrap ErrInvalid", tt.in, err)
		}
	}
}

// A network-path reference is a path here: its host goes nowhere.
func TestTargetNetworkPath(t *testing.T) {
	got := must(parseTarget(origin, "//evil.test/a"))
	if u := must(got.url(origin)); u.Host != "api.test:8443" || u.EscapedPath() != "/evil.test/a" {
		t.Errorf("got %v", u)
	}
}

func FuzzTarget(f *testing.F) {
	for _, s := range []string{"/v1/customers?size=40", "https://api.test:8443/a%20b", "/a/%2e%2e/b", "//x//y", "/a?b=%25&c=é", "/users('a')", "/%2B+", "/?a?"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got, err := parseTarget(origin, s)
		if err != nil {
			return
		}
		again, err := parseTarget(origin, got.path+"?"+got.query)
		if err != nil || again != got {
			t.Fatalf("%q became %+v, and that %+v, %v", s, got, again, err)
		}
		u, err := got.url(origin)
		if err != nil {
			t.Fatalf("%q became %+v: %v", s, got, err)
		}
		// What is sent is what was recorded, and every reader of URLs agrees.
		read, err := url.Parse(u.String())
		if err != nil || read.Host != "api.test:8443" || read.Scheme != "https" || read.User != nil || read.Fragment != "" {
			t.Fatalf("%q became %s: %v", s, u, err)
		}
		sent := got.path
		if got.query != "" {
			sent += "?" + got.query
		}
		if u.EscapedPath() != got.path || u.RequestURI() != sent {
			t.Fatalf("%q became %+v, but is sent as %s", s, got, u.RequestURI())
		}
		if clean := path.Clean(u.Path); clean != u.Path && clean+"/" != u.Path || !utf8.ValidString(u.Path) || strings.ContainsAny(u.Path, "\\;%\x00") {
			t.Fatalf("%q became the path %q", s, u.Path)
		}
	})
}
