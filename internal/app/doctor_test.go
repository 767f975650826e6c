package app

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A doctor tells the level, and everything that could be better by its name.
func TestDiagnose(t *testing.T) {
	key := "witness.example.org+d058fba4+BHGwfWRc5Yk7+yioEeagQwRf39219ndKAGHW/LVUDZ+G"
	for name, tt := range map[string]struct {
		change func(*Config)
		level  int
		want   map[string]string // grade of a subject
	}{
		"as the example is":   {func(*Config) {}, 1, map[string]string{"level": Advice, "key": Good, "application marketplace": Good, "witnesses": Bad, "epoch": Advice, "operators": Advice, "roles": Advice}},
		"key beside the data": {func(c *Config) { c.KeyFile = c.Data + "/key.txt" }, 1, map[string]string{"key": Advice}},
		"key elsewhere": {func(c *Config) {
			c.KeyFile, c.Key = "", Key{Transit: &Transit{BaoServer: BaoServer{Address: "https://bao.example"}, Key: "m"}}
		}, 2, map[string]string{"level": Good, "key": Good}},
		"signing key elsewhere": {func(c *Config) {
			c.Applications[0].Credential = Credential{KeyVault: &Signer{VaultRef: VaultRef{Vault: "https://v.vault.azure.net"}, Certificate: "m"}}
		}, 2, map[string]string{"level": Good}},
		"a token in a file": {func(c *Config) {
			c.Applications[0].Credential = Credential{Federated: &Federated{TokenFile: "token"}}
		}, 1, map[string]string{"level": Advice}},
		"a secret":                  {func(c *Config) { c.Applications[0].Credential = Credential{Secret: "s"} }, 1, map[string]string{"application marketplace": Advice}},
		"a witness beside the data": {func(c *Config) { c.Audit.Witnesses = []AuditWitness{{Name: "w", File: c.Data + "/w"}} }, 1, map[string]string{"witness w": Bad}},
		"witnesses": {func(c *Config) {
			c.Audit.Witnesses = []AuditWitness{{Name: "f", File: "/mnt/elsewhere/w"}, {Name: "c", Cosigner: "https://w.example", Key: key}, {Name: "near", Cosigner: "https://127.0.0.1:8480", Key: key}, {Name: "slow", URL: "https://b.example/c", EverySeconds: 3600}}
		}, 1, map[string]string{"witness f": Good, "witness c": Good, "witness near": Advice, "witness slow": Advice}},
		"witnesses whose URL is in a file": {func(c *Config) {
			write(t, c.file("near.url"), "http://127.0.0.1:8480/c?sig=s\n")
			write(t, c.file("far.url"), "https://b.example/c?sig=s\n")
			c.Audit.Witnesses = []AuditWitness{{Name: "near", URLFile: "near.url"}, {Name: "far", URLFile: "far.url"}, {Name: "lost", URLFile: "absent.url"}}
		}, 1, map[string]string{"witness near": Advice, "witness far": Good, "witness lost": Bad}},
		"an audit key of replicas that is missing": {func(c *Config) { c.Database.URL = "postgres://m@db.example/m" }, 1, map[string]string{"audit key": Bad}},
		"an audit key that is damaged":             {func(c *Config) { c.Audit.KeyFile = "a.key"; write(t, c.file("a.key"), "x\n") }, 1, map[string]string{"audit key": Bad}},
		"an audit key that is made at the start":   {func(*Config) {}, 1, map[string]string{"audit key": ""}},
		"an epoch that is remembered":              {func(c *Config) { write(t, c.epochFile(), "17 abc\n") }, 1, map[string]string{"epoch": Good}},
		"an epoch that is damaged":                 {func(c *Config) { write(t, c.epochFile(), "x\n") }, 1, map[string]string{"epoch": Bad}},
		"operators sign in":                        {func(c *Config) { c.Operators.ClientID = "11111111-2222-3333-4444-555555555555" }, 1, map[string]string{"operators": Good}},
	} {
		c, _ := made(t, Example())
		c.Data = Path(filepath.Join(t.TempDir(), "data"))
		if err := os.Mkdir(string(c.Data), 0o700); err != nil {
			t.Fatal(err)
		}
		tt.change(c)
		d := Diagnose(*c)
		if d.Level != tt.level || d.Remarks[0].Subject != "level" || !strings.HasPrefix(d.Remarks[0].Message, string(rune('0'+tt.level))) {
			t.Errorf("%s: level %d, %+v", name, d.Level, d.Remarks[0])
		}
		got := make(map[string]string)
		for _, r := range d.Remarks {
			if got[r.Subject] == "" { // a file that is missing comes later
				got[r.Subject] = r.Grade
			}
		}
		for subject, grade := range tt.want {
			if got[subject] != grade {
				t.Errorf("%s: %s is %q, want %q", name, subject, got[subject], grade)
			}
		}
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
