package database

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"math"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mandate-sam/mandate/internal/pgtest"
)

// answered is what came of a call, and in which transaction.
type answered struct {
	transaction, quotient int64
	text                  sql.NullString
	bytes                 []byte
}

// quotients divides 100 by the first argument, returns the others, and notes
// that it did. It waits for the gate, unless the first argument is negative.
const quotients = `opened AS MATERIALIZED (SELECT count(*) FROM (SELECT 1 FROM notes WHERE id = -1 AND NOT EXISTS (SELECT 1 FROM calls WHERE $1 < 0) FOR SHARE) g),
	noted AS (INSERT INTO notes (id, body) SELECT $1, $3 FROM calls, opened ON CONFLICT (id) DO NOTHING)
	SELECT txid_current(), 100 / $1, $2, $3 FROM calls, opened ORDER BY n`

func scanAnswered(row Scan) (a answered, err error) {
	err = row(&a.transaction, &a.quotient, &a.text, &a.bytes)
	return a, err
}

// gathering returns quotients, whose calls gather, and a gate that is open.
func gathering(t *testing.T, cfg Config) (*DB, *Gathering[answered], *gate) {
	d := open(t, cfg, notes())
	if _, err := d.Exec(t.Context(), `INSERT INTO notes (id) VALUES (-1)`); err != nil {
		t.Fatal(err)
	}
	g := Gather(d, quotients, scanAnswered, "bigint", "text", "bytea")
	g.slow = time.Hour
	other := open(t, cfg, notes())
	return d, g, &gate{t: t, db: other.writer}
}

// A gate is a lock for which quotients waits.
type gate struct {
	t  *testing.T
	db *sql.DB
	tx *sql.Tx
}

func (g *gate) shut() {
	tx, err := g.db.BeginTx(context.WithoutCancel(g.t.Context()), nil)
	if err == nil {
		_, err = tx.Exec(`UPDATE notes SET body = '' WHERE id = -1`)
	}
	if err != nil {
		g.t.Fatal(err)
	}
	g.tx = tx
	g.t.Cleanup(g.open)
}

func (g *gate) open() { _ = g.tx.Rollback() }

// waiting returns how many calls of g wait to be sent, and how many statements
// are under way.
func (g *Gathering[T]) standing() (waiting, flying int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.waiting), g.flying
}

func (g *Gathering[T]) await(t *testing.T, waiting, flying int) {
	t.Helper()
	soon(t, "calls gather", func() bool { w, f := g.standing(); return w == waiting && f == flying })
}

// TestGather: calls that come while one is under way are one statement, and
// each gets what is its own.
func TestGather(t *testing.T) {
	t.Run("PostgreSQL", func(t *testing.T) { testGather(t, Config{URL: pgtest.Shared(t).Database(t)}) })
	t.Run("pooler", func(t *testing.T) {
		testGather(t, Config{URL: pgtest.Shared(t).Pooler(t, pgtest.Shared(t).Database(t))})
	})
}

func testGather(t *testing.T, cfg Config) {
	_, g, gate := gathering(t, cfg)
	awkward := []string{"", `\x00`, `{a,"b"}`, "NULL", "é'\\"}
	for range 2 {
		gate.shut()
		var wg sync.WaitGroup
		var together atomic.Int64
		call := func(divisor int64, text string, b []byte) {
			wg.Go(func() {
				a, err := g.Do(t.Context(), divisor, text, b)
				if err != nil || a.quotient != 100/divisor || a.text.String != text || !bytes.Equal(a.bytes, b) || (a.bytes == nil) != (b == nil) {
					t.Errorf("%d, %q, %q: got %+v, %v", divisor, text, b, a, err)
				}
				if divisor == 1 {
					return
				}
				if before := together.Swap(a.transaction); before != 0 && before != a.transaction {
					t.Errorf("%d was executed by itself", divisor)
				}
			})
		}
		call(1, "first", nil)
		g.await(t, 0, 1)
		for i := range int64(maxGathered) {
			b := []byte{byte(i), 0, '\\'}
			if i%7 == 0 {
				b = nil
			}
			call(i+2, awkward[int(i)%len(awkward)], b)
		}
		g.await(t, maxGathered, 1)
		gate.open()
		wg.Wait()
		g.await(t, 0, 0)
	}
}

