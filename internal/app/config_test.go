package app

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/internal/yamlfile"
	"github.com/mandate-sam/mandate/policy"
)

// load loads a configuration from text.
func load(t testing.TB, text string) (Config, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "mandate.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return LoadConfig(path)
}

func TestExample(t *testing.T) {
	c, err := load(t, Example())
	if err != nil {
		t.Fatal(err)
	}
	clouds, err := c.clouds()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := policy.Compile(policy.Source{{Name: "policy.cedar", Text: ExamplePolicy()}}, c.usedClouds(clouds)); err != nil {
		t.Error(err)
	}
	if got, want := c.file(c.Data), filepath.Join(c.dir, "data"); got != want {
		t.Errorf("data is %s, want %s", got, want)
	}
	if got := c.file("/abs"); got != "/abs" {
		t.Errorf("an absolute path became %s", got)
	}
	if sites, err := c.sites(clouds); err != nil || len(sites) != 1 || len(sites[0].Audiences) != 3 {
		t.Errorf("sites %+v, %v", sites, err)
	}
}

// What the example shows of a cloud of one's own can be used as it stands.
func TestExampleCloud(t *testing.T) {
	_, clouds, ok := strings.Cut(Example(), "\n# clouds:\n")
	clouds, _, _ = strings.Cut(clouds, "\n\n")
	text := strings.Replace(Example(), "cloud: global ", "cloud: emulator ", 1) + "\nclouds:\n" + strings.ReplaceAll("\n"+clouds, "\n#", "\n")
	if c, err := load(t, text); !ok || err != nil || len(c.Clouds) != 1 || len(c.Clouds[0].Audiences) != 3 {
		t.Errorf("%v\n%s", err, text)
	}
}

// A path is no secret for being long, and what is left out has its default.
func TestLoadConfigDefaults(t *testing.T) {
	text := strings.Replace(Example(), "data: data", "data: /srv/mandate/a/directory/with/a/rather/long/name", 1)
	text = strings.Replace(text, "key_file: keys/mandate.key", "", 1)
	text = strings.Replace(text, "    audiences: [partnercenter, graph, arm]", "", 1)
	c, err := load(t, text)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := c.keyFile(), "/srv/mandate/a/directory/with/a/rather/long/name/key.txt"; got != want {
		t.Errorf("the key file is %s, want %s", got, want)
	}
	if got, err := c.Applications[0].audiences(mandate.Clouds()["global"]); err != nil || len(got) != 3 {
		t.Errorf("audiences %v, %v", got, err)
	}
	c, err = load(t, Example())
	if got, want := c.keyFile(), filepath.Join(c.dir, "keys/mandate.key"); err != nil || got != want {
		t.Errorf("the key file is %s, want %s", got, want)
	}
}

const custom = `
clouds:
  - name: emulator
    authority: https://localhost:1
    issuer_v1: https://localhost:1/{tenantid}/
    issuer_v2: https://localhost:1/{tenantid}/v2.0
    roots: ca.pem
    audiences:
      partnercenter: {resource: "https://localhost:2"}
      graph: {resource: "https://localhost:3"}
      arm: {resource: "https://localhost:4"}
`

