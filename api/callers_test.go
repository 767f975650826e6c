package api

import (
	"context"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
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

func (s *fakeStore) known(id mandate.CallerID) error {
	if s.err == nil && id != "billing" {
		return fmt.Errorf("%w: no caller is named %q", mandate.ErrNotFound, id)
	}
	return s.err
}

func (s *fakeStore) Callers(context.Context) ([]mandate.Caller, error) {
	return []mandate.Caller{{ID: "billing", Created: contoso.Created, Credentials: []mandate.CallerCredential{{ID: "K1", Kind: "secret", Created: contoso.Created}}}}, s.err
}

func (s *fakeStore) Register(_ context.Context, c mandate.Caller) (mandate.Caller, mandate.Secret, error) {
	*s.events = append(*s.events, "add "+string(c.ID))
	s.added = append(s.added, c)
	secret := mandate.Secret{}
	for _, cred := range c.Credentials {
		if cred.Kind == mandate.CredentialSecret {
			secret = mandate.NewSecret("mdt_new")
		}
	}
	return c, secret, s.err
}

func (s *fakeStore) AddCredential(_ context.Context, id mandate.CallerID, c mandate.CallerCredential) (mandate.CallerCredential, mandate.Secret, error) {
	c.ID = "K2"
	return c, mandate.Secret{}, s.known(id)
}

func (s *fakeStore) Rotate(_ context.Context, id mandate.CallerID, overlap time.Duration, expires time.Time) (mandate.CallerCredential, mandate.Secret, error) {
	*s.events = append(*s.events, "rotate "+overlap.String())
	return mandate.CallerCredential{ID: "K3", Kind: mandate.CredentialSecret, Expires: expires}, mandate.NewSecret("mdt_next"), s.known(id)
}

func (s *fakeStore) ExpireCredential(_ context.Context, id mandate.CallerID, _ string, _ time.Time) error {
	return s.known(id)
}

func (s *fakeStore) RemoveCaller(_ context.Context, id mandate.CallerID) error { return s.known(id) }

func (s *fakeStore) AdoptCaller(_ context.Context, id mandate.CallerID, owner string) error {
	*s.events = append(*s.events, "adopt "+string(id)+" by "+owner)
	return s.known(id)
}

// registrationScenes make the documented statuses of registrations happen.
func registrationScenes() []scene {
	full := func(w *world) { w.log.err = errors.New("full") }
	out := []scene{
		{op: "GET /v1/callers", status: "200"},
		{op: "GET /v1/callers", status: "503", damage: func(w *world) { w.store.err = mandate.ErrUnavailable }},
		{op: "GET /v1/callers/{caller}", status: "200", path: "/v1/callers/billing"},
		{op: "GET /v1/callers/{caller}", status: "404", path: "/v1/callers/nobody"},
		{op: "GET /v1/callers/{caller}", status: "503", path: "/v1/callers/billing", damage: func(w *world) { w.store.err = mandate.ErrUnavailable }},
		{op: "POST /v1/callers", status: "201", body: `{"id":"x"}`},
		{op: "POST /v1/callers", status: "400", body: `{}`},
		{op: "POST /v1/callers", status: "409", body: `{"id":"x"}`, damage: func(w *world) { w.store.err = mandate.ErrExists }},
		{op: "POST /v1/callers", status: "503", body: `{"id":"x"}`, damage: func(w *world) { w.epoch.err = mandate.ErrUnavailable }},
	}
	for what, good := range map[string]struct{ status, body string }{
		"credentials": {"201", `{"issuer":"github","claims":{"repository_id":"1"}}`}, "rotate": {"201", `{}`}, "expire": {"200", `{"credential":"K1"}`}, "remove": {"200", `{}`},
	} {
		op := "POST /v1/callers/{caller}/" + what
		out = append(out,
			scene{op: op, status: good.status, path: "/v1/callers/billing/" + what, body: good.body},
			scene{op: op, status: "400", path: "/v1/callers/billing/" + what, body: `{"x":1}`},
			scene{op: op, status: "404", path: "/v1/callers/nobody/" + what, body: good.body},
			scene{op: op, status: "503", path: "/v1/callers/billing/" + what, body: good.body, damage: full})
	}
	return out
}

// fakeProofs knows three tokens, one certificate and one binding.
type fakeProofs struct {
	leaf    []byte
	binding *mandate.Binding
}

func (f *fakeProofs) Token(_ context.Context, raw string) (mandate.CallerID, error) {
	switch raw {
	case "a.good.token":
		return "billing", nil
	case "a.bad.token":
		return "victim", fmt.Errorf("%w: a reason for the log", mandate.ErrUnauthenticated)
	case "a.late.token":
		return "", mandate.ErrUnavailable
	}
	return "", mandate.ErrUnauthenticated
}

func (f *fakeProofs) Certificate(chain []*x509.Certificate) (mandate.CallerID, error) {
	if string(chain[0].Raw) == string(f.leaf) {
		return "billing", nil
	}
	return "", mandate.ErrUnauthenticated
}

func (f *fakeProofs) Binding(mandate.CallerID) (*mandate.Binding, error) { return f.binding, nil }

func TestCallerBearer(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.Proofs = new(fakeProofs) })
	for raw, want := range map[string]int{"a.good.token": 200, "a.bad.token": 401, "a.late.token": 503, "": 401, "mdt_right": 401, strings.Repeat("a", 40<<10): 401} {
		resp := tryAs(t, w, func(r *http.Request) { r.Header.Set("Authorization", "bearer "+raw) })
		if resp.StatusCode != want {
			t.Errorf("%.20q: got %d, want %d", raw, resp.StatusCode, want)
		}
	}
	resp := tryAs(t, w, func(r *http.Request) {
		r.Header["Authorization"] = []string{"Bearer a.good.token", "Bearer a.good.token"}
	})
	if resp.StatusCode != 401 {
		t.Errorf("two headers: got %d, want 401", resp.StatusCode)
	}
	if !strings.Contains(w.logged.String(), "a reason for the log") {
		t.Error("why a token was refused is not in the log")
	}
	// A megabyte of token does not get as far as that.
	if resp := tryAs(t, w, func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+strings.Repeat("a", 1<<20)) }); resp.StatusCode/100 != 4 {
		t.Errorf("1 MB: got %d", resp.StatusCode)
	}
}

