package database

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/mandate-sam/mandate/internal/pgtest"
)

// notes is a schema for tests.
func notes(files ...string) Schema {
	fsys := fstest.MapFS{"migrations/001_notes.sql": {Data: []byte("CREATE TABLE notes (id BIGINT PRIMARY KEY, body BYTES);\n" +
		"CREATE TABLE tags (note BIGINT REFERENCES notes (id) DEFERRABLE INITIALLY DEFERRED);")}}
	for i := 0; i+1 < len(files); i += 2 {
		fsys["migrations/"+files[i]] = &fstest.MapFile{Data: []byte(files[i+1])}
	}
	return Schema{Package: "notes", Files: fsys}
}

// each runs a test with an empty database of either kind.
func each(t *testing.T, test func(t *testing.T, cfg Config)) {
	t.Run("SQLite", func(t *testing.T) { test(t, Config{File: filepath.Join(t.TempDir(), "test.db")}) })
	t.Run("PostgreSQL", func(t *testing.T) { test(t, Config{URL: pgtest.Shared(t).Database(t)}) })
}

// another returns an empty database of the same kind.
func another(t *testing.T, cfg Config) Config {
	if cfg.URL != "" {
		return Config{URL: pgtest.Shared(t).Database(t)}
	}
	return Config{File: filepath.Join(t.TempDir(), "test.db")}
}

func openTest(t testing.TB) *DB {
	t.Helper()
	return openFile(t, filepath.Join(t.TempDir(), "test.db"), notes())
}

func openFile(t testing.TB, file string, schemas ...Schema) *DB {
	t.Helper()
	return open(t, Config{File: file}, schemas...)
}

func open(t testing.TB, cfg Config, schemas ...Schema) *DB {
	t.Helper()
	cfg.Schemas = schemas
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.NewTextHandler(t.Output(), nil))
	}
	d, err := Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

// running opens a database that is watched.
func running(t *testing.T, cfg Config, schemas ...Schema) *DB {
	t.Helper()
	if schemas == nil {
		schemas = []Schema{notes()}
	}
	d := open(t, cfg, schemas...)
	var run sync.WaitGroup
	run.Go(func() { d.Run(t.Context()) })
	t.Cleanup(run.Wait)
	return d
}

func insert(ctx context.Context, tx *Tx, id int) error {
	_, err := tx.Exec(ctx, `INSERT INTO notes (id) VALUES ($1)`, id)
	return err
}

