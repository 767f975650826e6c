package vault

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/internal/database"
)

// Copy brings all grants of one vault, of every generation and state, into
// another: another database, other homes, other keys. With the same vault
// twice it moves sealed tokens to the homes that HomeOf names now. What is in
// place already is left alone, so it may be stopped at any time and begun
// again. progress, which may be nil, is told how far it is.
//
// A sealed token is kept as it is where the target's key opens it, and sealed
// anew where that does not; one that does not open at all is not copied.
// Nothing newer is overwritten: a grant of which the target has a later
// generation or version, or which was destroyed or suspended there, is left as
// it is there. Turns and shared tokens are not copied.
//
// What could not be copied is in the error; the rest is done. The target's
// epoch is raised with every grant. Nothing should be served from the source
// any more, and nothing from the target yet. Only one copy at a time may be
// under way between the same homes: each destroys what it moved away.
func Copy(ctx context.Context, from, to *SQL, progress func(done, total int)) error {
	keys, err := from.keys(ctx)
	if err != nil {
		return wrap("copy grants", err)
	}
	var errs []error
	for i, k := range keys {
		if ctx.Err() != nil {
			errs = append(errs, ctx.Err())
			break
		}
		err := copyGrant(ctx, from, to, k)
		for again := 0; again < copyTries && from.db == to.db && errors.Is(err, ErrNewer); again++ {
			err = copyGrant(ctx, from, to, k) // it was rotated meanwhile
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("of partner %s: %w", k.Partner, err))
		}
		if progress != nil {
			progress(i+1, len(keys))
		}
	}
	return wrap("copy grants", errors.Join(errs...))
}

// copyTries bounds how often a grant is moved again that is rotated meanwhile.
const copyTries = 8

// keys returns the keys of all grants.
func (v *SQL) keys(ctx context.Context) ([]mandate.GrantKey, error) {
	firsts, err := v.list(ctx, `SELECT `+columns+` FROM grants g WHERE generation =
		(SELECT min(generation) FROM grants f WHERE f.cloud = g.cloud AND f.application = g.application AND f.partner = g.partner)
		ORDER BY cloud, application, partner`)
	var keys []mandate.GrantKey
	for _, g := range firsts {
		keys = append(keys, g.Key)
	}
	return keys, err
}

// ErrNewer: the target of a copy has what the source has not.
var ErrNewer = errors.New("the target has a newer state of the grant, or one that was suspended or destroyed there")

// copyGrant brings one grant into the target, all its generations at once.
func copyGrant(ctx context.Context, from, to *SQL, k mandate.GrantKey) error {
	const generations = `SELECT ` + columns + ` FROM grants WHERE ` + ofGrant + ` ORDER BY generation`
	source, err := from.rows(ctx, generations, keyArgs(k)...)
	if err != nil {
		return err
	}
	there, err := to.rows(ctx, generations, keyArgs(k)...)
	if err != nil {
		return err
	}
	home := to.homeOf(k)
	changes, err := missingIn(there, source, home)
	if err != nil || len(changes) == 0 {
		return err
	}
	moved, err := moveTokens(ctx, from, to, home, changes)
	if err != nil {
		return err
	}
	if err := to.accept(ctx, k, source, moved); err != nil {
		return err
	}
	return to.leaveHomes(ctx, there, home, moved)
}

// missingIn returns which of the source's rows the target has not, or not as
// they are.
func missingIn(there, source []row, home string) ([]row, error) {
	has := make(map[int64]row)
	for _, r := range there {
		has[r.generation] = r
	}
	var changes []row
	for _, r := range source {
		t, ok := has[r.generation]
		delete(has, r.generation)
		if ok && t.newerThan(&r) {
			return nil, fmt.Errorf("generation %d: %w", r.generation, ErrNewer)
		}
		if !ok || t.version != r.version || t.state != r.state || r.hasToken() && t.home != home {
			changes = append(changes, r)
		}
	}
	for generation := range maps.Keys(has) {
		return nil, fmt.Errorf("generation %d: %w", generation, ErrNewer)
	}
	return changes, nil
}

