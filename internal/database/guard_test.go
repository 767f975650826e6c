package database

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/mandate-sam/mandate/internal/pgtest"
)

// xorKey is a key wrapper for tests. It keeps nothing secret.
type xorKey byte

func (k xorKey) Wrap(_ context.Context, plain []byte) (string, []byte, error) {
	return fmt.Sprint(int(k)), k.xor(plain), nil
}

func (k xorKey) Unwrap(_ context.Context, _ string, wrapped []byte) ([]byte, error) {
	return k.xor(wrapped), nil
}

func (k xorKey) xor(b []byte) []byte {
	out := make([]byte, len(b))
	for i := range b {
		out[i] = b[i] ^ byte(k)
	}
	return out
}

// A deadKey wraps nothing.
type deadKey struct{ xorKey }

var errDead = errors.New("the key does not answer")

func (deadKey) Wrap(context.Context, []byte) (string, []byte, error) { return "", nil, errDead }

// TestGuardSaysWhyNot: who cannot make the first key says why.
func TestGuardSaysWhyNot(t *testing.T) {
	each(t, func(t *testing.T, cfg Config) {
		if err := open(t, cfg, people()).Guard(t.Context(), GuardConfig{Key: deadKey{}}); !errors.Is(err, errDead) {
			t.Errorf("got %v, want %v", err, errDead)
		}
	})
}

// people is a schema of which a part is guarded.
func people() Schema {
	s := notes("002_people.sql", `CREATE TABLE people (realm TEXT NOT NULL, id BIGINT NOT NULL, name TEXT NOT NULL, hash BYTES, seen BIGINT, PRIMARY KEY (realm, id));
		CREATE TABLE rules (name TEXT PRIMARY KEY, body TEXT NOT NULL);`)
	s.Guarded = []Guarded{{"people", []string{"realm", "id"}, []string{"name", "hash"}}, {"rules", []string{"name"}, []string{"body"}}}
	return s
}

// openGuarded opens a guarded database with two people and a rule.
func openGuarded(t *testing.T, cfg Config) *DB {
	t.Helper()
	d := running(t, cfg, people())
	if err := d.Guard(t.Context(), GuardConfig{Key: xorKey(7)}); err != nil {
		t.Fatal(err)
	}
	return d
}

func fill(t *testing.T, d *DB) {
	t.Helper()
	for _, q := range []string{
		`INSERT INTO people (realm, id, name, hash) VALUES ('a', 1, 'Ann', NULL)`,
		`INSERT INTO people (realm, id, name, hash) VALUES ('a', 2, 'Bob', NULL)`,
		`INSERT INTO rules (name, body) VALUES ('r', 'no')`,
	} {
		alter(t, d, q)
	}
}

// alter makes a change as this program does.
func alter(t *testing.T, d *DB, query string) {
	t.Helper()
	if err := d.Change(t.Context(), func(tx *Tx) error { _, err := tx.Exec(t.Context(), query); return err }); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
}

// behind changes something as somebody does who can write the database.
func behind(t *testing.T, d *DB, queries ...string) {
	t.Helper()
	for _, q := range queries {
		if _, err := d.Exec(t.Context(), q); err != nil {
			t.Fatalf("%s: %v", q, err)
		}
	}
}

func verify(t *testing.T, d *DB) error {
	return d.View(t.Context(), func(tx *Tx) error { return d.Verify(t.Context(), tx) })
}

// Whatever somebody does with the rows behind the program's back, it is noticed
// when all is verified, and by a change of that table; the row is named, and
// nothing is served any more.
func TestDatabaseWriter(t *testing.T) { each(t, testDatabaseWriter) }

