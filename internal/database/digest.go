package database

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// A Guarded is a table of security state. Only [DB.Change] may insert or
// delete its rows, and change those columns. Once a column is guarded it stays
// as it is: a migration adds columns, and changes no value.
type Guarded struct {
	Table   string
	Key     []string // columns in which no two rows are the same, TEXT, BIGINT or BYTES
	Columns []string // others that count
}

// columns are the names of all columns that count.
func (g *Guarded) columns() []string { return slices.Concat(g.Key, g.Columns) }

// A spec is what is guarded, by table.
type spec []Guarded

// with returns what either has. Columns that are new come after the others.
func (s spec) with(more spec) spec {
	out := slices.Clone(s)
	for _, m := range more {
		i := slices.IndexFunc(out, func(g Guarded) bool { return g.Table == m.Table })
		if i < 0 {
			out = append(out, m)
			continue
		}
		out[i].Columns = slices.Clone(out[i].Columns)
		for _, c := range m.Columns {
			if !slices.Contains(out[i].columns(), c) {
				out[i].Columns = append(out[i].Columns, c)
			}
		}
	}
	return out
}

func (s spec) table(name string) *Guarded {
	for i := range s {
		if s[i].Table == name {
			return &s[i]
		}
	}
	return nil
}

// A state is what was in the guarded tables in one epoch.
type state struct {
	epoch  int64
	spec   spec
	tables map[string]*tableSum
}

// digest has one line for each table: its name, its columns, and the hash of
// its rows. What was guarded is thus a part of what is proven.
func (s *state) digest() string {
	var b strings.Builder
	for i := range s.spec {
		g := &s.spec[i]
		fmt.Fprintf(&b, "%s %s %s %x\n", g.Table, strings.Join(g.Key, ","), strings.Join(g.Columns, ","), s.tables[g.Table].sum)
	}
	return b.String()
}

// covers reports whether everything of want is guarded.
func (s *state) covers(want spec) bool {
	have := s.spec
	return (&state{spec: have.with(want), tables: s.tables}).sameSpec(have)
}

func (s *state) sameSpec(other spec) bool {
	return slices.EqualFunc(s.spec, other, func(a, b Guarded) bool {
		return a.Table == b.Table && slices.Equal(a.Key, b.Key) && slices.Equal(a.Columns, b.Columns)
	})
}

var names = regexp.MustCompile(`^[a-z_]+(,[a-z_]+)*$`)

// parseDigest reads a digest whose MAC was verified.
func parseDigest(text string) (spec, map[string][sha256.Size]byte, error) {
	var s spec
	sums := make(map[string][sha256.Size]byte)
	for line := range strings.Lines(text) {
		f := strings.Split(strings.TrimSuffix(line, "\n"), " ")
		if len(f) != 4 || !names.MatchString(f[0]) || !names.MatchString(f[1]) || f[2] != "" && !names.MatchString(f[2]) {
			return nil, nil, fmt.Errorf("the digest has the line %.80q", line)
		}
		g := Guarded{Table: f[0], Key: strings.Split(f[1], ",")}
		if f[2] != "" {
			g.Columns = strings.Split(f[2], ",")
		}
		sum, err := hex.DecodeString(f[3])
		if err != nil || len(sum) != sha256.Size {
			return nil, nil, fmt.Errorf("the digest has the line %.80q", line)
		}
		s, sums[g.Table] = append(s, g), [sha256.Size]byte(sum)
	}
	return s, sums, nil
}

// A tableSum is the hashes of a table's rows, in the order of their keys.
type tableSum struct {
	rows []rowSum
	sum  [sha256.Size]byte // of all of them
	byID func() map[string][sha256.Size]byte
}

// A rowSum is the hash of a row, key and all.
type rowSum struct {
	id  string // the key's values, with NUL in between
	sum [sha256.Size]byte
}

