package vault

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"time"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/internal/database"
)

// The arguments of all that follows: $1 to $3 the grant, $4 the generation, $5
// the turn's id, $6 its owner to be, $7 the lease, $8 how long a token must
// live, $9 the epoch that it must not be older than, $10 and $11 fingerprints
// of tokens that will not do.
const (
	held = `(turns.owner <> '' AND turns.lease > ` + nowMS + `)`

	// lasts is the part of useful that the row of the turn tells.
	lasts = `(turns.expires - ` + nowMS + ` > $8 AND turns.epoch >= $9
		AND turns.fingerprint <> $10 AND turns.fingerprint <> $11)`

	useful = `coalesce(` + lasts + ` AND turns.epoch >= (SELECT since FROM grants WHERE ` + serving + `), false)`

	// taking takes a turn that nobody has, if there is no token that will do.
	// Whoever only waits or looks writes nothing and locks nothing. The
	// condition is looked at again on the row itself, which somebody else may
	// have had meanwhile. A new row's fence is the time, and so larger than
	// that of any row which was swept away.
	taking = `INSERT INTO turns (cloud, application, partner, id, owner, fence, lease, epoch, expires, fingerprint)
		SELECT $1, $2, $3, $5, $6, ` + nowMS + `, ` + nowMS + ` + $7, 0, 0, ''
		WHERE NOT EXISTS (SELECT 1 FROM turns WHERE id = $5 AND (` + held + ` OR ` + useful + `))
		ON CONFLICT (id) DO UPDATE SET owner = excluded.owner, fence = turns.fence + 1, lease = excluded.lease, waited = false
			WHERE NOT ` + held + ` AND NOT ` + useful + `
		RETURNING fence`

	// stands is how things stood: the time, the turn with its token if that
	// is useful, and the grant from which to redeem.
	stands = `n.now, coalesce(turn_owner, ''), coalesce(fence, 0), coalesce(lease, 0), coalesce(epoch, 0), coalesce(expires, 0),
			coalesce(fingerprint, ''), turn_key, turn_sealed, ` + columns + `
		FROM (SELECT ` + nowMS + ` AS now) n
		LEFT JOIN (SELECT owner AS turn_owner, fence, lease, epoch, expires, fingerprint, key_id AS turn_key,
			CASE WHEN ` + useful + ` THEN sealed END AS turn_sealed FROM turns WHERE id = $5) t ON true
		LEFT JOIN (SELECT ` + columns + ` FROM grants WHERE ` + ofGrant + ` AND generation = $4 AND state = 'active') g ON true`

	// takeAtOnce is both in one statement, and so one exchange with
	// PostgreSQL. That a turn was taken need not survive a crash, so it is
	// not waited for: then another replica takes it, and of two with the same
	// turn only the owner that is stored can keep anything.
	takeAtOnce = `WITH taken AS (` + taking + `)
		SELECT (SELECT fence FROM taken), set_config('synchronous_commit', 'off', true), ` + stands

	// look changes nothing. The end is for PostgreSQL, which wants to know the
	// types of all arguments.
	look = `SELECT 0, '', ` + stands + ` WHERE $6 <> '' AND $7 > 0`

	// takeAgain is takeAtOnce of turns whose rows are there, as they are
	// whenever a token is renewed, of several callers; see [database.Gather].
	// It leaves a turn alone that is another's, or just locked, or for which
	// there is a token that may do.
	takeAgain = `free AS (
			SELECT n FROM calls JOIN turns ON turns.id = $5 AND NOT ` + held + ` AND NOT ` + lasts + `
			FOR UPDATE OF turns SKIP LOCKED),
		taken AS (
			UPDATE turns SET owner = $6, fence = turns.fence + 1, lease = ` + nowMS + ` + $7, waited = false
			FROM calls JOIN free USING (n) WHERE turns.id = $5
			RETURNING n, turns.fence)
		SELECT fence, set_config('synchronous_commit', 'off', true), ` + nowMS + `, '', 0, 0, 0, 0, '', NULL, NULL::bytea, ` + columns + `
		FROM calls LEFT JOIN taken USING (n) LEFT JOIN grants ON taken.n IS NOT NULL AND ` + serving + ` ORDER BY n`

	serving = ofGrant + ` AND generation = $4 AND state = 'active'`
)

// A turn is one row of the table turns, at one time of the database's clock,
// and the grant's row.
type turn struct {
	taken          int64 // the fence with which it was taken; 0 if it was not
	owner          string
	fence, lease   int64
	epoch, expires int64
	fingerprint    string
	keyID          sql.NullString
	sealed         []byte // of a token that is likely to do, or nil
	grant          row    // its generation is 0 if that serves no more
	now            int64
	asked          time.Time // before that time was read
}

