package vault

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"encoding/json"
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
			t, err := v.take(ctx, id, w.Key, r.fence)
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
// token has taken the turn before, and so raised the fence.
func (v *SQL) take(ctx context.Context, id []byte, k mandate.TokenKey, fence int64) (mandate.Turn, error) {
	t := mandate.Turn{Key: k, Owner: v.replica + "-" + rand.Text()}
	args := keyArgs(k.Grant, id, t.Owner, mandate.TurnLease.Milliseconds(), fence)
	err := v.turnWrite(ctx, func(tx *database.Tx) error {
		return tx.QueryRow(ctx, `INSERT INTO turns (cloud, application, partner, id, owner, fence, lease, epoch, expires, fingerprint)
			VALUES ($1, $2, $3, $4, $5, `+nowMS+`, `+nowMS+` + $6, 0, 0, '')
			ON CONFLICT (id) DO UPDATE SET owner = excluded.owner, fence = turns.fence + 1, lease = excluded.lease
				WHERE turns.fence = $7 AND (turns.owner = '' OR turns.lease <= `+nowMS+`)
			RETURNING fence`, args...).Scan(&t.Fence)
	})
	if errors.Is(err, sql.ErrNoRows) {
		return mandate.Turn{}, nil
	}
	return t, err
}

// turnWrite runs a write that need not survive a crash: who had a turn then
// is gone, too, and its lease ends by itself.
func (v *SQL) turnWrite(ctx context.Context, fn func(*database.Tx) error) error {
	return v.db.Tx(ctx, fn)
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

// Release implements [mandate.Turns].
func (v *SQL) Release(ctx context.Context, t mandate.Turn) error {
	err := v.turnWrite(ctx, func(tx *database.Tx) error {
		_, err := tx.Exec(ctx, `UPDATE turns SET owner = '' WHERE id = $1 AND owner = $2 AND fence = $3`, idOf(t.Key), t.Owner, t.Fence)
		return err
	})
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

// A reading is the time of the database's clock at a time of ours, or a little
// before.
type reading struct {
	now int64
	at  time.Time
}

// A sharedToken is what is sealed of a token: all of it, so that nobody can
// add to its scopes or to its life. Its fields are not of type
// [mandate.Secret], which does not marshal.
type sharedToken struct {
	Access      string          `json:"access"`
	Scopes      []mandate.Scope `json:"scopes"`
	Generation  int64           `json:"generation"`
	Fingerprint string          `json:"fingerprint"`
	UTI         string          `json:"uti"`
	Correlation string          `json:"correlation"`
}

// labelOfToken binds a shared token to its place, its epoch and its end. There
// is no version: what is in the row is whatever was stored last, and an older
// token of the same epoch is worth no more than its own end.
func labelOfToken(k mandate.TokenKey, epoch, expires int64) label {
	return label{
		key: k.Grant, kind: kindAccess, generation: k.Generation,
		tenant: k.Tenant, audience: k.Audience, scopes: k.Scopes, claims: k.Claims, epoch: epoch, expires: expires,
	}
}

// shareable seals the token of k for others. Its end is stored by the
// database's clock, so that no replica's clock matters.
func (v *SQL) shareable(ctx context.Context, k *mandate.Keep) (shareable, error) {
	s := shareable{keep: k, id: idOf(k.Turn.Key)}
	if k.Token == nil || v.shared == nil {
		return s, nil
	}
	c, err := v.databaseClock(ctx)
	if err != nil {
		return s, err
	}
	s.expires = c.now + k.Token.Expires.Sub(c.at).Milliseconds()
	s.fingerprint = k.Token.Fingerprint
	if s.expires <= 0 {
		return s, nil
	}
	text, err := json.Marshal(sharedToken{
		k.Token.Access.Reveal(), k.Token.Scopes, k.Token.Generation, k.Token.Fingerprint, k.Token.UTI, k.Token.CorrelationID})
	if err != nil {
		return s, err
	}
	s.token, err = seal(ctx, v.shared, labelOfToken(k.Turn.Key, k.Epoch, s.expires), mandate.NewSecret(string(text)))
	return s, err
}

// databaseClock returns the last reading of the database's clock. Every turn
// that was taken here brought one; the clocks' drift since is nothing.
func (v *SQL) databaseClock(ctx context.Context) (reading, error) {
	if c := v.clock.Load(); c != nil && time.Since(c.at) < time.Minute {
		return *c, nil
	}
	var c reading
	if err := v.db.QueryRow(ctx, `SELECT `+nowMS).Scan(&c.now); err != nil {
		return c, unavailable(ctx, err)
	}
	c.at = time.Now()
	v.clock.Store(&c)
	return c, nil
}

// token returns the token in r if it will do. One that does not open is no
// token: it is redeemed again, which harms nobody but whoever altered it.
func (v *SQL) token(ctx context.Context, r *turn, w *mandate.Wanted) *mandate.Token {
	remaining := time.Duration(r.expires-r.now) * time.Millisecond
	if len(r.sealed) == 0 || remaining <= max(w.AtLeast, 0) || r.epoch < w.Since || !r.since.Valid || r.epoch < r.since.Int64 {
		return nil
	}
	if w.Not != "" && r.fingerprint == w.Not {
		return nil
	}
	t, err := v.openToken(ctx, r, w.Key)
	if err != nil || t.Fingerprint != r.fingerprint {
		return nil
	}
	return &mandate.Token{
		Access: mandate.NewSecret(t.Access), Expires: r.asked.Add(remaining),
		Tenant: w.Key.Tenant, Audience: w.Key.Audience, Scopes: t.Scopes, Generation: t.Generation,
		Fingerprint: t.Fingerprint, UTI: t.UTI, CorrelationID: t.Correlation,
	}
}

func (v *SQL) openToken(ctx context.Context, r *turn, k mandate.TokenKey) (sharedToken, error) {
	var t sharedToken
	s, err := parseSealed(r.keyID.String, r.sealed)
	if err != nil {
		return t, err
	}
	text, err := s.open(ctx, v.shared, labelOfToken(k, r.epoch, r.expires))
	if err != nil {
		return t, err
	}
	if err := json.Unmarshal([]byte(text.Reveal()), &t); err != nil {
		return t, fmt.Errorf("read shared token: %w", err)
	}
	return t, nil
}
