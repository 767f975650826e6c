package vault

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/internal/database"
)

// Suspend stops an active grant from serving and raises the epoch. The grant
// is kept for [SQL.Resume]; a fall-back is destroyed, because nothing that was
// once suspended may stand in for anything. If no grant is active the error is
// a [*mandate.NoGrantError]. When Suspend returns nil it survives a crash.
func (v *SQL) Suspend(ctx context.Context, k mandate.GrantKey) error {
	err := v.change(ctx, k, func(tx *database.Tx, all []standing) ([]destroyed, error) {
		if err := move(ctx, tx, k, all, mandate.StateActive, mandate.StateSuspended); err != nil {
			return nil, err
		}
		return end(ctx, tx, k, all, mandate.StateReplaced, mandate.StateFallback)
	})
	return wrap("suspend grant", v.explain(ctx, k, err))
}

// Resume lets a suspended grant serve again and raises the epoch. If none is
// suspended the error wraps [mandate.ErrNotFound].
func (v *SQL) Resume(ctx context.Context, k mandate.GrantKey) error {
	err := v.change(ctx, k, func(tx *database.Tx, all []standing) ([]destroyed, error) {
		return nil, move(ctx, tx, k, all, mandate.StateSuspended, mandate.StateActive)
	})
	return wrap("resume grant", missing(err, "the partner has no suspended grant"))
}

// Rollback makes the fall-back the active generation again, destroys the one
// that it makes room for, and raises the epoch. If there is no fall-back, or
// the grant is not active, the error wraps [mandate.ErrNotFound]: nothing that
// was suspended or withdrawn comes back this way.
func (v *SQL) Rollback(ctx context.Context, k mandate.GrantKey) error {
	err := v.change(ctx, k, func(tx *database.Tx, all []standing) ([]destroyed, error) {
		gone, err := end(ctx, tx, k, all, mandate.StateReplaced, mandate.StateActive)
		if err == nil && len(gone) == 0 {
			err = errNothing
		}
		if err != nil {
			return nil, err
		}
		return gone, move(ctx, tx, k, all, mandate.StateFallback, mandate.StateActive)
	})
	return wrap("roll grant back", missing(err, "the partner has no generation to roll back to"))
}

// Discard destroys a candidate and raises the epoch. If there is none the
// error wraps [mandate.ErrNotFound].
func (v *SQL) Discard(ctx context.Context, k mandate.GrantKey) error {
	err := v.change(ctx, k, func(tx *database.Tx, all []standing) ([]destroyed, error) {
		gone, err := end(ctx, tx, k, all, mandate.StateDiscarded, mandate.StateCandidate)
		if err == nil && len(gone) == 0 {
			err = errNothing
		}
		return gone, err
	})
	return wrap("discard candidate", missing(err, "the partner has no candidate"))
}

// Held returns the active or suspended generation with its refresh token, or a
// [*mandate.NoGrantError]. It is for telling Entra that the token is over; so
// it opens a grant past its end, too.
func (v *SQL) Held(ctx context.Context, k mandate.GrantKey) (mandate.Grant, error) {
	return v.openRow(ctx, k, func(ctx context.Context, k mandate.GrantKey) (row, error) {
		r, err := v.current(ctx, k)
		if err == nil && r.state != string(mandate.StateActive) && r.state != string(mandate.StateSuspended) {
			err = r.none()
		}
		return r, err
	}, v.unsealed)
}

// Withdraw destroys every refresh token of a grant for good, of whatever
// generation, and raises the epoch; the rows stay as tombstones. If there is
// none the error is a [*mandate.NoGrantError]. When the error is nil the
// tokens are gone from the database, and that survives a crash; what is not
// gone elsewhere is in the answer: a home's copies that it keeps for a while
// or could not destroy, and what is still in the database's log. Copies that
// others made are out of reach; they are worth nothing without the key.
func (v *SQL) Withdraw(ctx context.Context, k mandate.GrantKey) ([]mandate.Remnant, error) {
	var gone []destroyed
	err := v.db.Change(ctx, func(tx *database.Tx) error {
		all, err := begin(ctx, tx, k)
		if err != nil {
			return err
		}
		gone, err = end(ctx, tx, k, all, mandate.StateWithdrawn,
			mandate.StateActive, mandate.StateSuspended, mandate.StateFallback, mandate.StateCandidate)
		if err == nil && len(gone) == 0 {
			err = errNothing
		}
		return err
	})
	if err != nil {
		return nil, wrap("withdraw grant", v.explain(ctx, k, ours(ctx, err)))
	}
	remnants, _ := v.destroy(ctx, gone) // what failed is among them
	if err := v.db.Scrub(ctx); err != nil {
		remnants = append(remnants, mandate.Remnant{What: "sealed tokens in the database's write-ahead log, until it is overwritten: " + err.Error()})
	}
	return remnants, nil
}

// errNothing rolls a change back that found nothing to change.
var errNothing = fmt.Errorf("%w: nothing to change", mandate.ErrNotFound)

// change makes one change of a grant's generations, with everything that
// belongs to each.
func (v *SQL) change(ctx context.Context, k mandate.GrantKey, fn func(*database.Tx, []standing) ([]destroyed, error)) error {
	var gone []destroyed
	err := v.db.Change(ctx, func(tx *database.Tx) error {
		all, err := begin(ctx, tx, k)
		if err != nil {
			return err
		}
		gone, err = fn(tx, all)
		return err
	})
	if err != nil {
		return ours(ctx, err)
	}
	if len(gone) > 0 {
		v.destroy(ctx, gone) // what fails is in the rows, for Sweep
		v.db.Scrub(ctx)
	}
	return nil
}

// begin takes away all turns of a grant, with what was shared, and returns its
// generations.
func begin(ctx context.Context, tx *database.Tx, k mandate.GrantKey) ([]standing, error) {
	if err := endTurns(ctx, tx, k); err != nil {
		return nil, err
	}
	return standings(ctx, tx, k)
}

// move gives the generation in the state from the state to, or returns
// errNothing if there is none, or its time is over.
func move(ctx context.Context, tx *database.Tx, k mandate.GrantKey, all []standing, from, to mandate.State) error {
	i := slices.IndexFunc(all, func(s standing) bool { return s.state == from && !s.over })
	if i < 0 {
		return errNothing
	}
	_, err := tx.Exec(ctx, `UPDATE grants SET state = $5, since = (SELECT epoch FROM head), fallback_until = 0
		WHERE `+ofGrant+` AND generation = $4`, keyArgs(k, all[i].generation, string(to))...)
	return err
}

func missing(err error, what string) error {
	if errors.Is(err, errNothing) {
		return fmt.Errorf("%w: %s", mandate.ErrNotFound, what)
	}
	return err
}

// explain says why there is no grant to change.
func (v *SQL) explain(ctx context.Context, k mandate.GrantKey, err error) error {
	if !errors.Is(err, errNothing) {
		return err
	}
	r, err := v.current(ctx, k)
	if err != nil {
		return err
	}
	return r.none()
}
