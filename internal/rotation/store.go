package rotation

import (
	"context"
	"database/sql"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/internal/database"
)

//go:embed migrations/*.sql
var migrations embed.FS

// Schema is the tables of [SQL], with which the database must be opened.
func Schema() database.Schema {
	return database.Schema{Package: "rotation", Files: migrations, Guarded: guarded}
}

// guarded is how far a rotation has come and which credential is in use: else
// whoever can write the database could have a removal skipped, the wrong
// credential removed, or an older version of a vault's certificate used again.
// Which replica uses what is not here: each says it again all the time, and
// whoever forges it delays a removal, or hastens it as much as --replicas-done.
var guarded = []database.Guarded{{Table: "rotations", Key: []string{"application"}, Columns: []string{"state"}}}

// SQL is a [Store] and a [Fleet] in a database that was opened with [Schema].
type SQL struct {
	DB      *database.DB
	Replica string // who says what it uses
}

// useLife is how long a replica counts that says nothing.
const useLife = 2 * time.Minute

// Load implements [Store]. What was never rotated has an empty state.
func (d *SQL) Load(ctx context.Context, application string) (State, error) {
	s := State{Application: application}
	var text string
	err := d.DB.Genuine(ctx, "rotations", func() (map[string]any, error) {
		err := d.DB.QueryRow(ctx, `SELECT state FROM rotations WHERE application = $1`, application).Scan(&text)
		if errors.Is(err, sql.ErrNoRows) {
			text = ""
			return nil, nil
		}
		return map[string]any{"application": application, "state": text}, err
	})
	if err == nil && text != "" {
		err = json.Unmarshal([]byte(text), &s)
	}
	return s, wrap(err)
}

// Save implements [Store]. When it returns nil that survives a crash.
func (d *SQL) Save(ctx context.Context, s State) error {
	b, err := json.Marshal(s)
	if err == nil {
		err = d.DB.Change(ctx, func(tx *database.Tx) error {
			_, err := tx.Exec(ctx, `INSERT INTO rotations (application, state) VALUES ($1, $2)
				ON CONFLICT (application) DO UPDATE SET state = excluded.state`, s.Application, string(b))
			return err
		})
	}
	return wrap(err)
}

// Uses notes which credential this replica uses.
func (d *SQL) Uses(ctx context.Context, application, credential string) error {
	_, err := d.DB.Exec(ctx, `INSERT INTO credential_uses (application, replica, credential, seen) VALUES ($1, $2, $3, $4)
		ON CONFLICT (application, replica) DO UPDATE SET credential = excluded.credential, seen = excluded.seen`,
		application, d.Replica, credential, time.Now().UnixMilli())
	return wrap(err)
}

// Leave notes that this replica uses nothing any more; and, if it is alone,
// that nobody does.
func (d *SQL) Leave(ctx context.Context, alone bool) error {
	var err error
	if alone {
		_, err = d.DB.Exec(ctx, `DELETE FROM credential_uses`)
	} else {
		_, err = d.DB.Exec(ctx, `DELETE FROM credential_uses WHERE replica = $1 OR seen < $2`, d.Replica, time.Now().Add(-useLife).UnixMilli())
	}
	return wrap(err)
}

// Without implements [Fleet], for the replicas that were heard of lately.
func (d *SQL) Without(ctx context.Context, application, credential string) ([]string, error) {
	return d.replicas(ctx, `SELECT replica FROM credential_uses WHERE application = $1 AND credential <> $2 AND seen > $3 ORDER BY replica`,
		application, credential, time.Now().Add(-useLife).UnixMilli())
}

// Heard returns the replicas that were heard of lately and have not said that
// they end: they may still run.
func (d *SQL) Heard(ctx context.Context) ([]string, error) {
	return d.replicas(ctx, `SELECT DISTINCT replica FROM credential_uses WHERE seen > $1 ORDER BY replica`, time.Now().Add(-useLife).UnixMilli())
}

// replicas returns what a query finds of replicas.
func (d *SQL) replicas(ctx context.Context, query string, args ...any) ([]string, error) {
	rows, err := d.DB.Query(ctx, query, args...)
	if err != nil {
		return nil, wrap(err)
	}
	defer rows.Close()
	var all []string
	for rows.Next() {
		var r string
		if err := rows.Scan(&r); err != nil {
			return nil, wrap(err)
		}
		all = append(all, r)
	}
	return all, wrap(rows.Err())
}

func wrap(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%w: rotations of credentials: %w", mandate.ErrUnavailable, err)
}
