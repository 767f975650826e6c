package demo

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"

	"github.com/mandate-sam/mandate/api"
	"github.com/mandate-sam/mandate/emulator"
)

// beginCertified starts a product whose certificate, with its key, is in Key
// Vault.
func beginCertified(t *testing.T) *vaulted {
	t.Helper()
	d, _ := begin(t, Config{Idle: true, Pace: briskly})
	v := &vaulted{Demo: d}
	v.register(t, vaultAdmin, "administrator-not-a-secret")
	v.register(t, identities[1].id, "signer-not-a-secret")
	v.write(t, "signer.secret", "signer-not-a-secret")
	err := v.Emulator.SetVaultPolicies(emulator.DefaultVault,
		emulator.VaultPolicy{Principal: vaultAdmin, Keys: []string{"all"}, Certificates: []string{"all"}},
		emulator.VaultPolicy{Principal: identities[1].id, Keys: []string{"sign"}, Certificates: []string{"get", "create"}})
	if err != nil {
		t.Fatal(err)
	}
	v.certify(t)
	text, err := os.ReadFile(v.File("mandate.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	changed := strings.Replace(string(text), "certificate: application.pem",
		fmt.Sprintf("key_vault: {vault: %q, cloud: emulator, certificate: application, identity: signer}", v.Emulator.Endpoints().KeyVault), 1)
	v.write(t, "mandate.yaml", changed+fmt.Sprintf("identities:\n  - {name: signer, tenant: %s, client_id: %s, secret: signer.secret}\n", emulator.ContosoTenant, identities[1].id))
	if err := d.serve(context.WithoutCancel(t.Context())); err != nil {
		t.Fatal(err)
	}
	return v
}

// certify makes the certificate, and registers it for the application.
func (v *vaulted) certify(t *testing.T) {
	t.Helper()
	v.certificates(t, "POST", "application/create", `{"policy":{"issuer":{"name":"Self"},"key_props":{"exportable":false,"kty":"RSA","key_size":2048,"reuse_key":false},"x509_props":{"subject":"CN=application","validity_months":12}}}`)
	var c struct{ Cer string }
	unmarshal(t, v.certificates(t, "GET", "application", ""), &c)
	der, err := base64.StdEncoding.DecodeString(c.Cer)
	if err != nil {
		t.Fatal(err)
	}
	a, _ := v.Emulator.Application(emulator.ApplicationID)
	a.Certificates = [][]byte{der}
	if err := v.Emulator.Register(a); err != nil {
		t.Fatal(err)
	}
}

// certificates asks the vault as its administrator.
func (v *vaulted) certificates(t *testing.T, method, path, body string) json.RawMessage {
	t.Helper()
	token, err := v.admin(t).GetToken(t.Context(), policy.TokenRequestOptions{Scopes: []string{"https://vault.azure.net/.default"}})
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(t.Context(), method, v.Emulator.Endpoints().KeyVault+"/certificates/"+path+"?api-version=7.4", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token.Token)
	req.Header.Set("Content-Type", "application/json")
	resp, err := v.Emulator.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var out json.RawMessage
	if err := json.NewDecoder(resp.Body).Decode(&out); err != nil || resp.StatusCode >= 300 {
		t.Fatal(resp.Status, string(out), err)
	}
	return out
}

// A certificate whose key never leaves the vault is replaced by another. A
// version that Entra does not know is never used, although it is the newest:
// not while the rotation waits, and not after it was undone and the product
// began again.
func TestRotateCredentialVault(t *testing.T) {
	t.Parallel()
	v := beginCertified(t)
	v.consent(t)
	v.fleeting()
	s := v.shop(t)
	before := v.credential(t)
	if before.Kind != "key vault certificate" || len(before.Entra) != 1 {
		t.Fatalf("%+v", before)
	}
	if _, err := v.rotate(t, api.CredentialRequest{}); err != nil {
		t.Fatal(err)
	}
	second := v.credential(t)
	if second.ID == before.ID || len(second.Entra) != 1 || second.Entra[0].Ours != "in use" || second.Rotation != nil {
		t.Errorf("%+v", second)
	}
	if err := v.Emulator.RemoveRoles(emulator.CPVTenant, emulator.ApplicationID, emulator.Graph); err != nil {
		t.Fatal(err)
	}
	if _, err := v.rotate(t, api.CredentialRequest{}); err == nil || contains(err.Error(), "undone") != nil {
		t.Errorf("without the role: %v", err)
	}
	s.stop()
	v.stopProduct(t)
	v.again(t)
	if third := v.credential(t); third.ID != second.ID {
		t.Errorf("after it was undone and begun again: %+v", third)
	}
	within(t, 5*time.Second, "a token", func() bool { return v.ask(t) == nil })
	if err := v.ask(t); err != nil {
		t.Error(errors.Join(errors.New("after it was undone and begun again"), err))
	}
}