// Failures are limited by address and by the caller that is named, and never
// lock that caller out.
func TestCallerNeverLockedOut(t *testing.T) {
	w := newWorld(t, func(c *Config) {
		c.Proofs, c.Failures = new(fakeProofs), web.Limit{Every: time.Hour, Burst: 2}
	})
	limited := false
	for range 5 {
		limited = tryAs(t, w, func(r *http.Request) { r.Header.Set("Authorization", "Bearer a.bad.token") }).StatusCode == 429
	}
	if !limited {
		t.Error("failures are not limited")
	}
	if w.server.ids.Check("victim") == nil {
		t.Error("failures are not counted for the caller that is named")
	}
	if got := tryAs(t, w, func(r *http.Request) { r.Header.Set("Authorization", "Bearer a.good.token") }).StatusCode; got != 200 {
		t.Errorf("the caller itself: got %d, want 200", got)
	}
}

// Certificates that are nobody's are limited, too.
func TestCallerCertificatesAreLimited(t *testing.T) {
	w := newWorld(t, func(c *Config) {
		c.Proofs, c.Failures = new(fakeProofs), web.Limit{Every: time.Hour, Burst: 2}
		c.CertificateProxies = web.Proxies{netip.MustParsePrefix("127.0.0.0/8")}
	})
	field := ":" + base64.StdEncoding.EncodeToString(w.tls.Certificate().Raw) + ":"
	var got []int
	for range 4 {
		got = append(got, tryAs(t, w, func(r *http.Request) { r.Header.Set("Client-Cert", field) }).StatusCode)
	}
	if got[0] != 401 || got[3] != 429 {
		t.Errorf("got %v, want 401 and then 429", got)
	}
}

