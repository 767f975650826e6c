package database

import (
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"
)

// A Schema is the tables of one package: SQL files in a directory
// "migrations", applied in the order of their names, each once, never changed
// afterwards.
type Schema struct {
	Package string
	Files   fs.FS

	// Guarded is what of the tables is security state; see [DB.Guard].
	Guarded []Guarded
}

//go:embed migrations/*.sql
var files embed.FS

type migration struct {
	name     string // "vault/001_grants.sql"
	checksum string
	sql      string
}

// migrate applies what is missing, all of it in one transaction: several
// processes may try at once, and one that fails leaves nothing behind.
func (d *DB) migrate(ctx context.Context, schemas []Schema) error {
	own := append([]Schema{{Package: "database", Files: files}}, d.dialect.packages...)
	known, err := collect(append(own, schemas...))
	if err != nil {
		return fmt.Errorf("migrate: %w", err)
	}
	err = d.alone(ctx, func(tx *Tx) error {
		applied, err := appliedMigrations(ctx, tx)
		if err != nil {
			return err
		}
		if err := compare(known, applied); err != nil {
			return err
		}
		for _, m := range known {
			if _, ok := applied[m.name]; ok {
				continue
			}
			if err := m.apply(ctx, tx, d.dialect); err != nil {
				return fmt.Errorf("%s: %w", m.name, err)
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("migrate: %w", err)
	}
	return nil
}

// lockRow is a row of the table of migrations that is none. Nobody migrates
// PostgreSQL without having locked it, which works behind a pooler too.
const lockRow = "lock"

// alone runs fn in a transaction beside which nobody else migrates.
func (d *DB) alone(ctx context.Context, fn func(*Tx) error) error {
	create := d.dialect.schema(`CREATE TABLE IF NOT EXISTS migrations (name TEXT PRIMARY KEY, checksum TEXT NOT NULL, applied BIGINT NOT NULL)`)
	if d.pg == nil {
		return d.Tx(ctx, func(tx *Tx) error {
			if _, err := tx.Exec(ctx, create); err != nil {
				return err
			}
			return fn(tx)
		})
	}
	// By itself, because of several that create it at once all but one fail,
	// and a transaction with an error is over.
	if err := d.again(ctx, func() error { _, err := d.writer.ExecContext(d.bound(ctx), create); return err }); err != nil {
		return err
	}
	return d.again(ctx, func() error {
		_, err := d.transact(ctx, 0, func(tx *Tx) error {
			_, err := tx.Exec(ctx, `INSERT INTO migrations (name, checksum, applied) VALUES ($1, '', 0)
				ON CONFLICT (name) DO UPDATE SET applied = migrations.applied + 1`, lockRow)
			if err != nil {
				return err
			}
			return fn(tx)
		})
		return err
	})
}

func collect(schemas []Schema) ([]migration, error) {
	var all []migration
	seen := make(map[string]bool)
	for _, s := range schemas {
		if seen[s.Package] {
			return nil, fmt.Errorf("two schemas are named %q", s.Package)
		}
		seen[s.Package] = true
		names, err := fs.Glob(s.Files, "migrations/*.sql") // sorted
		if err != nil {
			return nil, err
		}
		for _, name := range names {
			text, err := fs.ReadFile(s.Files, name)
			if err != nil {
				return nil, err
			}
			sum := sha256.Sum256(text)
			all = append(all, migration{s.Package + "/" + path.Base(name), hex.EncodeToString(sum[:]), string(text)})
		}
	}
	return all, nil
}

// appliedMigrations returns the checksums of what was applied, by name.
func appliedMigrations(ctx context.Context, tx *Tx) (map[string]string, error) {
	rows, err := tx.Query(ctx, `SELECT name, checksum FROM migrations WHERE name <> $1`, lockRow)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	applied := make(map[string]string)
	for rows.Next() {
		var name, checksum string
		if err := rows.Scan(&name, &checksum); err != nil {
			return nil, err
		}
		applied[name] = checksum
	}
	return applied, rows.Err()
}

// compare refuses a database that this program would misread: one with
// something unknown in it, or made by other statements than ours.
func compare(known []migration, applied map[string]string) error {
	ours := make(map[string]bool)
	for _, m := range known {
		ours[m.name] = true
		if sum, ok := applied[m.name]; ok && sum != m.checksum {
			return fmt.Errorf("%s has changed since it was applied to this database; changes belong in a new file", m.name)
		}
	}
	var newer []string
	for name := range applied {
		if !ours[name] {
			newer = append(newer, name)
		}
	}
	if len(newer) > 0 {
		return fmt.Errorf("%w: it has %s; run that version or a later one", ErrNewer, strings.Join(slices.Sorted(slices.Values(newer)), ", "))
	}
	return nil
}

// ErrNewer: the database has tables or columns that this program does not
// know, and whose meaning it would ignore.
var ErrNewer = errors.New("the database was written by a newer version of this program")

var types = regexp.MustCompile(`\b(BYTES|TEXT)\b`)

// schema returns the form of a migration for this database.
func (l *Dialect) schema(sql string) string {
	return types.ReplaceAllStringFunc(sql, func(t string) string {
		if t == "BYTES" {
			return l.Bytes
		}
		return l.text
	})
}

func (m *migration) apply(ctx context.Context, tx *Tx, dialect Dialect) error {
	if _, err := tx.Exec(ctx, dialect.schema(m.sql)); err != nil {
		return err
	}
	_, err := tx.Exec(ctx, `INSERT INTO migrations (name, checksum, applied) VALUES ($1, $2, $3)`, m.name, m.checksum, time.Now().UnixMilli())
	return err
}
