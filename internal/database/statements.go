package database

import (
	"context"
	"database/sql/driver"
	"errors"
	"strconv"
	"strings"
)

// maxStatements is how many prepared statements each connection to SQLite
// keeps. The program has fewer queries than that; what comes when they are
// full is prepared each time.
const maxStatements = 256

// A connector opens connections to SQLite that keep the statements they have
// prepared: preparing costs several times what executing does. SQLite prepares
// a statement anew by itself when the schema has changed.
type connector struct{ driver.Connector }

// Connect implements [driver.Connector].
func (c connector) Connect(ctx context.Context) (driver.Conn, error) {
	opened, err := c.Connector.Connect(ctx)
	if err != nil {
		return nil, err
	}
	inner, ok := opened.(sqliteConn)
	if !ok {
		return nil, errors.Join(errors.New("the driver lacks what is needed to keep statements"), opened.Close())
	}
	return &keeper{sqliteConn: inner, all: make(map[string]*statement)}, nil
}

// sqliteConn is what database/sql looks for in a connection.
type sqliteConn interface {
	driver.Conn
	driver.ConnBeginTx
	driver.ConnPrepareContext
	driver.ExecerContext
	driver.Pinger
	driver.QueryerContext
	driver.SessionResetter
	driver.Validator
}

// A keeper is one connection and its statements. As with every connection, one
// goroutine at a time uses it.
type keeper struct {
	sqliteConn
	all map[string]*statement // by query
}

// A statement is prepared. While the rows of a query are being read it cannot
// be used a second time.
type statement struct {
	driver.Stmt
	busy bool
}

// ExecContext implements [driver.ExecerContext].
func (k *keeper) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	s, err := k.statement(ctx, query)
	if err != nil {
		return nil, err
	}
	if s == nil {
		return k.sqliteConn.ExecContext(ctx, query, args)
	}
	return s.Stmt.(driver.StmtExecContext).ExecContext(ctx, args)
}

// QueryContext implements [driver.QueryerContext].
func (k *keeper) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	s, err := k.statement(ctx, query)
	if err != nil {
		return nil, err
	}
	if s == nil {
		return k.sqliteConn.QueryContext(ctx, query, args)
	}
	rows, err := s.Stmt.(driver.StmtQueryContext).QueryContext(ctx, args)
	if err != nil {
		return nil, err
	}
	s.busy = true
	return &reading{rows, s}, nil
}

// statement returns the prepared statement for a query, or nil if it is not
// one to keep: what is not of a kind that is executed again and again may be
// several statements, or large.
func (k *keeper) statement(ctx context.Context, query string) (*statement, error) {
	s := k.all[query]
	switch {
	case s != nil && s.busy:
		return nil, nil
	case s != nil:
		return s, nil
	case len(k.all) >= maxStatements || !keeps(query):
		return nil, nil
	}
	prepared, err := k.PrepareContext(ctx, anonymous(query))
	if err != nil {
		return nil, err
	}
	s = &statement{Stmt: prepared}
	k.all[query] = s
	return s, nil
}

// anonymous writes ? for $1, $2 and so on where all are there once and in that
// order, which means the same. SQLite looks for a parameter's name among all
// names, so binding thousands of them would take the square of that.
func anonymous(query string) string {
	var b strings.Builder
	rest, quotes := query, 0
	for n := 1; ; n++ {
		before, after, found := strings.Cut(rest, "$")
		b.WriteString(before)
		if !found {
			return b.String()
		}
		quotes += strings.Count(before, "'")
		after, ok := strings.CutPrefix(after, strconv.Itoa(n))
		if !ok || quotes%2 == 1 || after != "" && after[0] >= '0' && after[0] <= '9' || strings.Contains(before, "?") {
			return query
		}
		b.WriteByte('?')
		rest = after
	}
}

func keeps(query string) bool {
	verb, _, _ := strings.Cut(query, " ")
	switch verb {
	case "SELECT", "INSERT", "UPDATE", "DELETE", "WITH", "SAVEPOINT", "RELEASE", "ROLLBACK":
		return !strings.Contains(query, ";")
	}
	return false
}

// Close implements [driver.Conn].
func (k *keeper) Close() error {
	for _, s := range k.all {
		s.Close()
	}
	clear(k.all)
	return k.sqliteConn.Close()
}

// reading is the rows of a statement until they are closed.
type reading struct {
	driver.Rows
	of *statement
}

// Close implements [driver.Rows].
func (r *reading) Close() error {
	r.of.busy = false
	return r.Rows.Close()
}
