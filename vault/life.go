package vault

import (
	"context"
	"errors"
	"fmt"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/internal/database"
)

// Grants returns every generation of a partner's grants, of whatever cloud and
// application, the newest first; of all partners if the ID is zero. None has
// its refresh token.
func (v *SQL) Grants(ctx context.Context, partner mandate.TenantID) ([]mandate.Grant, error) {
	rows, err := v.db.Query(ctx, `SELECT `+columns+` FROM grants WHERE partner = $1 OR $1 = ''
		ORDER BY partner, cloud, application, generation DESC`, partner.String())
	if err != nil {
		return nil, wrap("list grants", unavailable(ctx, err))
	}
	defer rows.Close()
	var all []mandate.Grant
	for rows.Next() {
		var r row
		if err := r.scan(rows.Scan); err != nil {
			return nil, wrap("list grants", unavailable(ctx, err))
		}
		g, err := r.grant()
		if err != nil {
			return nil, err
		}
		all = append(all, g)
	}
	if err := rows.Err(); err != nil {
		return nil, wrap("list grants", unavailable(ctx, err))
	}
	return all, nil
}

// Suspend stops an active grant from serving and raises the epoch. The grant
// is kept for [SQL.Resume]. If none is active the error is a
// [*mandate.NoGrantError]. When Suspend returns nil it survives a crash.
func (v *SQL) Suspend(ctx context.Context, k mandate.GrantKey) error {
	done, err := v.change(ctx, k, `UPDATE grants SET state = 'suspended'
		WHERE cloud = $1 AND application = $2 AND partner = $3 AND state = 'active'`)
	if err == nil && !done {
		err = v.none(ctx, k)
	}
	return wrap("suspend grant", err)
}

// Resume lets a suspended grant serve again and raises the epoch. If none is
// suspended the error wraps [mandate.ErrNotFound].
func (v *SQL) Resume(ctx context.Context, k mandate.GrantKey) error {
	done, err := v.change(ctx, k, `UPDATE grants SET state = 'active'
		WHERE cloud = $1 AND application = $2 AND partner = $3 AND state = 'suspended'`)
	if err == nil && !done {
		err = fmt.Errorf("%w: the partner has no suspended grant", mandate.ErrNotFound)
	}
	return wrap("resume grant", err)
}

// Withdraw destroys the refresh token of an active or suspended grant for good
// and raises the epoch; the row stays as a tombstone. If there is none the
// error is a [*mandate.NoGrantError].
//
// The sealed bytes are overwritten in the database and in its write-ahead log.
// If only the latter fails, the error wraps [ErrTraces], and the grant is
// withdrawn nevertheless. Copies that others made are out of reach; they are
// worth nothing without the key.
func (v *SQL) Withdraw(ctx context.Context, k mandate.GrantKey) error {
	done, err := v.change(ctx, k, `UPDATE grants SET state = 'withdrawn', sealed = NULL, key_id = NULL
		WHERE cloud = $1 AND application = $2 AND partner = $3 AND state IN ('active', 'suspended')`)
	if err == nil && !done {
		err = v.none(ctx, k)
	}
	if err != nil {
		return wrap("withdraw grant", err)
	}
	if err := v.db.Scrub(ctx); err != nil {
		return fmt.Errorf("%w: %w", ErrTraces, err)
	}
	return nil
}

// ErrTraces: the grant is withdrawn, but its sealed token is still in the
// write-ahead log, until later writes have overwritten it.
var ErrTraces = errors.New("the grant is withdrawn; traces of its sealed token remain for now")

// errNothing rolls a change back that found nothing to change.
var errNothing = errors.New("nothing to change")

// change executes one conditional statement about a grant as a change of
// security state, and reports whether it changed anything.
func (v *SQL) change(ctx context.Context, k mandate.GrantKey, stmt string) (bool, error) {
	err := v.db.Change(ctx, func(tx *database.Tx) error {
		n, err := tx.Exec(ctx, stmt, k.Cloud, k.Application.String(), k.Partner.String())
		if err == nil && n == 0 {
			err = errNothing
		}
		return err
	})
	if errors.Is(err, errNothing) {
		return false, nil
	}
	return err == nil, unavailable(ctx, err)
}

// none says why there is no grant to change.
func (v *SQL) none(ctx context.Context, k mandate.GrantKey) error {
	r, err := v.last(ctx, k)
	if err == nil {
		err = &mandate.NoGrantError{Generation: r.generation, State: mandate.State(r.state)}
	}
	return err
}
