package database

import (
	"context"
	"database/sql/driver"
	"errors"
	"sync/atomic"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// A route is the way of a URL to PostgreSQL: to the server itself, or through
// a pooler, where consecutive transactions may run in different sessions, and
// what one has prepared the next may lack. On the direct way each connection
// keeps the statements that it has prepared, because parsing and planning them
// costs the server several times what executing them does.
//
// Nobody has to say which it is. Of a direct connection the process ID that
// the server names at first is that of the session's own process; a pooler
// makes one up. A route that once led through a pooler is never again taken to
// be direct.
type route struct{ is atomic.Int32 }

const (
	unknown int32 = iota
	direct
	pooled
	strayed // pooled, and was direct: some connections may still prepare
)

// prepare decides how a connection that is about to be made executes.
func (r *route) prepare(_ context.Context, c *pgx.ConnConfig) error {
	if r.is.Load() == direct {
		c.DefaultQueryExecMode, c.StatementCacheCapacity = pgx.QueryExecModeCacheStatement, maxStatements
	}
	return nil
}

// learn finds out which way a new connection took. The error makes database/sql
// make another, which then executes as it should.
func (r *route) learn(c *pgx.Conn, process uint32) error {
	prepares := c.Config().DefaultQueryExecMode == pgx.QueryExecModeCacheStatement
	if c.PgConn().PID() != process {
		r.is.CompareAndSwap(unknown, pooled)
		r.is.CompareAndSwap(direct, strayed)
	} else {
		r.is.CompareAndSwap(unknown, direct)
	}
	if prepares != (r.is.Load() == direct) {
		return driver.ErrBadConn
	}
	return nil
}

// reset gives up connections that prepare when the route turned out not to be
// direct.
func (r *route) reset(_ context.Context, c *pgx.Conn) error {
	if r.is.Load() == strayed && c.Config().DefaultQueryExecMode == pgx.QueryExecModeCacheStatement {
		return driver.ErrBadConn
	}
	return nil
}

// misled reports whether a prepared statement was not there, or was there
// already: a pooler passes on the process ID of a session that it then
// changes. The statement has done nothing, and is right without preparing.
func (r *route) misled(err error) bool {
	var e *pgconn.PgError
	if !errors.As(err, &e) || e.Code != "26000" && e.Code != "42P05" {
		return false
	}
	r.is.Store(strayed)
	return true
}
