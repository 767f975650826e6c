package rotation

import (
	"errors"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/mandate-sam/mandate/internal/database"
	"github.com/mandate-sam/mandate/internal/pgtest"
)

func open(t *testing.T, cfg database.Config) *SQL {
	t.Helper()
	cfg.Schemas = []database.Schema{Schema()}
	db, err := database.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return &SQL{DB: db, Replica: "a"}
}

// States are kept, and replicas counted, in both databases.
func TestSQL(t *testing.T) {
	for name, cfg := range map[string]database.Config{
		"SQLite":     {File: filepath.Join(t.TempDir(), "d", "m.db")},
		"PostgreSQL": {URL: pgtest.Start(t).Database(t)},
	} {
		t.Run(name, func(t *testing.T) {
			a, ctx := open(t, cfg), t.Context()
			s, err := a.Load(ctx, "app")
			if err != nil || s.ID != "" || s.Application != "app" {
				t.Fatalf("%+v, %v", s, err)
			}
			for _, done := range []string{StepMake, StepSwitch} {
				want := State{Application: "app", ID: "r", Done: done, Begun: time.Unix(1, 0).UTC(), New: Ref{ID: "n", Version: "v"}}
				if err := a.Save(ctx, want); err != nil {
					t.Fatal(err)
				}
				if got, err := a.Load(ctx, "app"); err != nil || got != want {
					t.Errorf("got %+v, %v, want %+v", got, err, want)
				}
			}
			b := &SQL{DB: a.DB, Replica: "b"}
			without := func(want ...string) {
				t.Helper()
				if got, err := a.Without(ctx, "app", "new"); err != nil || !slices.Equal(got, want) {
					t.Errorf("without the new one: %v, %v, want %v", got, err, want)
				}
			}
			heard := func(want ...string) {
				t.Helper()
				if got, err := a.Heard(ctx); err != nil || !slices.Equal(got, want) {
					t.Errorf("heard of: %v, %v, want %v", got, err, want)
				}
			}
			heard()
			for _, r := range []*SQL{a, b} {
				if err := errors.Join(r.Uses(ctx, "app", "old"), r.Uses(ctx, "other", "x")); err != nil {
					t.Fatal(err)
				}
			}
			without("a", "b")
			heard("a", "b")
			if err := a.Uses(ctx, "app", "new"); err != nil {
				t.Fatal(err)
			}
			without("b")
			if _, err := a.DB.Exec(ctx, `UPDATE credential_uses SET seen = seen - $1 WHERE replica = 'b'`, useLife.Milliseconds()+1000); err != nil {
				t.Fatal(err)
			}
			without() // it has said nothing for too long
			heard("a")
			if err := b.Uses(ctx, "app", "old"); err != nil {
				t.Fatal(err)
			}
			if err := b.Leave(ctx, false); err != nil {
				t.Fatal(err)
			}
			without()
			heard("a")
			if err := a.Leave(ctx, true); err != nil {
				t.Fatal(err)
			}
		})
	}
}
