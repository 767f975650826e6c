package interop_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azkeys"
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azsecrets"

	"github.com/mandate-sam/mandate/emulator"
	"github.com/mandate-sam/mandate/emulator/fault"
)

const (
	vaultApp    = "c0000000-0000-4000-8000-0000000000a1" // an application of Contoso's own
	vaultSecret = "interop-only-not-a-secret"
)

func TestKeyVault(t *testing.T) {
	t.Run("azsecrets", testSecrets)
	t.Run("azkeys", testKeys)
}

// vaultCredential registers an application at Contoso and signs it in.
func vaultCredential(t *testing.T, e *emulator.Emulator) azcore.TokenCredential {
	t.Helper()
	app := emulator.Application{ID: vaultApp, Name: "Vault reader", Tenant: emulator.ContosoTenant, Secrets: []string{vaultSecret}}
	if err := e.Register(app); err != nil {
		t.Fatal(err)
	}
	cred, err := azidentity.NewClientSecretCredential(emulator.ContosoTenant, vaultApp, vaultSecret,
		&azidentity.ClientSecretCredentialOptions{ClientOptions: azure(e), DisableInstanceDiscovery: true})
	if err != nil {
		t.Fatal(err)
	}
	return cred
}

func secretsClient(t *testing.T, e *emulator.Emulator, url string, change ...func(*azsecrets.ClientOptions)) *azsecrets.Client {
	t.Helper()
	options := &azsecrets.ClientOptions{ClientOptions: azure(e), DisableChallengeResourceVerification: true}
	for _, f := range change {
		f(options)
	}
	return must(azsecrets.NewClient(url, vaultCredential(t, e), options))(t)
}

