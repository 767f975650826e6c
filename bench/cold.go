package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/AzureAD/microsoft-authentication-library-for-go/apps/cache"
	"github.com/AzureAD/microsoft-authentication-library-for-go/apps/confidential"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/internal/database"
)

// coldCase is G13: how long a server that has just been started takes to its
// first token.
var coldCase = benchCase{
	rows: []string{"G13/first-token", "G13/msal-first-token"},
	run:  runCold,
}

func runCold(ctx context.Context, e *env) (rows []row, err error) {
	dir, err := os.MkdirTemp("", "mandate-bench-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	c, err := newCold(ctx, e, dir)
	if err != nil {
		return nil, err
	}
	m, err := newColdMSAL(ctx, e, filepath.Join(dir, "msal.json"))
	if err != nil {
		return nil, err
	}
	v, err := e.interleave(ctx, "G13", choose(e, 11, 5), c.firstToken, c.scan, m.firstToken)
	if err != nil {
		return nil, err
	}
	ours := compare("G13/first-token", "ms", v[0], v[1])
	ours.Note = fmt.Sprintf("%d partners", c.partners)
	msal := compare("G13/msal-first-token", "ms", v[2], v[0])
	msal.Note = fmt.Sprintf("%s; %d users with three tokens each", notOurs, m.users)
	if ours = ours.report(); !e.quick { // with few partners the scan is nothing
		ours = ours.judge(&target{"ratio", "<=", 1.25}, "something is read that the first token does not need")
	}
	return []row{ours, msal.report()}, nil
}

// cold is a database on the disk that nobody has open.
type cold struct {
	cfg      database.Config
	keys     string
	partners int
}

func newCold(ctx context.Context, e *env, dir string) (*cold, error) {
	c := &cold{database.Config{File: filepath.Join(dir, "mandate.db")}, filepath.Join(dir, "keys"), choose(e, 10_000, 1000)}
	e.say("G13: storing %d grants", c.partners)
	_, db, err := sqlGrants(ctx, c.cfg, c.keys, somePartners(c.partners))
	if err != nil {
		return nil, err
	}
	return c, db.Close()
}

// firstToken starts a broker and asks it for one token, which Entra gives at
// once, and returns the milliseconds until it is there.
func (c *cold) firstToken(ctx context.Context) (float64, error) {
	start := time.Now()
	grants, db, err := openGrants(ctx, c.cfg, c.keys)
	if err != nil {
		return 0, err
	}
	broker, err := mandate.New(mandate.Config{Authority: newFakeEntra(), Vault: grants, Policy: allowAll{}, Audit: new(memoryRecorder), Epoch: db})
	if err == nil {
		_, err = broker.Token(ctx, requestsFor(partnerN(c.partners / 2))[0])
	}
	took := milliseconds(time.Since(start))
	return took, errors.Join(err, db.Close())
}

// scan is the floor: it opens the database and reads every sealed grant.
func (c *cold) scan(ctx context.Context) (took float64, err error) {
	start := time.Now()
	_, db, err := openGrants(ctx, c.cfg, c.keys)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	rows, err := db.Query(ctx, `SELECT partner, sealed FROM grants`)
	if err != nil {
		return 0, err
	}
	defer rows.Close()
	n := 0
	for ; rows.Next(); n++ {
		var partner string
		var sealed []byte
		if err := rows.Scan(&partner, &sealed); err != nil {
			return 0, err
		}
	}
	if n != c.partners {
		return 0, fmt.Errorf("read %d grants, want %d", n, c.partners)
	}
	return milliseconds(time.Since(start)), rows.Err()
}

// coldMSAL is the cache of MSAL in a file, as its documentation has it.
type coldMSAL struct {
	users   int
	file    string
	account confidential.Account
	writing bool
}

func newColdMSAL(ctx context.Context, e *env, file string) (*coldMSAL, error) {
	c := &coldMSAL{users: choose(e, 1000, 200), file: file}
	e.say("G13: signing %d users in with MSAL", c.users)
	m, err := newMSAL(confidential.WithCache(c))
	if err != nil {
		return nil, err
	}
	m.entra.codeLife.Store(int64(time.Hour))
	for i := range c.users {
		for j, scope := range msalScopes {
			c.writing = i == c.users-1 && j == len(msalScopes)-1
			if c.account, err = m.signIn(ctx, fmt.Sprintf("user-%d", i), scope); err != nil {
				return nil, err
			}
		}
	}
	c.writing = false
	return c, nil
}

// firstToken makes a client and asks it for one token that is in the file.
func (c *coldMSAL) firstToken(ctx context.Context) (float64, error) {
	start := time.Now()
	m, err := newMSAL(confidential.WithCache(c))
	if err != nil {
		return 0, err
	}
	if err := m.silent(ctx, c.account, msalScope, msalTenant); err != nil {
		return 0, err
	}
	if m.entra.redeemed.Load() > 0 {
		return 0, errors.New("MSAL did not find the token in its file")
	}
	return milliseconds(time.Since(start)), nil
}

// Replace implements [cache.ExportReplace].
func (c *coldMSAL) Replace(_ context.Context, into cache.Unmarshaler, _ cache.ReplaceHints) error {
	data, err := os.ReadFile(c.file)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return into.Unmarshal(data)
}

// Export implements [cache.ExportReplace]. It writes once, when all is there.
func (c *coldMSAL) Export(_ context.Context, from cache.Marshaler, _ cache.ExportHints) error {
	if !c.writing {
		return nil
	}
	data, err := from.Marshal()
	if err != nil {
		return err
	}
	return os.WriteFile(c.file, data, 0o600)
}
