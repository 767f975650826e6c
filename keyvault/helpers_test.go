package keyvault_test

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"math/big"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/cloud"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/streaming"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azkeys"
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azsecrets"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/emulator"
	"github.com/mandate-sam/mandate/keyvault"
)

const (
	ours        = "c0000000-0000-4000-8000-0000000000a1" // who we are to the vault
	theirs      = "c0000000-0000-4000-8000-0000000000a2" // who administers it
	oursSecret  = "CANARY-ours-only-not-a-secret"
	adminSecret = "administrator-only-not-a-secret"
)

// A world is an emulator with a vault, who we are to it, and somebody who
// administers it.
type world struct {
	t     *testing.T
	e     *emulator.Emulator
	cloud mandate.Cloud
	http  *http.Client
}

func start(t *testing.T) *world {
	t.Helper()
	e := must(emulator.Open(emulator.Config{}))(t)
	t.Cleanup(func() { e.Close() })
	w := &world{t: t, e: e, http: e.Client(), cloud: mandate.Cloud{Name: "emulator", Authority: e.Endpoints().Login, Custom: true}}
	for id, secret := range map[string]string{ours: oursSecret, theirs: adminSecret} {
		if err := e.Register(emulator.Application{ID: id, Name: id, Tenant: emulator.ContosoTenant, Secrets: []string{secret}}); err != nil {
			t.Fatal(err)
		}
	}
	return w
}

func (w *world) identity() keyvault.Identity {
	return keyvault.Identity{
		Tenant: must(mandate.ParseTenantID(emulator.ContosoTenant))(w.t), Client: must(mandate.ParseAppID(ours))(w.t), Secret: mandate.NewSecret(oursSecret),
	}
}

// open opens the default vault, after changes.
func (w *world) open(change ...func(*keyvault.Config)) *keyvault.Vault {
	w.t.Helper()
	c := keyvault.Config{URL: w.e.Endpoints().KeyVault, Cloud: w.cloud, Identity: w.identity(), HTTP: w.http}
	for _, f := range change {
		f(&c)
	}
	return must(keyvault.New(c))(w.t)
}

// permit lets us do what is listed, and the administrator everything.
func (w *world) permit(keys, secrets []string) {
	w.t.Helper()
	err := w.e.SetVaultPolicies(emulator.DefaultVault, emulator.VaultPolicy{Principal: ours, Keys: keys, Secrets: secrets},
		emulator.VaultPolicy{Principal: theirs, Keys: []string{"all"}, Secrets: []string{"all"}, Certificates: []string{"all"}})
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) admin() azcore.TokenCredential {
	return must(azidentity.NewClientSecretCredential(emulator.ContosoTenant, theirs, adminSecret,
		&azidentity.ClientSecretCredentialOptions{ClientOptions: w.options(), DisableInstanceDiscovery: true}))(w.t)
}

func (w *world) options() azcore.ClientOptions {
	return azcore.ClientOptions{Transport: w.e.Client(), Cloud: cloud.Configuration{ActiveDirectoryAuthorityHost: w.e.Endpoints().Login + "/"}}
}

func (w *world) keys() *azkeys.Client {
	return must(azkeys.NewClient(w.e.Endpoints().KeyVault, w.admin(), &azkeys.ClientOptions{ClientOptions: w.options(), DisableChallengeResourceVerification: true}))(w.t)
}

func (w *world) secrets() *azsecrets.Client {
	return must(azsecrets.NewClient(w.e.Endpoints().KeyVault, w.admin(), &azsecrets.ClientOptions{ClientOptions: w.options(), DisableChallengeResourceVerification: true}))(w.t)
}

// makeKey makes an RSA key.
func (w *world) makeKey(name string, bits int32) {
	w.t.Helper()
	must(w.keys().CreateKey(w.t.Context(), name, azkeys.CreateKeyParameters{Kty: ptr(azkeys.KeyTypeRSA), KeySize: &bits}, nil))(w.t)
}

// makeCertificate lets the vault make a certificate, or renew it. There is no
// client of Azure's for it here.
func (w *world) makeCertificate(name string) {
	w.t.Helper()
	pipeline := runtime.NewPipeline("test", "v1.0.0", runtime.PipelineOptions{
		PerRetry: []policy.Policy{runtime.NewBearerTokenPolicy(w.admin(), []string{"https://vault.azure.net/.default"}, nil)},
	}, ptr(w.options()))
	url := w.e.Endpoints().KeyVault + "/certificates/" + name
	do := func(method, path, body string) int {
		req := must(runtime.NewRequest(w.t.Context(), method, url+path+"?api-version=7.4"))(w.t)
		if body != "" {
			if err := req.SetBody(streaming.NopCloser(strings.NewReader(body)), "application/json"); err != nil {
				w.t.Fatal(err)
			}
		}
		resp := must(pipeline.Do(req))(w.t)
		defer resp.Body.Close()
		return resp.StatusCode
	}
	status := do(http.MethodPost, "/create", `{"policy":{"key_props":{"kty":"RSA","key_size":2048},"issuer":{"name":"Self"},"x509_props":{"subject":"CN=app"}}}`)
	if status != http.StatusAccepted {
		w.t.Fatalf("made a certificate: %d", status)
	}
}

// A middleman may answer in the place of a vault. It returns nil where it does
// not.
type middleman struct {
	next  http.RoundTripper
	reply func(*http.Request) *http.Response
	after func(*http.Response)
}

func (m middleman) RoundTrip(r *http.Request) (*http.Response, error) {
	if m.reply != nil {
		if resp := m.reply(r); resp != nil {
			resp.Request = r
			return resp, nil
		}
	}
	resp, err := m.next.RoundTrip(r)
	if err == nil && m.after != nil {
		m.after(resp)
	}
	return resp, err
}

// must ends the test if the call that made its arguments failed.
func must[T any](v T, err error) func(*testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func ptr[T any](v T) *T { return &v }

// wantError wants an error with a sentinel and texts in it, and nothing secret.
func wantError(t *testing.T, err, sentinel error, says ...string) {
	t.Helper()
	if err == nil || sentinel != nil && !errors.Is(err, sentinel) {
		t.Errorf("got %v, want one that wraps %v", err, sentinel)
		return
	}
	if sentinel == nil && (errors.Is(err, mandate.ErrInvalid) || errors.Is(err, mandate.ErrUnavailable) || errors.Is(err, mandate.ErrNotFound)) {
		t.Errorf("got %v, want one that no waiting ends", err)
	}
	for _, s := range says {
		if !strings.Contains(err.Error(), s) {
			t.Errorf("got %v, want %q in it", err, s)
		}
	}
	if strings.Contains(err.Error(), "CANARY") || strings.Contains(err.Error(), "eyJ") {
		t.Errorf("the error has a secret in it: %v", err)
	}
}

var testKey = sync.OnceValues(func() (*rsa.PrivateKey, error) { return rsa.GenerateKey(rand.Reader, 2048) })

// certificate returns a certificate for a public key, signed by the test's.
func certificate(t *testing.T, pub *rsa.PublicKey) []byte {
	t.Helper()
	signer := must(testKey())(t)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, NotAfter: time.Now().AddDate(1, 0, 0)}
	return must(x509.CreateCertificate(rand.Reader, template, template, pub, signer))(t)
}

func short(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	t.Cleanup(cancel)
	return ctx
}
