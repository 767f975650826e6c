package store

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/internal/database"
)

const (
	// PartnerSessionLife is the longest that somebody of a partner stays signed
	// in, and PartnerSessionIdle how long without asking for anything.
	PartnerSessionLife = 8 * time.Hour
	PartnerSessionIdle = 30 * time.Minute
)

// A PartnerSession is that of somebody of a partner, from one sign-in.
type PartnerSession struct {
	Key      mandate.GrantKey // of the grant that is looked at
	Object   mandate.ObjectID // of the partner's tenant
	UserName string           // for people to read
	SignedIn time.Time        // when, by the issuer's word; zero if that is not known
	Expires  time.Time        // set by the store
}

// partnerSessionPrefix begins what the browser shows, so that no other secret
// is ever taken for it.
const partnerSessionPrefix = "mdp_"

// AllowPartnerUser gives somebody of a partner a role, and raises the epoch.
// Whoever has it already keeps it.
func (s *Store) AllowPartnerUser(ctx context.Context, k mandate.GrantKey, user mandate.ObjectID, role, by string) error {
	if !slices.Contains(mandate.PartnerRoles(), role) {
		return mandate.Invalid("role", "%.40q is none of %s", role, strings.Join(mandate.PartnerRoles(), ", "))
	}
	err := s.db.Change(ctx, func(tx *database.Tx) error {
		_, err := tx.Exec(ctx, `INSERT INTO partner_users (cloud, partner, object, role, created, created_by)
			VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING`,
			k.Cloud, k.Partner.String(), user.String(), role, time.Now().UnixMilli(), by)
		return err
	})
	return wrap("allow partner user", unavailable(ctx, err))
}

// RefusePartnerUser takes every role from somebody of a partner, and raises
// the epoch. The error wraps [mandate.ErrNotFound] if there was none.
func (s *Store) RefusePartnerUser(ctx context.Context, k mandate.GrantKey, user mandate.ObjectID) error {
	err := s.db.Change(ctx, func(tx *database.Tx) error {
		n, err := tx.Exec(ctx, `DELETE FROM partner_users WHERE cloud = $1 AND partner = $2 AND object = $3`, k.Cloud, k.Partner.String(), user.String())
		if err == nil && n == 0 {
			err = fmt.Errorf("%w: nobody has given a role to object %s of the partner", mandate.ErrNotFound, user)
		}
		return err
	})
	return wrap("refuse partner user", unavailable(ctx, err))
}

// PartnerUsers returns the people of a partner who were given roles, by their
// object IDs.
func (s *Store) PartnerUsers(ctx context.Context, k mandate.GrantKey) ([]mandate.PartnerUser, error) {
	rows, err := s.db.Query(ctx, `SELECT object, role, created, created_by FROM partner_users
		WHERE cloud = $1 AND partner = $2 ORDER BY object, role`, k.Cloud, k.Partner.String())
	if err != nil {
		return nil, wrap("list partner users", unavailable(ctx, err))
	}
	defer rows.Close()
	var out []mandate.PartnerUser
	for rows.Next() {
		var object, role, by string
		var created int64
		if err := rows.Scan(&object, &role, &created, &by); err != nil {
			return nil, wrap("list partner users", unavailable(ctx, err))
		}
		user, err := mandate.ParseObjectID(object)
		if err != nil {
			return nil, wrap("list partner users", err)
		}
		if len(out) == 0 || out[len(out)-1].User != user {
			out = append(out, mandate.PartnerUser{User: user})
		}
		u := &out[len(out)-1]
		u.Roles = append(u.Roles, role)
		if since := time.UnixMilli(created).UTC(); !since.Before(u.Since) {
			u.Since, u.By = since, by
		}
	}
	return out, wrap("list partner users", unavailable(ctx, rows.Err()))
}

