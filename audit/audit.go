// Package audit is the log of what was decided and done, in which others can
// see that nothing was changed, left out or put in later.
//
// Every record is an entry, and the entries are the leaves of a Merkle tree as
// in RFC 6962. Once a second the log signs its size and root hash, and sends
// that checkpoint to witnesses who are out of reach of whoever runs the
// database. The records about one partner are numbered and chained, so that a
// partner can see that its own are all there, and never sees another's. The
// formats are described in docs/audit.md, for somebody else's program.
//
// A record is durable before whatever it speaks of happens: [Log.Record]
// returns only after the disk, or PostgreSQL, has it, and writers that arrive
// together share one flush.
package audit

import (
	"cmp"
	"context"
	"crypto/ed25519"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/internal/database"
)

// writeTimeout bounds one flush.
const writeTimeout = 30 * time.Second

// Config says where a log is and who vouches for it.
type Config struct {
	// Dir is the directory of the segments, for a server that is alone. Empty
	// means that the log is in DB, for several replicas.
	Dir string

	// DB has the tables of [Schema]: the keys of personal data, and the log
	// itself if Dir is empty. Required.
	DB *database.DB

	// Index has the same tables, and is what searches look into. Nil means
	// DB. A server that is alone gives a file of its own, which may be deleted
	// and is made again.
	Index *database.DB

	// Keys wraps the key of the keys of personal data. Required.
	Keys KeyWrapper

	// Signer signs checkpoints, and Public verifies them. Required.
	Signer note.Signer
	Public note.Verifier

	// Epoch is asked at every flush by a log in Dir; one in DB reads it in the
	// same transaction. Nil means that it never changes.
	Epoch mandate.Epoch

	// Memory is a file outside the database that keeps the latest checkpoint,
	// so that a database which was set back is noticed at the next start.
	// Empty keeps none.
	Memory string

	// Erasures is a file outside the database that keeps what was erased, so
	// that a key which an older copy of the database brings back is destroyed
	// again at the next start. Empty keeps none.
	Erasures string

	// Witnesses get every checkpoint.
	Witnesses []WitnessConfig

	// Client speaks to witnesses. Nil means one with sane time limits.
	Client *http.Client

	// Emulated marks every record as one of a custom cloud.
	Emulated bool

	// Log is told of witnesses that cannot be reached. Nil means
	// [slog.Default].
	Log *slog.Logger

	openFile func(string, int) (file, error) // of a test
}

// A Log is an open audit log. Its methods may be called concurrently.
type Log struct {
	cfg       Config
	store     store
	keys      *keyring
	index     *index
	witnesses []*witness

	mu      sync.Mutex // guards the fields below
	pending *batch     // collects records while another batch is being written
	writing bool
	size    int64         // records that are durable, as far as is known
	grown   chan struct{} // closed when size grows
	signed  Checkpoint    // the latest that was signed or read
}

// Open opens the log, creating it if there is none. It refuses one that does
// not contain what its own last checkpoint says.
func Open(ctx context.Context, cfg Config) (*Log, error) {
	l, err := open1(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("open audit log: %w", err)
	}
	return l, nil
}

func open1(ctx context.Context, cfg Config) (*Log, error) {
	if cfg.DB == nil || cfg.Keys == nil || cfg.Signer == nil || cfg.Public == nil {
		return nil, errors.New("DB, Keys, Signer and Public are required")
	}
	cfg.Index = cmp.Or(cfg.Index, cfg.DB)
	cfg.Log = cmp.Or(cfg.Log, slog.Default())
	cfg.Client = cmp.Or(cfg.Client, &http.Client{Timeout: witnessTimeout, CheckRedirect: noRedirect})
	l := &Log{cfg: cfg, keys: newKeyring(cfg.DB, cfg.Keys), grown: make(chan struct{})}
	l.index = &index{log: l, db: cfg.Index, far: indexFar, few: indexFew, look: indexLook}
	for _, w := range cfg.Witnesses {
		opened, err := newWitness(w, cfg.Client)
		if err != nil {
			return nil, err
		}
		l.witnesses = append(l.witnesses, opened)
	}
	var err error
	if cfg.Dir == "" {
		l.store = &sqlStore{db: cfg.DB}
	} else if l.store, err = openFiles(cfg.Dir, l.epochNow, cfg.openFile); err != nil {
		return nil, err
	}
	end, _, err := l.store.at(ctx)
	if err == nil {
		l.size = end.front.size
		err = l.compare(ctx, end.front.size)
	}
	if err == nil && cfg.Dir != "" {
		err = l.index.check(ctx)
	}
	if err == nil {
		err = l.eraseAgain(ctx)
	}
	if err != nil {
		l.store.close()
		return nil, err
	}
	return l, nil
}

// epochNow asks for the epoch, if there is somebody to ask.
func (l *Log) epochNow() (int64, error) {
	if l.cfg.Epoch == nil {
		return 0, nil
	}
	return l.cfg.Epoch.Epoch()
}

// Close closes files. Nothing may be recorded any more.
func (l *Log) Close() error { return l.store.close() }

// Origin is the name of the log.
func (l *Log) Origin() string { return l.cfg.Signer.Name() }

// Key returns the text of the public key that verifies checkpoints.
func (l *Log) Key() string { return Public(l.cfg.Public) }

// Record implements [mandate.Recorder]. Its errors wrap
// [mandate.ErrUnavailable], and after one the next call tries again; or
// [mandate.ErrSuperseded], if r is of a token that was decided in an earlier
// epoch than the one in which it would be written.
//
// A record that was handed to the disk may turn out durable though ctx ended
// meanwhile; then it tells of something that did not happen, which is the safe
// side to err on.
func (l *Log) Record(ctx context.Context, r mandate.Record) (mandate.Receipt, error) {
	r.Time = time.Now().UTC()
	r.Emulated = l.cfg.Emulated
	it := &item{kind: r.Kind, chain: chainOf(&r), epoch: r.Epoch}
	month := monthOf(r.Time)
	key, err := l.keys.get(ctx, it.chain, month, true)
	if err != nil {
		return mandate.Receipt{}, fmt.Errorf("%w: audit log: %w", mandate.ErrUnavailable, err)
	}
	if it.body, err = body(&r, it.chain, month, newSalt(), key.aead); err != nil {
		return mandate.Receipt{}, err
	}
	b := l.enqueue(it)
	select {
	case <-b.done:
	case <-ctx.Done():
		return mandate.Receipt{}, fmt.Errorf("record: %w", context.Cause(ctx))
	}
	switch {
	case b.err != nil:
		return mandate.Receipt{}, fmt.Errorf("%w: audit log: %w", mandate.ErrUnavailable, b.err)
	case it.err != nil:
		return mandate.Receipt{}, it.err
	}
	return mandate.Receipt{Index: it.index, Hash: hex.EncodeToString(it.leaf[:])}, nil
}

// ed25519Public returns the public key of a seed.
func ed25519Public(seed []byte) ed25519.PublicKey {
	return ed25519.NewKeyFromSeed(seed).Public().(ed25519.PublicKey)
}