func keysClient(t *testing.T, e *emulator.Emulator, url string) *azkeys.Client {
	t.Helper()
	return must(azkeys.NewClient(url, vaultCredential(t, e), &azkeys.ClientOptions{ClientOptions: azure(e), DisableChallengeResourceVerification: true}))(t)
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

func wantRefusal(t *testing.T, err error, status int, code string) {
	t.Helper()
	var refused *azcore.ResponseError
	if !errors.As(err, &refused) || refused.StatusCode != status || refused.ErrorCode != code {
		t.Errorf("got %v, want %d %s", err, status, code)
	}
}

// pages counts what the pages of a list hold.
func pages[T any](t *testing.T, p *runtime.Pager[T], count func(T) int) (n, items int) {
	t.Helper()
	for p.More() {
		page := must(p.NextPage(t.Context()))(t)
		n++
		items += count(page)
	}
	return n, items
}

func testSecrets(t *testing.T) {
	ran(t, "github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azsecrets")
	t.Run("versions", testSecretVersions)
	t.Run("deletion", testSecretDeletion)
	t.Run("lists", testSecretLists)
	t.Run("policies", testSecretPolicies)
	t.Run("throttled", testSecretThrottled)
	t.Run("claims challenge", testVaultClaims)
	t.Run("verified resource", testVerifiedResource)
	t.Run("wrong tenant", testVaultOfAnotherTenant)
}

func testSecretVersions(t *testing.T) {
	e := start(t)
	c, ctx := secretsClient(t, e, e.Endpoints().KeyVault), t.Context()
	expires, begins := time.Now().Add(-time.Hour).Truncate(time.Second), time.Now().Add(time.Hour).Truncate(time.Second)
	first := must(c.SetSecret(ctx, "refresh", azsecrets.SetSecretParameters{
		Value: ptr("one"), ContentType: ptr("text/plain"), Tags: map[string]*string{"partner": ptr("contoso")},
		SecretAttributes: &azsecrets.SecretAttributes{Expires: &expires, NotBefore: &begins},
	}, nil))(t)
	second := must(c.SetSecret(ctx, "Refresh", azsecrets.SetSecretParameters{Value: ptr("two")}, nil))(t)
	if first.ID.Name() != "refresh" || len(first.ID.Version()) != 32 || first.ID.Version() == second.ID.Version() {
		t.Errorf("got ids %s and %s", *first.ID, *second.ID)
	}
	latest := must(c.GetSecret(ctx, "refresh", "", nil))(t)
	old := must(c.GetSecret(ctx, "REFRESH", first.ID.Version(), nil))(t)
	if *latest.Value != "two" || latest.ContentType != nil || len(latest.Tags) != 0 {
		t.Errorf("the latest version inherited something: %+v", latest.Secret)
	}
	if *old.Value != "one" || *old.ContentType != "text/plain" || *old.Tags["partner"] != "contoso" ||
		!old.Attributes.Expires.Equal(expires) || !old.Attributes.NotBefore.Equal(begins) || *old.Attributes.RecoverableDays != 90 {
		t.Errorf("got %+v; dates do not keep a secret from being read", old.Secret)
	}
	updated := must(c.UpdateSecretProperties(ctx, "refresh", "", azsecrets.UpdateSecretPropertiesParameters{
		SecretAttributes: &azsecrets.SecretAttributes{Enabled: ptr(false)}, Tags: map[string]*string{"a": ptr("b")},
	}, nil))(t)
	if updated.Value != nil || *updated.Attributes.Enabled || *updated.Tags["a"] != "b" {
		t.Errorf("got %+v", updated.Secret)
	}
	_, err := c.GetSecret(ctx, "refresh", "", nil)
	wantRefusal(t, err, 403, "Forbidden")
	_, err = c.GetSecret(ctx, "nothing", "", nil)
	wantRefusal(t, err, 404, "SecretNotFound")
	_, err = c.SetSecret(ctx, "a_b", azsecrets.SetSecretParameters{Value: ptr("x")}, nil)
	wantRefusal(t, err, 400, "BadParameter")
	_, err = c.SetSecret(ctx, "big", azsecrets.SetSecretParameters{Value: ptr(strings.Repeat("x", 25<<10+1))}, nil)
	wantRefusal(t, err, 400, "BadParameter")
}

func testSecretDeletion(t *testing.T) {
	e := start(t)
	c, ctx := secretsClient(t, e, e.Endpoints().KeyVault), t.Context()
	set := azsecrets.SetSecretParameters{Value: ptr("v")}
	first := must(c.SetSecret(ctx, "s", set, nil))(t)
	must(c.SetSecret(ctx, "s", set, nil))(t)
	backup := must(c.BackupSecret(ctx, "s", nil))(t)
	deleted := must(c.DeleteSecret(ctx, "s", nil))(t)
	if !strings.HasSuffix(*deleted.RecoveryID, "/deletedsecrets/s") || deleted.ScheduledPurgeDate.Sub(*deleted.DeletedDate) < 89*24*time.Hour || deleted.Value != nil {
		t.Errorf("got %+v", deleted.DeletedSecret)
	}
	_, err := c.GetSecret(ctx, "s", "", nil)
	wantRefusal(t, err, 404, "SecretNotFound")
	_, err = c.SetSecret(ctx, "s", set, nil)
	wantRefusal(t, err, 409, "Conflict")
	_, err = c.RestoreSecret(ctx, azsecrets.RestoreSecretParameters{SecretBackup: backup.Value}, nil)
	wantRefusal(t, err, 409, "Conflict")
	must(c.GetDeletedSecret(ctx, "s", nil))(t)
	must(c.RecoverDeletedSecret(ctx, "s", nil))(t)
	must(c.GetSecret(ctx, "s", first.ID.Version(), nil))(t)
	must(c.DeleteSecret(ctx, "s", nil))(t)
	must(c.PurgeDeletedSecret(ctx, "s", nil))(t)
	_, err = c.GetDeletedSecret(ctx, "s", nil)
	wantRefusal(t, err, 404, "SecretNotFound")
	restored := must(c.RestoreSecret(ctx, azsecrets.RestoreSecretParameters{SecretBackup: backup.Value}, nil))(t)
	if restored.ID.Name() != "s" {
		t.Errorf("restored %s", *restored.ID)
	}
	must(c.GetSecret(ctx, "s", first.ID.Version(), nil))(t)
	_, err = c.RestoreSecret(ctx, azsecrets.RestoreSecretParameters{SecretBackup: backup.Value}, nil)
	wantRefusal(t, err, 409, "Conflict")
	_, err = c.RestoreSecret(ctx, azsecrets.RestoreSecretParameters{SecretBackup: []byte("no backup")}, nil)
	wantRefusal(t, err, 400, "BadParameter")
	other := must(e.AddVault("other-vault"))(t)
	must(secretsClient(t, e, other).RestoreSecret(ctx, azsecrets.RestoreSecretParameters{SecretBackup: backup.Value}, nil))(t)
}

func testSecretLists(t *testing.T) {
	e := start(t)
	c, ctx := secretsClient(t, e, e.Endpoints().KeyVault), t.Context()
	for i := range 30 {
		must(c.SetSecret(ctx, fmt.Sprintf("s-%02d", i), azsecrets.SetSecretParameters{Value: ptr("v")}, nil))(t)
		must(c.SetSecret(ctx, "many", azsecrets.SetSecretParameters{Value: ptr("v")}, nil))(t)
	}
	n, items := pages(t, c.NewListSecretPropertiesPager(nil), func(p azsecrets.ListSecretPropertiesResponse) int {
		for _, s := range p.Value {
			if s.ID.Version() != "" {
				t.Errorf("%s has a version", *s.ID)
			}
		}
		return len(p.Value)
	})
	if n != 2 || items != 31 {
		t.Errorf("got %d secrets in %d pages, want 31 in 2", items, n)
	}
	seen := map[string]bool{}
	n, items = pages(t, c.NewListSecretPropertiesVersionsPager("many", nil), func(p azsecrets.ListSecretPropertiesVersionsResponse) int {
		for _, s := range p.Value {
			seen[s.ID.Version()] = true
		}
		return len(p.Value)
	})
	if n != 2 || items != 30 || len(seen) != 30 {
		t.Errorf("got %d versions in %d pages, %d different; want 30 in 2", items, n, len(seen))
	}
	for i := range 26 {
		must(c.DeleteSecret(ctx, fmt.Sprintf("s-%02d", i), nil))(t)
	}
	n, items = pages(t, c.NewListDeletedSecretPropertiesPager(nil), func(p azsecrets.ListDeletedSecretPropertiesResponse) int { return len(p.Value) })
	if n != 2 || items != 26 {
		t.Errorf("got %d deleted secrets in %d pages, want 26 in 2", items, n)
	}
}

func testSecretPolicies(t *testing.T) {
	e := start(t)
	c, ctx := secretsClient(t, e, e.Endpoints().KeyVault), t.Context()
	must(c.SetSecret(ctx, "s", azsecrets.SetSecretParameters{Value: ptr("v")}, nil))(t)
	if err := e.SetVaultPolicies(emulator.DefaultVault, emulator.VaultPolicy{Principal: vaultApp, Secrets: []string{"Get"}}); err != nil {
		t.Fatal(err)
	}
	must(c.GetSecret(ctx, "s", "", nil))(t)
	_, err := c.SetSecret(ctx, "s", azsecrets.SetSecretParameters{Value: ptr("v")}, nil)
	wantRefusal(t, err, 403, "Forbidden")
	if err == nil || !strings.Contains(err.Error(), "does not have secrets set permission on key vault 'contoso-vault;location=") {
		t.Errorf("got %v", err)
	}
	if err := e.SetVaultPolicies(emulator.DefaultVault, emulator.VaultPolicy{Principal: admin, Secrets: []string{"all"}}); err != nil {
		t.Fatal(err)
	}
	_, err = c.GetSecret(ctx, "s", "", nil)
	wantRefusal(t, err, 403, "Forbidden")
}

// The SDK waits as long as it is told to, and comes back.
func testSecretThrottled(t *testing.T) {
	e := start(t)
	retrying := func(o *azsecrets.ClientOptions) { o.Retry = policy.RetryOptions{MaxRetries: 3} }
	ctx := t.Context()
	patient, hasty := secretsClient(t, e, e.Endpoints().KeyVault, retrying), secretsClient(t, e, e.Endpoints().KeyVault)
	must(patient.SetSecret(ctx, "s", azsecrets.SetSecretParameters{Value: ptr("v")}, nil))(t)
	must(hasty.GetSecret(ctx, "s", "", nil))(t)
	e.Dial(func(d *emulator.Dials) {
		d.KeyVault.Budgets, d.KeyVault.WindowSeconds = map[string]int{"secrets": 2}, 1
	})
	time.Sleep(time.Second) // the window in which Get was counted ends
	began := time.Now()
	for range 5 {
		must(patient.GetSecret(ctx, "s", "", nil))(t)
	}
	if took := time.Since(began); took < 2*time.Second {
		t.Errorf("five at two per second took %v", took)
	}
	var err error
	for range 3 {
		if _, e := hasty.GetSecret(ctx, "s", "", nil); e != nil {
			err = e
		}
	}
	wantRefusal(t, err, 429, "Throttled")
	e.Dial(func(d *emulator.Dials) { d.KeyVault.Outage = []string{"*"} })
	_, err = hasty.GetSecret(ctx, "s", "", nil)
	wantRefusal(t, err, 503, "ServiceUnavailable")
}

// The SDK answers a demand for a newer token with a newer token.
func testVaultClaims(t *testing.T) {
	e := start(t)
	c := secretsClient(t, e, e.Endpoints().KeyVault)
	e.Dial(func(d *emulator.Dials) { d.Challenges = []fault.Challenge{{Service: "keyvault"}} })
	must(c.SetSecret(t.Context(), "s", azsecrets.SetSecretParameters{Value: ptr("v")}, nil))(t)
	if n := len(e.TokenRequests()); n != 2 {
		t.Errorf("got %d token requests, want the first and the one with the claims", n)
	}
}

// With a name for the vault the SDK's own check of the challenge passes.
func testVerifiedResource(t *testing.T) {
	e := start(t)
	tr := e.Client().Transport.(*http.Transport).Clone()
	tr.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
		_, port, err := net.SplitHostPort(addr)
		if err != nil {
			return nil, err
		}
		return (&net.Dialer{}).DialContext(ctx, network, "127.0.0.1:"+port)
	}
	t.Cleanup(tr.CloseIdleConnections)
	checking := func(o *azsecrets.ClientOptions) {
		o.DisableChallengeResourceVerification = false
		o.Transport = &http.Client{Transport: tr}
	}
	named := strings.Replace(e.Endpoints().KeyVault, "localhost", "contoso-vault.vault.localhost", 1)
	got := must(secretsClient(t, e, named, checking).SetSecret(t.Context(), "s", azsecrets.SetSecretParameters{Value: ptr("v")}, nil))(t)
	if !strings.HasPrefix(string(*got.ID), named+"/secrets/s/") {
		t.Errorf("got id %s, want one below %s", *got.ID, named)
	}
	_, err := secretsClient(t, e, e.Endpoints().KeyVault, checking).GetSecret(t.Context(), "s", "", nil)
	if err == nil || !strings.Contains(err.Error(), "doesn't match the requested domain") {
		t.Errorf("at localhost the check cannot pass: got %v", err)
	}
}

