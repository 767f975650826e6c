package vault

import (
	"context"
	"errors"
	"fmt"
	"slices"
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

// endAtOnce is one statement with what others end at the same time, and so one
// exchange with PostgreSQL and one commit for all of them. It stores all that
// there is to store or does nothing. Then a transaction finds out why.
func (v *SQL) endAtOnce(ctx context.Context, s *shareable, next *stored) (waited bool, err error) {
	e, err := v.endTogether(ctx, s, next)
	switch {
	case err != nil || e.ended:
		return e.waited, err
	case next != nil:
		return true, v.store(ctx, s.keep, *next, s)
	}
	return true, v.db.Tx(ctx, func(tx *database.Tx) error { return s.store(ctx, tx) })
}

func (v *SQL) endTogether(ctx context.Context, s *shareable, next *stored) (ending, error) {
	k := s.keep
	args := keyArgs(k.Grant.Key, s.id, k.Turn.Owner, k.Turn.Fence, k.Grant.Generation, k.Epoch,
		s.expires, s.fingerprint, s.token.keyID, s.token.blob())
	if next == nil {
		return v.ends.Do(ctx, args...)
	}
	return v.endsBoth.Do(ctx, append(args, next.blob, next.keyID, next.ref, time.Now().UnixMilli(), k.Grant.Version)...)
}

// An ending is what came of the end of a turn.
type ending struct {
	ended  bool
	waited bool // somebody waited for it
}

func scanEnding(row database.Scan) (e ending, err error) {
	err = row(&e.ended, &e.waited)
	return e, err
}

// The statements that end several turns; see [database.Gather]. Whatever they
// change they lock first, as it is then, and the turn before the grant, as in
// every change. What somebody else has locked they leave alone, and of several
// turns that bring refresh tokens of one grant all but the first.
const (
	mine = `mine AS (
		SELECT n FROM calls JOIN turns ON id = $4 AND owner = $5 AND fence = $6
		WHERE (SELECT epoch FROM head) = $8
		FOR UPDATE OF turns SKIP LOCKED)`

	ended = `ended AS (
		UPDATE turns SET owner = '', epoch = $8, expires = $9, fingerprint = $10, key_id = $11, sealed = $12
		FROM calls JOIN good USING (n) WHERE id = $4
		RETURNING n, waited)
	SELECT ended.n IS NOT NULL, coalesce(waited, false) FROM calls LEFT JOIN ended USING (n) ORDER BY n`

	sameGrant = ofGrant + ` AND generation = $7 AND ` + live + ` AND since <= $8`

	endOne = mine + `,
	good AS (SELECT n FROM calls JOIN mine USING (n) WHERE EXISTS (SELECT 1 FROM grants WHERE ` + sameGrant + `)),
	` + ended

	endBoth = mine + `,
	good AS (
		SELECT n FROM calls JOIN mine USING (n) JOIN grants ON ` + sameGrant + ` AND version = $17
		WHERE n IN (SELECT min(n) FROM calls GROUP BY $1, $2, $3)
		FOR UPDATE OF grants SKIP LOCKED),
	rotated AS (
		UPDATE grants SET sealed = $13, key_id = $14, ref = $15, version = version + 1, redeemed = $16
		FROM calls JOIN good USING (n) WHERE ` + ofGrant + ` AND generation = $7),
	` + ended
)

var (
	endTypes     = []string{"text", "text", "text", "bytea", "text", "bigint", "bigint", "bigint", "bigint", "text", "text", "bytea"}
	endBothTypes = append(slices.Clone(endTypes), "bytea", "text", "text", "bigint", "bigint")
)
