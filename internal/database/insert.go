package database

import (
	"context"
	"strconv"
	"strings"
)

// InsertRows inserts rows of so many columns, whose values follow one another. into
// is like "INSERT INTO t (a, b)", and after may say what becomes of a conflict.
func (t *Tx) InsertRows(ctx context.Context, into, after string, columns int, values []any) error {
	return insertRows(into, after, columns, values, func(query string, args []any) error {
		_, err := t.Exec(ctx, query, args...)
		return err
	})
}

// insertRows inserts rows with statements of some rows each.
func insertRows(into, after string, columns int, values []any, exec func(query string, args []any) error) error {
	const most = 1000 // of PostgreSQL's 65,535 parameters, and of SQLite's 32,766
	for step := most / columns * columns; len(values) > 0; {
		n := min(step, len(values))
		var b strings.Builder
		b.WriteString(into + " VALUES ")
		for i := range n {
			switch {
			case i == 0:
				b.WriteString("(")
			case i%columns == 0:
				b.WriteString("), (")
			default:
				b.WriteString(", ")
			}
			b.WriteString("$" + strconv.Itoa(i+1))
		}
		b.WriteString(") " + after)
		if err := exec(b.String(), values[:n]); err != nil {
			return err
		}
		values = values[n:]
	}
	return nil
}
