package demo

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/api"
	"github.com/mandate-sam/mandate/emulator"
)

const (
	peopleApp   = "b0000000-0000-4000-8000-0000000000e1" // to which operators sign in
	callersApp  = "b0000000-0000-4000-8000-0000000000e2" // for which workload tokens are
	workloadApp = "b0000000-0000-4000-8000-0000000000e3"
)

// beginPeopled starts a product whose operators sign in, and which takes
// workload tokens of the vendor's tenant. It returns where sign-ins end, too.
func beginPeopled(t *testing.T, allow string) (*Demo, string, <-chan url.Values) {
	t.Helper()
	d, _ := begin(t, Config{Idle: true})
	redirect, came := d.peopled(t, allow)
	if err := d.serve(context.WithoutCancel(t.Context())); err != nil {
		t.Fatal(err)
	}
	return d, redirect, came
}

// peopled configures a product, which does not run, as beginPeopled does.
func (d *Demo) peopled(t *testing.T, allow string) (string, <-chan url.Values) {
	t.Helper()
	came := make(chan url.Values, 1)
	loopback := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { came <- r.URL.Query() }))
	t.Cleanup(loopback.Close)
	redirect := strings.Replace(loopback.URL, "127.0.0.1", "localhost", 1)
	for _, a := range []emulator.Application{
		{ID: peopleApp, Name: "Mandate operators", Tenant: emulator.CPVTenant, Public: true, RedirectURIs: []string{redirect}, Access: []emulator.Access{{Resource: emulator.Graph, Scopes: []string{"User.Read"}}}},
		{ID: callersApp, Name: "Mandate callers", Tenant: emulator.CPVTenant, AccessTokenVersion: 2, Secrets: []string{"callers"}, Exposes: []emulator.Scope{{Name: "Use", Text: "Use it."}}},
		{ID: workloadApp, Name: "Billing", Tenant: emulator.CPVTenant, Secrets: []string{"workload"}, Access: []emulator.Access{{Resource: callersApp, Scopes: []string{"Use"}}}},
	} {
		if err := d.Emulator.Register(a); err != nil {
			t.Fatal(err)
		}
	}
	replaceIn(t, d.File("mandate.yaml"), "applications:\n", fmt.Sprintf(`operators:
  cloud: emulator
  tenant: %[1]s
  client_id: %[2]s
  authentication_context: c1
  allow: [%[3]s]
callers:
  issuers:
    - {name: northwind, kind: entra, cloud: emulator, tenant: %[1]s, audience: %[4]s}
applications:
`, emulator.CPVTenant, peopleApp, allow, callersApp))
	return redirect, came
}

// signInAs goes through an operator's sign-in, in a tenant, and returns the ID
// token.
func (d *Demo) signInAs(t *testing.T, client *api.Client, redirect string, came <-chan url.Values, user string) (mandate.Secret, error) {
	t.Helper()
	ctx := t.Context()
	start, err := client.BeginSignIn(ctx)
	if err != nil {
		t.Fatal(err)
	}
	verifier := strings.Repeat("v", 43)
	sum := sha256.Sum256([]byte(verifier))
	q := url.Values{
		"client_id": {start.ClientID}, "response_type": {"code"}, "response_mode": {"query"}, "redirect_uri": {redirect}, "scope": {start.Scope},
		"state": {"s"}, "nonce": {start.Nonce}, "prompt": {"login"}, "claims": {start.Claims},
		"code_challenge": {base64.RawURLEncoding.EncodeToString(sum[:])}, "code_challenge_method": {"S256"},
	}
	b := NewBrowser(d.Emulator.Client().Transport)
	p, err := b.Open(ctx, start.AuthorizeURL+"?"+q.Encode())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.SignIn(ctx, p, d.Emulator.Endpoints().Login, user, func(string) {}); err != nil {
		return mandate.Secret{}, err
	}
	got := <-came
	return mandate.NewSecret(d.tokenFrom(t, start.TokenURL, "id_token", url.Values{
		"client_id": {start.ClientID}, "grant_type": {"authorization_code"}, "code": {got.Get("code")}, "redirect_uri": {redirect}, "code_verifier": {verifier}, "scope": {start.Scope},
	})), nil
}

// tokenFrom returns the token of one kind that a token endpoint answers with.
func (d *Demo) tokenFrom(t *testing.T, endpoint, kind string, form url.Values) string {
	t.Helper()
	resp, err := d.Emulator.Client().PostForm(endpoint, form)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var a map[string]any
	if err := json.NewDecoder(resp.Body).Decode(&a); err != nil || a[kind] == nil {
		t.Fatalf("the token endpoint answered %v, %v", a, err)
	}
	return a[kind].(string)
}

