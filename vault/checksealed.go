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
		func(l *label) { l.kind = "access-token" },
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
	return all, nil
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
