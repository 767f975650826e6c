package vault

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/mandate-sam/mandate"
)

// A Home keeps sealed tokens outside the database: in Key Vault, OpenBao. It
// is told nothing but names and sealed bytes, and does not decide what is
// current. A name has letters, digits and '-', at most 127 of them; a blob has
// at most 16 KiB.
//
// The interface has standard types only, so that an adapter needs not know
// this package.
type Home interface {
	// Put stores blob as a new version of name and returns what finds just
	// that version. When it returns nil the version survives a crash.
	Put(ctx context.Context, name string, blob []byte) (ref string, err error)

	// Get returns that version, or an error if it is not there as it was put.
	Get(ctx context.Context, name, ref string) ([]byte, error)

	// Destroy removes every version of name as far as the home lets it. What
	// remains, such as "a soft-deleted secret", it describes, with the time
	// from which that is gone; "" if nothing does. To destroy what is not
	// there is no error.
	Destroy(ctx context.Context, name string) (remains string, until time.Time, err error)
}

// stored is a sealed token as a row has it: in the row or in a home.
type stored struct {
	keyID, home, ref string
	blob             []byte // for the row; nil if it is in a home
	content          []byte // wherever it is
}

// seal seals secret and puts it into the home, if that is not the database.
//
// It is put there before the row names it. If the row is then never written,
// the version is an orphan: nothing finds it, it opens for nothing but the row
// and version that it was sealed for, and it goes when the name does.
func (v *SQL) seal(ctx context.Context, home string, l label, secret mandate.Secret) (stored, error) {
	s, err := seal(ctx, v.key, l, secret)
	if err != nil {
		return stored{}, fmt.Errorf("seal grant: %w", err)
	}
	return v.put(ctx, home, l, s)
}

// put stores a token that is sealed for l in home.
func (v *SQL) put(ctx context.Context, home string, l label, s sealed) (stored, error) {
	out := stored{keyID: s.keyID, home: home, content: s.blob()}
	if home == "" {
		out.blob = out.content
		return out, nil
	}
	h, err := v.home(home)
	if err != nil {
		return stored{}, err
	}
	if len(out.content) > maxBlob {
		return stored{}, fmt.Errorf("store in home %q: the sealed token has %d bytes, and homes take %d", home, len(out.content), maxBlob)
	}
	name := nameIn(l.key, l.generation)
	if out.ref, err = h.Put(ctx, name, out.content); err != nil {
		return stored{}, fmt.Errorf("store in home %q: %w", home, err)
	}
	if out.ref == "" {
		return stored{}, fmt.Errorf("store in home %q: it did not say which version that is", home)
	}
	v.blobs.put(0, place{home, name, out.ref, s.keyID, l.version}, out.content)
	return out, nil
}

func (v *SQL) home(name string) (Home, error) {
	h := v.homes[name]
	if h == nil {
		return nil, fmt.Errorf("the grant is kept in home %q, which is not configured", name)
	}
	return h, nil
}

// name is under which a home keeps the token of r. Every generation has its
// own, because homes destroy names and not versions.
func (r *row) name() string {
	return homeName(r.cloud, r.application, r.partner, r.generation)
}

func nameIn(k mandate.GrantKey, generation int64) string {
	return homeName(k.Cloud, k.Application.String(), k.Partner.String(), generation)
}

func homeName(cloud, application, partner string, generation int64) string {
	sum := sha256.Sum256([]byte(cloud + "\n" + application))
	return fmt.Sprintf("mandate-%s-%s-%d", partner, hex.EncodeToString(sum[:6]), generation)
}

// destroyed is a row whose token was destroyed; what its home has is left.
type destroyed struct {
	key        mandate.GrantKey
	generation int64
	home       string
}

// destroy removes tokens from their homes, after the rows that named them were
// changed, and notes in the rows that it has been done. What fails is still in
// the rows, and [SQL.Sweep] tries again. It returns what remains for now.
func (v *SQL) destroy(ctx context.Context, all []destroyed) (remnants []mandate.Remnant, err error) {
	for _, d := range all {
		if d.home == "" {
			continue
		}
		r, derr := v.destroyOne(ctx, d)
		if derr != nil {
			err = errors.Join(err, fmt.Errorf("destroy generation %d of partner %s in home %q: %w", d.generation, d.key.Partner, d.home, derr))
			r = mandate.Remnant{What: fmt.Sprintf("the sealed token of generation %d in %q, which could not be destroyed and will be tried again: %v", d.generation, d.home, derr)}
		}
		if r.What != "" {
			remnants = append(remnants, r)
		}
	}
	return remnants, err
}

func (v *SQL) destroyOne(ctx context.Context, d destroyed) (mandate.Remnant, error) {
	h, err := v.home(d.home)
	if err != nil {
		return mandate.Remnant{}, err
	}
	name := nameIn(d.key, d.generation)
	remains, until, err := h.Destroy(ctx, name)
	if err != nil {
		return mandate.Remnant{}, err
	}
	_, err = v.db.Exec(ctx, `UPDATE grants SET home = '' WHERE `+ofGrant+` AND generation = $4 AND home = $5 AND ref = '' AND key_id IS NULL`,
		keyArgs(d.key, d.generation, d.home)...)
	if err != nil || remains == "" {
		return mandate.Remnant{}, unavailable(ctx, err)
	}
	return mandate.Remnant{What: fmt.Sprintf("%s in %q: %s", name, d.home, remains), Until: until}, nil
}
