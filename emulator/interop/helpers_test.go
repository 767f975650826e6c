// Package interop_test lets clients that nobody here wrote judge the emulator:
// Microsoft's own libraries, and two of OpenID Connect, each with no other
// settings than a private cloud needs. What such a client accepts is what
// counts; these tests look at its results, not at the wire.
package interop_test

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"html"
	"io"
	"math/big"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/cloud"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/mandate-sam/mandate/emulator"
	"github.com/mandate-sam/mandate/emulator/directory"
)

const (
	redirect = "https://127.0.0.1:8443/callback" // the fixture's application comes back here
	admin    = "admin@contoso.example"           // of the partner, in AdminAgents, with a second factor

	partnerCenter = "https://api.partnercenter.microsoft.com"
	graph         = "https://graph.microsoft.com"
	arm           = "https://management.azure.com"
)

func TestMain(m *testing.M) {
	code := m.Run()
	removeModules()
	os.Exit(code)
}

// start starts an emulator that ends with the test.
func start(t *testing.T) *emulator.Emulator {
	t.Helper()
	e, err := emulator.Open(emulator.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("seed %d", e.Seed())
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	return e
}

// consent consents to all that the fixture's application asks for, for
// everybody at the partner.
func consent(t *testing.T, e *emulator.Emulator) {
	t.Helper()
	for _, resource := range []string{partnerCenter, graph, arm} {
		if err := e.Consent(emulator.ContosoTenant, emulator.ApplicationID, resource); err != nil {
			t.Fatal(err)
		}
	}
}

// ran prints which version of a module the test is built with. The binary of a
// test does not know.
func ran(t *testing.T, module string) {
	t.Helper()
	out, err := exec.Command("go", "list", "-m", module).Output()
	if err != nil {
		t.Fatalf("go list -m %s: %v", module, err)
	}
	t.Log(strings.TrimSpace(string(out)))
}

// client is a client for the libraries: it trusts the emulator's CA, and
// refuses to call anything that is not on this machine, as a library does
// that ignores its settings.
func client(e *emulator.Emulator) *http.Client {
	c := e.Client()
	c.Transport = loopback{c.Transport}
	return c
}

type loopback struct{ next http.RoundTripper }

func (l loopback) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Hostname() != "localhost" {
		return nil, fmt.Errorf("a test called %s, beyond this machine", r.URL.Host)
	}
	return l.next.RoundTrip(r)
}

// azure is what an Azure SDK needs to be told about the emulator. One try
// must do: an answer that is retried is a wrong one.
func azure(e *emulator.Emulator) azcore.ClientOptions {
	return azcore.ClientOptions{
		Cloud: cloud.Configuration{
			ActiveDirectoryAuthorityHost: e.Endpoints().Login + "/",
			Services: map[cloud.ServiceName]cloud.ServiceConfiguration{
				cloud.ResourceManager: {Endpoint: e.Endpoints().ARM, Audience: arm},
			},
		},
		Transport: client(e),
		Retry:     policy.RetryOptions{MaxRetries: -1},
	}
}

// signingKey is one key for all who sign here, because making them takes time.
var signingKey = sync.OnceValues(func() (*rsa.PrivateKey, error) { return rsa.GenerateKey(rand.Reader, 2048) })

// certificate gives the fixture's application a certificate beside its secret,
// and returns it with its key.
func certificate(t *testing.T, e *emulator.Emulator) (*x509.Certificate, *rsa.PrivateKey) {
	t.Helper()
	key, err := signingKey()
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "interop"}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	change(t, e, func(a *emulator.Application) { a.Certificates = append(a.Certificates, der) })
	return cert, key
}

// change changes the registration of the fixture's application.
func change(t *testing.T, e *emulator.Emulator, f func(*emulator.Application)) {
	t.Helper()
	app, _ := e.Application(emulator.ApplicationID)
	f(&app)
	if err := e.Register(app); err != nil {
		t.Fatal(err)
	}
}

// api is a scope of an API of the application's own. Users' tokens for it are
// what it exchanges on their behalf.
const api = "api://" + emulator.ApplicationID + "/access_as_user"

func publish(t *testing.T, e *emulator.Emulator) {
	t.Helper()
	change(t, e, func(a *emulator.Application) { a.Exposes = []directory.Scope{{Name: "access_as_user"}} })
}

// device is an application without a secret, at which people sign in with a
// code that they type elsewhere.
const device = "a0000000-0000-4000-8000-0000000d0d0d"

func addDevice(t *testing.T, e *emulator.Emulator) {
	t.Helper()
	app := emulator.Application{
		ID: device, Name: "Device", Publisher: "Contoso CSP", Tenant: emulator.ContosoTenant, Public: true,
		Access: []emulator.Access{{Resource: graph, Scopes: []string{"User.Read"}}, {Resource: arm, Scopes: []string{"user_impersonation"}}},
	}
	if err := e.Register(app); err != nil {
		t.Fatal(err)
	}
	for _, a := range app.Access {
		if err := e.Consent(emulator.ContosoTenant, device, a.Resource); err != nil {
			t.Fatal(err)
		}
	}
}

