package store

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/internal/database"
)

// maxContacts bounds the contacts of a partner.
const maxContacts = 20

// AddContact stores an address that is told what happens to a partner's
// consent, and raises the epoch. The error wraps [mandate.ErrExists] if it is
// there already, in whatever case it is written. When it returns nil the
// contact survives a crash.
func (s *Store) AddContact(ctx context.Context, partner string, a mandate.MailAddress, by mandate.CallerID) error {
	err := s.db.Change(ctx, func(tx *database.Tx) error {
		all, err := contactsOf(ctx, tx, partner)
		switch {
		case err != nil:
			return err
		case slices.ContainsFunc(all, sameAddress(a)):
			return fmt.Errorf("%w: %s is a contact of %s", mandate.ErrExists, a, partner)
		case len(all) >= maxContacts:
			return mandate.Invalid("address", "is one too many: a partner has at most %d contacts; a mailing list reaches more people", maxContacts)
		}
		_, err = tx.Exec(ctx, `INSERT INTO contacts (partner, address, added, added_by) VALUES ($1, $2, $3, $4)`,
			partner, string(a), time.Now().UnixMilli(), string(by))
		return err
	})
	return wrap("add contact", unavailable(ctx, err))
}

// RemoveContact removes an address, and raises the epoch. If it is not there
// the error wraps [mandate.ErrNotFound].
func (s *Store) RemoveContact(ctx context.Context, partner string, a mandate.MailAddress) error {
	err := s.db.Change(ctx, func(tx *database.Tx) error {
		all, err := contactsOf(ctx, tx, partner)
		if err != nil {
			return err
		}
		i := slices.IndexFunc(all, sameAddress(a))
		if i < 0 {
			return fmt.Errorf("%w: %s is no contact of %s", mandate.ErrNotFound, a, partner)
		}
		_, err = tx.Exec(ctx, `DELETE FROM contacts WHERE partner = $1 AND address = $2`, partner, string(all[i].Address))
		return err
	})
	return wrap("remove contact", unavailable(ctx, err))
}

func sameAddress(a mandate.MailAddress) func(mandate.Contact) bool {
	return func(c mandate.Contact) bool { return strings.EqualFold(string(c.Address), string(a)) }
}

// Contacts returns a partner's contacts by address. It does not wait for the
// database unless security state has just changed.
func (s *Store) Contacts(partner string) ([]mandate.Contact, error) {
	snap, err := s.current()
	if err != nil {
		return nil, err
	}
	return slices.Clone(snap.contacts[partner]), nil
}

func (n *snapshot) readContacts(ctx context.Context, tx *database.Tx) error {
	all, err := readContacts(ctx, tx, `SELECT partner, address, added, added_by FROM contacts ORDER BY partner, address`)
	n.contacts = all
	return err
}

func contactsOf(ctx context.Context, tx *database.Tx, partner string) ([]mandate.Contact, error) {
	all, err := readContacts(ctx, tx, `SELECT partner, address, added, added_by FROM contacts WHERE partner = $1 ORDER BY address`, partner)
	return all[partner], err
}

func readContacts(ctx context.Context, tx *database.Tx, query string, args ...any) (map[string][]mandate.Contact, error) {
	rows, err := tx.Query(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	all := make(map[string][]mandate.Contact)
	for rows.Next() {
		var partner, address, by string
		var added int64
		if err := rows.Scan(&partner, &address, &added, &by); err != nil {
			return nil, err
		}
		all[partner] = append(all[partner], mandate.Contact{Address: mandate.MailAddress(address), Added: time.UnixMilli(added).UTC(), By: mandate.CallerID(by)})
	}
	return all, rows.Err()
}
