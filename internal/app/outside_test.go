package app

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/mandate-sam/mandate"
)

// elsewhere is an example whose key, grants and credential are not files of
// this machine's. Line numbers in the tests count from its beginning.
const elsewhere = `identities:
  - {name: keys, tenant: 00000000-0000-0000-0000-0000000000a1, client_id: 00000000-0000-0000-0000-0000000000b1, certificate: keys.pfx, password_file: keys.password}
  - {name: grants, tenant: 00000000-0000-0000-0000-0000000000a1, client_id: 00000000-0000-0000-0000-0000000000b2, secret: grants.secret}
  - {name: cluster, tenant: 00000000-0000-0000-0000-0000000000a1, client_id: 00000000-0000-0000-0000-0000000000b3, token_file: token}
  - {name: machine, managed_identity: system}
  - {name: user, managed_identity: 00000000-0000-0000-0000-0000000000b4}
  - {name: pod, workload_identity: true}
key:
  key_vault:
    vault: https://keys.vault.azure.net
    key: mandate
    identity: keys
old_keys:
  - transit: {address: "https://bao.example.com:8200", namespace: team/a, key: mandate, token_file: bao.token, roots: bao.pem}
  - file: keys/old.key
shared_key: {file: keys/shared.key}
grants:
  key_vault: {vault: "https://grants.vault.azure.net", identity: grants}
  partners:
    contoso: {openbao: {address: "https://bao.example.com:8200", mount: kv, path: mandate/grants, login: {mount: approle, role: r, secret_file: bao.secret}}}
    fabrikam: {database: true}
  former:
    - openbao: {address: "http://127.0.0.1:8200", token_file: agent.token}
`

// elsewhereConfig returns the example with elsewhere in front, and the
// application's key in a vault.
func elsewhereConfig() string {
	text := strings.Replace(Example(), "key_file: keys/mandate.key", "", 1)
	return elsewhere + strings.Replace(text, "      certificate: keys/marketplace.pem ",
		"      key_vault: {vault: \"https://app.vault.azure.net\", certificate: marketplace, identity: machine} ", 1)
}

func TestElsewhere(t *testing.T) {
	c, err := load(t, elsewhereConfig())
	if err != nil {
		t.Fatal(err)
	}
	if c.keyFile() != "" {
		t.Errorf("the key file is %q, want none", c.keyFile())
	}
	var names []string
	for _, h := range c.Grants.homes() {
		names = append(names, h.name())
	}
	slices.Sort(names)
	want := []string{"", "key vault https://grants.vault.azure.net", "openbao http://127.0.0.1:8200 secret/mandate", "openbao https://bao.example.com:8200 kv/mandate/grants"}
	if !slices.Equal(names, want) {
		t.Errorf("got homes %q, want %q", names, want)
	}
	for _, credential := range []string{
		"certificate: a.pem", "certificate: a.pem\n      key: a.key", "certificate: a.pfx\n      password_file: a.password", "secret: a.secret",
		"key_vault: {vault: \"https://app.vault.azure.net\", key: marketplace/0123456789abcdef, certificate_file: a.pem, identity: pod}",
		"federated: {token_file: token}", "federated: {managed_identity: system}", "federated: {managed_identity: 00000000-0000-0000-0000-0000000000b4}",
	} {
		if _, err := load(t, strings.Replace(Example(), "certificate: keys/marketplace.pem ", credential+" ", 1)+elsewhere[:strings.Index(elsewhere, "key:\n")]); err != nil {
			t.Errorf("%s: %v", credential, err)
		}
	}
}

