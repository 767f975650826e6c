package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/internal/database"
	"github.com/mandate-sam/mandate/internal/pgtest"
)

// postgresCase is G12 with a PostgreSQL of its own, as one of several replicas
// uses it: with turns, and the access token shared.
var postgresCase = benchCase{
	rows: []string{"G12/redeem-postgresql"},
	run:  runPostgres,
}

func runPostgres(ctx context.Context, e *env) (rows []row, err error) {
	err = withPostgres(func(address string) (err error) {
		rows, err = measurePostgres(ctx, e, address)
		return err
	})
	return rows, err
}

// withPostgres calls f with the address of a database in a PostgreSQL of its
// own. What starts that wants to know when a test or a benchmark ends.
func withPostgres(f func(address string) error) error {
	err := errors.New("PostgreSQL did not start: is Debian's package postgresql installed?")
	testing.Benchmark(func(b *testing.B) {
		if b.N == 1 {
			err = f(pgtest.Start(b).Database(b))
		}
	})
	return err
}

func measurePostgres(ctx context.Context, e *env, address string) ([]row, error) {
	dir, err := os.MkdirTemp("", "mandate-bench-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	partners := somePartners(pipelinePartners)
	d, err := newIdentity(partners, 30*time.Second)
	if err != nil {
		return nil, err
	}
	defer d.server.Close()
	e.say("G12: storing %d grants in PostgreSQL", len(partners))
	grants, db, err := sqlGrants(ctx, database.Config{URL: address}, filepath.Join(dir, "keys"), partners)
	if err != nil {
		return nil, err
	}
	defer db.Close()
	watched, stop := context.WithCancel(ctx)
	var watching errgroup.Group
	watching.Go(func() error { return db.Run(watched) })
	defer func() { stop(); _ = watching.Wait() }()
	ours, err := newPipeline(d, mandate.Config{Vault: grants, Epoch: db, Turns: grants})
	if err != nil {
		return nil, err
	}
	floor, err := newUpdates(ctx, d, address)
	if err != nil {
		return nil, err
	}
	defer floor.db.Close()
	v, err := e.interleave(ctx, "G12/redeem-postgresql", choose(e, 15, 3), ours.redeem, floor.redeem)
	if err != nil {
		return nil, err
	}
	r := compare("G12/redeem-postgresql", "redemptions/s", v[0], v[1])
	if n := ours.refused.Load(); n > 0 {
		r.Note = fmt.Sprintf("%d requests were refused and made again, since the database was not heard of for a moment", n)
	}
	return []row{r.judge(&target{"ratio", ">=", 0.8}, "a redemption is a part of two statements, stores two tokens where this stores one, and verifies and seals")}, nil
}

// updates are raw requests, each with one durable UPDATE of as much as a
// sealed refresh token.
type updates struct {
	rawPosts
	db *sql.DB
}

func newUpdates(ctx context.Context, d *identity, address string) (*updates, error) {
	db, err := sql.Open("pgx", address)
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(16) // as many as the product has
	db.SetMaxIdleConns(16)
	u := &updates{rawPosts{identity: d, http: d.client()}, db}
	u.after = func(ctx context.Context, i int) error {
		_, err := db.ExecContext(ctx, `UPDATE floor SET sealed = $1 WHERE id = $2`, sealedSize, i)
		return err
	}
	_, err = db.ExecContext(ctx, `CREATE TABLE floor (id BIGINT PRIMARY KEY, sealed BYTEA NOT NULL)`)
	if err == nil {
		_, err = db.ExecContext(ctx, `INSERT INTO floor SELECT i, '' FROM generate_series(0, $1) AS i`, pipelinePartners-1)
	}
	return u, err
}

// sealedSize is as long as a sealed refresh token.
var sealedSize = []byte(strings.Repeat("s", 1600))
