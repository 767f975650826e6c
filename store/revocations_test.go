package store

import (
	"errors"
	"fmt"
	"testing"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/internal/database"
)

func TestRevocations(t *testing.T) {
	each(t, func(t *testing.T, cfg database.Config) {
		s, db := running(t, cfg)
		customer := tenant("22222222-0000-4000-8000-000000000002")
		request := &mandate.Request{Caller: "billing", Partner: contoso, Tenant: customer, Audience: "https://graph.microsoft.com"}
		for _, tt := range []struct {
			reach  mandate.Reach
			covers bool
		}{
			{mandate.Reach{}, true},
			{mandate.Reach{Partner: contoso.Key}, true},
			{mandate.Reach{Partner: mandate.GrantKey{Cloud: "other", Application: contoso.Key.Application, Partner: contoso.Key.Partner}}, false},
			{mandate.Reach{Customer: customer}, true},
			{mandate.Reach{Customer: contoso.Key.Partner}, false},
			{mandate.Reach{Caller: "billing"}, true},
			{mandate.Reach{Caller: "bill"}, false},
			{mandate.Reach{Audience: "https://graph.microsoft.com"}, true},
			{mandate.Reach{Audience: "https://management.azure.com"}, false},
			{mandate.Reach{Partner: contoso.Key, Customer: customer, Caller: "billing", Audience: "https://graph.microsoft.com"}, true},
			{mandate.Reach{Partner: contoso.Key, Caller: "other"}, false},
		} {
			before := epochOf(t, db)
			r, err := s.Revoke(t.Context(), mandate.Revocation{Reach: tt.reach, Reason: "a drill", By: "uid:1"})
			if err != nil || epochOf(t, db) == before {
				t.Fatalf("%v: %v, epoch %d", tt.reach, err, before)
			}
			got, err := s.Revoked(request)
			if err != nil || (got != nil) != tt.covers || got != nil && (got.ID != r.ID || got.Reach != tt.reach || got.Reason != "a drill" || got.By != "uid:1") {
				t.Errorf("%v: got %+v, %v", tt.reach, got, err)
			}
			if all, err := s.Revocations(); err != nil || len(all) != 1 || all[0].Reach != tt.reach || !all[0].Since.Equal(r.Since) {
				t.Errorf("%v: list %+v, %v", tt.reach, all, err)
			}
			if err := s.Lift(t.Context(), r.ID); err != nil {
				t.Error(err)
			}
			if got, err := s.Revoked(request); got != nil || err != nil {
				t.Errorf("%v lifted: got %+v, %v", tt.reach, got, err)
			}
		}
		var both [2]mandate.Revocation
		for i, reach := range []mandate.Reach{{Caller: "billing"}, {Customer: customer}} {
			var err error
			if both[i], err = s.Revoke(t.Context(), mandate.Revocation{Reach: reach, Reason: "a drill"}); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.Lift(t.Context(), both[0].ID); err != nil {
			t.Error(err)
		}
		if got, err := s.Revoked(request); err != nil || got == nil || got.ID != both[1].ID {
			t.Errorf("one of two is lifted: got %+v, %v, want the other in force", got, err)
		}
		for _, id := range []string{"nothing", "no\x00thing", "\xff"} {
			if err := s.Lift(t.Context(), id); !errors.Is(err, mandate.ErrNotFound) {
				t.Errorf("lift of %q: %v", id, err)
			}
		}
		for _, reach := range []mandate.Reach{{Caller: "a\x00"}, {Audience: "\xff"}} {
			if _, err := s.Revoke(t.Context(), mandate.Revocation{Reach: reach, Reason: "a drill"}); !errors.Is(err, mandate.ErrInvalid) {
				t.Errorf("%q: %v", reach, err)
			}
		}
		for _, reason := range []string{"", "two\nlines", fmt.Sprintf("%0201d", 0)} {
			if _, err := s.Revoke(t.Context(), mandate.Revocation{Reason: reason}); !errors.Is(err, mandate.ErrInvalid) {
				t.Errorf("reason %.10q: %v", reason, err)
			}
		}
	})
}

// A revocation that somebody deletes goes on, and everything else ends; see
// also internal/database.
func TestDatabaseWriterDeletesRevocation(t *testing.T) {
	s, db := openTest(t)
	r, err := s.Revoke(t.Context(), mandate.Revocation{Reason: "a drill"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Revoked(&mandate.Request{}); err != nil {
		t.Fatal(err)
	}
	if _, err := db.Exec(t.Context(), `DELETE FROM revocations`); err != nil {
		t.Fatal(err)
	}
	if got, err := s.Revoked(&mandate.Request{}); err != nil || got == nil || got.ID != r.ID {
		t.Errorf("before anything is read again: %+v, %v", got, err)
	}
	err = s.AddPartner(t.Context(), contoso)
	if err != nil {
		t.Fatal(err)
	}
	if _, err = s.Revoked(&mandate.Request{}); !errors.Is(err, mandate.ErrUnavailable) || !errors.Is(err, database.ErrAltered) {
		t.Errorf("after the next change: %v", err)
	}
	if err := restoreRevocation(t, db, r); err != nil {
		t.Fatal(err)
	}
}

// restoreRevocation puts the row back, for the check at the end of each test.
func restoreRevocation(t *testing.T, db *database.DB, r mandate.Revocation) error {
	_, err := db.Exec(t.Context(), `INSERT INTO revocations (`+revocationColumns+`) VALUES ($1, '', '', '', '', '', '', $2, $3, '')`, r.ID, r.Reason, r.Since.UnixMilli())
	return err
}

// Each revocation in force costs every request, so there are not more than
// anybody needs.
func TestRevocationsAreBounded(t *testing.T) {
	s, db := openTest(t)
	if err := db.Change(t.Context(), func(tx *database.Tx) error {
		for i := range maxRevocations {
			if _, err := tx.Exec(t.Context(), `INSERT INTO revocations (`+revocationColumns+`) VALUES ($1, '', '', '', '', $1, '', 'a drill', 0, '')`, fmt.Sprint("c", i)); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Revoke(t.Context(), mandate.Revocation{Reason: "one more"}); !errors.Is(err, mandate.ErrRateLimited) {
		t.Errorf("got %v, want %v", err, mandate.ErrRateLimited)
	}
}
