// Package database opens the one database of a server: SQLite in a file of
// its own, through one connection that writes and several that read, or
// PostgreSQL, which several replicas of the server share.
//
// It knows SQL, files and the epoch, and no word of the domain: each package
// that keeps something there brings its own tables as a [Schema].
//
// # SQL for both
//
// Queries are written once, and mean the same in both:
//
//   - Placeholders are $1, $2, …; each is of one type throughout a statement.
//     A parameter's type is what it is compared with or stored into. Where
//     there is nothing to tell (SELECT $1, $1 + $2, coalesce($1, $2),
//     CASE … THEN $1) it is written CAST($1 AS BIGINT) or CAST($1 AS TEXT).
//     INSERT INTO t (…) SELECT $1, … needs none. An argument is an int64, a
//     string, a []byte, a bool or nil, or one of [database/sql]'s Null types;
//     a named string type is converted first.
//   - Types are TEXT, BIGINT (times are Unix milliseconds), BOOLEAN and BYTES,
//     which the [Dialect] replaces in migrations; sum() of a BIGINT is cast
//     back to BIGINT, because PostgreSQL makes it numeric. Text is compared by
//     bytes in both. It holds neither NUL nor invalid UTF-8, which PostgreSQL
//     refuses: check what comes from outside with [ValidText]. BYTES of no
//     length may come back as nil.
//   - now_ms() is the database's clock, in Unix milliseconds. Leases use that
//     and never a replica's. For an index to be used with it, write
//     (SELECT now_ms()).
//   - A statement that reads and then writes is one UPDATE with the condition
//     in its WHERE. PostgreSQL looks at the condition on the row itself again
//     after it has waited for the row, but not at subqueries on other rows: in
//     a transaction, read those first, with FOR UPDATE or FOR SHARE, which
//     SQLite does not see (it has one writer at a time). So
//     (SELECT epoch FROM head) = $n fails for every change that returned
//     before the statement began; a transaction for which that is not enough
//     begins with SELECT epoch FROM head FOR SHARE, which no change overtakes.
//   - After an error PostgreSQL does nothing more in the transaction, so that
//     a conflict which is expected must not be an error: ON CONFLICT DO
//     NOTHING or a NOT EXISTS, and count the rows. ON CONFLICT (…) DO UPDATE,
//     RETURNING, excluded and partial indexes are the same in both. INSERT OR
//     IGNORE, rowid, datetime(), LOCK TABLE and advisory locks are not used,
//     nor is the same table locked by two transactions in different orders.
//   - Rows come in no order without ORDER BY, and all of a query are read or
//     closed before the transaction's next statement.
//   - Nothing that a session keeps is used (SET, temporary tables, PREPARE),
//     because consecutive transactions may run in different ones. Statements
//     are prepared behind the scenes where they are known not to.
//
// # Migrations and replicas
//
// Replicas of two versions run side by side during an upgrade, so a migration
// only expands: it adds tables, indexes and columns that may be null or have a
// default, and never breaks a statement of the version before. What that
// version needed is dropped one version later. A replica that is running goes
// on when a newer one has migrated; only opening is refused, with [ErrNewer].
package database

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"
)

// Config says where the database is and what it holds.
type Config struct {
	// File is the path of the SQLite file. It is created, as is its
	// directory, if it does not exist. Either File or URL is required.
	File string

	// Derived says that all of File can be made again from something else:
	// what was committed last may be lost when the machine stops, though not
	// when the process does, and more memory is used to write much at once.
	Derived bool

	// URL is where PostgreSQL is: postgres://user:password@host/database.
	// Transaction pooling on the way is all right. No error has the password.
	URL string

	// ListenURL is a way to the same database without a pooler, for notices.
	// Default: URL.
	ListenURL string

	// Replica is the name of this replica, for people who look at the
	// connections of PostgreSQL.
	Replica string

	// Connections is how many there are to PostgreSQL at most, besides two
	// that watch. Default: 16.
	Connections int

	// Log is told when the database cannot be reached, and when it can again.
	// Default: [slog.Default].
	Log *slog.Logger

	// Schemas are the tables of every package that keeps something in the
	// database. All of them are given at once, because a database that holds
	// something this program does not know is refused.
	Schemas []Schema
}

