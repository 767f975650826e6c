package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/sync/errgroup"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/audit"
	"github.com/mandate-sam/mandate/internal/database"
)

// tokenSize is the length of an access token, in bytes, such that the answer
// to POST /v1/tokens is some 2,000 bytes.
const tokenSize = 1600

// epochFixed is security state that does not change.
type epochFixed struct{}

// Epoch implements [mandate.Epoch].
func (epochFixed) Epoch() (int64, error) { return 1, nil }

// allowAll allows everything.
type allowAll struct{}

// Decide implements [mandate.Policy].
func (allowAll) Decide(*mandate.Request) mandate.Decision {
	return mandate.Decision{Allowed: true, Rule: "all", Policy: "bench", Reason: "allowed", Consented: true}
}

// memoryRecorder counts records and keeps none.
type memoryRecorder struct{ n atomic.Int64 }

// Record implements [mandate.Recorder].
func (r *memoryRecorder) Record(context.Context, mandate.Record) (mandate.Receipt, error) {
	return mandate.Receipt{Index: r.n.Add(1), Hash: receiptHash}, nil
}

var receiptHash = strings.Repeat("0123456789abcdef", 4)

// memoryVault has a grant for every partner.
type memoryVault struct {
	mu     sync.Mutex // guards grants
	grants map[mandate.GrantKey]mandate.Grant
}

// Head implements [mandate.Vault].
func (v *memoryVault) Head(ctx context.Context, k mandate.GrantKey) (mandate.Grant, error) {
	g, err := v.Open(ctx, k)
	g.Refresh = mandate.Secret{}
	return g, err
}

// Open implements [mandate.Vault].
func (v *memoryVault) Open(_ context.Context, k mandate.GrantKey) (mandate.Grant, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if g, ok := v.grants[k]; ok {
		return g, nil
	}
	return mandate.Grant{}, &mandate.NoGrantError{}
}

// Fallback implements [mandate.Vault]. There is none.
func (v *memoryVault) Fallback(context.Context, mandate.GrantKey) (mandate.Grant, error) {
	return mandate.Grant{}, &mandate.NoGrantError{}
}

// Candidate implements [mandate.Vault]. There is none.
func (v *memoryVault) Candidate(context.Context, mandate.GrantKey) (mandate.Grant, error) {
	return mandate.Grant{}, &mandate.NoGrantError{}
}

// Keep implements [mandate.Vault].
func (v *memoryVault) Keep(_ context.Context, k mandate.Keep) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	g := k.Grant
	if k.Next.IsZero() {
		return nil
	}
	if v.grants[g.Key].Version != g.Version {
		return mandate.ErrRotated
	}
	g.Refresh = k.Next
	g.Version++
	v.grants[g.Key] = g
	return nil
}

// Activate implements [mandate.Vault].
func (v *memoryVault) Activate(_ context.Context, g mandate.Grant) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.grants[g.Key] = g
	return nil
}

// Stage implements [mandate.Vault]. Nobody measures it.
func (v *memoryVault) Stage(context.Context, mandate.Grant) error { return mandate.ErrUnavailable }

// A fakeEntra answers every redemption after a delay, and counts them.
type fakeEntra struct {
	calls   atomic.Int64
	delay   atomic.Int64  // nanoseconds
	life    atomic.Int64  // nanoseconds that its tokens live
	started chan struct{} // takes one value for each call, if there is room
}

func newFakeEntra() *fakeEntra {
	e := &fakeEntra{started: make(chan struct{}, 1)}
	e.life.Store(int64(time.Hour))
	return e
}

// Redeem implements [mandate.Authority].
func (e *fakeEntra) Redeem(ctx context.Context, r mandate.Redemption) (mandate.Redeemed, error) {
	n := strconv.FormatInt(e.calls.Add(1), 10)
	select {
	case e.started <- struct{}{}:
	default:
	}
	if err := sleep(ctx, time.Duration(e.delay.Load())); err != nil {
		return mandate.Redeemed{}, &mandate.Fault{Domain: mandate.DomainTransient, Remedy: mandate.RemedyRetry, Cause: err}
	}
	return mandate.Redeemed{
		Access: mandate.NewSecret(n + strings.Repeat("a", tokenSize-len(n))), Refresh: mandate.NewSecret("r" + n),
		Expires: time.Now().Add(time.Duration(e.life.Load())), Scopes: []mandate.Scope{"user_impersonation"},
		User: &mandate.IDToken{Identity: mandate.Identity{Tenant: r.Key.Partner, Object: userID}},
		UTI:  "u" + n, CorrelationID: "c" + n,
	}, nil
}

// RedeemCode implements [mandate.Authority].
func (e *fakeEntra) RedeemCode(context.Context, mandate.CodeRedemption) (mandate.Redeemed, error) {
	return mandate.Redeemed{}, &mandate.Fault{Domain: mandate.DomainGrant, Remedy: mandate.RemedyRenew}
}

