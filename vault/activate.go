package vault

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/internal/database"
)

// Activate implements [mandate.Vault]. The sealed token of a generation that
// is destroyed is overwritten, and as soon as nobody reads any more also gone
// from the write-ahead log; see [database.DB.Scrub] for what that cannot
// reach.
func (v *SQL) Activate(ctx context.Context, g mandate.Grant) error {
	return wrap("activate grant", v.install(ctx, g, mandate.StateActive))
}

// Stage implements [mandate.Vault].
func (v *SQL) Stage(ctx context.Context, g mandate.Grant) error {
	if !g.Fallback.After(time.Now()) {
		return fmt.Errorf("stage grant: %w", mandate.Invalid("fallback", "is when the candidate's time is over, and past"))
	}
	return wrap("stage grant", v.install(ctx, g, mandate.StateCandidate))
}

// install stores g as a generation in that state, in place of those that it
// replaces.
func (v *SQL) install(ctx context.Context, g mandate.Grant, state mandate.State) error {
	if err := storable(g, state); err != nil {
		return err
	}
	s, err := v.seal(ctx, v.homeOf(g.Key), labelOf(g), g.Refresh)
	if err != nil {
		return err
	}
	r, err := rowOf(g, s)
	if err != nil {
		return err
	}
	var gone []destroyed
	if state == mandate.StateActive {
		err = v.db.Change(ctx, func(tx *database.Tx) (err error) {
			gone, err = succeed(ctx, tx, g, r)
			return err
		})
	} else {
		r.fallbackUntil = g.Fallback.UnixMilli()
		err = v.db.Change(ctx, func(tx *database.Tx) (err error) {
			gone, err = stage(ctx, tx, g, r)
			return err
		})
	}
	if err != nil {
		return ours(ctx, err)
	}
	v.remember(s, labelOf(g), g.Refresh)
	v.destroy(ctx, gone) // what fails is in the rows, for Sweep
	// The grant is stored, whatever becomes of the log's old pages; they are
	// overwritten with the next of many writes.
	v.db.Scrub(ctx)
	return nil
}

// storable reports the first thing for which g cannot be stored in that state.
func storable(g mandate.Grant, state mandate.State) error {
	switch {
	case g.Key.Cloud == "" || g.Key.Application.IsZero() || g.Key.Partner.IsZero():
		return mandate.Invalid("key", "is incomplete")
	case g.State != state:
		return mandate.Invalid("state", "is %q and not %q", g.State, state)
	case g.Origin != "" && g.Origin != mandate.OriginConsent && g.Origin != mandate.OriginImport:
		return mandate.Invalid("origin", "is %q, which is none", g.Origin)
	case g.Generation < 1 || g.Version < 1:
		return mandate.Invalid("generation", "and version start at 1")
	case g.Refresh.IsZero():
		return mandate.Invalid("refresh", "is missing: a grant has a refresh token")
	}
	return nil
}

// inOrder runs fn in a transaction that has its place among changes of
// security state, as if it were one, without raising the epoch: where rows are
// locked, it takes the lock that each change takes first.
func (v *SQL) inOrder(ctx context.Context, fn func(*database.Tx) error) error {
	return v.db.Tx(ctx, func(tx *database.Tx) error {
		var epoch int64
		if err := tx.QueryRow(ctx, `SELECT epoch FROM head FOR UPDATE`).Scan(&epoch); err != nil {
			return err
		}
		return fn(tx)
	})
}

// A standing is what a change of a grant must know of one of its generations.
type standing struct {
	generation int64
	state      mandate.State
	user       mandate.Identity
	home       string
	over       bool // a fall-back's or candidate's time is over
}

