package store

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"database/sql"
	"encoding/base64"
	"errors"
	"fmt"
	"time"

	"github.com/mandate-sam/mandate"
)

// An Invitation lets a partner consent once.
type Invitation struct {
	ID      string // names it; gives no right
	Partner mandate.Partner
	User    string        // whom it is for: an object ID or a user name; empty for any user of the tenant
	Term    time.Duration // of the grant, from the consent
	Created time.Time
	By      string // who invited, for people to read
	Expires time.Time

	// Compromised is set of a renewal that is asked for because the user's
	// account was compromised: nothing of before may stand in for it.
	Compromised bool

	Used       time.Time // zero: not yet
	Generation int64     // of the grant that it brought; 0: not yet
}

// State returns whether the invitation can be used at a time.
func (i *Invitation) State(now time.Time) InvitationState {
	switch {
	case !i.Used.IsZero():
		return InvitationUsed
	case !now.Before(i.Expires):
		return InvitationExpired
	}
	return InvitationOpen
}

// An InvitationState says whether an invitation can be used, or why not.
type InvitationState string

// The states of an invitation.
const (
	InvitationOpen    InvitationState = "open"
	InvitationUnknown InvitationState = "unknown"
	InvitationUsed    InvitationState = "used"
	InvitationExpired InvitationState = "expired"
)

// An InvitationError says why an invitation cannot be used. It wraps
// [mandate.ErrNotFound].
type InvitationError struct{ State InvitationState }

func (e *InvitationError) Error() string {
	switch e.State {
	case InvitationUsed:
		return "this invitation has been used; to renew, ask for a new one"
	case InvitationExpired:
		return "this invitation has expired; ask for a new one"
	}
	return "this invitation is not known; check that the whole link was copied, or ask for a new one"
}
func (e *InvitationError) Unwrap() error { return mandate.ErrNotFound }

const (
	maxUser = 256 // bytes
	maxTerm = 366 * 24 * time.Hour
)

// Invite stores an invitation for i's Partner, User, Term, Expires, By and
// Compromised, and returns it with the token that opens it, which cannot be had again. The
// partner must have been added: otherwise the error wraps
// [mandate.ErrUnknownPartner]. When it returns nil the invitation survives a
// crash.
func (s *Store) Invite(ctx context.Context, i Invitation) (Invitation, mandate.Secret, error) {
	i.ID, i.Used, i.Generation = rand.Text(), time.Time{}, 0
	i.Created, i.Expires = time.Now().Truncate(time.Millisecond), i.Expires.Truncate(time.Millisecond)
	if err := i.check(); err != nil {
		return Invitation{}, mandate.Secret{}, err
	}
	random := make([]byte, 32)
	rand.Read(random)
	token := base64.RawURLEncoding.EncodeToString(random)
	hash := sha256.Sum256([]byte(token))
	compromised := 0
	if i.Compromised {
		compromised = 1
	}
	k := i.Partner.Key
	n, err := s.db.Exec(ctx, `INSERT INTO invitations (id, hash, partner, user_name, term, created, created_by, expires, compromised)
		SELECT $1, $2, name, $3, $4, $5, $6, $7, $8 FROM partners WHERE name = $9 AND cloud = $10 AND application = $11 AND partner = $12`,
		i.ID, hash[:], i.User, i.Term.Milliseconds(), i.Created.UnixMilli(), i.By, i.Expires.UnixMilli(), compromised,
		i.Partner.Name, k.Cloud, k.Application.String(), k.Partner.String())
	if err == nil && n == 0 {
		err = fmt.Errorf("%w: %.80q with tenant %s", mandate.ErrUnknownPartner, i.Partner.Name, k.Partner)
	}
	if err != nil {
		return Invitation{}, mandate.Secret{}, wrap("invite", unavailable(ctx, err))
	}
	return i, mandate.NewSecret(token), nil
}

func (i *Invitation) check() error {
	switch {
	case i.Term <= 0 || i.Term > maxTerm:
		return mandate.Invalid("term", "must be more than 0 and at most %d days", int(maxTerm.Hours())/24)
	case !i.Expires.After(i.Created):
		return mandate.Invalid("expires", "is in the past")
	case !line(i.User, maxUser):
		return mandate.Invalid("user", "must be an object ID or a user name of at most %d bytes", maxUser)
	case !line(i.By, maxUser):
		return mandate.Invalid("by", "must be one line of at most %d bytes", maxUser)
	}
	return nil
}

const invitationColumns = `p.name, p.cloud, p.application, p.partner, p.display_name, p.created,
	i.id, i.user_name, i.term, i.created, i.created_by, i.expires, i.used, i.generation, i.compromised
	FROM invitations i JOIN partners p ON p.name = i.partner`

func scanInvitation(scan func(...any) error) (Invitation, error) {
	var i Invitation
	var term, created, expires, compromised int64
	var used, generation sql.NullInt64
	var err error
	i.Partner, err = scanPartner(scan, &i.ID, &i.User, &term, &created, &i.By, &expires, &used, &generation, &compromised)
	if err != nil {
		return Invitation{}, err
	}
	i.Term, i.Created, i.Expires = time.Duration(term)*time.Millisecond, time.UnixMilli(created), time.UnixMilli(expires)
	i.Compromised = compromised != 0
	if used.Valid {
		i.Used, i.Generation = time.UnixMilli(used.Int64), generation.Int64
	}
	return i, nil
}

// Invitation returns the invitation that token opens. If it cannot be used the
// error is an [*InvitationError]; unless it is unknown, the invitation comes
// with it, so that its partner can be told.
func (s *Store) Invitation(ctx context.Context, token mandate.Secret) (Invitation, error) {
	hash := sha256.Sum256([]byte(token.Reveal()))
	return s.invitation(ctx, `i.hash = $1`, hash[:])
}

// InvitationByID is [Store.Invitation] for whoever has shown the token before.
func (s *Store) InvitationByID(ctx context.Context, id string) (Invitation, error) {
	if !alphanumeric(id) {
		return Invitation{}, &InvitationError{InvitationUnknown}
	}
	return s.invitation(ctx, `i.id = $1`, id)
}

func (s *Store) invitation(ctx context.Context, where string, arg any) (Invitation, error) {
	i, err := scanInvitation(s.db.QueryRow(ctx, `SELECT `+invitationColumns+` WHERE `+where, arg).Scan)
	if errors.Is(err, sql.ErrNoRows) {
		return Invitation{}, &InvitationError{InvitationUnknown}
	}
	if err != nil {
		return Invitation{}, wrap("read invitation", unavailable(ctx, err))
	}
	if state := i.State(time.Now()); state != InvitationOpen {
		return i, &InvitationError{state}
	}
	return i, nil
}

// Invitations returns all invitations of a partner, the newest first.
func (s *Store) Invitations(ctx context.Context, partner string) ([]Invitation, error) {
	if !partnerName(partner) {
		return nil, nil
	}
	rows, err := s.db.Query(ctx, `SELECT `+invitationColumns+` WHERE p.name = $1 ORDER BY i.created DESC, i.id`, partner)
	if err != nil {
		return nil, wrap("list invitations", unavailable(ctx, err))
	}
	defer rows.Close()
	var all []Invitation
	for rows.Next() {
		i, err := scanInvitation(rows.Scan)
		if err != nil {
			return nil, wrap("list invitations", unavailable(ctx, err))
		}
		all = append(all, i)
	}
	return all, wrap("list invitations", unavailable(ctx, rows.Err()))
}