// A certificate in a header counts from a listed proxy only.
func TestCallerCertificateHeader(t *testing.T) {
	probe := newWorld(t)
	leaf := probe.tls.Certificate()
	field := ":" + base64.StdEncoding.EncodeToString(leaf.Raw) + ":"
	proofs := &fakeProofs{leaf: leaf.Raw}
	open := newWorld(t, func(c *Config) { c.Proofs = proofs })
	behind := newWorld(t, func(c *Config) {
		c.Proofs, c.CertificateProxies = proofs, web.Proxies{netip.MustParsePrefix("127.0.0.0/8")}
	})
	set := func(values ...string) func(*http.Request) {
		return func(r *http.Request) { r.Header["Client-Cert"] = values }
	}
	if got := tryAs(t, open, set(field)).StatusCode; got != 401 {
		t.Errorf("from anybody: got %d, want 401", got)
	}
	for what, tt := range map[string]struct {
		change func(*http.Request)
		want   int
	}{
		"good":           {set(field), 200},
		"none":           {func(*http.Request) {}, 401},
		"two":            {set(field, field), 401},
		"no colons":      {set(strings.Trim(field, ":")), 401},
		"rubbish":        {set(":AAAA:"), 401},
		"no first colon": {set("x" + field[1:]), 401},
		"no last colon":  {set(field[:len(field)-1] + "x"), 401},
		"empty":          {set(""), 401},
		"a long chain": {func(r *http.Request) {
			set(field)(r)
			r.Header.Set("Client-Cert-Chain", strings.Repeat(field+",", 6)+field)
		}, 401},
		"X-Forwarded-Client-Cert": {func(r *http.Request) { r.Header.Set("X-Forwarded-Client-Cert", field) }, 401},
	} {
		if got := tryAs(t, behind, tt.change).StatusCode; got != tt.want {
			t.Errorf("%s: got %d, want %d", what, got, tt.want)
		}
	}
}

// What a caller's registration binds is filled in, and never exceeded.
func TestCallerBinding(t *testing.T) {
	b := &mandate.Binding{Partner: "contoso", Customer: adatumID, Audiences: []mandate.Audience{"graph"}, Purpose: "support"}
	w := newWorld(t, func(c *Config) { c.Proofs = &fakeProofs{binding: b} })
	for _, body := range []string{`{}`, goodToken, `{"tenant":"` + adatumID.String() + `","audience":"https://graph.test"}`} {
		status, _, answer := post(t, w.caller, "/v1/tokens", body)
		if status != 200 {
			t.Errorf("%s: %d %s", body, status, answer)
			continue
		}
		asked := w.broker.asked()
		req := asked[len(asked)-1]
		if req.Partner.Name != "contoso" || req.Tenant != adatumID || req.Audience != "https://graph.test" || req.Purpose != "support" {
			t.Errorf("%s: asked for %+v", body, req)
		}
		if body == `{}` && strings.Join(req.Bound, " ") != "partner tenant audience purpose" || body == goodToken && strings.Join(req.Bound, " ") != "tenant" {
			t.Errorf("%s: bound %v", body, req.Bound)
		}
	}
}

func TestConfusedDeputyBeyondBinding(t *testing.T) {
	b := &mandate.Binding{Partner: contosoID.String(), Customer: adatumID, Audiences: []mandate.Audience{"graph", "arm"}, Purpose: "support"}
	w := newWorld(t, func(c *Config) { c.Proofs = &fakeProofs{binding: b} })
	for _, body := range []string{
		`{"tenant":"` + contosoID.String() + `","audience":"graph"}`, `{"audience":"partnercenter"}`, `{"audience":"https://pc.test"}`,
		`{"audience":"graph","purpose":"audit"}`,
	} {
		records := w.log.Count()
		status, _, answer := post(t, w.caller, "/v1/tokens", body)
		if status != 403 || w.log.Count() != records+1 {
			t.Errorf("%s: got %d %s, %d records, want it denied and recorded", body, status, answer, w.log.Count()-records)
		}
	}
	if n := len(w.broker.asked()); n != 0 {
		t.Errorf("the broker was asked %d times", n)
	}
	// Of several audiences none is guessed.
	status, _, body := post(t, w.caller, "/v1/tokens", `{}`)
	wantField(t, status, body, "audience")
	// Another partner than the bound one is denied, whatever it is called.
	w = newWorld(t, func(c *Config) { c.Proofs = &fakeProofs{binding: &mandate.Binding{Partner: "fabrikam"}} })
	if status, _, answer := post(t, w.caller, "/v1/tokens", goodToken); status != 403 {
		t.Errorf("another partner: got %d %s", status, answer)
	}
	if status, _, answer := post(t, w.operator, "/v1/call", `{"partner":"contoso","audience":"graph","purpose":"x","method":"GET","path":"/"}`); status != 403 {
		t.Errorf("a call: got %d %s", status, answer)
	}
}

// fakeUsers knows one user's token for each of two tenants.
type fakeUsers struct{}

