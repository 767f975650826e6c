package mandate

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"
)

func TestSecretDoesNotPrint(t *testing.T) {
	const canary = "canary-5f1c"
	s := NewSecret(canary)
	holder := struct {
		Public  Secret
		private Secret
		deep    *Redemption
	}{s, s, &Redemption{Refresh: s}}
	var out strings.Builder
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%p", "%T"} {
		fmt.Fprintf(&out, verb, s)
		fmt.Fprintf(&out, verb, &s)
		fmt.Fprintf(&out, verb, holder)
		fmt.Fprintf(&out, verb, []Secret{s})
		fmt.Fprintf(&out, verb, Grant{Refresh: s})
	}
	j, err := json.Marshal(holder)
	if err != nil {
		t.Fatal(err)
	}
	out.Write(j)
	m, _ := json.Marshal(map[Secret]Secret{s: s})
	out.Write(m)
	slog.New(slog.NewTextHandler(&out, nil)).Info("x", "s", s, "h", holder)
	slog.New(slog.NewJSONHandler(&out, nil)).Info("x", "s", s, "h", holder)
	hex := fmt.Sprintf("%x", canary)
	if got := strings.ToLower(out.String()); strings.Contains(got, canary) || strings.Contains(got, hex) {
		t.Errorf("the secret printed: %s", got)
	}
	if s.Reveal() != canary || s.IsZero() || !NewSecret("").IsZero() || !(Secret{}).IsZero() || (Secret{}).Reveal() != "" {
		t.Error("Reveal or IsZero is wrong")
	}
}

func TestParseID(t *testing.T) {
	const good = "11111111-0000-0000-0000-00000000000a"
	for _, s := range []string{good, strings.ToUpper(good)} {
		id, err := ParseTenantID(s)
		if err != nil || id.String() != good {
			t.Errorf("ParseTenantID(%q) = %v, %v", s, id, err)
		}
	}
	for _, s := range []string{
		"", "contoso.com", "common", "{" + good + "}", good + " ", " " + good, good[:35], good + "0",
		"11111111000000000000000000000000000a", "11111111-0000-0000-0000-00000000000g",
		"00000000-0000-0000-0000-000000000000", "111111110-000-0000-0000-00000000000a", "11111111-0000-0000-0000-0000000000\x000a",
	} {
		if id, err := ParseTenantID(s); !errors.Is(err, ErrInvalid) || !id.IsZero() {
			t.Errorf("ParseTenantID(%q) = %v, %v, want ErrInvalid", s, id, err)
		}
		if _, err := ParseAppID(s); !errors.Is(err, ErrInvalid) {
			t.Errorf("ParseAppID(%q): %v", s, err)
		}
		if _, err := ParseObjectID(s); !errors.Is(err, ErrInvalid) {
			t.Errorf("ParseObjectID(%q): %v", s, err)
		}
	}
}

func TestIDText(t *testing.T) {
	in := struct {
		T TenantID
		Z TenantID
		O TenantID `json:",omitzero"`
	}{T: contoso}
	data, err := json.Marshal(in)
	if want := `{"T":"11111111-0000-0000-0000-000000000001","Z":""}`; err != nil || string(data) != want {
		t.Errorf("got %s, %v, want %s", data, err, want)
	}
	out := in
	if err := json.Unmarshal(data, &out); err != nil || out != in {
		t.Errorf("read back %+v, %v", out, err)
	}
	if err := json.Unmarshal([]byte(`{"T":"x"}`), &out); !errors.Is(err, ErrInvalid) {
		t.Errorf("a bad id was read: %v", err)
	}
	if fmt.Sprint(contoso) != "11111111-0000-0000-0000-000000000001" || (TenantID{}).String() != "" {
		t.Error("String is wrong")
	}
}

func TestParseClaims(t *testing.T) {
	for _, tt := range []struct{ in, want string }{
		{"", ""},
		{`{}`, ""},
		{`{"access_token":null}`, ""},
		{`{"access_token":{"nbf":{"essential":true, "value":"1635527790"}}}`, `{"access_token":{"nbf":{"essential":true,"value":"1635527790"}}}`},
		{`{"access_token":{"xms_cc":{"values":["cp1"]},"acrs":{"value":"c1","essential":true}}}`, `{"access_token":{"acrs":{"essential":true,"value":"c1"}}}`},
		{`{"access_token":{"xms_cc":{"values":["cp1"]}}}`, ""},
		{`{"id_token":{"signin_state":{"essential":false}}}`, ""},
		{`{"access_token":{"polids":{"essential":true,"values":["a","b"]},"acrs":{"value":"c1"}}}`, `{"access_token":{"acrs":{"value":"c1"},"polids":{"essential":true,"values":["a","b"]}}}`},
		{`{"access_token":{"nbf":null}}`, ""},
	} {
		got, err := ParseClaims(tt.in)
		if err != nil || got != tt.want {
			t.Errorf("ParseClaims(%s) = %s, %v, want %s", tt.in, got, err, tt.want)
		}
		if again, err := ParseClaims(got); err != nil || again != got {
			t.Errorf("canonical %s became %s, %v", got, again, err)
		}
	}
	for _, s := range []string{"x", "[]", `{} {}`, `{"access_token":7}`, `{"access_token":{"nbf":"1"}}`, strings.Repeat(" ", maxClaims) + "{}"} {
		if _, err := ParseClaims(s); !errors.Is(err, ErrInvalid) {
			t.Errorf("ParseClaims(%.40q): %v, want ErrInvalid", s, err)
		}
	}
}

