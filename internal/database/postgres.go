package database

import (
	"context"
	"crypto/rand"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	mathrand "math/rand/v2"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"
)

const (
	// patience is how long PostgreSQL has for one thing: a connection, a
	// statement with its wait for locks, a commit.
	patience = 10 * time.Second

	// limits are the same for the server's side: what a replica holds that is
	// frozen or cut off in the middle of a transaction, above all the lock
	// that puts changes in an order, is let go. A revocation waits that long
	// for it at most, so it is short; nothing but the database is waited for
	// within a transaction. They last for the transaction, so that they pass
	// through a pooler.
	limits = `set_config('statement_timeout', '10s', true), set_config('idle_in_transaction_session_timeout', '800ms', true)`

	// tries is how often what the database undid is tried in all.
	tries = 4

	defaultConnections = 16
)

//go:embed postgresql/migrations/*.sql
var postgresFiles embed.FS

// PostgreSQL is the dialect of the shared database. Text is compared by bytes,
// as SQLite does, which also makes indexes independent of the C library.
var PostgreSQL = Dialect{Name: "PostgreSQL", Bytes: "BYTEA", text: `TEXT COLLATE "C"`, view: sql.LevelRepeatableRead,
	packages: []Schema{{Package: "postgresql", Files: sub(postgresFiles, "postgresql")}}}

func sub(fsys fs.FS, dir string) fs.FS {
	fsys, err := fs.Sub(fsys, dir)
	if err != nil {
		panic(err) // only for a malformed dir
	}
	return fsys
}

func openPostgres(cfg Config) (*DB, error) {
	pool, err := parseURL(cfg.URL, cfg.Replica)
	if err != nil {
		return nil, fmt.Errorf("URL: %w", err)
	}
	listen := pool
	if cfg.ListenURL != "" {
		if listen, err = parseURL(cfg.ListenURL, cfg.Replica); err != nil {
			return nil, fmt.Errorf("listen URL: %w", err)
		}
	}
	d := newDB("PostgreSQL", PostgreSQL, cfg.Log)
	n := cfg.Connections
	if n == 0 {
		n = defaultConnections
	}
	d.limit = patience
	way := new(route)
	d.reader = openPool(pool, way, n)
	d.writer = d.reader
	// A connection of its own, so that the watch goes on when all are in use.
	d.pg = &watched{poller: openPool(pool, way, 1), listen: listen, way: way, wake: make(chan struct{}, 1)}
	return d, nil
}

// parseURL reads the URL. Its errors say nothing that was in it.
func parseURL(raw, replica string) (*pgx.ConnConfig, error) {
	u, err := url.Parse(raw)
	if err != nil || u.Scheme != "postgres" && u.Scheme != "postgresql" {
		return nil, errors.New("must be like postgres://user:password@host:port/database, with special characters of the password as %XX")
	}
	c, err := pgx.ParseConfig(raw)
	if err != nil {
		return nil, errors.New(redacted(err.Error(), raw, u))
	}
	// Unless the route is known to be direct, statements are parsed, bound and
	// executed in one message, and nothing of them stays in the session, which
	// the next transaction may not have.
	c.DefaultQueryExecMode = pgx.QueryExecModeExec
	c.StatementCacheCapacity, c.DescriptionCacheCapacity = 0, 0
	if c.ConnectTimeout == 0 {
		c.ConnectTimeout = patience / 2
	}
	if c.RuntimeParams["application_name"] == "" {
		c.RuntimeParams["application_name"] = strings.TrimSuffix("mandate/"+replica, "/")
	}
	several := slices.ContainsFunc(c.Fallbacks, func(f *pgconn.FallbackConfig) bool { return f.Host != c.Host || f.Port != c.Port })
	if several && c.ValidateConnect == nil {
		c.ValidateConnect = pgconn.ValidateConnectTargetSessionAttrsReadWrite // of several servers, the primary
	}
	return c, nil
}

