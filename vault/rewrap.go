package vault

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
)

// A KeyUse says how much is sealed under one key-encryption key.
type KeyUse struct {
	KeyID  string
	Grants int // refresh tokens
	Tokens int // shared access tokens; they are gone by themselves within hours
}

// Keys returns how much is sealed under each key, by ID. A key with which
// nothing is sealed any more is needed for backups only.
func (v *SQL) Keys(ctx context.Context) ([]KeyUse, error) {
	uses := make(map[string]*KeyUse)
	for _, of := range []struct {
		table string
		count func(*KeyUse) *int
	}{
		{"grants", func(u *KeyUse) *int { return &u.Grants }},
		{"turns", func(u *KeyUse) *int { return &u.Tokens }},
	} {
		counts, err := v.countKeys(ctx, of.table)
		if err != nil {
			return nil, wrap("count keys", unavailable(ctx, err))
		}
		for id, n := range counts {
			if uses[id] == nil {
				uses[id] = &KeyUse{KeyID: id}
			}
			*of.count(uses[id]) = n
		}
	}
	var all []KeyUse
	for _, id := range slices.Sorted(maps.Keys(uses)) {
		all = append(all, *uses[id])
	}
	return all, nil
}

// countKeys counts the sealed values of one of our tables by key.
func (v *SQL) countKeys(ctx context.Context, table string) (map[string]int, error) {
	rows, err := v.db.Query(ctx, `SELECT key_id, count(*) FROM `+table+` WHERE key_id IS NOT NULL GROUP BY key_id`)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	counts := make(map[string]int)
	for rows.Next() {
		var id string
		var n int
		if err := rows.Scan(&id, &n); err != nil {
			return nil, err
		}
		counts[id] = n
	}
	return counts, rows.Err()
}

// rewrapRounds is how often Rewrap looks for what others stored meanwhile.
const rewrapRounds = 3

// Rewrap brings everything that is sealed under another key than the current
// one under that, while the vault is in use: every grant opens at every moment.
// It may be stopped at any time and begun again. progress, which may be nil, is
// told how far it is.
//
// Only wrapped data keys are changed. If compromised, because whoever has the
// old key may have the data keys too, everything is sealed anew and shared
// tokens are destroyed; make a new key first, because what is under the current
// one is left as it is. Neither mends that old ciphertext opens with the old
// key: in backups, in the database's log, in a home's earlier versions.
//
// What could not be brought over is in the error; the rest is done.
func (v *SQL) Rewrap(ctx context.Context, compromised bool, progress func(done, total int)) error {
	current, err := currentKey(ctx, v.key)
	if err != nil {
		return err
	}
	if err := v.rewrapTokens(ctx, compromised); err != nil {
		return wrap("rewrap shared tokens", err)
	}
	var left []row
	for range rewrapRounds {
		if left, err = v.rows(ctx, `SELECT `+columns+` FROM grants WHERE key_id <> $1 ORDER BY cloud, application, partner, generation`, current); err != nil || len(left) == 0 {
			return wrap("rewrap grants", err)
		}
		if err := v.rewrapGrants(ctx, left, current, compromised, progress); err != nil {
			return wrap("rewrap grants", err)
		}
	}
	return fmt.Errorf("rewrap grants: %d were sealed under another key than %q meanwhile; a replica still uses that", len(left), current)
}

func (v *SQL) rewrapGrants(ctx context.Context, all []row, current string, compromised bool, progress func(done, total int)) error {
	var errs []error
	for i, r := range all {
		if ctx.Err() != nil {
			return errors.Join(append(errs, ctx.Err())...)
		}
		if err := v.rewrapRow(ctx, r, current, compromised); err != nil {
			errs = append(errs, fmt.Errorf("generation %d of partner %s: %w", r.generation, r.partner, err))
		}
		if progress != nil {
			progress(i+1, len(all))
		}
	}
	return errors.Join(errs...)
}

