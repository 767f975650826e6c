package app

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/mandate-sam/mandate/internal/database"
	"github.com/mandate-sam/mandate/internal/pgtest"
	"github.com/mandate-sam/mandate/internal/rotation"
)

// Nothing is moved out of a database, or into one, from which a replica may
// still serve.
func TestMoveWhileServed(t *testing.T) {
	lite, _ := made(t, Example())
	shared, _ := made(t, Example())
	shared.Database.URL = pgtest.Shared(t).Database(t)
	for _, c := range []*Config{lite, shared} {
		c.Data = Path(t.TempDir())
		if err := os.MkdirAll(c.file("keys"), 0o700); err != nil {
			t.Fatal(err)
		}
		if _, err := NewKeyFile(c.keyFile()); err != nil {
			t.Fatal(err)
		}
	}
	db, err := database.Open(t.Context(), database.Config{URL: shared.Database.URL, Schemas: Schemas()})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	replica := &rotation.SQL{DB: db, Replica: "host/abc"}
	if err := replica.Uses(t.Context(), "marketplace", "x"); err != nil {
		t.Fatal(err)
	}
	for which, configs := range map[string][2]*Config{"from": {shared, lite}, "to": {lite, shared}} {
		err := Move(t.Context(), *configs[0], *configs[1], nil)
		if err == nil || !strings.HasPrefix(err.Error(), which+": ") || !strings.Contains(err.Error(), "host/abc; stop them first") {
			t.Errorf("%s: %v", which, err)
		}
	}
	if err := replica.Leave(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	if err := Move(t.Context(), *lite, *shared, nil); err != nil && strings.Contains(fmt.Sprint(err), "stop them") {
		t.Errorf("once it has ended: %v", err)
	}
}
