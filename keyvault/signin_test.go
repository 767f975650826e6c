package keyvault_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/emulator"
	"github.com/mandate-sam/mandate/entra"
	"github.com/mandate-sam/mandate/keyvault"
)

// redeem redeems a refresh token of a partner's that does not exist, and
// returns Entra's error number: whether it knew the application comes first.
func redeem(t *testing.T, w *world, c entra.Credential) (int, error) {
	t.Helper()
	cloud := w.cloud
	login := w.e.Endpoints().Login
	cloud.IssuerV1, cloud.IssuerV2 = login+"/{tenantid}/", login+"/{tenantid}/v2.0"
	cloud.Audiences = map[string]mandate.Endpoint{}
	for name, u := range map[string]string{mandate.PartnerCenter: "https://api.partnercenter.test", mandate.Graph: "https://graph.test", mandate.ARM: "https://arm.test"} {
		cloud.Audiences[name] = mandate.Endpoint{Resource: mandate.Audience(u), URL: u}
	}
	app := must(mandate.ParseAppID(emulator.ApplicationID))(t)
	partner := must(mandate.ParseTenantID(emulator.ContosoTenant))(t)
	client := must(entra.New(entra.Config{Cloud: cloud, Application: app, Version: entra.V2, Credential: c, HTTP: w.e.Client()}))(t)
	_, err := client.Redeem(t.Context(), mandate.Redemption{
		Key: mandate.GrantKey{Cloud: cloud.Name, Application: app, Partner: partner}, Tenant: partner,
		Audience: cloud.Audiences[mandate.Graph].Resource, Refresh: mandate.NewSecret("none"),
	})
	fault, ok := errors.AsType[*mandate.Fault](err)
	if !ok {
		t.Fatalf("got %v, want a fault", err)
	}
	return fault.Code(), err
}

// Entra takes an assertion that Key Vault has signed, and does not take one of
// another key.
func TestSignerAtEntra(t *testing.T) {
	w := start(t)
	w.makeKey("app", 2048)
	w.makeKey("other", 3072)
	v := w.open()
	for name, registered := range map[string]bool{"app": true, "other": false} {
		pub, _ := w.public(name)
		der := certificate(t, pub)
		if registered {
			app, _ := w.e.Application(emulator.ApplicationID)
			app.Certificates = append(app.Certificates, der)
			if err := w.e.Register(app); err != nil {
				t.Fatal(err)
			}
		}
		c := must(entra.NewCertificate(must(v.NewSigner(name, der))(t)))(t)
		code, err := redeem(t, w, c)
		if known := code == 9002313 || code == 70000 || code == 70008; known != registered {
			t.Errorf("key %s: %v, want that Entra knows us: %v", name, err, registered)
		}
	}
}

// A certificate that the vault has made signs, and goes on to sign with its own
// key after the vault has renewed it: Entra does not know the new one.
func TestCertificateOfVaultAtEntra(t *testing.T) {
	w := start(t)
	w.makeCertificate("app")
	v, ctx := w.open(), t.Context()
	s := must(v.OpenSigner(ctx, "app"))(t)
	app, _ := w.e.Application(emulator.ApplicationID)
	app.Certificates = append(app.Certificates, s.CertificateDER())
	if err := w.e.Register(app); err != nil {
		t.Fatal(err)
	}
	w.makeCertificate("app")
	renewed := must(v.OpenSigner(ctx, "app"))(t)
	_, kid := w.public("app")
	version := kid[strings.LastIndex(kid, "/")+1:]
	named := must(v.OpenSigner(ctx, "app/"+version))(t)
	if !bytes.Equal(named.CertificateDER(), renewed.CertificateDER()) || bytes.Equal(s.CertificateDER(), renewed.CertificateDER()) {
		t.Errorf("version %s is not the renewed one", version)
	}
	for _, tt := range []struct {
		signer *keyvault.Signer
		known  bool
	}{{s, true}, {renewed, false}} {
		code, err := redeem(t, w, must(entra.NewCertificate(tt.signer))(t))
		if known := code == 9002313 || code == 70000 || code == 70008; known != tt.known {
			t.Errorf("got %v, want that Entra knows us: %v", err, tt.known)
		}
	}
	if err := w.e.SetVaultPolicies(emulator.DefaultVault, emulator.VaultPolicy{Principal: ours, Keys: []string{"sign"}}); err != nil {
		t.Fatal(err)
	}
	_, err := v.OpenSigner(ctx, "app")
	wantError(t, err, nil, "403 Forbidden", `the permission "certificates get"`)
}

