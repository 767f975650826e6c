package database

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// together runs the functions as parts of one commit, in their order, and
// returns their errors: the slot is taken until all of them wait.
func together(t *testing.T, d *DB, fns ...func(context.Context, *Tx) error) []error {
	t.Helper()
	if err := d.take(t.Context()); err != nil {
		t.Fatal(err)
	}
	errs := make([]error, len(fns))
	var all sync.WaitGroup
	for i, fn := range fns {
		all.Go(func() {
			defer func() {
				if r := recover(); r != nil {
					errs[i] = r.(error)
				}
			}()
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			errs[i] = d.Tx(ctx, func(tx *Tx) error { return fn(ctx, tx) })
		})
		synctest.Wait()
	}
	d.give()
	all.Wait()
	return errs
}

func TestPartsOfACommit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := openTest(t)
		sorry, commits := errors.New("sorry"), 0
		add := func(id int) func(context.Context, *Tx) error {
			return func(ctx context.Context, tx *Tx) error { return insert(ctx, tx, id) }
		}
		errs := together(t, d,
			add(1),
			func(ctx context.Context, tx *Tx) error { return errors.Join(insert(ctx, tx, 2), sorry) },
			func(ctx context.Context, tx *Tx) error { insert(ctx, tx, 3); panic(sorry) },
			func(ctx context.Context, tx *Tx) error {
				return tx.QueryRow(ctx, `SELECT count(*) FROM notes`).Scan(&commits) // it sees the part of another
			},
			add(1), // which is there already
			add(4),
		)
		for i, want := range []bool{false, true, true, false, true, false} {
			if (errs[i] != nil) != want {
				t.Errorf("part %d: got error %v, want one: %v", i, errs[i], want)
			}
		}
		if commits != 1 {
			t.Errorf("a part saw %d rows, want the one of the part before: they do not share a commit", commits)
		}
		if got := count(t, d); got != 2 {
			t.Errorf("%d rows, want 2", got)
		}
	})
}

func TestCommitThatFailsFailsForAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := openTest(t)
		add := func(ctx context.Context, tx *Tx) error { return insert(ctx, tx, 1) }
		orphan := func(ctx context.Context, tx *Tx) error {
			_, err := tx.Exec(ctx, `INSERT INTO tags (note) VALUES (77)`) // refused by the commit
			return err
		}
		for i, err := range together(t, d, add, orphan) {
			if err == nil || !strings.Contains(err.Error(), "commit") {
				t.Errorf("part %d: got error %v, want that of the commit", i, err)
			}
		}
		if got := count(t, d); got != 0 {
			t.Errorf("%d rows, want none", got)
		}
		for _, err := range together(t, d, add) {
			if err != nil {
				t.Errorf("the next commit: %v", err)
			}
		}
	})
}

// TestGoneBeforeItsTurn: whoever gives up while waiting holds nobody up, and
// nothing of it is stored.
func TestGoneBeforeItsTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := openTest(t)
		gone, cancel := context.WithCancel(t.Context())
		var all sync.WaitGroup
		errs := together(t, d,
			func(ctx context.Context, tx *Tx) error {
				all.Go(func() {
					_, err := d.Exec(gone, `INSERT INTO notes (id) VALUES (9)`)
					if !errors.Is(err, context.Canceled) {
						t.Errorf("got error %v, want %v", err, context.Canceled)
					}
				})
				synctest.Wait()
				cancel()
				all.Wait()
				return insert(ctx, tx, 1)
			},
		)
		if errs[0] != nil {
			t.Error(errs[0])
		}
		if _, err := d.Exec(t.Context(), `INSERT INTO notes (id) VALUES (2)`); err != nil {
			t.Error(err)
		}
		if got := count(t, d); got != 2 {
			t.Errorf("%d rows, want 2", got)
		}
	})
}

// TestManyWrites is more than one commit takes.
func TestManyWrites(t *testing.T) {
	d := openTest(t)
	var all sync.WaitGroup
	for id := range 5 * maxShared {
		all.Go(func() {
			if _, err := d.Exec(t.Context(), `INSERT INTO notes (id) VALUES ($1)`, id); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if got := count(t, d); got != 5*maxShared {
		t.Errorf("%d rows, want %d", got, 5*maxShared)
	}
}

// TestCloseWhileWriting: what is being written is stored or refused, and
// nobody waits for ever.
func TestCloseWhileWriting(t *testing.T) {
	d := openTest(t)
	var all sync.WaitGroup
	begun := make(chan struct{}, 1000)
	for id := range 200 {
		all.Go(func() {
			begun <- struct{}{}
			if _, err := d.Exec(t.Context(), `INSERT INTO notes (id) VALUES ($1)`, id); err != nil && !errors.Is(err, errClosed) {
				t.Errorf("got error %v, want none or %v", err, errClosed)
			}
		})
	}
	<-begun
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	all.Wait()
}

// TestGoneInTheMiddle: SQLite would undo the parts of others too if it were
// interrupted.
func TestGoneInTheMiddle(t *testing.T) {
	d := openTest(t)
	if err := d.take(t.Context()); err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	all.Go(func() {
		if _, err := d.Exec(t.Context(), `INSERT INTO notes (id) VALUES (0)`); err != nil {
			t.Error(err)
		}
	})
	soon(t, "one waits", func() bool { return d.queue.length() == 1 })
	gone, cancel := context.WithCancel(t.Context())
	all.Go(func() {
		err := d.Tx(gone, func(tx *Tx) error {
			time.AfterFunc(time.Millisecond, cancel)
			_, err := tx.Exec(gone, `WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000)
				INSERT INTO notes (id) SELECT i FROM n`)
			return err
		})
		if !errors.Is(err, context.Canceled) {
			t.Errorf("got error %v, want %v", err, context.Canceled)
		}
	})
	soon(t, "two wait", func() bool { return d.queue.length() == 2 })
	d.give()
	all.Wait()
	if got := count(t, d); got != 1 {
		t.Errorf("%d rows, want 1", got)
	}
}

func (q *queue) length() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.waiting)
}
