package emulator_test

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math/big"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/mandate-sam/mandate/emulator"
	"github.com/mandate-sam/mandate/emulator/directory"
	"github.com/mandate-sam/mandate/emulator/fault"
)

const partnerApp = "b0000000-0000-4000-8000-00000000c0de"

// writer registers an application of Contoso's with the permissions that
// rotation needs, and returns its administrator's tokens for Graph. The
// administrator has the fixture application's permissions too.
func writer(t *testing.T, e *emulator.Emulator) (graph, refresh string) {
	t.Helper()
	scopes := []string{"User.Read", "User.ReadWrite.All", "Organization.Read.All", "Domain.Read.All", "Directory.Read.All", "Directory.AccessAsUser.All", "Application.ReadWrite.All", "DelegatedPermissionGrant.ReadWrite.All", "DelegatedAdminRelationship.Read.All"}
	for _, tenant := range []string{"contoso.example", "adatum.example"} {
		if err := e.Consent(tenant, emulator.ApplicationID, emulator.Graph, scopes...); err != nil {
			t.Fatal(err)
		}
	}
	if err := e.Register(emulator.Application{ID: partnerApp, Name: "Contoso Tools", Publisher: "Contoso", Tenant: emulator.ContosoTenant, RedirectURIs: []string{redirect}, Secrets: []string{"first"}}); err != nil {
		t.Fatal(err)
	}
	rt := consented(t, e, 2, "admin@contoso.example").str("refresh_token")
	return graphToken(t, e, "contoso.example", rt), rt
}

func graphToken(t *testing.T, e *emulator.Emulator, tenant, rt string, change ...string) string {
	t.Helper()
	a := token(t, e, 2, tenant, "refresh_token", append([]string{"refresh_token", rt, "scope", "https://graph.microsoft.com/.default"}, change...)...)
	if a.status != 200 {
		t.Fatal(a.raw)
	}
	return a.str("access_token")
}

// own asks for the partner application's own token with a secret.
func own(t *testing.T, e *emulator.Emulator, secret string) answer {
	t.Helper()
	return token(t, e, 2, "contoso.example", "client_credentials", "client_id", partnerApp, "client_secret", secret, "scope", "https://graph.microsoft.com/.default")
}

func partnerAppURL(e *emulator.Emulator) string {
	return e.Endpoints().Graph + "/v1.0/applications/" + directory.ObjectID(partnerApp)
}

// Of groups and directory roles, a path can name one type. Other clients read
// the type of each.
func TestMemberOf(t *testing.T) {
	e := start(t)
	tok := graphToken(t, e, "contoso.example", consented(t, e, 2, "admin@contoso.example").str("refresh_token"))
	for path, want := range map[string]string{
		"me/memberOf":                                               "AdminAgents, Global Administrator",
		"me/memberOf/microsoft.graph.group":                         "AdminAgents",
		"me/transitiveMemberOf/microsoft.graph.directoryRole":       "Global Administrator",
		"users/helpdesk@contoso.example/memberOf":                   "HelpdeskAgents",
		"users/helpdesk@contoso.example/transitiveMemberOf":         "HelpdeskAgents",
		"users/tech@contoso.example/memberOf/microsoft.graph.group": "",
		"users/tech@contoso.example/memberOf/graph.directoryRole":   "Cloud Application Administrator",
		"users/tech@contoso.example/memberOf":                       "Cloud Application Administrator",
	} {
		a := call(t, e, e.Endpoints().Graph+"/v1.0/"+path, tok)
		var got []string
		list, _ := a.raw["value"].([]any)
		for _, m := range list {
			got = append(got, m.(map[string]any)["displayName"].(string))
		}
		if a.status != 200 || strings.Join(got, ", ") != want {
			t.Errorf("%s: got %d, %q, want %q", path, a.status, got, want)
		}
	}
}

func TestGraphPassword(t *testing.T) {
	e := start(t)
	tok, _ := writer(t, e)
	u := partnerAppURL(e)
	a := exchange(t, e, "POST", u+"/addPassword", tok, `{"passwordCredential":{"displayName":"rotated"}}`)
	secret := a.str("secretText")
	if a.status != 200 || secret == "" || a.str("hint") != secret[:3] || a.str("displayName") != "rotated" || a.str("keyId") == "" || a.str("endDateTime") == "" {
		t.Fatalf("got %d, %v", a.status, a.raw)
	}
	if got := own(t, e, secret); got.status != 200 {
		t.Errorf("the new secret: %v", got.raw)
	}
	if got := own(t, e, "first"); got.status != 200 {
		t.Errorf("the old secret: %v", got.raw)
	}
	shown := call(t, e, u, tok)
	if b, _ := json.Marshal(shown.raw); strings.Contains(string(b), secret) || strings.Contains(string(b), `"first"`) {
		t.Errorf("the secret is shown again: %s", b)
	}
	creds := shown.raw["passwordCredentials"].([]any)
	if len(creds) != 2 {
		t.Fatalf("got %v", creds)
	}
	for _, c := range creds {
		body := `{"keyId":"` + c.(map[string]any)["keyId"].(string) + `"}`
		if a := exchange(t, e, "POST", u+"/removePassword", tok, body); a.status != 204 || a.raw != nil {
			t.Errorf("got %d, %v", a.status, a.raw)
		}
		if a := exchange(t, e, "POST", u+"/removePassword", tok, body); a.status != 400 || a.errorCode() != "Request_BadRequest" {
			t.Errorf("twice: got %d, %v", a.status, a.raw)
		}
	}
	for _, s := range []string{secret, "first"} {
		if got := own(t, e, s); got.code() != 7000215 {
			t.Errorf("a secret that was removed: %v", got.raw)
		}
	}
}

