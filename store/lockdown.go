package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/internal/database"
)

// maxReason bounds the reason for a lockdown, in bytes.
const maxReason = 200

// Lockdown implements [mandate.Lock]. It does not wait for the database unless
// security state has just changed.
func (s *Store) Lockdown() (*mandate.Lockdown, error) {
	snap, err := s.current()
	if err != nil {
		return nil, err
	}
	return snap.lockdown, nil
}

// Lock begins a lockdown and raises the epoch, or gives the one in force
// another reason. When it returns nil that survives a crash.
func (s *Store) Lock(ctx context.Context, l mandate.Lockdown) error {
	if l.Reason == "" || !line(l.Reason, maxReason) {
		return mandate.Invalid("reason", "must be one line of text, of 1 to %d bytes", maxReason)
	}
	err := s.db.Change(ctx, func(tx *database.Tx) error { return setLock(ctx, tx, l) })
	return wrap("lock down", unavailable(ctx, err))
}

func setLock(ctx context.Context, tx *database.Tx, l mandate.Lockdown) error {
	_, err := tx.Exec(ctx, `INSERT INTO lockdown (one, reason, since, set_by) VALUES (1, $1, $2, $3)
		ON CONFLICT (one) DO UPDATE SET reason = excluded.reason, set_by = excluded.set_by`,
		l.Reason, l.Since.UnixMilli(), string(l.By))
	return err
}

// Unlock ends the lockdown and raises the epoch. If there is none the error
// wraps [mandate.ErrNotFound].
func (s *Store) Unlock(ctx context.Context) error {
	err := s.db.Change(ctx, func(tx *database.Tx) error {
		n, err := tx.Exec(ctx, `DELETE FROM lockdown`)
		if err == nil && n == 0 {
			err = fmt.Errorf("%w: there is no lockdown", mandate.ErrNotFound)
		}
		return err
	})
	return wrap("end the lockdown", unavailable(ctx, err))
}

func (n *snapshot) readLockdown(ctx context.Context, tx *database.Tx) error {
	n.lockdown = nil // it may run again
	var l mandate.Lockdown
	var since int64
	var by string
	err := tx.QueryRow(ctx, `SELECT reason, since, set_by FROM lockdown`).Scan(&l.Reason, &since, &by)
	if errors.Is(err, sql.ErrNoRows) {
		return nil
	}
	l.Since, l.By = time.UnixMilli(since), mandate.CallerID(by)
	n.lockdown = &l
	return err
}

// A Restored is a grant that came out of a backup and waits for its probe.
type Restored struct {
	Key    mandate.GrantKey
	Served bool // false if it was suspended already when the backup was made
}

// Restored returns the grants that wait for their probe.
func (s *Store) Restored(ctx context.Context) ([]Restored, error) {
	const doing = "list restored grants"
	rows, err := s.db.Query(ctx, `SELECT cloud, application, partner, served FROM restored ORDER BY cloud, application, partner`)
	if err != nil {
		return nil, wrap(doing, unavailable(ctx, err))
	}
	defer rows.Close()
	var all []Restored
	for rows.Next() {
		var r Restored
		var application, partner string
		var served int64
		if err := rows.Scan(&r.Key.Cloud, &application, &partner, &served); err != nil {
			return nil, wrap(doing, unavailable(ctx, err))
		}
		if err := errors.Join(r.Key.Application.UnmarshalText([]byte(application)), r.Key.Partner.UnmarshalText([]byte(partner))); err != nil {
			return nil, wrap(doing, err)
		}
		r.Served = served != 0
		all = append(all, r)
	}
	return all, wrap(doing, unavailable(ctx, rows.Err()))
}

// Proven notes that a restored grant has been probed, or needs no probe any
// more.
func (s *Store) Proven(ctx context.Context, k mandate.GrantKey) error {
	_, err := s.db.Exec(ctx, `DELETE FROM restored WHERE cloud = $1 AND application = $2 AND partner = $3`,
		k.Cloud, k.Application.String(), k.Partner.String())
	return wrap("note the probe", unavailable(ctx, err))
}