func testDatabaseWriter(t *testing.T, cfg Config) {
	const put = `UPDATE people SET name = 'Ann' WHERE id = 1` // how it was before
	for _, tt := range []struct {
		name string
		do   []string
		want string
	}{
		{"inserted", []string{`INSERT INTO people (realm, id, name) VALUES ('b', 3, 'Eve')`}, `row "b/3" of people was inserted`},
		{"changed", []string{`UPDATE rules SET body = 'yes'`}, `row "r" of rules was changed`},
		{"deleted", []string{`DELETE FROM rules`}, `row "r" of rules was deleted`},
		{"bytes for null", []string{`UPDATE people SET hash = name` + map[bool]string{true: "::bytea"}[cfg.URL != ""] + ` WHERE id = 2`}, `row "a/2" of people was changed`},
		{"put back", []string{put}, `row "a/1" of people is an older one that was put back (replayed)`},
		{"swapped", []string{`UPDATE people SET id = 9 WHERE id = 1`, `UPDATE people SET id = 1 WHERE id = 2`, `UPDATE people SET id = 2 WHERE id = 9`},
			`row "a/1" of people was changed, row "a/2" of people was changed`},
		{"moved between columns", []string{`UPDATE people SET realm = 'a/2', id = 3 WHERE id = 2`}, `row "a/2/3" of people was inserted`},
		{"epoch", []string{`UPDATE head SET epoch = epoch + 7`}, `the row of head was changed: epoch`},
		{"MAC", []string{`UPDATE head SET guarded = guarded + 1, epoch = epoch + 1`}, `the row of head was changed: the MAC is not that of`},
		{"digest", []string{`UPDATE head SET digest = replace(digest, 'a', 'b')`}, `the row of head was changed: the MAC is not that of`},
		{"no MAC", []string{`UPDATE head SET mac = NULL`}, `its MAC was removed`},
		{"a table not guarded", []string{`UPDATE head SET digest = ''`}, `the row of head was changed`},
	} {
		for _, how := range []string{"verify", "change"} {
			t.Run(tt.name+"/"+how, func(t *testing.T) {
				d := openGuarded(t, another(t, cfg))
				fill(t, d)
				alter(t, d, `UPDATE people SET name = 'Anna' WHERE id = 1`)
				if err := verify(t, d); err != nil {
					t.Fatal(err)
				}
				behind(t, d, tt.do...)
				err := verify(t, d)
				if how == "change" {
					err = d.Change(t.Context(), func(tx *Tx) error {
						for _, q := range []string{`UPDATE people SET name = 'Ann2' WHERE id = 1`, `UPDATE rules SET body = 'new'`} {
							if _, err := tx.Exec(t.Context(), q); err != nil {
								return err
							}
						}
						return nil
					})
				}
				if !errors.Is(err, ErrAltered) || !strings.Contains(err.Error(), tt.want) {
					t.Errorf("got %v, want %q", err, tt.want)
				}
				if _, err := d.Epoch(); !errors.Is(err, ErrAltered) {
					t.Errorf("the epoch is served: %v", err)
				}
			})
		}
	}
}

// What was verified later is not forgotten for what was read before it.
func TestGuardAdoptsNothingOlder(t *testing.T) {
	g := &guard{former: make(map[[32]byte]bool)}
	for _, epoch := range []int64{7, 6, 5} {
		if g.adopt(&state{epoch: epoch}); g.current().epoch != 7 {
			t.Errorf("epoch %d took the place of 7", epoch)
		}
	}
}

// What is sealed is sealed for one purpose, in one database, as its parts are.
func TestSeal(t *testing.T) { each(t, testSeal) }

func testSeal(t *testing.T, cfg Config) {
	if (&DB{}).Seal("list", "a") != nil {
		t.Error("a seal without a key")
	}
	d := openGuarded(t, cfg)
	seal := d.Seal("list", "a", "b")
	if !bytes.Equal(seal, d.Seal("list", "a", "b")) || len(seal) != 32 {
		t.Errorf("got %x", seal)
	}
	other := openGuarded(t, another(t, cfg))
	other.guard.Load().key = d.guard.Load().key
	for what, same := range map[string][]byte{
		"purpose": d.Seal("lists", "a", "b"), "part": d.Seal("list", "a", "c"), "boundary": d.Seal("list", "ab", ""), "order": d.Seal("list", "b", "a"), "database": other.Seal("list", "a", "b"),
	} {
		if bytes.Equal(seal, same) {
			t.Errorf("another %s, and the same seal", what)
		}
	}
}

// What is not guarded may change at any time, and a change by this program is
// none of somebody else.
func TestGuardLeavesTheRestAlone(t *testing.T) { each(t, testGuardLeavesTheRestAlone) }

