package store

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/internal/database"
	"github.com/mandate-sam/mandate/internal/spelling"
)

const (
	maxPartnerName = 63
	maxDisplayName = 128 // bytes
)

// AddPartner stores a partner and raises the epoch. A zero Created becomes
// now. The error wraps [mandate.ErrInvalid], or [mandate.ErrExists] if the name
// or the same tenant with the same application is taken. When it returns nil
// the partner survives a crash.
func (s *Store) AddPartner(ctx context.Context, p mandate.Partner) error {
	if err := checkPartner(p); err != nil {
		return err
	}
	if p.Created.IsZero() {
		p.Created = time.Now()
	}
	err := s.db.Change(ctx, func(tx *database.Tx) error {
		n, err := tx.Exec(ctx, `INSERT INTO partners (name, cloud, application, partner, display_name, created)
			VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING`,
			p.Name, p.Key.Cloud, p.Key.Application.String(), p.Key.Partner.String(), p.DisplayName, p.Created.UnixMilli())
		if err == nil && n == 0 {
			err = taken(ctx, tx, p)
		}
		return err
	})
	return wrap("add partner", unavailable(ctx, err))
}

// taken says which partner is in p's way.
func taken(ctx context.Context, tx *database.Tx, p mandate.Partner) error {
	var name string
	err := tx.QueryRow(ctx, `SELECT name FROM partners
		WHERE name = $1 OR (cloud = $2 AND application = $3 AND partner = $4) ORDER BY name <> $1 LIMIT 1`,
		p.Name, p.Key.Cloud, p.Key.Application.String(), p.Key.Partner.String()).Scan(&name)
	switch {
	case err != nil:
		return err
	case name == p.Name:
		return fmt.Errorf("%w: a partner named %q", mandate.ErrExists, name)
	}
	return fmt.Errorf("%w: tenant %s is the partner %q of this application", mandate.ErrExists, p.Key.Partner, name)
}

func checkPartner(p mandate.Partner) error {
	switch {
	case !partnerName(p.Name):
		return mandate.Invalid("name", "%.80q must be at most %d of a-z, 0-9 and '-', not beginning with '-'", p.Name, maxPartnerName)
	case guid(p.Name):
		return mandate.Invalid("name", "%q looks like a tenant ID; a short name is for people", p.Name)
	case p.Key.Cloud == "" || p.Key.Application.IsZero() || p.Key.Partner.IsZero():
		return mandate.Invalid("partner", "needs a cloud, an application and a tenant")
	case !line(p.DisplayName, maxDisplayName):
		return mandate.Invalid("display_name", "must be one line of at most %d bytes", maxDisplayName)
	}
	return nil
}

func partnerName(s string) bool {
	for _, c := range []byte(s) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return false
		}
	}
	return s != "" && len(s) <= maxPartnerName && s[0] != '-'
}

// guid reports whether s could be meant as an ID, with or without its dashes.
func guid(s string) bool {
	hex := strings.ReplaceAll(s, "-", "")
	return len(hex) == 32 && strings.Trim(hex, "0123456789abcdefABCDEF") == ""
}

// line reports whether s is valid text for one line of a page or a terminal.
func line(s string, max int) bool {
	return len(s) <= max && utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) })
}

// Partner returns the partner of that name, or of that tenant ID. It does not
// wait for the database unless security state has just changed. The error
// wraps [mandate.ErrUnknownPartner], or [mandate.ErrInvalid] if the tenant is
// a partner of more than one application, so that only names tell which.
func (s *Store) Partner(nameOrTenantID string) (mandate.Partner, error) {
	snap, err := s.current()
	if err != nil {
		return mandate.Partner{}, err
	}
	if p, ok := snap.byName[nameOrTenantID]; ok {
		return p, nil
	}
	t, err := mandate.ParseTenantID(nameOrTenantID)
	if err != nil {
		return mandate.Partner{}, snap.unknown(nameOrTenantID)
	}
	switch ps := snap.byTenant[t]; len(ps) {
	case 0:
		return mandate.Partner{}, fmt.Errorf("%w: no partner has the tenant %s", mandate.ErrUnknownPartner, t)
	case 1:
		return ps[0], nil
	default:
		var names []string
		for _, p := range ps {
			names = append(names, p.Name)
		}
		return mandate.Partner{}, mandate.Invalid("partner", "tenant %s is a partner of several applications; use a name: %s", t, strings.Join(names, ", "))
	}
}

// Partners returns all partners by name.
func (s *Store) Partners() ([]mandate.Partner, error) {
	snap, err := s.current()
	if err != nil {
		return nil, err
	}
	return slices.Clone(snap.partners), nil
}

func (n *snapshot) readPartners(ctx context.Context, tx *database.Tx) error {
	rows, err := tx.Query(ctx, `SELECT name, cloud, application, partner, display_name, created FROM partners ORDER BY name`)
	if err != nil {
		return err
	}
	defer rows.Close()
	n.byName, n.byTenant = make(map[string]mandate.Partner), make(map[mandate.TenantID][]mandate.Partner)
	for rows.Next() {
		p, err := scanPartner(rows.Scan)
		if err != nil {
			return err
		}
		n.partners = append(n.partners, p)
		n.byName[p.Name] = p
		n.byTenant[p.Key.Partner] = append(n.byTenant[p.Key.Partner], p)
	}
	return rows.Err()
}

// scanPartner reads name, cloud, application, partner, display_name, created,
// and then what more there is.
func scanPartner(scan func(...any) error, more ...any) (mandate.Partner, error) {
	var p mandate.Partner
	var application, tenant string
	var created int64
	err := scan(append([]any{&p.Name, &p.Key.Cloud, &application, &tenant, &p.DisplayName, &created}, more...)...)
	if err != nil {
		return p, err
	}
	if p.Key.Application, err = mandate.ParseAppID(application); err != nil {
		return p, fmt.Errorf("partner %q: %v", p.Name, err) // of ours, not the caller's, so not wrapped
	}
	if p.Key.Partner, err = mandate.ParseTenantID(tenant); err != nil {
		return p, fmt.Errorf("partner %q: %v", p.Name, err) // of ours, not the caller's, so not wrapped
	}
	p.Created = time.UnixMilli(created)
	return p, nil
}

// unknown suggests the partner whose name is nearest to s, if one is near.
func (n *snapshot) unknown(s string) error {
	if len(s) <= maxPartnerName {
		var names []string
		for _, p := range n.partners {
			names = append(names, p.Name)
		}
		if near := spelling.Nearest(strings.ToLower(s), names, 2); near != "" {
			return fmt.Errorf("%w: %.80q; did you mean %q?", mandate.ErrUnknownPartner, s, near)
		}
	}
	return fmt.Errorf("%w: %.80q", mandate.ErrUnknownPartner, s)
}
