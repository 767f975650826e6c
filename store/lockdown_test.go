package store

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/internal/database"
)

// A lockdown holds from when it began until it is ended, whoever gives it
// another reason, and each step is an epoch of its own.
func TestLockdown(t *testing.T) {
	each(t, func(t *testing.T, cfg database.Config) {
		s, db := running(t, cfg)
		began := time.UnixMilli(1_800_000_000_000)
		stands := func(want *mandate.Lockdown) {
			t.Helper()
			got, err := s.Lockdown()
			if err != nil || (got == nil) != (want == nil) || got != nil && (got.Reason != want.Reason || !got.Since.Equal(want.Since) || got.By != want.By) {
				t.Errorf("got %+v, %v, want %+v", got, err, want)
			}
		}
		stands(nil)
		if err := s.Unlock(t.Context()); !errors.Is(err, mandate.ErrNotFound) {
			t.Errorf("ended before it began: %v", err)
		}
		for _, reason := range []string{"", "two\nlines", strings.Repeat("x", maxReason+1)} {
			if err := s.Lock(t.Context(), mandate.Lockdown{Reason: reason, Since: began, By: "uid:1"}); !errors.Is(err, mandate.ErrInvalid) {
				t.Errorf("reason %.10q: %v", reason, err)
			}
		}
		stands(nil)
		for _, step := range []struct {
			do   func() error
			want *mandate.Lockdown
		}{
			{func() error {
				return s.Lock(t.Context(), mandate.Lockdown{Reason: "a drill", Since: began, By: "uid:1"})
			},
				&mandate.Lockdown{Reason: "a drill", Since: began, By: "uid:1"}},
			{func() error {
				return s.Lock(t.Context(), mandate.Lockdown{Reason: "no drill", Since: began.Add(time.Hour), By: "uid:2"})
			},
				&mandate.Lockdown{Reason: "no drill", Since: began, By: "uid:2"}},
			{func() error { return s.Unlock(t.Context()) }, nil},
		} {
			before := epochOf(t, db)
			if err := step.do(); err != nil || epochOf(t, db) == before {
				t.Fatalf("%v, epoch %d", err, before)
			}
			stands(step.want)
		}
	})
}

// What waits for its probe after a restore is known, with whether it served.
func TestRestored(t *testing.T) {
	each(t, func(t *testing.T, cfg database.Config) {
		s, db := running(t, cfg)
		other := contoso.Key
		other.Cloud = "other"
		for k, served := range map[mandate.GrantKey]int64{contoso.Key: 1, other: 0} {
			if _, err := db.Exec(t.Context(), `INSERT INTO restored (cloud, application, partner, served) VALUES ($1, $2, $3, $4)`, k.Cloud, k.Application.String(), k.Partner.String(), served); err != nil {
				t.Fatal(err)
			}
		}
		all, err := s.Restored(t.Context())
		if err != nil || len(all) != 2 || all[0] != (Restored{contoso.Key, true}) || all[1] != (Restored{other, false}) {
			t.Errorf("got %+v, %v", all, err)
		}
		if err := s.Proven(t.Context(), contoso.Key); err != nil {
			t.Fatal(err)
		}
		if all, err := s.Restored(t.Context()); err != nil || len(all) != 1 || all[0].Key != other {
			t.Errorf("one was probed: got %+v, %v", all, err)
		}
	})
}