func count(t *testing.T, d *DB) int {
	t.Helper()
	var n int
	if err := d.QueryRow(t.Context(), `SELECT count(*) FROM notes`).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// epochOf returns the epoch, if need be after a machine that was busy.
func epochOf(t *testing.T, d *DB) int64 {
	t.Helper()
	e, err := d.Epoch()
	for range 500 {
		if !errors.Is(err, ErrCutOff) {
			break
		}
		time.Sleep(20 * time.Millisecond)
		e, err = d.Epoch()
	}
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func TestSettings(t *testing.T) {
	d := openTest(t)
	for _, tt := range []struct {
		pragma string
		want   string
	}{
		{"journal_mode", "wal"},
		{"synchronous", "2"},
		{"foreign_keys", "1"},
		{"secure_delete", "1"},
		{"busy_timeout", "5000"},
	} {
		var got string
		if err := d.writer.QueryRow("PRAGMA " + tt.pragma).Scan(&got); err != nil || got != tt.want {
			t.Errorf("%s: got %s, %v, want %s", tt.pragma, got, err, tt.want)
		}
	}
	if n := d.writer.Stats().MaxOpenConnections; n != 1 {
		t.Errorf("%d connections may write, want 1", n)
	}
	if _, err := d.reader.Exec(`DELETE FROM notes`); err == nil {
		t.Error("a reading connection could write")
	}
}

// TestTransactionsBeginWithTheLock: whoever is in a transaction is alone with
// what it read, so that nothing has to be tried again.
func TestTransactionsBeginWithTheLock(t *testing.T) {
	d := openTest(t)
	other, err := connect(d.name)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if _, err := other.writer.Exec(`PRAGMA busy_timeout = 0`); err != nil {
		t.Fatal(err)
	}
	err = d.Tx(t.Context(), func(*Tx) error { return other.Tx(t.Context(), func(*Tx) error { return nil }) })
	if err == nil || !strings.Contains(err.Error(), "locked") {
		t.Errorf("two transactions at once: got error %v, want that the database is locked", err)
	}
}

func TestTx(t *testing.T) { each(t, testTx) }

func testTx(t *testing.T, cfg Config) {
	d, ctx := running(t, cfg), t.Context()
	before := epochOf(t, d)
	if err := d.Tx(ctx, func(tx *Tx) error { return insert(ctx, tx, 1) }); err != nil {
		t.Fatal(err)
	}
	if n, err := d.Exec(ctx, `UPDATE notes SET body = $1 WHERE id = $2`, []byte("x"), 1); n != 1 || err != nil {
		t.Errorf("Exec: got %d, %v, want 1 row", n, err)
	}
	sorry := errors.New("sorry")
	if err := d.Tx(ctx, func(tx *Tx) error { return errors.Join(insert(ctx, tx, 2), sorry) }); !errors.Is(err, sorry) {
		t.Errorf("got error %v, want the function's", err)
	}
	func() {
		defer func() { recover() }()
		d.Tx(ctx, func(tx *Tx) error {
			insert(ctx, tx, 3)
			panic("sorry")
		})
	}()
	gone, cancel := context.WithCancel(ctx)
	err := d.Tx(gone, func(tx *Tx) error {
		defer cancel()
		return insert(ctx, tx, 4)
	})
	if err == nil {
		t.Error("a transaction was committed after its context had ended")
	}
	if got := count(t, d); got != 1 {
		t.Errorf("%d rows, want only the one whose transaction succeeded", got)
	}
	if after := epochOf(t, d); after != before {
		t.Errorf("Tx and Exec changed the epoch from %d to %d", before, after)
	}
	if _, err := d.Exec(ctx, `INSERT INTO tags (note) VALUES (77)`); err == nil {
		t.Error("a foreign key was not enforced")
	}
}

func TestClose(t *testing.T) { each(t, testClose) }

func testClose(t *testing.T, cfg Config) {
	d, ctx := running(t, cfg), t.Context()
	for range 2 {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	}
	_, epoch := d.Epoch()
	_, exec := d.Exec(ctx, `DELETE FROM notes`)
	for name, err := range map[string]error{
		"Epoch": epoch, "Exec": exec,
		"Tx":     d.Tx(ctx, func(*Tx) error { return nil }),
		"Change": d.Change(ctx, func(*Tx) error { return nil }),
		"Scrub":  d.Scrub(ctx),
		"View":   d.View(ctx, func(*Tx) error { return nil }),
	} {
		if err == nil {
			t.Errorf("%s of a closed database: no error", name)
		}
	}
}

func TestWaitToWriteEnds(t *testing.T) { each(t, testWaitToWriteEnds) }

func testWaitToWriteEnds(t *testing.T, cfg Config) {
	d := running(t, cfg)
	err := d.Change(t.Context(), func(*Tx) error {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		defer cancel()
		return d.Change(ctx, func(*Tx) error { return nil })
	})
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got error %v, want %v", err, context.DeadlineExceeded)
	}
	epochOf(t, d) // a change that never began leaves no doubt
}

func TestViewSeesOneState(t *testing.T) { each(t, testViewSeesOneState) }

func testViewSeesOneState(t *testing.T, cfg Config) {
	d, ctx := running(t, cfg), t.Context()
	err := d.View(ctx, func(tx *Tx) error {
		var before, after int
		if err := tx.QueryRow(ctx, `SELECT count(*) FROM notes`).Scan(&before); err != nil {
			return err
		}
		if err := d.Tx(ctx, func(tx *Tx) error { return insert(ctx, tx, 1) }); err != nil {
			return err
		}
		if err := tx.QueryRow(ctx, `SELECT count(*) FROM notes`).Scan(&after); err != nil {
			return err
		}
		if before != after {
			t.Errorf("%d rows, then %d in the same view", before, after)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestScrub(t *testing.T) {
	file := filepath.Join(t.TempDir(), "test.db")
	d, ctx := openFile(t, file, notes()), t.Context()
	body := []byte("a body that must go")
	if _, err := d.Exec(ctx, `INSERT INTO notes (id, body) VALUES (1, $1)`, body); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Exec(ctx, `UPDATE notes SET body = NULL`); err != nil {
		t.Fatal(err)
	}
	if err := d.Scrub(ctx); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{file, file + "-wal"} {
		if b, err := os.ReadFile(name); err != nil || strings.Contains(string(b), string(body)) {
			t.Errorf("%s still has what was deleted (error %v)", name, err)
		}
	}
	var timeout int
	if err := d.writer.QueryRow(`PRAGMA busy_timeout`).Scan(&timeout); err != nil || timeout != 5000 {
		t.Errorf("busy_timeout is %d (error %v) afterwards, want 5000", timeout, err)
	}
}
