package api

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/mandate-sam/mandate"
)

func TestToken(t *testing.T) {
	w := newWorld(t)
	tok, err := w.caller.Token(t.Context(), TokenRequest{
		Partner: contosoID.String(), Tenant: adatumID.String(), Audience: "https://graph.test/",
		Scopes: []string{"https://graph.test/User.Read", "openid", "Mail.Read"}, Purpose: "support", Ticket: "T-1",
		Claims: `{"access_token":{"xms_cc":{"values":["cp1"]},"nbf":{"essential":true,"value":"1"}}}`, MinLifetime: 600,
	})
	if err != nil {
		t.Fatal(err)
	}
	want := mandate.Request{
		Caller: "billing", Use: mandate.UseToken, Partner: contoso, Tenant: adatumID, Audience: "https://graph.test",
		Scopes: []string{"Mail.Read", "User.Read"}, Purpose: "support", Ticket: "T-1",
		Claims: `{"access_token":{"nbf":{"essential":true,"value":"1"}}}`, MinLifetime: 10 * time.Minute,
	}
	ignore := cmpopts.IgnoreFields(mandate.Request{}, "ID", "Address")
	exported := cmp.Comparer(func(a, b mandate.TenantID) bool { return a == b })
	apps := cmp.Comparer(func(a, b mandate.AppID) bool { return a == b })
	if diff := cmp.Diff(want, w.broker.asked()[0], ignore, exported, apps); diff != "" {
		t.Errorf("request (-want +got):\n%s", diff)
	}
	if a := w.broker.asked()[0].Address; !a.IsLoopback() {
		t.Errorf("address %v, want the loopback one", a)
	}
	if tok.Access.Reveal() != canary || tok.Rule != "support" || tok.Generation != 3 || tok.Tenant != adatumID ||
		tok.Audience != "https://graph.test" || tok.Receipt != (mandate.Receipt{Index: 1, Hash: "abc"}) || len(tok.Scopes) != 1 {
		t.Errorf("token %+v", tok)
	}
	if life := time.Until(tok.Expires); life < 59*time.Minute || life > time.Hour {
		t.Errorf("the token lives %v, want an hour", life)
	}
}

// Whoever was refused finds the record by the request id of the answer.
func TestTokenRefusalRecorded(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.Users = fakeUsers{} })
	for what, body := range map[string]string{
		"by no rule":          merge(goodToken, map[string]any{"purpose": "naïve"}),
		"before any rule":     merge(goodToken, map[string]any{"user_token": "adatum"}),
		"an unknown partner":  merge(goodToken, map[string]any{"partner": "nobody"}),
		"an unknown audience": merge(goodToken, map[string]any{"audience": "exchange"}),
	} {
		_, h, _ := post(t, w.caller, "/v1/tokens", body)
		var r mandate.Record
		if err := json.Unmarshal(must(w.log.Last(1))[0], &r); err != nil || r.Kind != mandate.KindDenied || r.Request == "" || r.Request != h.Get("X-Request-Id") {
			t.Errorf("%s: recorded %+v, %v, and the answer has %q", what, r, err, h.Get("X-Request-Id"))
		}
		if r.Caller != "billing" || r.Use != mandate.UseToken || r.Address != "127.0.0.1" || r.Epoch != thisEpoch || r.Reason == "" {
			t.Errorf("%s: recorded %+v, which does not say who was refused what, where, and when", what, r)
		}
	}
}

// What cannot be recorded is not told either: it could be tried unseen.
func TestTokenRefusalUnrecorded(t *testing.T) {
	w := newWorld(t)
	unknown := merge(goodToken, map[string]any{"partner": "nobody"})
	for what, broken := range map[string]*error{"epoch": &w.epoch.err, "log": &w.log.err} {
		*broken = fmt.Errorf("%w: gone", mandate.ErrUnavailable)
		if status, _, body := post(t, w.caller, "/v1/tokens", unknown); status != 503 || strings.Contains(body, "nobody") {
			t.Errorf("without the %s: %d %s", what, status, body)
		}
		*broken = nil
	}
}

func TestTokenDefaults(t *testing.T) {
	w := newWorld(t)
	status, h, body := post(t, w.caller, "/v1/tokens", goodToken)
	if status != 200 || h.Get("Cache-Control") != "no-store" {
		t.Fatalf("%d %v %s", status, h, body)
	}
	if r := w.broker.asked()[0]; r.ID == "" || r.ID != h.Get("X-Request-Id") {
		t.Errorf("the request has the id %q, and the answer %q", r.ID, h.Get("X-Request-Id"))
	}
	if r := w.broker.asked()[0]; r.Tenant != contosoID || len(r.Scopes) != 0 || r.Use != mandate.UseToken {
		t.Errorf("request %+v, want the partner's own tenant and no scope", r)
	}
	if strings.Contains(w.logged.String(), canary) {
		t.Error("the token is in the log")
	}
}

