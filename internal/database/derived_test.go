package database

import (
	"path/filepath"
	"testing"
)

// What can be made again is not synced at every commit; everything else is.
func TestDerived(t *testing.T) {
	for derived, want := range map[bool]int{false: 2, true: 1} { // FULL, NORMAL
		d, err := Open(t.Context(), Config{File: filepath.Join(t.TempDir(), "x.db"), Derived: derived})
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		var got int
		if err := d.writer.QueryRowContext(t.Context(), `PRAGMA synchronous`).Scan(&got); err != nil || got != want {
			t.Errorf("derived %v: synchronous is %d, %v, want %d", derived, got, err, want)
		}
	}
}
