package demo

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"math/big"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/cloud"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azkeys"
	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/mandate-sam/mandate/emulator"
)

// Who is who at the key vaults.
const (
	machineID   = "c0000000-0000-4000-8000-0000000000b1" // the product
	adminID     = "c0000000-0000-4000-8000-0000000000b2"
	adminSecret = "the-administrators-secret-only"
	cluster     = "https://cluster.example"
	subject     = "system:serviceaccount:mandate:mandate"
)

// vaults gives the product an identity at the emulator's key vaults: the token
// of a cluster, which is in memory there and in no directory of the product's.
// It returns the part of a configuration that says so.
func (d *Demo) vaults(t *testing.T) (config string, admin *azkeys.Client) {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	set, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: key.Public(), KeyID: "k", Algorithm: "RS256", Use: "sig"}}})
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range []emulator.Application{
		{ID: machineID, Name: "machine", Tenant: emulator.ContosoTenant, Federated: []emulator.Federated{{Name: "cluster", Issuer: cluster, Subject: subject, Keys: set}}},
		{ID: adminID, Name: "admin", Tenant: emulator.ContosoTenant, Secrets: []string{adminSecret}},
	} {
		if err := d.Emulator.Register(a); err != nil {
			t.Fatal(err)
		}
	}
	// The product may use keys and keep secrets, and not read the one or make
	// the other.
	if err := d.Emulator.SetVaultPolicies(emulator.DefaultVault,
		emulator.VaultPolicy{Principal: machineID, Keys: []string{"get", "sign", "wrapKey", "unwrapKey", "rotate"}, Secrets: []string{"get", "set", "delete", "recover", "purge"}},
		emulator.VaultPolicy{Principal: adminID, Keys: []string{"all"}, Secrets: []string{"all"}}); err != nil {
		t.Fatal(err)
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.RS256, Key: jose.JSONWebKey{Key: key, KeyID: "k"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	token, err := jwt.Signed(signer).Claims(jwt.Claims{Issuer: cluster, Subject: subject, Audience: jwt.Audience{"api://AzureADTokenExchange"},
		IssuedAt: jwt.NewNumericDate(time.Now()), Expiry: jwt.NewNumericDate(time.Now().Add(time.Hour))}).Serialize()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(path, []byte(token), 0o600); err != nil {
		t.Fatal(err)
	}
	config = "identities:\n  - {name: machine, tenant: " + emulator.ContosoTenant + ", client_id: " + machineID + ", token_file: " + path + "}\n"
	return config, d.vaultAdmin(t)
}

func (d *Demo) vaultAdmin(t *testing.T) *azkeys.Client {
	t.Helper()
	o := azcore.ClientOptions{Transport: d.Emulator.Client(), Cloud: cloud.Configuration{ActiveDirectoryAuthorityHost: d.Emulator.Endpoints().Login + "/"}}
	cred, err := azidentity.NewClientSecretCredential(emulator.ContosoTenant, adminID, adminSecret,
		&azidentity.ClientSecretCredentialOptions{ClientOptions: o, DisableInstanceDiscovery: true})
	if err != nil {
		t.Fatal(err)
	}
	keys, err := azkeys.NewClient(d.Emulator.Endpoints().KeyVault, cred, &azkeys.ClientOptions{ClientOptions: o, DisableChallengeResourceVerification: true})
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

// makeVaultKey makes an RSA key in the vault and returns its public half.
func makeVaultKey(t *testing.T, keys *azkeys.Client, name string) *rsa.PublicKey {
	t.Helper()
	kind, size := azkeys.KeyTypeRSA, int32(2048)
	r, err := keys.CreateKey(t.Context(), name, azkeys.CreateKeyParameters{Kty: &kind, KeySize: &size}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return &rsa.PublicKey{N: new(big.Int).SetBytes(r.Key.N), E: int(new(big.Int).SetBytes(r.Key.E).Int64())}
}

// vaultRef is how a configuration names the emulator's vault.
func (d *Demo) vaultRef() string {
	return `vault: "` + d.Emulator.Endpoints().KeyVault + `", identity: machine, cloud: emulator`
}

// raise brings a demonstration that is idle to level 2: the key that wraps and
// the key of the application's certificate are in Key Vault, and never were
// anywhere else.
func (d *Demo) raise(t *testing.T) {
	t.Helper()
	identities, admin := d.vaults(t)
	makeVaultKey(t, admin, "wrap")
	pub := makeVaultKey(t, admin, "application")
	issuer, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Mandate"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(0, 1, 0)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, pub, issuer)
	if err != nil {
		t.Fatal(err)
	}
	application, _ := d.Emulator.Application(emulator.ApplicationID)
	application.Certificates = [][]byte{der}
	if err := d.Emulator.Register(application); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(d.File("application.pem"), pemBlock("CERTIFICATE", der), 0o600); err != nil {
		t.Fatal(err)
	}
	replaceIn(t, d.File("mandate.yaml"),
		"key_file: keys/mandate.key\n", identities+"key: {key_vault: {"+d.vaultRef()+", key: wrap}}\n",
		"credential: {certificate: application.pem}", "credential: {key_vault: {"+d.vaultRef()+", key: application, certificate_file: application.pem}}")
}
