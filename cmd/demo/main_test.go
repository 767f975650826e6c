package main

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/mandate-sam/mandate/internal/demo"
)

// runDemo runs the command, and returns what it wrote.
func runDemo(t *testing.T, args ...string) (stdout, stderr string, err error) {
	t.Helper()
	dir := t.TempDir()
	open := func(name string) *os.File {
		f, err := os.Create(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		return f
	}
	out, errs := open("out"), open("err")
	err = run(t.Context(), args, out, errs)
	a, _ := os.ReadFile(out.Name())
	b, _ := os.ReadFile(errs.Name())
	return string(a), string(b), err
}

func TestOnceJSON(t *testing.T) {
	stdout, stderr, err := runDemo(t, "-once", "-json")
	if err != nil {
		t.Fatalf("%v\n%s", err, stderr)
	}
	lines := strings.Split(strings.TrimSpace(stdout), "\n")
	var r demo.Result
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &r); err != nil {
		t.Fatalf("the last line is %q", lines[len(lines)-1])
	}
	if !r.OK || r.Partner != "contoso" || r.Generation != 1 || !r.MFA || len(r.Audiences) != 3 || r.Customers == 0 || r.Users == 0 || r.AuditRecords == 0 {
		t.Errorf("got %+v", r)
	}
	if strings.Contains(stderr, "\x1b") {
		t.Error("colour, and no terminal")
	}
}

func TestOnceForPeople(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "kept")
	stdout, _, err := runDemo(t, "-once", "-dir", dir)
	if err != nil || !strings.Contains(stdout, "Done: one consent, 3 audiences") {
		t.Errorf("%v\n%s", err, stdout)
	}
	if _, err := os.Stat(filepath.Join(dir, "data", "audit", "checkpoint")); err != nil {
		t.Error(err)
	}
}

func TestOnceFails(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "mine"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	stdout, _, err := runDemo(t, "-once", "-json", "-dir", dir)
	var r demo.Result
	if jerr := json.Unmarshal([]byte(stdout), &r); err == nil || jerr != nil || r.OK || r.Failed != "start" {
		t.Errorf("got %v, %s", err, stdout)
	}
}

func TestUsage(t *testing.T) {
	_, stderr, err := runDemo(t, "-help")
	if err != nil || !strings.Contains(stderr, "go run ./cmd/demo -once") {
		t.Errorf("help: %v\n%s", err, stderr)
	}
	for _, args := range [][]string{{"extra"}, {"-nonsense"}} {
		if _, _, err := runDemo(t, args...); err == nil || err == flag.ErrHelp {
			t.Errorf("%v: %v", args, err)
		}
	}
}

// The drill reports each step, and that nobody was refused a token.
func TestDrillJSON(t *testing.T) {
	stdout, stderr, err := runDemo(t, "-drill", "-json")
	if err != nil {
		t.Fatalf("%v\n%s", err, stderr)
	}
	var r demo.DrillReport
	if err := json.Unmarshal([]byte(stdout), &r); err != nil {
		t.Fatalf("%q: %v", stdout, err)
	}
	if !r.OK || len(r.Steps) != 12 || r.Tokens == 0 || len(r.Touched) != 1 || r.Touched[0].Partner != "contoso" || r.Touched[0].Why == "" || r.New == r.Old {
		t.Errorf("got %+v", r)
	}
	if !strings.Contains(r.Undone, "AADSTS53003") || !strings.Contains(r.Refused, "AADSTS700027") {
		t.Errorf("undone because of %q; the old one is refused with %q", r.Undone, r.Refused)
	}
	for _, s := range r.Steps {
		if !s.OK || s.Note == "" && s.TookMS == 0 {
			t.Errorf("%+v", s)
		}
	}
}
