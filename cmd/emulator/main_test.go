package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/mandate-sam/mandate/emulator"
)

var anyPorts = []string{"--login-port", "0", "--partner-center-port", "0", "--graph-port", "0", "--arm-port", "0", "--key-vault-port", "0", "--admin-port", "0"}

// execute runs the command until it has described itself, lets f look at the
// description, and stops it.
func execute(t *testing.T, f func(out string), args ...string) error {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	r, w := io.Pipe()
	c := command(w, io.Discard)
	c.SetArgs(append(args, anyPorts...))
	done := make(chan error, 1)
	go func() {
		err := c.ExecuteContext(ctx)
		w.Close()
		done <- err
	}()
	buf := make([]byte, 64<<10)
	n, err := r.Read(buf)
	if err == nil {
		f(string(buf[:n]))
	}
	cancel()
	return <-done
}

func TestJSON(t *testing.T) {
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, []byte("old"), 0o644); err != nil {
		t.Fatal(err)
	}
	err := execute(t, func(out string) {
		var d description
		if err := json.Unmarshal([]byte(out), &d); err != nil {
			t.Fatal(err)
		}
		if d.Seed != 7 || len(d.Users) != 14 || d.SPKI == "" || d.Application == "" || d.CAFile != ca {
			t.Errorf("got %+v", d)
		}
		info, err := os.Stat(ca)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != 0o600 {
			t.Errorf("the CA's file has mode %v, want 0600", info.Mode())
		}
		pem, err := os.ReadFile(ca)
		if err != nil {
			t.Fatal(err)
		}
		roots := x509.NewCertPool()
		roots.AppendCertsFromPEM(pem)
		client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, DisableKeepAlives: true}}
		res, err := client.Get(d.Endpoints.Admin + "/emulator/health")
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != 200 {
			t.Errorf("health: got %d", res.StatusCode)
		}
	}, "--json", "--seed", "7", "--ca-out", ca)
	if err != nil {
		t.Error(err)
	}
}

func TestText(t *testing.T) {
	ca := filepath.Join(t.TempDir(), "ca.pem")
	err := execute(t, func(out string) {
		for _, want := range []string{"not Microsoft", "https://localhost:", "admin@contoso.example", "guest@adventure-works.example", "Seed", "SSL_CERT_FILE=" + ca, "spki-list="} {
			if !strings.Contains(out, want) {
				t.Errorf("the description lacks %q:\n%s", want, out)
			}
		}
	}, "--ca-out", ca)
	if err != nil {
		t.Error(err)
	}
}

// Vaults are made as the flags say, and named by both of their addresses.
func TestVaults(t *testing.T) {
	err := execute(t, func(out string) {
		var d description
		if err := json.Unmarshal([]byte(out), &d); err != nil {
			t.Fatal(err)
		}
		if len(d.Vaults) != 2 || d.Vaults[0].URL != d.Endpoints.KeyVault || d.Vaults[1].Name != "Vault-B" || !strings.HasPrefix(d.Vaults[1].DNS, "https://vault-b.vault.localhost:") {
			t.Errorf("vaults: %+v", d.Vaults)
		}
		for _, name := range []string{"Go", "Node", "Python", "Java"} {
			if c := d.Clients[name]; len(c.Options) == 0 || !strings.Contains(strings.Join(c.Options, " "), d.Endpoints.Login) {
				t.Errorf("settings of %s: %+v", name, c)
			}
		}
		// azure-identity takes a host without a scheme for one of another scheme.
		if want := `azure-identity: authority="` + d.Endpoints.Login + `"`; !strings.Contains(strings.Join(d.Clients["Python"].Options, " "), want) {
			t.Errorf("settings of Python lack %s", want)
		}
	}, "--json", "--vault", "vault-a", "--vault", "Vault-B@fabrikam.example")
	if err != nil {
		t.Error(err)
	}
}

// A fixture with many tenants is described in a page or two.
func TestLongDescription(t *testing.T) {
	var b strings.Builder
	for i := range 50 {
		fmt.Fprintf(&b, `,{"id":"30000000-0000-4000-8000-%012d","name":"C%d","domain":"c%d.example","kind":"customer"}`, i, i, i)
	}
	file := filepath.Join(t.TempDir(), "tenants.json")
	if err := os.WriteFile(file, []byte(`{"tenants":[`+b.String()[1:]+`]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	err := execute(t, func(out string) {
		if !strings.Contains(out, "… and 20 more") || strings.Contains(out, emulator.ApplicationID) {
			t.Errorf("got %s", out)
		}
	}, "--fixture", file)
	if err != nil {
		t.Error(err)
	}
}

func TestErrors(t *testing.T) {
	for _, args := range [][]string{{"--nothing"}, {"argument"}, {"--ca-out", "/no/such/directory/ca.pem"}, {"--seed", "x"}, {"--vault", "no"}, {"--vault", "vault-a@nobody.example"}, {"--vault", "vault-a", "--vault", "VAULT-A"}, {"--fixture", "/no/such/file.yaml"}} {
		if err := execute(t, func(string) {}, args...); err == nil {
			t.Errorf("%q: no error", args)
		}
	}
}

func TestHelp(t *testing.T) {
	var out bytes.Buffer
	c := command(&out, io.Discard)
	c.SetOut(&out)
	c.SetArgs([]string{"--help"})
	if err := c.Execute(); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out.String(), "Examples:") || !strings.Contains(out.String(), "--ca-out") {
		t.Errorf("got %s", out.String())
	}
}
