package vault

import (
	"context"
	"errors"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/internal/database"
)

// sweepAtOnce bounds how many copies in homes one [SQL.Sweep] destroys.
const sweepAtOnce = 100

// Sweep destroys what is over: fall-backs and candidates whose time has come,
// copies in homes that could not be destroyed before, shared tokens that have
// expired. None of them is returned by anything meanwhile; calling Sweep every
// few minutes, in every replica, is enough. The epoch is raised where a
// generation has become a tombstone.
func (v *SQL) Sweep(ctx context.Context) error {
	return wrap("sweep", errors.Join(v.sweepGrants(ctx), v.sweepHomes(ctx), v.sweepTurns(ctx)))
}

func (v *SQL) sweepGrants(ctx context.Context) error {
	over, err := v.list(ctx, `SELECT `+columns+` FROM grants WHERE state IN ('fallback', 'candidate') AND fallback_until <= `+nowMS)
	if err != nil || len(over) == 0 {
		return err
	}
	var errs []error
	for _, g := range over {
		errs = append(errs, v.sweepGrant(ctx, g.Key))
	}
	v.db.Scrub(ctx)
	return errors.Join(errs...)
}

func (v *SQL) sweepGrant(ctx context.Context, k mandate.GrantKey) error {
	var gone []destroyed
	err := v.db.Change(ctx, func(tx *database.Tx) error {
		all, err := standings(ctx, tx, k)
		if err != nil {
			return err
		}
		var over []standing
		for _, s := range all {
			if s.over {
				over = append(over, s)
			}
		}
		discarded, err := end(ctx, tx, k, over, mandate.StateDiscarded, mandate.StateCandidate)
		if err != nil {
			return err
		}
		gone, err = end(ctx, tx, k, over, mandate.StateReplaced, mandate.StateFallback)
		gone = append(gone, discarded...)
		return err
	})
	if err != nil {
		return unavailable(ctx, err)
	}
	_, err = v.destroy(ctx, gone)
	return err
}

// sweepHomes destroys the copies of rows that have no token any more.
func (v *SQL) sweepHomes(ctx context.Context) error {
	if len(v.homes) == 0 {
		return nil
	}
	left, err := v.rows(ctx, `SELECT `+columns+` FROM grants WHERE home <> '' AND key_id IS NULL
		ORDER BY since LIMIT $1`, int64(sweepAtOnce))
	if err != nil {
		return err
	}
	var gone []destroyed
	for _, r := range left {
		g, err := r.grant()
		if err != nil {
			return err
		}
		gone = append(gone, destroyed{g.Key, r.generation, r.home})
	}
	_, err = v.destroy(ctx, gone)
	return err
}

// sweepTurns deletes what is of no use to anybody any more. A row is left for
// a while, so that a new one's fence, which begins with the time, is larger.
func (v *SQL) sweepTurns(ctx context.Context) error {
	return unavailable(ctx, v.inOrder(ctx, func(tx *database.Tx) error {
		_, err := tx.Exec(ctx, `DELETE FROM turns WHERE expires <= `+nowMS+` AND lease <= `+nowMS+` - $1`, turnGrace.Milliseconds())
		return err
	}))
}