// readTable reads what is guarded of a table.
func readSums(ctx context.Context, tx *Tx, g *Guarded) (*tableSum, error) {
	columns := g.columns()
	rows, err := tx.Query(ctx, `SELECT `+strings.Join(columns, ", ")+` FROM `+g.Table+` ORDER BY `+strings.Join(g.Key, ", "))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", g.Table, err)
	}
	defer rows.Close()
	t := newTableSum()
	values, into := make([]any, len(columns)), make([]any, len(columns))
	for i := range values {
		into[i] = &values[i]
	}
	all := sha256.New()
	var buffer []byte
	for rows.Next() {
		if err := rows.Scan(into...); err != nil {
			return nil, fmt.Errorf("read %s: %w", g.Table, err)
		}
		var r rowSum
		if r, buffer, err = sumRow(g, values, buffer[:0]); err != nil {
			return nil, fmt.Errorf("read %s: %w", g.Table, err)
		}
		t.rows = append(t.rows, r)
		all.Write(r.sum[:])
	}
	all.Sum(t.sum[:0])
	return t, rows.Err()
}

func newTableSum() *tableSum {
	t := new(tableSum)
	t.byID = sync.OnceValue(func() map[string][sha256.Size]byte {
		m := make(map[string][sha256.Size]byte, len(t.rows))
		for _, r := range t.rows {
			m[r.id] = r.sum
		}
		return m
	})
	return t
}

// sumRow returns the hash of a row's values: each with its type and length, so
// that no two rows have the same form.
func sumRow(g *Guarded, values []any, b []byte) (rowSum, []byte, error) {
	var err error
	for _, v := range values {
		if b, err = appendValue(b, v); err != nil {
			return rowSum{}, b, err
		}
	}
	return rowSum{rowID(values[:len(g.Key)]), sha256.Sum256(b)}, b, nil
}

func rowID(key []any) string {
	if len(key) == 1 {
		if s, ok := key[0].(string); ok {
			return s
		}
	}
	var b []byte
	for i, v := range key {
		if i > 0 {
			b = append(b, 0)
		}
		switch v := v.(type) {
		case int64:
			b = strconv.AppendInt(b, v, 10)
		case string:
			b = append(b, v...)
		case []byte:
			b = hex.AppendEncode(b, v)
		}
	}
	return string(b)
}

func appendValue(b []byte, v any) ([]byte, error) {
	switch v := v.(type) {
	case nil:
		return append(b, 'n'), nil
	case int64:
		return binary.BigEndian.AppendUint64(append(b, 'i'), uint64(v)), nil
	case string:
		return append(binary.BigEndian.AppendUint32(append(b, 's'), uint32(len(v))), v...), nil
	case bool:
		if v {
			return append(b, 't'), nil
		}
		return append(b, 'f'), nil
	case []byte:
		if len(v) == 0 { // which comes back as null from one of the databases
			return append(b, 'n'), nil
		}
		return append(binary.BigEndian.AppendUint32(append(b, 'b'), uint32(len(v))), v...), nil
	case sql.NullInt64:
		if !v.Valid {
			return append(b, 'n'), nil
		}
		return appendValue(b, v.Int64)
	case sql.NullString:
		if !v.Valid {
			return append(b, 'n'), nil
		}
		return appendValue(b, v.String)
	}
	return b, fmt.Errorf("a column has a %T, which cannot be guarded", v)
}

// leftOut adds the hashes of t's rows that are not in now.
func (t *tableSum) leftOut(now *tableSum, to map[[sha256.Size]byte]bool) {
	there := now.byID()
	for _, r := range t.rows {
		if there[r.id] != r.sum {
			to[r.sum] = true
		}
	}
}

// maxNamed bounds how many rows an error names.
const maxNamed = 3

// differences says in what a table differs from what was verified before.
func (t *tableSum) differences(now *tableSum, table string, wasThere func([sha256.Size]byte) bool) string {
	var all []string
	before, after := t.byID(), now.byID()
	for _, r := range now.rows {
		old, ok := before[r.id]
		switch {
		case ok && old == r.sum:
			continue
		case wasThere(r.sum):
			all = append(all, describe(table, r.id, "is an older one that was put back (replayed)"))
		case ok:
			all = append(all, describe(table, r.id, "was changed"))
		default:
			all = append(all, describe(table, r.id, "was inserted"))
		}
	}
	for _, r := range t.rows {
		if _, ok := after[r.id]; !ok {
			all = append(all, describe(table, r.id, "was deleted"))
		}
	}
	if n := len(all) - maxNamed; n > 0 {
		all = append(all[:maxNamed], fmt.Sprintf("and %d more", n))
	}
	return strings.Join(all, ", ")
}

func describe(table, id, what string) string {
	return fmt.Sprintf("row %.200q of %s %s", strings.ReplaceAll(id, "\x00", "/"), table, what)
}
