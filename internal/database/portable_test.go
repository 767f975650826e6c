package database

import (
	"context"
	"database/sql"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// leases is a schema with what the packages above do.
var leases = notes("002_leases.sql", `
	CREATE TABLE leases (
		name    TEXT    PRIMARY KEY,
		owner   TEXT    NOT NULL,
		until   BIGINT  NOT NULL,
		fence   BIGINT  NOT NULL DEFAULT 0,
		idle    BOOLEAN NOT NULL DEFAULT true,
		secret  BYTES
	);`)

func TestNow(t *testing.T) {
	each(t, func(t *testing.T, cfg Config) {
		d := open(t, cfg, notes())
		var now int64
		if err := d.QueryRow(t.Context(), `SELECT now_ms()`).Scan(&now); err != nil {
			t.Fatal(err)
		}
		if off := time.Since(time.UnixMilli(now)); off < 0 || off > 5*time.Second {
			t.Errorf("the database's clock is %v off", off)
		}
	})
}

// TestPortable executes the forms that the package's documentation names.
func TestPortable(t *testing.T) { each(t, testPortable) }

func testPortable(t *testing.T, cfg Config) {
	d, ctx := open(t, cfg, leases), t.Context()
	for _, tt := range []struct {
		query string
		args  []any
		rows  int64
	}{
		{`INSERT INTO leases (name, owner, until, secret) SELECT $1, $2, $3, $4 WHERE NOT EXISTS (SELECT 1 FROM leases WHERE name = $1)`,
			[]any{"a", "me", int64(1), []byte{0, 1, 0xff}}, 1},
		{`INSERT INTO leases (name, owner, until, secret) SELECT $1, $2, $3, $4 WHERE NOT EXISTS (SELECT 1 FROM leases WHERE name = $1)`,
			[]any{"a", "me", int64(1), nil}, 0},
		{`INSERT INTO leases (name, owner, until) VALUES ($1, $2, now_ms() + $3) ON CONFLICT DO NOTHING`, []any{"a", "me", 5}, 0},
		{`INSERT INTO leases (name, owner, until) VALUES ($1, $2, now_ms() - 1) ON CONFLICT (name) DO UPDATE SET owner = excluded.owner`, []any{"b", "me"}, 1},
		{`UPDATE leases SET owner = $2, until = now_ms() + $3, fence = fence + 1 WHERE name = $1 AND until < now_ms()`, []any{"a", "you", 60_000}, 1},
		{`UPDATE leases SET owner = $2, until = now_ms() + $3, fence = fence + 1 WHERE name = $1 AND until < now_ms()`, []any{"a", "he", 60_000}, 0},
		{`UPDATE leases SET owner = $3, until = now_ms() + $1 WHERE until < (SELECT now_ms()) AND (SELECT epoch FROM head) = $2 AND idle = $4`,
			[]any{60_000, 1, "you", true}, 1},
		{`UPDATE leases SET secret = $1 WHERE name = $2`, []any{sql.NullString{}, "a"}, 1},
		{`UPDATE leases SET owner = CASE WHEN fence > 0 THEN CAST($1 AS TEXT) ELSE owner END`, []any{"x"}, 2},
		{`DELETE FROM leases WHERE secret IS NULL AND name <> $1 AND until > (SELECT coalesce(max(until), 0) - $2 FROM leases)`, []any{"a", 60_000}, 1},
	} {
		if n, err := d.Exec(ctx, tt.query, tt.args...); n != tt.rows || err != nil {
			t.Errorf("%s: got %d rows, error %v; want %d", tt.query, n, err, tt.rows)
		}
	}
	err := d.Tx(ctx, func(tx *Tx) error {
		var epoch, fence int64
		var idle bool
		if err := tx.QueryRow(ctx, `SELECT epoch FROM head FOR SHARE`).Scan(&epoch); err != nil {
			return err
		}
		if err := tx.QueryRow(ctx, `SELECT fence, idle FROM leases WHERE name = $1 FOR UPDATE`, "a").Scan(&fence, &idle); err != nil {
			return err
		}
		if epoch != 1 || fence != 1 || !idle {
			t.Errorf("epoch %d, fence %d, idle %v; want 1, 1, true", epoch, fence, idle)
		}
		return tx.QueryRow(ctx, `UPDATE leases SET fence = fence + 1 WHERE name = $1 RETURNING fence`, "a").Scan(&fence)
	})
	if err != nil {
		t.Error(err)
	}
}

// TestBytes come back as they were.
func TestBytes(t *testing.T) {
	each(t, func(t *testing.T, cfg Config) {
		d, ctx := open(t, cfg, notes()), t.Context()
		for id, want := range [][]byte{nil, {}, {0}, []byte(`\x00`), {0xff, 0, '\\', '\''}} {
			if _, err := d.Exec(ctx, `INSERT INTO notes (id, body) VALUES ($1, $2)`, id, want); err != nil {
				t.Fatal(err)
			}
			var got []byte
			var same bool
			err := d.QueryRow(ctx, `SELECT body, coalesce(body = $2, false) FROM notes WHERE id = $1`, id, want).Scan(&got, &same)
			if err != nil || string(got) != string(want) || same != (want != nil) {
				t.Errorf("got %q, the same: %v, error %v; want %q", got, same, err, want)
			}
		}
	})
}

// TestLeaseHasOneOwner of many who want it at once.
func TestLeaseHasOneOwner(t *testing.T) {
	each(t, func(t *testing.T, cfg Config) {
		d := open(t, cfg, leases)
		if _, err := d.Exec(t.Context(), `INSERT INTO leases (name, owner, until) VALUES ('x', '', 0)`); err != nil {
			t.Fatal(err)
		}
		var won int64
		var mu sync.Mutex
		var all sync.WaitGroup
		for range 16 {
			all.Go(func() {
				n, err := d.Exec(t.Context(), `UPDATE leases SET until = now_ms() + 60000, fence = fence + 1 WHERE name = $1 AND until < now_ms()`, "x")
				if err != nil {
					t.Error(err)
				}
				mu.Lock()
				won += n
				mu.Unlock()
			})
		}
		all.Wait()
		if won != 1 {
			t.Errorf("%d have the lease, want 1", won)
		}
	})
}

func TestNotices(t *testing.T) {
	each(t, func(t *testing.T, cfg Config) {
		d, ctx := running(t, cfg), t.Context()
		words, cancel := d.Subscribe("word")
		defer cancel()
		others, _ := d.Subscribe("other")
		send := func() bool { // again and again, because nobody may listen yet
			if err := d.Notify(ctx, "word", "first"); err != nil {
				t.Fatal(err)
			}
			select {
			case <-words:
				return true
			case <-time.After(50 * time.Millisecond):
				return false
			}
		}
		soon(t, "a notice arrives", send)
		for len(words) > 0 {
			<-words
		}
		d.Tx(ctx, func(tx *Tx) error {
			if err := tx.Notify(ctx, "word", "of nothing"); err != nil {
				t.Error(err)
			}
			return context.Canceled
		})
		if err := d.Tx(ctx, func(tx *Tx) error { return tx.Notify(ctx, "word", "second: 2") }); err != nil {
			t.Fatal(err)
		}
		for got := ""; got != "second: 2"; {
			if got = <-words; got == "of nothing" {
				t.Error("a notice of a transaction that was undone")
			}
		}
		if len(others) > 0 {
			t.Error("a notice of another topic")
		}
		for _, topic := range []string{"", "epoch", "hello", "a:b", "a\x00"} {
			if d.Notify(ctx, topic, "") == nil {
				t.Errorf("a notice of topic %q was sent", topic)
			}
		}
		if d.Notify(ctx, "word", string(make([]byte, 9000))) == nil {
			t.Error("a notice that is too long was sent")
		}
	})
}

func TestValidText(t *testing.T) {
	for s, want := range map[string]bool{"": true, "é": true, "a\x00": false, "\xff": false} {
		if got := ValidText("x", s); got != want {
			t.Errorf("%q: got %v, want %v", s, got, want)
		}
	}
	if _, err := Open(t.Context(), Config{File: filepath.Join(t.TempDir(), "x"), URL: "postgres://h/x"}); err == nil {
		t.Error("a database with both a file and a URL was opened")
	}
}