// TestGatherAtOnce: a call by itself waits for nobody.
func TestGatherAtOnce(t *testing.T) {
	_, g, _ := gathering(t, Config{URL: pgtest.Shared(t).Database(t)})
	for i := range int64(3) {
		if a, err := g.Do(t.Context(), i+1, "", []byte(nil)); err != nil || a.quotient != 100/(i+1) {
			t.Errorf("got %+v, %v", a, err)
		}
	}
}

// TestGatherTooMany: what is more than a statement takes is in the next.
func TestGatherTooMany(t *testing.T) {
	_, g, gate := gathering(t, Config{URL: pgtest.Shared(t).Database(t)})
	gate.shut()
	var wg sync.WaitGroup
	var mu sync.Mutex
	sizes := make(map[int64]int)
	call := func() {
		wg.Go(func() {
			a, err := g.Do(t.Context(), int64(2), "", []byte(nil))
			if err != nil {
				t.Error(err)
			}
			mu.Lock()
			defer mu.Unlock()
			sizes[a.transaction]++
		})
	}
	call()
	g.await(t, 0, 1)
	for range maxGathered + 3 {
		call()
	}
	g.await(t, maxGathered+3, 1)
	gate.open()
	wg.Wait()
	var got [maxGathered + 4]int
	for _, n := range sizes {
		got[n]++
	}
	if len(sizes) != 3 || got[1] != 1 || got[3] != 1 || got[maxGathered] != 1 {
		t.Errorf("statements of %v calls", sizes)
	}
}

// TestGatherRefused: what the server does not take of one call is that one's
// error alone.
func TestGatherRefused(t *testing.T) {
	d, g, gate := gathering(t, Config{URL: pgtest.Shared(t).Database(t)})
	gate.shut()
	var wg sync.WaitGroup
	wg.Go(func() { _, _ = g.Do(t.Context(), int64(1), "", []byte(nil)) })
	g.await(t, 0, 1)
	for divisor := range int64(4) {
		wg.Go(func() {
			if _, err := g.Do(t.Context(), divisor, "", []byte(nil)); (err == nil) != (divisor != 0) {
				t.Errorf("100 / %d: %v", divisor, err)
			}
		})
	}
	g.await(t, 4, 1)
	gate.open()
	wg.Wait()
	if n := count(t, d); n != 4 {
		t.Errorf("%d rows, want those of 1, 2 and 3, and the gate", n)
	}
}

// TestGatherGivenUp: whoever gives up has an answer at once, what was not sent
// is not sent any more, and a statement that nobody wants is ended.
func TestGatherGivenUp(t *testing.T) {
	d, g, gate := gathering(t, Config{URL: pgtest.Shared(t).Database(t)})
	d.limit = time.Hour
	gate.shut()
	ctx, giveUp := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	call := func(divisor int64) {
		wg.Go(func() {
			if _, err := g.Do(ctx, divisor, "", []byte(nil)); !errors.Is(err, context.Canceled) {
				t.Errorf("%d: %v, want that it was cancelled", divisor, err)
			}
		})
	}
	call(1)
	g.await(t, 0, 1)
	call(2)
	g.await(t, 1, 1)
	giveUp()
	wg.Wait()
	g.await(t, 0, 0) // though the gate is shut
	gate.open()
	if _, err := g.Do(t.Context(), int64(3), "", []byte(nil)); err != nil {
		t.Error(err)
	}
	// The server may finish what it has begun.
	var n int
	if err := d.QueryRow(t.Context(), `SELECT count(*) FROM notes WHERE id = 2`).Scan(&n); err != nil || n > 0 {
		t.Errorf("2 was sent although it had given up: %v", err)
	}
}

// TestGatherOneGivesUp: the others of a statement get theirs.
func TestGatherOneGivesUp(t *testing.T) {
	d, g, gate := gathering(t, Config{URL: pgtest.Shared(t).Database(t)})
	gate.shut()
	ctx, giveUp := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	g.flying, g.latest = 1, time.Now()
	call := func(ctx context.Context, want error) {
		wg.Go(func() {
			if a, err := g.Do(ctx, int64(4), "", []byte(nil)); !errors.Is(err, want) || err == nil && a.quotient != 25 {
				t.Errorf("got %+v, %v; want %v", a, err, want)
			}
		})
	}
	call(ctx, context.Canceled)
	call(t.Context(), nil)
	g.await(t, 2, 1)
	d.start(g.fly)
	g.await(t, 0, 1)
	giveUp()
	gate.open()
	wg.Wait()
}