// Without the permission to sign it is the operator's move, and while the vault
// is down nobody's.
func TestSignerFaults(t *testing.T) {
	t.Parallel()
	w := start(t)
	w.makeKey("app", 2048)
	pub, _ := w.public("app")
	c := must(entra.NewCertificate(must(w.open().NewSigner("app", certificate(t, pub)))(t)))(t)
	w.permit([]string{"get"}, nil)
	_, err := redeem(t, w, c)
	if f, _ := errors.AsType[*mandate.Fault](err); f.Remedy != mandate.RemedyConfigure || f.Domain != mandate.DomainApplication {
		t.Errorf("no permission: %+v", f)
	}
	w.e.Dial(func(d *emulator.Dials) { d.KeyVault.Outage = []string{"*"} })
	_, err = redeem(t, w, c)
	if f, _ := errors.AsType[*mandate.Fault](err); f.Remedy != mandate.RemedyRetry {
		t.Errorf("outage: %+v", f)
	}
}

var _ entra.Signer = (*keyvault.Signer)(nil)

// The contracts that package vault has of these two are satisfied without
// knowing it.
var _ interface {
	Wrap(context.Context, []byte) (string, []byte, error)
	Unwrap(context.Context, string, []byte) ([]byte, error)
} = (*keyvault.Wrapper)(nil)

// Entra takes the token of a cluster from a file, and no other's.
func TestFederatedAtEntra(t *testing.T) {
	w := start(t)
	key := must(testKey())(t)
	set := must(json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: key.Public(), KeyID: "k", Algorithm: "RS256", Use: "sig"}}}))(t)
	app, _ := w.e.Application(emulator.ApplicationID)
	app.Federated = []emulator.Federated{{Name: "cluster", Issuer: "https://cluster.example", Subject: "system:serviceaccount:mandate:mandate", Keys: set}}
	if err := w.e.Register(app); err != nil {
		t.Fatal(err)
	}
	signer := must(jose.NewSigner(jose.SigningKey{Algorithm: jose.RS256, Key: jose.JSONWebKey{Key: key, KeyID: "k"}}, nil))(t)
	path := filepath.Join(t.TempDir(), "token")
	for subject, known := range map[string]bool{"system:serviceaccount:mandate:mandate": true, "system:serviceaccount:other:other": false} {
		token := must(jwt.Signed(signer).Claims(jwt.Claims{
			Issuer: "https://cluster.example", Subject: subject, Audience: jwt.Audience{"api://AzureADTokenExchange"},
			IssuedAt: jwt.NewNumericDate(time.Now()), Expiry: jwt.NewNumericDate(time.Now().Add(time.Hour)),
		}).Serialize())(t)
		if err := os.WriteFile(path, []byte(token), 0o600); err != nil {
			t.Fatal(err)
		}
		code, err := redeem(t, w, entra.NewFederated(entra.TokenFile(path)))
		if refused := code/100 == 7002; refused == known { // 70021, 700211 to 700213
			t.Errorf("subject %s: %v, want that Entra knows us: %v", subject, err, known)
		}
		if known && code != 9002313 && code != 70000 && code != 70008 {
			t.Errorf("subject %s: %v", subject, err)
		}
	}
}
