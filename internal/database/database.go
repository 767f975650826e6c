// Package database opens the one database of a server: SQLite in a file of
// its own, through one connection that writes and several that read.
//
// It knows SQL, files and the epoch, and no word of the domain: each package
// that keeps something there brings its own tables as a [Schema]. Queries are
// written once for SQLite and PostgreSQL: placeholders are $1, $2, …; types
// are TEXT, BIGINT (times are Unix milliseconds) and BYTES, which the
// [Dialect] replaces.
package database

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
)

// Config says where the database is and what it holds.
type Config struct {
	// File is the path of the SQLite file. It is created, as is its
	// directory, if it does not exist. Required.
	File string

	// Schemas are the tables of every package that keeps something in the
	// database. All of them are given at once, because a database that holds
	// something this program does not know is refused.
	Schemas []Schema
}

// A DB is an open database. Its methods may be called concurrently.
type DB struct {
	file    string
	dialect Dialect
	lock    *os.File // held while the database is open
	reader  *sql.DB
	writer  *sql.DB // one connection

	// slot holds one token while something is written. It is not the writer's
	// own queue because what becomes of the epoch after a commit must be done
	// before the next commit begins.
	slot chan struct{}

	epoch atomic.Int64          // the highest one that was committed or read
	doubt atomic.Pointer[error] // why the epoch is not certain; set and cleared in the slot

	closing  context.Context // done when Close begins
	close    context.CancelFunc
	closed   sync.Once
	settling sync.WaitGroup // readers of an epoch in doubt
}

// Open opens the database, creating it if there is none, and brings the
// schemas up to date. Nobody else can read the files that it makes, and no
// second server can open them until [DB.Close].
func Open(ctx context.Context, cfg Config) (*DB, error) {
	if cfg.File == "" {
		return nil, errors.New("open database: no file is named")
	}
	lock, err := claim(cfg.File)
	if err != nil {
		return nil, fmt.Errorf("open database: %w", err)
	}
	d, err := connect(cfg.File)
	if err != nil {
		lock.Close()
		return nil, fmt.Errorf("open database %s: %w", cfg.File, err)
	}
	d.lock = lock
	if err := d.prepare(ctx, cfg.Schemas); err != nil {
		d.Close()
		return nil, fmt.Errorf("open database %s: %w", cfg.File, err)
	}
	return d, nil
}

// prepare migrates, and learns the epoch.
func (d *DB) prepare(ctx context.Context, schemas []Schema) error {
	if err := d.migrate(ctx, schemas); err != nil {
		return err
	}
	var epoch int64
	if err := d.QueryRow(ctx, `SELECT epoch FROM head`).Scan(&epoch); err != nil {
		return fmt.Errorf("read epoch: %w", err)
	}
	d.epoch.Store(epoch)
	return nil
}

// Close closes the database once what is being written is written, and lets
// another server have it. Closing again does nothing.
func (d *DB) Close() (err error) {
	d.closed.Do(func() { err = d.shut() })
	return err
}

func (d *DB) shut() error {
	d.close()
	d.settling.Wait()
	d.slot <- struct{}{} // never given back
	d.doubts(errClosed)
	err := errors.Join(d.reader.Close(), d.writer.Close())
	if d.lock != nil {
		err = errors.Join(err, release(d.lock))
	}
	return err
}

// Query reads what is committed.
func (d *DB) Query(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	return d.reader.QueryContext(ctx, query, args...)
}

// QueryRow reads one row of what is committed.
func (d *DB) QueryRow(ctx context.Context, query string, args ...any) *sql.Row {
	return d.reader.QueryRowContext(ctx, query, args...)
}

// View runs fn, all of whose queries see the same state of the database.
func (d *DB) View(ctx context.Context, fn func(*Tx) error) error {
	tx, err := d.reader.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
	if err != nil {
		return fmt.Errorf("begin: %w", err)
	}
	defer tx.Rollback()
	return fn(&Tx{tx})
}

// Exec executes one statement that is not a change of security state, and
// returns how many rows it changed. When it returns nil they survive a crash.
func (d *DB) Exec(ctx context.Context, query string, args ...any) (int64, error) {
	if err := d.take(ctx); err != nil {
		return 0, err
	}
	defer d.give()
	return affected(d.writer.ExecContext(ctx, query, args...))
}

// Tx runs fn in a transaction, for changes that are not security state. When
// it returns nil they survive a crash; when fn returns an error or panics
// nothing has changed. fn must not use the DB itself to write, which would
// wait for itself.
func (d *DB) Tx(ctx context.Context, fn func(*Tx) error) error {
	if err := d.take(ctx); err != nil {
		return err
	}
	defer d.give()
	_, err := d.transact(ctx, fn)
	return err
}

// transact runs fn in a transaction, and reports whether that may be
// committed although there was an error. The slot must be taken.
func (d *DB) transact(ctx context.Context, fn func(*Tx) error) (unknown bool, err error) {
	tx, err := d.writer.BeginTx(ctx, nil)
	if err != nil {
		return false, fmt.Errorf("begin: %w", err)
	}
	defer tx.Rollback() // after a commit it does nothing
	if err := fn(&Tx{tx}); err != nil {
		return false, err
	}
	if err := tx.Commit(); err != nil {
		// database/sql does not even try to commit after the context's end.
		tried := !errors.Is(err, sql.ErrTxDone) && !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded)
		return tried, fmt.Errorf("commit: %w", err)
	}
	return false, nil
}

// take waits for the right to write.
func (d *DB) take(ctx context.Context) error {
	select {
	case d.slot <- struct{}{}:
		return nil
	case <-d.closing.Done():
		return errClosed
	case <-ctx.Done():
		return fmt.Errorf("wait to write: %w", ctx.Err())
	}
}

func (d *DB) give() { <-d.slot }

// A Tx is a transaction under way.
type Tx struct{ tx *sql.Tx }

// Exec executes a statement, and returns how many rows it changed.
func (t *Tx) Exec(ctx context.Context, query string, args ...any) (int64, error) {
	return affected(t.tx.ExecContext(ctx, query, args...))
}

// Query reads rows, the transaction's own changes among them.
func (t *Tx) Query(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	return t.tx.QueryContext(ctx, query, args...)
}

// QueryRow reads one row.
func (t *Tx) QueryRow(ctx context.Context, query string, args ...any) *sql.Row {
	return t.tx.QueryRowContext(ctx, query, args...)
}

func affected(r sql.Result, err error) (int64, error) {
	if err != nil {
		return 0, err
	}
	return r.RowsAffected()
}
