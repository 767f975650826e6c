package mandate_test

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/mandate-sam/mandate"

// a package as "go list -json" describes it.
type listed struct {
	ImportPath string
	Imports    []string // of the package itself, without its tests
	Deps       []string
	Module     *struct{ Path, Version string }
	Standard   bool
}

func goList(t *testing.T, args ...string) []listed {
	t.Helper()
	cmd := exec.Command("go", append([]string{"list", "-json=ImportPath,Imports,Deps,Module,Standard"}, args...)...)
	cmd.Stderr = t.Output()
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list %v: %v", args, err)
	}
	var pkgs []listed
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p listed
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return pkgs
		} else if err != nil {
			t.Fatal(err)
		}
		pkgs = append(pkgs, p)
	}
}

// ranks is the map of docs/architecture.md: imports point downwards only.
var ranks = map[string]int{
	"/internal/jsontext": -1,
	"/internal/spelling": -1,
	"/internal/pgtest":   -1,
	"/internal/mailtest": -1,

	"":                      0,
	"/internal/database":    0,
	"/internal/keyset":      0,
	"/internal/privatefile": 0,
	"/internal/upstream":    0,
	"/internal/yamlfile":    0,

	"/entra":             1,
	"/keyvault":          1,
	"/openbao":           1,
	"/partnercenter":     1,
	"/graph":             1,
	"/notify":            1,
	"/vault":             1,
	"/audit":             1,
	"/callers":           1,
	"/footprint":         1,
	"/policy":            1,
	"/store":             1,
	"/internal/metrics":  1,
	"/internal/rotation": 1,
	"/internal/web":      1,

	"/api":             2,
	"/internal/portal": 2,

	"/internal/app": 3,

	"/internal/demo": 4,

	"/cmd/mandate":  5,
	"/cmd/emulator": 5,
	"/cmd/demo":     5,
}

// Imports within the module point downwards, never sideways.
func TestImportsPointDownwards(t *testing.T) {
	for _, p := range goList(t, "./...") {
		name := strings.TrimPrefix(p.ImportPath, module)
		if strings.HasPrefix(name, "/emulator") {
			continue // see TestEmulatorStandsAlone
		}
		rank, ok := ranks[name]
		if !ok {
			t.Errorf("%s has no rank: add it to the map here and in docs/architecture.md", p.ImportPath)
			continue
		}
		for _, imp := range p.Imports {
			other := strings.TrimPrefix(imp, module)
			if imp == other || strings.HasPrefix(other, "/emulator") {
				continue
			}
			if ranks[other] >= rank {
				t.Errorf("%s (rank %d) imports %s (rank %d): imports point downwards, so that a package can be read without its neighbours",
					p.ImportPath, rank, imp, ranks[other])
			}
		}
	}
}

// What a package must not depend on, even through others.
func TestForbiddenDependencies(t *testing.T) {
	for _, rule := range []struct{ pkg, deny, why string }{
		{"", "net/http", "the core knows nothing of transport"},
		{"", "database/sql", "the core knows nothing of storage"},
		{"/internal/database", module, "the database knows no word of the domain"},
		{"/internal/portal", module + "/entra", "the portal has no credential: it hands the code to the broker"},
		{"/internal/portal", module + "/vault", "the portal has no key that opens grants"},
		{"/internal/portal", module + "/keyvault", "the portal has no key that opens grants"},
		{"/internal/portal", module + "/openbao", "the portal has no key that opens grants"},
		{"/api", module + "/entra", "handlers see the protocol only through the core"},
		{"/api", module + "/vault", "handlers see grants only through the core"},
		{"/cmd/mandate", module + "/emulator", "a production binary carries no identity provider of its own"},
		{"/internal/app", module + "/emulator", "a production binary carries no identity provider of its own"},
	} {
		for _, p := range goList(t, module+rule.pkg) {
			for _, dep := range p.Deps {
				if dep == rule.deny || strings.HasPrefix(rule.deny, module+"/") && strings.HasPrefix(dep, rule.deny+"/") {
					t.Errorf("%s depends on %s: %s", p.ImportPath, dep, rule.why)
				}
			}
		}
	}
}

// The emulator shares no code with the clients that are tested against it: one
// misreading in both would pass every test.
func TestEmulatorStandsAlone(t *testing.T) {
	for _, p := range goList(t, "./emulator/...", "./cmd/emulator") {
		for _, dep := range p.Deps {
			if (dep == module || strings.HasPrefix(dep, module+"/")) && !strings.HasPrefix(dep, module+"/emulator") {
				t.Errorf("%s depends on %s", p.ImportPath, dep)
			}
		}
	}
}

