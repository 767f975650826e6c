package main

import (
	"context"
	"time"

	"github.com/mandate-sam/mandate"
)

// someRevocations are those that a script makes, each with one token that is
// still alive.
type someRevocations struct{ all []mandate.Revocation }

func (s *someRevocations) Revoke(_ context.Context, r mandate.Revocation) (mandate.Revocation, error) {
	r.ID, r.Since = "rev", contoso.Created
	s.all = append(s.all, r)
	return r, nil
}

func (s *someRevocations) Lift(context.Context, string) error { s.all = nil; return nil }

func (s *someRevocations) Revocations() ([]mandate.Revocation, error) { return s.all, nil }

func (s *someRevocations) Alive(context.Context, mandate.Reach, time.Time) (int, time.Time, error) {
	return 1, time.Date(2999, 1, 2, 3, 4, 5, 0, time.UTC), nil
}
