package vault

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/internal/database"
)

// A shareable is what ends a turn: the token to share, if there is one.
type shareable struct {
	keep        *mandate.Keep
	id          []byte
	expires     int64
	fingerprint string
	token       sealed // its box is nil if there is no token
}

// update is the statement that ends the turn and stores the token, if the turn
// is its owner's still and nothing has changed. Its arguments are $1 to $8, or
// to $12.
func (s *shareable) update() (query string, args []any) {
	k := s.keep
	const given = ` WHERE id = $4 AND owner = $5 AND fence = $6 AND EXISTS (SELECT 1 FROM grants WHERE ` + ofGrant + `
		AND generation = $7 AND ` + live + ` AND since <= $8) AND (SELECT epoch FROM head) = $8`
	args = keyArgs(k.Grant.Key, s.id, k.Turn.Owner, k.Turn.Fence, k.Grant.Generation, k.Epoch)
	if s.token.box == nil {
		return `UPDATE turns SET owner = ''` + given, args
	}
	return `UPDATE turns SET owner = '', epoch = $8, expires = $9, fingerprint = $10, key_id = $11, sealed = $12` + given,
		append(args, s.expires, s.fingerprint, s.token.keyID, s.token.blob())
}

// store ends the turn and stores the token, in one statement, or returns
// [mandate.ErrSuperseded].
func (s *shareable) store(ctx context.Context, tx *database.Tx) error {
	query, args := s.update()
	n, err := tx.Exec(ctx, query, args...)
	if err == nil && n == 0 {
		err = errTurnOver
	}
	return err
}

var errTurnOver = fmt.Errorf("%w, or the turn is another's", mandate.ErrSuperseded)

// end ends a turn, and stores the next refresh token if there is one, with one
// commit. Then it tells those who wait.
func (v *SQL) end(ctx context.Context, s *shareable, next *stored) error {
	waited := true
	var err error
	switch {
	case v.db.WritesInWith() && s.token.box != nil:
		waited, err = v.endAtOnce(ctx, s, next)
	case next != nil:
		err = v.store(ctx, s.keep, *next, s)
	default:
		err = v.db.Tx(ctx, func(tx *database.Tx) error { return s.store(ctx, tx) })
	}
	if waited && (err == nil || errors.Is(err, mandate.ErrRotated)) {
		v.ended(ctx, s.keep.Turn)
	}
	return ours(ctx, err)
}

// endAtOnce is one statement, and so one exchange with PostgreSQL and one
// commit. The turn is locked before the grant, as in every change, because
// what rotates is joined with what was ended. Should the grant have changed in
// between, all of it is undone and tried again.
//
// It stores both tokens or does nothing. Then a transaction finds out why.
func (v *SQL) endAtOnce(ctx context.Context, s *shareable, next *stored) (waited bool, err error) {
	if next == nil {
		query, args := s.update()
		err = v.db.Returning(ctx, []any{&waited}, query+` RETURNING waited`, args...)
		if errors.Is(err, sql.ErrNoRows) {
			err = errTurnOver
		}
		return waited, err
	}
	k := s.keep
	err = v.db.Returning(ctx, []any{&waited, new(any)}, endBoth, keyArgs(k.Grant.Key, s.id, k.Turn.Owner, k.Turn.Fence, k.Grant.Generation, k.Epoch,
		s.expires, s.fingerprint, s.token.keyID, s.token.blob(), orNull(next.blob), next.keyID, next.ref, time.Now().UnixMilli(), k.Grant.Version)...)
	if errors.Is(err, sql.ErrNoRows) {
		return true, v.store(ctx, k, *next, s)
	}
	return waited, err
}

const (
	sameGrant = ofGrant + ` AND generation = $7 AND version = $17 AND ` + live + ` AND since <= $8`

	endBoth = `WITH ended AS (
			UPDATE turns SET owner = '', epoch = $8, expires = $9, fingerprint = $10, key_id = $11, sealed = $12
			WHERE id = $4 AND owner = $5 AND fence = $6 AND EXISTS (SELECT 1 FROM grants WHERE ` + sameGrant + `) AND (SELECT epoch FROM head) = $8
			RETURNING waited),
		rotated AS (
			UPDATE grants SET sealed = $13, key_id = $14, ref = $15, version = version + 1, redeemed = $16
			FROM ended WHERE ` + sameGrant + `
			RETURNING 1)
		SELECT waited, CASE WHEN EXISTS (SELECT 1 FROM rotated) THEN 0 ELSE undo() END FROM ended`
)
