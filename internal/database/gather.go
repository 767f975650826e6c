package database

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

const (
	// maxGathered is how many calls one statement executes at most.
	maxGathered = 64

	// While a statement of a [Gathering] is under way calls gather; but one
	// that takes longer than slowFlight is not waited for, and another goes,
	// up to maxFlying at once.
	slowFlight = 50 * time.Millisecond
	maxFlying  = 8
)

// A Gathering is a statement that executes the calls of many callers together,
// of which each gets a T: to PostgreSQL a row more is little beside a statement
// more, with its exchange and its wait for the disk. A call does not wait for
// others to come: it is sent at once, unless another is under way.
type Gathering[T any] struct {
	db    *DB
	query string
	scan  func(row Scan) (T, error)
	slow  time.Duration // slowFlight

	mu      sync.Mutex
	waiting []*gathered[T] // guarded by mu
	flying  int            // guarded by mu
	latest  time.Time      // guarded by mu: when a statement was last begun
}

// A Scan scans a row.
type Scan func(dest ...any) error

// A gathered call is one of several in a statement.
type gathered[T any] struct {
	ctx    context.Context
	args   []any
	result T
	done   chan error
}

// Gather returns what gathers the calls of a query in PostgreSQL. Their
// arguments are columns of a table calls, of the types given, which are
// "bigint", "text" and "bytea"; n numbers them. The query begins behind WITH,
// and where it has $1, $2 and so on, those columns are meant. It returns one
// row for each call, in the order of n, of which scan makes what the call gets.
//
// It must not wait for locks, since all would wait that one of the calls waits
// for; what FOR UPDATE SKIP LOCKED leaves out its row tells, and its caller
// goes another way.
func Gather[T any](d *DB, query string, scan func(row Scan) (T, error), types ...string) *Gathering[T] {
	columns, arrays := make([]string, len(types)), make([]string, len(types))
	for i, t := range types {
		columns[i] = argument.ReplaceAllString("$"+strconv.Itoa(i+1), column)
		arrays[i] = fmt.Sprintf("$%d::%s[] AS %s", i+1, t, columns[i])
	}
	names := strings.Join(columns, ", ")
	// If the planner saw the arrays it would count them, and plan anew each
	// time, which costs more than executing.
	calls := fmt.Sprintf(`WITH arrays AS MATERIALIZED (SELECT %s),
		calls AS MATERIALIZED (SELECT u.* FROM arrays, unnest(%s) WITH ORDINALITY AS u (%s, n)), `, strings.Join(arrays, ", "), names, names)
	return &Gathering[T]{db: d, query: calls + argument.ReplaceAllString(query, column), scan: scan, slow: slowFlight}
}

// argument is how a query names an argument, and column what that is in calls.
var argument = regexp.MustCompile(`\$([0-9]+)`)

const column = "arg$1"

// Do executes one call, together with others. The arguments are each an int64,
// a string or a []byte, of which nil is NULL. When it returns no error what was
// written survives a crash, unless the statement says otherwise. After an error
// it is not known whether anything was.
func (g *Gathering[T]) Do(ctx context.Context, args ...any) (T, error) {
	c := &gathered[T]{ctx: ctx, args: args, done: make(chan error, 1)}
	var none T
	if !g.add(c) {
		return none, errClosed
	}
	select {
	case err := <-c.done:
		return c.result, err
	case <-ctx.Done():
		return none, ctx.Err()
	}
}

// add lets c wait, and sees to it that somebody executes it.
func (g *Gathering[T]) add(c *gathered[T]) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.flying == 0 || g.flying < maxFlying && time.Since(g.latest) >= g.slow {
		if !g.db.start(g.fly) {
			return false
		}
		g.flying++
		g.latest = time.Now()
	}
	g.waiting = append(g.waiting, c)
	return true
}

// fly executes until nothing waits.
func (g *Gathering[T]) fly() {
	for {
		calls := g.next()
		if len(calls) == 0 {
			return
		}
		err := g.execute(calls)
		var refused *pgconn.PgError
		if len(calls) > 1 && errors.As(err, &refused) {
			// All of it was undone, and perhaps because of one of them.
			for i := range calls {
				calls[i].done <- g.execute(calls[i : i+1])
			}
			continue
		}
		for _, c := range calls {
			c.done <- err
		}
	}
}

// next takes what waits and is still wanted. If there is nothing, the flight is
// over.
func (g *Gathering[T]) next() []*gathered[T] {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.waiting = slices.DeleteFunc(g.waiting, func(c *gathered[T]) bool { return c.ctx.Err() != nil })
	n := min(len(g.waiting), maxGathered)
	if n == 0 {
		g.flying--
	}
	g.latest = time.Now()
	calls := g.waiting[:n:n]
	g.waiting = g.waiting[n:]
	return calls
}

// execute executes calls in one statement, unless all who made them give up.
func (g *Gathering[T]) execute(calls []*gathered[T]) error {
	whole, cancel := context.WithCancel(context.Background())
	defer cancel()
	var left atomic.Int64
	left.Store(int64(len(calls)))
	for _, c := range calls {
		stop := context.AfterFunc(c.ctx, func() {
			if left.Add(-1) == 0 {
				cancel()
			}
		})
		defer stop()
	}
	args := columnsOf(calls)
	return g.db.again(whole, func() error {
		ctx, cancel := withLimit(whole, g.db.limit)
		defer cancel()
		rows, err := g.db.writer.QueryContext(ctx, g.query, args...)
		if err != nil {
			return err
		}
		defer rows.Close()
		return g.read(rows, calls)
	})
}

var errRows = errors.New("a statement for several calls returned another number of rows")

// read reads a row for each call. After the last comes how the commit went.
func (g *Gathering[T]) read(rows *sql.Rows, calls []*gathered[T]) (err error) {
	for _, c := range calls {
		if !rows.Next() {
			return errors.Join(rows.Err(), errRows)
		}
		if c.result, err = g.scan(rows.Scan); err != nil {
			return fmt.Errorf("scan: %w", err)
		}
	}
	if rows.Next() {
		return errRows
	}
	return rows.Err()
}

// columnsOf returns the arguments of all calls, an array for each.
func columnsOf[T any](calls []*gathered[T]) []any {
	columns := make([]any, len(calls[0].args))
	for i, arg := range calls[0].args {
		switch arg.(type) {
		case int64:
			columns[i] = columnOf[int64](calls, i)
		case string:
			columns[i] = columnOf[string](calls, i)
		default:
			columns[i] = columnOf[[]byte](calls, i)
		}
	}
	return columns
}

func columnOf[A, T any](calls []*gathered[T], i int) []A {
	all := make([]A, len(calls))
	for j, c := range calls {
		all[j] = c.args[i].(A)
	}
	return all
}