// PartnerUserRoles returns the roles that somebody of a partner was given.
func (s *Store) PartnerUserRoles(ctx context.Context, k mandate.GrantKey, user mandate.ObjectID) ([]string, error) {
	rows, err := s.db.Query(ctx, `SELECT role FROM partner_users WHERE cloud = $1 AND partner = $2 AND object = $3 ORDER BY role`,
		k.Cloud, k.Partner.String(), user.String())
	if err != nil {
		return nil, wrap("read roles", unavailable(ctx, err))
	}
	defer rows.Close()
	var out []string
	for rows.Next() {
		var role string
		if err := rows.Scan(&role); err != nil {
			return nil, wrap("read roles", unavailable(ctx, err))
		}
		out = append(out, role)
	}
	return out, wrap("read roles", unavailable(ctx, rows.Err()))
}

// AddPartnerSession stores a session and returns what its browser shows from
// now on: 256 new random bits, of which a hash is stored.
func (s *Store) AddPartnerSession(ctx context.Context, in PartnerSession) (mandate.Secret, error) {
	secret := partnerSessionPrefix + randomText()
	hash, now := sha256.Sum256([]byte(secret)), time.Now()
	if _, err := s.db.Exec(ctx, `DELETE FROM partner_sessions WHERE expires <= $1`, now.UnixMilli()); err != nil {
		return mandate.Secret{}, wrap("add session", unavailable(ctx, err))
	}
	_, err := s.db.Exec(ctx, `INSERT INTO partner_sessions (hash, cloud, application, partner, object, user_name, signed_in, used, expires)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)`,
		hash[:], in.Key.Cloud, in.Key.Application.String(), in.Key.Partner.String(), in.Object.String(), in.UserName,
		sql.NullInt64{Int64: in.SignedIn.UnixMilli(), Valid: !in.SignedIn.IsZero()}, now.UnixMilli(), now.Add(PartnerSessionLife).UnixMilli())
	return mandate.NewSecret(secret), wrap("add session", unavailable(ctx, err))
}

// PartnerSession returns the session that a secret is for, and notes that it
// is used. The error wraps [mandate.ErrUnauthenticated] if there is none, it
// has ended, or it was not used for [PartnerSessionIdle].
func (s *Store) PartnerSession(ctx context.Context, secret mandate.Secret) (PartnerSession, error) {
	var out PartnerSession
	none := fmt.Errorf("%w: the session has ended", mandate.ErrUnauthenticated)
	if !strings.HasPrefix(secret.Reveal(), partnerSessionPrefix) {
		return out, none
	}
	hash, now := sha256.Sum256([]byte(secret.Reveal())), time.Now()
	n, err := s.db.Exec(ctx, `UPDATE partner_sessions SET used = $2 WHERE hash = $1 AND expires > $2 AND used > $3`,
		hash[:], now.UnixMilli(), now.Add(-PartnerSessionIdle).UnixMilli())
	if err != nil {
		return out, wrap("read session", unavailable(ctx, err))
	}
	if n == 0 {
		return out, none
	}
	var application, partner, object string
	var signedIn sql.NullInt64
	var expires int64
	err = s.db.QueryRow(ctx, `SELECT cloud, application, partner, object, user_name, signed_in, expires FROM partner_sessions WHERE hash = $1`, hash[:]).
		Scan(&out.Key.Cloud, &application, &partner, &object, &out.UserName, &signedIn, &expires)
	if errors.Is(err, sql.ErrNoRows) {
		return out, none
	}
	if err != nil {
		return out, wrap("read session", unavailable(ctx, err))
	}
	out.SignedIn, out.Expires = moment(signedIn), time.UnixMilli(expires)
	return out, wrap("read session", out.parse(application, partner, object))
}

func (p *PartnerSession) parse(application, partner, object string) (err error) {
	if p.Key.Application, err = mandate.ParseAppID(application); err != nil {
		return err
	}
	if p.Key.Partner, err = mandate.ParseTenantID(partner); err != nil {
		return err
	}
	p.Object, err = mandate.ParseObjectID(object)
	return err
}

// EndPartnerSession ends the session that a secret is for, if there is one.
func (s *Store) EndPartnerSession(ctx context.Context, secret mandate.Secret) error {
	hash := sha256.Sum256([]byte(secret.Reveal()))
	_, err := s.db.Exec(ctx, `DELETE FROM partner_sessions WHERE hash = $1`, hash[:])
	return wrap("end session", unavailable(ctx, err))
}
