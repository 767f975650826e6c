package emulator_test

import (
	"crypto/sha1"
	"encoding/base64"
	"net/url"
	"strings"
	"testing"

	"github.com/mandate-sam/mandate/emulator"
)

func TestMetadata(t *testing.T) {
	e := start(t)
	login := e.Endpoints().Login
	id := login + "/" + emulator.ContosoTenant
	for _, row := range []struct{ path, issuer, token, jwks string }{
		{"/contoso.example/v2.0", id + "/v2.0", id + "/oauth2/v2.0/token", id + "/discovery/v2.0/keys"},
		{"/CONTOSO.example/v2.0", id + "/v2.0", id + "/oauth2/v2.0/token", id + "/discovery/v2.0/keys"},
		{"/" + strings.ToUpper(emulator.ContosoTenant) + "/v2.0", id + "/v2.0", id + "/oauth2/v2.0/token", id + "/discovery/v2.0/keys"},
		{"/common/v2.0", login + "/{tenantid}/v2.0", login + "/common/oauth2/v2.0/token", login + "/common/discovery/v2.0/keys"},
		{"/Organizations/v2.0", login + "/{tenantid}/v2.0", login + "/organizations/oauth2/v2.0/token", login + "/organizations/discovery/v2.0/keys"},
		{"/consumers/v2.0", login + "/9188040d-6c67-4c5b-b112-36a304b66dad/v2.0", login + "/consumers/oauth2/v2.0/token", login + "/consumers/discovery/v2.0/keys"},
		{"/contoso.example", id + "/", id + "/oauth2/token", login + "/common/discovery/keys"},
		{"/common", login + "/{tenantid}/", login + "/common/oauth2/token", login + "/common/discovery/keys"},
	} {
		a := call(t, e, login+row.path+"/.well-known/openid-configuration?", "")
		if a.str("issuer") != row.issuer || a.str("token_endpoint") != row.token || a.str("jwks_uri") != row.jwks {
			t.Errorf("%s: got %q, %q, %q", row.path, a.str("issuer"), a.str("token_endpoint"), a.str("jwks_uri"))
		}
		if _, ok := a.raw["code_challenge_methods_supported"]; ok {
			t.Errorf("%s announces PKCE, which Entra does not", row.path)
		}
		if a.header.Get("Access-Control-Allow-Origin") != "*" {
			t.Errorf("%s: no CORS", row.path)
		}
	}
	refused(t, call(t, e, login+"/nobody.example/v2.0/.well-known/openid-configuration", ""), 400, 90002, "invalid_tenant", "")
	refused(t, call(t, e, login+"/nobody.example/discovery/keys", ""), 400, 90002, "invalid_tenant", "")
}

func TestKeys(t *testing.T) {
	e := start(t)
	login := e.Endpoints().Login
	for path, issuer := range map[string]any{"/common/discovery/keys": nil, "/contoso.example/discovery/v2.0/keys": login + "/{tenantid}/v2.0"} {
		keys := call(t, e, login+path, "").raw["keys"].([]any)
		k := keys[0].(map[string]any)
		der, err := base64.StdEncoding.DecodeString(k["x5c"].([]any)[0].(string))
		if err != nil {
			t.Fatal(err)
		}
		sum := sha1.Sum(der)
		if want := base64.RawURLEncoding.EncodeToString(sum[:]); k["kid"] != want || k["x5t"] != want {
			t.Errorf("%s: got kid %v, x5t %v, want %s", path, k["kid"], k["x5t"], want)
		}
		if k["issuer"] != issuer || k["alg"] != nil || k["e"] != "AQAB" || k["use"] != "sig" || k["kty"] != "RSA" {
			t.Errorf("%s: got %v", path, k)
		}
	}
}

func TestInstanceDiscovery(t *testing.T) {
	e := start(t)
	login := e.Endpoints().Login
	ask := func(endpoint string) answer {
		return call(t, e, login+"/common/discovery/instance?api-version=1.1&authorization_endpoint="+url.QueryEscape(endpoint), "")
	}
	for endpoint, tenant := range map[string]string{
		login + "/contoso.example/oauth2/v2.0/authorize":              "contoso.example",
		"https://localhost/" + emulator.AdatumTenant + "/oauth2/auth": emulator.AdatumTenant, // a client that drops the port
		login: "common",
	} {
		want := login + "/" + tenant + "/v2.0/.well-known/openid-configuration"
		if a := ask(endpoint); a.str("tenant_discovery_endpoint") != want || a.raw["metadata"] == nil {
			t.Errorf("%s: got %v, want %s", endpoint, a.raw, want)
		}
	}
	refused(t, ask("https://login.evil.example/common/oauth2/authorize"), 400, 50049, "invalid_instance", "")
}