func testVaultOfAnotherTenant(t *testing.T) {
	e := start(t)
	url := must(e.AddVault("fabrikam-vault@fabrikam.example"))(t)
	_, err := secretsClient(t, e, url).GetSecret(t.Context(), "s", "", nil)
	if err == nil || !strings.Contains(err.Error(), "AdditionallyAllowedTenants") {
		t.Errorf("got %v, want that the credential is not for the challenge's tenant", err)
	}
}

func testKeys(t *testing.T) {
	ran(t, "github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azkeys")
	t.Run("life", testKeyLife)
	t.Run("signatures", testSignatures)
	t.Run("ciphers", testCiphers)
	t.Run("import", testImport)
	t.Run("policies", testKeyPolicies)
}

func testKeyLife(t *testing.T) {
	e := start(t)
	c, ctx := keysClient(t, e, e.Endpoints().KeyVault), t.Context()
	first := must(c.CreateKey(ctx, "k", azkeys.CreateKeyParameters{Kty: ptr(azkeys.KeyTypeEC), Curve: ptr(azkeys.CurveNameP384), Tags: map[string]*string{"a": ptr("b")}}, nil))(t)
	if *first.Key.Kty != azkeys.KeyTypeEC || *first.Key.Crv != azkeys.CurveNameP384 || len(first.Key.X) != 48 || len(first.Key.KeyOps) != 2 || len(first.Key.D) != 0 {
		t.Errorf("got %+v", first.Key)
	}
	policy := must(c.UpdateKeyRotationPolicy(ctx, "k", azkeys.KeyRotationPolicy{
		Attributes: &azkeys.KeyRotationPolicyAttributes{ExpiryTime: ptr("P90D")},
		LifetimeActions: []*azkeys.LifetimeAction{{
			Action:  &azkeys.LifetimeActionType{Type: ptr(azkeys.KeyRotationPolicyActionRotate)},
			Trigger: &azkeys.LifetimeActionTrigger{TimeBeforeExpiry: ptr("P30D")},
		}},
	}, nil))(t)
	if got := must(c.GetKeyRotationPolicy(ctx, "k", nil))(t); *got.Attributes.ExpiryTime != "P90D" || *got.ID != *policy.ID {
		t.Errorf("got %+v", got.KeyRotationPolicy)
	}
	second := must(c.RotateKey(ctx, "k", nil))(t)
	if second.Key.KID.Version() == first.Key.KID.Version() || *second.Key.Crv != azkeys.CurveNameP384 || bytes.Equal(second.Key.X, first.Key.X) || second.Attributes.Expires == nil {
		t.Errorf("got %+v, %+v", second.Key, second.Attributes)
	}
	if n, items := pages(t, c.NewListKeyPropertiesVersionsPager("k", nil), func(p azkeys.ListKeyPropertiesVersionsResponse) int { return len(p.Value) }); n != 1 || items != 2 {
		t.Errorf("got %d versions in %d pages", items, n)
	}
	old := must(c.GetKey(ctx, "k", first.Key.KID.Version(), nil))(t)
	if !bytes.Equal(old.Key.X, first.Key.X) || *old.Tags["a"] != "b" {
		t.Errorf("got %+v", old.KeyBundle)
	}
	backup := must(c.BackupKey(ctx, "k", nil))(t)
	if d := must(c.DeleteKey(ctx, "k", nil))(t); d.RecoveryID == nil || d.Key.KID.Name() != "k" {
		t.Errorf("got %+v", d.DeletedKey)
	}
	_, err := c.GetKey(ctx, "k", "", nil)
	wantRefusal(t, err, 404, "KeyNotFound")
	_, err = c.CreateKey(ctx, "k", azkeys.CreateKeyParameters{Kty: ptr(azkeys.KeyTypeEC)}, nil)
	wantRefusal(t, err, 409, "Conflict")
	must(c.GetDeletedKey(ctx, "k", nil))(t)
	if _, items := pages(t, c.NewListDeletedKeyPropertiesPager(nil), func(p azkeys.ListDeletedKeyPropertiesResponse) int { return len(p.Value) }); items != 1 {
		t.Errorf("got %d deleted keys, want 1", items)
	}
	must(c.RecoverDeletedKey(ctx, "k", nil))(t)
	must(c.DeleteKey(ctx, "k", nil))(t)
	must(c.PurgeDeletedKey(ctx, "k", nil))(t)
	restored := must(c.RestoreKey(ctx, azkeys.RestoreKeyParameters{KeyBackup: backup.Value}, nil))(t)
	if !bytes.Equal(restored.Key.X, second.Key.X) {
		t.Error("restored another key")
	}
	if _, items := pages(t, c.NewListKeyPropertiesPager(nil), func(p azkeys.ListKeyPropertiesResponse) int { return len(p.Value) }); items != 1 {
		t.Errorf("got %d keys, want 1", items)
	}
	off := must(c.UpdateKey(ctx, "k", "", azkeys.UpdateKeyParameters{KeyAttributes: &azkeys.KeyAttributes{Enabled: ptr(false)}}, nil))(t)
	if *off.Attributes.Enabled {
		t.Error("the key is still enabled")
	}
	sum := sha512.Sum384(nil)
	_, err = c.Sign(ctx, "k", "", azkeys.SignParameters{Algorithm: ptr(azkeys.SignatureAlgorithmES384), Value: sum[:]}, nil)
	wantRefusal(t, err, 403, "Forbidden")
	if got := must(c.GetRandomBytes(ctx, azkeys.GetRandomBytesParameters{Count: ptr(int32(16))}, nil))(t); len(got.Value) != 16 {
		t.Errorf("got %d random bytes, want 16", len(got.Value))
	}
}