func sleep(ctx context.Context, d time.Duration) error {
	if d == 0 {
		return nil
	}
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

var (
	global = mandate.Clouds()["global"]
	appID  = must(mandate.ParseAppID("aaaaaaaa-0000-4000-8000-00000000000a"))
	userID = must(mandate.ParseObjectID("dddddddd-0000-4000-8000-00000000000d"))
)

// must is for constants of this program.
func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// partnerN is the n-th partner. Directory IDs are spread like random ones,
// since the cache picks its shards by them.
func partnerN(n int) mandate.Partner {
	var b [16]byte
	binary.BigEndian.PutUint64(b[:], uint64(n+1)*0x9e3779b97f4a7c15)
	binary.BigEndian.PutUint64(b[8:], uint64(n+1)*0xd1342543de82ef95)
	id := must(mandate.ParseTenantID(fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])))
	return mandate.Partner{Name: "p" + strconv.Itoa(n), Key: mandate.GrantKey{Cloud: "global", Application: appID, Partner: id}}
}

// grantOf is an active grant of partner p.
func grantOf(p mandate.Partner) mandate.Grant {
	return mandate.Grant{
		Key: p.Key, Generation: 1, Version: 1, State: mandate.StateActive,
		User:  mandate.Identity{Tenant: p.Key.Partner, Object: userID},
		Until: time.Now().AddDate(1, 0, 0), Refresh: mandate.NewSecret("r0"),
	}
}

// requestsFor are the requests for three audiences in p's own tenant.
func requestsFor(p mandate.Partner) []mandate.Request {
	var out []mandate.Request
	for _, alias := range []string{mandate.PartnerCenter, mandate.Graph, mandate.ARM} {
		out = append(out, mandate.Request{
			Caller: "billing", Use: mandate.UseToken, Partner: p, Tenant: p.Key.Partner,
			Audience: global.Audiences[alias].Resource, Purpose: "invoice",
		})
	}
	return out
}

// A world is a broker of the public API with fakes in memory around it.
type world struct {
	broker   *mandate.Broker
	entra    *fakeEntra
	vault    *memoryVault
	requests []mandate.Request // three for each partner
}

// newWorld makes a broker for n partners that writes its records to audit.
func newWorld(n int, audit mandate.Recorder) (*world, error) {
	w := &world{entra: newFakeEntra(), vault: &memoryVault{grants: make(map[mandate.GrantKey]mandate.Grant)}}
	for i := range n {
		p := partnerN(i)
		w.vault.grants[p.Key] = grantOf(p)
		w.requests = append(w.requests, requestsFor(p)...)
	}
	var err error
	w.broker, err = mandate.New(mandate.Config{
		Authority: w.entra, Vault: w.vault, Policy: allowAll{}, Audit: audit, Epoch: epochFixed{},
	})
	return w, err
}

// callers is how many ask at the same time where there is a disk or a network.
const callers = 64

// warm fills the cache.
func (w *world) warm(ctx context.Context) error {
	return concurrently(callers, func(c int) error {
		for i := c; i < len(w.requests); i += callers {
			if _, err := w.broker.Token(ctx, w.requests[i]); err != nil {
				return err
			}
		}
		return nil
	})
}

// concurrently calls f(0) to f(n-1) at the same time, and returns an error of
// theirs.
func concurrently(n int, f func(int) error) error {
	var g errgroup.Group
	for i := range n {
		g.Go(func() error { return f(i) })
	}
	return g.Wait()
}

// withAudit calls f with an audit log in a temporary directory.
func withAudit(f func(log *audit.Log, dir string) error) error {
	dir, err := os.MkdirTemp("", "mandate-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	db, err := database.Open(context.Background(), database.Config{File: filepath.Join(dir, "audit.db"), Schemas: []database.Schema{audit.Schema()}})
	if err != nil {
		return err
	}
	defer db.Close()
	index, err := database.Open(context.Background(), database.Config{File: filepath.Join(dir, "index.db"), Derived: true, Schemas: []database.Schema{audit.Schema()}})
	if err != nil {
		return err
	}
	defer index.Close()
	return runLog(audit.Config{Dir: filepath.Join(dir, "audit"), DB: db, Index: index, Epoch: epochFixed{}}, func(log *audit.Log) error { return f(log, dir) })
}

// clearKeys wraps nothing, because what is measured is not wrapping.
type clearKeys struct{}

func (clearKeys) Wrap(_ context.Context, plain []byte) (string, []byte, error) {
	return "clear", bytes.Clone(plain), nil
}

func (clearKeys) Unwrap(_ context.Context, _ string, wrapped []byte) ([]byte, error) {
	return bytes.Clone(wrapped), nil
}

// runLog opens a log and runs it, with its checkpoints and its index, while f
// does something with it.
func runLog(cfg audit.Config, f func(log *audit.Log) error) error {
	secret, public, err := audit.NewKey("bench/audit")
	if err != nil {
		return err
	}
	if cfg.Signer, err = note.NewSigner(secret); err != nil {
		return err
	}
	if cfg.Public, err = audit.ParseKey(public); err != nil {
		return err
	}
	cfg.Keys, cfg.Emulated = clearKeys{}, true
	log, err := audit.Open(context.Background(), cfg)
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(context.Background())
	var group errgroup.Group
	group.Go(func() error { return log.Run(ctx) })
	err = f(log)
	stop()
	return errors.Join(err, group.Wait(), log.Close())
}
