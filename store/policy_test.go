package store

import (
	"errors"
	"testing"
	"time"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/internal/database"
)

func TestPolicyVersions(t *testing.T) { each(t, testPolicyVersions) }

func testPolicyVersions(t *testing.T, cfg database.Config) {
	s, _ := running(t, cfg)
	if p, err := s.Policy(); p != nil || err != nil {
		t.Fatalf("a new database has %+v, %v", p, err)
	}
	apply := func(version string, after int64) error {
		n, err := s.ApplyPolicy(t.Context(), Policy{Version: version, Files: "files of " + version, Applied: time.UnixMilli(7), By: "uid:1"}, after)
		if err == nil && n != after+1 {
			t.Errorf("what took the place of number %d has number %d", after, n)
		}
		return err
	}
	before, _ := s.db.Epoch()
	if err := apply("v1", 0); err != nil {
		t.Fatal(err)
	}
	if after, _ := s.db.Epoch(); after <= before {
		t.Errorf("the epoch was %d and is %d", before, after)
	}
	first, err := s.Policy()
	if err != nil || *first != (Policy{1, "v1", "files of v1", time.UnixMilli(7), "uid:1"}) {
		t.Fatalf("got %+v, %v", first, err)
	}
	// Another change leaves the policy where it is in memory.
	if _, _, err := s.AddCaller(t.Context(), "billing", time.Time{}); err != nil {
		t.Fatal(err)
	}
	if again, _ := s.Policy(); again != first {
		t.Error("an unchanged policy was read again")
	}
	for _, after := range []int64{0, 2, -1} {
		if err := apply("v2", after); !errors.Is(err, mandate.ErrExists) {
			t.Errorf("after %d: %v", after, err)
		}
	}
	if err := errors.Join(apply("v2", 1), apply("v1", 2)); err != nil {
		t.Fatal(err)
	}
	if p, _ := s.Policy(); p.Number != 3 || p.Version != "v1" {
		t.Errorf("got %+v", p)
	}
	if p, err := s.PolicyOf(t.Context(), "v1"); err != nil || p.Number != 3 || p.Files != "files of v1" {
		t.Errorf("got %+v, %v", p, err)
	}
	if _, err := s.PolicyOf(t.Context(), "v9"); !errors.Is(err, mandate.ErrNotFound) {
		t.Errorf("got %v", err)
	}
	if all, err := s.Policies(t.Context(), 2); err != nil || len(all) != 2 || all[0].Number != 3 || all[1].Version != "v2" || all[0].Files != "" {
		t.Errorf("got %+v, %v", all, err)
	}
}