func testSignatures(t *testing.T) {
	e := start(t)
	c, ctx := keysClient(t, e, e.Endpoints().KeyVault), t.Context()
	for name, p := range map[string]azkeys.CreateKeyParameters{
		"rsa": {Kty: ptr(azkeys.KeyTypeRSA)}, "hsm": {Kty: ptr(azkeys.KeyTypeRSAHSM), KeySize: ptr(int32(3072))},
		"p256": {Kty: ptr(azkeys.KeyTypeEC)}, "p384": {Kty: ptr(azkeys.KeyTypeEC), Curve: ptr(azkeys.CurveNameP384)}, "p521": {Kty: ptr(azkeys.KeyTypeECHSM), Curve: ptr(azkeys.CurveNameP521)},
	} {
		if k := must(c.CreateKey(ctx, name, p, nil))(t); *k.Key.Kty != *p.Kty {
			t.Errorf("%s is %s, want %s", name, *k.Key.Kty, *p.Kty)
		}
	}
	s256, s384, s512 := sha256.Sum256(nil), sha512.Sum384(nil), sha512.Sum512(nil)
	for _, row := range []struct {
		key, alg string
		digest   []byte
	}{
		{"rsa", "RS256", s256[:]}, {"rsa", "RS384", s384[:]}, {"rsa", "RS512", s512[:]},
		{"rsa", "PS256", s256[:]}, {"rsa", "PS384", s384[:]}, {"hsm", "PS512", s512[:]},
		{"p256", "ES256", s256[:]}, {"p384", "ES384", s384[:]}, {"p521", "ES512", s512[:]},
	} {
		alg := azkeys.SignatureAlgorithm(row.alg)
		signed, err := c.Sign(ctx, row.key, "", azkeys.SignParameters{Algorithm: &alg, Value: row.digest}, nil)
		if err != nil {
			t.Errorf("%s: %v", row.alg, err)
			continue
		}
		for _, good := range []bool{true, false} {
			sig := slices.Clone(signed.Result)
			if !good {
				sig[len(sig)-1] ^= 1
			}
			if v := must(c.Verify(ctx, row.key, signed.KID.Version(), azkeys.VerifyParameters{Algorithm: &alg, Digest: row.digest, Signature: sig}, nil))(t); *v.Value != good {
				t.Errorf("%s: verify says %v, want %v", row.alg, *v.Value, good)
			}
		}
	}
	alg := azkeys.SignatureAlgorithmES256
	_, err := c.Sign(ctx, "p384", "", azkeys.SignParameters{Algorithm: &alg, Value: s256[:]}, nil)
	wantRefusal(t, err, 400, "BadParameter")
}

