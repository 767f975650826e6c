package vault

import (
	"context"
	"fmt"
	"strings"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/internal/database"
)

// Table returns what of the vault belongs into a backup: all grants, with
// their sealed tokens wherever those are kept, and no shared token.
func (v *SQL) Table() database.Table {
	t := Grants()
	t.Row = v.inline
	return t
}

// Grants is [SQL.Table] for reading a backup.
func Grants() database.Table {
	var names []string
	for name := range strings.SplitSeq(columns, ",") {
		names = append(names, strings.TrimSpace(name))
	}
	return database.Table{Name: "grants", Order: "cloud, application, partner, generation", Columns: names}
}

// inline brings a sealed token that is kept in a home into its row: a backup
// must not depend on what a home still has. It stays sealed.
func (v *SQL) inline(ctx context.Context, row map[string]any) error {
	home, _ := row["home"].(string)
	if home == "" {
		return nil
	}
	defer func() { row["home"], row["ref"] = "", "" }()
	if row["key_id"] == nil {
		return nil // it was destroyed
	}
	h, err := v.home(home)
	if err != nil {
		return err
	}
	text := func(c string) string { s, _ := row[c].(string); return s }
	generation, _ := row["generation"].(int64)
	b, err := h.Get(ctx, homeName(text("cloud"), text("application"), text("partner"), generation), text("ref"))
	if err != nil {
		return fmt.Errorf("generation %d of partner %s, from home %q: %w", generation, text("partner"), home, err)
	}
	row["sealed"] = b
	return nil
}

// A Revived is a grant of a backup, as it is put into a new database.
type Revived struct {
	Key        mandate.GrantKey
	Generation int64
	State      mandate.State // that it had
	Since      int64         // in which epoch it came to be in it
	UserName   string
	User       string // object ID
}

// Revive reads a row of a backup, and makes it one that serves nothing until
// it is resumed: what was active is suspended, and a fall-back is destroyed.
func Revive(row map[string]any, epoch int64) (Revived, error) {
	var g Revived
	text := func(c string) string { s, _ := row[c].(string); return s }
	if err := g.Key.Application.UnmarshalText([]byte(text("application"))); err != nil {
		return g, err
	}
	if err := g.Key.Partner.UnmarshalText([]byte(text("partner"))); err != nil {
		return g, err
	}
	g.Key.Cloud, g.State, g.User, g.UserName = text("cloud"), mandate.State(text("state")), text("user_object"), text("user_name")
	g.Generation, _ = row["generation"].(int64)
	g.Since, _ = row["since"].(int64)
	row["since"] = epoch
	switch g.State {
	case mandate.StateActive:
		row["state"] = string(mandate.StateSuspended)
	case mandate.StateFallback:
		Destroy(row, mandate.StateReplaced)
	}
	return g, nil
}

// Destroy takes the token out of a row of a backup.
func Destroy(row map[string]any, state mandate.State) {
	row["state"], row["key_id"], row["sealed"], row["home"], row["ref"], row["fallback_until"] = string(state), nil, nil, "", "", int64(0)
}
