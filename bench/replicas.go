package main

import (
	"context"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/internal/database"
	"github.com/mandate-sam/mandate/vault"
)

// replicasCase is G8 with three replicas on one PostgreSQL: a crowd asks all of
// them at once for one token that nobody has.
var replicasCase = benchCase{
	rows: []string{"G8/replicas-upstream-calls"},
	run:  runReplicas,
}

const replicas = 3

func runReplicas(ctx context.Context, e *env) (rows []row, err error) {
	err = withPostgres(func(address string) (err error) {
		rows, err = measureReplicas(ctx, e, address)
		return err
	})
	return rows, err
}

func measureReplicas(ctx context.Context, e *env, address string) ([]row, error) {
	dir, err := os.MkdirTemp("", "mandate-bench-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	rounds := choose(e, 20, 5)
	partners := somePartners(rounds + replicas)
	d, err := newIdentity(partners, time.Hour)
	if err != nil {
		return nil, err
	}
	defer d.server.Close()
	watched, stop := context.WithCancel(ctx)
	var watching errgroup.Group
	defer func() { stop(); _ = watching.Wait() }()
	var all []*pipeline
	for i := range replicas {
		cfg, keys := database.Config{URL: address}, filepath.Join(dir, "keys")
		open := openGrants
		if i == 0 {
			open = func(ctx context.Context, c database.Config, k string) (*vault.SQL, *database.DB, error) {
				return sqlGrants(ctx, c, k, partners)
			}
		}
		grants, db, err := open(ctx, cfg, keys)
		if err != nil {
			return nil, err
		}
		defer db.Close()
		watching.Go(func() error { return db.Run(watched) })
		p, err := newPipeline(d, mandate.Config{Vault: grants, Epoch: db, Turns: grants})
		if err != nil {
			return nil, err
		}
		// The first redemption of each fetches Entra's keys, too.
		if err := p.ask(ctx, p.requests[rounds+i]); err != nil {
			return nil, err
		}
		all = append(all, p)
	}
	var most int64
	for round := range rounds {
		e.say("G8: round %d of %d, %d callers of %d replicas", round+1, rounds, crowd, replicas)
		before := d.requests.Load()
		var turn atomic.Int64
		if _, err := wait(0, func() error {
			p := all[turn.Add(1)%replicas]
			return p.ask(ctx, p.requests[round])
		}); err != nil {
			return nil, err
		}
		most = max(most, d.requests.Load()-before)
	}
	r := row{Name: "G8/replicas-upstream-calls", Value: number(most), Unit: "calls", Floor: none, Ratio: none}
	return []row{r.judge(&target{"value", "=", 1}, "a replica that could not extend its turn in time lost it to another: the database was not heard of for seconds")}, nil
}
