package database

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync"
)

// maxShared is how many writes share one commit at most.
const maxShared = 64

// A queue is the writes that wait for the slot together. What a commit costs
// is the wait for the disk, and that is the same for one as for many.
type queue struct {
	mu      sync.Mutex
	waiting []*write // guarded by mu
	running bool     // guarded by mu: somebody commits what waits
}

// A write is one caller's part of a commit.
type write struct {
	ctx  context.Context
	turn chan *Tx      // its turn to run, unless it has gone
	ran  chan struct{} // closed when it has run
	err  error         // why it must be undone; set before ran is closed
	done chan error    // how the commit went
	tx   *Tx           // that it had
}

// share runs fn on the caller's own goroutine, when it is its turn, as a part
// of a transaction that is committed with the parts of others. An error of one
// part undoes that part alone; if the commit fails, it fails for all.
func (d *DB) share(ctx context.Context, fn func(*Tx) error) error {
	w := &write{ctx: ctx, turn: make(chan *Tx), ran: make(chan struct{}), done: make(chan error, 1)}
	if !d.enqueue(w) {
		return errClosed
	}
	select {
	case tx := <-w.turn:
		if err := w.run(tx, fn); err != nil {
			return err
		}
		return <-w.done
	case err := <-w.done: // before it began
		return err
	case <-ctx.Done():
		return fmt.Errorf("wait to write: %w", ctx.Err())
	}
}

// errCutShort is why a part is undone whose function panicked.
var errCutShort = errors.New("the function did not return")

func (w *write) run(tx *Tx, fn func(*Tx) error) error {
	w.err = errCutShort
	defer close(w.ran)
	w.err = fn(tx)
	if err := w.ctx.Err(); w.err == nil && err != nil {
		w.err = fmt.Errorf("before the commit: %w", err)
	}
	return w.err
}

// enqueue lets w wait, and sees to it that somebody commits.
func (d *DB) enqueue(w *write) bool {
	q := &d.queue
	q.mu.Lock()
	defer q.mu.Unlock()
	if !q.running && !d.start(d.commitAll) {
		return false
	}
	q.running = true
	q.waiting = append(q.waiting, w)
	return true
}

// commitAll commits until nothing waits.
func (d *DB) commitAll() {
	for {
		// The slot comes first: more writes gather while it is waited for.
		err := d.take(context.Background())
		batch := d.queue.next()
		if err == nil {
			err = d.commit(batch)
			d.give()
		}
		for _, w := range batch {
			w.done <- err
		}
		if len(batch) == 0 {
			return
		}
	}
}

// next takes what waits, or says that nobody commits any more.
func (q *queue) next() []*write {
	q.mu.Lock()
	defer q.mu.Unlock()
	n := min(len(q.waiting), maxShared)
	batch := q.waiting[:n:n]
	q.waiting = q.waiting[n:]
	q.running = n > 0
	return batch
}

// commit runs each part in its turn, and commits what has not been undone.
func (d *DB) commit(batch []*write) error {
	if len(batch) == 0 {
		return nil
	}
	tx, err := d.writer.BeginTx(context.Background(), nil)
	if err != nil {
		return fmt.Errorf("begin: %w", err)
	}
	defer tx.Rollback() // after a commit it does nothing
	for _, w := range batch {
		if err := d.part(tx, w, len(batch) == 1); err != nil {
			return err
		}
	}
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	for _, w := range batch {
		if w.err == nil && w.tx != nil {
			d.deliver(w.tx.notices)
		}
	}
	return nil
}

// part lets w run, and undoes what it did if it failed. The error is one that
// is everybody's.
func (d *DB) part(tx *sql.Tx, w *write, alone bool) error {
	if alone {
		d.turn(tx, w)
		return w.err
	}
	if _, err := tx.Exec(`SAVEPOINT part`); err != nil {
		return err
	}
	d.turn(tx, w)
	if w.err != nil {
		if _, err := tx.Exec(`ROLLBACK TO part`); err != nil {
			return fmt.Errorf("undo the part of another: %w", err)
		}
	}
	_, err := tx.Exec(`RELEASE part`)
	return err
}

// turn waits until w has run, unless it does not want to any more.
func (d *DB) turn(tx *sql.Tx, w *write) {
	t := &Tx{db: d, tx: tx, writes: true}
	select {
	case w.turn <- t:
		w.tx = t
		<-w.ran
	case <-w.ctx.Done():
	}
}