// redacted returns text without the URL and without passwords.
func redacted(text, raw string, u *url.URL) string {
	hide := []string{raw}
	if p, ok := u.User.Password(); ok {
		hide = append(hide, p, url.QueryEscape(p), url.PathEscape(p))
		if _, escaped, ok := strings.Cut(u.User.String(), ":"); ok {
			hide = append(hide, escaped)
		}
	}
	for _, name := range []string{"password", "sslpassword"} {
		if p := u.Query().Get(name); p != "" {
			hide = append(hide, p, url.QueryEscape(p))
		}
	}
	for _, h := range hide {
		if h != "" {
			text = strings.ReplaceAll(text, h, "xxxxx")
		}
	}
	return text
}

func openPool(c *pgx.ConnConfig, way *route, n int) *sql.DB {
	after := func(ctx context.Context, c *pgx.Conn) error { return check(ctx, c, way) }
	db := stdlib.OpenDB(*c, stdlib.OptionBeforeConnect(way.prepare), stdlib.OptionAfterConnect(after), stdlib.OptionResetSession(way.reset))
	db.SetMaxOpenConns(n)
	db.SetMaxIdleConns(n)
	db.SetConnMaxIdleTime(5 * time.Minute)
	db.SetConnMaxLifetime(time.Hour)
	return db
}

// check refuses a server that could lose what it acknowledges, or that cannot
// store it. Every connection is checked, because after a failover it may lead
// to another server.
func check(ctx context.Context, c *pgx.Conn, way *route) error {
	var s server
	var process uint32
	err := c.QueryRow(ctx, `SELECT current_setting('server_version_num'), current_setting('synchronous_commit'), current_setting('fsync'),
		current_setting('server_encoding'), pg_is_in_recovery(), current_setting('transaction_read_only'), pg_backend_pid()`).
		Scan(&s.version, &s.commit, &s.fsync, &s.encoding, &s.standby, &s.readOnly, &process)
	if err != nil {
		err = fmt.Errorf("ask the server for its settings: %w", err)
	} else {
		err = s.check()
	}
	if err == nil {
		err = way.learn(c, process)
	}
	if err != nil {
		c.Close(ctx) // nobody else does
	}
	return err
}

// A server is what is asked of one.
type server struct {
	version, commit, fsync, encoding, readOnly string
	standby                                    bool
}

var errReadOnly = errors.New("the server only reads")

func (s *server) check() error {
	version, err := strconv.Atoi(s.version)
	switch {
	case err != nil || version < 130000:
		return fmt.Errorf("the server is PostgreSQL %d, and version 13 or later is needed", version/10000)
	case s.standby:
		return fmt.Errorf("%w: it is a standby; name the primary, or all servers with target_session_attrs=read-write", errReadOnly)
	case s.readOnly != "off":
		return fmt.Errorf("%w: default_transaction_read_only is on", errReadOnly)
	case s.commit != "on" && s.commit != "remote_apply":
		return fmt.Errorf("synchronous_commit is %s, with which a revocation could be lost after it was acknowledged: "+
			"ALTER ROLE … SET synchronous_commit = on (or remote_apply)", s.commit)
	case s.fsync != "on":
		return errors.New("fsync is off, with which a crash can lose everything: set it to on in postgresql.conf")
	case s.encoding != "UTF8":
		return fmt.Errorf("the database's encoding is %s, and must be UTF8: CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0", s.encoding)
	}
	return nil
}

// again runs do until it is not undone because of somebody else at the same
// time; a few times at most.
func (d *DB) again(ctx context.Context, do func() error) error {
	for try := 1; ; try++ {
		err := do()
		if try == tries || !undone(err) && (d.pg == nil || !d.pg.way.misled(err)) {
			return err
		}
		select {
		case <-time.After(jitter(time.Duration(try) * 10 * time.Millisecond)):
		case <-ctx.Done():
			return err
		}
	}
}

// undone reports whether PostgreSQL undid everything for a reason that is gone
// when it is tried again: a conflict, a deadlock, or that several created the
// same at once.
func undone(err error) bool {
	var e *pgconn.PgError
	if !errors.As(err, &e) {
		return false
	}
	switch e.Code {
	case "40001", "40P01", "42710", "42P07": // the last two are of a table and its type
		return true
	case "23505": // of a table that somebody else creates
		return e.SchemaName == "pg_catalog"
	}
	return false
}

// jitter returns between half of d and one and a half.
func jitter(d time.Duration) time.Duration { return d/2 + mathrand.N(d+1) }

// nonce returns what nobody else says.
func nonce() string { return rand.Text() }