// A DB is an open database. Its methods may be called concurrently.
//
// With PostgreSQL everything that waits for the server ends by itself after
// some seconds, whatever the context, because a server that is frozen or cut
// off does not say so.
type DB struct {
	name    string // in errors: the file, or "PostgreSQL"
	dialect Dialect
	log     *slog.Logger
	limit   time.Duration // of one thing that is asked of the server; SQLite: none
	reader  *sql.DB
	writer  *sql.DB // SQLite: one connection; PostgreSQL: the same as reader

	lock *os.File // SQLite: held while the database is open
	pg   *watched // PostgreSQL

	// slot holds one token while something is written to SQLite. It is not
	// the writer's own queue because what becomes of the epoch after a commit
	// must be done before the next commit begins. PostgreSQL: nil.
	slot chan struct{}

	queue queue // SQLite: writes that wait for the slot together

	epoch atomic.Int64                  // the highest one that was committed or read
	doubt atomic.Pointer[error]         // why the epoch is not certain
	read  atomic.Pointer[time.Time]     // PostgreSQL: when the last good read of the epoch began
	moved atomic.Pointer[chan struct{}] // closed when the epoch moves on

	mu      sync.Mutex
	unknown int            // guarded by mu: how many commits had an unknown outcome
	working sync.WaitGroup // what Close waits for; added to under mu

	closing context.Context // done when Close begins
	close   context.CancelFunc
	closed  sync.Once

	notices hub

	guarded spec                  // what the schemas declare
	guard   atomic.Pointer[guard] // nil until [DB.Guard]
}

// Open opens the database, creating it if there is none, and brings the
// schemas up to date.
//
// SQLite: nobody else can read the files that it makes, and no second server
// can open them until [DB.Close]. PostgreSQL: other replicas may do the same
// at the same time; a server that could lose what it acknowledged, or that
// only reads, is refused. Run must be running, or else the epoch is unknown
// soon; see [DB.Run].
func Open(ctx context.Context, cfg Config) (*DB, error) {
	var d *DB
	var err error
	switch {
	case cfg.File != "" && cfg.URL != "":
		return nil, errors.New("open database: name a file or a URL, not both")
	case cfg.File != "":
		d, err = openSQLite(cfg)
	case cfg.URL != "":
		d, err = openPostgres(cfg)
	default:
		return nil, errors.New("open database: no file is named, and no URL")
	}
	if err != nil {
		return nil, fmt.Errorf("open database: %w", err)
	}
	for _, s := range cfg.Schemas {
		d.guarded = append(d.guarded, s.Guarded...)
	}
	if err := d.prepare(ctx, cfg.Schemas); err != nil {
		d.Close()
		return nil, fmt.Errorf("open database %s: %w", d.name, err)
	}
	return d, nil
}

// newDB returns what is the same for both engines.
func newDB(name string, dialect Dialect, log *slog.Logger) *DB {
	d := &DB{name: name, dialect: dialect, log: log}
	if log == nil {
		d.log = slog.Default()
	}
	d.closing, d.close = context.WithCancel(context.Background())
	moved := make(chan struct{})
	d.moved.Store(&moved)
	return d
}

// prepare migrates, and learns the epoch.
func (d *DB) prepare(ctx context.Context, schemas []Schema) error {
	if err := d.migrate(ctx, schemas); err != nil {
		return err
	}
	if d.pg != nil {
		return d.readEpoch(ctx, patience)
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
	d.mu.Lock()
	d.close()
	d.mu.Unlock()
	d.working.Wait()
	if d.slot != nil {
		d.slot <- struct{}{} // never given back
	}
	d.doubts(errClosed)
	err := errors.Join(d.reader.Close(), d.writer.Close())
	if d.pg != nil {
		err = errors.Join(err, d.pg.poller.Close())
	}
	if d.lock != nil {
		err = errors.Join(err, release(d.lock))
	}
	return err
}

// start runs f in a goroutine that Close waits for, unless Close has begun.
func (d *DB) start(f func()) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closing.Err() != nil {
		return false
	}
	d.working.Go(f)
	return true
}

