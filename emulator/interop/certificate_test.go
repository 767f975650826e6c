package interop_test

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"path"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azkeys"

	"github.com/mandate-sam/mandate/emulator"
)

// A vault's certificate signs in for its application: the key that stays in
// the vault signs the assertion, and Microsoft's clients do the rest.
func TestAssertionSignedInTheVault(t *testing.T) {
	ran(t, "github.com/Azure/azure-sdk-for-go/sdk/azidentity")
	e := start(t)
	vault := vaultCredential(t, e)
	bearer := must(vault.GetToken(t.Context(), policy.TokenRequestOptions{Scopes: []string{"https://vault.azure.net/.default"}}))(t)
	do := func(method, path, body string, into any) {
		t.Helper()
		req := must(http.NewRequestWithContext(t.Context(), method, e.Endpoints().KeyVault+path+"?api-version=7.6", strings.NewReader(body)))(t)
		req.Header.Set("Authorization", "Bearer "+bearer.Token)
		res := must(e.Client().Do(req))(t)
		defer res.Body.Close()
		if err := json.NewDecoder(res.Body).Decode(into); err != nil || res.StatusCode >= 300 {
			t.Fatalf("%s %s: got %d, %v", method, path, res.StatusCode, err)
		}
	}
	var made struct {
		CER []byte `json:"cer"`
		X5T string `json:"x5t"`
		KID string `json:"kid"`
	}
	do("POST", "/certificates/signer/create", `{"policy":{"issuer":{"name":"Self"},"x509_props":{"subject":"CN=signer"}}}`, &struct{}{})
	do("GET", "/certificates/signer", "", &made)
	const app = "c0000000-0000-4000-8000-0000000000a2"
	if err := e.Register(emulator.Application{ID: app, Name: "Signer", Tenant: emulator.ContosoTenant, Certificates: [][]byte{made.CER}}); err != nil {
		t.Fatal(err)
	}
	keys := must(azkeys.NewClient(e.Endpoints().KeyVault, vault, &azkeys.ClientOptions{ClientOptions: azure(e), DisableChallengeResourceVerification: true}))(t)
	assertion := func(ctx context.Context) (string, error) {
		part := func(v any) string {
			b, _ := json.Marshal(v)
			return base64.RawURLEncoding.EncodeToString(b)
		}
		now := time.Now()
		text := part(map[string]any{"alg": "PS256", "typ": "JWT", "x5t": made.X5T}) + "." + part(map[string]any{
			"iss": app, "sub": app, "aud": e.Endpoints().Login + "/" + emulator.ContosoTenant + "/oauth2/v2.0/token",
			"jti": now.String(), "nbf": now.Unix(), "exp": now.Add(time.Minute).Unix(),
		})
		sum := sha256.Sum256([]byte(text))
		signed, err := keys.Sign(ctx, "signer", path.Base(made.KID), azkeys.SignParameters{Algorithm: ptr(azkeys.SignatureAlgorithmPS256), Value: sum[:]}, nil)
		if err != nil {
			return "", err
		}
		return text + "." + base64.RawURLEncoding.EncodeToString(signed.Result), nil
	}
	cred := must(azidentity.NewClientAssertionCredential(emulator.ContosoTenant, app, assertion, &azidentity.ClientAssertionCredentialOptions{ClientOptions: azure(e), DisableInstanceDiscovery: true}))(t)
	if got := must(cred.GetToken(t.Context(), policy.TokenRequestOptions{Scopes: []string{graph + "/.default"}}))(t); got.Token == "" {
		t.Error("no token")
	}
}