func TestLoadConfigRefuses(t *testing.T) {
	emulated := strings.Replace(Example(), "cloud: global ", "cloud: emulator ", 1) + custom
	if _, err := load(t, emulated); err != nil {
		t.Fatal(err)
	}
	long := strings.Repeat("x", 200)
	for _, tt := range []struct{ base, old, new, want string }{
		{Example(), "data: data", "", "data: is required"},
		{Example(), "policy: policy", "", "policy: is required"},
		{Example(), "data: data", "dta: data", `:5:1: unknown key "dta"; did you mean "data"?`},
		{Example(), "  contact:", "  contct:", `did you mean "contact"?`},
		{Example(), "https://consent.example.com\n", "http://consent.example.com\n", "portal.public_url"},
		{Example(), "https://consent.example.com\n", "https://consent.example.com/\n", "portal.public_url"},
		{Example(), "https://consent.example.com\n", "https://u:p@consent.example.com\n", "portal.public_url"},
		{Example(), "listen: 127.0.0.1:8443", "listen: 0.0.0.0:8443", "without tls must be on a loopback address"},
		{Example(), "listen: 127.0.0.1:8444", "listen: 10.0.0.1:8444", "api.listen"},
		{Example(), "listen: 127.0.0.1:8444", "listen: example.com:8444", "without tls"},
		{Example(), "listen: 127.0.0.1:8443", "listen: '8443'", "must be host:port"},
		{Example(), "  # tls: {certificate: tls/portal.pem, key: tls/portal.key}", "  tls: {certificate: tls/portal.pem}", "needs both"},
		{Example(), "# trusted_proxies: [127.0.0.1]", "trusted_proxies: [nowhere]", "trusted_proxies"},
		{Example(), "# trusted_proxies: [127.0.0.1]", "trusted_proxies: [0.0.0.0/0]", "whole internet"},
		{Example(), "level: info ", "level: loud ", "log.level"},
		{Example(), "format: text ", "format: xml ", "log.format"},
		{Example(), "name: marketplace", "name: 'market place'", "name:"},
		{Example(), "00000000-0000-0000-0000-0000000000aa", "aa", "client_id"},
		{Example(), "cloud: global ", "cloud: mars ", "cloud:"},
		{Example(), "endpoints: v2 ", "endpoints: v3 ", "endpoints:"},
		{Example(), "display_name: Example Marketplace", "display_name: " + long, "display_name:"},
		{Example(), "publisher: Example Panels Ltd", "publisher: ''", "display_name:"},
		{Example(), "certificate: keys/marketplace.pem ", "xcertificate: keys/marketplace.pem ", "unknown key"},
		{Example(), "      certificate: keys/marketplace.pem ", "      key: a.key ", "needs a certificate"},
		{Example(), "# secret: keys/marketplace.secret", "secret: keys/marketplace.secret", "both a certificate and a secret"},
		{Example(), "certificate: keys/marketplace.pem ", "secret: abc8Q~TBsh3VcEXAMPLExHZvRkvNTdbLqWAdSj ", "looks like a secret"},
		{Example(), "certificate: keys/marketplace.pem ", "secret: mdt_7QG7ULVCt88Y2 ", "looks like a secret"},
		{Example(), "certificate: keys/marketplace.pem ", "certificate: \"-----BEGIN PRIVATE KEY-----\" ", "looks like a secret"},
		{Example(), "certificate: keys/marketplace.pem ", "certificate: [a] ", "must be the path of a file"},
		{Example(), "audiences: [partnercenter, graph, arm]", "audiences: [mail]", "audience"},
		{Example(), "scope: User.Read,", "scope: 'User Read',", "permissions"},
		{Example(), "api: arm, scope", "api: mars, scope", "permissions"},
		{emulated, "roots: ca.pem", "", "roots is required"},
		{emulated, "name: emulator\n", "name: global\n", "is there twice, or is one of Microsoft's"},
		{emulated, "authority: https://localhost:1", "authority: https://login.microsoftonline.com", "Microsoft's; a custom cloud may not use it"},
		{emulated, `graph: {resource: "https://localhost:3"}`, `graph: {resource: "x", url: "https://graph.microsoft.com"}`, "Microsoft's; a custom cloud"},
		{emulated, "applications:\n", "applications:\n" + second, "a server has either"},
		{Example(), "applications:\n", "applications:\n" + strings.ReplaceAll(second, "name: other", "name: marketplace"), "is there twice"},
		{Example(), "applications:\n", "applications:\n" + strings.ReplaceAll(second, "bb", "aa"), "is there twice"},
	} {
		text := strings.Replace(tt.base, tt.old, tt.new, 1)
		if text == tt.base {
			t.Errorf("%q is not in the configuration", tt.old)
		}
		_, err := load(t, text)
		if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), "mandate.yaml") {
			t.Errorf("%q for %q: got %v, want %q", tt.new, tt.old, err, tt.want)
		}
		if err != nil && strings.Contains(err.Error(), "TBsh3VcEXAMPLE") {
			t.Errorf("the error repeats a secret: %v", err)
		}
	}
}

const second = `  - name: other
    client_id: 00000000-0000-0000-0000-0000000000bb
    display_name: Other
    publisher: Other
    credential: {certificate: other.pem}
`

