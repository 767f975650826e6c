package database

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/mandate-sam/mandate/internal/pgtest"
)

// put inserts notes with these bodies from id 0 on, and changes those that are
// there.
func put(p *Pipe, bodies ...string) {
	ids, texts := make([]int64, len(bodies)), make([][]byte, len(bodies))
	for i, b := range bodies {
		ids[i], texts[i] = int64(i), []byte(b)
	}
	p.Insert(`INSERT INTO notes (id, body)`, `ON CONFLICT (id) DO UPDATE SET body = excluded.body`, ids, texts)
}

// bodies reads them back.
func bodies(ctx context.Context, p *Pipe) (out []string, err error) {
	p.Query(func(scan func(...any) error) error {
		var b []byte
		err := scan(&b)
		out = append(out, string(b))
		return err
	}, `SELECT body FROM notes WHERE id >= $1 ORDER BY id`, int64(0))
	err = p.Wait(ctx)
	return out, err
}

func stored(t *testing.T, d *DB) (out []string) {
	t.Helper()
	if err := d.Pipe(t.Context(), func(p *Pipe) (err error) { out, err = bodies(t.Context(), p); return err }); err != nil {
		t.Fatal(err)
	}
	return out
}

// eachAndPooled runs a test on each database, and through a pooler.
func eachAndPooled(t *testing.T, f func(*testing.T, Config)) {
	each(t, f)
	t.Run("pooler", func(t *testing.T) {
		c := pgtest.Shared(t)
		f(t, Config{URL: c.Pooler(t, c.Database(t))})
	})
}

// TestPipe, directly and through a pooler: what is sent is executed in order,
// the transaction's own changes are seen, and what was not waited for is
// committed with the rest.
func TestPipe(t *testing.T) {
	eachAndPooled(t, testPipe)
}