// linked is the reviewed list of modules that are part of cmd/mandate. The
// reasons are in docs/architecture.md.
var linked = []string{
	"github.com/Azure/azure-sdk-for-go/sdk/azcore v1.24.0",
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity v1.15.0",
	"github.com/Azure/azure-sdk-for-go/sdk/internal v1.13.0",
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azkeys v1.5.0",
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azsecrets v1.5.1",
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/internal v1.2.0",
	"github.com/AzureAD/microsoft-authentication-library-for-go v1.10.1",
	"github.com/beorn7/perks v1.0.1",
	"github.com/cedar-policy/cedar-go v1.9.0",
	"github.com/cespare/xxhash/v2 v2.3.0",
	"github.com/dustin/go-humanize v1.0.1",
	"github.com/go-jose/go-jose/v4 v4.1.8",
	"github.com/go-json-experiment/json v0.0.0-20260820222146-c27c302e5fc3",
	"github.com/goccy/go-yaml v1.19.2",
	"github.com/golang-jwt/jwt/v5 v5.3.1",
	"github.com/google/uuid v1.6.0",
	"github.com/jackc/pgpassfile v1.0.0",
	"github.com/jackc/pgservicefile v0.0.0-20240606120523-5a60cdf6a761",
	"github.com/jackc/pgx/v5 v5.12.0",
	"github.com/jackc/puddle/v2 v2.2.3",
	"github.com/kylelemons/godebug v1.1.0",
	"github.com/munnerz/goautoneg v0.0.0-20191010083416-a7dc8b61c822",
	"github.com/pkg/browser v0.0.0-20240102092130-5ac0b6a4141c",
	"github.com/prometheus/client_golang v1.25.0",
	"github.com/prometheus/client_model v0.6.3",
	"github.com/prometheus/common v0.72.0",
	"github.com/prometheus/procfs v0.22.0",
	"github.com/remyoudompheng/bigfft v0.0.0-20230129092748-24d4a6f8daec",
	"github.com/spf13/cobra v1.10.2",
	"github.com/spf13/pflag v1.0.9",
	"github.com/wneessen/go-mail v0.8.1",
	"golang.org/x/crypto v0.58.0",
	"golang.org/x/exp v0.0.0-20220921023135-46d9e7742f1e",
	"golang.org/x/mod v0.42.0",
	"golang.org/x/net v0.62.0",
	"golang.org/x/sync v0.24.0",
	"golang.org/x/sys v0.49.0",
	"golang.org/x/term v0.47.0",
	"golang.org/x/text v0.43.0",
	"golang.org/x/time v0.16.0",
	"google.golang.org/protobuf v1.36.12",
	"modernc.org/libc v1.77.1",
	"modernc.org/mathutil v1.7.1",
	"modernc.org/memory v1.12.1",
	"modernc.org/sqlite v1.60.1",
	"software.sslmate.com/src/go-pkcs12 v0.7.4",
}

func TestLinkedModules(t *testing.T) {
	var got []string
	for _, p := range goList(t, "-deps", "./cmd/mandate") {
		if p.Module == nil || p.Module.Path == module {
			continue
		}
		if m := p.Module.Path + " " + p.Module.Version; !slices.Contains(got, m) {
			got = append(got, m)
		}
	}
	slices.Sort(got)
	if !slices.Equal(got, linked) {
		t.Errorf("cmd/mandate links\n\t%s\nthe reviewed list is\n\t%s\nreview the difference, say why in docs/architecture.md, and update the list",
			strings.Join(got, "\n\t"), strings.Join(linked, "\n\t"))
	}
}

// modernc.org/sqlite works only with the very version of libc that it was
// built against.
func TestSQLiteLibc(t *testing.T) {
	out, err := exec.Command("go", "mod", "graph").Output()
	if err != nil {
		t.Fatal(err)
	}
	var sqlite, want, have string
	for _, line := range strings.Split(string(out), "\n") {
		from, to, _ := strings.Cut(line, " ")
		if from == module && strings.HasPrefix(to, "modernc.org/sqlite@") {
			sqlite = to
		}
		if from == module && strings.HasPrefix(to, "modernc.org/libc@") {
			have = to
		}
		if sqlite != "" && from == sqlite && strings.HasPrefix(to, "modernc.org/libc@") {
			want = to
		}
	}
	if want == "" || have != want {
		t.Errorf("this module uses %q, %s wants %q", have, sqlite, want)
	}
}