func TestScopes(t *testing.T) {
	w := newWorld(t)
	for _, tt := range []struct {
		audience string
		in       []string
		want     string // joined, or the field of the error with a "!" before it
	}{
		{"graph", []string{}, ""},
		{"graph", []string{".default"}, ""},
		{"graph", []string{"https://graph.test/.default"}, ""},
		{"arm", []string{"https://arm.test/.default"}, ""},
		{"arm", []string{"https://arm.test//.default"}, "!scopes"},
		{"graph", []string{"https://pc.test/.default"}, "!scopes"},
		{"graph", []string{".default", "User.Read"}, "!scopes"},
		{"graph", []string{"b", "a", "b", "openid", "profile"}, "a b"},
		{"graph", []string{""}, "!scopes"},
		{"graph", []string{"https://graph.test/"}, "!scopes"},
		{"graph", []string{"User Read"}, "!scopes"},
		{"graph", []string{"User.Read\n"}, "!scopes"},
		{"graph", []string{strings.Repeat("a", 257)}, "!scopes"},
		{"graph", strings.Fields(strings.Repeat("a ", 51)), "a"},
	} {
		body := merge(goodToken, map[string]any{"audience": tt.audience, "scopes": tt.in})
		before := len(w.broker.asked())
		status, _, answer := post(t, w.caller, "/v1/tokens", body)
		if field, bad := strings.CutPrefix(tt.want, "!"); bad {
			wantField(t, status, answer, field)
			continue
		}
		if status != 200 {
			t.Errorf("%q: got %d %s", tt.in, status, answer)
			continue
		}
		if got := strings.Join(w.broker.asked()[before].Scopes, " "); got != tt.want {
			t.Errorf("%q: got %q, want %q", tt.in, got, tt.want)
		}
	}
}

// Every field of a request has a limit, its error names it, and the broker is
// not asked.
func TestTokenFields(t *testing.T) {
	w := newWorld(t)
	many := make([]string, 51)
	for i := range many {
		many[i] = fmt.Sprintf("s%d", i)
	}
	for _, tt := range []struct {
		field string
		value any
	}{
		{"partner", nil}, {"partner", ""}, {"partner", "con toso"}, {"partner", strings.Repeat("p", 65)}, {"partner", 5},
		{"tenant", "contoso.example"}, {"tenant", contosoID.String() + " "}, {"tenant", "00000000-0000-0000-0000-000000000000"}, {"tenant", true},
		{"audience", nil}, {"audience", ""}, {"audience", "grph"}, {"audience", "https://evil.test"}, {"audience", []string{"graph"}},
		{"scopes", many}, {"scopes", "User.Read"}, {"scopes", []string{"a;b"}},
		{"purpose", nil}, {"purpose", ""}, {"purpose", "two words"}, {"purpose", strings.Repeat("p", 65)}, {"purpose", "<b>"},
		{"ticket", strings.Repeat("t", 129)}, {"ticket", "a\nb"}, {"ticket", "=cmd()"},
		{"claims", "{"}, {"claims", strings.Repeat(" ", 2049)}, {"claims", "{} {}"}, {"claims", map[string]any{}},
		{"min_lifetime", -1}, {"min_lifetime", 2701}, {"min_lifetime", int64(1) << 60}, {"min_lifetime", -(int64(1) << 60)}, {"min_lifetime", 1.5}, {"min_lifetime", "60"},
		{"nonsense", 1}, {"password", "x"},
	} {
		t.Run(fmt.Sprintf("%s/%.20v", tt.field, tt.value), func(t *testing.T) {
			status, _, body := post(t, w.caller, "/v1/tokens", merge(goodToken, map[string]any{tt.field: tt.value}))
			wantField(t, status, body, tt.field)
		})
	}
	if asks := w.broker.asked(); len(asks) != 0 {
		t.Errorf("the broker was asked %d times, first for %+v", len(asks), asks[0])
	}
}

func TestTokenCloudMissing(t *testing.T) {
	w := newWorld(t)
	status, _, body := post(t, w.caller, "/v1/tokens", merge(goodToken, map[string]any{"partner": "lost"}))
	if status != 500 || strings.Contains(body, "gone") {
		t.Errorf("got %d %s, want a 500 that tells nothing", status, body)
	}
}

