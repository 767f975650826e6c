package database

import (
	"sync"
	"testing"

	"github.com/mandate-sam/mandate/internal/pgtest"
)

// session returns how many statements are prepared in a session, and a
// setting of it that transactions change for themselves.
func session(t *testing.T, d *DB) (statements int, timeout string) {
	t.Helper()
	err := d.QueryRow(t.Context(), `SELECT (SELECT count(*) FROM pg_prepared_statements), current_setting('statement_timeout')`).Scan(&statements, &timeout)
	if err != nil {
		t.Fatal(err)
	}
	return statements, timeout
}

// TestNothingStaysInTheSession, so that a pooler may hand out another one. Only
// statements do where there is no pooler.
func TestNothingStaysInTheSession(t *testing.T) {
	c := pgtest.Shared(t)
	url := c.Database(t)
	for _, tt := range []struct {
		url  string
		way  int32
		many bool
	}{{url, direct, true}, {c.Pooler(t, url), pooled, false}} {
		d := running(t, Config{URL: tt.url, Connections: 1})
		for range 10 {
			count(t, d)
			if err := d.Tx(t.Context(), func(tx *Tx) error { return nil }); err != nil {
				t.Fatal(err)
			}
		}
		if n, timeout := session(t, d); (n > 0) != tt.many || timeout != "0" || d.pg.way.is.Load() != tt.way {
			t.Errorf("%s: %d prepared statements, statement_timeout %s, route %d", tt.url, n, timeout, d.pg.way.is.Load())
		}
	}
}

// TestRouteThatChanges: a pooler is put in between while there are connections,
// and then one that is not to be recognized.
func TestRouteThatChanges(t *testing.T) {
	c := pgtest.Shared(t)
	url := c.Database(t)
	d := running(t, Config{URL: c.Pooler(t, url)})
	d.pg.way.is.Store(direct) // as if it had been
	var all sync.WaitGroup
	for id := range 40 {
		all.Go(func() { add(t, d, id) })
	}
	all.Wait()
	if got, way := count(t, d), d.pg.way.is.Load(); got != 40 || way != strayed {
		t.Errorf("%d rows, want 40; route %d, want %d", got, way, strayed)
	}
	d = running(t, Config{URL: url, Connections: 1})
	add(t, d, 40)
	for _, query := range []string{`DEALLOCATE ALL`, `UPDATE notes SET body = NULL`} {
		if _, err := d.Exec(t.Context(), query); err != nil {
			t.Errorf("%s: %v", query, err)
		}
	}
	add(t, d, 41)
	if n, _ := session(t, d); n != 0 || d.pg.way.is.Load() != strayed {
		t.Errorf("%d prepared statements, route %d, after what was prepared was gone", n, d.pg.way.is.Load())
	}
}
