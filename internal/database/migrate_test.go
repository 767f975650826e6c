package database

import (
	"errors"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
)

func TestMigrationsRunOnce(t *testing.T) { each(t, testMigrationsRunOnce) }

func testMigrationsRunOnce(t *testing.T, cfg Config) {
	more := []string{"002_title.sql", "ALTER TABLE notes ADD COLUMN title TEXT;"}
	for _, s := range []Schema{notes(), notes(), notes(more...), notes(more...)} {
		d := open(t, cfg, s)
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
	}
	d := open(t, cfg, notes(more...))
	if _, err := d.Exec(t.Context(), `INSERT INTO notes (id, title) VALUES (1, 'x')`); err != nil {
		t.Error(err)
	}
}

// TestMigrationsAtOnce opens connections of four processes, without the lock
// that keeps processes apart.
func TestMigrationsAtOnce(t *testing.T) {
	file := filepath.Join(t.TempDir(), "test.db")
	lock, err := claim(file)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			d, err := connect(file)
			if err != nil {
				t.Error(err)
				return
			}
			defer d.Close()
			if err := d.prepare(t.Context(), []Schema{notes()}); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
}

func TestMigrateRefuses(t *testing.T) { each(t, testMigrateRefuses) }

func testMigrateRefuses(t *testing.T, cfg Config) {
	other := Schema{Package: "other", Files: notes().Files}
	for _, tt := range []struct {
		name    string
		had     []Schema
		schemas []Schema
		want    string
	}{
		{"a file of the future", []Schema{notes("002_x.sql", "CREATE TABLE x (y TEXT);")}, []Schema{notes()},
			"the database was written by a newer version of this program: it has notes/002_x.sql; run that version or a later one"},
		{"a package of the future", []Schema{notes(), {Package: "other", Files: notes("001_notes.sql", "CREATE TABLE x (y TEXT);").Files}}, []Schema{notes()},
			"it has other/001_notes.sql"},
		{"a changed file", []Schema{notes()}, []Schema{notes("001_notes.sql", "CREATE TABLE notes (id TEXT);")},
			"notes/001_notes.sql has changed since it was applied to this database"},
		{"a wrong statement", []Schema{notes()}, []Schema{notes("002_x.sql", "CREATE TABLE x (y TEXT); NONSENSE;")},
			"notes/002_x.sql: "},
		{"the same name twice", []Schema{notes()}, []Schema{notes(), notes()}, `two schemas are named "notes"`},
		{"a reserved name", []Schema{notes()}, []Schema{notes(), {Package: "database", Files: notes().Files}}, `two schemas are named "database"`},
		{"the same table twice", []Schema{notes()}, []Schema{notes(), other}, "other/001_notes.sql: "},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cfg := another(t, cfg)
			d := open(t, cfg, tt.had...)
			if err := d.Close(); err != nil {
				t.Fatal(err)
			}
			cfg.Schemas = tt.schemas
			_, err := Open(t.Context(), cfg)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got error %v, want %q in it", err, tt.want)
			}
			if strings.Contains(tt.name, "future") && !errors.Is(err, ErrNewer) {
				t.Errorf("got error %v, want %v", err, ErrNewer)
			}
			// What failed left nothing behind, not even the lock.
			open(t, cfg, tt.had...)
		})
	}
}

// TestLibcIsTheOneThatSQLiteWants: modernc.org/sqlite is translated against
// one version of modernc.org/libc and crashes with others.
func TestLibcIsTheOneThatSQLiteWants(t *testing.T) {
	list := func(format, module string) string {
		out, err := exec.CommandContext(t.Context(), "go", "list", "-m", "-f", format, module).Output()
		if err != nil {
			t.Fatalf("go list -m %s: %v", module, err)
		}
		return strings.TrimSpace(string(out))
	}
	out, err := exec.CommandContext(t.Context(), "go", "mod", "edit", "-print", list("{{.GoMod}}", "modernc.org/sqlite")).Output()
	if err != nil {
		t.Fatal(err)
	}
	want := regexp.MustCompile(`modernc\.org/libc (v\S+)`).FindSubmatch(out)
	if got := list("{{.Version}}", "modernc.org/libc"); want == nil || got != string(want[1]) {
		t.Errorf("modernc.org/libc is %s, and sqlite's go.mod wants %s", got, want)
	}
}
