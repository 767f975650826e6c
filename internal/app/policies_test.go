package app

import (
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/mandate-sam/mandate/internal/database"
	"github.com/mandate-sam/mandate/policy"
	"github.com/mandate-sam/mandate/store"
)

// A stored policy that cannot be used is told of, leaves the one before it in
// force until the next start, and can be replaced.
func TestPolicyThatCannotBeUsed(t *testing.T) {
	db, err := database.Open(t.Context(), database.Config{File: filepath.Join(t.TempDir(), "d", "m.db"), Schemas: []database.Schema{store.Schema()}})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	st, err := store.Open(t.Context(), db)
	if err != nil {
		t.Fatal(err)
	}
	start := func() *policies {
		return &policies{Engine: policy.NewEngine(policy.EngineConfig{Keeper: &keeper{store: st}}), store: st, path: "nowhere"}
	}
	put := func(text string, after int64) policy.Source {
		src := policy.Source{{Name: "a.cedar", Text: text}}
		files, err := json.Marshal(src)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := st.ApplyPolicy(t.Context(), store.Policy{Version: src.Version(), Files: string(files), Applied: time.Now()}, after); err != nil {
			t.Fatal(err)
		}
		return src
	}
	x := start()
	good := put(`@id("none") forbid (principal, action, resource);`, 0)
	if s, err := x.Status(t.Context()); err != nil || s.Number != 1 || s.Latest != 1 || s.Broken != "" {
		t.Fatalf("got %+v, %v", s, err)
	}
	put(`permit (principal, action, resource);`, 1)
	for _, tt := range []struct {
		name    string
		of      *policies
		inForce int64
		rules   int // that the good one changes
		earlier int
	}{{"a server that had another", x, 1, 0, 0}, {"one that has just started", start(), 0, 1, 1}} {
		s, err := tt.of.Status(t.Context())
		if err != nil || s.Number != tt.inForce || s.Latest != 2 || !strings.Contains(s.Broken, "@id") || len(s.Earlier) != tt.earlier {
			t.Errorf("%s: got %+v, %v", tt.name, s, err)
		}
		d, err := tt.of.Dry(t.Context(), good, time.Time{})
		if err != nil || d.InForce != tt.inForce || d.Latest != 2 || len(d.Rules) != tt.rules {
			t.Errorf("%s: compared %+v, %v", tt.name, d, err)
		}
		if _, err := st.ApplyPolicy(t.Context(), store.Policy{}, d.InForce); err == nil {
			t.Errorf("%s: replaced what is not the last", tt.name)
		}
	}
	put(good[0].Text, 2)
	if s, err := x.Status(t.Context()); err != nil || s.Number != 3 || s.Latest != 3 || s.Broken != "" || len(s.Earlier) != 2 {
		t.Errorf("replaced: %+v, %v", s, err)
	}
}