func testGuardLeavesTheRestAlone(t *testing.T, cfg Config) {
	d := openGuarded(t, cfg)
	fill(t, d)
	behind(t, d, `UPDATE people SET seen = 5`, `INSERT INTO notes (id) VALUES (1)`)
	alter(t, d, `DELETE FROM people WHERE id = 2`)
	sorry := errors.New("sorry")
	if err := d.Change(t.Context(), func(tx *Tx) error {
		_, err := tx.Exec(t.Context(), `DELETE FROM rules`)
		return errors.Join(err, sorry)
	}); !errors.Is(err, sorry) {
		t.Error(err)
	}
	if err := verify(t, d); err != nil {
		t.Error(err)
	}
	if _, err := d.Epoch(); err != nil {
		t.Error(err)
	}
}

// A row that is read by itself must be the one that was verified, and one that
// has changed since is read again.
func TestDatabaseWriterOneRow(t *testing.T) { each(t, testDatabaseWriterOneRow) }

func testDatabaseWriterOneRow(t *testing.T, cfg Config) {
	d := openGuarded(t, cfg)
	fill(t, d)
	read := func() (map[string]any, error) {
		row := map[string]any{"realm": "a", "id": int64(1), "hash": []byte(nil)}
		var name string
		err := d.QueryRow(t.Context(), `SELECT name FROM people WHERE id = 1`).Scan(&name)
		row["name"] = name
		return row, err
	}
	if err := d.Genuine(t.Context(), "people", read); err != nil {
		t.Fatal(err)
	}
	alter(t, d, `UPDATE people SET name = 'Anna' WHERE id = 1`)
	if err := d.Genuine(t.Context(), "people", read); err != nil {
		t.Errorf("after a change: %v", err)
	}
	behind(t, d, `UPDATE people SET name = 'Eve' WHERE id = 1`)
	if err := d.Genuine(t.Context(), "people", read); !errors.Is(err, ErrAltered) || !strings.Contains(err.Error(), `row "a/1" of people was changed`) {
		t.Errorf("after somebody else's: %v", err)
	}
}

// A row that is read by itself is held against the epoch that is known of, not
// against one that was verified before: a change of another replica's is no
// reason to take what it replaced.
func TestDatabaseWriterOneOldRow(t *testing.T) { each(t, testDatabaseWriterOneOldRow) }

func testDatabaseWriterOneOldRow(t *testing.T, cfg Config) {
	d := openGuarded(t, cfg)
	fill(t, d)
	g := d.guard.Load()
	before := g.current()
	alter(t, d, `UPDATE rules SET body = 'never'`)
	g.mu.Lock()
	g.state = before // as that of a replica which has heard of the epoch alone
	g.mu.Unlock()
	behind(t, d, `UPDATE rules SET body = 'no'`)
	if err := d.Genuine(t.Context(), "rules", func() (map[string]any, error) {
		var body string
		err := d.QueryRow(t.Context(), `SELECT body FROM rules`).Scan(&body)
		return map[string]any{"name": "r", "body": body}, err
	}); !errors.Is(err, ErrAltered) {
		t.Errorf("an old row was taken: %v", err)
	}
}

// What was wrapped for another purpose, or for another database, is no key of
// the MAC, though somebody knows what is in it.
func TestDatabaseWriterAnotherKey(t *testing.T) { each(t, testDatabaseWriterAnotherKey) }

func testDatabaseWriterAnotherKey(t *testing.T, cfg Config) {
	d := openGuarded(t, cfg)
	fill(t, d)
	for what, plain := range map[string][]byte{"another purpose": make([]byte, 64), "too short": make([]byte, 31)} {
		_, wrapped, err := xorKey(7).Wrap(t.Context(), plain)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := d.Exec(t.Context(), `UPDATE state_key SET wrapped = $1`, wrapped); err != nil {
			t.Fatal(err)
		}
		if _, err := d.storedGuard(t.Context(), xorKey(7)); !errors.Is(err, ErrAltered) || !strings.Contains(err.Error(), "that of something else") {
			t.Errorf("%s: got %v", what, err)
		}
	}
}

