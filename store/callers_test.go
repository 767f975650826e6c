package store

import (
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/internal/database"
)

func TestCallers(t *testing.T) { each(t, testCallers) }

func testCallers(t *testing.T, cfg database.Config) {
	s, db := running(t, cfg)
	before := epochOf(t, db)
	billing, reports := addCaller(t, s, "billing"), addCaller(t, s, "reports")
	if after := epochOf(t, db); after != before+2 {
		t.Errorf("the epoch went from %d to %d by two callers", before, after)
	}
	if billing == reports || !strings.HasPrefix(billing, "mdt_") || len(billing) != 61 {
		t.Errorf("secrets %q and %q, want two different ones of 61 characters", billing, reports)
	}
	if random := billing[12:55]; random == reports[12:55] || strings.Count(random, "0") > 20 {
		t.Errorf("secrets %q and %q are not random between key ID and checksum", billing, reports)
	}
	db.Close()
	s, db = running(t, cfg)
	if id, err := s.Authenticate("billing", billing); id != "billing" || err != nil {
		t.Errorf("got %q, %v, want billing", id, err)
	}
	_, unknown := s.Authenticate("nobody", billing)
	_, wrong := s.Authenticate("billing", reports)
	for _, err := range []error{unknown, wrong} {
		if !errors.Is(err, mandate.ErrUnauthenticated) || err.Error() != unknown.Error() {
			t.Errorf("got error %v, want %v", err, unknown)
		}
	}
	typo := billing[:20] + "~" + billing[21:]
	for _, secret := range []string{"", "mdt_", typo, billing + "x", billing[:60], strings.ToLower(billing), "x" + billing[1:]} {
		_, known := s.Authenticate("billing", secret)
		_, unknown := s.Authenticate("nobody", secret)
		if !errors.Is(known, mandate.ErrUnauthenticated) || !strings.Contains(known.Error(), "not a whole secret") || known.Error() != unknown.Error() {
			t.Errorf("%q: got errors %v and %v, want the same, that it is no whole secret", secret, known, unknown)
		}
	}
	all, err := s.Callers()
	if err != nil || len(all) != 2 || all[0].ID != "billing" || all[0].Credentials[0].ID != billing[4:12] || !all[0].Credentials[0].Expires.IsZero() {
		t.Errorf("Callers: got %+v, %v", all, err)
	}
	all[0].ID = "changed"
	if again, err := s.Callers(); err != nil || again[0].ID != "billing" {
		t.Errorf("changing what Callers returned changed the store (error %v)", err)
	}
	if err := s.RemoveCaller(t.Context(), "billing"); err != nil {
		t.Fatal(err)
	}
	if after := epochOf(t, db); after != before+3 {
		t.Errorf("RemoveCaller left the epoch at %d, want %d", after, before+3)
	}
	if _, err := s.Authenticate("billing", billing); !errors.Is(err, mandate.ErrUnauthenticated) {
		t.Errorf("a removed caller: got error %v, want %v", err, mandate.ErrUnauthenticated)
	}
	if err := s.RemoveCaller(t.Context(), "billing"); !errors.Is(err, mandate.ErrNotFound) {
		t.Errorf("got error %v, want %v", err, mandate.ErrNotFound)
	}
}

func TestAddCallerRefuses(t *testing.T) { each(t, testAddCallerRefuses) }

func testAddCallerRefuses(t *testing.T, cfg database.Config) {
	s, db := running(t, cfg)
	addCaller(t, s, "billing")
	before := epochOf(t, db)
	for _, tt := range []struct {
		id      mandate.CallerID
		expires time.Time
		is      error
	}{
		{"", time.Time{}, mandate.ErrInvalid},
		{"uid:0", time.Time{}, mandate.ErrInvalid},
		{"a b", time.Time{}, mandate.ErrInvalid},
		{mandate.CallerID(strings.Repeat("a", 65)), time.Time{}, mandate.ErrInvalid},
		{"late", time.Now().Add(-time.Second), mandate.ErrInvalid},
		{"billing", time.Time{}, mandate.ErrExists},
	} {
		_, secret, err := s.AddCaller(t.Context(), tt.id, tt.expires)
		if !errors.Is(err, tt.is) || !secret.IsZero() {
			t.Errorf("AddCaller(%q): got error %v, want %v and no secret", tt.id, err, tt.is)
		}
	}
	if after := epochOf(t, db); after != before {
		t.Errorf("refusals changed the epoch from %d to %d", before, after)
	}
}

func TestCallerExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _ := openTest(t)
		_, secret, err := s.AddCaller(t.Context(), "billing", time.Now().Add(time.Hour))
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour - time.Second)
		if _, err := s.Authenticate("billing", secret.Reveal()); err != nil {
			t.Errorf("a second before the end: %v", err)
		}
		time.Sleep(time.Second)
		if _, err := s.Authenticate("billing", secret.Reveal()); !errors.Is(err, mandate.ErrUnauthenticated) || !strings.Contains(err.Error(), "expired") {
			t.Errorf("at the end: got error %v, want %v", err, mandate.ErrUnauthenticated)
		}
	})
}

func TestChangesAndReadersAtOnce(t *testing.T) { each(t, testChangesAndReadersAtOnce) }

func testChangesAndReadersAtOnce(t *testing.T, cfg database.Config) {
	s, _ := running(t, cfg)
	secret := addCaller(t, s, "billing")
	var all sync.WaitGroup
	for i := range 4 {
		all.Go(func() {
			for j := range 10 {
				id := mandate.CallerID(string(rune('a'+i)) + string(rune('a'+j)))
				_, mine, err := s.AddCaller(t.Context(), id, time.Time{})
				if err != nil {
					t.Error(err)
					return
				}
				if _, err := s.Authenticate(string(id), mine.Reveal()); err != nil {
					t.Errorf("%s cannot authenticate after AddCaller has returned: %v", id, err)
				}
			}
		})
		all.Go(func() {
			for range 200 {
				if _, err := s.Authenticate("billing", secret); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
}

// A misspelt name is guessed, where something is to be done at once.
func TestUnknownCaller(t *testing.T) {
	s, _ := openTest(t)
	addCaller(t, s, "billing")
	for name, want := range map[mandate.CallerID]string{
		"biling": `no caller is named "biling"; did you mean "billing"?`, "reports": `no caller is named "reports"`, mandate.CallerID(strings.Repeat("billing", 999)): `no caller is named "billingbilling`,
	} {
		err := s.RemoveCaller(t.Context(), name)
		if !errors.Is(err, mandate.ErrNotFound) || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "mean") != strings.Contains(want, "mean") || len(err.Error()) > 200 {
			t.Errorf("%.20q: got %v, want %s", name, err, want)
		}
	}
}
