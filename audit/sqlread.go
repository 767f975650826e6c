package audit

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/internal/database"
)

// hashRows reads n hashes with their numbers, in that order. What is missing is
// named as it would be called.
func (s *sqlStore) hashRows(ctx context.Context, query, called string, from, n int64) ([]tlog.Hash, error) {
	rows, err := s.db.Query(ctx, query, from, from+n)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	out := make([]tlog.Hash, 0, n)
	for rows.Next() {
		var index int64
		var hash []byte
		if err := rows.Scan(&index, &hash); err != nil {
			return nil, err
		}
		if index != from+int64(len(out)) {
			break
		}
		if len(hash) != tlog.HashSize {
			return nil, fmt.Errorf("%w: the hash of %s %d has %d bytes", ErrChanged, called, index, len(hash))
		}
		out = append(out, tlog.Hash(hash))
	}
	if err := rows.Err(); err != nil {
		return nil, err
	}
	if int64(len(out)) != n {
		return nil, fmt.Errorf("%w: %s %d is missing", ErrChanged, called, from+int64(len(out)))
	}
	return out, nil
}

// leaves implements [hashes].
func (s *sqlStore) leaves(ctx context.Context, from, n int64) ([]tlog.Hash, error) {
	return s.hashRows(ctx, `SELECT idx, leaf FROM audit_entries WHERE idx >= $1 AND idx < $2 ORDER BY idx`, "record", from, n)
}

// tiles implements [hashes].
func (s *sqlStore) tiles(ctx context.Context, from, n int64) ([]tlog.Hash, error) {
	return s.hashRows(ctx, `SELECT idx, hash FROM audit_tiles WHERE idx >= $1 AND idx < $2 ORDER BY idx`, "tile", from, n)
}

// read implements [store]. What fails here is the database.
func (s *sqlStore) read(ctx context.Context, from, n int64) (out []line, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("%w: %w", mandate.ErrUnavailable, err)
		}
	}()
	rows, err := s.db.Query(ctx, `SELECT idx, entry FROM audit_entries WHERE idx >= $1 AND idx < $2 ORDER BY idx`, from, from+min(n, 2000))
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var index int64
		var text []byte
		if err := rows.Scan(&index, &text); err != nil {
			return nil, err
		}
		out = append(out, lineOf(index, text))
	}
	return out, rows.Err()
}

// keep implements [store]. Of several replicas that sign the same size, one
// keeps its checkpoint.
func (s *sqlStore) keep(ctx context.Context, c stamped) error {
	return s.db.Tx(ctx, func(tx *database.Tx) error {
		if _, err := tx.Exec(ctx, `DELETE FROM audit_checkpoints WHERE size < $1 AND NOT stays`, c.size); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, `INSERT INTO audit_checkpoints (size, at, note, stays) VALUES ($1, $2, $3, $4) ON CONFLICT (size) DO NOTHING`,
			c.size, c.time.UnixMilli(), string(c.note), c.history)
		return err
	})
}

// latest implements [store].
func (s *sqlStore) latest(ctx context.Context) ([]byte, error) {
	var note string
	err := s.db.QueryRow(ctx, `SELECT note FROM audit_checkpoints ORDER BY size DESC LIMIT 1`).Scan(&note)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	return []byte(note), err
}

// history implements [store].
func (s *sqlStore) history(ctx context.Context) (out [][]byte, err error) {
	rows, err := s.db.Query(ctx, `SELECT note FROM audit_checkpoints WHERE stays ORDER BY size`)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var note string
		if err := rows.Scan(&note); err != nil {
			return nil, err
		}
		out = append(out, []byte(note))
	}
	return out, rows.Err()
}

// dropAtOnce is how many entries lose their content in one transaction.
const dropAtOnce = 1000

// drop implements [store].
func (s *sqlStore) drop(ctx context.Context, before time.Time) (n int64, err error) {
	var end int64
	err = s.db.QueryRow(ctx, `SELECT CAST(coalesce(max(idx), -1) AS BIGINT) + 1 FROM audit_entries WHERE at < $1`, before.UnixMilli()).Scan(&end)
	for from := int64(0); err == nil && from < end; from += dropAtOnce {
		var lines []line
		if lines, err = s.read(ctx, from, min(dropAtOnce, end-from)); err != nil {
			break
		}
		err = s.db.Tx(ctx, func(tx *database.Tx) error {
			for _, v := range lines {
				if v.dropped {
					continue
				}
				if _, err := tx.Exec(ctx, `UPDATE audit_entries SET entry = $1 WHERE idx = $2`, v.trace(), v.index); err != nil {
					return err
				}
			}
			return nil
		})
		for _, v := range lines {
			if err == nil && !v.dropped {
				n++
			}
		}
	}
	return n, err
}

func (s *sqlStore) close() error { return nil }