// Query reads what is committed.
func (d *DB) Query(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	return d.reader.QueryContext(d.bound(ctx), d.dialect.query(query), args...)
}

// QueryRow reads one row of what is committed.
func (d *DB) QueryRow(ctx context.Context, query string, args ...any) *sql.Row {
	return d.reader.QueryRowContext(d.bound(ctx), d.dialect.query(query), args...)
}

// View runs fn, all of whose queries see the same state of the database.
// PostgreSQL may make it run again.
func (d *DB) View(ctx context.Context, fn func(*Tx) error) error {
	return d.again(ctx, func() error {
		ctx := d.bound(ctx)
		tx, err := d.reader.BeginTx(ctx, &sql.TxOptions{Isolation: d.dialect.view, ReadOnly: true})
		if err != nil {
			return fmt.Errorf("begin: %w", err)
		}
		defer tx.Rollback()
		return fn(&Tx{db: d, tx: tx, limit: d.limit})
	})
}

// Exec executes one statement that is not a change of security state, and
// returns how many rows it changed. When it returns nil they survive a crash.
func (d *DB) Exec(ctx context.Context, query string, args ...any) (n int64, err error) {
	if d.pg == nil {
		err = d.share(ctx, func(tx *Tx) (err error) {
			n, err = tx.Exec(ctx, query, args...)
			return err
		})
		return n, err
	}
	err = d.again(ctx, func() (err error) {
		n, err = affected(d.writer.ExecContext(d.bound(ctx), query, args...))
		return err
	})
	return n, err
}

// Tx runs fn in a transaction, for changes that are not security state. When
// it returns nil they survive a crash; when fn returns an error or panics
// nothing has changed. fn must not use the DB itself to write, which would
// wait for itself.
//
// On SQLite the commit may be shared with others, who wait while fn runs. On
// PostgreSQL fn runs again, a few times at most, if the database
// undid it because of a deadlock or a conflict: what fn does beside the
// transaction must come out the same.
func (d *DB) Tx(ctx context.Context, fn func(*Tx) error) error {
	if d.pg == nil {
		return d.share(ctx, fn)
	}
	return d.again(ctx, func() error {
		_, err := d.transact(ctx, d.limit, func(tx *Tx) error {
			if _, err := tx.Exec(ctx, `SELECT `+limits); err != nil {
				return err
			}
			return fn(tx)
		})
		return err
	})
}

// transact runs fn in a transaction of its own, and reports whether that may
// be committed although there was an error. SQLite: the slot must be taken.
//
// The transaction's context follows the caller's only until the commit begins,
// so that a commit is either not begun or waited for.
func (d *DB) transact(ctx context.Context, limit time.Duration, fn func(*Tx) error) (unknown bool, err error) {
	own, cancel := withLimit(context.WithoutCancel(ctx), limit)
	defer cancel()
	stop := context.AfterFunc(ctx, cancel)
	defer stop()
	tx, err := d.writer.BeginTx(own, nil)
	if err != nil {
		return false, fmt.Errorf("begin: %w", errors.Join(ctx.Err(), err))
	}
	defer tx.Rollback() // after a commit it does nothing
	t := &Tx{db: d, tx: tx, writes: true, limit: limit}
	if err := fn(t); err != nil {
		return false, err
	}
	if ctx.Err() != nil || !stop() {
		return false, fmt.Errorf("before the commit: %w", ctx.Err())
	}
	if err := tx.Commit(); err != nil {
		return true, fmt.Errorf("commit: %w", err)
	}
	d.deliver(t.notices)
	return false, nil
}

