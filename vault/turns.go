package vault

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"slices"
	"time"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/internal/database"
)

const (
	// Lease is how long a turn is its owner's, by the database's clock. The
	// owner extends it, so that it ends early only for replicas that died.
	Lease = mandate.TurnLease

	// turnPoll is the longest that a replica waits before it looks again
	// whether another's turn is over.
	turnPoll = 100 * time.Millisecond

	// turnGrace is for how long after its lease a row of no use is left, so
	// that fences go on growing: a new row's first is the time.
	turnGrace = 10 * time.Minute
)

// idOf is the name of a token among turns.
func idOf(k mandate.TokenKey) []byte {
	sum := sha256.Sum256(lengthPrefixed(
		[]byte("mandate token"), []byte(k.Grant.Cloud), []byte(k.Grant.Application.String()), []byte(k.Grant.Partner.String()),
		number(k.Generation), []byte(k.Tenant.String()), []byte(k.Audience),
		lengthPrefixed(texts(slices.Sorted(slices.Values(k.Scopes)))...), []byte(k.Claims)))
	return sum[:]
}

// A turn is one row of the table turns, at one time of the database's clock.
type turn struct {
	owner          string
	fence, lease   int64
	epoch, expires int64
	fingerprint    string
	keyID          sql.NullString
	sealed         []byte
	since          sql.NullInt64 // of the grant's generation; null if that serves no more
	now            int64
	asked          time.Time // before that time was read
}

// Take implements [mandate.Turns].
func (v *SQL) Take(ctx context.Context, w mandate.Wanted) (mandate.Turn, *mandate.Token, error) {
	if v.shared == nil {
		return mandate.Turn{}, nil, errors.New("take turn: this vault shares no tokens; it was made without a key for them")
	}
	id := idOf(w.Key)
	others := waiter{name: nameOfTurn(id)}
	defer others.done()
	for {
		r, err := v.turn(ctx, id, w.Key)
		if err != nil {
			return mandate.Turn{}, nil, wrap("take turn", unavailable(ctx, err))
		}
		if t := v.token(ctx, &r, &w); t != nil {
			return mandate.Turn{}, t, nil
		}
		if r.owner == "" || r.lease <= r.now {
			t, err := v.take(ctx, id, w.Key, &r)
			if err != nil {
				return mandate.Turn{}, nil, wrap("take turn", unavailable(ctx, err))
			}
			if t.Owner != "" {
				return t, nil, nil
			}
			continue // somebody else was faster; what that one did may be all that is needed
		}
		if err := others.wait(ctx, v); err != nil {
			return mandate.Turn{}, nil, wrap("take turn", err)
		}
	}
}

// turn reads how things stand; an absent row is one with fence 0. What time it
// is is learned in either case.
func (v *SQL) turn(ctx context.Context, id []byte, k mandate.TokenKey) (turn, error) {
	r := turn{asked: time.Now()}
	err := v.db.QueryRow(ctx, `SELECT n.now, coalesce(t.owner, ''), coalesce(t.fence, 0), coalesce(t.lease, 0), coalesce(t.epoch, 0),
			coalesce(t.expires, 0), coalesce(t.fingerprint, ''), t.key_id, t.sealed,
			(SELECT since FROM grants WHERE `+ofGrant+` AND generation = $4 AND state = 'active')
		FROM (SELECT `+nowMS+` AS now) n LEFT JOIN turns t ON t.id = $5`, keyArgs(k.Grant, k.Generation, id)...).
		Scan(&r.now, &r.owner, &r.fence, &r.lease, &r.epoch, &r.expires, &r.fingerprint, &r.keyID, &r.sealed, &r.since)
	if err == nil {
		v.clock.Store(&reading{r.now, time.Now()})
	}
	return r, err
}