// A row that is read as nobody verified it is not taken, though the table is
// as it should be when all is verified.
func TestDatabaseWriterWhileRead(t *testing.T) {
	d := openGuarded(t, Config{File: t.TempDir() + "/test.db"})
	fill(t, d)
	err := d.Genuine(t.Context(), "people", func() (map[string]any, error) {
		return map[string]any{"realm": "a", "id": int64(1), "name": "Eve", "hash": nil}, nil
	})
	if !errors.Is(err, errAgain) {
		t.Error(err)
	}
	if err := d.Genuine(t.Context(), "people", func() (map[string]any, error) { return map[string]any{"realm": "a"}, nil }); err == nil {
		t.Error("a row was taken whose guarded columns were not read")
	}
}

// The key is made once. Who has not got it changes nothing; who knows one takes
// no other.
func TestGuardKey(t *testing.T) { each(t, testGuardKey) }

func testGuardKey(t *testing.T, cfg Config) {
	d := openGuarded(t, cfg)
	fill(t, d)
	known := d.Fingerprint()
	if err := d.RewrapKey(t.Context(), xorKey(9)); err != nil {
		t.Fatal(err)
	}
	if id, err := d.KeyID(t.Context()); id != "9" || err != nil {
		t.Errorf("wrapped with key %q, %v", id, err)
	}
	d.Close()
	d = running(t, cfg, people())
	if err := d.Change(t.Context(), func(*Tx) error { return nil }); !errors.Is(err, ErrGuarded) {
		t.Errorf("a change without the key: %v", err)
	}
	if err := d.Guard(t.Context(), GuardConfig{Key: xorKey(7)}); !errors.Is(err, ErrAltered) {
		t.Errorf("with the wrong key: %v", err)
	}
	if err := d.Guard(t.Context(), GuardConfig{Key: xorKey(9), Fingerprint: known}); err != nil || d.Fingerprint() != known {
		t.Errorf("with the key: %v", err)
	}
	d.Close()
	d = running(t, cfg, people())
	behind(t, d, `DELETE FROM state_key`, `UPDATE head SET guarded = NULL, digest = NULL, mac = NULL`, `DELETE FROM rules`)
	if err := d.Guard(t.Context(), GuardConfig{Key: xorKey(9), Fingerprint: known}); !errors.Is(err, ErrAltered) || !strings.Contains(err.Error(), "removed") {
		t.Errorf("with the guard taken away: %v", err)
	}
	other := running(t, another(t, cfg), people())
	if err := other.Guard(t.Context(), GuardConfig{Key: xorKey(9)}); err != nil {
		t.Fatal(err)
	}
	if err := d.Guard(t.Context(), GuardConfig{Key: xorKey(9)}); err != nil { // on a host that knows nothing
		t.Fatal(err)
	}
	d.Close()
	d = running(t, cfg, people())
	if err := d.Guard(t.Context(), GuardConfig{Key: xorKey(9), Fingerprint: known}); !errors.Is(err, ErrAltered) || !strings.Contains(err.Error(), "replaced") {
		t.Errorf("with another key: %v", err)
	}
	if err := d.Guard(t.Context(), GuardConfig{Key: xorKey(9), Fingerprint: known, Accept: true}); err != nil || d.Fingerprint() == known {
		t.Errorf("accepting: %v", err)
	}
	if err := verify(t, d); err != nil {
		t.Error(err)
	}
}

// What was altered while nobody ran is found at the start, and only accepting
// it leads on.
func TestDatabaseWriterBeforeStart(t *testing.T) { each(t, testDatabaseWriterBeforeStart) }

func testDatabaseWriterBeforeStart(t *testing.T, cfg Config) {
	d := openGuarded(t, cfg)
	fill(t, d)
	behind(t, d, `DELETE FROM rules`)
	d.Close()
	d = running(t, cfg, people())
	err := d.Guard(t.Context(), GuardConfig{Key: xorKey(7)})
	if !errors.Is(err, ErrAltered) || !strings.Contains(err.Error(), "rows of rules") {
		t.Fatalf("got %v", err)
	}
	d.Close()
	d = running(t, cfg, people())
	if err := d.Guard(t.Context(), GuardConfig{Key: xorKey(7), Accept: true}); err != nil {
		t.Fatal(err)
	}
	alter(t, d, `DELETE FROM people WHERE id = 1`)
	if err := verify(t, d); err != nil {
		t.Error(err)
	}
}

// A version that guards more takes it under guard when it starts; one that
// guards less, and runs beside it, leaves it there.
func TestGuardGrows(t *testing.T) { each(t, testGuardGrows) }