// take waits for the right to write.
func (d *DB) take(ctx context.Context) error {
	if d.slot == nil {
		return d.open()
	}
	select {
	case d.slot <- struct{}{}:
		return nil
	case <-d.closing.Done():
		return errClosed
	case <-ctx.Done():
		return fmt.Errorf("wait to write: %w", ctx.Err())
	}
}

func (d *DB) give() {
	if d.slot != nil {
		<-d.slot
	}
}

// open reports whether Close has not begun.
func (d *DB) open() error {
	if d.closing.Err() != nil {
		return errClosed
	}
	return nil
}

// A Tx is a transaction under way.
type Tx struct {
	db      *DB
	tx      *sql.Tx
	writes  bool
	limit   time.Duration  // of one statement; 0: none
	notices []notice       // SQLite: to be delivered after the commit
	change  *guardedChange // nil unless this is a change, and the database is guarded
}

// Exec executes a statement, and returns how many rows it changed.
func (t *Tx) Exec(ctx context.Context, query string, args ...any) (int64, error) {
	t.touch(ctx, query)
	ctx, cancel := withLimit(t.whole(ctx), t.limit)
	defer cancel()
	return affected(t.tx.ExecContext(ctx, t.db.dialect.query(query), args...))
}

// Query reads rows, the transaction's own changes among them.
func (t *Tx) Query(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	t.touch(ctx, query)
	return t.tx.QueryContext(t.bound(ctx), t.db.dialect.query(query), args...)
}

// QueryRow reads one row.
func (t *Tx) QueryRow(ctx context.Context, query string, args ...any) *sql.Row {
	t.touch(ctx, query)
	return t.tx.QueryRowContext(t.bound(ctx), t.db.dialect.query(query), args...)
}

func (t *Tx) bound(ctx context.Context) context.Context {
	return bounded(t.whole(ctx), t.limit)
}

// whole returns a context that does not interrupt a statement of SQLite's in
// the middle, because SQLite could undo the whole transaction for that, in
// which others may have a part. A statement does not begin after ctx's end.
func (t *Tx) whole(ctx context.Context) context.Context {
	if t.db.pg == nil && t.writes && ctx.Err() == nil {
		return context.WithoutCancel(ctx)
	}
	return ctx
}

// bound returns a context that ends when the database has had enough time.
func (d *DB) bound(ctx context.Context) context.Context {
	return bounded(ctx, d.limit)
}

// bounded is [withLimit] for what goes on after the caller has returned, such
// as reading rows: the context ends by its time alone, or with ctx.
func bounded(ctx context.Context, limit time.Duration) context.Context {
	if limit == 0 {
		return ctx
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	context.AfterFunc(ctx, cancel)
	return ctx
}

func withLimit(ctx context.Context, limit time.Duration) (context.Context, context.CancelFunc) {
	if limit == 0 {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, limit)
}

func affected(r sql.Result, err error) (int64, error) {
	if err != nil {
		return 0, err
	}
	return r.RowsAffected()
}

// A Dialect is what differs between databases in otherwise the same SQL.
type Dialect struct {
	Name  string
	Bytes string // the type that BYTES in a migration stands for

	text     string             // the type that TEXT in a migration stands for
	view     sql.IsolationLevel // at which all queries see the same state
	noLocks  bool               // FOR UPDATE and FOR SHARE mean nothing
	packages []Schema           // what it needs of its own
}

// query returns the form of a query for this database.
func (l *Dialect) query(q string) string {
	if l.noLocks {
		q = strings.ReplaceAll(strings.ReplaceAll(q, " FOR UPDATE", ""), " FOR SHARE", "")
	}
	return q
}

// ValidText reports whether every one of texts can be stored and compared with
// in both databases. What cannot is in no row.
func ValidText(texts ...string) bool {
	for _, s := range texts {
		if !utf8.ValidString(s) || strings.IndexByte(s, 0) >= 0 {
			return false
		}
	}
	return true
}
