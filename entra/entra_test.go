package entra

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"math/big"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/mandate-sam/mandate"
)

const (
	partnerID  = "11111111-2222-4333-8444-555555555501"
	customerID = "11111111-2222-4333-8444-555555555502"
	appID      = "aaaaaaaa-bbbb-4ccc-8ddd-eeeeeeeeee01"
	userID     = "cccccccc-bbbb-4ccc-8ddd-eeeeeeeeee01"
	authority  = "https://login.test:8443"
	nonce      = "the-nonce"
	graph      = "https://graph.test"

	// The canaries must never be seen in an error.
	canarySecret   = "CANARY-secret~value"
	canaryRefresh  = "CANARY-refresh.token/+="
	canaryCode     = "CANARY-code"
	canaryVerifier = "CANARY-verifier-0123456789012345678901234567890123456789"
)

var (
	partner  = must(mandate.ParseTenantID(partnerID))
	customer = must(mandate.ParseTenantID(customerID))
	app      = must(mandate.ParseAppID(appID))

	testKey  = sync.OnceValue(func() *rsa.PrivateKey { return must(rsa.GenerateKey(rand.Reader, 2048)) })
	otherKey = sync.OnceValue(func() *rsa.PrivateKey { return must(rsa.GenerateKey(rand.Reader, 2048)) })
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func testCloud() mandate.Cloud {
	return mandate.Cloud{
		Name: "test", Authority: authority,
		IssuerV1: "https://sts.test/{tenantid}/", IssuerV2: authority + "/{tenantid}/v2.0",
		Audiences: map[string]mandate.Endpoint{
			mandate.PartnerCenter: {Resource: "https://pc.test", URL: "https://pc.test"},
			mandate.Graph:         {Resource: graph, URL: graph},
			mandate.ARM:           {Resource: "https://arm.test/", URL: "https://arm.test"},
		},
		Custom: true,
	}
}

// A fakeEntra answers token and key requests, without a network so that time
// can be faked too. The dials are set before requests are made.
type fakeEntra struct {
	status int // of token answers; 0 is 200
	header http.Header
	body   string
	err    error // instead of an answer

	keySet   []map[string]any
	keysErr  error
	keysBody string // instead of keySet
	keysType string // zero is JSON
	keysCode int    // zero is 200
	keysHold chan struct{}

	mu      sync.Mutex // guards what was asked
	forms   []url.Values
	urls    []string
	headers []http.Header
	fetches int
}

func (f *fakeEntra) RoundTrip(r *http.Request) (*http.Response, error) {
	if strings.Contains(r.URL.Path, "/discovery/") {
		return f.answerKeys(r)
	}
	body := must(io.ReadAll(r.Body))
	f.mu.Lock()
	defer f.mu.Unlock()
	f.forms = append(f.forms, must(url.ParseQuery(string(body))))
	f.urls = append(f.urls, r.Method+" "+r.URL.String())
	f.headers = append(f.headers, r.Header)
	if f.err != nil {
		return nil, f.err
	}
	h := http.Header{"Content-Type": {"application/json; charset=utf-8"}}
	maps.Copy(h, f.header)
	return response(r, cmp.Or(f.status, 200), h, f.body), nil
}

func (f *fakeEntra) answerKeys(r *http.Request) (*http.Response, error) {
	f.mu.Lock()
	f.fetches++
	f.urls = append(f.urls, r.Method+" "+r.URL.String())
	err, body, hold := f.keysErr, f.keysBody, f.keysHold
	status, kind := cmp.Or(f.keysCode, 200), cmp.Or(f.keysType, "application/json")
	if body == "" {
		body = string(must(json.Marshal(map[string]any{"keys": f.keySet})))
	}
	f.mu.Unlock()
	if hold != nil {
		<-hold
	}
	if err != nil {
		return nil, err
	}
	return response(r, status, http.Header{"Content-Type": {kind}}, body), nil
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

func response(r *http.Request, status int, h http.Header, body string) *http.Response {
	return &http.Response{StatusCode: status, Header: h, Body: io.NopCloser(strings.NewReader(body)), Request: r, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1}
}

// jwk is a key as Entra publishes it.
func jwk(kid, issuer string, k *rsa.PublicKey) map[string]any {
	m := map[string]any{
		"kty": "RSA", "use": "sig", "kid": kid,
		"n": base64.RawURLEncoding.EncodeToString(k.N.Bytes()), "e": "AQAB",
	}
	if issuer != "" {
		m["issuer"] = issuer
	}
	return m
}

func newFake() *fakeEntra {
	return &fakeEntra{keySet: []map[string]any{
		jwk("good", authority+"/{tenantid}/v2.0", &testKey().PublicKey),
		jwk("personal", authority+"/"+personal+"/v2.0", &otherKey().PublicKey),
	}}
}

func newClient(t testing.TB, f *fakeEntra, v Version) *Client {
	t.Helper()
	s := must(NewSecret(mandate.NewSecret(canarySecret)))
	c, err := New(Config{Cloud: testCloud(), Application: app, Version: v, Credential: s, HTTP: &http.Client{Transport: f}})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func key() mandate.GrantKey {
	return mandate.GrantKey{Cloud: "test", Application: app, Partner: partner}
}

func redemption(tenant mandate.TenantID) mandate.Redemption {
	return mandate.Redemption{Key: key(), Tenant: tenant, Audience: graph, Refresh: mandate.NewSecret(canaryRefresh)}
}

func codeRedemption() mandate.CodeRedemption {
	return mandate.CodeRedemption{
		Key: key(), Audience: "https://pc.test", Nonce: nonce, RedirectURI: "https://onboard.test/callback",
		Code: mandate.NewSecret(canaryCode), Verifier: mandate.NewSecret(canaryVerifier),
	}
}

// idToken returns the claims of a good v2 ID token with changes; a nil change
// deletes.
func idToken(changes map[string]any) map[string]any {
	now := time.Now().Unix()
	m := map[string]any{
		"iss": authority + "/" + partnerID + "/v2.0", "aud": appID, "tid": partnerID, "oid": userID, "ver": "2.0",
		"nonce": nonce, "iat": now, "nbf": now, "exp": now + 3600, "sub": "s",
		"preferred_username": "ada@contoso.test", "name": "Ada",
	}
	for k, v := range changes {
		if m[k] = v; v == nil {
			delete(m, k)
		}
	}
	return m
}

// idTokenV1 is [idToken] for v1.
func idTokenV1(changes map[string]any) map[string]any {
	m := idToken(map[string]any{"iss": "https://sts.test/" + partnerID + "/", "ver": "1.0", "preferred_username": nil, "upn": "ada@contoso.test", "amr": []string{"pwd", "mfa"}})
	maps.Copy(m, changes)
	return m
}

func sign(kid string, alg jose.SignatureAlgorithm, k any, claims map[string]any) string {
	s := must(jose.NewSigner(jose.SigningKey{Algorithm: alg, Key: k}, (&jose.SignerOptions{}).WithType("JWT").WithHeader("kid", kid)))
	return must(must(s.Sign(must(json.Marshal(claims)))).CompactSerialize())
}

func good(claims map[string]any) string { return sign("good", jose.RS256, testKey(), claims) }

// accessToken returns a token of Graph's form; nobody verifies it.
func accessToken(claims map[string]any) string {
	enc := base64.RawURLEncoding
	return enc.EncodeToString([]byte(`{"typ":"JWT","alg":"RS256"}`)) + "." + enc.EncodeToString(must(json.Marshal(claims))) + ".c2ln"
}

// answerV2 is a v2 token response with changes; a nil change deletes.
func answerV2(changes map[string]any) string {
	m := map[string]any{
		"token_type": "Bearer", "scope": "email openid profile https://graph.test/User.Read https://graph.test/.default",
		"expires_in": 4000, "ext_expires_in": 4000, "access_token": accessToken(map[string]any{"amr": []string{"pwd", "mfa"}, "uti": "U1", "iat": 1700000000, "scp": "x"}),
		"refresh_token": "next", "foci": "1",
	}
	for k, v := range changes {
		if m[k] = v; v == nil {
			delete(m, k)
		}
	}
	return string(must(json.Marshal(m)))
}

// wantFault returns the fault in err, or ends the test.
func wantFault(t *testing.T, err error) *mandate.Fault {
	t.Helper()
	f, ok := errors.AsType[*mandate.Fault](err)
	if !ok {
		t.Fatalf("error is %T %v, want a *mandate.Fault", err, err)
	}
	noCanary(t, err)
	return f
}

func wantRefusal(t *testing.T, err error, reason mandate.Reason) *mandate.Refusal {
	t.Helper()
	r, ok := errors.AsType[*mandate.Refusal](err)
	if !ok {
		t.Fatalf("error is %T %v, want a *mandate.Refusal", err, err)
	}
	if r.Reason != reason {
		t.Errorf("reason %q (%v), want %q", r.Reason, err, reason)
	}
	noCanary(t, err)
	return r
}

func noCanary(t *testing.T, err error) {
	t.Helper()
	var b bytes.Buffer
	for e := range tree(err) {
		b.WriteString(e.Error() + "\n")
		if f, ok := e.(*mandate.Fault); ok {
			b.Write(must(json.Marshal(struct{ A, B, C, D, E, F, G string }{f.OAuthError, f.Suberror, f.Description, f.Claims, f.CorrelationID, f.TraceID, f.Timestamp})))
		}
	}
	if s := b.String(); strings.Contains(s, "CANARY") {
		t.Errorf("an error repeats a secret: %s", s)
	}
}

// tree yields err and everything that it wraps.
func tree(err error) map[error]bool {
	all := map[error]bool{}
	var walk func(error)
	walk = func(e error) {
		if e == nil || all[e] {
			return
		}
		all[e] = true
		switch u := e.(type) {
		case interface{ Unwrap() error }:
			walk(u.Unwrap())
		case interface{ Unwrap() []error }:
			for _, e := range u.Unwrap() {
				walk(e)
			}
		}
	}
	walk(err)
	return all
}

// testCertificate returns a self-signed certificate of k.
func testCertificate(k *rsa.PrivateKey, until time.Time) []byte {
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: until.AddDate(-1, 0, 0), NotAfter: until}
	return must(x509.CreateCertificate(rand.Reader, tmpl, tmpl, &k.PublicKey, k))
}

func thumbprint(der []byte) string {
	sum := sha256.Sum256(der)
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

func TestNew(t *testing.T) {
	ok := Config{Cloud: testCloud(), Application: app, Credential: &Secret{}, HTTP: &http.Client{}}
	if _, err := New(ok); err != nil {
		t.Fatal(err)
	}
	for field, spoil := range map[string]func(*Config){
		"application": func(c *Config) { c.Application = mandate.AppID{} },
		"credential":  func(c *Config) { c.Credential = nil },
		"http":        func(c *Config) { c.HTTP = nil },
		"version":     func(c *Config) { c.Version = "v3" },
		"authority":   func(c *Config) { c.Cloud.Authority = "http://login.test" },
	} {
		cfg := ok
		spoil(&cfg)
		_, err := New(cfg)
		if e, isInvalid := errors.AsType[*mandate.InvalidError](err); !isInvalid || e.Field != field {
			t.Errorf("New without a good %s: %v", field, err)
		}
	}
}

func TestAuthorizeURL(t *testing.T) {
	req := AuthorizeRequest{
		Tenant: partner, RedirectURI: "https://onboard.test/callback", State: "st", Nonce: "no", Challenge: "ch",
		Audience: "https://arm.test/", LoginHint: "ada@contoso.test",
	}
	common := url.Values{
		"client_id": {appID}, "response_type": {"code"}, "response_mode": {"form_post"}, "redirect_uri": {"https://onboard.test/callback"},
		"state": {"st"}, "nonce": {"no"}, "code_challenge": {"ch"}, "code_challenge_method": {"S256"}, "login_hint": {"ada@contoso.test"},
		"prompt": {"login"}, "max_age": {"0"}, "amr_values": {"mfa"},
		"claims": {`{"id_token":{"amr":{"essential":true,"values":["mfa"]},"auth_time":{"essential":true}}}`},
	}
	for _, tt := range []struct {
		name    string
		version Version
		consent bool
		path    string
		more    url.Values
	}{
		{"v2", V2, false, "/oauth2/v2.0/authorize", url.Values{"scope": {"https://arm.test//.default openid profile offline_access"}}},
		{"v1", V1, false, "/oauth2/authorize", url.Values{"resource": {"https://arm.test/"}, "scope": {"openid"}}},
		{"v2 consent", V2, true, "/oauth2/v2.0/authorize", url.Values{"scope": {"https://arm.test//.default openid profile offline_access"}, "prompt": {"consent"}}},
	} {
		r := req
		r.Consent = tt.consent
		u := must(url.Parse(newClient(t, newFake(), tt.version).AuthorizeURL(r)))
		want := maps.Clone(common)
		maps.Copy(want, tt.more)
		if got := u.Scheme + "://" + u.Host + u.Path; got != authority+"/"+partnerID+tt.path {
			t.Errorf("%s: address %s", tt.name, got)
		}
		if got := u.Query().Encode(); got != want.Encode() {
			t.Errorf("%s:\n got %s\nwant %s", tt.name, got, want.Encode())
		}
	}
	req.LoginHint = ""
	if u := newClient(t, newFake(), V2).AuthorizeURL(req); strings.Contains(u, "login_hint") {
		t.Errorf("an empty login hint is sent: %s", u)
	}
}

func ctx() context.Context { return context.Background() }

func withCancel() (context.Context, context.CancelFunc) { return context.WithCancel(ctx()) }