// A new credential is refused until it has replicated; one that has expired
// or does not count yet is refused too.
func TestReplicationDelay(t *testing.T) {
	e := start(t)
	tok, _ := writer(t, e)
	add := func(body string) string {
		t.Helper()
		a := exchange(t, e, "POST", partnerAppURL(e)+"/addPassword", tok, body)
		if a.status != 200 {
			t.Fatal(a.raw)
		}
		return a.str("secretText")
	}
	e.Dial(func(d *emulator.Dials) { d.ReplicationDelay = 300 * time.Millisecond })
	slow := add(`{}`)
	refused(t, own(t, e, slow), 401, 7000215, "invalid_client", "")
	if got := own(t, e, "first"); got.status != 200 {
		t.Errorf("the old secret meanwhile: %v", got.raw)
	}
	e.Dial(func(d *emulator.Dials) { d.ReplicationDelay = 0 })
	for deadline := time.Now().Add(5 * time.Second); own(t, e, slow).status != 200; {
		if time.Now().After(deadline) {
			t.Fatal("the secret never works")
		}
		time.Sleep(50 * time.Millisecond)
	}
	past := add(`{"passwordCredential":{"startDateTime":"2020-01-01T00:00:00Z","endDateTime":"2020-02-01T00:00:00Z"}}`)
	future := add(`{"passwordCredential":{"startDateTime":"2090-01-01T00:00:00Z"}}`)
	refused(t, own(t, e, past), 401, 7000222, "invalid_client", "")
	refused(t, own(t, e, future), 401, 7000215, "invalid_client", "")
}

// A new application is found by its object id at once, and by its application
// id, at the token endpoint and by others only when it has replicated.
func TestReplicationDelayOfObjects(t *testing.T) {
	e := start(t)
	tok, _ := writer(t, e)
	e.Dial(func(d *emulator.Dials) { d.ReplicationDelay = time.Hour })
	u := e.Endpoints().Graph + "/v1.0/"
	a := exchange(t, e, "POST", u+"applications", tok, `{"displayName":"Young"}`)
	if a.status != 201 {
		t.Fatal(a.raw)
	}
	app := a.str("appId")
	principal := func() answer {
		return exchange(t, e, "POST", u+"servicePrincipals", tok, `{"appId":"`+app+`"}`)
	}
	list := func(kind string) int {
		v, _ := call(t, e, u+kind+"?$filter="+url.QueryEscape("appId eq '"+app+"'"), tok).raw["value"].([]any)
		return len(v)
	}
	if got := call(t, e, u+"applications/"+a.str("id"), tok); got.status != 200 {
		t.Errorf("by object id: %d", got.status)
	}
	if got := call(t, e, u+"applications(appId='"+app+"')", tok); got.status != 404 {
		t.Errorf("by application id: %d", got.status)
	}
	if got := principal(); got.status != 400 {
		t.Errorf("service principal: %d, %v", got.status, got.raw)
	}
	if got := list("applications"); got != 0 {
		t.Errorf("listed: %d", got)
	}
	refused(t, token(t, e, 2, "contoso.example", "client_credentials", "client_id", app, "client_secret", "x", "scope", "https://graph.microsoft.com/.default"), 400, 700016, "unauthorized_client", "")

	e.Dial(func(d *emulator.Dials) { d.ReplicationDelay = 0 })
	app = exchange(t, e, "POST", u+"applications", tok, `{"displayName":"Grown"}`).str("appId")
	e.Dial(func(d *emulator.Dials) { d.ReplicationDelay = time.Hour })
	if got := principal(); got.status != 201 {
		t.Fatal(got.raw)
	}
	if got := principal(); got.status != 409 {
		t.Errorf("again: %d, %v", got.status, got.raw)
	}
	if got := list("servicePrincipals"); got != 0 {
		t.Errorf("listed: %d", got)
	}
	if got := call(t, e, u+"servicePrincipals(appId='"+app+"')", tok); got.status != 404 {
		t.Errorf("by application id: %d", got.status)
	}
}

func certificate(t *testing.T, until time.Time) (*rsa.PrivateKey, []byte) {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "client"}, NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: until}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return key, der
}

func signed(t *testing.T, key *rsa.PrivateKey, der []byte, claims map[string]any) string {
	t.Helper()
	sum := sha1.Sum(der)
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.RS256, Key: key}, (&jose.SignerOptions{}).WithType("JWT").WithHeader("x5t", base64.RawURLEncoding.EncodeToString(sum[:])))
	if err != nil {
		t.Fatal(err)
	}
	raw, err := jwt.Signed(signer).Claims(claims).Serialize()
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// withKey asks for the partner application's own token with a certificate.
func withKey(t *testing.T, e *emulator.Emulator, key *rsa.PrivateKey, der []byte) answer {
	t.Helper()
	now := time.Now()
	assertion := signed(t, key, der, map[string]any{
		"iss": partnerApp, "sub": partnerApp, "jti": fmt.Sprint(now.UnixNano()), "nbf": now.Unix(), "exp": now.Add(time.Minute).Unix(),
		"aud": e.Endpoints().Login + "/contoso.example/oauth2/v2.0/token",
	})
	return token(t, e, 2, "contoso.example", "client_credentials", "client_id", partnerApp, "client_secret", "", "scope", "https://graph.microsoft.com/.default",
		"client_assertion", assertion, "client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer")
}

