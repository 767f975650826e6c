package openbao

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/cloud"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azkeys"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/emulator"
	"github.com/mandate-sam/mandate/internal/database"
	"github.com/mandate-sam/mandate/internal/pgtest"
	"github.com/mandate-sam/mandate/keyvault"
	"github.com/mandate-sam/mandate/vault"
)

// A stop is one place on the way: a vault, and where its grants are.
type stop struct {
	name  string
	vault *vault.SQL
}

// Grants move from SQLite to PostgreSQL, into Key Vault, on into the fake
// OpenBao, and all the way back, under three kinds of keys. Each move is made
// twice. Nothing is lost and nothing is doubled.
func TestFakeMoves(t *testing.T) {
	f := newFake(t)
	bao := f.client(t)
	azure := newAzure(t)
	homes := map[string]vault.Home{"key vault": azure.Secrets(), "openbao": must(bao.KV("kv", "grants"))(t)}
	file := must(vault.OpenKeyFile(t.TempDir() + "/key"))(t)
	transit := must(bao.Transit("transit", "kek"))(t)
	rsa := must(azure.Wrapper("kek"))(t)
	lite := openMoved(t, database.Config{File: t.TempDir() + "/a.db"})
	pg := openMoved(t, database.Config{URL: pgtest.Start(t).Database(t)})
	back := openMoved(t, database.Config{File: t.TempDir() + "/b.db"})
	in := func(db *database.DB, key vault.KeyWrapper, home string) *vault.SQL {
		return must(vault.New(vault.Config{DB: db, Key: vault.NewKeyring(key, file, transit, rsa), Homes: homes, HomeOf: func(mandate.GrantKey) string { return home }}))(t)
	}
	stops := []stop{
		{"SQLite", in(lite, file, "")}, {"PostgreSQL", in(pg, file, "")}, {"Key Vault", in(pg, rsa, "key vault")},
		{"OpenBao", in(pg, transit, "openbao")}, {"Key Vault again", in(pg, rsa, "key vault")}, {"PostgreSQL again", in(pg, transit, "")},
		{"SQLite again", in(back, file, "")},
	}
	want := fillMoved(t, stops[0].vault)
	for i, s := range stops[1:] {
		for range 2 {
			if err := vault.Copy(t.Context(), stops[i].vault, s.vault, nil); err != nil {
				t.Fatalf("to %s: %v", s.name, err)
			}
			holds(t, s, want)
		}
	}
}

// newAzure is the emulator's key vault, with a key.
func newAzure(t *testing.T) *keyvault.Vault {
	t.Helper()
	const id, secret = "c0000000-0000-4000-8000-0000000000c1", "only-for-this-test"
	e := emulator.Start(t)
	if err := e.Register(emulator.Application{ID: id, Name: "moves", Tenant: emulator.ContosoTenant, Secrets: []string{secret}}); err != nil {
		t.Fatal(err)
	}
	o := azcore.ClientOptions{Transport: e.Client(), Cloud: cloud.Configuration{ActiveDirectoryAuthorityHost: e.Endpoints().Login + "/"}}
	cred := must(azidentity.NewClientSecretCredential(emulator.ContosoTenant, id, secret, &azidentity.ClientSecretCredentialOptions{ClientOptions: o, DisableInstanceDiscovery: true}))(t)
	keys := must(azkeys.NewClient(e.Endpoints().KeyVault, cred, &azkeys.ClientOptions{ClientOptions: o, DisableChallengeResourceVerification: true}))(t)
	kind, size := azkeys.KeyTypeRSA, int32(2048)
	must(keys.CreateKey(t.Context(), "kek", azkeys.CreateKeyParameters{Kty: &kind, KeySize: &size}, nil))(t)
	return must(keyvault.New(keyvault.Config{
		URL: e.Endpoints().KeyVault, Cloud: mandate.Cloud{Name: "emulator", Authority: e.Endpoints().Login, Custom: true}, HTTP: e.Client(), Rate: 10_000,
		Identity: keyvault.Identity{Tenant: must(mandate.ParseTenantID(emulator.ContosoTenant))(t), Client: must(mandate.ParseAppID(id))(t), Secret: mandate.NewSecret(secret)},
	}))(t)
}

func openMoved(t *testing.T, c database.Config) *database.DB {
	t.Helper()
	c.Schemas = []database.Schema{vault.Schema()}
	db := must(database.Open(t.Context(), c))(t)
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- db.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done; db.Close() })
	return db
}

// fillMoved stores grants in several states, and returns their tokens by
// partner: "" of one that serves nothing.
func fillMoved(t *testing.T, v *vault.SQL) map[mandate.GrantKey]string {
	t.Helper()
	want := make(map[mandate.GrantKey]string)
	for i := range 6 {
		partner := must(mandate.ParseTenantID(fmt.Sprintf("20000000-0000-4000-8000-%012d", i)))(t)
		k := mandate.GrantKey{Cloud: "test", Application: mandate.AppID(partner), Partner: partner}
		for generation := int64(1); generation <= 2; generation++ {
			now := time.Now()
			want[k] = fmt.Sprint("refresh ", i, " ", generation)
			err := v.Activate(t.Context(), mandate.Grant{
				Key: k, Generation: generation, Version: 1, State: mandate.StateActive, User: mandate.Identity{Tenant: partner, Object: mandate.ObjectID(partner)},
				Consented: now, Redeemed: now, Until: now.Add(time.Hour), Due: now.Add(time.Hour), Refresh: mandate.NewSecret(want[k]),
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		switch i {
		case 4:
			want[k] = ""
			if err := v.Suspend(t.Context(), k); err != nil {
				t.Fatal(err)
			}
		case 5:
			want[k] = ""
			must(v.Withdraw(t.Context(), k))(t)
		}
	}
	return want
}

// holds wants every grant to be at a stop as it was at the first.
func holds(t *testing.T, s stop, want map[mandate.GrantKey]string) {
	t.Helper()
	all := must(s.vault.Grants(t.Context(), mandate.TenantID{}))(t)
	if len(all) != 2*len(want) {
		t.Errorf("%s: %d generations, want %d", s.name, len(all), 2*len(want))
	}
	for k, token := range want {
		g, err := s.vault.Open(t.Context(), k)
		if (err == nil) != (token != "") || g.Refresh.Reveal() != token {
			t.Errorf("%s: grant of %s: %v", s.name, k.Partner, err)
		}
		if fallback, err := s.vault.Fallback(t.Context(), k); token != "" && (err != nil || fallback.Generation != 1) {
			t.Errorf("%s: fall-back of %s: %v", s.name, k.Partner, err)
		}
	}
}
