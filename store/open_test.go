package store

import (
	"testing"
	"time"
)

func TestOpenInvitations(t *testing.T) {
	s, _ := openTest(t)
	if err := s.AddPartner(t.Context(), contoso); err != nil {
		t.Fatal(err)
	}
	var want []string
	for _, in := range []time.Duration{48 * time.Hour, time.Hour} {
		i := invitation()
		i.Expires = time.Now().Add(in)
		i, _, err := s.Invite(t.Context(), i)
		if err != nil {
			t.Fatal(err)
		}
		want = append([]string{i.ID}, want...)
	}
	all, err := s.OpenInvitations(t.Context(), time.Now())
	if err != nil || len(all) != 2 || all[0].ID != want[0] || all[1].ID != want[1] || all[0].Partner.Name != "contoso" {
		t.Errorf("got %+v, %v, want %v", all, err, want)
	}
	if all, err := s.OpenInvitations(t.Context(), time.Now().Add(2*time.Hour)); err != nil || len(all) != 1 {
		t.Errorf("two hours later: %+v, %v", all, err)
	}
}