// rewrapRow brings one row's token under the current key. The update is
// conditional on the version, so that a rotation meanwhile wins; what that
// stored is found again if it is under an old key.
func (v *SQL) rewrapRow(ctx context.Context, r row, current string, compromised bool) error {
	blob, err := v.blobOf(ctx, &r)
	if err != nil {
		return v.unlessMoved(ctx, &r, err)
	}
	old, err := parseSealed(r.keyID.String, blob)
	if err != nil {
		return err
	}
	g, err := r.grant()
	if err != nil {
		return err
	}
	renewed, err := renew(ctx, v.key, old, labelOf(g), compromised)
	if err != nil {
		return err
	}
	if renewed.keyID != current {
		return fmt.Errorf("the current key changed from %q to %q meanwhile; begin again", current, renewed.keyID)
	}
	s, err := v.put(ctx, r.home, labelOf(g), renewed)
	if err != nil {
		return err
	}
	_, err = v.db.Exec(ctx, `UPDATE grants SET sealed = $5, key_id = $6, ref = $7
		WHERE `+ofGrant+` AND generation = $4 AND version = $8 AND key_id = $9 AND home = $10 AND ref = $11`,
		keyArgs(g.Key, r.generation, orNull(s.blob), s.keyID, s.ref, r.version, r.keyID.String, r.home, r.ref)...)
	return unavailable(ctx, err)
}

// unlessMoved returns err unless the row has a later token by now, whose
// earlier one may be gone from its home.
func (v *SQL) unlessMoved(ctx context.Context, r *row, err error) error {
	again, rerr := v.rows(ctx, `SELECT `+columns+` FROM grants WHERE `+ofGrant+` AND generation = $4`, r.cloud, r.application, r.partner, r.generation)
	if rerr == nil && len(again) == 1 && (again[0].version != r.version || again[0].ref != r.ref || again[0].home != r.home) {
		return nil
	}
	return err
}

// renew returns what is sealed in s under the current key of w; anew, it gets
// another data key.
func renew(ctx context.Context, w KeyWrapper, s sealed, l label, anew bool) (sealed, error) {
	if anew {
		secret, err := s.open(ctx, w, l)
		if err != nil {
			return sealed{}, err
		}
		return seal(ctx, w, l, secret)
	}
	plain, err := w.Unwrap(ctx, s.keyID, s.wrapped)
	if err != nil {
		return sealed{}, fmt.Errorf("unwrap data key: %w", err)
	}
	defer clear(plain)
	// What else was wrapped would be no data key, and must not become one.
	if len(plain) != wrappedSize {
		return sealed{}, errMoved
	}
	keyID, wrapped, err := wrapKey(ctx, w, plain)
	return sealed{s.format, keyID, wrapped, s.box}, err
}

// rewrapTokens brings the shared tokens under the current key, or destroys
// them: they cost one redemption each.
func (v *SQL) rewrapTokens(ctx context.Context, compromised bool) error {
	if v.shared == nil {
		return nil
	}
	current, err := currentKey(ctx, v.shared)
	if err != nil {
		return err
	}
	if compromised {
		_, err := v.db.Exec(ctx, `UPDATE turns SET epoch = 0, expires = 0, fingerprint = '', key_id = NULL, sealed = NULL WHERE key_id <> $1`, current)
		return unavailable(ctx, err)
	}
	all, err := v.sharedTokens(ctx, current)
	if err != nil {
		return unavailable(ctx, err)
	}
	for _, t := range all {
		if err := v.rewrapToken(ctx, t); err != nil {
			return err
		}
	}
	return nil
}

// A storedToken is a shared token as it is stored.
type storedToken struct {
	id, sealed     []byte
	keyID          string
	epoch, expires int64
}

// sharedTokens returns the tokens that are under other keys than one.
func (v *SQL) sharedTokens(ctx context.Context, but string) ([]storedToken, error) {
	rows, err := v.db.Query(ctx, `SELECT id, key_id, sealed, epoch, expires FROM turns WHERE key_id <> $1 AND expires > `+nowMS, but)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var all []storedToken
	for rows.Next() {
		var t storedToken
		if err := rows.Scan(&t.id, &t.keyID, &t.sealed, &t.epoch, &t.expires); err != nil {
			return nil, err
		}
		all = append(all, t)
	}
	return all, rows.Err()
}

// rewrapToken brings one under the current key. One that does not unwrap is of
// no use to anybody, and is left to expire.
func (v *SQL) rewrapToken(ctx context.Context, t storedToken) error {
	s, err := parseSealed(t.keyID, t.sealed)
	if err != nil {
		return nil
	}
	s, err = renew(ctx, v.shared, s, label{}, false)
	if err != nil {
		return ctx.Err()
	}
	_, err = v.db.Exec(ctx, `UPDATE turns SET sealed = $1, key_id = $2 WHERE id = $3 AND key_id = $4 AND epoch = $5 AND expires = $6`,
		s.blob(), s.keyID, t.id, t.keyID, t.epoch, t.expires)
	return unavailable(ctx, err)
}