func testPipe(t *testing.T, cfg Config) {
	d, ctx := open(t, cfg, notes("002_words.sql", `CREATE TABLE words (word TEXT PRIMARY KEY, n BIGINT NOT NULL);`)), t.Context()
	awkward := []string{"", "\x00", `\x00`, "\xff'\"{},\\", "NULL", "last"}
	words := []string{"", "NULL", `a"b\{},'`, "é"}
	err := d.Pipe(ctx, func(p *Pipe) error {
		put(p, "a", "b")
		if got, err := bodies(ctx, p); err != nil || !slices.Equal(got, []string{"a", "b"}) {
			return fmt.Errorf("got %q, %w", got, err)
		}
		put(p, awkward...)
		p.Insert(`INSERT INTO words (word, n)`, "", words, []int64{0, 1, -1, 1 << 62})
		p.Exec(`UPDATE notes SET body = $1 WHERE id = $2`, []byte("end"), int64(len(awkward)-1))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	awkward[len(awkward)-1] = "end"
	if got := stored(t, d); !slices.Equal(got, awkward) {
		t.Errorf("got %q, want %q", got, awkward)
	}
	var n int64
	for _, w := range words {
		if err := d.QueryRow(ctx, `SELECT n FROM words WHERE word = $1`, w).Scan(&n); err != nil {
			t.Errorf("%q: %v", w, err)
		}
	}
	many := make([]string, 1503)
	if err := d.Pipe(ctx, func(p *Pipe) error { put(p, many...); return nil }); err != nil {
		t.Fatal(err)
	}
	if got := stored(t, d); !slices.Equal(got, many) {
		t.Errorf("%d rows, want %d", len(got), len(many))
	}
}

// TestPipeUndone: an error anywhere, a panic or a context that has ended leave
// nothing behind, and what comes next is not disturbed.
func TestPipeUndone(t *testing.T) {
	eachAndPooled(t, testPipeUndone)
}

func testPipeUndone(t *testing.T, cfg Config) {
	d := open(t, cfg, notes())
	wrong := errors.New("wrong")
	for name, fn := range map[string]func(context.Context, context.CancelFunc, *Pipe) error{
		"statement before the commit": func(_ context.Context, _ context.CancelFunc, p *Pipe) error {
			put(p, "x")
			p.Exec(`INSERT INTO notes (id) VALUES ($1)`, int64(0))
			put(p, "y")
			return nil
		},
		"commit": func(_ context.Context, _ context.CancelFunc, p *Pipe) error {
			put(p, "x")
			p.Exec(`INSERT INTO tags (note) VALUES ($1)`, int64(7)) // there is none, which is looked at last
			return nil
		},
		"function, nothing sent": func(_ context.Context, _ context.CancelFunc, p *Pipe) error { put(p, "x"); return wrong },
		"function": func(ctx context.Context, _ context.CancelFunc, p *Pipe) error {
			put(p, "x")
			if err := p.Wait(ctx); err != nil {
				return err
			}
			return wrong
		},
		"rows": func(_ context.Context, _ context.CancelFunc, p *Pipe) error {
			put(p, "x")
			p.Query(func(func(...any) error) error { return wrong }, `SELECT id FROM notes`)
			return nil
		},
		"context": func(ctx context.Context, cancel context.CancelFunc, p *Pipe) error {
			put(p, "x")
			err := p.Wait(ctx)
			cancel()
			return err
		},
		"panic": func(ctx context.Context, _ context.CancelFunc, p *Pipe) error {
			put(p, "x")
			if err := p.Wait(ctx); err != nil {
				return err
			}
			panic(wrong)
		},
	} {
		func() {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			defer func() { _ = recover() }()
			if err := d.Pipe(ctx, func(p *Pipe) error { return fn(ctx, cancel, p) }); err == nil {
				t.Errorf("%s: no error", name)
			}
		}()
		if got := stored(t, d); len(got) > 0 {
			t.Errorf("%s: %q is there", name, got)
		}
	}
	if err := d.Pipe(t.Context(), func(p *Pipe) error { put(p, "after"); return nil }); err != nil || len(stored(t, d)) != 1 {
		t.Errorf("after them: %v", err)
	}
	d.Close()
	if err := d.Pipe(t.Context(), func(*Pipe) error { return nil }); err == nil {
		t.Error("a pipe through a closed database")
	}
}

// TestPipeError: an error that fn does not mind is one all the same.
func TestPipeError(t *testing.T) {
	d, ctx := open(t, Config{URL: pgtest.Shared(t).Database(t)}, notes()), t.Context()
	for _, query := range []string{`SELECT nothing`, `SELECT 1 / (epoch - epoch) FROM head`} {
		err := d.Pipe(ctx, func(p *Pipe) error {
			p.Exec(query)
			_ = p.Wait(ctx)
			return nil
		})
		if err == nil {
			t.Errorf("%s: no error", query)
		}
	}
}

// TestPipeLetsGo: what it has locked is free when it returns an error.
func TestPipeLetsGo(t *testing.T) {
	cfg, ctx := Config{URL: pgtest.Shared(t).Database(t)}, t.Context()
	d, other := open(t, cfg, notes()), open(t, cfg, notes())
	wrong := errors.New("wrong")
	err := d.Pipe(ctx, func(p *Pipe) error {
		p.Exec(`SELECT epoch FROM head FOR UPDATE`)
		return errors.Join(p.Wait(ctx), wrong)
	})
	var under int
	if err2 := other.QueryRow(ctx, `SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state = 'idle in transaction'`).Scan(&under); err2 != nil || under > 0 || !errors.Is(err, wrong) {
		t.Errorf("%v: %d transactions are under way, %v", err, under, err2)
	}
}

// TestPipeLimits: within it a replica that is frozen is not waited for, and it
// leaves nothing of that in the session.
func TestPipeLimits(t *testing.T) {
	c := pgtest.Shared(t)
	url := c.Database(t)
	for _, u := range []string{url, c.Pooler(t, url)} {
		d := running(t, Config{URL: u, Connections: 1})
		var got []string
		err := d.Pipe(t.Context(), func(p *Pipe) error {
			p.Query(func(scan func(...any) error) error {
				got = make([]string, 2)
				return scan(&got[0], &got[1])
			}, `SELECT current_setting('statement_timeout'), current_setting('idle_in_transaction_session_timeout')`)
			return nil
		})
		if want := "10s 800ms"; err != nil || strings.Join(got, " ") != want {
			t.Errorf("limits %q, %v; want %q", got, err, want)
		}
		if _, timeout := session(t, d); timeout != "0" {
			t.Errorf("statement_timeout %s stays", timeout)
		}
	}
}
