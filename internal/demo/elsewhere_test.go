package demo

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/cloud"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azkeys"
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azsecrets"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/api"
	"github.com/mandate-sam/mandate/emulator"
)

// vaultAdmin administers the vaults of the test.
const vaultAdmin = "c0000000-0000-4000-8000-0000000000f0"

// A vaulted demonstration keeps its key, its grants and the application's
// credential in key vaults, with an identity for each.
type vaulted struct {
	*Demo
	grants string // URL of the vault of grants
}

// identities are who the product is to its vaults, and what each may do where.
var identities = []struct{ name, id, vault string }{
	{"keys", "c0000000-0000-4000-8000-0000000000f1", emulator.DefaultVault},
	{"signer", "c0000000-0000-4000-8000-0000000000f2", emulator.DefaultVault},
	{"grants", "c0000000-0000-4000-8000-0000000000f3", "grants-vault"},
}

func beginVaulted(t *testing.T) *vaulted {
	t.Helper()
	d, _ := begin(t, Config{Idle: true})
	v := &vaulted{Demo: d}
	var err error
	if v.grants, err = d.Emulator.AddVault("grants-vault"); err != nil {
		t.Fatal(err)
	}
	v.register(t, vaultAdmin, "administrator-not-a-secret")
	for _, i := range identities {
		secret := rand.Text()
		v.register(t, i.id, secret)
		v.write(t, i.name+".secret", secret)
	}
	v.furnish(t)
	v.permit(t)
	v.configureVaults(t)
	if err := d.serve(context.WithoutCancel(t.Context())); err != nil {
		t.Fatal(err)
	}
	return v
}

func (v *vaulted) register(t *testing.T, id, secret string) {
	t.Helper()
	if err := v.Emulator.Register(emulator.Application{ID: id, Name: id, Tenant: emulator.ContosoTenant, Secrets: []string{secret}}); err != nil {
		t.Fatal(err)
	}
}

