package keyvault_test

import (
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/emulator"
	"github.com/mandate-sam/mandate/keyvault"
)

// works wraps something as the identity.
func works(w *world, i keyvault.Identity) error {
	w.t.Helper()
	k := must(w.open(func(c *keyvault.Config) { c.Identity = i }).Wrapper("kek"))(w.t)
	_, _, err := k.Wrap(w.t.Context(), []byte("CANARY"))
	return err
}

func TestIdentities(t *testing.T) {
	w := start(t)
	w.makeKey("kek", 2048)
	key := must(testKey())(t)
	cert := must(x509.ParseCertificate(certificate(t, &key.PublicKey)))(t)
	app, _ := w.e.Application(ours)
	app.Certificates = [][]byte{cert.Raw}
	if err := w.e.Register(app); err != nil {
		t.Fatal(err)
	}
	if err := works(w, w.identity()); err != nil {
		t.Errorf("secret: %v", err)
	}
	i := w.identity()
	i.Secret, i.Certificates, i.Key = mandate.Secret{}, []*x509.Certificate{cert}, key
	if err := works(w, i); err != nil {
		t.Errorf("certificate: %v", err)
	}

	i = w.identity()
	i.Secret = mandate.NewSecret("CANARY-wrong")
	wantError(t, works(w, i), nil, "sign in: 401 invalid_client: AADSTS7000215", "correlation id ")
	i = w.identity()
	i.Tenant = must(mandate.ParseTenantID(emulator.FabrikamTenant))(t)
	wantError(t, works(w, i), nil, "belongs to another tenant than application "+ours)

	_, err := keyvault.New(keyvault.Config{URL: w.e.Endpoints().KeyVault, Cloud: w.cloud, HTTP: w.http})
	wantError(t, err, mandate.ErrInvalid, "nothing to sign in with")
}

// A machine's identity endpoint, as the documentation of App Service describes
// it.
func TestFakeManagedIdentity(t *testing.T) {
	var asked []string
	s := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		asked = append(asked, r.URL.Query().Get("resource")+" "+r.URL.Query().Get("client_id"))
		rw.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(rw, `{"access_token":"CANARY","resource":"x","token_type":"Bearer","expires_on":"%d"}`, time.Now().Add(time.Hour).Unix())
	}))
	defer s.Close()
	t.Setenv("IDENTITY_ENDPOINT", s.URL)
	t.Setenv("IDENTITY_HEADER", "h")
	assert := must(keyvault.Assertion(must(mandate.ParseAppID(ours))(t), "global"))(t)
	tok, until, err := assert(t.Context())
	if err != nil || tok.Reveal() != "CANARY" || time.Until(until) < 50*time.Minute {
		t.Errorf("got until %v, %v", until, err)
	}
	must(keyvault.Assertion(mandate.AppID{}, "usgov"))(t)(t.Context())
	want := "api://AzureADTokenExchange " + ours + ", api://AzureADTokenExchangeUSGov "
	if got := strings.Join(asked, ", "); got != want {
		t.Errorf("asked for %q, want %q", got, want)
	}

	w := start(t)
	wantError(t, works(w, keyvault.Identity{Managed: true}), nil, "this machine's managed identity")
	s.Config.Handler = http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		rw.WriteHeader(400)
		fmt.Fprint(rw, `{"error":"invalid_request","error_description":"Identity not found"}`)
	})
	_, _, err = must(keyvault.Assertion(must(mandate.ParseAppID(theirs))(t), "global"))(t)(t.Context())
	wantError(t, err, nil, "managed identity "+theirs, "400")
}

func TestWorkloadIdentity(t *testing.T) {
	path := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(path, []byte("CANARY"), 0o600); err != nil {
		t.Fatal(err)
	}
	w := start(t)
	i := w.identity()
	i.Secret, i.TokenFile = mandate.Secret{}, path
	wantError(t, works(w, i), nil, "sign in:")
	t.Setenv("AZURE_TENANT_ID", emulator.ContosoTenant)
	t.Setenv("AZURE_CLIENT_ID", ours)
	t.Setenv("AZURE_FEDERATED_TOKEN_FILE", path)
	wantError(t, works(w, keyvault.Identity{Workload: true}), nil, "sign in:")
}

