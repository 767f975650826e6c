package store

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/internal/database"
)

var someone = mandate.ObjectID(tenant("cccccccc-0000-4000-8000-000000000001"))

// A session ends after eight hours, and when it is not used for half of one.
func TestPartnerSessionEnds(t *testing.T) {
	inBubbles(t, func(t *testing.T, s *Store, _ *database.DB) {
		in := PartnerSession{Key: contoso.Key, Object: someone, UserName: "ada@contoso.example", SignedIn: time.Now().Truncate(time.Millisecond)}
		secret, err := s.AddPartnerSession(t.Context(), in)
		if err != nil {
			t.Fatal(err)
		}
		got, err := s.PartnerSession(t.Context(), secret)
		if err != nil || got.Key != in.Key || got.Object != someone || !got.SignedIn.Equal(in.SignedIn) || got.UserName != in.UserName {
			t.Fatalf("got %+v, %v", got, err)
		}
		began := time.Now()
		for time.Since(began) < PartnerSessionLife-PartnerSessionIdle {
			time.Sleep(PartnerSessionIdle - time.Minute)
			if _, err := s.PartnerSession(t.Context(), secret); err != nil {
				t.Fatalf("after %v: %v", time.Since(began), err)
			}
		}
		time.Sleep(PartnerSessionLife - time.Since(began))
		if _, err := s.PartnerSession(t.Context(), secret); !errors.Is(err, mandate.ErrUnauthenticated) {
			t.Errorf("after eight hours: %v", err)
		}
		idle, err := s.AddPartnerSession(t.Context(), in)
		if err != nil || idle.Reveal() == secret.Reveal() {
			t.Fatalf("the second session: %v", err)
		}
		time.Sleep(PartnerSessionIdle)
		if _, err := s.PartnerSession(t.Context(), idle); !errors.Is(err, mandate.ErrUnauthenticated) {
			t.Errorf("after half an hour: %v", err)
		}
	})
}

// Nothing but the secret of a session opens one, and not after it was ended.
func TestPartnerSessionSecret(t *testing.T) {
	s, _ := openTest(t)
	in := PartnerSession{Key: contoso.Key, Object: someone}
	secret, err := s.AddPartnerSession(t.Context(), in)
	if err != nil {
		t.Fatal(err)
	}
	for _, wrong := range []string{"", "mdp_", secret.Reveal() + "x", secret.Reveal()[4:], "mds_" + secret.Reveal()[4:]} {
		if _, err := s.PartnerSession(t.Context(), mandate.NewSecret(wrong)); !errors.Is(err, mandate.ErrUnauthenticated) {
			t.Errorf("%q: %v", wrong, err)
		}
	}
	if got, err := s.PartnerSession(t.Context(), secret); err != nil || !got.SignedIn.IsZero() {
		t.Errorf("got %+v, %v; an unknown time of the sign-in is zero", got, err)
	}
	if err := s.EndPartnerSession(t.Context(), secret); err != nil {
		t.Fatal(err)
	}
	if _, err := s.PartnerSession(t.Context(), secret); !errors.Is(err, mandate.ErrUnauthenticated) {
		t.Errorf("after its end: %v", err)
	}
}

// Roles are of one person of one tenant.
func TestPartnerUserRoles(t *testing.T) {
	each(t, func(t *testing.T, cfg database.Config) {
		s, _ := open(t, cfg)
		for range 2 {
			if err := s.AllowPartnerUser(t.Context(), contoso.Key, someone, mandate.PartnerViewer, "uid:0"); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.AllowPartnerUser(t.Context(), contoso.Key, someone, "owner", "uid:0"); !errors.Is(err, mandate.ErrInvalid) {
			t.Errorf("an unknown role: %v", err)
		}
		roles := func(k mandate.GrantKey, o mandate.ObjectID) []string {
			t.Helper()
			got, err := s.PartnerUserRoles(t.Context(), k, o)
			if err != nil {
				t.Fatal(err)
			}
			return got
		}
		if got := roles(contoso.Key, someone); !slices.Equal(got, []string{mandate.PartnerViewer}) {
			t.Errorf("got %v", got)
		}
		if got := slices.Concat(roles(fabrikam.Key, someone), roles(contoso.Key, mandate.ObjectID(app1))); len(got) != 0 {
			t.Errorf("others have %v", got)
		}
		if err := s.AllowPartnerUser(t.Context(), contoso.Key, someone, mandate.PartnerRenewer, "uid:1"); err != nil {
			t.Fatal(err)
		}
		all, err := s.PartnerUsers(t.Context(), contoso.Key)
		if err != nil || len(all) != 1 || all[0].User != someone || !slices.Equal(all[0].Roles, []string{mandate.PartnerRenewer, mandate.PartnerViewer}) || all[0].Since.IsZero() {
			t.Errorf("listed %+v, %v", all, err)
		}
		if all, err := s.PartnerUsers(t.Context(), fabrikam.Key); err != nil || len(all) != 0 {
			t.Errorf("another partner has %+v, %v", all, err)
		}
		if err := s.RefusePartnerUser(t.Context(), contoso.Key, someone); err != nil {
			t.Fatal(err)
		}
		if err := s.RefusePartnerUser(t.Context(), contoso.Key, someone); !errors.Is(err, mandate.ErrNotFound) {
			t.Errorf("taken twice: %v", err)
		}
		if got := roles(contoso.Key, someone); len(got) != 0 {
			t.Errorf("after it was taken: %v", got)
		}
	})
}