func testCiphers(t *testing.T) {
	e := start(t)
	c, ctx := keysClient(t, e, e.Endpoints().KeyVault), t.Context()
	must(c.CreateKey(ctx, "rsa", azkeys.CreateKeyParameters{Kty: ptr(azkeys.KeyTypeRSA)}, nil))(t)
	must(c.CreateKey(ctx, "oct", azkeys.CreateKeyParameters{Kty: ptr(azkeys.KeyTypeOctHSM), KeySize: ptr(int32(256))}, nil))(t)
	plain := []byte("sixteen bytes...")
	for _, row := range []struct{ key, alg string }{
		{"rsa", "RSA1_5"}, {"rsa", "RSA-OAEP"}, {"rsa", "RSA-OAEP-256"},
		{"oct", "A128KW"}, {"oct", "A256KW"}, {"oct", "A256GCM"}, {"oct", "A256CBC"}, {"oct", "A128CBCPAD"},
	} {
		alg := azkeys.EncryptionAlgorithm(row.alg)
		in := azkeys.KeyOperationParameters{Algorithm: &alg, Value: plain}
		if row.alg == "A256GCM" {
			in.AdditionalAuthenticatedData = []byte("more")
		}
		closed := must(c.Encrypt(ctx, row.key, "", in, nil))(t)
		back := azkeys.KeyOperationParameters{Algorithm: &alg, Value: closed.Result, IV: closed.IV, AuthenticationTag: closed.AuthenticationTag, AdditionalAuthenticatedData: closed.AdditionalAuthenticatedData}
		if got := must(c.Decrypt(ctx, row.key, closed.KID.Version(), back, nil))(t); !bytes.Equal(got.Result, plain) {
			t.Errorf("%s: got %q, want %q", row.alg, got.Result, plain)
		}
		wrapped := must(c.WrapKey(ctx, row.key, "", in, nil))(t)
		back.Value, back.IV, back.AuthenticationTag = wrapped.Result, wrapped.IV, wrapped.AuthenticationTag
		if got := must(c.UnwrapKey(ctx, row.key, "", back, nil))(t); !bytes.Equal(got.Result, plain) {
			t.Errorf("%s: unwrapped %q, want %q", row.alg, got.Result, plain)
		}
	}
}

