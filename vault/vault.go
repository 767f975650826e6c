// Package vault keeps grants at rest, sealed.
//
// Every refresh token is encrypted with a fresh data key, and the data key with
// a key-encryption key that is not in the database. What is sealed is bound to
// its cloud, application, partner, generation and row version: whoever can
// write the database can destroy a grant, but neither read one nor put one in
// another's place, nor an old token in the place of a newer.
//
// [SQL] keeps grants in a database, and, if it is told so, their sealed tokens
// in a [Home] elsewhere. What is current is always decided in the database. It
// is also where replicas take turns ([mandate.Turns]), share access tokens,
// and remember when grants are due ([mandate.Schedule]).
//
// [Check] is the conformance test for it and for any other implementation,
// [CheckSealed] that for key wrappers, and [CheckHome] that for homes.
package vault

import (
	"context"
	"crypto/rand"
	"embed"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/internal/database"
)

//go:embed migrations/*.sql
var migrations embed.FS

// Schema is the tables of [SQL], with which the database must be opened.
func Schema() database.Schema {
	return database.Schema{Package: "vault", Files: migrations, Guarded: guarded}
}

// Config is what a [SQL] is made of.
type Config struct {
	// DB was opened with [Schema]. Required.
	DB *database.DB

	// Key seals refresh tokens. Without one nothing can be opened or stored.
	Key KeyWrapper

	// SharedKey seals the access tokens that replicas share; it must not be
	// the key of Key. Nil shares none: then the vault has no turns to give.
	SharedKey KeyWrapper

	// Homes are where sealed refresh tokens can be kept instead of in the
	// database, by name. A name must mean the same home for as long as
	// anything is kept in it.
	Homes map[string]Home

	// HomeOf names the home of a grant; "" is the database. Nil means that all
	// are there. What is stored already stays where it is until [Copy] moves
	// it.
	HomeOf func(mandate.GrantKey) string
}

// SQL is a [mandate.Vault], [mandate.Turns] and [mandate.Schedule] in a
// database. Its methods may be called concurrently.
type SQL struct {
	db     *database.DB
	key    KeyWrapper
	shared KeyWrapper
	homes  map[string]Home
	homeOf func(mandate.GrantKey) string

	replica string // this one's name in turns
	clock   atomic.Pointer[reading]

	blobs  recent[place, []byte]            // what homes gave
	opened recent[[32]byte, mandate.Secret] // refresh tokens; see remember
	unwrap flights

	// PostgreSQL: the statements that many redemptions share.
	takes          *database.Gathering[turn]
	ends, endsBoth *database.Gathering[ending]
}

// New returns the vault in a database.
func New(c Config) (*SQL, error) {
	switch {
	case c.DB == nil:
		return nil, errors.New("a vault needs a database")
	case c.HomeOf != nil && c.Homes == nil:
		return nil, errors.New("a vault cannot keep grants in homes that it does not have")
	}
	for name, h := range c.Homes {
		if name == "" || h == nil {
			return nil, fmt.Errorf("a home needs a name, and %q a home", name)
		}
	}
	v := &SQL{db: c.DB, key: c.Key, shared: c.SharedKey, homes: c.Homes, homeOf: c.HomeOf, replica: rand.Text()[:8]}
	v.takes = database.Gather(c.DB, takeAgain, scanTurn, takeTypes...)
	v.ends = database.Gather(c.DB, endOne, scanEnding, endTypes...)
	v.endsBoth = database.Gather(c.DB, endBoth, scanEnding, endBothTypes...)
	if v.key == nil {
		v.key = noKey{}
	}
	v.blobs.max, v.blobs.life = maxRecent, 24*time.Hour
	v.opened.max, v.opened.life = maxRecent, openedLife
	if v.homeOf == nil {
		v.homeOf = func(mandate.GrantKey) string { return "" }
	}
	return v, nil
}

// noKey is the key of a vault that was given none.
type noKey struct{}

var errNoKey = errors.New("this vault was made without a key")

func (noKey) Wrap(context.Context, []byte) (string, []byte, error) { return "", nil, errNoKey }

func (noKey) Unwrap(context.Context, string, []byte) ([]byte, error) { return nil, errNoKey }

// nowMS is the time of the database's clock in Unix milliseconds. Replicas
// have clocks of their own, which no lease may depend on.
const nowMS = `now_ms()`

// unavailable says of an error of the database that it is one, unless it was
// the caller who gave up.
func unavailable(ctx context.Context, err error) error {
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return errors.Join(ctx.Err(), err)
	}
	return fmt.Errorf("%w: %w", mandate.ErrUnavailable, err)
}

// ours are the errors that a transaction's own checks end it with; any other
// is the database's.
func ours(ctx context.Context, err error) error {
	for _, e := range []error{mandate.ErrSuperseded, mandate.ErrRotated, mandate.ErrNotFound, mandate.ErrNoGrant, mandate.ErrInvalid} {
		if errors.Is(err, e) {
			return err
		}
	}
	return unavailable(ctx, err)
}

func wrap(doing string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", doing, err)
}

// millis is t as it is stored; 0 if it is zero.
func millis(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

// fromMillis reverses millis.
func fromMillis(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms)
}
