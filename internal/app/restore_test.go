package app

import (
	"testing"
	"time"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/vault"
)

// What audit logs say decides what comes back.
func TestHistoryJudges(t *testing.T) {
	k := mandate.GrantKey{Cloud: "test"}
	const ada, bob = "33333333-3333-3333-3333-333333333333", "44444444-4444-4444-4444-444444444444"
	user := func(s string) *mandate.Identity {
		id, err := mandate.ParseObjectID(s)
		if err != nil {
			t.Fatal(err)
		}
		return &mandate.Identity{Object: id}
	}
	withdrawn := func(epoch, generation int64) mandate.Record {
		return mandate.Record{Kind: mandate.KindChanged, Detail: "withdraw the grant", Grant: &k, Epoch: epoch, Generation: generation}
	}
	consented := func(generation int64, by string) mandate.Record {
		return mandate.Record{Kind: mandate.KindConsented, Grant: &k, Epoch: 9, Generation: generation, User: user(by)}
	}
	for _, tt := range []struct {
		name    string
		records []mandate.Record
		want    mandate.State
	}{
		{"nothing", nil, ""},
		{"withdrawn", []mandate.Record{withdrawn(8, 3)}, mandate.StateWithdrawn},
		{"a later one withdrawn", []mandate.Record{withdrawn(8, 4)}, mandate.StateWithdrawn},
		{"an earlier one withdrawn", []mandate.Record{withdrawn(8, 2)}, ""},
		{"withdrawn, and which is not known", []mandate.Record{withdrawn(8, 0)}, mandate.StateWithdrawn},
		{"withdrawn before, and which is not known", []mandate.Record{withdrawn(4, 0)}, ""},
		{"renewed by the same user", []mandate.Record{consented(4, ada)}, ""},
		{"replaced by another user", []mandate.Record{consented(4, bob)}, mandate.StateReplaced},
		{"its own consent", []mandate.Record{consented(3, ada)}, ""},
	} {
		h := &history{ended: make(map[mandate.GrantKey][]mandate.Record)}
		for _, r := range tt.records {
			h.note(r)
		}
		got, why := h.judge(&vault.Revived{Key: k, Generation: 3, Since: 5, User: ada})
		if got != tt.want || (why == "") != (tt.want == "") {
			t.Errorf("%s: got %q (%s), want %q", tt.name, got, why, tt.want)
		}
	}
}

func TestHistoryEndsCallers(t *testing.T) {
	backup := time.Now()
	h := new(history)
	h.ended = make(map[mandate.GrantKey][]mandate.Record)
	for detail, at := range map[string]time.Duration{
		"remove caller gone": time.Hour, "remove caller added-again": -time.Hour, "rotate the secret of caller rotated": time.Hour,
		"expire credential k1 of caller short": time.Hour,
	} {
		h.note(mandate.Record{Kind: mandate.KindChanged, Detail: detail, Time: backup.Add(at), Expires: backup.Add(2 * time.Hour)})
	}
	for _, tt := range []struct {
		table, id, key string
		gone           bool
		expires        any
	}{
		{"callers", "gone", "k", true, nil},
		{"caller_registry", "gone", "", true, nil},
		{"caller_credentials", "gone", "k", true, nil},
		{"callers", "added-again", "k", false, nil},
		{"callers", "rotated", "k", true, nil},
		{"caller_registry", "rotated", "", false, nil},
		{"caller_credentials", "rotated", "k", false, nil},
		{"callers", "short", "k1", false, backup.Add(2 * time.Hour).UnixMilli()},
		{"callers", "short", "k2", false, nil},
		{"caller_credentials", "short", "k1", false, backup.Add(2 * time.Hour).UnixMilli()},
	} {
		row := map[string]any{"id": tt.id, "key_id": tt.key, "expires": nil}
		if tt.table == "caller_credentials" {
			row = map[string]any{"caller": tt.id, "id": tt.key, "expires": nil}
		}
		if gone := h.ends(tt.table, row, backup); gone != tt.gone || row["expires"] != tt.expires {
			t.Errorf("%s of %s: gone %v, expires %v, want %v, %v", tt.table, tt.id, gone, row["expires"], tt.gone, tt.expires)
		}
	}
}
