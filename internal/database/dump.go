package database

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"strings"
	"time"
)

// A Table says what of a table is in a [DB.Dump].
type Table struct {
	Name    string
	Columns []string
	Order   string // columns in which no two rows are the same
	Where   string // which rows; all if empty

	// Row may change a row before it is written. Nil leaves it as it is.
	Row func(ctx context.Context, row map[string]any) error
}

// A DumpHeader is the first line of a dump.
type DumpHeader struct {
	Format  string    `json:"format"`
	Version int       `json:"version"`
	Created time.Time `json:"created"` // after which nothing of the dump was changed
	Epoch   int64     `json:"epoch"`
	Engine  string    `json:"engine"`
}

const (
	dumpFormat  = "mandate backup"
	dumpVersion = 1
	dumpPage    = 500 // rows that are read with one query
	maxDumpLine = 64 << 20
)

// A dumpTable is the line before the rows of a table.
type dumpTable struct {
	Table   string   `json:"table"`
	Columns []string `json:"columns"`
}

// A dumpEnd is the last line. A dump without it was cut short.
type dumpEnd struct {
	End    bool   `json:"end"`
	Rows   int64  `json:"rows"`
	SHA256 string `json:"sha256"` // of every line before
}

// A DumpFile takes a dump; an [os.File] is one.
type DumpFile interface {
	io.WriteSeeker
	Truncate(size int64) error
}

// Dump writes tables as they are at one moment, while others go on reading and
// writing. What it writes is JSON, one value a line: a header, for each table
// its name and columns and then its rows as arrays, and an end with the SHA-256
// of every line before it. It is the same for both engines: text is a string,
// BIGINT a number, BOOLEAN true or false, and bytes are {"bytes": base64}.
func (d *DB) Dump(ctx context.Context, tables []Table, to DumpFile) (DumpHeader, error) {
	h := DumpHeader{Format: dumpFormat, Version: dumpVersion, Engine: d.dialect.Name}
	err := d.snapshot(ctx, func(tx *Tx) error {
		if _, err := to.Seek(0, io.SeekStart); err != nil { // it may run again
			return err
		}
		if err := to.Truncate(0); err != nil {
			return err
		}
		if err := tx.QueryRow(ctx, `SELECT epoch FROM head`).Scan(&h.Epoch); err != nil {
			return err
		}
		h.Created = time.Now().UTC()
		w := newDumper(to)
		w.line(h)
		for _, t := range tables {
			w.line(dumpTable{t.Name, t.Columns})
			if err := w.rows(ctx, tx, &t); err != nil {
				return fmt.Errorf("%s: %w", t.Name, err)
			}
		}
		return w.end()
	})
	if err != nil {
		return h, fmt.Errorf("dump: %w", err)
	}
	return h, nil
}

// snapshot is [DB.View] for as long as it takes: only each query has to be
// answered in time.
func (d *DB) snapshot(ctx context.Context, fn func(*Tx) error) error {
	return d.again(ctx, func() error {
		tx, err := d.reader.BeginTx(ctx, &sql.TxOptions{Isolation: d.dialect.view, ReadOnly: true})
		if err != nil {
			return fmt.Errorf("begin: %w", err)
		}
		defer tx.Rollback()
		return fn(&Tx{db: d, tx: tx, limit: d.limit})
	})
}

// A dumper writes lines, until the first error.
type dumper struct {
	w     *bufio.Writer
	hash  hash.Hash
	count int64
	err   error
}

func newDumper(w io.Writer) *dumper { return &dumper{w: bufio.NewWriter(w), hash: sha256.New()} }

func (w *dumper) line(v any) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil && w.err == nil {
		w.err = err
	}
	if b.Len() > maxDumpLine && w.err == nil {
		w.err = errors.New("a row is too long to be read again")
	}
	w.hash.Write(b.Bytes())
	if _, err := w.w.Write(b.Bytes()); err != nil && w.err == nil {
		w.err = err
	}
}

func (w *dumper) end() error {
	w.line(dumpEnd{true, w.count, hex.EncodeToString(w.hash.Sum(nil))})
	return errors.Join(w.err, w.w.Flush())
}

// rows writes the rows of a table, some at a time: no query is long enough to
// be given up.
func (w *dumper) rows(ctx context.Context, tx *Tx, t *Table) error {
	where := ""
	if t.Where != "" {
		where = ` WHERE ` + t.Where
	}
	query := `SELECT ` + strings.Join(t.Columns, ", ") + ` FROM ` + t.Name + where + ` ORDER BY ` + t.Order + ` LIMIT $1 OFFSET $2`
	booleans, err := t.booleans(ctx, tx)
	if err != nil {
		return err
	}
	for offset := int64(0); ; offset += dumpPage {
		page, err := readPage(ctx, tx, t, booleans, query, offset)
		if err != nil {
			return err
		}
		for _, row := range page {
			if err := w.row(ctx, t, row); err != nil {
				return err
			}
		}
		if len(page) < dumpPage {
			return w.err
		}
	}
}

func readPage(ctx context.Context, tx *Tx, t *Table, booleans map[string]bool, query string, offset int64) ([]map[string]any, error) {
	rows, err := tx.Query(ctx, query, int64(dumpPage), offset)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var page []map[string]any
	for rows.Next() {
		row, err := scanRow(rows, t.Columns, booleans)
		if err != nil {
			return nil, err
		}
		page = append(page, row)
	}
	return page, rows.Err()
}

// booleans returns which columns SQLite would give as numbers: it has no
// booleans, and remembers that a column was declared as one.
func (t *Table) booleans(ctx context.Context, tx *Tx) (map[string]bool, error) {
	if tx.db.pg != nil {
		return nil, nil
	}
	rows, err := tx.Query(ctx, `SELECT name FROM pragma_table_info($1) WHERE type = 'BOOLEAN'`, t.Name)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	all := make(map[string]bool)
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			return nil, err
		}
		all[name] = true
	}
	return all, rows.Err()
}

// scanRow reads a row by the names of its columns.
func scanRow(rows *sql.Rows, columns []string, booleans map[string]bool) (map[string]any, error) {
	values := make([]any, len(columns))
	for i := range values {
		values[i] = new(any)
	}
	if err := rows.Scan(values...); err != nil {
		return nil, err
	}
	row := make(map[string]any, len(columns))
	for i, c := range columns {
		row[c] = *values[i].(*any)
		if n, ok := row[c].(int64); ok && booleans[c] {
			row[c] = n != 0
		}
	}
	return row, nil
}

// row writes one row.
func (w *dumper) row(ctx context.Context, t *Table, row map[string]any) error {
	if t.Row != nil {
		if err := t.Row(ctx, row); err != nil {
			return err
		}
	}
	out := make([]any, len(t.Columns))
	for i, c := range t.Columns {
		switch v := row[c].(type) {
		case nil, int64, string, bool:
			out[i] = v
		case []byte:
			out[i] = dumpBytes{v}
		default:
			return fmt.Errorf("column %s is a %T", c, v)
		}
	}
	w.count++
	w.line(out)
	return w.err
}

// dumpBytes are how bytes differ from text.
type dumpBytes struct {
	Bytes []byte `json:"bytes"`
}