func TestGraphKeys(t *testing.T) {
	e := start(t)
	tok, _ := writer(t, e)
	u := partnerAppURL(e)
	key1, der1 := certificate(t, time.Now().Add(time.Hour))
	key2, der2 := certificate(t, time.Now().Add(time.Hour))
	stranger, _ := certificate(t, time.Now().Add(time.Hour))
	entry := func(der []byte) string {
		return `{"type":"AsymmetricX509Cert","usage":"Verify","displayName":"k","key":"` + base64.StdEncoding.EncodeToString(der) + `"}`
	}
	proof := func(key *rsa.PrivateKey, der []byte, change ...any) string {
		now := time.Now()
		c := map[string]any{"aud": "00000002-0000-0000-c000-000000000000", "iss": directory.ObjectID(partnerApp), "nbf": now.Unix(), "exp": now.Unix() + 600}
		for i := 0; i+1 < len(change); i += 2 {
			if c[change[i].(string)] = change[i+1]; change[i+1] == nil {
				delete(c, change[i].(string))
			}
		}
		return signed(t, key, der, c)
	}
	add := func(proof string) answer {
		return exchange(t, e, "POST", u+"/addKey", tok, `{"keyCredential":`+entry(der2)+`,"passwordCredential":null,"proof":"`+proof+`"}`)
	}
	if a := add(proof(key1, der1)); a.status != 401 || a.errorCode() != "Authentication_MissingOrMalformed" {
		t.Errorf("no certificate yet: got %d, %v", a.status, a.raw)
	}
	if a := exchange(t, e, "PATCH", u, tok, `{"keyCredentials":[`+entry(der1)+`]}`); a.status != 204 {
		t.Fatalf("the first certificate: %d, %v", a.status, a.raw)
	}
	if got := withKey(t, e, key1, der1); got.status != 200 {
		t.Fatalf("the first certificate does not work: %v", got.raw)
	}
	now := time.Now().Unix()
	for name, p := range map[string]string{
		"stranger": proof(stranger, der1), "audience": proof(key1, der1, "aud", "https://graph.microsoft.com"), "application id": proof(key1, der1, "iss", partnerApp),
		"expired": proof(key1, der1, "nbf", now-3600, "exp", now-3000), "too long": proof(key1, der1, "exp", now+3600), "no expiry": proof(key1, der1, "exp", nil),
		"future": proof(key1, der1, "nbf", now+3600, "exp", now+4000), "no token": "x", "none": "", "unsigned": "e30.e30.",
	} {
		if a := add(p); a.status != 401 || a.errorCode() != "Authentication_MissingOrMalformed" {
			t.Errorf("%s: got %d, %v", name, a.status, a.raw)
		}
	}
	a := add(proof(key1, der1))
	if a.status != 200 || a.str("keyId") == "" || a.raw["key"] != nil {
		t.Fatalf("got %d, %v", a.status, a.raw)
	}
	if got := withKey(t, e, key2, der2); got.status != 200 {
		t.Errorf("the second certificate does not work: %v", got.raw)
	}
	if a := add(proof(key1, der1)); a.status != 400 {
		t.Errorf("the same certificate again: %d, %v", a.status, a.raw)
	}
	if r := exchange(t, e, "POST", u+"/removeKey", tok, `{"keyId":"`+a.str("keyId")+`","proof":"`+proof(stranger, der1)+`"}`); r.status != 401 {
		t.Errorf("removal with a bad proof: %d, %v", r.status, r.raw)
	}
	if r := exchange(t, e, "POST", u+"/removeKey", tok, `{"keyId":"x","proof":"`+proof(key2, der2)+`"}`); r.status != 400 {
		t.Errorf("removal of nothing: %d, %v", r.status, r.raw)
	}
	first := call(t, e, u, tok).raw["keyCredentials"].([]any)[0].(map[string]any)
	if r := exchange(t, e, "POST", u+"/removeKey", tok, `{"keyId":"`+first["keyId"].(string)+`","proof":"`+proof(key2, der2)+`"}`); r.status != 204 {
		t.Errorf("removal: %d, %v", r.status, r.raw)
	}
	refused(t, withKey(t, e, key1, der1), 401, 700027, "invalid_client", "")

	// What is there is named by its thumbprint, in base64 or in hex, and stays.
	e.Dial(func(d *emulator.Dials) { d.ReplicationDelay = time.Hour })
	sum := sha1.Sum(der2)
	for _, id := range []string{base64.StdEncoding.EncodeToString(sum[:]), strings.ToUpper(hex.EncodeToString(sum[:]))} {
		body := `{"keyCredentials":[{"customKeyIdentifier":"` + id + `","key":null,"type":"AsymmetricX509Cert","usage":"Verify"},` + entry(der1) + `]}`
		if r := exchange(t, e, "PATCH", u, tok, body); r.status != 204 {
			t.Errorf("got %d, %v", r.status, r.raw)
		}
		if got := withKey(t, e, key2, der2); got.status != 200 {
			t.Errorf("the certificate that stays: %v", got.raw)
		}
		refused(t, withKey(t, e, key1, der1), 401, 700027, "invalid_client", "")
	}
	for _, body := range []string{`{"keyCredentials":[{"key":"x","type":"AsymmetricX509Cert","usage":"Verify"}]}`, `{"keyCredentials":[{"key":"AAAA","type":"AsymmetricX509Cert","usage":"Verify"}]}`, `{"keyCredentials":[{}]}`, `{"keyCredentials":["x"]}`, `{"keyCredentials":{}}`} {
		if r := exchange(t, e, "PATCH", u, tok, body); r.status != 400 {
			t.Errorf("%s: got %d, %v", body, r.status, r.raw)
		}
	}
}

