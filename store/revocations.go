package store

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/internal/database"
)

// maxRevocations bounds how many are in force at once: each is looked at on
// every request.
const maxRevocations = 1000

const revocationColumns = `id, cloud, application, partner, customer, caller, audience, reason, since, revoked_by`

// Revoke stores a revocation, whose ID and time are the store's choice, and
// raises the epoch. When it returns nil that survives a crash, and within a
// second no replica hands out what it covers.
func (s *Store) Revoke(ctx context.Context, r mandate.Revocation) (mandate.Revocation, error) {
	if r.Reason == "" || !line(r.Reason, maxReason) {
		return r, mandate.Invalid("reason", "must be one line of text, of 1 to %d bytes", maxReason)
	}
	if !database.ValidText(string(r.Reach.Caller), string(r.Reach.Audience)) {
		return r, mandate.Invalid("reach", "is no text")
	}
	r.ID, r.Since = strings.ToLower(rand.Text()[:10]), time.Now().Truncate(time.Millisecond)
	err := s.db.Change(ctx, func(tx *database.Tx) error {
		var n int64
		if err := tx.QueryRow(ctx, `SELECT count(*) FROM revocations`).Scan(&n); err != nil {
			return err
		}
		if n >= maxRevocations {
			return fmt.Errorf("%w: %d revocations are in force; one that covers more can take the place of several", mandate.ErrRateLimited, n)
		}
		k, application, partner := r.Reach.Partner, "", ""
		if k != (mandate.GrantKey{}) {
			application, partner = k.Application.String(), k.Partner.String()
		}
		customer := ""
		if !r.Reach.Customer.IsZero() {
			customer = r.Reach.Customer.String()
		}
		_, err := tx.Exec(ctx, `INSERT INTO revocations (`+revocationColumns+`) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)`,
			r.ID, k.Cloud, application, partner, customer, string(r.Reach.Caller), string(r.Reach.Audience), r.Reason, r.Since.UnixMilli(), string(r.By))
		return err
	})
	return r, wrap("revoke", unavailable(ctx, err))
}

// Lift ends a revocation and raises the epoch. If there is none of that ID the
// error wraps [mandate.ErrNotFound].
func (s *Store) Lift(ctx context.Context, id string) error {
	none := fmt.Errorf("%w: no revocation %.40q is in force", mandate.ErrNotFound, id)
	if !database.ValidText(id) {
		return none
	}
	err := s.db.Change(ctx, func(tx *database.Tx) error {
		n, err := tx.Exec(ctx, `DELETE FROM revocations WHERE id = $1`, id)
		if err == nil && n == 0 {
			err = none
		}
		return err
	})
	return wrap("lift revocation", unavailable(ctx, err))
}

// Revocations returns those in force, the oldest first.
func (s *Store) Revocations() ([]mandate.Revocation, error) {
	snap, err := s.current()
	if err != nil {
		return nil, err
	}
	return slices.Clone(snap.revocations), nil
}

// Revoked implements [mandate.Revocations]. It does not wait for the database
// unless security state has just changed.
func (s *Store) Revoked(q *mandate.Request) (*mandate.Revocation, error) {
	snap, err := s.current()
	if err != nil {
		return nil, err
	}
	for i := range snap.revocations {
		if snap.revocations[i].Reach.Covers(q) {
			return &snap.revocations[i], nil
		}
	}
	return nil, nil
}

func (n *snapshot) readRevocations(ctx context.Context, tx *database.Tx) error {
	rows, err := tx.Query(ctx, `SELECT `+revocationColumns+` FROM revocations ORDER BY since, id`)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var r mandate.Revocation
		var application, partner, customer string
		var since int64
		if err := rows.Scan(&r.ID, &r.Reach.Partner.Cloud, &application, &partner, &customer, &r.Reach.Caller, &r.Reach.Audience, &r.Reason, &since, &r.By); err != nil {
			return err
		}
		// What cannot be read must not be taken for one that covers less.
		for _, f := range []struct {
			text string
			into interface{ UnmarshalText([]byte) error }
		}{{application, &r.Reach.Partner.Application}, {partner, &r.Reach.Partner.Partner}, {customer, &r.Reach.Customer}} {
			if f.text == "" {
				continue
			}
			if err := f.into.UnmarshalText([]byte(f.text)); err != nil {
				return errors.New("revocation " + r.ID + ": " + err.Error())
			}
		}
		r.Since = time.UnixMilli(since)
		n.revocations = append(n.revocations, r)
	}
	return rows.Err()
}