func FuzzParseClaims(f *testing.F) {
	f.Add(`{"access_token":{"nbf":{"essential":true,"value":"1"}}}`)
	f.Fuzz(func(t *testing.T, s string) {
		got, err := ParseClaims(s)
		if err != nil {
			return
		}
		if again, err := ParseClaims(got); err != nil || again != got || strings.Contains(got, "\n") {
			t.Errorf("%q became %q, then %q, %v", s, got, again, err)
		}
	})
}

func TestRequestCheck(t *testing.T) {
	good := ask()
	if err := good.Check(); err != nil {
		t.Fatal(err)
	}
	long := strings.Repeat("a", 300)
	for _, tt := range []struct {
		field  string
		change func(*Request)
	}{
		{"caller", func(r *Request) { r.Caller = "" }},
		{"use", func(r *Request) { r.Use = "steal" }},
		{"partner", func(r *Request) { r.Partner = Partner{} }},
		{"partner", func(r *Request) { r.Partner.Key.Cloud = "" }},
		{"partner", func(r *Request) { r.Partner.Key.Application = AppID{} }},
		{"tenant", func(r *Request) { r.Tenant = TenantID{} }},
		{"audience", func(r *Request) { r.Audience = "" }},
		{"purpose", func(r *Request) { r.Purpose = "" }},
		{"purpose", func(r *Request) { r.Purpose = "two words" }},
		{"purpose", func(r *Request) { r.Purpose = long }},
		{"ticket", func(r *Request) { r.Ticket = long }},
		{"ticket", func(r *Request) { r.Ticket = "a\nb" }},
		{"ticket", func(r *Request) { r.Ticket = "=cmd|x" }},
		{"min_lifetime", func(r *Request) { r.MinLifetime = -1 }},
		{"min_lifetime", func(r *Request) { r.MinLifetime = maxMinLifetime + 1 }},
		{"claims", func(r *Request) { r.Claims = "x" }},
		{"claims", func(r *Request) { r.Claims = `{"access_token": {"nbf":{"value":"1"}}}` }},
		{"scopes", func(r *Request) { r.Scopes = []Scope{"b", "a"} }},
		{"scopes", func(r *Request) { r.Scopes = []Scope{"a", "a"} }},
		{"scopes", func(r *Request) { r.Scopes = []Scope{"openid"} }},
		{"scopes", func(r *Request) { r.Scopes = []Scope{"a b"} }},
		{"scopes", func(r *Request) { r.Scopes = []Scope{"a\nb"} }},
		{"scopes", func(r *Request) { r.Scopes = []Scope{""} }},
		{"scopes", func(r *Request) { r.Scopes = []Scope{long} }},
		{"scopes", func(r *Request) {
			for i := range maxScopes + 1 {
				r.Scopes = append(r.Scopes, fmt.Sprintf("scope%03d", i))
			}
		}},
	} {
		r := ask(tt.change)
		var e *InvalidError
		if err := r.Check(); !errors.As(err, &e) || e.Field != tt.field || !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: got %v", tt.field, err)
		}
	}
}

func TestRequestCheckAsksForThePurpose(t *testing.T) {
	r := ask(func(r *Request) { r.Purpose = "" })
	if err := r.Check(); err == nil || !strings.Contains(err.Error(), "say what the token is for") {
		t.Errorf("got %v", err)
	}
}

func TestTokenChecksRequest(t *testing.T) {
	w := newWorld(t)
	if _, err := w.Token(t.Context(), ask(func(r *Request) { r.Purpose = "" })); !errors.Is(err, ErrInvalid) || len(w.audit.kinds()) != 0 {
		t.Errorf("got %v", err)
	}
}

