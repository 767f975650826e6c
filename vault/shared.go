package vault

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/mandate-sam/mandate"
)

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
// database's clock, so that no replica's clock matters. If it cannot be sealed
// it is not shared, and others redeem for themselves: that is no reason to
// refuse it to those who wait here.
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
	token, err := seal(ctx, v.shared, labelOfToken(k.Turn.Key, k.Epoch, s.expires), mandate.NewSecret(string(text)))
	if err == nil {
		s.token = token
	}
	return s, nil
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
	if len(r.sealed) == 0 || remaining <= w.AtLeast || r.epoch < w.Since || r.grant.generation == 0 || r.epoch < r.grant.since {
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
