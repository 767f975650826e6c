package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/internal/database"
)

// A Policy is a version of the policy that somebody put in force. The store
// does not know what is in it.
type Policy struct {
	Number  int64  // grows with every change, from 1
	Version string // digest
	Files   string // as it was applied
	Applied time.Time
	By      mandate.CallerID
}

const policyColumns = `number, version, files, applied, applied_by`

// Policy returns the policy that is in force, or nil if there is none. It is
// the same pointer until the policy changes, and does not wait for the database
// unless security state has just changed.
func (s *Store) Policy() (*Policy, error) {
	snap, err := s.current()
	if err != nil {
		return nil, err
	}
	return snap.policy, nil
}

// ApplyPolicy puts p in force in the place of the policy with the number after,
// 0 for none, raises the epoch, and returns the number that p got. If another is
// in force the error wraps [mandate.ErrExists]. When it returns nil that
// survives a crash.
func (s *Store) ApplyPolicy(ctx context.Context, p Policy, after int64) (number int64, err error) {
	err = s.db.Change(ctx, func(tx *database.Tx) error {
		if err := tx.QueryRow(ctx, `SELECT COALESCE(MAX(number), 0) FROM policy_versions`).Scan(&number); err != nil {
			return err
		}
		if number != after {
			return fmt.Errorf("%w: policy number %d was applied last, and not %d; somebody else applied it meanwhile", mandate.ErrExists, number, after)
		}
		number++
		_, err := tx.Exec(ctx, `INSERT INTO policy_versions (`+policyColumns+`) VALUES ($1, $2, $3, $4, $5)`,
			number, p.Version, p.Files, p.Applied.UnixMilli(), string(p.By))
		return err
	})
	return number, wrap("apply policy", unavailable(ctx, err))
}

// PolicyOf returns a policy that is or was in force, the latest of that
// version. If there is none the error wraps [mandate.ErrNotFound].
func (s *Store) PolicyOf(ctx context.Context, version string) (Policy, error) {
	p, err := scanPolicy(s.db.QueryRow(ctx, `SELECT `+policyColumns+` FROM policy_versions WHERE version = $1 ORDER BY number DESC LIMIT 1`, version))
	if errors.Is(err, sql.ErrNoRows) {
		err = fmt.Errorf("%w: no policy of version %.40q was ever in force", mandate.ErrNotFound, version)
	}
	return p, wrap("read policy", unavailable(ctx, err))
}

// Policies returns the latest that were in force, the newest first, without
// their files.
func (s *Store) Policies(ctx context.Context, limit int) ([]Policy, error) {
	const doing = "list policies"
	rows, err := s.db.Query(ctx, `SELECT number, version, '', applied, applied_by FROM policy_versions ORDER BY number DESC LIMIT $1`, limit)
	if err != nil {
		return nil, wrap(doing, unavailable(ctx, err))
	}
	defer rows.Close()
	var all []Policy
	for rows.Next() {
		p, err := scanPolicy(rows)
		if err != nil {
			return nil, wrap(doing, unavailable(ctx, err))
		}
		all = append(all, p)
	}
	return all, wrap(doing, unavailable(ctx, rows.Err()))
}

func scanPolicy(row interface{ Scan(...any) error }) (p Policy, err error) {
	var applied int64
	var by string
	err = row.Scan(&p.Number, &p.Version, &p.Files, &applied, &by)
	p.Applied, p.By = time.UnixMilli(applied), mandate.CallerID(by)
	return p, err
}

// readPolicy reads what is in force. The files are read only if they are not
// those of the snapshot before.
func (n *snapshot) readPolicy(ctx context.Context, tx *database.Tx, before *snapshot) error {
	n.policy = nil // it may run again
	var number int64
	var version string
	err := tx.QueryRow(ctx, `SELECT number, version FROM policy_versions ORDER BY number DESC LIMIT 1`).Scan(&number, &version)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return nil
	case err != nil:
		return err
	case before != nil && before.policy != nil && before.policy.Number == number && before.policy.Version == version:
		n.policy = before.policy
		return nil
	}
	p, err := scanPolicy(tx.QueryRow(ctx, `SELECT `+policyColumns+` FROM policy_versions WHERE number = $1`, number))
	n.policy = &p
	return err
}
