package interop_test

import (
	"bufio"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/mandate-sam/mandate/emulator"
)

// oldestNode is the first version of Node that all the clients run on.
const oldestNode = 20

func TestNode(t *testing.T) {
	for _, name := range []string{"msal-node", "azure-identity", "graph-client", "openid-client", "keyvault-secrets", "keyvault-keys"} {
		t.Run(name, func(t *testing.T) {
			e := start(t)
			consent(t, e)
			if err := e.Consent(emulator.ContosoTenant, emulator.ApplicationID, graph, "Application.ReadWrite.All"); err != nil {
				t.Fatal(err)
			}
			publish(t, e)
			change(t, e, func(a *emulator.Application) { a.IssueIDTokens = true })
			addDevice(t, e)
			e.Dial(func(d *emulator.Dials) { d.SignIn.DeviceIntervalSeconds = 1 })
			vaultCredential(t, e)
			runScript(t, e, name)
		})
	}
}

// modules installs the clients as node/package-lock.json says, once, into a
// directory that ends with the tests, and returns it.
var modules = sync.OnceValues(func() (string, error) {
	version, err := exec.Command("node", "--version").Output()
	if err != nil {
		return "", fmt.Errorf("Node %d or newer is needed by these tests: %w", oldestNode, err)
	}
	var major int
	if _, err := fmt.Sscanf(string(version), "v%d.", &major); err != nil || major < oldestNode {
		return "", fmt.Errorf("Node %d or newer is needed by these tests; this is %s", oldestNode, strings.TrimSpace(string(version)))
	}
	dir, err := os.MkdirTemp("", "interop")
	if err != nil {
		return "", err
	}
	installed = dir
	if err := os.CopyFS(dir, os.DirFS("node")); err != nil {
		return "", err
	}
	npm := exec.Command("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline", "--loglevel=error")
	npm.Dir = dir
	if out, err := npm.CombinedOutput(); err != nil {
		return "", fmt.Errorf("npm ci: %w\n%s", err, out)
	}
	return dir, nil
})

// installed is the directory that modules made, if it did.
var installed string

// removeModules is called when all tests have run.
func removeModules() {
	if installed != "" {
		os.RemoveAll(installed)
	}
}

// runScript runs node/NAME.mjs against the emulator. The script finds its
// settings in the environment variable EMULATOR. It fails by ending with
// anything but 0; until then each line that it prints is an event (see
// node/emulator.mjs).
func runScript(t *testing.T, e *emulator.Emulator, name string) {
	t.Helper()
	dir, err := modules()
	if err != nil {
		t.Fatal(err)
	}
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, e.CA().PEM(), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "node", name+".mjs")
	cmd.Dir = dir
	cmd.Stderr = t.Output()
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "NODE_EXTRA_CA_CERTS=" + ca, "EMULATOR=" + settings(t, e)}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for lines := bufio.NewScanner(out); lines.Scan(); {
		handle(t, e, lines.Bytes(), in)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("%s: %v", name, err)
	}
}

// settings are what a script is told: where things are, and who the
// application is.
func settings(t *testing.T, e *emulator.Emulator) string {
	t.Helper()
	cert, key := certificate(t, e)
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte(federate(t, e)), 0o600); err != nil {
		t.Fatal(err)
	}
	s := map[string]string{
		"login": e.Endpoints().Login, "graph": e.Endpoints().Graph,
		"client": emulator.ApplicationID, "secret": emulator.ApplicationSecret, "redirect": redirect, "admin": admin,
		"certificate": string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw})),
		"key":         string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})),
		"token_file":  file, "api": api, "device": device,
		"vault": e.Vault(emulator.DefaultVault), "vault_name": emulator.DefaultVault, "vault_client": vaultApp, "vault_secret": vaultSecret,
		"contoso": emulator.ContosoTenant, "adatum": emulator.AdatumTenant, "wingtip": emulator.WingtipTenant,
	}
	b, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// handle logs a script's event, or does what it asks for.
func handle(t *testing.T, e *emulator.Emulator, line []byte, answer io.Writer) {
	t.Helper()
	var event struct {
		Ran, Passed string
		Revoke      bool
		SignIn      string `json:"sign_in"`
		Page, Code  string
	}
	if err := json.Unmarshal(line, &event); err != nil {
		t.Logf("%s", line)
		return
	}
	switch {
	case event.Ran != "":
		t.Log(event.Ran)
	case event.Passed != "":
		t.Logf("passed: %s", event.Passed)
	case event.SignIn != "":
		fmt.Fprintln(answer, newBrowser(t, e).signIn(event.SignIn, admin))
	case event.Code != "":
		newBrowser(t, e).enterCode(event.Page, event.Code, admin)
		fmt.Fprintln(answer)
	case event.Revoke:
		if err := e.Revoke(admin); err != nil {
			t.Error(err)
		}
		fmt.Fprintln(answer)
	}
}
