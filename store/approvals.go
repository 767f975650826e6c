package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/internal/database"
)

// maxAsked bounds how many approvals one caller may have at once, and maxAll
// how many there may be: each raises the epoch, and is there for a person to
// read.
const (
	maxAsked = 20
	maxAll   = 500
)

const approvalColumns = `id, digest, caller, asked, state, wanted, expires, lasts, requester, decided, decided_by, decider`

// Approval implements [mandate.Approvals].
func (s *Store) Approval(digest string) (*mandate.Approval, error) {
	snap, err := s.current()
	if err != nil {
		return nil, err
	}
	a := snap.approvals[digest]
	if a == nil || !time.Now().Before(a.Expires) {
		return nil, nil
	}
	return a, nil
}

// Approvals returns what is asked, was agreed to or refused and has not ended,
// the oldest first.
func (s *Store) Approvals() ([]mandate.Approval, error) {
	snap, err := s.current()
	if err != nil {
		return nil, err
	}
	now, all := time.Now(), []mandate.Approval{}
	for _, a := range snap.asked {
		if now.Before(a.Expires) {
			all = append(all, *a)
		}
	}
	return all, nil
}

// Ask implements [mandate.Approvals]. What has ended is swept away.
func (s *Store) Ask(ctx context.Context, a mandate.Approval) error {
	asked, err := json.Marshal(&a.Asked)
	if err != nil {
		return err
	}
	err = s.db.Change(ctx, func(tx *database.Tx) error {
		now := time.Now().UnixMilli()
		if _, err := tx.Exec(ctx, `DELETE FROM approvals WHERE expires <= $1`, now); err != nil {
			return err
		}
		first, err := scanApproval(tx.QueryRow(ctx, `SELECT `+approvalColumns+` FROM approvals WHERE digest = $1`, a.Digest()))
		switch {
		case err == nil:
			return &mandate.AskedError{Approval: first}
		case !errors.Is(err, sql.ErrNoRows):
			return err
		}
		var all, own int64
		if err := tx.QueryRow(ctx, `SELECT count(*), coalesce(sum(CASE WHEN caller = $1 THEN 1 ELSE 0 END), 0) FROM approvals`,
			string(a.Caller)).Scan(&all, &own); err != nil {
			return err
		}
		switch {
		case own >= maxAsked:
			return fmt.Errorf("%w: %d approvals of %s are open or decided, and it may not have more at once", mandate.ErrRateLimited, own, a.Caller)
		case all >= maxAll:
			return fmt.Errorf("%w: %d approvals are open or decided, and there may not be more at once", mandate.ErrRateLimited, all)
		}
		_, err = tx.Exec(ctx, `INSERT INTO approvals (`+approvalColumns+`) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, NULL, '', '')`,
			a.ID, a.Digest(), string(a.Caller), string(asked), string(mandate.ApprovalWanted), a.Wanted.UnixMilli(), a.Expires.UnixMilli(), a.Lasts, a.Requester)
		return err
	})
	return wrap("ask a second person", unavailable(ctx, err))
}

// Decide says yes or no to what is asked, and raises the epoch. A yes counts
// from now on for as long as was asked; a no until the asking would have ended.
// Who says yes is by their name in records and by issuer and object; whether
// they may is looked at in the same transaction. The error wraps
// [mandate.ErrNotFound] or [mandate.ErrDenied], or [mandate.ErrExists] if
// somebody has decided.
func (s *Store) Decide(ctx context.Context, id string, say mandate.ApprovalState, by mandate.CallerID, decider string) error {
	err := s.changeApproval(ctx, id, func(tx *database.Tx, a *mandate.Approval) error {
		if a.State != mandate.ApprovalWanted {
			return fmt.Errorf("%w: approval %s was %s by %s", mandate.ErrExists, id, a.State, a.By)
		}
		now := time.Now().Truncate(time.Millisecond)
		if say == mandate.ApprovalGiven {
			owner, err := ownerOf(ctx, tx, a.Caller)
			if err != nil {
				return err
			}
			if err := a.Gives(by, decider, owner); err != nil {
				return err
			}
			a.Expires = now.Add(time.Duration(a.Lasts) * time.Second)
		}
		_, err := tx.Exec(ctx, `UPDATE approvals SET state = $2, expires = $3, decided = $4, decided_by = $5, decider = $6 WHERE id = $1`,
			id, string(say), a.Expires.UnixMilli(), now.UnixMilli(), string(by), decider)
		return err
	})
	return wrap("decide on approval", unavailable(ctx, err))
}

