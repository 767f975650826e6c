package database

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
)

var leaseTable = Table{Name: "leases", Columns: []string{"name", "owner", "until", "fence", "secret", "idle"}, Order: "name"}

// A dump of either engine is the same, and goes into either.
func TestDumpAndLoad(t *testing.T) { each(t, testDumpAndLoad) }

func testDumpAndLoad(t *testing.T, cfg Config) {
	d, ctx := open(t, cfg, leases), t.Context()
	const n = 2*dumpPage + 3
	err := d.Change(ctx, func(tx *Tx) error {
		_, err := tx.Exec(ctx, `WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < $1)
			INSERT INTO leases (name, owner, until) SELECT 'n' || CAST(i AS TEXT), 'x', i * 4000000000 FROM n`, int64(n-1))
		if err == nil {
			_, err = tx.Exec(ctx, `INSERT INTO leases (name, owner, until, secret) VALUES ($1, $2, $3, $4)`, "<ü&\n>", "", int64(-1), []byte{0, 0xff})
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	file := dumpFile(t)
	// What comes after the beginning is not in it.
	slow := leaseTable
	late := false
	slow.Row = func(context.Context, map[string]any) error {
		if late {
			return nil
		}
		late = true
		return d.Change(ctx, func(tx *Tx) error {
			_, err := tx.Exec(ctx, `INSERT INTO leases (name, owner, until) VALUES ('zz late', 'x', 1)`)
			return err
		})
	}
	h, err := d.Dump(ctx, []Table{slow}, file)
	if err != nil || h.Engine != d.dialect.Name || h.Epoch != 2 {
		t.Fatalf("%+v, %v", h, err)
	}
	to := openFile(t, filepath.Join(t.TempDir(), "to.db"), leases)
	rows := 0
	read := func() (DumpHeader, error) {
		file.Seek(0, 0)
		return ReadDump(file, []Table{leaseTable}, func(_ string, row map[string]any) error {
			rows++
			if idle, ok := row["idle"].(bool); !ok || !idle {
				t.Fatalf("idle is read as a %T", row["idle"])
			}
			return to.Tx(ctx, func(tx *Tx) error {
				if _, err := tx.Insert(ctx, leaseTable, row); err != nil {
					return err
				}
				has, err := tx.Has(ctx, leaseTable, row)
				if err == nil && !has {
					err = fmt.Errorf("the row %v is not there as it was read", row)
				}
				return err
			})
		})
	}
	for range 2 { // again changes nothing
		if got, err := read(); err != nil || !reflect.DeepEqual(got, h) {
			t.Fatalf("%+v, %v, want %+v", got, err, h)
		}
	}
	if rows != 2*n {
		t.Errorf("%d rows, want %d", rows/2, n)
	}
	if err := to.ChangeTo(ctx, 40, func(*Tx) error { return nil }); err != nil || epochOf(t, to) != 40 {
		t.Errorf("epoch %d, %v", epochOf(t, to), err)
	}
	if err := to.ChangeTo(ctx, 40, func(*Tx) error { return nil }); err != nil || epochOf(t, to) != 41 {
		t.Errorf("epoch %d, %v, want one more", epochOf(t, to), err)
	}
}

func dumpFile(t *testing.T) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "dump"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// small is a dump of two rows.
func small(t testing.TB) []byte {
	t.Helper()
	var b bytes.Buffer
	w := newDumper(&b)
	w.line(DumpHeader{Format: dumpFormat, Version: dumpVersion, Epoch: 7, Engine: "SQLite"})
	w.line(dumpTable{"leases", leaseTable.Columns})
	for _, name := range []string{"a", "b"} {
		if err := w.row(t.Context(), &leaseTable, map[string]any{"name": name, "owner": "o", "until": int64(1), "fence": int64(0), "secret": []byte(name)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.end(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// Whatever is cut off or changed in a dump is noticed.
func TestDumpDamaged(t *testing.T) {
	whole := small(t)
	if _, err := CheckDump(bytes.NewReader(whole)); err != nil {
		t.Fatal(err)
	}
	for i := range whole {
		if _, err := CheckDump(bytes.NewReader(whole[:i])); err == nil {
			t.Errorf("cut after %d of %d bytes: accepted", i, len(whole))
		}
		changed := slices.Clone(whole)
		changed[i] ^= 1
		if _, err := CheckDump(bytes.NewReader(changed)); err == nil {
			t.Errorf("byte %d changed in %q: accepted", i, whole[max(0, i-10):min(len(whole), i+10)])
		}
	}
	for _, tt := range []struct{ old, new, says string }{
		{`"version":1`, `"version":2`, "newer version"},
		{`"table":"leases"`, `"table":"other"`, "newer version"},
		{`"owner"`, `"owner; DROP TABLE head"`, "newer version"},
		{`mandate backup`, `pg_dump`, "no backup"},
	} {
		changed := strings.Replace(string(whole), tt.old, tt.new, 1)
		_, err := ReadDump(strings.NewReader(changed), []Table{leaseTable}, func(string, map[string]any) error { return nil })
		if err == nil || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s: got %v, want %q", tt.new, err, tt.says)
		}
	}
	_, err := ReadDump(bytes.NewReader(whole), []Table{leaseTable}, func(string, map[string]any) error { return errTest })
	if !errors.Is(err, errTest) {
		t.Errorf("got %v", err)
	}
}

var errTest = errors.New("of the test")

// Nothing that is read makes the reader fall over, or reach for a table that it
// does not know.
func FuzzReadDump(f *testing.F) {
	f.Add(small(f))
	f.Add([]byte(`{"format":"mandate backup","version":1}` + "\n" + `[1]` + "\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		ReadDump(bytes.NewReader(data), []Table{leaseTable}, func(table string, row map[string]any) error {
			if table != "" && table != "leases" {
				t.Errorf("a row of %q", table)
			}
			for c := range row {
				if !slices.Contains(leaseTable.Columns, c) {
					t.Errorf("a column %q", c)
				}
			}
			return nil
		})
	})
}

// A scratch database goes, and touches nothing.
func TestScratch(t *testing.T) { each(t, testScratch) }

func testScratch(t *testing.T, cfg Config) {
	d, ctx := open(t, cfg, notes()), t.Context()
	add(t, d, 1)
	cfg.Schemas = []Schema{notes()}
	s, drop, err := Scratch(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	if count(t, s) != 0 {
		t.Error("the scratch database is not empty")
	}
	add(t, s, 2)
	if err := drop(); err != nil || count(t, d) != 1 {
		t.Errorf("%d rows, %v", count(t, d), err)
	}
}
