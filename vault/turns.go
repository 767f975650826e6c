package vault

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
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

// topicTurn is the topic of the notices that a turn is over.
const topicTurn = "turn"

// A waiter waits for a turn that another has.
type waiter struct {
	id      []byte // of the turn
	fence   int64  // of which the owner knows that somebody waits
	notices <-chan string
	cancel  func()
}

// wait returns after a moment, or as soon as the turn is over. Notices may be
// lost; looking again is what one can rely on.
func (w *waiter) wait(ctx context.Context, v *SQL, r *turn) error {
	if w.notices == nil {
		w.notices, w.cancel = v.db.Subscribe(topicTurn)
	}
	if w.fence != r.fence {
		// What happened before is in no notice: look once more.
		w.fence = r.fence
		_, err := v.db.ExecSoon(ctx, `UPDATE turns SET waited = true WHERE id = $1 AND owner = $2 AND fence = $3`, w.id, r.owner, r.fence)
		return unavailable(ctx, err)
	}
	timer := time.NewTimer(turnPoll/2 + mathrand.N(turnPoll/2))
	defer timer.Stop()
	for {
		select {
		case name := <-w.notices:
			if name == nameOfTurn(w.id) {
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
	n, err := v.db.ExecSoon(ctx, `UPDATE turns SET lease = `+nowMS+` + $1 WHERE id = $2 AND owner = $3 AND fence = $4`,
		mandate.TurnLease.Milliseconds(), idOf(t.Key), t.Owner, t.Fence)
	if err == nil && n == 0 {
		return fmt.Errorf("extend turn: %w", mandate.ErrSuperseded)
	}
	return wrap("extend turn", unavailable(ctx, err))
}

// Release implements [mandate.Turns].
func (v *SQL) Release(ctx context.Context, t mandate.Turn) error {
	_, err := v.db.ExecSoon(ctx, `UPDATE turns SET owner = '' WHERE id = $1 AND owner = $2 AND fence = $3`, idOf(t.Key), t.Owner, t.Fence)
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