func (v *vaulted) write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(v.File(name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func (v *vaulted) options() azcore.ClientOptions {
	return azcore.ClientOptions{Transport: v.Emulator.Client(), Cloud: cloud.Configuration{ActiveDirectoryAuthorityHost: v.Emulator.Endpoints().Login + "/"}}
}

func (v *vaulted) admin(t *testing.T) azcore.TokenCredential {
	t.Helper()
	c, err := azidentity.NewClientSecretCredential(emulator.ContosoTenant, vaultAdmin, "administrator-not-a-secret",
		&azidentity.ClientSecretCredentialOptions{ClientOptions: v.options(), DisableInstanceDiscovery: true})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// furnish makes the keys, and a certificate for the application's, which is
// all that leaves the vault of it.
func (v *vaulted) furnish(t *testing.T) {
	t.Helper()
	c, err := azkeys.NewClient(v.Emulator.Endpoints().KeyVault, v.admin(t), &azkeys.ClientOptions{ClientOptions: v.options(), DisableChallengeResourceVerification: true})
	if err != nil {
		t.Fatal(err)
	}
	kty := azkeys.KeyTypeRSA
	var pub rsa.PublicKey
	for _, name := range []string{"mandate", "application"} {
		k, err := c.CreateKey(t.Context(), name, azkeys.CreateKeyParameters{Kty: &kty}, nil)
		if err != nil {
			t.Fatal(err)
		}
		pub = rsa.PublicKey{N: new(big.Int).SetBytes(k.Key.N), E: int(new(big.Int).SetBytes(k.Key.E).Int64())}
	}
	issuer, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "application"}, NotAfter: time.Now().AddDate(1, 0, 0)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &pub, issuer)
	if err != nil {
		t.Fatal(err)
	}
	application, _ := v.Emulator.Application(emulator.ApplicationID)
	application.Certificates = [][]byte{der}
	if err := v.Emulator.Register(application); err != nil {
		t.Fatal(err)
	}
	v.write(t, "application.pem", string(pemBlock("CERTIFICATE", der)))
}

// permit gives every identity what it needs and nothing else.
func (v *vaulted) permit(t *testing.T) {
	t.Helper()
	all := emulator.VaultPolicy{Principal: vaultAdmin, Keys: []string{"all"}, Secrets: []string{"all"}}
	if err := errors.Join(
		v.Emulator.SetVaultPolicies(emulator.DefaultVault, all,
			emulator.VaultPolicy{Principal: identities[0].id, Keys: []string{"wrapKey", "unwrapKey"}},
			emulator.VaultPolicy{Principal: identities[1].id, Keys: []string{"sign"}}),
		v.Emulator.SetVaultPolicies("grants-vault", all,
			emulator.VaultPolicy{Principal: identities[2].id, Secrets: []string{"get", "set", "delete", "recover", "purge"}}),
	); err != nil {
		t.Fatal(err)
	}
}

func (v *vaulted) configureVaults(t *testing.T) {
	t.Helper()
	text, err := os.ReadFile(v.File("mandate.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	u := v.Emulator.Endpoints().KeyVault
	elsewhere := fmt.Sprintf("key: {key_vault: {vault: %q, cloud: emulator, key: mandate, identity: keys}}\ngrants: {key_vault: {vault: %q, cloud: emulator, identity: grants}}\nidentities:\n", u, v.grants)
	for _, i := range identities {
		elsewhere += fmt.Sprintf("  - {name: %s, tenant: %s, client_id: %s, secret: %s.secret}\n", i.name, emulator.ContosoTenant, i.id, i.name)
	}
	changed := strings.Replace(string(text), "key_file: keys/mandate.key\n", elsewhere, 1)
	changed = strings.Replace(changed, "certificate: application.pem", fmt.Sprintf("key_vault: {vault: %q, cloud: emulator, key: application, certificate_file: application.pem, identity: signer}", u), 1)
	v.write(t, "mandate.yaml", changed)
}

// secrets returns the names of what is in the vault of grants.
func (v *vaulted) secrets(t *testing.T) (names []string) {
	t.Helper()
	c, err := azsecrets.NewClient(v.grants, v.admin(t), &azsecrets.ClientOptions{ClientOptions: v.options(), DisableChallengeResourceVerification: true})
	if err != nil {
		t.Fatal(err)
	}
	for pages := c.NewListSecretPropertiesPager(nil); pages.More(); {
		page, err := pages.NextPage(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range page.Value {
			names = append(names, s.ID.Name())
		}
	}
	return names
}

// Key, grants and credential are in key vaults: nothing that opens a grant is
// on the machine, everything works, and what goes wrong there is said to be
// wrong there.
func TestVaulted(t *testing.T) {
	t.Parallel()
	v := beginVaulted(t)
	ctx := t.Context()
	if page := v.attempt(t, attempt{invited: User, user: User}); contains(page.Text(), "Consent stored and active") != nil {
		t.Fatal(page.Text())
	}
	token := func(audience string) error {
		_, err := v.Operator.Token(ctx, api.TokenRequest{Partner: Partner, Audience: audience, Purpose: Purpose})
		return err
	}
	if err := token("graph"); err != nil {
		t.Fatal(err)
	}
	if names := v.secrets(t); len(names) != 1 || !strings.HasPrefix(names[0], "mandate-"+emulator.ContosoTenant+"-") {
		t.Errorf("the vault has %q", names)
	}
	if _, err := os.Stat(v.File("keys")); !os.IsNotExist(err) {
		t.Errorf("there is a key file: %v", err)
	}

	// A server that begins while its vaults are down says so, and recovers.
	v.stopProduct(t)
	<-v.Done
	v.Emulator.Dial(func(d *emulator.Dials) { d.KeyVault.Outage = []string{"*"} })
	if err := v.serve(context.WithoutCancel(ctx)); err != nil {
		t.Fatalf("start while the vaults are down: %v", err)
	}
	if err := token("graph"); !errors.Is(err, mandate.ErrUnavailable) {
		t.Errorf("while the vaults are down: %v", err)
	}
	v.Emulator.Dial(func(d *emulator.Dials) { d.KeyVault.Outage = nil })
	within(t, 30*time.Second, "service", func() bool { return token("graph") == nil })

	if _, err := v.Operator.Withdraw(ctx, Partner, api.WithdrawRequest{Ticket: "T-1"}); err != nil {
		t.Fatal(err)
	}
	if names := v.secrets(t); len(names) != 0 {
		t.Errorf("after the withdrawal the vault has %q", names)
	}
}