// TestGatherGivenUpBefore: what is not wanted any more is not sent with what is.
func TestGatherGivenUpBefore(t *testing.T) {
	d, g, _ := gathering(t, Config{URL: pgtest.Shared(t).Database(t)})
	g.flying, g.latest = 1, time.Now()
	ctx, giveUp := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		if _, err := g.Do(ctx, int64(5), "", []byte(nil)); !errors.Is(err, context.Canceled) {
			t.Errorf("given up: %v", err)
		}
	})
	g.await(t, 1, 1)
	giveUp()
	wg.Wait()
	wg.Go(func() {
		if a, err := g.Do(t.Context(), int64(10), "", []byte(nil)); err != nil || a.quotient != 10 {
			t.Errorf("got %+v, %v", a, err)
		}
	})
	g.await(t, 2, 1)
	d.start(g.fly)
	wg.Wait()
	if n := count(t, d); n != 2 {
		t.Errorf("%d rows, want that of 10, and the gate", n)
	}
}

// TestGatherSlow: a statement that takes long is not waited for, however many
// do; but there is an end to that.
func TestGatherSlow(t *testing.T) {
	_, g, gate := gathering(t, Config{URL: pgtest.Shared(t).Database(t)})
	gate.shut()
	g.slow = 0
	var wg sync.WaitGroup
	call := func(divisor int64) {
		wg.Go(func() {
			if _, err := g.Do(t.Context(), divisor, "", []byte(nil)); err != nil {
				t.Error(err)
			}
		})
	}
	for i := range maxFlying - 1 {
		call(1)
		g.await(t, 0, i+1)
	}
	if a, err := g.Do(t.Context(), int64(-2), "", []byte(nil)); err != nil || a.quotient != -50 {
		t.Errorf("behind slow ones: %+v, %v", a, err)
	}
	g.await(t, 0, maxFlying-1)
	call(1)
	g.await(t, 0, maxFlying)
	call(1)
	g.await(t, 1, maxFlying)
	gate.open()
	wg.Wait()
	g.await(t, 0, 0)
}

// TestGatherAgain: what was undone because of somebody else is tried again.
func TestGatherAgain(t *testing.T) {
	d := open(t, Config{URL: pgtest.Shared(t).Database(t)}, notes("002_tries.sql", `CREATE SEQUENCE tries`))
	g := Gather(d, `x AS MATERIALIZED (SELECT CASE WHEN nextval('tries') < 3 THEN undo() END AS done) SELECT 1, $1, done::text, NULL FROM calls, x`, scanAnswered, "bigint")
	if a, err := g.Do(t.Context(), int64(7)); err != nil || a.quotient != 7 {
		t.Errorf("got %+v, %v", a, err)
	}
}

// TestGatherRows: a query that does not return a row for each call answers
// none of them.
func TestGatherRows(t *testing.T) {
	d := open(t, Config{URL: pgtest.Shared(t).Database(t)}, notes())
	for _, query := range []string{
		`x AS (SELECT 1) SELECT 1, 1, '', ''::bytea FROM calls WHERE $1 = 0`,
		`x AS (SELECT 1) SELECT 1, 1, '', ''::bytea FROM calls, generate_series(1, 2)`,
	} {
		if _, err := Gather(d, query, scanAnswered, "bigint").Do(t.Context(), int64(1)); !errors.Is(err, errRows) {
			t.Errorf("%s: %v", query, err)
		}
	}
	wrong := errors.New("wrong")
	g := Gather(d, `x AS (SELECT 1) SELECT $1 FROM calls`, func(Scan) (int, error) { return 0, wrong }, "bigint")
	if _, err := g.Do(t.Context(), int64(math.MaxInt64)); !errors.Is(err, wrong) {
		t.Errorf("a row that cannot be scanned: %v", err)
	}
	d.Close()
	if _, err := g.Do(t.Context(), int64(1)); !errors.Is(err, errClosed) {
		t.Errorf("a closed database: %v", err)
	}
}
