package database

import (
	"context"
	"fmt"
	"testing"
)

// kept is how many statements the writing connection has prepared.
func kept(t *testing.T, d *DB) int {
	t.Helper()
	c, err := d.writer.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	n := 0
	if err := c.Raw(func(conn any) error { n = len(conn.(*keeper).all); return nil }); err != nil {
		t.Fatal(err)
	}
	return n
}

// TestStatementsAreKept, boundedly, and only those that can be.
func TestStatementsAreKept(t *testing.T) {
	d, ctx := openTest(t), t.Context()
	add := func(query string, args ...any) {
		t.Helper()
		if _, err := d.writer.ExecContext(ctx, query, args...); err != nil {
			t.Errorf("%s: %v", query, err)
		}
	}
	before := kept(t, d)
	for id := range 3 {
		add(`INSERT INTO notes (id) VALUES ($1)`, id)
	}
	if n := kept(t, d) - before; n != 1 {
		t.Errorf("%d statements for one query, want 1", n)
	}
	add(`INSERT INTO notes (id) VALUES (3); INSERT INTO notes (id) VALUES (4)`)
	add(`PRAGMA busy_timeout = 5000`)
	if n := kept(t, d) - before; n != 1 {
		t.Errorf("%d statements, and several in one query are not kept, nor is a PRAGMA", n)
	}
	for i := range 2 * maxStatements {
		add(fmt.Sprintf(`DELETE FROM notes WHERE id = %d`, 1000+i))
	}
	if n := kept(t, d); n != maxStatements {
		t.Errorf("%d statements, want %d at most", n, maxStatements)
	}
	if got := count(t, d); got != 5 {
		t.Errorf("%d rows, want 5", got)
	}
}

// TestStatementAfterAChangeOfTheSchema: what was prepared before sees it.
func TestStatementAfterAChangeOfTheSchema(t *testing.T) {
	d, ctx := openTest(t), t.Context()
	for want := 1; want <= 2; want++ {
		rows, err := d.writer.QueryContext(ctx, `SELECT * FROM tags`)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := rows.Columns(); err != nil || len(got) != want {
			t.Errorf("got columns %q, error %v; want %d", got, err, want)
		}
		rows.Close()
		if _, err := d.writer.ExecContext(ctx, fmt.Sprintf(`ALTER TABLE tags ADD COLUMN more%d BIGINT`, want)); err != nil {
			t.Fatal(err)
		}
	}
}

// TestStatementWithinItself: a query may run again while its rows are read,
// and after it has failed or was given up.
func TestStatementWithinItself(t *testing.T) {
	d, ctx := openTest(t), t.Context()
	for id := range 3 {
		if _, err := d.Exec(ctx, `INSERT INTO notes (id) VALUES ($1)`, id); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := d.Exec(ctx, `INSERT INTO notes (id) VALUES ($1)`, 1); err == nil {
		t.Error("the same row was inserted twice")
	}
	if _, err := d.Exec(ctx, `INSERT INTO notes (id) VALUES ($1)`, 3); err != nil {
		t.Errorf("after it had failed: %v", err)
	}
	const query = `SELECT id FROM notes WHERE id >= $1 ORDER BY id`
	gone, cancel := context.WithCancel(ctx)
	err := d.Tx(ctx, func(tx *Tx) error {
		outer, err := tx.tx.QueryContext(ctx, query, 0)
		if err != nil {
			return err
		}
		defer outer.Close()
		for want := 0; outer.Next(); want++ {
			var a, b int
			if err := outer.Scan(&a); err != nil {
				return err
			}
			if err := tx.tx.QueryRowContext(ctx, query, a).Scan(&b); err != nil || a != want || b != want {
				t.Errorf("got %d and %d, error %v; want %d", a, b, err, want)
			}
		}
		return outer.Err()
	})
	if err != nil {
		t.Error(err)
	}
	rows, err := d.Query(gone, query, 0)
	if err != nil {
		t.Fatal(err)
	}
	rows.Next()
	cancel()
	rows.Close()
	for range 16 { // as many times as there are connections, and more
		var id int
		if err := d.QueryRow(ctx, query, 2).Scan(&id); err != nil || id != 2 {
			t.Errorf("got %d, error %v; want 2", id, err)
		}
	}
}

// TestAnonymous: only what means the same without names loses them.
func TestAnonymous(t *testing.T) {
	for query, want := range map[string]string{
		`SELECT 1`:                            `SELECT 1`,
		`INSERT INTO t VALUES ($1, $2)`:       `INSERT INTO t VALUES (?, ?)`,
		`UPDATE t SET a = 'x', b = $1`:        `UPDATE t SET a = 'x', b = ?`,
		`SELECT a WHERE b = $2 OR c = $1`:     `SELECT a WHERE b = $2 OR c = $1`,
		`SELECT a WHERE b = $1 OR c = $1`:     `SELECT a WHERE b = $1 OR c = $1`,
		`SELECT '$1' WHERE a = $1`:            `SELECT '$1' WHERE a = $1`,
		`SELECT a WHERE b = $11`:              `SELECT a WHERE b = $11`,
		`SELECT '?' WHERE a = $1`:             `SELECT '?' WHERE a = $1`,
		`SELECT a WHERE b = $1 AND c = $name`: `SELECT a WHERE b = $1 AND c = $name`,
	} {
		if got := anonymous(query); got != want {
			t.Errorf("%s\ngot  %s\nwant %s", query, got, want)
		}
	}
}

// Many rows in one statement, as the index of the audit log is filled.
func BenchmarkManyRows(b *testing.B) {
	d, ctx := openTest(b), b.Context()
	const rows = 1000
	args := make([]any, 0, rows)
	for b.Loop() {
		args = args[:0]
		query := []byte(`INSERT INTO notes (id) VALUES `)
		for i := range rows {
			query = fmt.Appendf(query, "($%d),", i+1)
			args = append(args, i)
		}
		query = append(query[:len(query)-1], " ON CONFLICT (id) DO NOTHING"...)
		if _, err := d.writer.ExecContext(ctx, string(query), args...); err != nil {
			b.Fatal(err)
		}
	}
}