// What the vault does with a key is what somebody else with it can undo.
func testImport(t *testing.T) {
	e := start(t)
	c, ctx := keysClient(t, e, e.Endpoints().KeyVault), t.Context()
	own := must(rsa.GenerateKey(rand.Reader, 2048))(t)
	wrapOnly := []*azkeys.KeyOperation{ptr(azkeys.KeyOperationWrapKey), ptr(azkeys.KeyOperationUnwrapKey)}
	must(c.ImportKey(ctx, "own", azkeys.ImportKeyParameters{Key: &azkeys.JSONWebKey{
		Kty: ptr(azkeys.KeyTypeRSA), KeyOps: wrapOnly, N: own.N.Bytes(), E: []byte{1, 0, 1}, D: own.D.Bytes(), P: own.Primes[0].Bytes(), Q: own.Primes[1].Bytes(),
		DP: own.Precomputed.Dp.Bytes(), DQ: own.Precomputed.Dq.Bytes(), QI: own.Precomputed.Qinv.Bytes(),
	}}, nil))(t)
	alg := azkeys.EncryptionAlgorithmRSAOAEP256
	wrapped := must(c.WrapKey(ctx, "own", "", azkeys.KeyOperationParameters{Algorithm: &alg, Value: []byte("content key")}, nil))(t)
	if got := must(rsa.DecryptOAEP(sha256.New(), nil, own, wrapped.Result, nil))(t); string(got) != "content key" {
		t.Errorf("got %q", got)
	}
	_, err := c.Encrypt(ctx, "own", "", azkeys.KeyOperationParameters{Algorithm: &alg, Value: []byte("x")}, nil)
	wantRefusal(t, err, 403, "Forbidden")
	_, err = c.ImportKey(ctx, "bad", azkeys.ImportKeyParameters{Key: &azkeys.JSONWebKey{Kty: ptr(azkeys.KeyTypeRSA), N: own.N.Bytes(), E: []byte{3}}}, nil)
	wantRefusal(t, err, 400, "BadParameter")
}

func testKeyPolicies(t *testing.T) {
	e := start(t)
	c, ctx := keysClient(t, e, e.Endpoints().KeyVault), t.Context()
	if err := e.SetVaultPolicies(emulator.DefaultVault, emulator.VaultPolicy{Principal: vaultApp, Keys: []string{"create", "sign"}, Secrets: []string{"all"}}); err != nil {
		t.Fatal(err)
	}
	must(c.CreateKey(ctx, "k", azkeys.CreateKeyParameters{Kty: ptr(azkeys.KeyTypeEC)}, nil))(t)
	_, err := c.GetKey(ctx, "k", "", nil)
	wantRefusal(t, err, 403, "Forbidden")
	if err == nil || !strings.Contains(err.Error(), "does not have keys get permission on key vault 'contoso-vault;location=") {
		t.Errorf("got %v", err)
	}
	e.Dial(func(d *emulator.Dials) { d.KeyVault.Budgets = map[string]int{"key_creates": 1} })
	_, err = c.CreateKey(ctx, "k2", azkeys.CreateKeyParameters{Kty: ptr(azkeys.KeyTypeECHSM)}, nil)
	wantRefusal(t, err, 429, "Throttled")
}