// hasToken reports whether a refresh token belongs to r.
func (r *row) hasToken() bool { return r.keyID.Valid }

// newerThan reports whether r, in the target, must not become s.
func (r *row) newerThan(s *row) bool {
	return r.version > s.version || !r.hasToken() && s.hasToken() ||
		r.state == string(mandate.StateSuspended) && s.hasToken() && s.state != r.state
}

// moveTokens returns rows with their tokens where and as the target has them.
func moveTokens(ctx context.Context, from, to *SQL, home string, rows []row) ([]row, error) {
	out := slices.Clone(rows)
	for i := range out {
		r := &out[i]
		if !r.hasToken() {
			r.home = ""
			continue
		}
		s, err := moveToken(ctx, from, to, home, r)
		if err != nil {
			return nil, fmt.Errorf("generation %d: %w", r.generation, err)
		}
		r.keyID.String, r.home, r.ref, r.sealed = s.keyID, s.home, s.ref, s.blob
	}
	return out, nil
}

func moveToken(ctx context.Context, from, to *SQL, home string, r *row) (stored, error) {
	blob, err := from.blobOf(ctx, r)
	if err != nil {
		return stored{}, err
	}
	s, err := parseSealed(r.keyID.String, blob)
	if err != nil {
		return stored{}, err
	}
	g, err := r.grant()
	if err != nil {
		return stored{}, err
	}
	if _, err := s.open(ctx, to.key, labelOf(g)); err == nil {
		return to.put(ctx, home, labelOf(g), s)
	}
	secret, err := s.open(ctx, from.key, labelOf(g))
	if err != nil {
		return stored{}, err
	}
	return to.seal(ctx, home, labelOf(g), secret)
}

// accept replaces rows of a grant by others, unless what is there has become
// newer than the source meanwhile.
func (v *SQL) accept(ctx context.Context, k mandate.GrantKey, source, rows []row) error {
	err := v.db.Change(ctx, func(tx *database.Tx) error {
		if err := endTurns(ctx, tx, k); err != nil {
			return err
		}
		there, err := lockRows(ctx, tx, k)
		if err != nil {
			return err
		}
		if _, err := missingIn(there, source, ""); err != nil {
			return err
		}
		// All that change go first: no two may have the same standing.
		for _, r := range rows {
			if _, err := tx.Exec(ctx, `DELETE FROM grants WHERE `+ofGrant+` AND generation = $4`, keyArgs(k, r.generation)...); err != nil {
				return err
			}
		}
		for _, r := range rows {
			if err := r.insert(ctx, tx); err != nil {
				return err
			}
		}
		return nil
	})
	if errors.Is(err, ErrNewer) {
		return err
	}
	return unavailable(ctx, err)
}

// lockRows returns a grant's rows, and keeps rotations from changing them until
// the transaction ends.
func lockRows(ctx context.Context, tx *database.Tx, k mandate.GrantKey) ([]row, error) {
	rows, err := tx.Query(ctx, `SELECT `+columns+` FROM grants WHERE `+ofGrant+` FOR UPDATE`, keyArgs(k)...)
	if err != nil {
		return nil, err
	}
	return scanAll(rows)
}

// leaveHomes destroys the copies in homes from which tokens were moved away.
func (v *SQL) leaveHomes(ctx context.Context, before []row, home string, moved []row) error {
	var errs []error
	for _, r := range before {
		changed := slices.ContainsFunc(moved, func(m row) bool { return m.generation == r.generation })
		if !changed || r.home == "" || r.home == home {
			continue
		}
		h, err := v.home(r.home)
		if err == nil {
			_, _, err = h.Destroy(ctx, r.name())
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("generation %d is copied, but %q in home %q could not be destroyed: %w", r.generation, r.name(), r.home, err))
		}
	}
	return errors.Join(errs...)
}