// take takes the turn, if the row is still as it was read: whoever stores a
// token has taken the turn before, and so raised the fence. A new row's fence
// is the time, and so larger than that of any row which was swept away.
//
// The write survives a crash, and need not: it is one statement, and for that
// no commit can be made to return earlier.
func (v *SQL) take(ctx context.Context, id []byte, k mandate.TokenKey, r *turn) (mandate.Turn, error) {
	t := mandate.Turn{Key: k, Owner: v.replica + "-" + rand.Text(), Fence: r.fence + 1}
	if r.fence == 0 {
		t.Fence = r.now
	}
	n, err := v.db.Exec(ctx, `INSERT INTO turns (cloud, application, partner, id, owner, fence, lease, epoch, expires, fingerprint)
		VALUES ($1, $2, $3, $4, $5, $6, `+nowMS+` + $7, 0, 0, '')
		ON CONFLICT (id) DO UPDATE SET owner = excluded.owner, fence = excluded.fence, lease = excluded.lease
			WHERE turns.fence = $8 AND (turns.owner = '' OR turns.lease <= `+nowMS+`)`,
		keyArgs(k.Grant, id, t.Owner, t.Fence, mandate.TurnLease.Milliseconds(), r.fence)...)
	if err != nil || n == 0 {
		return mandate.Turn{}, err
	}
	return t, nil
}

// topicTurn is the topic of the notices that a turn is over.
const topicTurn = "turn"

// A waiter waits for a turn that another has.
type waiter struct {
	name    string // of the turn, in notices
	notices <-chan string
	cancel  func()
}

// wait returns after a moment, or as soon as the turn is over. Notices may be
// lost; looking again is what one can rely on.
func (w *waiter) wait(ctx context.Context, v *SQL) error {
	if w.notices == nil {
		w.notices, w.cancel = v.db.Subscribe(topicTurn)
		return nil // what happened before is in no notice: look once more
	}
	timer := time.NewTimer(turnPoll/2 + mathrand.N(turnPoll/2))
	defer timer.Stop()
	for {
		select {
		case name := <-w.notices:
			if name == w.name {
				return nil
			}
		case <-timer.C:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (w *waiter) done() {
	if w.cancel != nil {
		w.cancel()
	}
}

// ended tells those who wait for a turn that it is over, as well as it can.
func (v *SQL) ended(ctx context.Context, t mandate.Turn) {
	v.db.Notify(ctx, topicTurn, nameOfTurn(idOf(t.Key)))
}

func nameOfTurn(id []byte) string { return hex.EncodeToString(id[:8]) }

// Extend implements [mandate.Turns].
func (v *SQL) Extend(ctx context.Context, t mandate.Turn) error {
	n, err := v.db.Exec(ctx, `UPDATE turns SET lease = `+nowMS+` + $1 WHERE id = $2 AND owner = $3 AND fence = $4`,
		mandate.TurnLease.Milliseconds(), idOf(t.Key), t.Owner, t.Fence)
	if err == nil && n == 0 {
		return fmt.Errorf("extend turn: %w", mandate.ErrSuperseded)
	}
	return wrap("extend turn", unavailable(ctx, err))
}

// Release implements [mandate.Turns].
func (v *SQL) Release(ctx context.Context, t mandate.Turn) error {
	_, err := v.db.Exec(ctx, `UPDATE turns SET owner = '' WHERE id = $1 AND owner = $2 AND fence = $3`, idOf(t.Key), t.Owner, t.Fence)
	if err == nil {
		v.ended(ctx, t)
	}
	return wrap("release turn", unavailable(ctx, err))
}

// endTurns takes all turns of a grant from their owners and destroys what was
// shared. The rows stay, so that their fences do.
func endTurns(ctx context.Context, tx *database.Tx, k mandate.GrantKey) error {
	_, err := tx.Exec(ctx, `UPDATE turns SET owner = '', epoch = 0, expires = 0, fingerprint = '', key_id = NULL, sealed = NULL
		WHERE `+ofGrant, keyArgs(k)...)
	return err
}