// Every bad line gets an error that says which it is and what to do.
func TestElsewhereRefuses(t *testing.T) {
	base := elsewhereConfig()
	for _, tt := range []struct {
		old, new string
		line     int
		want     string
	}{
		{"name: grants,", "name: 'a b',", 3, "identities[1].name: must be a short name"},
		{"name: grants,", "name: keys,", 3, `identities[1].name: "keys" is there twice`},
		{"0000a1, client_id: 00000000-0000-0000-0000-0000000000b2", "0000a1, client_id: b2", 3, "identities[1].client_id:"},
		{"tenant: 00000000-0000-0000-0000-0000000000a1, client_id: 00000000-0000-0000-0000-0000000000b2", "tenant: contoso, client_id: 00000000-0000-0000-0000-0000000000b2", 3, "identities[1].tenant:"},
		{"0000000000b2", "0000000000AA", 3, `identities[1].client_id: is that of application "marketplace"`},
		{"0000000000b4", "0000000000aa", 6, `identities[4].client_id: is that of application "marketplace"`},
		{"secret: grants.secret", "secret: grants.secret, certificate: a.pem", 3, "and has 2"},
		{", secret: grants.secret", "", 3, "and has 0"},
		{"secret: grants.secret", "secret: grants.secret, key: a.key", 3, "identities[1].certificate: is required where there is a key"},
		{"secret: grants.secret", "secret: abc8Q~TBsh3VcEXAMPLExHZvRkvNTdbLqWAdSj", 3, "looks like a secret"},
		{"managed_identity: system", "managed_identity: all", 5, "identities[3].managed_identity:"},
		{"managed_identity: system", "managed_identity: system, client_id: 00000000-0000-0000-0000-0000000000b5", 5, "do not go with a managed"},
		{"workload_identity: true", "workload_identity: true, tenant: x", 7, "do not go with a managed or workload"},

		{"    key: mandate\n", "    key: man_date\n", 11, "key.key_vault.key: "},
		{"    key: mandate\n", "", 10, "key.key_vault.key: "},
		{"    key: mandate\n", "    kee: mandate\n", 11, `unknown key "kee"; did you mean "key"?`},
		{"identity: keys\n", "identity: key\n", 12, `key.key_vault.identity: "key" is not a name of identities`},
		{"vault: https://keys.vault.azure.net", "vault: https://keys.example.com", 10, "key.key_vault.vault: "},
		{"vault: https://keys.vault.azure.net", "vault: http://keys.vault.azure.net", 10, "key.key_vault.vault: "},
		{"vault: https://keys.vault.azure.net", "vault: https://keys.vault.azure.net/keys/k", 10, "key.key_vault.vault: "},
		{"vault: https://keys.vault.azure.net", "vault: https://keys.vault.azure.net\n    cloud: usgov", 10, `is not a vault of cloud "usgov"`},
		{"vault: https://keys.vault.azure.net", "vault: https://keys.vault.azure.net\n    cloud: mars", 11, "key.key_vault.cloud: "},
		{"  key_vault:\n", "  file: a.key\n  key_vault:\n", 9, "key.file: or key_vault or transit is required, and just one"},
		{"  - file: keys/old.key", "  - {}", 15, "old_keys[1].file: or key_vault or transit is required"},
		{"data: data", "data: data\nkey_file: a.key", 9, "key: and key_file are both there"},
		{"key: mandate, token_file", "key: man/date/, token_file", 14, "old_keys[0].transit.key: "},
		{"key: mandate, token_file", "mount: ../x, key: mandate, token_file", 14, "old_keys[0].transit.mount: "},
		{"{address: \"https://bao", "{address: \"http://bao", 14, "old_keys[0].transit.address: "},
		{"namespace: team/a", "namespace: /a", 14, "old_keys[0].transit.namespace: "},
		{", token_file: bao.token", "", 14, "old_keys[0].transit.token_file: or login is required"},
		{"token_file: bao.token", "token_file: hvs.CAESIJ0x1234567890abcdefghijklmnopqrstuvw", 14, "looks like a secret"},
		{"roots: bao.pem", "roots: \"-----BEGIN CERTIFICATE-----\"", 14, "looks like a secret"},
		{"shared_key: {file: keys/shared.key}", "shared_key: {key_vault: {vault: \"https://KEYS.vault.azure.net/\", key: mandate, identity: grants}}", 16, "shared_key: is a key of the grants"},
		{"shared_key: {file: keys/shared.key}", "shared_key: {file: keys/old.key}", 16, "shared_key: is a key of the grants, or was"},
		{"shared_key: {file: keys/shared.key}", "database: {url: \"postgres://localhost/m\"}", 0, "shared_key: is required where replicas"},

		{"identity: grants}", "identity: nobody}", 18, "grants.key_vault.identity: "},
		{"identity: grants}", "identity: grants}\n  database: true", 19, "grants.database: or key_vault or openbao is required, and just one"},
		{"vault: \"https://grants.vault.azure.net\"", "vault: \"https://grants.vault.azure.com\"", 18, "grants.key_vault.vault: "},
		{"mount: kv,", "mount: /kv,", 20, "grants.partners.contoso.openbao.mount: "},
		{"path: mandate/grants", "path: /grants", 20, "grants.partners.contoso.openbao.path: "},
		{"mount: approle", "mount: ''", 20, "grants.partners.contoso.openbao.login.mount: "},
		{"role: r, ", "", 20, "grants.partners.contoso.openbao.login.role: is required"},
		{", secret_file: bao.secret", "", 20, "needs a secret_file, for AppRole, or a token_file, for Kubernetes"},
		{"login: {mount", "token_file: x, login: {mount", 20, "openbao.token_file: or login is required, and not both"},
		{"fabrikam: {database: true}", "fabrikam: {}", 21, "grants.partners.fabrikam.database: "},
		{"fabrikam: {database: true}", "'a b': {database: true}", 0, `is not the short name of a partner`},
		{"\"http://127.0.0.1:8200\"", "\"http://10.0.0.1:8200\"", 23, "grants.former[0].openbao.address: "},
		{"vault: \"https://grants.vault.azure.net\", identity: grants", "vault: \"https://Keys.vault.azure.net/\", identity: keys", 18, "grants.key_vault: is where key is too, and one identity opens both"},
		{"address: \"https://bao.example.com:8200\", mount: kv, path: mandate/grants, login: {mount: approle, role: r, secret_file: bao.secret}",
			"address: \"https://bao.example.com:8200\", namespace: team/a, token_file: bao.token", 20, "openbao: is where old_keys[0] is too"},

		{"certificate: marketplace, identity", "certificate: market_place, identity", -1, "certificate: "},
		{"certificate: marketplace, identity", "certificate: marketplace, key: k, identity", -1, "or key is required, and just one"},
		{"certificate: marketplace, identity", "identity", -1, "or key is required, and just one"},
		{"certificate: marketplace, identity", "key: k, identity", -1, "certificate_file: is required with key"},
		{"certificate: marketplace, identity", "certificate: marketplace, certificate_file: a.pem, identity", -1, "certificate_file: goes with key"},
		{"certificate: marketplace, identity", "key: k/, certificate_file: a.pem, identity", -1, "key: "},
		{"certificate: marketplace, identity: machine", "certificate: marketplace, identity: nobody", -1, "identity: "},
		{"      # key: keys/marketplace.key", "      key: keys/marketplace.key", 0, "no certificate that it is of"},
		{"      # key: keys/marketplace.key", "      federated: {token_file: x}", 0, "more than one of certificate, secret, key_vault and federated"},
	} {
		text := strings.Replace(base, tt.old, tt.new, 1)
		if text == base {
			t.Errorf("%q is not in the configuration", tt.old)
			continue
		}
		_, err := load(t, text)
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%q for %q: got %v, want %q", tt.new, tt.old, err, tt.want)
			continue
		}
		if tt.line < 0 { // where it was put
			tt.line = 1 + strings.Count(base[:strings.Index(base, tt.old)], "\n")
		}
		if line := fmt.Sprintf("mandate.yaml:%d", tt.line); tt.line > 0 && !strings.Contains(err.Error(), line+":") && !strings.Contains(err.Error(), fmt.Sprintf("line %d:", tt.line)) {
			t.Errorf("%q for %q: got %v, want line %d", tt.new, tt.old, err, tt.line)
		}
	}
	federated := strings.Replace(Example(), "certificate: keys/marketplace.pem ", "federated: {token_file: a, managed_identity: system} ", 1)
	if _, err := load(t, federated); err == nil || !strings.Contains(err.Error(), "token_file: or managed_identity is required") {
		t.Errorf("got %v", err)
	}
	federated = strings.Replace(Example(), "certificate: keys/marketplace.pem ", "federated: {managed_identity: x} ", 1)
	if _, err := load(t, federated); err == nil || !strings.Contains(err.Error(), "managed_identity: ") {
		t.Errorf("got %v", err)
	}
}