func TestLoadConfigNoApplications(t *testing.T) {
	i := strings.Index(Example(), "applications:")
	_, err := load(t, Example()[:i])
	var e *mandate.InvalidError
	if !errors.As(err, &e) || e.Field != "applications" {
		t.Errorf("got %v", err)
	}
	if _, err := LoadConfig(filepath.Join(t.TempDir(), "absent.yaml")); !os.IsNotExist(err) {
		t.Errorf("an absent file: %v", err)
	}
}

// A secret is refused with its line.
func TestSecretInConfigurationNamesItsLine(t *testing.T) {
	_, err := load(t, "data: data\nkey_file: 0123456789abcdef0123456789abcdef0123456789\n")
	if err == nil || !strings.Contains(err.Error(), "line 2") || !strings.Contains(err.Error(), "looks like a secret") {
		t.Errorf("got %v", err)
	}
}

func TestSocketPath(t *testing.T) {
	c := Config{dir: "/etc/mandate"}
	t.Setenv("XDG_RUNTIME_DIR", "/run/user/7")
	if got := c.socket(); got != "/run/user/7/mandate.sock" {
		t.Errorf("got %s", got)
	}
	t.Setenv("XDG_RUNTIME_DIR", "")
	if got := c.socket(); got != "/run/mandate/mandate.sock" {
		t.Errorf("got %s", got)
	}
	c.Socket = "x.sock"
	if got := c.socket(); got != "/etc/mandate/x.sock" {
		t.Errorf("got %s", got)
	}
}

func FuzzConfig(f *testing.F) {
	f.Add([]byte(Example()))
	f.Add([]byte(Example() + custom))
	f.Add([]byte(elsewhereConfig()))
	f.Fuzz(func(t *testing.T, data []byte) {
		var c Config
		if yamlfile.Decode("f", data, &c) != nil || c.Check() != nil {
			return
		}
		clouds, err := c.clouds()
		if err != nil {
			t.Fatalf("checked, and then %v", err)
		}
		if _, err := c.sites(clouds); err != nil {
			t.Fatalf("checked, and then %v", err)
		}
	})
}

func TestDatabaseConfig(t *testing.T) {
	for _, tt := range []struct{ url, want string }{
		{"postgres://mandate@db.example.com/mandate?sslmode=verify-full", ""},
		{"postgres://mandate@localhost/mandate", ""},
		{"postgres:///mandate?host=/run/postgresql", ""},
		{"postgres://mandate:secret@localhost/mandate", "password_file"},
		{"postgres://mandate@localhost/mandate?password=secret", "password_file"},
		{"postgres://mandate@db.example.com/mandate", "sslmode=verify-full"},
		{"postgres://mandate@db.example.com/mandate?sslmode=require", "sslmode=verify-full"},
		{"postgres:///mandate?host=db.example.com", "sslmode=verify-full"},
		{"mysql://localhost/mandate", "must be postgres://"},
	} {
		for _, d := range []Database{{URL: tt.url}, {URL: "postgres://localhost/mandate", ListenURL: tt.url}} {
			err := d.check()
			if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%+v: got %v, want %q", d, err, tt.want)
			}
			if err != nil && strings.Contains(err.Error(), ":secret") {
				t.Errorf("the password is in %v", err)
			}
		}
	}
	for _, d := range []Database{{Connections: 5}, {PasswordFile: "x"}, {URL: "postgres://localhost/m", Connections: -1}} {
		if err := d.check(); !errors.Is(err, mandate.ErrInvalid) {
			t.Errorf("%+v: %v", d, err)
		}
	}
}

// The password comes from a file that nobody else can read.
func TestDatabasePassword(t *testing.T) {
	path := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(path, []byte("p@ss/word\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c := Config{Database: Database{PasswordFile: Path(path)}}
	if got, err := c.withPassword("postgres://u@localhost/m"); err != nil || got != "postgres://u:p%40ss%2Fword@localhost/m" {
		t.Errorf("got %s, %v", got, err)
	}
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := c.withPassword("postgres://u@localhost/m"); err == nil {
		t.Error("a file that all may read was read")
	}
}
