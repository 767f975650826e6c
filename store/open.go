package store

import (
	"context"
	"time"
)

// OpenInvitations returns the invitations of all partners that can be used at
// a time, the ones that end first first.
func (s *Store) OpenInvitations(ctx context.Context, now time.Time) ([]Invitation, error) {
	rows, err := s.db.Query(ctx, `SELECT `+invitationColumns+` WHERE i.used IS NULL AND i.expires > $1 ORDER BY i.expires, i.id`, now.UnixMilli())
	if err != nil {
		return nil, wrap("list open invitations", unavailable(ctx, err))
	}
	defer rows.Close()
	var all []Invitation
	for rows.Next() {
		i, err := scanInvitation(rows.Scan)
		if err != nil {
			return nil, wrap("list open invitations", unavailable(ctx, err))
		}
		all = append(all, i)
	}
	return all, wrap("list open invitations", unavailable(ctx, rows.Err()))
}
