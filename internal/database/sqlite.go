package database

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"runtime"
	"sync"
	"time"

	"modernc.org/sqlite"
)

// SQLite is the dialect of the embedded database.
var SQLite = Dialect{Name: "SQLite", Bytes: "BLOB", text: "TEXT", noLocks: true}

func openSQLite(cfg Config) (*DB, error) {
	lock, err := claim(cfg.File)
	if err != nil {
		return nil, err
	}
	written := durably
	if cfg.Derived {
		written = derived
	}
	d, err := connectAs(cfg.File, written)
	if err != nil {
		lock.Close()
		return nil, fmt.Errorf("%s: %w", cfg.File, err)
	}
	d.lock = lock
	return d, nil
}

// How a file is written: every commit is synced to the disk before it returns;
// but not one of what can be made again, and since most of what a random insert
// into a large index costs is writing the page, pages wait longer there.
const (
	durably = "&_synchronous=FULL"
	derived = "&_synchronous=NORMAL&_pragma=cache_size(-65536)&_pragma=wal_autocheckpoint(16384)" // KiB, pages
)

// connect opens the file, which must exist, as one writer and several readers.
func connect(file string) (*DB, error) { return connectAs(file, durably) }

func connectAs(file, written string) (*DB, error) {
	if err := registerClock(); err != nil {
		return nil, err
	}
	writer, err := openSource(source(file, "_txlock=immediate"+written))
	if err != nil {
		return nil, err
	}
	writer.SetMaxOpenConns(1)
	reader, err := openSource(source(file, "_query_only=1"+durably))
	if err != nil {
		writer.Close()
		return nil, err
	}
	n := max(4, runtime.GOMAXPROCS(0))
	reader.SetMaxOpenConns(n)
	reader.SetMaxIdleConns(n)
	d := newDB(file, SQLite, nil)
	d.reader, d.writer, d.slot = reader, writer, make(chan struct{}, 1)
	return d, nil
}

func openSource(source string) (*sql.DB, error) {
	c, err := sqlite.NewConnector(source)
	if err != nil {
		return nil, err
	}
	return sql.OpenDB(connector{c}), nil
}

// registerClock makes now_ms() known to every connection. The clock is this
// process's, which is the only one.
var registerClock = sync.OnceValue(func() error {
	return sqlite.RegisterScalarFunction("now_ms", 0, func(*sqlite.FunctionContext, []driver.Value) (driver.Value, error) {
		return time.Now().UnixMilli(), nil
	})
})

// source returns SQLite's name for the file. Pages are overwritten with zeros
// when what they held is deleted; mode=rw leaves the creation of the file, and
// so its permissions, to us.
func source(file, option string) string {
	if abs, err := filepath.Abs(file); err == nil {
		file = abs
	}
	u := url.URL{Scheme: "file", Path: file}
	return u.String() + "?mode=rw&_busy_timeout=5000&_journal_mode=WAL&_foreign_keys=1&_defensive=1&_dqs=0" +
		"&_pragma=secure_delete(1)&" + option
}

// Scrub takes what was overwritten or deleted out of the files as far as the
// database can: it moves everything committed from the write-ahead log into
// the main file, where deleted bytes are zeroed, and empties the log. Copies
// made by the file system, the disk or a backup are out of its reach.
//
// With PostgreSQL it does nothing: what was overwritten there goes when
// VACUUM takes the dead rows, and the write-ahead log is the server's.
func (d *DB) Scrub(ctx context.Context) error {
	if d.pg != nil {
		return d.open()
	}
	if err := d.take(ctx); err != nil {
		return err
	}
	defer d.give()
	c, err := d.writer.Conn(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	// It waits for readers of an older state, and writers wait for it.
	if _, err := c.ExecContext(ctx, `PRAGMA busy_timeout = 250`); err != nil {
		return err
	}
	defer c.ExecContext(context.WithoutCancel(ctx), `PRAGMA busy_timeout = 5000`)
	var busy, pages, moved int64
	if err := c.QueryRowContext(ctx, `PRAGMA wal_checkpoint(TRUNCATE)`).Scan(&busy, &pages, &moved); err != nil {
		return fmt.Errorf("empty the write-ahead log: %w", err)
	}
	if busy != 0 {
		return errors.New("empty the write-ahead log: somebody is reading; it will be emptied later")
	}
	return nil
}
