package main

import (
	"bytes"
	"debug/buildinfo"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/mandate-sam/mandate/api"
	"github.com/mandate-sam/mandate/internal/demo"
)

// fakeDemo is the demonstration program of the tests: it says how it was called
// and reports what the environment says.
func fakeDemo() {
	fmt.Fprintln(os.Stderr, "progress", os.Args[1:])
	dir := os.Args[slices.Index(os.Args, "-dir")+1]
	if err := os.Mkdir(dir, 0o700); err != nil {
		panic(err)
	}
	fmt.Print(os.Getenv("DRILL_REPORT"))
	if os.Getenv("DRILL_FAILS") != "" {
		os.Exit(1)
	}
}

// rehearse runs "mandate drill" with a report of the demonstration's.
func rehearse(t *testing.T, report string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	info, err := buildinfo.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("DRILL_REPORT", report)
	t.Setenv("TMPDIR", t.TempDir())
	var out, errs bytes.Buffer
	code = run(t.Context(), program{Demo: info.Path}, append([]string{"drill"}, args...), stdio{nil, &out, &errs})
	if left, err := os.ReadDir(os.Getenv("TMPDIR")); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	return code, out.String(), errs.String()
}

// The drill runs the demonstration program on the PATH in a directory of its
// own, passes on its progress, prints its report, and fails with it.
func TestDrill(t *testing.T) {
	good := must(json.Marshal(demo.DrillReport{
		OK: true, Steps: []demo.DrillStep{{TookMS: 1500, OK: true}, {TookMS: 2500, OK: true}}, Tokens: 7, Old: "AAA", New: "BBB", Undone: "not allowed", Refused: "AADSTS700027\x1b",
		Touched: []api.CredentialGrant{{Partner: "contoso", Generation: 3, State: "active", Why: "somebody had both"}},
	}))
	bad := must(json.Marshal(demo.DrillReport{Error: "step seven: no"}))
	code, stdout, stderr := rehearse(t, string(good), "--kind", "secret")
	for _, want := range []string{"all 2 steps succeeded, in 4s", "AAA", "BBB", "not allowed", `AADSTS700027\x1b`, "7 tokens were given, and none refused", "contoso generation 3 (active): somebody had both"} {
		if !strings.Contains(stdout, want) {
			t.Errorf("there is no %q in %q", want, stdout)
		}
	}
	if code != exitOK || !strings.Contains(stderr, "progress [-drill -json -dir ") || !strings.Contains(stderr, " -secret]") {
		t.Errorf("exit %d, %s", code, stderr)
	}
	code, stdout, stderr = rehearse(t, string(good), "--json")
	if code != exitOK || strings.TrimSpace(stdout) != string(good) || stderr != "" {
		t.Errorf("exit %d, %s, %s", code, stdout, stderr)
	}
	t.Setenv("DRILL_FAILS", "1")
	for _, tt := range []struct{ report, says string }{
		{string(bad), "the drill failed: step seven: no"}, {"", "without a report"}, {string(good), "exit status 1"},
	} {
		if code, _, stderr := rehearse(t, tt.report); code != exitFailed || !strings.Contains(stderr, tt.says) {
			t.Errorf("%q: exit %d, %s", tt.report, code, stderr)
		}
	}
}

// Only a program that was built from the demonstration is run.
func TestDrillFinds(t *testing.T) {
	path, err := exec.LookPath("mandate-demo")
	if err != nil {
		t.Fatal(err)
	}
	if code, _, stderr := rehearse(t, `{"ok":true}`, "--demo", path); code != exitOK {
		t.Errorf("exit %d, %s", code, stderr)
	}
	c := &cli{program: program{Demo: "example.test/other/cmd/demo"}}
	if found, err := c.demo(t.Context(), "", t.TempDir()); err == nil || !strings.Contains(err.Error(), "--demo") {
		t.Errorf("found %q, %v", found, err)
	}
	if found, err := c.demo(t.Context(), path, t.TempDir()); err == nil || !strings.Contains(err.Error(), "and not example.test/other/cmd/demo") {
		t.Errorf("found %q, %v", found, err)
	}
	module := t.TempDir()
	if err := os.WriteFile(filepath.Join(module, "go.mod"), []byte("module example.test/other\n\ngo 1.26\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(module, "cmd", "demo"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(module, "cmd", "demo", "main.go"), []byte("package main\n\nfunc main() {}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Chdir(filepath.Join(module, "cmd"))
	c.stdio = stdio{nil, &bytes.Buffer{}, &bytes.Buffer{}}
	built, err := c.demo(t.Context(), "", t.TempDir())
	if err != nil || c.isDemo(built) != nil {
		t.Errorf("built %q, %v", built, err)
	}
}

// The demonstration program is where the drill looks for it.
func TestDrillPackage(t *testing.T) {
	out, err := exec.Command("go", "list", "../demo").Output()
	if err != nil || strings.TrimSpace(string(out)) != wired().Demo {
		t.Errorf("it is %s, %v", out, err)
	}
}