// The sequence by which an application is registered, to its first token.
func TestGraphRegistration(t *testing.T) {
	e := start(t)
	tok, _ := writer(t, e)
	g := e.Endpoints().Graph + "/v1.0"
	find := func(kind, filter string) []any {
		t.Helper()
		a := call(t, e, g+"/"+kind+"?$filter="+url.QueryEscape(filter), tok)
		if a.status != 200 {
			t.Fatalf("%s: %v", filter, a.raw)
		}
		return a.raw["value"].([]any)
	}
	if got := find("applications", "displayName eq 'It''s new'"); len(got) != 0 {
		t.Fatalf("got %v", got)
	}
	body := `{"displayName":"It's new","signInAudience":"AzureADMultipleOrgs","isFallbackPublicClient":true,"web":{"redirectUris":["` + redirect + `"]},
		"requiredResourceAccess":[{"resourceAppId":"fa3d9a0c-3fb0-42cc-9193-47c7ecd2edbd","resourceAccess":[{"id":"1cebfa2a-fb4d-419e-b5f9-839b4383e05a","type":"Scope"}]},
		{"resourceAppId":"00000003-0000-0000-c000-000000000000","resourceAccess":[{"id":"e1fe6dd8-ba31-4d61-89e7-88639da4683d","type":"Scope"},{"id":"1bfefb4e-e0b5-418b-a88f-73c46d2cc8e9","type":"Role"}]}]}`
	app := exchange(t, e, "POST", g+"/applications", tok, body)
	if app.status != 201 || app.str("appId") == "" || app.str("id") == app.str("appId") {
		t.Fatalf("got %d, %v", app.status, app.raw)
	}
	if got := find("applications", "displayName eq 'It''s new'"); len(got) != 1 {
		t.Fatalf("got %v", got)
	}
	if a := call(t, e, g+"/applications(appId='"+app.str("appId")+"')?$select=id,displayName", tok); a.str("id") != app.str("id") || len(a.raw) != 3 {
		t.Errorf("by application id: %v", a.raw)
	}
	secret := exchange(t, e, "POST", g+"/applications/"+app.str("id")+"/addPassword", tok, "{}").str("secretText")
	ask := func() answer {
		return token(t, e, 2, "contoso.example", "client_credentials", "client_id", app.str("appId"), "client_secret", secret, "scope", "https://graph.microsoft.com/.default")
	}
	refused(t, ask(), 400, 700016, "unauthorized_client", "")
	create := `{"appId":"` + app.str("appId") + `"}`
	sp := exchange(t, e, "POST", g+"/servicePrincipals", tok, create)
	if sp.status != 201 || sp.str("appId") != app.str("appId") {
		t.Fatalf("got %d, %v", sp.status, sp.raw)
	}
	again := exchange(t, e, "POST", g+"/servicePrincipals", tok, create)
	if text, _ := again.raw["error"].(map[string]any)["message"].(string); again.status != 409 || !strings.Contains(text, "already in use") {
		t.Errorf("got %d, %v", again.status, again.raw)
	}
	if a := exchange(t, e, "POST", g+"/servicePrincipals", tok, `{"appId":"c0000000-0000-4000-8000-000000000000"}`); a.status != 400 {
		t.Errorf("of nothing: %d, %v", a.status, a.raw)
	}
	if got := claims(t, ask().str("access_token"))["oid"]; got != sp.str("id") {
		t.Errorf("the token is of %v, the service principal is %s", got, sp.str("id"))
	}
	resource := find("servicePrincipals", "appId eq 'fa3d9a0c-3fb0-42cc-9193-47c7ecd2edbd'")[0].(map[string]any)["id"].(string)
	grant := `{"clientId":"` + sp.str("id") + `","consentType":"AllPrincipals","principalId":null,"resourceId":"` + resource + `","scope":" user_impersonation"}`
	given := exchange(t, e, "POST", g+"/oauth2PermissionGrants", tok, grant)
	if given.status != 201 || given.str("scope") != "user_impersonation" || given.str("consentType") != "AllPrincipals" {
		t.Fatalf("got %d, %v", given.status, given.raw)
	}
	dup := exchange(t, e, "POST", g+"/oauth2PermissionGrants", tok, grant)
	if dup.status != 409 || dup.errorCode() != "Request_MultipleObjectsWithSameKeyValue" {
		t.Errorf("got %d, %v", dup.status, dup.raw)
	}
	if got := find("oauth2PermissionGrants", "clientId eq '"+sp.str("id")+"' and consentType eq 'AllPrincipals'"); len(got) != 1 {
		t.Errorf("got %v", got)
	}

	// With everything granted, the sign-in asks no consent.
	w := newWalker(t, e)
	p := w.signIn(authorizeURL(e, 2, "contoso.example", "client_id", app.str("appId"), "scope", "offline_access https://api.partnercenter.microsoft.com/user_impersonation"), person{upn: "admin@contoso.example"})
	if p.out.Get("code") == "" || strings.Contains(strings.Join(w.pages, " "), "consent") {
		t.Errorf("got %v after pages %q", p.out, w.pages)
	}
	tokens := token(t, e, 2, "contoso.example", "authorization_code", "client_id", app.str("appId"), "client_secret", secret, "code", p.out.Get("code"), "redirect_uri", redirect)
	if a := call(t, e, e.Endpoints().PartnerCenter+"/v1/customers", tokens.str("access_token")); a.status != 200 {
		t.Errorf("Partner Center: %d, %v", a.status, a.raw)
	}

	if a := exchange(t, e, "DELETE", g+"/oauth2PermissionGrants/"+given.str("id"), tok, ""); a.status != 204 {
		t.Errorf("got %d, %v", a.status, a.raw)
	}
	refresh := func() answer {
		return token(t, e, 2, "contoso.example", "refresh_token", "client_id", app.str("appId"), "client_secret", secret, "refresh_token", tokens.str("refresh_token"), "scope", "https://api.partnercenter.microsoft.com/.default")
	}
	refused(t, refresh(), 400, 65001, "invalid_grant", "consent_required")
	if a := exchange(t, e, "DELETE", g+"/applications/"+app.str("id"), tok, ""); a.status != 204 {
		t.Errorf("got %d, %v", a.status, a.raw)
	}
	refused(t, refresh(), 400, 700016, "unauthorized_client", "")
}

