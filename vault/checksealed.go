package vault

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/mandate-sam/mandate"
)

// CheckSealed seals values with w and reports the first way in which one opens
// that should not: in another row, as another kind, in an earlier or later
// version, with a bit changed, or with another's data key. It is the test of
// every [KeyWrapper], and what an operator runs against their own.
func CheckSealed(ctx context.Context, w KeyWrapper) error {
	if err := checkWrapper(ctx, w); err != nil {
		return err
	}
	labels, err := neighbours()
	if err != nil {
		return err
	}
	all := make([]sealed, len(labels))
	for i, l := range labels {
		if all[i], err = seal(ctx, w, l, secretOf(i)); err != nil {
			return fmt.Errorf("seal: %w", err)
		}
	}
	for i, s := range all {
		if err := checkPlaces(ctx, w, s, i, labels); err != nil {
			return err
		}
		if err := checkParts(ctx, w, all, i, labels[i]); err != nil {
			return err
		}
	}
	return checkBits(ctx, w, all[0], labels[0])
}

func secretOf(i int) mandate.Secret { return mandate.NewSecret(fmt.Sprint("secret ", i)) }

// neighbours returns labels which all differ from the first in one part.
func neighbours() ([]label, error) {
	partner, err := mandate.ParseTenantID("11111111-1111-4111-8111-111111111111")
	if err != nil {
		return nil, err
	}
	first := label{
		key:  mandate.GrantKey{Cloud: "check", Application: mandate.AppID(partner), Partner: partner},
		kind: kindRefresh, generation: 2, version: 2,
	}
	all := []label{first}
	for _, change := range []func(*label){
		func(l *label) { l.key.Cloud = "check2" },
		func(l *label) { l.key.Application = mandate.AppID(flip(partner)) },
		func(l *label) { l.key.Partner = flip(partner) },
		func(l *label) { l.kind = kindAccess },
		func(l *label) { l.generation = 1 },
		func(l *label) { l.generation = 3 },
		func(l *label) { l.version = 1 },
		func(l *label) { l.version = 3 },
		// Two that are the same but for where one field ends.
		func(l *label) { l.key.Cloud += partner.String() },
		func(l *label) { l.kind = partner.String() + l.kind },
	} {
		l := first
		change(&l)
		all = append(all, l)
	}
	return append(all, sharedNeighbours(first)...), nil
}

// sharedNeighbours returns labels of shared tokens which all differ from the
// first in one part.
func sharedNeighbours(first label) []label {
	first.kind, first.version, first.tenant, first.audience = kindAccess, 0, first.key.Partner, "https://example.com"
	first.scopes, first.claims, first.epoch, first.expires = []mandate.Scope{"A", "B"}, "{}", 7, 9
	all := []label{first}
	for _, change := range []func(*label){
		func(l *label) { l.key.Partner = flip(l.key.Partner) },
		func(l *label) { l.generation++ },
		func(l *label) { l.tenant = flip(l.tenant) },
		func(l *label) { l.audience += "/" },
		func(l *label) { l.scopes = []mandate.Scope{"A"} },
		func(l *label) { l.scopes = []mandate.Scope{"AB"} },
		func(l *label) { l.claims = "" },
		func(l *label) { l.epoch++ },
		func(l *label) { l.expires++ },
	} {
		l := first
		change(&l)
		all = append(all, l)
	}
	return all
}

// checkPlaces puts a sealed value into the place of every other.
func checkPlaces(ctx context.Context, w KeyWrapper, s sealed, at int, labels []label) error {
	for i, l := range labels {
		got, err := s.open(ctx, w, l)
		if i != at && err == nil {
			return fmt.Errorf("what was sealed for %+v opens for %+v", labels[at], l)
		}
		if i == at && (err != nil || got.Reveal() != secretOf(i).Reveal()) {
			return fmt.Errorf("what was sealed does not open where it belongs: %w", err)
		}
	}
	return nil
}

// checkParts puts the parts of one sealed value into another.
func checkParts(ctx context.Context, w KeyWrapper, all []sealed, at int, l label) error {
	for i, other := range all {
		if i == at {
			continue
		}
		for _, mixed := range []sealed{
			{format, other.keyID, other.wrapped, all[at].box},
			{format, all[at].keyID, all[at].wrapped, other.box},
			{format, other.keyID, all[at].box, all[at].wrapped},
		} {
			if _, err := mixed.open(ctx, w, l); err == nil {
				return errors.New("a sealed value opens with a part of another")
			}
		}
	}
	return nil
}

