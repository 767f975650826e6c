package database

import (
	"context"
	"errors"
	"fmt"
	"time"
)

var (
	// ErrUnknownEpoch: whether the last change of security state was
	// committed is not known. It is being found out; trying again is right.
	ErrUnknownEpoch = errors.New("it is not known whether the last change of security state was stored")

	// ErrWentBack: the database has an older epoch than this process has
	// seen, so an old copy was put in its place. That does not pass.
	ErrWentBack = errors.New("the database went back in time")

	// ErrCutOff: the database has not answered for so long that what has
	// changed meanwhile is not known. It passes by itself.
	ErrCutOff = fmt.Errorf("nothing was heard from the database for %v, so nothing is handed out: "+
		"see that PostgreSQL runs and this host reaches it; the server goes on by itself", cutOff)

	errClosed = errors.New("the database is closed")
)

// settleEvery is how often an epoch in doubt is read again.
const settleEvery = 100 * time.Millisecond

// Epoch returns the number that grows with every [DB.Change], or an error if
// it is not certain: [ErrUnknownEpoch] after a commit whose outcome is
// unknown, [ErrWentBack], [ErrCutOff] if the replica is cut off from
// PostgreSQL, or that the database is closed. It never waits.
//
// With several replicas the number is the one that was read by [DB.Run] at
// most 750 ms ago, counted from the beginning of the read.
//
// The doubt is looked at first: whoever ends it stores the epoch before. The
// time is looked at last.
func (d *DB) Epoch() (int64, error) {
	if why := d.doubt.Load(); why != nil {
		return 0, *why
	}
	epoch := d.epoch.Load()
	if d.cutOff() {
		return 0, ErrCutOff
	}
	return epoch, nil
}

// Changed returns a channel that is closed when the epoch next moves on.
// Whoever waits takes the channel first, and looks at the epoch then.
func (d *DB) Changed() <-chan struct{} { return *d.moved.Load() }

// raise notes an epoch that was committed, or read.
func (d *DB) raise(epoch int64) {
	for seen := d.epoch.Load(); epoch > seen; seen = d.epoch.Load() {
		if d.epoch.CompareAndSwap(seen, epoch) {
			next := make(chan struct{})
			close(*d.moved.Swap(&next))
			return
		}
	}
}

// Change runs fn in a transaction which also raises the epoch: for changes of
// security state. When it returns nil, both survive a crash and [DB.Epoch]
// returns the new one. When fn returns an error or panics, nothing has
// changed. If the commit itself fails, Epoch returns an error from before
// Change returns until the outcome is known.
//
// A statement of any package may depend on the epoch that it was decided in:
// (SELECT epoch FROM head) = $n.
//
// Changes are one after the other, those of all replicas too. fn must not use
// the DB itself to write, which would wait for itself. On PostgreSQL fn may
// run again, as that of [DB.Tx].
func (d *DB) Change(ctx context.Context, fn func(*Tx) error) error {
	return d.ChangeTo(ctx, 0, fn)
}

// ChangeTo is [DB.Change] to an epoch of at least that: what was restored must
// be later than anything that was ever seen of what it replaces.
func (d *DB) ChangeTo(ctx context.Context, least int64, fn func(*Tx) error) error {
	return d.changeGuarded(ctx, least, d.guard.Load(), fn)
}

// changeGuarded is ChangeTo with the key of the MAC.
func (d *DB) changeGuarded(ctx context.Context, least int64, g *guard, fn func(*Tx) error) error {
	return d.again(ctx, func() error { return d.change(ctx, least, g, fn) })
}

func (d *DB) change(ctx context.Context, least int64, g *guard, fn func(*Tx) error) error {
	if err := d.take(ctx); err != nil {
		return err
	}
	defer d.give()
	var epoch int64
	var made *state
	unknown, err := d.transact(ctx, d.limit, func(tx *Tx) error {
		// Raised first: where rows are locked, this is the lock that puts
		// changes in an order.
		var err error
		if epoch, err = tx.raise(ctx, least); err != nil {
			return fmt.Errorf("raise epoch: %w", err)
		}
		if seen := d.epoch.Load(); epoch <= seen {
			return d.wentBack(epoch-1, seen)
		}
		if err := d.beginGuarded(ctx, tx, g, least); err != nil {
			return err
		}
		if err := fn(tx); err != nil {
			return errors.Join(err, tx.alteration())
		}
		made, err = tx.endGuarded(ctx, epoch)
		return err
	})
	switch {
	case err == nil:
		if made != nil {
			g.adopt(made)
		}
		d.raise(epoch)
	case unknown:
		d.doubtEpoch()
	}
	return err
}

// raise raises the stored epoch. PostgreSQL tells all replicas when that is
// committed.
func (t *Tx) raise(ctx context.Context, least int64) (epoch int64, err error) {
	const query = `UPDATE head SET epoch = CASE WHEN epoch >= $1 THEN epoch + 1 ELSE $1 END RETURNING epoch`
	if t.db.pg == nil {
		err = t.QueryRow(ctx, query, least).Scan(&epoch)
		return epoch, err
	}
	err = t.QueryRow(ctx, query+`, `+limits+`, pg_notify('mandate', 'epoch:' || epoch)::text`, least).Scan(&epoch, new(any), new(any), new(any))
	return epoch, err
}

// doubtEpoch makes Epoch return [ErrUnknownEpoch] until the database has been
// read, after this.
func (d *DB) doubtEpoch() {
	d.mu.Lock()
	d.unknown++
	begin := d.doubt.CompareAndSwap(nil, &errUnknown)
	d.mu.Unlock()
	if begin { // otherwise somebody is finding out already, or it is final
		d.start(d.settle)
	}
}

// errUnknown is the one doubt that ends.
var errUnknown = ErrUnknownEpoch

func (d *DB) settle() {
	for {
		if err := d.reread(d.closing); err == nil || errors.Is(err, ErrWentBack) {
			return
		}
		select {
		case <-time.After(settleEvery):
		case <-d.closing.Done():
			return
		}
	}
}

// reread ends the doubt. It reads in a writing transaction and locks the row,
// so that it reads only when a commit that may still be under way has ended.
func (d *DB) reread(ctx context.Context) error {
	if err := d.take(ctx); err != nil {
		return err
	}
	defer d.give()
	before, seen := d.unknowns(), d.epoch.Load()
	var epoch int64
	_, err := d.transact(ctx, d.limit, func(tx *Tx) error {
		return tx.QueryRow(ctx, `SELECT epoch FROM head FOR UPDATE`).Scan(&epoch)
	})
	if err != nil {
		return err
	}
	if epoch < seen {
		return d.wentBack(epoch, seen)
	}
	d.raise(epoch)
	return d.believe(before)
}

func (d *DB) unknowns() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.unknown
}

// errStillUnknown: another commit's outcome became unknown meanwhile.
var errStillUnknown = errors.New("another commit has failed")

// believe ends the doubt if no commit had an unknown outcome since there were
// that many.
func (d *DB) believe(unknown int) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.unknown != unknown {
		return errStillUnknown
	}
	d.doubt.CompareAndSwap(&errUnknown, nil)
	return nil
}

// wentBack remembers for good that the stored epoch is older than one seen.
func (d *DB) wentBack(stored, seen int64) error {
	err := fmt.Errorf("%w, from epoch %d to %d: an older copy was put in its place while the server ran", ErrWentBack, seen, stored)
	d.doubts(err)
	return err
}

func (d *DB) doubts(err error) { d.doubt.Store(&err) }