// A consent given through Partner Center is a grant that Graph shows and
// changes.
func TestGraphGrantsInCustomerTenant(t *testing.T) {
	e := start(t)
	_, rt := writer(t, e)
	tok := graphToken(t, e, "adatum.example", rt)
	g := e.Endpoints().Graph + "/v1.0/oauth2PermissionGrants"
	sp := directory.PrincipalID(emulator.AdatumTenant, emulator.ApplicationID)
	arm := directory.PrincipalID(emulator.AdatumTenant, emulator.ARM)
	a := call(t, e, g+"?$filter="+url.QueryEscape("clientId eq '"+sp+"' and resourceId eq '"+arm+"'"), tok)
	list := a.raw["value"].([]any)
	if len(list) != 1 || list[0].(map[string]any)["scope"] != "user_impersonation" {
		t.Fatalf("got %v", a.raw)
	}
	id := list[0].(map[string]any)["id"].(string)
	ask := func() int {
		return token(t, e, 1, "adatum.example", "refresh_token", "refresh_token", rt, "resource", "https://management.azure.com/").code()
	}
	if a := exchange(t, e, "PATCH", g+"/"+id, tok, `{"scope":""}`); a.status != 204 || ask() != 65001 {
		t.Errorf("got %d, then %d", a.status, ask())
	}
	if a := exchange(t, e, "PATCH", g+"/"+id, tok, `{"scope":"user_impersonation"}`); a.status != 204 || ask() != 0 {
		t.Errorf("got %d, then %d", a.status, ask())
	}
	e.DelegateRoles(emulator.ContosoTenant, emulator.AdatumTenant, directory.RoleGlobalReader)
	if a := exchange(t, e, "DELETE", g+"/"+id, tok, ""); a.status != 403 {
		t.Errorf("by a reader: got %d, %v", a.status, a.raw)
	}
}

// What Graph is told about an application is what sign-in goes by.
func TestGraphApplicationSettings(t *testing.T) {
	e := start(t)
	tok, _ := writer(t, e)
	a := exchange(t, e, "POST", e.Endpoints().Graph+"/v1.0/applications", tok, `{"displayName":"x"}`)
	if a.status != 201 || a.str("signInAudience") != "AzureADMyOrg" {
		t.Fatalf("got %d, %v", a.status, a.raw)
	}
	body := `{"signInAudience":"AzureADMultipleOrgs","isFallbackPublicClient":true,"identifierUris":["api://x"],"spa":{"redirectUris":["https://localhost/spa"]},
		"web":{"redirectUris":["https://localhost/web"],"implicitGrantSettings":{"enableIdTokenIssuance":true}}}`
	before, _ := e.Application(a.str("appId"))
	if r := exchange(t, e, "PATCH", e.Endpoints().Graph+"/v1.0/applications/"+a.str("id"), tok, body); r.status != 204 {
		t.Fatalf("got %d, %v", r.status, r.raw)
	}
	after, _ := e.Application(a.str("appId"))
	if !before.SingleTenant || after.SingleTenant || !after.Public || !after.IssueIDTokens || after.IssueAccessTokens ||
		fmt.Sprint(after.IdentifierURIs, after.SPARedirectURIs, after.RedirectURIs) != "[api://x] [https://localhost/spa] [https://localhost/web]" {
		t.Errorf("got %+v", after)
	}
	var shown struct {
		SignInAudience string
		SPA, Web       struct{ RedirectURIs []string }
	}
	b, _ := json.Marshal(call(t, e, e.Endpoints().Graph+"/v1.0/applications/"+a.str("id"), tok).raw)
	if err := json.Unmarshal(b, &shown); err != nil || shown.SignInAudience != "AzureADMultipleOrgs" || len(shown.SPA.RedirectURIs)+len(shown.Web.RedirectURIs) != 2 {
		t.Errorf("got %s, %v", b, err)
	}
}