func TestCloud(t *testing.T) {
	for name, c := range Clouds() {
		if err := c.Check(); err != nil || c.Name != name || c.Custom {
			t.Errorf("%s: %v", name, err)
		}
		for alias, e := range c.Audiences {
			for _, s := range []string{alias, string(e.Resource), string(e.Resource) + "/"} {
				if a, err := c.Resolve(s); err != nil || a != e.Resource {
					t.Errorf("%s: Resolve(%q) = %q, %v", name, s, a, err)
				}
			}
			if got := c.Alias(e.Resource); got != alias {
				t.Errorf("%s: Alias(%q) = %q", name, e.Resource, got)
			}
			if got, ok := c.Endpoint(e.Resource); !ok || got != e {
				t.Errorf("%s: Endpoint(%q) = %v", name, e.Resource, got)
			}
		}
		for _, s := range []string{"", "Graph", "https://graph.microsoft.com.evil.example", "graph "} {
			if a, err := c.Resolve(s); !errors.Is(err, ErrInvalid) {
				t.Errorf("%s: Resolve(%q) = %q, %v", name, s, a, err)
			}
		}
		if _, ok := c.Endpoint("https://elsewhere.example"); ok || c.Alias("https://elsewhere.example") != "https://elsewhere.example" {
			t.Errorf("%s knows an audience it should not", name)
		}
	}
}

func TestCloudCheckRefuses(t *testing.T) {
	custom := func() Cloud {
		c := microsoft("emu", "https://localhost:1", "https://localhost:1", "https://localhost:2", "https://localhost:3", "https://localhost:4")
		c.Custom = true
		return c
	}
	if c := custom(); c.Check() != nil {
		t.Fatal(c.Check())
	}
	for _, tt := range []struct {
		field  string
		change func(*Cloud)
	}{
		{"cloud", func(c *Cloud) { c.Name = "" }},
		{"authority", func(c *Cloud) { c.Authority = "http://localhost" }},
		{"authority", func(c *Cloud) { c.Authority = "https://localhost/" }},
		{"authority", func(c *Cloud) { c.Authority = "https://u@localhost" }},
		{"authority", func(c *Cloud) { c.Authority = "https://login.microsoftonline.com" }},
		{"authority", func(c *Cloud) { c.Authority = "https://LOGIN.windows.NET.:443" }},
		{"graph", func(c *Cloud) { c.Audiences[Graph] = Endpoint{"x", "https://graph.microsoft.com"} }},
		{"graph", func(c *Cloud) { c.Audiences[Graph] = Endpoint{"x", "https://localhost?x"} }},
		{"cloud", func(c *Cloud) { delete(c.Audiences, ARM) }},
		{"issuer_v1", func(c *Cloud) { c.IssuerV1 = "https://localhost/" }},
		{"issuer_v2", func(c *Cloud) { c.IssuerV2 = "http://localhost/{tenantid}" }},
	} {
		c := custom()
		tt.change(&c)
		var e *InvalidError
		if err := c.Check(); !errors.As(err, &e) || e.Field != tt.field {
			t.Errorf("%s: got %v", tt.field, err)
		}
	}
	for host, want := range map[string]bool{"graph.microsoft.com": true, "microsoft.com": true, "notmicrosoft.com": false, "localhost": false, "": false} {
		if MicrosoftHost(host) != want {
			t.Errorf("MicrosoftHost(%q) = %v", host, !want)
		}
	}
}

func TestNormalScopes(t *testing.T) {
	got := NormalScopes([]Scope{"b", "a", "OpenID", "offline_access", "b", "", "profile", "email"})
	if fmt.Sprint(got) != "[a b]" {
		t.Errorf("got %v", got)
	}
}

func TestErrorTexts(t *testing.T) {
	f := &Fault{Domain: DomainCustomer, OAuthError: "invalid_grant", Codes: []int{90099}, Description: "not authorized", CorrelationID: "c-1", Cause: errors.New("x")}
	for err, want := range map[error]string{
		f: "customer fault: invalid_grant: not authorized: x (correlation id c-1)",
		&WiderError{Rule: "r", Allowed: []Scope{"A"}, Granted: []Scope{"A", "B"}}: `rule "r" allows scopes [A], Entra's token carries [A B]; name them in the rule, or say ` + "`scopes: consented`",
		&WiderError{Rule: "r", MaxLife: time.Hour, Life: 90 * time.Minute}:        `rule "r" allows tokens of at most 1h0m0s, Entra's lives 1h30m0s; use the gateway, or raise max_token_life`,
		&NoGrantError{3, StateSuspended}:                                          "the grant is suspended; an operator can resume it",
		&Refusal{Reason: ReasonMFA, Detail: "d", Fault: f}:                        "consent refused: no_mfa: d: " + f.Error(),
		&Refusal{Reason: ReasonSiteProblem, Err: errors.New("disk")}:              "consent refused: site: disk",
		Invalid("purpose", "is required"):                                         "purpose: is required",
		&DeniedError{Decision{Reason: "no rule allows it"}}:                       "denied: no rule allows it",
	} {
		if err.Error() != want {
			t.Errorf("got  %s\nwant %s", err, want)
		}
	}
	if !errors.Is(f, ErrUpstream) || f.Code() != 90099 || (&Fault{}).Code() != 0 {
		t.Error("a fault is not itself")
	}
	var b bytes.Buffer
	fmt.Fprint(&b, &NoGrantError{2, StateReplaced})
	if !strings.Contains(b.String(), "replaced") {
		t.Error(b.String())
	}
}