func TestCheckURL(t *testing.T) {
	custom := mandate.Cloud{Name: "emulator", Custom: true}
	for _, tt := range []struct {
		url   string
		cloud mandate.Cloud
		says  string
	}{
		{"https://a.vault.azure.net", mandate.Clouds()["global"], ""},
		{"https://a.VAULT.azure.net/", mandate.Clouds()["global"], ""},
		{"https://a.managedhsm.azure.net", mandate.Clouds()["global"], ""},
		{"https://a.vault.usgovcloudapi.net", mandate.Clouds()["usgov"], ""},
		{"https://a.vault.azure.cn", mandate.Clouds()["china"], ""},
		{"https://localhost:1", custom, ""},
		{"https://a.vault.azure.net", mandate.Clouds()["usgov"], "not a vault of cloud"},
		{"https://vault.azure.net", mandate.Clouds()["global"], "not a vault of cloud"},
		{"https://avault.azure.net", mandate.Clouds()["global"], "not a vault of cloud"},
		{"https://a.vault.azure.net.evil.test", mandate.Clouds()["global"], "not a vault of cloud"},
		{"https://a.vault.azure.net:444", mandate.Clouds()["global"], "not a vault of cloud"},
		{"http://a.vault.azure.net", mandate.Clouds()["global"], "must be https"},
		{"https://a.vault.azure.net/secrets", mandate.Clouds()["global"], "must be https"},
		{"https://u@a.vault.azure.net", mandate.Clouds()["global"], "must be https"},
		{"https://a.vault.azure.net", custom, "is Microsoft's"},
	} {
		err := keyvault.CheckURL(tt.url, tt.cloud)
		if tt.says == "" && err != nil || tt.says != "" && (err == nil || !strings.Contains(err.Error(), tt.says)) {
			t.Errorf("%s in %s: got %v, want %q", tt.url, tt.cloud.Name, err, tt.says)
		}
	}
	for url, want := range map[string]string{"https://a.vault.azure.cn": "china", "https://localhost": "", "::": ""} {
		if got := keyvault.CloudOf(url); got != want {
			t.Errorf("%s is in %q, want %q", url, got, want)
		}
	}
}

// A challenge that the SDK would panic on is taken from it, and no answer is
// read without end.
func TestBadChallenge(t *testing.T) {
	w := start(t)
	for _, h := range []string{
		`Bearer authorization="https://login.test", resource="https://vault.azure.net"`, `Bearer authorization="x" resource="y"`, `Bearer`, ``,
		`Bearer authorization="https://login.test/", resource="https://vault.azure.net"`,
	} {
		w.http.Transport = middleman{reply: func(*http.Request) *http.Response {
			return &http.Response{StatusCode: 401, Header: http.Header{"Www-Authenticate": {h}}, Body: http.NoBody}
		}}
		if err := works(w, w.identity()); err == nil {
			t.Errorf("%q: accepted", h)
		}
	}
}

// A vault of Microsoft's that asks for a token for anything but a vault gets
// none: with one for Graph it could be us there.
func TestTokenOnlyForVaults(t *testing.T) {
	for resource, signsIn := range map[string]bool{"https://vault.azure.net": true, "https://graph.microsoft.com": false, "https://vault.azure.net.evil.test": false} {
		asked := 0
		h := &http.Client{Transport: middleman{reply: func(r *http.Request) *http.Response {
			if r.URL.Host == "a.vault.azure.net" {
				c := fmt.Sprintf(`Bearer authorization="https://login.microsoftonline.com/%s", resource="%s"`, emulator.ContosoTenant, resource)
				return &http.Response{StatusCode: 401, Header: http.Header{"Www-Authenticate": {c}}, Body: http.NoBody}
			}
			asked++
			return &http.Response{StatusCode: 400, Body: io.NopCloser(strings.NewReader(`{"error":"invalid_request"}`))}
		}}}
		i := keyvault.Identity{
			Tenant: must(mandate.ParseTenantID(emulator.ContosoTenant))(t), Client: must(mandate.ParseAppID(ours))(t), Secret: mandate.NewSecret("CANARY"),
		}
		v := must(keyvault.New(keyvault.Config{URL: "https://a.vault.azure.net", Cloud: mandate.Clouds()["global"], Identity: i, HTTP: h}))(t)
		_, _, err := must(v.Wrapper("kek"))(t).Wrap(t.Context(), []byte("CANARY"))
		wantError(t, err, nil)
		_, gerr := v.Secrets().Get(t.Context(), "n", "v")
		wantError(t, gerr, nil)
		if (asked > 0) != signsIn {
			t.Errorf("resource %s: signed in %v, want %v: %v", resource, asked > 0, signsIn, err)
		}
	}
}

// Zeros never end.
type zeros struct{ read int }

func (z *zeros) Read(p []byte) (int, error) {
	clear(p)
	z.read += len(p)
	if z.read > 64<<20 {
		return 0, io.EOF
	}
	return len(p), nil
}

func TestAnswersAreBounded(t *testing.T) {
	w := start(t)
	z := new(zeros)
	w.http.Transport = middleman{reply: func(*http.Request) *http.Response {
		return &http.Response{StatusCode: 404, Header: http.Header{}, Body: io.NopCloser(z)}
	}}
	wantError(t, works(w, w.identity()), mandate.ErrNotFound)
	if z.read > 2<<20 {
		t.Errorf("read %d bytes of an answer", z.read)
	}
}