// One roof over grants and key is for those who say that they know.
func TestSharedVaultIsAcknowledged(t *testing.T) {
	one := strings.Replace(elsewhereConfig(), `vault: "https://grants.vault.azure.net", identity: grants`, `vault: "https://keys.vault.azure.net", identity: keys`, 1)
	if _, err := load(t, strings.Replace(one, "grants:\n", "grants:\n  acknowledge_shared_vault: true\n", 1)); err != nil {
		t.Errorf("acknowledged: %v", err)
	}
	other := strings.Replace(one, `azure.net", identity: keys`, `azure.net", identity: grants`, 1)
	if _, err := load(t, other); err != nil {
		t.Errorf("with another identity: %v", err)
	}
}

// An emulator's vault takes nothing of Microsoft's clouds, nor the other way.
func TestVaultsAndClouds(t *testing.T) {
	emulated := strings.Replace(elsewhereConfig(), "cloud: global ", "cloud: emulator ", 1) + custom
	if _, err := load(t, emulated); err == nil || !strings.Contains(err.Error(), "an emulator and Microsoft never share") {
		t.Errorf("Microsoft's vault, emulated application: %v", err)
	}
	mixed := strings.Replace(elsewhereConfig(), "vault: https://keys.vault.azure.net", "vault: https://localhost:5\n    cloud: emulator", 1) + custom
	if _, err := load(t, mixed); err == nil || !strings.Contains(err.Error(), "an emulator and Microsoft never share") {
		t.Errorf("the emulator's vault, Microsoft's application: %v", err)
	}
}

