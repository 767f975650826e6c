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

	errClosed = errors.New("the database is closed")
)

// settleEvery is how often an epoch in doubt is read again.
const settleEvery = 100 * time.Millisecond

// Epoch returns the number that grows with every [DB.Change], or an error if
// it is not certain: [ErrUnknownEpoch] after a commit whose outcome is
// unknown, [ErrWentBack], or that the database is closed. It never waits.
//
// The doubt is looked at first: whoever ends it stores the epoch before.
func (d *DB) Epoch() (int64, error) {
	if why := d.doubt.Load(); why != nil {
		return 0, *why
	}
	return d.epoch.Load(), nil
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
// fn must not use the DB itself to write, which would wait for itself.
func (d *DB) Change(ctx context.Context, fn func(*Tx) error) error {
	if err := d.take(ctx); err != nil {
		return err
	}
	defer d.give()
	var epoch int64
	unknown, err := d.transact(ctx, func(tx *Tx) error {
		// Raised first: where rows are locked, this is the lock that puts
		// changes in an order.
		if err := tx.QueryRow(ctx, `UPDATE head SET epoch = epoch + 1 RETURNING epoch`).Scan(&epoch); err != nil {
			return fmt.Errorf("raise epoch: %w", err)
		}
		if seen := d.epoch.Load(); epoch <= seen {
			return d.wentBack(epoch-1, seen)
		}
		return fn(tx)
	})
	switch {
	case err == nil:
		d.epoch.Store(epoch)
	case unknown:
		d.doubtEpoch()
	}
	return err
}

// doubtEpoch makes Epoch return [ErrUnknownEpoch] until the database has been
// read. The slot must be taken.
func (d *DB) doubtEpoch() {
	if d.doubt.Load() != nil {
		return // somebody is finding out already, or it is final
	}
	d.doubts(ErrUnknownEpoch)
	d.settling.Go(d.settle)
}

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

// reread ends the doubt. It reads in a writing transaction, which begins only
// when a commit that may still be under way has ended.
func (d *DB) reread(ctx context.Context) error {
	if err := d.take(ctx); err != nil {
		return err
	}
	defer d.give()
	var epoch int64
	_, err := d.transact(ctx, func(tx *Tx) error {
		return tx.QueryRow(ctx, `SELECT epoch FROM head`).Scan(&epoch)
	})
	if err != nil {
		return err
	}
	if seen := d.epoch.Load(); epoch < seen {
		return d.wentBack(epoch, seen)
	}
	d.epoch.Store(epoch)
	d.doubt.Store(nil)
	return nil
}

// wentBack remembers for good that the stored epoch is older than one seen.
func (d *DB) wentBack(stored, seen int64) error {
	err := fmt.Errorf("%w, from epoch %d to %d: an older copy was put in its place while the server ran", ErrWentBack, seen, stored)
	d.doubts(err)
	return err
}

func (d *DB) doubts(err error) { d.doubt.Store(&err) }