// checkBits changes one bit of each byte that is stored.
func checkBits(ctx context.Context, w KeyWrapper, s sealed, l label) error {
	blob := s.blob()
	for i := range blob {
		changed := bytes.Clone(blob)
		changed[i] ^= 1
		other, err := parseSealed(s.keyID, changed)
		if err != nil {
			continue
		}
		if _, err := other.open(ctx, w, l); err == nil {
			return fmt.Errorf("a sealed value opens though byte %d of it was changed", i)
		}
	}
	if _, err := (sealed{s.format, s.keyID + "x", s.wrapped, s.box}).open(ctx, w, l); err == nil {
		return errors.New("a sealed value opens under the ID of another key")
	}
	return nil
}

// checkWrapper finds out what a key wrapper promises by itself.
func checkWrapper(ctx context.Context, w KeyWrapper) error {
	plain := bytes.Repeat([]byte("mandate."), 8)
	id, first, err := w.Wrap(ctx, bytes.Clone(plain))
	if err != nil {
		return fmt.Errorf("Wrap: %w", err)
	}
	if bytes.Contains(first, plain[:16]) {
		return errors.New("Wrap does not encrypt")
	}
	got, err := w.Unwrap(ctx, id, first)
	if err != nil {
		return fmt.Errorf("Unwrap: %w", err)
	}
	if !bytes.Equal(got, plain) {
		return errors.New("Unwrap returned something else than was wrapped")
	}
	return nil
}

// maxCheckMoved bounds how many values CheckMoved puts into each other's
// places: each is unwrapped for every other, perhaps by a Key Vault.
const maxCheckMoved = 12

// CheckMoved takes what v has sealed, as it is stored, and reports the first
// value that opens in the place of another row, as another kind, or with the
// key of another column; or that does not open in its own. It writes nothing,
// so an operator may run it at any time.
func CheckMoved(ctx context.Context, v *SQL) error {
	all, err := v.storedValues(ctx)
	if err != nil {
		return err
	}
	for i := range all {
		for j := range all {
			if err := checkMove(ctx, v, &all[i], &all[j]); err != nil {
				return err
			}
		}
	}
	return nil
}

// A value is something sealed, with the place that it is in. Where nothing but
// a token's ID says which that is, there is none.
type value struct {
	what   string
	sealed sealed
	place  *label
}

func (v *SQL) storedValues(ctx context.Context) ([]value, error) {
	rows, err := v.rows(ctx, `SELECT `+columns+` FROM grants WHERE key_id IS NOT NULL ORDER BY since DESC, partner, generation LIMIT $1`, int64(maxCheckMoved))
	if err != nil {
		return nil, err
	}
	var all []value
	for _, r := range rows {
		g, err := r.grant()
		if err != nil {
			return nil, err
		}
		blob, err := v.blobOf(ctx, &r)
		if err != nil {
			return nil, err
		}
		s, err := parseSealed(r.keyID.String, blob)
		if err != nil {
			return nil, err
		}
		l := labelOf(g)
		all = append(all, value{fmt.Sprintf("generation %d of partner %s", g.Generation, g.Key.Partner), s, &l})
	}
	tokens, err := v.sharedTokens(ctx, "")
	if err != nil {
		return nil, unavailable(ctx, err)
	}
	for _, t := range tokens[:min(len(tokens), maxCheckMoved)] {
		s, err := parseSealed(t.keyID, t.sealed)
		if err != nil {
			return nil, err
		}
		all = append(all, value{fmt.Sprintf("shared token %x", t.id[:8]), s, nil})
	}
	return all, nil
}

// checkMove puts one value into the place of another.
func checkMove(ctx context.Context, v *SQL, from, to *value) error {
	if to.place == nil {
		return nil
	}
	_, err := from.sealed.open(ctx, v.key, *to.place)
	if from == to && err != nil {
		return fmt.Errorf("%s does not open: %w", from.what, err)
	}
	if from != to && err == nil {
		return fmt.Errorf("%s opens in the place of %s", from.what, to.what)
	}
	if _, err := from.sealed.open(ctx, v.key, asKind(*to.place, kindAccess)); err == nil {
		return fmt.Errorf("%s opens as a shared token of %s", from.what, to.what)
	}
	if v.shared == nil {
		return nil
	}
	for _, kind := range []string{kindAccess, kindRefresh} {
		if _, err := from.sealed.open(ctx, v.shared, asKind(*to.place, kind)); err == nil {
			return fmt.Errorf("%s opens with the key of shared tokens in the place of %s", from.what, to.what)
		}
	}
	return nil
}

// asKind is l as that of another kind.
func asKind(l label, kind string) label {
	l.kind = kind
	return l
}
