package emulator_test

import (
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/mandate-sam/mandate/emulator"
)

// workload is another issuer and the key that it signs with.
type workload struct{ signer jose.Signer }

const (
	workloadIssuer  = "https://oidc.cluster.example"
	workloadSubject = "system:serviceaccount:panel:mandate"
)

// newWorkload returns an issuer and its key set.
func newWorkload(t *testing.T, kid string) (workload, json.RawMessage) {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.RS256, Key: key}, (&jose.SignerOptions{}).WithType("JWT").WithHeader("kid", kid))
	if err != nil {
		t.Fatal(err)
	}
	set, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: &key.PublicKey, KeyID: kid, Use: "sig", Algorithm: "RS256"}}})
	if err != nil {
		t.Fatal(err)
	}
	return workload{signer}, set
}

// token returns the usual token, with claims changed.
func (w workload) token(t *testing.T, change map[string]any) string {
	t.Helper()
	now := time.Now().Unix()
	c := map[string]any{"iss": workloadIssuer, "sub": workloadSubject, "aud": []string{"api://AzureADTokenExchange"}, "iat": now, "nbf": now, "exp": now + 600}
	for name, v := range change {
		if c[name] = v; v == nil {
			delete(c, name)
		}
	}
	raw, err := jwt.Signed(w.signer).Claims(c).Serialize()
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func TestFederatedCredential(t *testing.T) {
	e := start(t)
	cluster, keys := newWorkload(t, "k1")
	stranger, _ := newWorkload(t, "k1")
	unknown, _ := newWorkload(t, "k2")
	app, _ := e.Application(emulator.ApplicationID)
	app.Federated = []emulator.Federated{{Name: "cluster", Issuer: workloadIssuer, Subject: workloadSubject, Keys: keys}}
	register(t, e, app)
	now := time.Now().Unix()
	for _, row := range []struct {
		name   string
		with   workload
		change map[string]any
		code   int
	}{
		{"good", cluster, nil, 0},
		{"one audience", cluster, map[string]any{"aud": "api://AzureADTokenExchange"}, 0},
		{"no nbf", cluster, map[string]any{"nbf": nil}, 0},
		{"issuer", cluster, map[string]any{"iss": workloadIssuer + "/"}, 700211},
		{"subject", cluster, map[string]any{"sub": "system:serviceaccount:panel:Mandate"}, 700213},
		{"no subject", cluster, map[string]any{"sub": nil}, 700213},
		{"audience", cluster, map[string]any{"aud": "https://elsewhere.example"}, 700212},
		{"another key", stranger, nil, 700027},
		{"unknown key", unknown, nil, 700027},
		{"expired", cluster, map[string]any{"exp": now - 600}, 700024},
		{"not yet", cluster, map[string]any{"nbf": now + 600}, 700024},
		{"no exp", cluster, map[string]any{"exp": nil}, 50027},
	} {
		for _, version := range []int{1, 2} {
			t.Run(row.name, func(t *testing.T) {
				a := withAssertion(t, e, version, row.with.token(t, row.change))
				if row.code != 0 {
					refused(t, a, 401, row.code, "invalid_client", "")
				} else if c := claims(t, a.str("access_token")); c["appidacr"] != "2" {
					t.Errorf("got %v", a.raw)
				}
			})
		}
	}
	app.Federated = nil
	register(t, e, app)
	refused(t, withAssertion(t, e, 2, cluster.token(t, nil)), 401, 70021, "invalid_client", "")
}

func withAssertion(t *testing.T, e *emulator.Emulator, version int, raw string) answer {
	t.Helper()
	f := []string{"client_secret", "", "client_assertion", raw, "client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"}
	if version == 1 {
		f = append(f, "resource", "https://graph.microsoft.com")
	} else {
		f = append(f, "scope", "https://graph.microsoft.com/.default")
	}
	return token(t, e, version, "adatum.example", "client_credentials", f...)
}

func TestFederatedRegistration(t *testing.T) {
	e := start(t)
	_, keys := newWorkload(t, "k1")
	app, _ := e.Application(emulator.ApplicationID)
	for name, f := range map[string]emulator.Federated{
		"no issuer":  {Subject: "s", Keys: keys},
		"no subject": {Issuer: workloadIssuer, Keys: keys},
		"no keys":    {Issuer: workloadIssuer, Subject: "s"},
		"no key":     {Issuer: workloadIssuer, Subject: "s", Keys: json.RawMessage(`{"keys":[]}`)},
		"a secret":   {Issuer: workloadIssuer, Subject: "s", Keys: json.RawMessage(`{"keys":[{"kty":"oct","k":"AAAA"}]}`)},
	} {
		app.Federated = []emulator.Federated{f}
		if err := e.Register(app); err == nil {
			t.Errorf("%s: registered", name)
		}
	}
}