// ownerOf returns who answers for a caller, "" if that is not known.
func ownerOf(ctx context.Context, tx *database.Tx, id mandate.CallerID) (owner string, err error) {
	err = tx.QueryRow(ctx, `SELECT owner FROM caller_registry WHERE id = $1`, string(id)).Scan(&owner)
	if errors.Is(err, sql.ErrNoRows) {
		return "", nil
	}
	return owner, err
}

// WithdrawApproval takes back what is asked, or what was said, and raises the
// epoch. The error wraps [mandate.ErrNotFound].
func (s *Store) WithdrawApproval(ctx context.Context, id string) error {
	err := s.changeApproval(ctx, id, func(tx *database.Tx, _ *mandate.Approval) error {
		_, err := tx.Exec(ctx, `DELETE FROM approvals WHERE id = $1`, id)
		return err
	})
	return wrap("withdraw approval", unavailable(ctx, err))
}

// UseApproval uses up a yes, once, and raises the epoch. The error wraps
// [mandate.ErrNotFound] if there is none any more.
func (s *Store) UseApproval(ctx context.Context, id string) error {
	err := s.changeApproval(ctx, id, func(tx *database.Tx, a *mandate.Approval) error {
		if !a.GivenAt(time.Now()) {
			return fmt.Errorf("%w: approval %s is not given", mandate.ErrNotFound, id)
		}
		_, err := tx.Exec(ctx, `DELETE FROM approvals WHERE id = $1`, id)
		return err
	})
	return wrap("use approval", unavailable(ctx, err))
}

// changeApproval changes one that has not ended, and raises the epoch.
func (s *Store) changeApproval(ctx context.Context, id string, fn func(*database.Tx, *mandate.Approval) error) error {
	none := fmt.Errorf("%w: no approval %.40q is asked for, or it has ended", mandate.ErrNotFound, id)
	if !mandate.Name(id) {
		return none
	}
	return s.db.Change(ctx, func(tx *database.Tx) error {
		a, err := scanApproval(tx.QueryRow(ctx, `SELECT `+approvalColumns+` FROM approvals WHERE id = $1`, id))
		switch {
		case errors.Is(err, sql.ErrNoRows):
			return none
		case err != nil:
			return err
		case !time.Now().Before(a.Expires):
			return none
		}
		return fn(tx, &a)
	})
}

// EndApprovals takes back everything that a second person was asked or has
// said, in a change of security state.
func EndApprovals(ctx context.Context, tx *database.Tx) error {
	_, err := tx.Exec(ctx, `DELETE FROM approvals`)
	return err
}

func scanApproval(row interface{ Scan(...any) error }) (a mandate.Approval, err error) {
	var digest, caller, asked string
	var wanted, expires int64
	var decided sql.NullInt64
	if err := row.Scan(&a.ID, &digest, &caller, &asked, &a.State, &wanted, &expires, &a.Lasts, &a.Requester, &decided, &a.By, &a.Decider); err != nil {
		return a, err
	}
	if err := json.Unmarshal([]byte(asked), &a.Asked); err != nil {
		return a, fmt.Errorf("approval %s: %w", a.ID, err)
	}
	if a.Digest() != digest || string(a.Caller) != caller {
		return a, fmt.Errorf("approval %s is not for what its digest says", a.ID)
	}
	a.Wanted, a.Expires, a.Decided = time.UnixMilli(wanted), time.UnixMilli(expires), moment(decided)
	return a, nil
}

func (n *snapshot) readApprovals(ctx context.Context, tx *database.Tx) error {
	rows, err := tx.Query(ctx, `SELECT `+approvalColumns+` FROM approvals ORDER BY wanted, id`)
	if err != nil {
		return err
	}
	defer rows.Close()
	n.approvals = make(map[string]*mandate.Approval)
	for rows.Next() {
		a, err := scanApproval(rows)
		if err != nil {
			return err
		}
		n.approvals[a.Digest()] = &a
		n.asked = append(n.asked, &a)
	}
	return rows.Err()
}