// someone knows partners.
type someone []mandate.Partner

func (s someone) Partners() ([]mandate.Partner, error) { return s, nil }
func (s someone) Partner(string) (mandate.Partner, error) {
	if len(s) == 1 {
		return s[0], nil
	}
	return mandate.Partner{}, mandate.ErrUnknownPartner
}

func TestHomeOf(t *testing.T) {
	c, err := load(t, elsewhereConfig())
	if err != nil {
		t.Fatal(err)
	}
	key := func(n byte) mandate.GrantKey { return mandate.GrantKey{Cloud: string('a' + rune(n))} }
	all := someone{{Name: "contoso", Key: key(1)}, {Name: "fabrikam", Key: key(2)}, {Name: "other", Key: key(3)}}
	for n, want := range map[byte]string{
		1: "openbao https://bao.example.com:8200 kv/mandate/grants", 2: "", 3: "key vault https://grants.vault.azure.net", 4: "key vault https://grants.vault.azure.net",
	} {
		if got := c.Grants.homeOf(all)(key(n)); got != want {
			t.Errorf("partner %d is in %q, want %q", n, got, want)
		}
	}
	if got := c.Grants.homeOf(all[:1])(key(1)); !strings.HasPrefix(got, "openbao") {
		t.Errorf("contoso alone is in %q", got)
	}
	if got := (&Grants{}).homeOf(nil)(key(1)); got != "" {
		t.Errorf("without a word of it grants are in %q, want the database", got)
	}
}
