package demo

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/internal/app"
	"github.com/mandate-sam/mandate/internal/database"
	"github.com/mandate-sam/mandate/store"
	"github.com/mandate-sam/mandate/vault"
)

// open opens what is sealed in databases and backups with every key.
func (a *attacker) open() {
	for _, name := range sortedKeys(a.files) {
		data := a.files[name]
		switch {
		case bytes.HasPrefix(data, []byte("SQLite format 3")):
			file := filepath.Join(a.dir, "db-"+strings.ReplaceAll(name, "/", "_"), "x.db")
			a.place(file, data)
			if log, ok := a.files[name+"-wal"]; ok {
				a.place(file+"-wal", log)
			}
			a.openDatabase(file, nil)
		case bytes.HasPrefix(data, []byte(`{"format":"mandate backup"`)):
			file := filepath.Join(a.dir, "backup-"+strings.ReplaceAll(name, "/", "_"), "x.db")
			a.place(filepath.Join(filepath.Dir(file), "backup"), data)
			a.openDatabase(file, data)
		}
	}
}

func (a *attacker) place(path string, data []byte) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		a.t.Fatal(err)
	}
	if err := os.WriteFile(path, data, 0o600); err != nil {
		a.t.Fatal(err)
	}
}

// openDatabase opens a database, or makes one of a backup, and every sealed
// token in it with every key.
func (a *attacker) openDatabase(file string, backup []byte) {
	ctx := a.t.Context()
	db, err := database.Open(ctx, database.Config{File: file, Schemas: app.Schemas()})
	if err != nil {
		a.t.Logf("a stolen database does not open: %v", err)
		return
	}
	defer db.Close()
	if backup != nil {
		tables := append(store.Tables(), vault.Grants(), turnsTable)
		h, err := database.ReadDump(bytes.NewReader(backup), tables, func(table string, row map[string]any) error {
			i := slices.IndexFunc(tables, func(t database.Table) bool { return t.Name == table })
			return db.Tx(ctx, func(tx *database.Tx) error { _, err := tx.Insert(ctx, tables[i], row); return err })
		})
		if err == nil {
			err = db.ChangeTo(ctx, h.Epoch, func(*database.Tx) error { return nil })
		}
		if err != nil {
			a.t.Fatal(err)
		}
	}
	opened := make(map[string]bool)
	var sealed int
	for i := range max(1, len(a.keys)) {
		c := vault.Config{DB: db}
		if len(a.keys) > 0 {
			c.Key, c.SharedKey = a.keys[i], a.keys[i].Shared()
		}
		v, err := vault.New(c)
		if err != nil {
			a.t.Fatal(err)
		}
		sealed = a.openGrants(ctx, v, opened)
		if c.SharedKey != nil {
			a.openShared(ctx, v)
		}
	}
	for r := range opened {
		a.refresh[r] = true
	}
	a.loot.opened += len(opened)
	a.loot.sealed += sealed - len(opened)
}

// openGrants opens every sealed token with one key, and returns how many there
// are.
func (a *attacker) openGrants(ctx context.Context, v *vault.SQL, opened map[string]bool) (sealed int) {
	all, err := v.Grants(ctx, mandate.TenantID{})
	if err != nil {
		a.t.Fatal(err)
	}
	for _, g := range all {
		var open func(context.Context, mandate.GrantKey) (mandate.Grant, error)
		switch g.State {
		case mandate.StateActive, mandate.StateSuspended:
			open = v.Held
		case mandate.StateFallback:
			open = v.Fallback
		case mandate.StateCandidate:
			open = v.Candidate
		default:
			continue
		}
		sealed++
		if got, err := open(ctx, g.Key); err == nil {
			opened[got.Refresh.Reveal()] = true
		}
	}
	return sealed
}

// turnsTable is what a copy of PostgreSQL has beside what a backup has.
var turnsTable = database.Table{Name: "turns", Order: "id",
	Columns: []string{"id", "cloud", "application", "partner", "owner", "fence", "lease", "epoch", "expires", "fingerprint", "key_id", "sealed"}}

// openShared opens the access tokens that replicas share, of every tenant and
// API that there may be one of.
func (a *attacker) openShared(ctx context.Context, v *vault.SQL) {
	all, err := v.Grants(ctx, mandate.TenantID{})
	if err != nil {
		a.t.Fatal(err)
	}
	for _, g := range all {
		for _, tenant := range sortedKeys(a.tenants) {
			id, err := mandate.ParseTenantID(tenant)
			if err != nil {
				continue
			}
			for _, resource := range a.resources() {
				k := mandate.TokenKey{Grant: g.Key, Generation: g.Generation, Tenant: id, Audience: mandate.Audience(resource)}
				if _, tok, err := v.Take(ctx, mandate.Wanted{Key: k}); err == nil && tok != nil {
					a.access[tok.Access.Reveal()] = ofGrant
					a.loot.shared++
				}
			}
		}
	}
}