func testGuardGrows(t *testing.T, cfg Config) {
	less := people()
	less.Guarded = []Guarded{{"people", []string{"realm", "id"}, []string{"name"}}}
	d := running(t, cfg, less)
	if err := d.Guard(t.Context(), GuardConfig{Key: xorKey(7)}); err != nil {
		t.Fatal(err)
	}
	fill(t, d)
	d.Close()
	openGuarded(t, cfg).Close()
	d = running(t, cfg, less)
	if err := d.Guard(t.Context(), GuardConfig{Key: xorKey(7)}); err != nil {
		t.Fatal(err)
	}
	alter(t, d, `UPDATE people SET name = 'Anna' WHERE id = 1`)
	behind(t, d, `UPDATE rules SET body = 'yes'`)
	if err := verify(t, d); !errors.Is(err, ErrAltered) {
		t.Errorf("got %v", err)
	}
}

// Copying an older database over the present one is a roll-back: the epoch
// says so, and where that was raised to fit, the MAC.
func TestDatabaseWriterRollBack(t *testing.T) {
	dir := t.TempDir()
	cfg := Config{File: dir + "/test.db"}
	d := openGuarded(t, cfg)
	fill(t, d)
	alter(t, d, `INSERT INTO rules (name, body) VALUES ('second', 'no')`)
	d.Close()
	copyFile(t, cfg.File, dir+"/old.db")
	d = openGuarded(t, cfg)
	alter(t, d, `DELETE FROM people WHERE id = 1`)
	last := epochOf(t, d)
	d.Close()
	copyFile(t, dir+"/old.db", cfg.File)
	d = openFile(t, cfg.File, people())
	if got := epochOf(t, d); got != last-1 {
		t.Errorf("epoch %d", got)
	}
	behind(t, d, `UPDATE head SET epoch = epoch + 1`)
	if err := d.Guard(t.Context(), GuardConfig{Key: xorKey(7)}); !errors.Is(err, ErrAltered) {
		t.Errorf("got %v", err)
	}
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	in, err := os.Open(from)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(out, in); err != nil {
		t.Fatal(err)
	}
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
	os.Remove(to + "-wal")
}

// Replicas change by turns, and each verifies what the others did. SQLite has
// one process, so there is nothing to see there.
func TestGuardReplicas(t *testing.T) {
	cfg := Config{URL: pgtest.Shared(t).Database(t)}
	a, b := openGuarded(t, cfg), openGuarded(t, cfg)
	fill(t, a)
	for i := range 10 {
		alter(t, []*DB{a, b}[i%2], fmt.Sprintf(`INSERT INTO rules (name, body) VALUES ('n%d', '')`, i))
	}
	for _, d := range []*DB{a, b} {
		if err := verify(t, d); err != nil {
			t.Error(err)
		}
	}
}

func BenchmarkGuard(b *testing.B) {
	d, err := Open(b.Context(), Config{File: b.TempDir() + "/test.db", Schemas: []Schema{people()}})
	if err != nil {
		b.Fatal(err)
	}
	defer d.Close()
	if err := d.Guard(b.Context(), GuardConfig{Key: xorKey(7)}); err != nil {
		b.Fatal(err)
	}
	change := func(fn func(*Tx) error) {
		if err := d.Change(b.Context(), fn); err != nil {
			b.Fatal(err)
		}
	}
	change(func(tx *Tx) error {
		for i := range 10_000 {
			if _, err := tx.Exec(b.Context(), `INSERT INTO people (realm, id, name) VALUES ($1, $2, $3)`, "realm", i, "somebody"); err != nil {
				return err
			}
		}
		return nil
	})
	for _, query := range []string{`UPDATE people SET name = 'x' WHERE id = 1`, `UPDATE rules SET body = 'x'`} {
		b.Run(strings.Fields(query)[1], func(b *testing.B) {
			for b.Loop() {
				change(func(tx *Tx) error { _, err := tx.Exec(b.Context(), query); return err })
			}
		})
	}
	b.Run("verify", func(b *testing.B) {
		for b.Loop() {
			if err := d.View(b.Context(), func(tx *Tx) error { return d.Verify(b.Context(), tx) }); err != nil {
				b.Fatal(err)
			}
		}
	})
}
