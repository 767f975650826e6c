package database

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

// CheckDump reads a dump to its end, and reports the first thing wrong with
// it. Nothing of a dump should be used that has not been checked: one that was
// cut short looks whole until its end.
func CheckDump(r io.Reader) (DumpHeader, error) {
	return readDump(r, nil, nil)
}

// ReadDump gives each row of the tables to each, which may be called for some
// before something turns out to be wrong: see [CheckDump]. A dump with tables
// or columns of which there is nothing in tables is refused with [ErrNewer].
func ReadDump(r io.Reader, tables []Table, each func(table string, row map[string]any) error) (DumpHeader, error) {
	return readDump(r, tables, each)
}

var errCut = errors.New("the backup is cut short, or was altered: take another one")

func readDump(r io.Reader, tables []Table, each func(string, map[string]any) error) (h DumpHeader, err error) {
	in := bufio.NewReaderSize(r, 64<<10)
	sum := sha256.New()
	var at dumpTable
	var rows int64
	for n := 1; ; n++ {
		line, err := dumpLine(in)
		if err != nil {
			return h, err
		}
		switch {
		case n == 1:
			if json.Unmarshal(line, &h) != nil || h.Format != dumpFormat {
				return h, errors.New("this is no backup of Mandate's")
			}
			if h.Version != dumpVersion {
				return h, fmt.Errorf("%w: the backup has format %d", ErrNewer, h.Version)
			}
		case bytes.HasPrefix(line, []byte(`{"table"`)):
			if at, err = readTable(line, tables, each != nil); err != nil {
				return h, err
			}
		case bytes.HasPrefix(line, []byte(`{"end"`)):
			var end dumpEnd
			if json.Unmarshal(line, &end) != nil || end.Rows != rows || end.SHA256 != hex.EncodeToString(sum.Sum(nil)) {
				return h, errCut
			}
			return h, nil
		default:
			rows++
			row, err := at.read(line)
			if err == nil && each != nil {
				err = each(at.Table, row)
			}
			if err != nil {
				return h, fmt.Errorf("line %d: %w", n, err)
			}
		}
		sum.Write(line)
	}
}

// dumpLine reads one line.
func dumpLine(in *bufio.Reader) (line []byte, err error) {
	for {
		part, err := in.ReadSlice('\n')
		line = append(line, part...)
		switch {
		case err == nil:
			return line, nil
		case errors.Is(err, io.EOF) || len(line) > maxDumpLine:
			return nil, errCut
		case !errors.Is(err, bufio.ErrBufferFull):
			return nil, err
		}
	}
}

// readTable reads the line before the rows of a table, all of whose columns
// must be known. Their names become part of a statement.
func readTable(line []byte, tables []Table, strict bool) (t dumpTable, err error) {
	if json.Unmarshal(line, &t) != nil {
		return t, errCut
	}
	if !strict {
		return t, nil
	}
	i := slices.IndexFunc(tables, func(k Table) bool { return k.Name == t.Table })
	if i < 0 {
		return t, fmt.Errorf("%w: the backup has a table %.60q", ErrNewer, t.Table)
	}
	for _, c := range t.Columns {
		if !slices.Contains(tables[i].Columns, c) {
			return t, fmt.Errorf("%w: the backup has a column %.60q", ErrNewer, c)
		}
	}
	return t, nil
}

func (t *dumpTable) read(line []byte) (map[string]any, error) {
	var values []json.RawMessage
	if json.Unmarshal(line, &values) != nil || len(values) != len(t.Columns) {
		return nil, errCut
	}
	row := make(map[string]any, len(values))
	for i, v := range values {
		value, err := readValue(v)
		if err != nil {
			return nil, fmt.Errorf("column %s: %w", t.Columns[i], err)
		}
		row[t.Columns[i]] = value
	}
	return row, nil
}

func readValue(v json.RawMessage) (any, error) {
	switch v[0] {
	case 'n':
		return nil, nil
	case '"':
		var s string
		err := json.Unmarshal(v, &s)
		return s, err
	case '{':
		var b dumpBytes
		err := json.Unmarshal(v, &b)
		return b.Bytes, err
	case 't', 'f':
		return v[0] == 't', nil
	}
	var n int64
	err := json.Unmarshal(v, &n)
	return n, err
}

// Insert adds a row to the table that [ReadDump] gave, unless one with the same
// key is there, and reports whether it did.
func (t *Tx) Insert(ctx context.Context, table Table, row map[string]any) (bool, error) {
	var columns, places []string
	var args []any
	for _, c := range table.Columns {
		v, ok := row[c]
		if !ok {
			continue // added since; it has a default
		}
		columns, args = append(columns, c), append(args, v)
		places = append(places, fmt.Sprintf("$%d", len(args)))
	}
	n, err := t.Exec(ctx, `INSERT INTO `+table.Name+` (`+strings.Join(columns, ", ")+`) VALUES (`+strings.Join(places, ", ")+`) ON CONFLICT DO NOTHING`, args...)
	return n > 0, err
}

// Has reports whether the table has just that row.
func (t *Tx) Has(ctx context.Context, table Table, row map[string]any) (bool, error) {
	var where []string
	var args []any
	for _, c := range table.Columns {
		v, ok := row[c]
		switch {
		case !ok:
		case v == nil:
			where = append(where, c+` IS NULL`)
		default:
			args = append(args, v)
			where = append(where, fmt.Sprintf("%s = $%d", c, len(args)))
		}
	}
	var n int64
	err := t.QueryRow(ctx, `SELECT count(*) FROM `+table.Name+` WHERE `+strings.Join(where, " AND "), args...).Scan(&n)
	return n > 0, err
}