func (fakeUsers) User(_ context.Context, _ mandate.GrantKey, raw string) (mandate.Identity, error) {
	u := mandate.Identity{Tenant: contosoID, Object: must(mandate.ParseObjectID("33333333-3333-3333-3333-333333333333"))}
	switch raw {
	case "adatum":
		u.Tenant = adatumID
		return u, nil
	case "contoso":
		return u, nil
	case "later":
		return u, mandate.ErrUnavailable
	}
	return u, errors.New("the signature is wrong")
}

func TestConfusedDeputyUserToken(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.Users = fakeUsers{} })
	for token, want := range map[string]int{"contoso": 200, "adatum": 403, "rubbish": 403, "later": 503, strings.Repeat("x", 20<<10): 403} {
		records := w.log.Count()
		status, _, answer := post(t, w.caller, "/v1/tokens", merge(goodToken, map[string]any{"user_token": token}))
		if status != want || want == 403 && w.log.Count() != records+1 {
			t.Errorf("%.10q: got %d %s, %d records, want %d", token, status, answer, w.log.Count()-records, want)
		}
		if strings.Contains(answer, strings.Repeat("x", 100)) {
			t.Error("the answer repeats the token")
		}
	}
	asked := w.broker.asked()
	if len(asked) != 1 || asked[0].User == nil || asked[0].User.Tenant != contosoID {
		t.Errorf("asked %+v", asked)
	}
	w = newWorld(t)
	status, _, body := post(t, w.caller, "/v1/tokens", merge(goodToken, map[string]any{"user_token": "contoso"}))
	wantField(t, status, body, "user_token")
}

func TestCallerRegistrations(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	cert := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: w.tls.Certificate().Raw}))
	a, err := w.operator.RegisterCaller(ctx, CallerRequest{ID: "flow", Binding: &mandate.Binding{Partner: "contoso"}, Show: Show{
		Keys: cert, Issuer: "github", Claims: map[string]string{"repository_id": "1"}, Certificate: cert, SPIFFE: "spiffe://a/b", Expires: 3600,
	}})
	if err != nil || a.Secret != "" || len(a.Credentials) != 4 {
		t.Fatalf("%+v, %v", a, err)
	}
	got := w.store.added[0]
	if got.Owner != string(ownCaller()) || got.Binding.Partner != "contoso" || time.Until(got.Credentials[0].Expires) < 59*time.Minute {
		t.Errorf("registered %+v", got)
	}
	if c, err := w.operator.Caller(ctx, "billing"); err != nil || c.ID != "billing" || len(c.Credentials) != 1 {
		t.Errorf("Caller: %+v, %v", c, err)
	}
	if a, err := w.operator.RotateCaller(ctx, "billing", RotateCallerRequest{Overlap: 60}); err != nil || a.Secret != "mdt_next" {
		t.Errorf("RotateCaller: %+v, %v", a, err)
	}
	if a, err := w.operator.AddCredential(ctx, "billing", Show{SPIFFE: "spiffe://a/b"}); err != nil || a.Credentials[0].ID != "K2" {
		t.Errorf("AddCredential: %+v, %v", a, err)
	}
	if err := errors.Join(w.operator.ExpireCredential(ctx, "billing", ExpireRequest{Credential: "K1"}), w.operator.RemoveCaller(ctx, "billing")); err != nil {
		t.Error(err)
	}
	for _, err := range []error{w.operator.RemoveCaller(ctx, "nobody"), w.operator.ExpireCredential(ctx, "nobody", ExpireRequest{Credential: "K1"})} {
		if !errors.Is(err, mandate.ErrNotFound) {
			t.Errorf("got error %v, want %v", err, mandate.ErrNotFound)
		}
	}
	want := []string{"changed add caller flow: key, workload, certificate, spiffe", "add flow", "changed rotate the secret of caller billing", "rotate 1m0s"}
	if got := w.events[:4]; strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("events %q, want %q", got, want)
	}
	for _, body := range []string{`{"id":"uid:0"}`, `{"id":"a b"}`, `{"id":"x","claims":{"a":"b"}}`, `{"id":"x","keys":"zz"}`, `{"id":"x","certificate":"zz"}`, `{"id":"x","expires":-1}`, `{"id":"x","binding":{"purpose":"a b"}}`, `{"id":"x","binding":{"x":1}}`} {
		if status, _, answer := post(t, w.operator, "/v1/callers", body); status != 400 {
			t.Errorf("%s: got %d %s, want 400", body, status, answer)
		}
	}
}