// What goes wrong on the server is the same error on the client.
func TestErrorsRoundTrip(t *testing.T) {
	w := newWorld(t)
	fault := &mandate.Fault{
		Domain: mandate.DomainGrant, Remedy: mandate.RemedyRenew, OAuthError: "invalid_grant", Suberror: "basic_action", Codes: []int{50076, 1},
		Description: "MFA needed.", Claims: "{}", CorrelationID: "corr", TraceID: "trace", Timestamp: "then", Status: 400, RetryAfter: 7 * time.Second,
	}
	for _, want := range []error{
		mandate.ErrInvalid, mandate.ErrUnauthenticated, mandate.ErrDenied, mandate.ErrWiderThanRule, mandate.ErrUnknownPartner,
		mandate.ErrNoGrant, mandate.ErrRotated, mandate.ErrSuperseded, mandate.ErrUnavailable, mandate.ErrRateLimited,
		mandate.ErrUpstream, mandate.ErrRefused, mandate.ErrExists, mandate.ErrNotFound,
		mandate.Invalid("ticket", "is odd"),
		&mandate.DeniedError{Decision: mandate.Decision{Rule: "r", Reason: "after hours", Policy: "v9"}},
		&mandate.WiderError{Rule: "r", Allowed: []string{"a"}, Granted: []string{"a", "b"}},
		&mandate.WiderError{Rule: "r", Allowed: []string{}, Granted: []string{}, MaxLife: time.Minute, Life: time.Hour},
		&mandate.NoGrantError{Generation: 4, State: mandate.StateSuspended},
		fault,
	} {
		w.broker.set(fmt.Errorf("in the depths: %w", want))
		_, err := w.caller.Token(t.Context(), TokenRequest{Partner: "contoso", Audience: "graph", Purpose: "support"})
		sentinel := want
		for _, typed := range []error{mandate.ErrInvalid, mandate.ErrDenied, mandate.ErrWiderThanRule, mandate.ErrNoGrant, mandate.ErrUpstream} {
			if errors.Is(want, typed) {
				sentinel = typed
			}
		}
		if !errors.Is(err, sentinel) {
			t.Errorf("%v: got %v, which is not it", want, err)
		}
		if want != sentinel && err.Error() != want.Error() {
			t.Errorf("got %q, want %q", err, want)
		}
	}
	w.broker.set(fault)
	_, err := w.caller.Token(t.Context(), TokenRequest{Partner: "contoso", Audience: "graph", Purpose: "support"})
	var got *mandate.Fault
	if !errors.As(err, &got) || cmp.Diff(fault, got) != "" {
		t.Errorf("fault (-want +got):\n%s", cmp.Diff(fault, got))
	}
	w.broker.set(errors.New("the pool at 10.1.2.3 is empty"))
	_, err = w.caller.Token(t.Context(), TokenRequest{Partner: "contoso", Audience: "graph", Purpose: "support"})
	if err == nil || strings.Contains(err.Error(), "10.1.2.3") {
		t.Errorf("a fault of the server's own is told as %v", err)
	}
}

func FuzzTokenRequest(f *testing.F) {
	f.Add(goodToken)
	f.Add(`{"partner":"contoso","tenant":"22222222-2222-2222-2222-222222222222","audience":"https://graph.test","scopes":["https://graph.test/.default"],"purpose":"p","ticket":"t","claims":"{\"access_token\":{\"nbf\":{\"value\":\"1\"}}}","min_lifetime":60}`)
	f.Add(`{"partner":"contoso","audience":"arm","scopes":["b","a","openid"],"purpose":"p"}`)
	s := &Server{cfg: Config{Partners: &fakeStore{}, Clouds: map[string]mandate.Cloud{"test": {Audiences: map[string]mandate.Endpoint{
		"graph": {Resource: "https://graph.test", URL: "https://graph.test"}, "arm": {Resource: "https://arm.test/", URL: "https://arm.test"},
	}}}}}
	f.Fuzz(func(t *testing.T, body string) {
		var in TokenRequest
		if json.Unmarshal([]byte(body), &in) != nil || in.Partner == "lost" {
			return
		}
		req, err := s.parseToken("r1", in)
		if err == nil {
			req.Caller = "billing"
			err = req.Check()
		}
		if err != nil {
			if !errors.Is(err, mandate.ErrInvalid) && !errors.Is(err, mandate.ErrUnknownPartner) {
				t.Errorf("%q: %v is nobody's fault", body, err)
			}
			return
		}
		if req.Use != mandate.UseToken || req.Tenant.IsZero() || req.Audience != "https://graph.test" && req.Audience != "https://arm.test/" {
			t.Errorf("%q became %+v", body, req)
		}
	})
}
