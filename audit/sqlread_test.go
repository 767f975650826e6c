package audit

import (
	"errors"
	"testing"

	"github.com/mandate-sam/mandate"
)

// A database from which no record can be read is unavailable, and no fault of
// this program.
func TestReadUnavailable(t *testing.T) {
	cfg := pgConfig(t)
	l := openLog(t, cfg)
	record(t, l, testRecord(0, "before"))
	rename := func(from, to string) {
		if _, err := cfg.DB.Exec(t.Context(), "ALTER TABLE "+from+" RENAME TO "+to); err != nil {
			t.Fatal(err)
		}
	}
	rename("audit_entries", "kept")
	if _, err := l.Last(1); !errors.Is(err, mandate.ErrUnavailable) {
		t.Errorf("got %v, want ErrUnavailable", err)
	}
	rename("kept", "audit_entries")
	if got, err := l.Last(1); err != nil || len(got) != 1 {
		t.Errorf("got %d records, %v", len(got), err)
	}
}
