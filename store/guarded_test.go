package store

import (
	"slices"
	"testing"

	"github.com/mandate-sam/mandate/internal/database"
)

// Whoever adds a table, or a column of one that is guarded, must say whether it
// is security state.
func TestEveryTableIsGuardedOrNot(t *testing.T) {
	_, db := openTest(t)
	rows, err := db.Query(t.Context(), `SELECT m.name, c.name FROM sqlite_master m JOIN pragma_table_info(m.name) c WHERE m.type = 'table'`)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	others := []string{"head", "migrations", "state_key"}
	for rows.Next() {
		var table, column string
		if err := rows.Scan(&table, &column); err != nil {
			t.Fatal(err)
		}
		i := slices.IndexFunc(guarded, func(g database.Guarded) bool { return g.Table == table })
		switch {
		case i < 0 && unguarded[table] == "" && !slices.Contains(others, table):
			t.Errorf("table %s is neither in guarded nor in unguarded", table)
		case i >= 0 && !slices.Contains(guarded[i].Key, column) && !slices.Contains(guarded[i].Columns, column):
			t.Errorf("column %s of the guarded table %s is not guarded", column, table)
		}
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
}