// A resource without a service principal is refused until it gets one.
func TestGraphMissingResource(t *testing.T) {
	e := start(t)
	tok, rt := writer(t, e)
	e.Uninstall(emulator.ContosoTenant, emulator.PartnerCenter)
	ask := func() int {
		return token(t, e, 1, "contoso.example", "refresh_token", "refresh_token", rt, "resource", "https://api.partnercenter.microsoft.com").code()
	}
	if got := ask(); got != 500011 {
		t.Errorf("got %d, want 500011", got)
	}
	body := `{"appId":"` + emulator.PartnerCenter + `"}`
	for _, status := range []int{201, 409} {
		if a := exchange(t, e, "POST", e.Endpoints().Graph+"/v1.0/servicePrincipals", tok, body); a.status != status {
			t.Errorf("got %d, %v, want %d", a.status, a.raw, status)
		}
	}
	if got := ask(); got != 65001 {
		t.Errorf("got %d, want 65001: the grants went with the service principal", got)
	}
}

func TestGraphRevoke(t *testing.T) {
	e := start(t)
	tok, rt := writer(t, e)
	other := consented(t, e, 2, "admin2@contoso.example").str("refresh_token")
	a := exchange(t, e, "POST", e.Endpoints().Graph+"/v1.0/users/admin2@contoso.example/revokeSignInSessions", tok, "")
	if a.status != 200 || a.raw["value"] != true {
		t.Fatalf("got %d, %v", a.status, a.raw)
	}
	refused(t, token(t, e, 2, "contoso.example", "refresh_token", "refresh_token", other, "scope", "User.Read"), 400, 50173, "invalid_grant", "bad_token")

	// A client that answers claims challenges is told which token it needs.
	cae := graphToken(t, e, "contoso.example", rt, "claims", `{"access_token":{"xms_cc":{"values":["CP1"]}}}`)
	if a := exchange(t, e, "POST", e.Endpoints().Graph+"/v1.0/me/revokeSignInSessions", cae, ""); a.status != 200 {
		t.Fatalf("got %d, %v", a.status, a.raw)
	}
	for token, challenged := range map[string]bool{cae: true, tok: false} {
		a := call(t, e, e.Endpoints().Graph+"/v1.0/me", token)
		h := a.header.Get("WWW-Authenticate")
		if a.status != 401 || a.errorCode() != "InvalidAuthenticationToken" || strings.Contains(h, `error="insufficient_claims"`) != challenged {
			t.Errorf("got %d, %v, %s", a.status, a.raw, h)
		}
	}
}

func TestServiceClaimsChallenge(t *testing.T) {
	e := start(t)
	tok, rt := writer(t, e)
	before := time.Now().Unix()
	e.Dial(func(d *emulator.Dials) {
		d.Challenges = []fault.Challenge{{Service: "graph", User: "nobody"}, {Service: "graph", User: "ADMIN@contoso.example"}, {Service: "arm", Claims: `{"access_token":{"acrs":{"essential":true,"value":"c1"}}}`}}
	})
	a := call(t, e, e.Endpoints().Graph+"/v1.0/me", tok)
	h := a.header.Get("WWW-Authenticate")
	prefix := `Bearer realm="", authorization_uri="` + e.Endpoints().Login + `/common/oauth2/authorize", client_id="00000003-0000-0000-c000-000000000000", error="insufficient_claims", claims="`
	encoded, ok := strings.CutPrefix(h, prefix)
	if !ok || a.status != 401 || a.errorCode() != "InvalidAuthenticationToken" {
		t.Fatalf("got %d, %q, %v", a.status, h, a.raw)
	}
	b, err := base64.StdEncoding.DecodeString(strings.TrimSuffix(encoded, `"`))
	if err != nil {
		t.Fatal(err)
	}
	var at int64
	if _, err := fmt.Sscanf(string(b), `{"access_token":{"nbf":{"essential":true, "value":"%d"}}}`, &at); err != nil || at < before {
		t.Errorf("got %s", b)
	}
	fresh := graphToken(t, e, "contoso.example", rt, "claims", string(b))
	if a := call(t, e, e.Endpoints().Graph+"/v1.0/me", fresh); a.status != 200 {
		t.Errorf("the new token: %d, %v", a.status, a.raw)
	}
	arm := token(t, e, 1, "adatum.example", "refresh_token", "refresh_token", rt, "resource", "https://management.azure.com/").str("access_token")
	a = call(t, e, e.Endpoints().ARM+"/subscriptions?api-version=2022-12-01", arm)
	if a.status != 401 || !strings.Contains(a.header.Get("WWW-Authenticate"), `error="insufficient_claims"`) {
		t.Errorf("ARM: got %d, %v", a.status, a.header)
	}
	if a := call(t, e, e.Endpoints().ARM+"/subscriptions?api-version=2022-12-01", arm); a.status != 200 {
		t.Errorf("ARM again: got %d, %v", a.status, a.raw)
	}
}