// standings returns all generations of a grant, in a transaction in which
// nothing else changes their states.
func standings(ctx context.Context, tx *database.Tx, k mandate.GrantKey) ([]standing, error) {
	rows, err := tx.Query(ctx, `SELECT generation, state, user_tenant, user_object, home, fallback_until BETWEEN 1 AND `+nowMS+`
		FROM grants WHERE `+ofGrant+` ORDER BY generation`, keyArgs(k)...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var all []standing
	for rows.Next() {
		var s standing
		var tenant, object string
		if err := rows.Scan(&s.generation, &s.state, &tenant, &object, &s.home, &s.over); err != nil {
			return nil, err
		}
		if err := unmarshalUser(&s.user, tenant, object); err != nil {
			return nil, err
		}
		all = append(all, s)
	}
	return all, rows.Err()
}

func unmarshalUser(u *mandate.Identity, tenant, object string) error {
	if err := u.Tenant.UnmarshalText([]byte(tenant)); err != nil {
		return err
	}
	return u.Object.UnmarshalText([]byte(object))
}

// succeed makes r, the row of g, the active generation.
func succeed(ctx context.Context, tx *database.Tx, g mandate.Grant, r row) ([]destroyed, error) {
	all, err := standings(ctx, tx, g.Key)
	if err != nil {
		return nil, err
	}
	if g.Renewal && !slices.ContainsFunc(all, func(s standing) bool { return s.state == mandate.StateActive }) {
		return nil, mandate.ErrSuperseded
	}
	staged, err := admit(g.Generation, all)
	if err != nil {
		return nil, err
	}
	if err := endTurns(ctx, tx, g.Key); err != nil {
		return nil, err
	}
	gone, err := retire(ctx, tx, g, all)
	if err != nil {
		return nil, err
	}
	if staged {
		if _, err := tx.Exec(ctx, `DELETE FROM grants WHERE `+ofGrant+` AND generation = $4`, keyArgs(g.Key, g.Generation)...); err != nil {
			return nil, err
		}
	}
	return gone, r.insert(ctx, tx)
}

// admit reports whether generation is that of a candidate, or an error unless
// it is that or the next one of a grant that is not suspended.
func admit(generation int64, all []standing) (staged bool, err error) {
	var last int64
	var suspended bool
	for _, s := range all {
		if s.generation == generation && s.state == mandate.StateCandidate && !s.over {
			return true, nil
		}
		last = max(last, s.generation)
		suspended = suspended || s.state == mandate.StateSuspended
	}
	if generation != last+1 || suspended {
		return false, mandate.ErrSuperseded
	}
	return false, nil
}

// retire ends what g replaces. The fall-back goes first: only one can be.
func retire(ctx context.Context, tx *database.Tx, g mandate.Grant, all []standing) ([]destroyed, error) {
	gone, err := end(ctx, tx, g.Key, all, mandate.StateReplaced, mandate.StateFallback, mandate.StateSuspended)
	if err != nil {
		return nil, err
	}
	for _, s := range all {
		if s.state != mandate.StateActive {
			continue
		}
		if g.User != s.user || g.Compromised || g.Origin == mandate.OriginImport {
			more, err := end(ctx, tx, g.Key, all, mandate.StateReplaced, mandate.StateActive)
			return append(gone, more...), err
		}
		_, err := tx.Exec(ctx, `UPDATE grants SET state = 'fallback', since = (SELECT epoch FROM head), fallback_until = `+nowMS+` + $5
			WHERE `+ofGrant+` AND generation = $4`, keyArgs(g.Key, s.generation, mandate.FallbackLife.Milliseconds())...)
		return gone, err
	}
	return gone, nil
}

// end destroys the tokens of all generations in any of the states from, and
// gives them the state to.
func end(ctx context.Context, tx *database.Tx, k mandate.GrantKey, all []standing, to mandate.State, from ...mandate.State) ([]destroyed, error) {
	var gone []destroyed
	for _, s := range all {
		if !slices.Contains(from, s.state) {
			continue
		}
		_, err := tx.Exec(ctx, `UPDATE grants SET state = $5, since = (SELECT epoch FROM head), fallback_until = 0,
			key_id = NULL, ref = '', sealed = NULL WHERE `+ofGrant+` AND generation = $4`, keyArgs(k, s.generation, string(to))...)
		if err != nil {
			return nil, err
		}
		gone = append(gone, destroyed{k, s.generation, s.home})
	}
	return gone, nil
}

// stage adds r, the row of g, as the candidate.
func stage(ctx context.Context, tx *database.Tx, g mandate.Grant, r row) ([]destroyed, error) {
	all, err := standings(ctx, tx, g.Key)
	if err != nil {
		return nil, err
	}
	var last int64
	for _, s := range all {
		last = max(last, s.generation)
	}
	if g.Generation != last+1 {
		return nil, mandate.ErrSuperseded
	}
	gone, err := end(ctx, tx, g.Key, all, mandate.StateDiscarded, mandate.StateCandidate)
	if err != nil {
		return nil, err
	}
	return gone, r.insert(ctx, tx)
}