// federate makes the application accept tokens of a cluster, and returns one.
func federate(t *testing.T, e *emulator.Emulator) string {
	t.Helper()
	const issuer, subject = "https://cluster.example", "system:serviceaccount:default:panel"
	key, err := signingKey()
	if err != nil {
		t.Fatal(err)
	}
	set, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: key.Public(), KeyID: "cluster", Algorithm: "RS256", Use: "sig"}}})
	if err != nil {
		t.Fatal(err)
	}
	change(t, e, func(a *emulator.Application) {
		a.Federated = []directory.Federated{{Name: "cluster", Issuer: issuer, Subject: subject, Keys: set}}
	})
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.RS256, Key: jose.JSONWebKey{Key: key, KeyID: "cluster"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	token, err := jwt.Signed(signer).Claims(jwt.Claims{
		Issuer: issuer, Subject: subject, Audience: jwt.Audience{directory.FederatedAudience},
		IssuedAt: jwt.NewNumericDate(time.Now()), Expiry: jwt.NewNumericDate(time.Now().Add(time.Hour)),
	}).Serialize()
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// claims decodes a token without verifying it.
func claims(t *testing.T, token string) map[string]any {
	t.Helper()
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		t.Fatalf("a token has %d parts, want 3", len(parts))
	}
	raw, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		t.Fatal(err)
	}
	var c map[string]any
	if err := json.Unmarshal(raw, &c); err != nil {
		t.Fatal(err)
	}
	return c
}

// wantClaims compares the claims that are named.
func wantClaims(t *testing.T, token string, want map[string]any) {
	t.Helper()
	got := claims(t, token)
	for name, w := range want {
		if got[name] != w {
			t.Errorf("claim %s: got %v, want %v", name, got[name], w)
		}
	}
}

// A browser goes through the emulator's pages for somebody who accepts
// everything and has the second factor at hand.
type browser struct {
	t      *testing.T
	login  string
	client *http.Client
}

func newBrowser(t *testing.T, e *emulator.Emulator) *browser {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	c := client(e)
	c.Jar = jar
	return &browser{t, e.Endpoints().Login, c}
}

var (
	pageID = regexp.MustCompile(`<main id="page-([a-z_-]+)">`)
	action = regexp.MustCompile(`<form id="[a-z_-]+" method="post" action="([^"]+)"`)
	hidden = regexp.MustCompile(`<input type="hidden" name="([^"]+)" value="([^"]*)">`)
	otp    = regexp.MustCompile(`id="otp-shown">(\d+)<`)
)

// signIn opens an authorization request and returns the URL at which the
// browser comes back to the application. What a form_post carries is in that
// URL's query.
func (b *browser) signIn(authorize, upn string) *url.URL {
	b.t.Helper()
	at, page := b.open(http.MethodGet, authorize, nil)
	for range 10 {
		if !strings.HasPrefix(at.String(), b.login+"/") {
			return at
		}
		at, page = b.answer(page, upn, "")
	}
	b.t.Fatalf("the sign-in at %s does not end", authorize)
	return nil
}

// enterCode signs in for a device that shows the code.
func (b *browser) enterCode(page, code, upn string) {
	b.t.Helper()
	_, body := b.open(http.MethodGet, page, nil)
	for range 10 {
		if strings.Contains(body, `<main id="page-device_done">`) {
			return
		}
		_, body = b.answer(body, upn, code)
	}
	b.t.Fatalf("the sign-in for a device at %s does not end", page)
}

// answer fills in the form of a page and sends it.
func (b *browser) answer(page, upn, code string) (*url.URL, string) {
	b.t.Helper()
	id, to := pageID.FindStringSubmatch(page), action.FindStringSubmatch(page)
	if id == nil || to == nil {
		b.t.Fatalf("there is nothing to answer on this page:\n%s", page)
	}
	form := url.Values{}
	for _, m := range hidden.FindAllStringSubmatch(page, -1) {
		form.Set(m[1], html.UnescapeString(m[2]))
	}
	target := html.UnescapeString(to[1])
	switch id[1] {
	case "account":
		form.Set("account", upn)
	case "signin":
		form.Set("signin", "yes")
	case "mfa":
		form.Set("otp", otp.FindStringSubmatch(page)[1])
	case "device":
		form.Set("user_code", code)
	case "consent":
		form.Set("decision", "accept")
	case "form_post":
		back, err := url.Parse(target + "?" + form.Encode())
		if err != nil {
			b.t.Fatal(err)
		}
		return back, ""
	default:
		b.t.Fatalf("an unexpected page:\n%s", page)
	}
	return b.open(http.MethodPost, b.login+target, form)
}

// open follows redirects as far as the login host and the first step out.
func (b *browser) open(method, to string, form url.Values) (*url.URL, string) {
	b.t.Helper()
	for range 10 {
		req, err := http.NewRequest(method, to, strings.NewReader(form.Encode()))
		if err != nil {
			b.t.Fatal(err)
		}
		if method == http.MethodPost {
			req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		}
		if !strings.HasPrefix(to, b.login+"/") {
			return req.URL, ""
		}
		res, err := b.client.Do(req)
		if err != nil {
			b.t.Fatal(err)
		}
		body, err := io.ReadAll(res.Body)
		res.Body.Close()
		if err != nil {
			b.t.Fatal(err)
		}
		next, err := res.Location()
		if err != nil {
			return req.URL, string(body)
		}
		method, to, form = http.MethodGet, next.String(), nil
	}
	b.t.Fatal("the redirects do not end")
	return nil, ""
}
