package app

import (
	"path/filepath"
	"slices"
	"testing"

	"github.com/mandate-sam/mandate/internal/database"
	"github.com/mandate-sam/mandate/store"
	"github.com/mandate-sam/mandate/vault"
)

// leftOut are the tables that are in no backup, each with its reason.
var leftOut = map[string]string{
	"migrations":        "of this database alone",
	"head":              "the header has the epoch",
	"state_key":         "proves this database alone; a restore makes another",
	"turns":             "access tokens",
	"sign_ins":          "sign-ins under way",
	"operator_signins":  "sign-ins of the last minutes",
	"operator_sessions": "sessions",
	"partner_sessions":  "sessions",
	"customers":         "Microsoft tells of them again, and what has ended since must not come back",
	"customer_lists":    "as customers",
	"customer_floors":   "as customers: without a list there is none to be put back",
	"approvals":         "what a second person agreed to held for hours, and may have been taken back since",
	"caller_assertions": "used assertions; whatever was restored is locked down for longer than one lives",
	"lockdown":          "a restore begins one of its own",
	"restored":          "a restore makes the list anew",
	"rotations":         "how far a rotation has come holds for the files and for Entra as they are, and not as they were",
	"credential_uses":   "what replicas use at this moment",
	"notices":           "what people were told holds for what had happened then; the log has it",
	"notice_deliveries": "as notices",

	// The log is copied by itself (mandate audit export): one that went back
	// with a restore would fork.
	"audit_entries":     "the audit log",
	"audit_tiles":       "the audit log",
	"audit_chains":      "the audit log",
	"audit_checkpoints": "the audit log",
	"audit_end":         "the audit log",
	"audit_index":       "made of the audit log",
	"audit_indexed":     "made of the audit log",
	"audit_keys":        "a key that comes back would undo an erasure",
}

// Every table with all of its columns is in a backup, or is left out for a
// reason. Whoever adds one must decide.
func TestBackupHasEveryTable(t *testing.T) {
	db, err := database.Open(t.Context(), database.Config{
		File: filepath.Join(t.TempDir(), "d", "m.db"), Schemas: Schemas(),
	})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	in := make(map[string][]string)
	for _, table := range append(store.Tables(), vault.Grants()) {
		in[table.Name] = table.Columns
	}
	rows, err := db.Query(t.Context(), `SELECT m.name, c.name FROM sqlite_master m, pragma_table_info(m.name) c WHERE m.type = 'table' ORDER BY m.name`)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	seen := make(map[string]bool)
	for rows.Next() {
		var table, column string
		if err := rows.Scan(&table, &column); err != nil {
			t.Fatal(err)
		}
		seen[table] = true
		if leftOut[table] == "" && !slices.Contains(in[table], column) {
			t.Errorf("%s.%s is in no backup: add it to store.Tables or vault.Grants, or say here why not", table, column)
		}
	}
	for table := range in {
		if !seen[table] || leftOut[table] != "" {
			t.Errorf("%s is no table, or is left out and backed up", table)
		}
	}
}
