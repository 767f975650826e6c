// Package store keeps what a server must remember apart from grants: partners,
// callers, invitations and sign-ins under way.
//
// Partners and callers are security state: every change raises the epoch. They
// are read on every request, so they are kept in memory, as of one epoch.
// Whatever proves somebody's right (a caller's secret, an invitation, the
// cookie of a sign-in) is stored as a hash.
package store

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/internal/database"
)

//go:embed migrations/*.sql
var migrations embed.FS

// Schema is the tables of a [Store], with which the database must be opened.
func Schema() database.Schema {
	return database.Schema{Package: "store", Files: migrations, Guarded: guarded}
}

// A Store is what is remembered. Its methods may be called concurrently. Their
// errors wrap [mandate.ErrUnavailable] if the database did not answer.
type Store struct {
	db   *database.DB
	snap atomic.Pointer[snapshot]

	mu sync.Mutex // held while a snapshot is read, so that one is read once

	maxPending, maxPerInvitation int64 // sign-ins; see [Store.Begin]
}

// Open returns the store in db, which was opened with [Schema].
func Open(ctx context.Context, db *database.DB) (*Store, error) {
	s := &Store{db: db, maxPending: 10_000, maxPerInvitation: 20}
	if _, err := s.read(ctx); err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	return s, nil
}

// A snapshot is the security state of one epoch. It is never changed.
type snapshot struct {
	epoch    int64
	partners []mandate.Partner // by name
	byName   map[string]mandate.Partner
	byTenant map[mandate.TenantID][]mandate.Partner
	callers  []mandate.Caller // by ID
	keys     map[mandate.CallerID][]callerKey
	lockdown *mandate.Lockdown // nil if there is none
	policy   *Policy           // nil if there is none

	contacts map[string][]mandate.Contact // by the partner's name

	revocations []mandate.Revocation         // the oldest first
	approvals   map[string]*mandate.Approval // by digest
	asked       []*mandate.Approval          // the same, the oldest first
	floors      map[mandate.GrantKey]int64   // least versions of lists of customers
	verified    bool                         // that nobody else has changed it
}

// usable reports whether n is of an epoch, or of a later one, and was verified
// if anything is.
func (s *Store) usable(n *snapshot, epoch int64) bool {
	return n.epoch >= epoch && n.verified == s.db.Guarded()
}

// reloadTimeout bounds the one read that a change of epoch costs those who
// have no context of their own.
const reloadTimeout = 5 * time.Second

// current returns the security state of the current epoch, or of a later one
// that this replica has not learned of yet. It reads the database only if the
// epoch has moved on since it last did.
func (s *Store) current() (*snapshot, error) {
	epoch, err := s.db.Epoch()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", mandate.ErrUnavailable, err)
	}
	if snap := s.snap.Load(); s.usable(snap, epoch) {
		return snap, nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), reloadTimeout)
	defer cancel()
	return s.reload(ctx)
}

// reload reads the security state, unless somebody just did.
func (s *Store) reload(ctx context.Context) (*snapshot, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	epoch, err := s.db.Epoch()
	if err != nil {
		return nil, unavailable(ctx, err)
	}
	if snap := s.snap.Load(); s.usable(snap, epoch) {
		return snap, nil
	}
	return s.read(ctx)
}

// read reads the security state, whatever the epoch is.
func (s *Store) read(ctx context.Context) (*snapshot, error) {
	snap := new(snapshot)
	err := s.db.View(ctx, func(tx *database.Tx) error {
		*snap = snapshot{verified: s.db.Guarded()} // it may run again
		if err := s.db.Verify(ctx, tx); err != nil {
			return err
		}
		if err := tx.QueryRow(ctx, `SELECT epoch FROM head`).Scan(&snap.epoch); err != nil {
			return err
		}
		before := s.snap.Load()
		if before != nil && before.verified != snap.verified {
			before = nil // nothing of it may be taken over
		}
		return errors.Join(snap.readPartners(ctx, tx), snap.readCallers(ctx, tx), snap.readLockdown(ctx, tx), snap.readRevocations(ctx, tx), snap.readFloors(ctx, tx), snap.readApprovals(ctx, tx), snap.readContacts(ctx, tx), snap.readPolicy(ctx, tx, before))
	})
	if err != nil {
		return nil, unavailable(ctx, err)
	}
	s.snap.Store(snap)
	return snap, nil
}

// unavailable says of an error of the database that it is one, unless it was
// the caller who gave up, or it is one that callers branch on. A time that is
// over, the caller's or our own, is no giving up: the database did not answer
// within it. What was found in altered security state is none of those,
// whatever it says.
func unavailable(ctx context.Context, err error) error {
	if errors.Is(err, database.ErrAltered) {
		return fmt.Errorf("%w: %w", mandate.ErrUnavailable, err)
	}
	for _, ours := range []error{mandate.ErrInvalid, mandate.ErrExists, mandate.ErrNotFound, mandate.ErrUnknownPartner, mandate.ErrRateLimited, mandate.ErrUnauthenticated, mandate.ErrSuperseded, mandate.ErrDenied} {
		if errors.Is(err, ours) {
			return err
		}
	}
	switch {
	case err == nil:
		return nil
	case errors.Is(ctx.Err(), context.Canceled):
		return errors.Join(ctx.Err(), err)
	}
	return fmt.Errorf("%w: %w", mandate.ErrUnavailable, err)
}

func wrap(doing string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", doing, err)
}