func TestTokenLifetimePolicies(t *testing.T) {
	e := start(t)
	tok, _ := writer(t, e)
	u := e.Endpoints().Graph + "/v1.0/policies/tokenLifetimePolicies"
	definition := func(span string) string {
		return `{"displayName":"long","definition":["{\"TokenLifetimePolicy\":{\"Version\":1,\"AccessTokenLifetime\":\"` + span + `\"}}"]}`
	}
	p := exchange(t, e, "POST", u, tok, definition("8:00:00"))
	if p.status != 201 || p.str("displayName") != "long" || p.raw["isOrganizationDefault"] != false {
		t.Fatalf("got %d, %v", p.status, p.raw)
	}
	ref := partnerAppURL(e) + "/tokenLifetimePolicies"
	assign := `{"@odata.id":"https://graph.microsoft.com/v1.0/policies/tokenLifetimePolicies/` + p.str("id") + `"}`
	for i, row := range []struct {
		method, url, body string
		status            int
	}{
		{"POST", ref + "/$ref", assign, 204},
		{"POST", ref + "/$ref", assign, 400},
		{"POST", ref + "/$ref", `{"@odata.id":"x"}`, 404},
		{"GET", ref, "", 200},
		{"PATCH", u + "/" + p.str("id"), definition("1.00:00:00"), 204},
		{"PATCH", u + "/" + p.str("id"), definition("1.00:00:01"), 400},
		{"PATCH", u + "/" + p.str("id"), definition("0:09:59"), 400},
		{"PATCH", u + "/" + p.str("id"), definition("-1:00:00"), 400},
		{"PATCH", u + "/" + p.str("id"), `{"definition":["x"]}`, 400},
		{"POST", u, `{"displayName":"x"}`, 400},
		{"GET", u + "/" + p.str("id"), "", 200},
		{"DELETE", ref + "/" + p.str("id") + "/$ref", "", 204},
		{"DELETE", ref + "/" + p.str("id") + "/$ref", "", 404},
		{"DELETE", u + "/" + p.str("id"), "", 204},
		{"GET", u + "/" + p.str("id"), "", 404},
	} {
		if row.method == "DELETE" && row.status == 204 && strings.HasSuffix(row.url, "$ref") {
			if got := own(t, e, "first").raw["expires_in"]; got != 86400.0 {
				t.Errorf("tokens live for %v, want the policy's day", got)
			}
		}
		if a := exchange(t, e, row.method, row.url, tok, row.body); a.status != row.status {
			t.Errorf("%d: %s %s: got %d, %v, want %d", i, row.method, row.url, a.status, a.raw, row.status)
		}
	}
}

func TestGraphDelegatedAdmin(t *testing.T) {
	e := start(t)
	tok, _ := writer(t, e)
	u := e.Endpoints().Graph + "/v1.0/tenantRelationships/"
	a := call(t, e, u+"delegatedAdminRelationships?$filter="+url.QueryEscape("customer/tenantId eq '"+emulator.AdatumTenant+"' and status eq 'active'"), tok)
	list, _ := a.raw["value"].([]any)
	if a.status != 200 || len(list) != 1 {
		t.Fatalf("got %d, %v", a.status, a.raw)
	}
	id := list[0].(map[string]any)["id"].(string)
	for path, status := range map[string]int{
		"delegatedAdminRelationships/" + id: 200, "delegatedAdminRelationships/" + id + "/accessAssignments": 200, "delegatedAdminRelationships/" + id + "/requests": 200,
		"delegatedAdminRelationships/x": 404, "delegatedAdminCustomers": 200, "delegatedAdminCustomers/" + emulator.AdatumTenant: 200, "delegatedAdminCustomers/" + emulator.TailspinTenant: 404,
	} {
		if a := call(t, e, u+path, tok); a.status != status {
			t.Errorf("%s: got %d, %v, want %d", path, a.status, a.raw, status)
		}
	}
	e.Undelegate(emulator.ContosoTenant, emulator.AdatumTenant)
	if a := call(t, e, u+"delegatedAdminRelationships/"+id, tok); a.status != 404 {
		t.Errorf("after the end: %d, %v", a.status, a.raw)
	}
}

