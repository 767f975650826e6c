package store

import (
	"errors"
	"fmt"
	"testing"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/internal/database"
)

func TestContacts(t *testing.T) {
	each(t, func(t *testing.T, cfg database.Config) {
		s, db := running(t, cfg)
		ctx := t.Context()
		before, _ := db.Epoch()
		if all, err := s.Contacts("contoso"); err != nil || len(all) != 0 {
			t.Errorf("got %v, %v", all, err)
		}
		for _, a := range []mandate.MailAddress{"security@contoso.example", "ada@contoso.example"} {
			if err := s.AddContact(ctx, "contoso", a, "uid:0"); err != nil {
				t.Fatal(err)
			}
		}
		all, err := s.Contacts("contoso")
		if err != nil || len(all) != 2 || all[0].Address != "ada@contoso.example" || all[0].By != "uid:0" || all[0].Added.IsZero() {
			t.Errorf("got %+v, %v", all, err)
		}
		if now, _ := db.Epoch(); now != before+2 {
			t.Errorf("the epoch went from %d to %d", before, now)
		}
		if err := s.AddContact(ctx, "contoso", "ADA@contoso.example", "uid:0"); !errors.Is(err, mandate.ErrExists) {
			t.Errorf("the same in another case: got %v", err)
		}
		if err := s.AddContact(ctx, "fabrikam", "ada@contoso.example", "uid:0"); err != nil {
			t.Errorf("of another partner: got %v", err)
		}
		if err := s.RemoveContact(ctx, "contoso", "x@contoso.example"); !errors.Is(err, mandate.ErrNotFound) {
			t.Errorf("got %v", err)
		}
		if err := s.RemoveContact(ctx, "contoso", "Ada@contoso.example"); err != nil {
			t.Fatal(err)
		}
		if all, _ := s.Contacts("contoso"); len(all) != 1 || all[0].Address != "security@contoso.example" {
			t.Errorf("got %+v", all)
		}
		if all, _ := s.Contacts("fabrikam"); len(all) != 1 {
			t.Errorf("the other partner's: %+v", all)
		}
		for i := range maxContacts - 1 {
			if err := s.AddContact(ctx, "contoso", mandate.MailAddress(fmt.Sprintf("a%d@contoso.example", i)), "uid:0"); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.AddContact(ctx, "contoso", "more@contoso.example", "uid:0"); !errors.Is(err, mandate.ErrInvalid) {
			t.Errorf("one too many: got %v", err)
		}
	})
}

// Whoever can write to the database cannot have somebody else told, or nobody.
func TestContactsAreGuarded(t *testing.T) {
	for name, alter := range map[string]string{
		"redirected": `UPDATE contacts SET address = 'eve@evil.example'`,
		"removed":    `DELETE FROM contacts`,
		"added":      `INSERT INTO contacts (partner, address, added, added_by) VALUES ('contoso', 'eve@evil.example', 0, '')`,
	} {
		t.Run(name, func(t *testing.T) {
			db, err := database.Open(t.Context(), database.Config{File: t.TempDir() + "/m.db", Schemas: []database.Schema{Schema()}})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { db.Close() })
			if err := db.Guard(t.Context(), database.GuardConfig{Key: plainKey{}}); err != nil {
				t.Fatal(err)
			}
			s, err := Open(t.Context(), db)
			if err != nil {
				t.Fatal(err)
			}
			if err := s.AddContact(t.Context(), "contoso", "ada@contoso.example", "uid:0"); err != nil {
				t.Fatal(err)
			}
			if _, err := db.Exec(t.Context(), alter); err != nil {
				t.Fatal(err)
			}
			if err := s.AddContact(t.Context(), "contoso", "new@contoso.example", "uid:0"); !errors.Is(err, database.ErrAltered) {
				t.Errorf("got %v", err)
			}
			if all, err := s.Contacts("contoso"); err == nil {
				t.Errorf("got %v", all)
			}
		})
	}
}