// Take implements [mandate.Turns].
func (v *SQL) Take(ctx context.Context, w mandate.Wanted) (mandate.Turn, *mandate.Token, error) {
	if v.shared == nil {
		return mandate.Turn{}, nil, wrap("take turn", errNotShared)
	}
	w.AtLeast = max(w.AtLeast, 0)
	id, unreadable := idOf(w.Key), ""
	others := waiter{id: id}
	defer others.done()
	for {
		owner := v.replica + "-" + rand.Text()
		r, err := v.turn(ctx, id, &w, owner, unreadable)
		if err != nil {
			return mandate.Turn{}, nil, wrap("take turn", unavailable(ctx, err))
		}
		if r.taken != 0 {
			return mandate.Turn{Key: w.Key, Owner: owner, Fence: r.taken, Grant: v.openedIn(ctx, &r)}, nil, nil
		}
		if t := v.token(ctx, &r, &w); t != nil {
			return mandate.Turn{}, t, nil
		}
		switch {
		case len(r.sealed) > 0:
			unreadable = r.fingerprint
		case r.owner != "" && r.lease > r.now:
			err = others.wait(ctx, v, &r)
		} // otherwise somebody was faster; what that one did may be all that is needed
		if err != nil {
			return mandate.Turn{}, nil, wrap("take turn", err)
		}
	}
}

// Shared implements [mandate.Turns].
func (v *SQL) Shared(ctx context.Context, w mandate.Wanted) (*mandate.Token, error) {
	if v.shared == nil {
		return nil, errNotShared
	}
	w.AtLeast = max(w.AtLeast, 0)
	r := turn{asked: time.Now()}
	err := r.scan(v.db.QueryRow(ctx, look, takeArgs(idOf(w.Key), &w, v.replica, "")...).Scan)
	if err != nil {
		return nil, wrap("look for a token", unavailable(ctx, err))
	}
	return v.token(ctx, &r, &w), nil
}

var errNotShared = errors.New("this vault shares no tokens; it was made without a key for them")

// turn takes the turn if that is free and needed, and reads how things stood
// before; an absent row is one with fence 0. What time it is is learned in any
// case.
func (v *SQL) turn(ctx context.Context, id []byte, w *mandate.Wanted, owner, unreadable string) (turn, error) {
	asked := time.Now()
	args := takeArgs(id, w, owner, unreadable)
	var r turn
	var err error
	if v.db.WritesInWith() {
		r, err = v.takes.Do(ctx, args...)
		if err == nil && r.taken == 0 {
			err = r.scan(func(dest ...any) error { return v.db.Returning(ctx, dest, takeAtOnce, args...) })
		}
	} else {
		err = v.db.Tx(ctx, func(tx *database.Tx) error { return r.take(ctx, tx, args) })
	}
	r.asked = asked
	if err == nil {
		v.clock.Store(&reading{r.now, time.Now()})
	}
	return r, err
}

func takeArgs(id []byte, w *mandate.Wanted, owner, unreadable string) []any {
	return keyArgs(w.Key.Grant, w.Key.Generation, id, owner, mandate.TurnLease.Milliseconds(), w.AtLeast.Milliseconds(), w.Since, w.Not, unreadable)
}

// take is takeAtOnce in two statements.
func (r *turn) take(ctx context.Context, tx *database.Tx, args []any) error {
	if err := r.scan(tx.QueryRow(ctx, look, args...).Scan); err != nil {
		return err
	}
	err := tx.QueryRow(ctx, taking, args...).Scan(&r.taken)
	if errors.Is(err, sql.ErrNoRows) {
		return nil
	}
	return err
}

var takeTypes = []string{"text", "text", "text", "bigint", "bytea", "text", "bigint", "bigint", "bigint", "text", "text"}

func scanTurn(row database.Scan) (r turn, err error) {
	err = r.scan(row)
	return r, err
}

func (r *turn) scan(scan database.Scan) error {
	var taken sql.NullInt64
	err := r.grant.scan(func(grant ...any) error {
		return scan(append([]any{&taken, new(any), &r.now, &r.owner, &r.fence, &r.lease, &r.epoch, &r.expires, &r.fingerprint, &r.keyID, &r.sealed},
			orZero(grant)...)...)
	})
	r.taken = taken.Int64
	return err
}

// openedIn returns the grant from which to redeem, so that nobody has to ask
// for it again; zero if there is none, or it is in a home, or it cannot be
// opened, of which [SQL.Open] says why.
func (v *SQL) openedIn(ctx context.Context, r *turn) mandate.Grant {
	if r.grant.home != "" {
		return mandate.Grant{}
	}
	g, err := v.open(ctx, &r.grant)
	if err != nil {
		return mandate.Grant{}
	}
	return g
}

// orZero returns destinations for the same columns, which may be null.
func orZero(dest []any) []any {
	for i, d := range dest {
		switch d := d.(type) {
		case *string:
			dest[i] = nullable[string]{d}
		case *int64:
			dest[i] = nullable[int64]{d}
		}
	}
	return dest
}

// nullable scans null as zero.
type nullable[T any] struct{ dest *T }

// Scan implements [sql.Scanner].
func (n nullable[T]) Scan(value any) error {
	var v sql.Null[T]
	err := v.Scan(value)
	*n.dest = v.V
	return err
}
