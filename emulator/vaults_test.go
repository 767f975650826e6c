package emulator_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/mandate-sam/mandate/emulator"
)

const vaultQuery = "?api-version=2025-07-01"

func TestVaults(t *testing.T) {
	e, err := emulator.Open(emulator.Config{Vaults: []string{"first-vault", "second-vault@fabrikam.example"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Close() })
	third, err := e.AddVault("third-vault@" + emulator.AdatumTenant)
	if err != nil {
		t.Fatal(err)
	}
	urls := map[string]bool{e.Vault("First-Vault"): true, e.Vault("second-vault"): true, third: true}
	if len(urls) != 3 || urls[""] || e.Vault("first-vault") != e.Endpoints().KeyVault || e.Vault("third-vault") != third || e.Vault("contoso-vault") != "" {
		t.Errorf("got %v", urls)
	}
	for name, tenant := range map[string]string{"first-vault": emulator.ContosoTenant, "second-vault": emulator.FabrikamTenant, "third-vault": emulator.AdatumTenant} {
		a := call(t, e, e.Vault(name)+"/secrets"+vaultQuery, "")
		want := `Bearer authorization="` + e.Endpoints().Login + "/" + tenant + `", resource="https://vault.azure.net"`
		if got := a.header.Get("WWW-Authenticate"); a.status != 401 || got != want {
			t.Errorf("%s: got %d, %s, want %s", name, a.status, got, want)
		}
	}
	for _, name := range []string{"first-vault", "FIRST-vault", "x", "1vault", "a_vault", "new-vault@nobody.example", ""} {
		if _, err := e.AddVault(name); err == nil {
			t.Errorf("a vault %q was added", name)
		}
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := e.AddVault("late-vault"); err == nil {
		t.Error("a vault was added after the end")
	}
}

func TestVaultNames(t *testing.T) {
	for _, names := range [][]string{{"ok-vault", "OK-vault"}, {"-"}, {"ok-vault@nobody.example"}} {
		if e, err := emulator.Open(emulator.Config{Vaults: names}); err == nil {
			e.Close()
			t.Errorf("started with vaults %q", names)
		}
	}
}

// The refresh token of a sign-in is good for the vaults of the user's tenant:
// by the name that all vaults have, and by that of one of them.
func TestVaultAndUsers(t *testing.T) {
	e := start(t)
	rt := consented(t, e, 2, "admin@contoso.example").str("refresh_token")
	if err := e.Consent("contoso.example", emulator.ApplicationID, emulator.KeyVault, "user_impersonation"); err != nil {
		t.Fatal(err)
	}
	other, err := e.AddVault("other-vault")
	if err != nil {
		t.Fatal(err)
	}
	url := e.Endpoints().KeyVault
	get := func(resource string) string {
		return token(t, e, 1, "contoso.example", "refresh_token", "refresh_token", rt, "resource", resource).str("access_token")
	}
	for _, row := range []struct {
		resource, vault string
		status          int
	}{
		{"https://vault.azure.net", url, 200},
		{"https://vault.azure.net/", other, 200},
		{emulator.KeyVault, url, 200},
		{url, url, 200},
		{url, other, 401},
		{strings.Replace(url, "localhost", "vault.localhost", 1), url, 200},
		{strings.Replace(url, "localhost", "contoso-vault.vault.localhost", 1), url, 200},
	} {
		if a := call(t, e, row.vault+"/secrets"+vaultQuery, get(row.resource)); a.status != row.status {
			t.Errorf("%s at %s: got %d %v, want %d", row.resource, row.vault, a.status, a.raw, row.status)
		}
	}
	raw := get("https://vault.azure.net")
	if err := e.SetVaultPolicies("contoso-vault", emulator.VaultPolicy{Principal: "admin@contoso.example", Secrets: []string{"list"}}); err != nil {
		t.Fatal(err)
	}
	if a := call(t, e, url+"/secrets"+vaultQuery, raw); a.status != 200 {
		t.Errorf("got %d %v", a.status, a.raw)
	}
	if a := call(t, e, url+"/keys"+vaultQuery, raw); a.status != 403 {
		t.Errorf("got %d %v, want 403", a.status, a.raw)
	}
	for name, p := range map[string]emulator.VaultPolicy{"nothing": {Principal: "x"}, "contoso-vault": {Principal: "nobody@contoso.example"}} {
		if e.SetVaultPolicies(name, p) == nil {
			t.Errorf("vault %s took policy %v", name, p)
		}
	}
	if err := e.Revoke("admin@contoso.example"); err != nil {
		t.Fatal(err)
	}
	if a := call(t, e, other+"/secrets"+vaultQuery, raw); a.status != 401 {
		t.Errorf("a revoked token: got %d", a.status)
	}
}

func TestAdminVaults(t *testing.T) {
	e := start(t)
	type vault struct {
		Name, Tenant, URL string
		Policies          []emulator.VaultPolicy
	}
	read := func(method, path, body string, v any) {
		t.Helper()
		code, out := admin(t, e, method, path, body)
		if code != 200 {
			t.Fatalf("%s %s: %d %s", method, path, code, out)
		}
		if err := json.Unmarshal([]byte(out), v); err != nil {
			t.Fatal(err)
		}
	}
	var added, changed vault
	read("POST", "/emulator/vaults", `{"name":"new-vault","tenant":"fabrikam.example"}`, &added)
	if added.URL != e.Vault("new-vault") || added.Tenant != emulator.FabrikamTenant || len(added.Policies) != 0 {
		t.Errorf("got %+v", added)
	}
	read("PUT", "/emulator/vaults/new-vault/policies", `{"policies":[{"principal":"`+emulator.ApplicationID+`","secrets":["get"]}]}`, &changed)
	if len(changed.Policies) != 1 || changed.Policies[0].Principal != emulator.ApplicationID {
		t.Errorf("got %+v", changed)
	}
	for _, row := range []struct{ method, path, body string }{
		{"POST", "/emulator/vaults", `{"name":"new-vault"}`},
		{"POST", "/emulator/vaults", `{"name":"newer-vault","tenant":"nobody.example"}`},
		{"PUT", "/emulator/vaults/nothing/policies", `{}`},
		{"PUT", "/emulator/vaults/new-vault/policies", `{"policies":[{"principal":"x","secrets":["fly"]}]}`},
		{"PATCH", "/emulator/dials", `{"key_vault":{"budgets":{"shoes":1}}}`},
		{"PATCH", "/emulator/dials", `{"key_vault":{"window_seconds":-1}}`},
	} {
		if code, _ := admin(t, e, row.method, row.path, row.body); code != 400 {
			t.Errorf("%s %s %s: got %d, want 400", row.method, row.path, row.body, code)
		}
	}
	if code, out := admin(t, e, "PATCH", "/emulator/dials", `{"key_vault":{"budgets":{"secrets":1},"outage":["*"]}}`); code != 200 {
		t.Errorf("got %d %s", code, out)
	}
	if d := e.Dials().KeyVault; d.Budgets["secrets"] != 1 || len(d.Outage) != 1 {
		t.Errorf("got %+v", d)
	}
	reset(t, e)
	var all []vault
	read("GET", "/emulator/vaults", "", &all)
	if len(all) != 2 || len(all[1].Policies) != 0 {
		t.Errorf("after a reset: got %+v, want two vaults without policies", all)
	}
}