// An operator signs in at Entra, and adds a caller, which then shows a token of
// Entra's.
func TestOperatorSignsInAndWorkloadAsks(t *testing.T) {
	const ada = "admin@northwind.example"
	d, redirect, came := beginPeopled(t, `{object: `+objectOf(t, ada)+`, roles: [security]}`)
	ctx := t.Context()
	open, err := api.NewOpenClient(d.API, d.Emulator.Client())
	if err != nil {
		t.Fatal(err)
	}
	idToken, err := d.signInAs(t, open, redirect, came, ada)
	if err != nil {
		t.Fatal(err)
	}
	in, err := open.FinishSignIn(ctx, idToken)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := open.FinishSignIn(ctx, idToken); !errors.Is(err, mandate.ErrUnauthenticated) {
		t.Errorf("the same ID token twice: %v", err)
	}
	person := open.WithSession(mandate.NewSecret(in.Session))
	raw := d.workloadToken(t)
	claims := claimsOf(t, raw)
	show := api.Show{Issuer: "northwind", Claims: map[string]string{"tid": claims["tid"].(string), "oid": claims["oid"].(string)}}
	if _, err := d.Operator.RegisterCaller(ctx, api.CallerRequest{ID: "demo-service", Show: show}); !errors.Is(err, mandate.ErrDenied) {
		t.Errorf("over the socket, without the glass broken: %v", err)
	}
	if _, err := person.RegisterCaller(ctx, api.CallerRequest{ID: "demo-service", Show: show}); err != nil {
		t.Fatal(err)
	}
	// There is no consent yet: who it is and that a rule allows it is settled.
	status, code := d.askWith(t, raw)
	if status != http.StatusNotFound && code != "no_grant" && code != "unknown_partner" {
		t.Errorf("the workload: %d %s", status, code)
	}
	if status, code := d.askWith(t, raw[:len(raw)-8]+"AAAAAAAA"); status != http.StatusUnauthorized {
		t.Errorf("with another signature: %d %s", status, code)
	}
	if err := person.EndSignIn(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := person.Callers(ctx); !errors.Is(err, mandate.ErrUnauthenticated) {
		t.Errorf("after the end: %v", err)
	}
}

// A guest of the tenant, and a user of another, are not let in.
func TestOperatorGuestsAndOtherTenants(t *testing.T) {
	const ada = "admin@northwind.example"
	d, redirect, came := beginPeopled(t, `{object: `+objectOf(t, ada)+`, roles: [security]}`)
	ctx := t.Context()
	open, err := api.NewOpenClient(d.API, d.Emulator.Client())
	if err != nil {
		t.Fatal(err)
	}
	for what, dial := range map[string]func(*emulator.Dials){
		"a guest":        func(x *emulator.Dials) { x.IDToken.Guest = true },
		"another tenant": func(x *emulator.Dials) { x.IDToken.TenantID = emulator.ContosoTenant },
		"another issuer": func(x *emulator.Dials) { x.IDToken.Issuer = "https://evil.example" },
		"another app":    func(x *emulator.Dials) { x.IDToken.Audience = workloadApp },
		"HS256":          func(x *emulator.Dials) { x.IDToken.Algorithm = "HS256" },
		"unknown key":    func(x *emulator.Dials) { x.IDToken.UnknownID = true },
		"expired":        func(x *emulator.Dials) { x.IDToken.Expired = true },
	} {
		before := d.Emulator.Dials()
		d.Emulator.Dial(dial)
		idToken, err := d.signInAs(t, open, redirect, came, ada)
		d.Emulator.Dial(func(x *emulator.Dials) { *x = before })
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if in, err := open.FinishSignIn(ctx, idToken); !errors.Is(err, mandate.ErrUnauthenticated) {
			t.Errorf("%s: got %+v, %v, want %v", what, in, err, mandate.ErrUnauthenticated)
		}
	}
}

// objectOf returns the object ID of a user of the fixture.
func objectOf(t *testing.T, upn string) string {
	t.Helper()
	e := emulator.Start(t)
	u, ok := e.User(upn)
	if !ok {
		t.Fatalf("the fixture has no %s", upn)
	}
	return u.ID
}

// workloadToken returns the workload's own token for callers of ours.
func (d *Demo) workloadToken(t *testing.T) string {
	t.Helper()
	return d.tokenFrom(t, d.Emulator.Endpoints().Login+"/"+emulator.CPVTenant+"/oauth2/v2.0/token", "access_token", url.Values{
		"grant_type": {"client_credentials"}, "client_id": {workloadApp}, "client_secret": {"workload"}, "scope": {callersApp + "/.default"},
	})
}

func claimsOf(t *testing.T, raw string) map[string]any {
	t.Helper()
	var c map[string]any
	payload, err := base64.RawURLEncoding.DecodeString(strings.Split(raw, ".")[1])
	if err == nil {
		err = json.Unmarshal(payload, &c)
	}
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// askWith asks for a token with a workload token, and returns status and code.
func (d *Demo) askWith(t *testing.T, raw string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, d.API+"/v1/tokens", strings.NewReader(`{"partner":"contoso","audience":"graph","purpose":"demo"}`))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "Bearer "+raw)
	resp, err := d.Emulator.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var a struct{ Error struct{ Code string } }
	_ = json.NewDecoder(resp.Body).Decode(&a)
	return resp.StatusCode, a.Error.Code
}
