package vault

import (
	"context"
	"database/sql"
	"errors"
	"time"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/internal/database"
)

// live is what a row must be for its token to be redeemed.
const live = `(state = 'active' OR (state = 'fallback' AND fallback_until > ` + nowMS + `))`

// Keep implements [mandate.Vault].
//
// Each comparison is in one statement with the write that it allows, so no
// choice of isolation level can part them. Besides the epoch, a row's own
// since is compared: it is in the very row that is written, and so seen even
// by a statement that began before a change which it then waited for.
//
// The version is part of what a token is sealed for, so the next version's row
// opens only the next token. Where no refresh token is to be stored the version
// does not matter: what was redeemed with an earlier one is as good.
func (v *SQL) Keep(ctx context.Context, k mandate.Keep) error {
	rotates := !k.Next.IsZero() && k.Next.Reveal() != k.Grant.Refresh.Reveal()
	var share *shareable
	if k.Turn.Owner != "" {
		s, err := v.shareable(ctx, &k)
		if err != nil {
			return wrap("share token", err)
		}
		share = &s
	}
	var err error
	switch {
	case rotates:
		err = v.rotate(ctx, &k, share)
	case share != nil:
		err = v.end(ctx, share, nil)
	default:
		err = v.unchanged(ctx, &k)
	}
	return wrap("keep", err)
}

// rotate stores the next refresh token, and the access token with it. Where the
// token is kept cannot change between reading that and the write: [Copy] is a
// change of state.
func (v *SQL) rotate(ctx context.Context, k *mandate.Keep, share *shareable) error {
	l := labelOf(k.Grant)
	l.version++
	home, err := v.homeOfRow(ctx, k.Grant)
	if err != nil {
		return err
	}
	s, err := v.seal(ctx, home, l, k.Next)
	if err != nil {
		return beside(err)
	}
	if share != nil {
		err = v.end(ctx, share, &s)
	} else {
		err = v.store(ctx, k, s, nil)
	}
	if err == nil {
		v.remember(s, l, k.Next)
	}
	return err
}

// beside makes a fault of an error of what is kept beside the database, a key or
// sealed tokens, if that does not answer: so it is left alone for a while, and
// Entra is not asked for what cannot be opened or stored.
func beside(err error) error {
	if !errors.Is(err, mandate.ErrUnavailable) {
		return err
	}
	return &mandate.Fault{Domain: mandate.DomainTransient, Remedy: mandate.RemedyRetry, Description: "what keeps the grant, or the key that opens it, does not answer", Cause: err}
}

// homeOfRow returns where a grant's token is. The next goes there too, so that
// one name has all that is to be destroyed one day.
func (v *SQL) homeOfRow(ctx context.Context, g mandate.Grant) (home string, err error) {
	if len(v.homes) == 0 {
		return "", nil
	}
	err = v.db.QueryRow(ctx, `SELECT coalesce(max(home), '') FROM grants WHERE `+ofGrant+` AND generation = $4`,
		keyArgs(g.Key, g.Generation)...).Scan(&home)
	return home, unavailable(ctx, err)
}

// store is the one commit of a redemption that brought a refresh token. If
// only that was overtaken, the access token is stored all the same.
func (v *SQL) store(ctx context.Context, k *mandate.Keep, s stored, share *shareable) error {
	overtaken := false
	err := v.db.Tx(ctx, func(tx *database.Tx) error {
		overtaken = false // it may run again
		// The turn comes before the grant, as in every change: where rows are
		// locked, two that lock both must do so in the same order.
		if share != nil {
			if err := share.store(ctx, tx); err != nil {
				return err
			}
		}
		n, err := tx.Exec(ctx, `UPDATE grants SET sealed = $4, key_id = $5, ref = $6, version = version + 1, redeemed = $7
			WHERE `+ofGrant+` AND generation = $8 AND version = $9 AND `+live+`
				AND since <= $10 AND (SELECT epoch FROM head) = $10`,
			keyArgs(k.Grant.Key, orNull(s.blob), s.keyID, s.ref, time.Now().UnixMilli(),
				k.Grant.Generation, k.Grant.Version, k.Epoch)...)
		if err != nil || n > 0 {
			return err
		}
		overtaken, err = lost(ctx, tx, k)
		return err
	})
	if err == nil && overtaken {
		err = mandate.ErrRotated
	}
	return ours(ctx, err)
}

// lost tells why a rotation changed nothing: that another was faster, or else
// the error. None of the reasons passes: an epoch only grows, and so do a row's
// version and the generation. The grant stays as it is until the commit, so
// that no access token is left with one that was just suspended.
func lost(ctx context.Context, tx *database.Tx, k *mandate.Keep) (overtaken bool, err error) {
	var version int64
	err = tx.QueryRow(ctx, `SELECT version FROM grants WHERE `+ofGrant+` AND generation = $4 AND version > $5
		AND `+live+` AND since <= $6 AND (SELECT epoch FROM head) = $6 FOR SHARE`,
		keyArgs(k.Grant.Key, k.Grant.Generation, k.Grant.Version, k.Epoch)...).Scan(&version)
	if errors.Is(err, sql.ErrNoRows) {
		return false, mandate.ErrSuperseded
	}
	return err == nil, err
}

// unchanged is Keep of nothing: it says whether the grant is still as it was.
func (v *SQL) unchanged(ctx context.Context, k *mandate.Keep) error {
	var n int64
	err := v.db.QueryRow(ctx, `SELECT count(*) FROM grants WHERE `+ofGrant+` AND generation = $4 AND `+live+`
		AND since <= $5 AND (SELECT epoch FROM head) = $5`, keyArgs(k.Grant.Key, k.Grant.Generation, k.Epoch)...).Scan(&n)
	if err == nil && n == 0 {
		return mandate.ErrSuperseded
	}
	return unavailable(ctx, err)
}