func TestGraphPaging(t *testing.T) {
	e := start(t)
	_, rt := writer(t, e)
	tok := graphToken(t, e, "adatum.example", rt)
	next := e.Endpoints().Graph + "/v1.0/Users/?$top=2&$select=userPrincipalName&$count=true"
	var names []any
	for pages := 0; next != ""; pages++ {
		a := call(t, e, next, tok)
		if a.status != 200 || pages > 2 || a.raw["@odata.count"] != 3.0 {
			t.Fatalf("%s: %d, %v", next, a.status, a.raw)
		}
		for _, u := range a.raw["value"].([]any) {
			if len(u.(map[string]any)) != 1 {
				t.Errorf("got %v, want one property", u)
			}
			names = append(names, u.(map[string]any)["userPrincipalName"])
		}
		next = a.str("@odata.nextLink")
	}
	if fmt.Sprint(names) != "[owner@adatum.example ines@adatum.example omar@adatum.example]" {
		t.Errorf("got %v", names)
	}
	for filter, want := range map[string]int{
		"": 3, "startswith(userPrincipalName,'O')": 2, "startswith(displayName, 'olga') and userPrincipalName eq 'owner@adatum.example'": 1, "jobTitle eq null": 3, "id eq 'x'": 0, "shoe eq 'x'": 0,
	} {
		a := call(t, e, e.Endpoints().Graph+"/v1.0/users?$filter="+url.QueryEscape(filter), tok)
		if list, _ := a.raw["value"].([]any); a.status != 200 || len(list) != want {
			t.Errorf("%s: got %d, %v", filter, a.status, a.raw)
		}
	}
	for _, q := range []string{"$top=0", "$top=1000", "$top=x", "$skiptoken=!", "$skiptoken=LTE", "$skiptoken=OTk5", "$filter=" + url.QueryEscape("id ne 'x'"), "$filter=" + url.QueryEscape("id eq 'x' and"), "$filter=" + url.QueryEscape("id eq 'x"), "$filter=and"} {
		if a := call(t, e, e.Endpoints().Graph+"/v1.0/users?"+q, tok); a.status != 400 || a.errorCode() != "BadRequest" {
			t.Errorf("%s: got %d, %v", q, a.status, a.raw)
		}
	}
}

func TestGraphRefuses(t *testing.T) {
	e := start(t)
	tok, _ := writer(t, e)
	plain := graphToken(t, e, "contoso.example", consented(t, e, 2, "sales@contoso.example").str("refresh_token"))
	e.DelegateRoles(emulator.ContosoTenant, emulator.AdatumTenant)
	helper := own(t, e, "first").str("access_token")
	g := e.Endpoints().Graph + "/v1.0"
	object := directory.ObjectID(partnerApp)
	for _, row := range []struct {
		method, path, token, body string
		status                    int
		code                      string
	}{
		{"POST", "/applications", tok, "{", 400, "BadRequest"},
		{"POST", "/applications", tok, "", 400, "BadRequest"},
		{"POST", "/applications", tok, "{}", 400, "Request_BadRequest"},
		{"POST", "/applications", tok, `{"displayName":7}`, 400, "BadRequest"},
		{"POST", "/applications", tok, `{"displayName":"x","signInAudience":"everybody"}`, 400, "Request_BadRequest"},
		{"POST", "/applications", tok, `{"displayName":"x","web":{"redirectUris":["x"]}}`, 400, "Request_BadRequest"},
		{"POST", "/applications", helper, `{"displayName":"x"}`, 403, "Authorization_RequestDenied"},
		{"GET", "/applications/" + directory.ObjectID(emulator.ApplicationID), tok, "", 404, "Request_ResourceNotFound"},
		{"GET", "/applications/" + partnerApp, tok, "", 404, "Request_ResourceNotFound"},
		{"POST", "/applications/x/addPassword", tok, "{}", 404, "Request_ResourceNotFound"},
		{"POST", "/applications/" + object + "/addPassword", tok, `{"passwordCredential":{"endDateTime":"soon"}}`, 400, "BadRequest"},
		{"POST", "/applications/" + object + "/addPassword", tok, `{"passwordCredential":{"endDateTime":"2001-01-01T00:00:00Z"}}`, 400, "Request_BadRequest"},
		{"POST", "/applications/" + object + "/removePassword", tok, `[]`, 400, "BadRequest"},
		{"POST", "/oauth2PermissionGrants", tok, `{}`, 400, "Request_BadRequest"},
		{"PATCH", "/oauth2PermissionGrants/x", tok, `{}`, 404, "Request_ResourceNotFound"},
		{"GET", "/servicePrincipals/x", tok, "", 404, "Request_ResourceNotFound"},
		{"GET", "/users/ines@adatum.example", tok, "", 404, "Request_ResourceNotFound"},
		{"GET", "/organization/x", tok, "", 404, "Request_ResourceNotFound"},
		{"PUT", "/applications", tok, "{}", 400, "BadRequest"},
		{"GET", "/shoes", "", "", 400, "BadRequest"},
		{"GET", "/me", "", "", 401, "InvalidAuthenticationToken"},
	} {
		a := exchange(t, e, row.method, g+row.path, row.token, row.body)
		if a.status != row.status || a.errorCode() != row.code {
			t.Errorf("%s %s %s: got %d, %v, want %d, %s", row.method, row.path, row.body, a.status, a.raw, row.status, row.code)
			continue
		}
		inner, _ := a.raw["error"].(map[string]any)["innerError"].(map[string]any)
		if date, _ := inner["date"].(string); len(date) != len("2006-01-02T15:04:05") || inner["request-id"] == "" || inner["client-request-id"] == "" {
			t.Errorf("%s: got %v", row.path, a.raw)
		}
	}
	if a := exchange(t, e, "POST", g+"/applications", plain, `{"displayName":"x"}`); a.status != 201 {
		t.Errorf("a Cloud Application Administrator: %d, %v", a.status, a.raw)
	}
}
