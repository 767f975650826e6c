package database

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
)

// Pipe runs fn in a transaction, as [DB.Tx] does and with the same promises,
// for what many wait for: on PostgreSQL the statements between two calls of
// [Pipe.Wait] are one message to the server and one answer, the transaction's
// begin is in the first one, and its commit is in the last, with the
// statements that fn has not waited for.
func (d *DB) Pipe(ctx context.Context, fn func(*Pipe) error) error {
	if d.pg == nil {
		return d.Tx(ctx, func(tx *Tx) error {
			p := &Pipe{tx: tx}
			if err := fn(p); err != nil {
				return err
			}
			return p.Wait(ctx)
		})
	}
	return d.again(ctx, func() error { return d.pipe(ctx, fn) })
}

func (d *DB) pipe(ctx context.Context, fn func(*Pipe) error) error {
	own, cancel := withLimit(ctx, d.limit)
	defer cancel()
	conn, err := d.writer.Conn(own)
	if err != nil {
		return fmt.Errorf("begin: %w", err)
	}
	defer conn.Close()
	// After a panic the connection is given up.
	return conn.Raw(func(c any) error {
		p := &Pipe{conn: c.(*stdlib.Conn).Conn(), limit: d.limit, batch: new(pgx.Batch)}
		err := p.run(ctx, fn)
		if err != nil {
			p.undo()
		}
		return err
	})
}

// A Pipe is a transaction whose statements are sent together. One goroutine
// at a time uses it.
type Pipe struct {
	failed error // why nothing more is executed

	tx    *Tx // SQLite, where there is nobody to send anything to
	queue []func(context.Context) error

	conn  *pgx.Conn // PostgreSQL
	limit time.Duration
	batch *pgx.Batch
	asks  bool // there is a query in batch
}

// run is the transaction, but for undoing it.
func (p *Pipe) run(ctx context.Context, fn func(*Pipe) error) error {
	p.Exec(`BEGIN`)
	p.Exec(`SELECT ` + limits)
	if err := fn(p); err != nil {
		return err
	}
	if p.asks { // what the rows are may be an error, and then nothing is committed
		if err := p.Wait(ctx); err != nil {
			return err
		}
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("before the commit: %w", err)
	}
	p.Exec(`COMMIT`)
	return p.Wait(context.WithoutCancel(ctx)) // so that a commit is either not begun or waited for
}

// undo ends a transaction that is under way. If that fails the connection is
// of no use any more, which whoever takes it next finds out.
func (p *Pipe) undo() {
	if p.conn.IsClosed() || p.conn.PgConn().TxStatus() == 'I' {
		return
	}
	ctx, cancel := withLimit(context.Background(), p.limit)
	defer cancel()
	_, _ = p.conn.Exec(ctx, `ROLLBACK`)
}

// Exec executes a statement, not before [Pipe.Wait].
func (p *Pipe) Exec(query string, args ...any) {
	if p.tx == nil {
		p.batch.Queue(query, args...)
		return
	}
	p.queue = append(p.queue, func(ctx context.Context) error {
		_, err := p.tx.Exec(ctx, query, args...)
		return err
	})
}

// Query executes a query, not before [Pipe.Wait], and calls each for every row
// with what scans it.
func (p *Pipe) Query(each func(scan func(dest ...any) error) error, query string, args ...any) {
	if p.tx == nil {
		p.asks = true
		p.batch.Queue(query, args...).Query(func(rows pgx.Rows) error { return eachRow(rows, each) })
		return
	}
	p.queue = append(p.queue, func(ctx context.Context) error {
		rows, err := p.tx.Query(ctx, query, args...)
		if err != nil {
			return err
		}
		defer rows.Close()
		return eachRow(rows, each)
	})
}

func eachRow(rows interface {
	Next() bool
	Scan(dest ...any) error
	Err() error
}, each func(scan func(dest ...any) error) error) error {
	for rows.Next() {
		if err := each(rows.Scan); err != nil {
			return err
		}
	}
	return rows.Err()
}

// Wait sends the statements that have not been sent, and waits until they are
// executed. After an error the transaction is over, whatever fn makes of it.
func (p *Pipe) Wait(ctx context.Context) error {
	if p.failed == nil {
		p.failed = p.send(ctx)
	}
	return p.failed
}

func (p *Pipe) send(ctx context.Context) error {
	if p.tx == nil {
		ctx, cancel := withLimit(ctx, p.limit)
		defer cancel()
		batch := p.batch
		p.batch, p.asks = new(pgx.Batch), false
		return p.conn.SendBatch(ctx, batch).Close()
	}
	queue := p.queue
	p.queue = nil
	for _, do := range queue {
		if err := do(ctx); err != nil {
			return err
		}
	}
	return nil
}

// Insert inserts rows, not before [Pipe.Wait]. into is like "INSERT INTO t (a,
// b)", and after may say what becomes of a conflict. Every column is an
// []int64, a []string or a [][]byte with a value for each row, and not changed
// any more.
//
// PostgreSQL gets as many parameters as there are columns, so that one plan of
// the statement does for any number of rows.
func (p *Pipe) Insert(into, after string, columns ...any) {
	if p.tx == nil {
		p.Exec(into+` SELECT * FROM unnest(`+arrays(columns)+`) `+after, columns...)
		return
	}
	width, rows := len(columns), rowsOf(columns)
	values := make([]any, 0, width*rows)
	for i := range rows {
		for _, c := range columns {
			values = append(values, valueOf(c, i))
		}
	}
	_ = insertRows(into, after, width, values, func(query string, args []any) error {
		p.Exec(query, args...)
		return nil
	})
}

// arrays returns "$1::bigint[], …" as the columns are.
func arrays(columns []any) string {
	out := make([]string, len(columns))
	for i, c := range columns {
		out[i] = "$" + strconv.Itoa(i+1) + "::bytea[]"
		switch c.(type) {
		case []int64:
			out[i] = "$" + strconv.Itoa(i+1) + "::bigint[]"
		case []string:
			out[i] = "$" + strconv.Itoa(i+1) + "::text[]"
		}
	}
	return strings.Join(out, ", ")
}

func rowsOf(columns []any) int {
	switch c := columns[0].(type) {
	case []int64:
		return len(c)
	case []string:
		return len(c)
	}
	return len(columns[0].([][]byte))
}

func valueOf(column any, i int) any {
	switch c := column.(type) {
	case []int64:
		return c[i]
	case []string:
		return c[i]
	}
	return column.([][]byte)[i]
}
