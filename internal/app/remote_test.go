package app

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"log/slog"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"software.sslmate.com/src/go-pkcs12"
)

// furnish writes what a configuration names into its directory.
func furnish(t *testing.T, c *Config) {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Date(2099, 1, 2, 0, 0, 0, 0, time.UTC)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pfx, err := pkcs12.Modern.Encode(key, cert, nil, "CANARY")
	if err != nil {
		t.Fatal(err)
	}
	certPEM := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	keyPEM := string(pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)}))
	for name, text := range map[string]string{
		"app.pem": certPEM + keyPEM, "cert.pem": certPEM, "key.pem": keyPEM, "keys.pfx": string(pfx), "keys.password": "CANARY\n", "grants.secret": "CANARY\n",
		"token": "a.eyJleHAiOjQwNzA5MDg4MDB9.b", "bao.pem": certPEM, "bao.token": "CANARY", "bao.secret": "CANARY", "policy/policy.cedar": ExamplePolicy(),
	} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(c.dir, name)), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(c.dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// made returns what a configuration makes, with every file there.
func made(t *testing.T, text string) (*Config, *outside) {
	t.Helper()
	c, err := load(t, text)
	if err != nil {
		t.Fatal(err)
	}
	furnish(t, &c)
	clouds, err := c.clouds()
	if err != nil {
		t.Fatal(err)
	}
	return &c, newOutside(&c, clouds, slog.New(slog.DiscardHandler))
}

func TestOutside(t *testing.T) {
	t.Setenv("AZURE_TENANT_ID", "00000000-0000-0000-0000-0000000000a1")
	t.Setenv("AZURE_CLIENT_ID", "00000000-0000-0000-0000-0000000000b9")
	t.Setenv("AZURE_FEDERATED_TOKEN_FILE", "token")
	c, o := made(t, elsewhereConfig())
	homes, err := o.homes()
	if err != nil || len(homes) != 3 || homes["key vault https://grants.vault.azure.net"] == nil {
		t.Errorf("got homes %v, %v", homes, err)
	}
	for path, k := range c.keys() {
		if _, err := o.wrapper(k); (err != nil) != (k.File != "") {
			t.Errorf("%s: %v; only key files are not there", path, err)
		}
	}
	if _, err := o.keyring(nil); err == nil || !strings.Contains(err.Error(), "old_keys[1]: key file: ") {
		t.Errorf("a key file of earlier that is not there: %v", err)
	}
	for i := range c.Identities {
		if _, err := c.load(&c.Identities[i]); err != nil {
			t.Errorf("%s: %v", c.Identities[i].Name, err)
		}
	}
	one, _ := o.vault(&c.Key.KeyVault.VaultRef)
	if two, err := o.vault(&c.Key.KeyVault.VaultRef); err != nil || one != two {
		t.Errorf("a vault is made twice: %v", err)
	}
	t.Setenv("AZURE_CLIENT_ID", strings.ToUpper(c.Applications[0].ClientID))
	if _, err := c.load(c.identity("pod")); err == nil || !strings.Contains(err.Error(), `application "marketplace"`) {
		t.Errorf("a pod that is the application: %v", err)
	}
}

// What is wrong with a file is said with its name, and nothing of what is in
// it.
func TestOutsideRefuses(t *testing.T) {
	for _, tt := range []struct {
		name, file, text string
		mode             os.FileMode
		want             string
	}{
		{"readable secret", "grants.secret", "CANARY", 0o644, "chmod 600"},
		{"empty secret", "grants.secret", "\n", 0o600, "not one secret"},
		{"two secrets", "grants.secret", "CANARY\nCANARY", 0o600, "not one secret"},
		{"wrong password", "keys.password", "CANARY-2", 0o600, "is not the PFX file's"},
		{"no roots", "bao.pem", "CANARY", 0o600, "has no certificate in PEM form"},
	} {
		c, o := made(t, elsewhereConfig())
		path := filepath.Join(c.dir, tt.file)
		if err := os.WriteFile(path, []byte(tt.text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, tt.mode); err != nil {
			t.Fatal(err)
		}
		_, err := o.homes()
		for _, k := range c.keys() {
			if _, kerr := o.wrapper(k); err == nil && k.File == "" {
				err = kerr
			}
		}
		if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "CANARY") {
			t.Errorf("%s: got %v, want %q", tt.name, err, tt.want)
		}
	}
}

func TestDescribeCredential(t *testing.T) {
	for credential, want := range map[string]string{
		"certificate: app.pem":                                                               "certificate, valid until 2099-01-02",
		"certificate: cert.pem\n      key: key.pem":                                          "certificate, valid until 2099-01-02",
		"certificate: keys.pfx\n      password_file: keys.password":                          "certificate, valid until 2099-01-02",
		"certificate: keys.pfx":                                                              "names that as password_file",
		"certificate: app.pem\n      password_file: keys.password":                           "goes with a PFX file",
		"certificate: cert.pem":                                                              "no private key",
		"secret: grants.secret":                                                              "client secret; a certificate would be better",
		"federated: {token_file: token}":                                                     "token of another issuer, in token",
		"federated: {token_file: grants.secret}":                                             "no JWT",
		"federated: {managed_identity: system}":                                              "managed identity; not asked for",
		`key_vault: {vault: "https://a.vault.azure.net", certificate: c, identity: machine}`: "certificate c in https://a.vault.azure.net, as machine; not asked for",
		`key_vault: {vault: "https://a.vault.azure.net", key: k, certificate_file: cert.pem, identity: machine}`:      "certificate, valid until 2099-01-02",
		`key_vault: {vault: "https://a.vault.azure.net", key: k, certificate_file: grants.secret, identity: machine}`: "no certificate in",
	} {
		text := elsewhere[:strings.Index(elsewhere, "key:\n")] + strings.Replace(Example(), "certificate: keys/marketplace.pem ", credential+" ", 1)
		c, o := made(t, text)
		got, err := o.describe(t.Context(), &c.Applications[0].Credential, "global")
		if err != nil {
			got = err.Error()
		}
		if !strings.Contains(got, want) || strings.Contains(got, "CANARY") {
			t.Errorf("%s: got %q, want %q", credential, got, want)
		}
	}
}

// The check of a configuration says of everything where it is, and asks nobody.
func TestCheckFilesElsewhere(t *testing.T) {
	t.Setenv("AZURE_TENANT_ID", "00000000-0000-0000-0000-0000000000a1")
	t.Setenv("AZURE_CLIENT_ID", "00000000-0000-0000-0000-0000000000b9")
	t.Setenv("AZURE_FEDERATED_TOKEN_FILE", "token")
	c, _ := made(t, elsewhereConfig())
	found := make(map[string]string)
	for _, f := range CheckFiles(*c) {
		found[f.Subject] += f.Message
		if strings.Contains(f.Message, "CANARY") {
			t.Errorf("%s: %s", f.Subject, f.Message)
		}
		if want := f.Subject != "old_keys[1]" && f.Subject != "shared_key"; f.OK != want {
			t.Errorf("%s: %v, %s", f.Subject, f.OK, f.Message)
		}
	}
	for subject, want := range map[string]string{
		"key": "key mandate in https://keys.vault.azure.net, as keys; not tried", "old_keys[0]": "key transit/mandate at https://bao.example.com:8200; not tried",
		"identity keys": "not tried", "grants": "kv/mandate/grants; not asked for", "application marketplace": "as machine; not asked for",
	} {
		if !strings.Contains(found[subject], want) {
			t.Errorf("%s: got %q, want %q", subject, found[subject], want)
		}
	}
	if _, ok := found["key file"]; ok {
		t.Error("a key file is looked for, and there is none")
	}
}

// Only a server that is alone makes its key: the check says so before the start
// does.
func TestCheckFilesOfReplicas(t *testing.T) {
	for url, want := range map[string]bool{"": true, "postgres://m@db.example/m": false} {
		c, _ := made(t, Example())
		c.Database.URL = url
		for _, f := range CheckFiles(*c) {
			if f.Subject == "key file" && (f.OK != want || strings.Contains(f.Message, "mandate key new") == want) {
				t.Errorf("database %q: %+v", url, f)
			}
		}
	}
}
