// Package callers tells who a workload is from what it shows: a signed
// assertion of its own, a token of an issuer that is trusted for it, or a client
// certificate.
//
// What may be shown for which caller is in its registration; see
// [mandate.Caller]. Whatever this package refuses wraps
// [mandate.ErrUnauthenticated], and says why in words that hold nothing of what
// was shown: they are for the log.
package callers

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/mandate-sam/mandate"
)

const (
	// cacheLife is how long a verification counts without being made again,
	// and maxCached how many are remembered.
	cacheLife = time.Minute
	maxCached = 10_000

	// leeway is how far other clocks and ours may be apart.
	leeway = time.Minute
)

// A Directory holds the registrations.
type Directory interface {
	// Registered returns all callers, which must not be changed, and the epoch
	// that they are of. It is called on every request, and must not wait.
	Registered() ([]mandate.Caller, int64, error)

	// UseAssertion notes that an assertion of a caller's was used, which ends
	// at a time. If it was used before, in whichever replica, the error wraps
	// [mandate.ErrUnauthenticated].
	UseAssertion(ctx context.Context, id mandate.CallerID, jti string, expires time.Time) error
}

// Config says what is trusted.
type Config struct {
	Directory Directory // required

	// TokenURL is the one audience of callers' own assertions: our token
	// endpoint, as they know it. Empty takes no assertions.
	TokenURL string

	// Issuers are those whose tokens may stand for a caller.
	Issuers []Issuer

	// Trust returns the authorities of a SPIFFE trust domain, or nil. A nil
	// Trust knows none.
	Trust func(domain string) *x509.CertPool
}

// An Authenticator tells callers by what they show. Its methods may be called
// concurrently.
type Authenticator struct {
	cfg     Config
	issuers map[string]*issuer // by the iss of their tokens
	names   map[string]*issuer
	index   atomic.Pointer[index]
	build   sync.Mutex // held while an index is made, so that one is made once

	mu     sync.RWMutex // guards cached
	cached map[[sha256.Size]byte]verified
}

// verified is that something was verified: it stands for a caller while
// nothing has changed that the verification looked at.
type verified struct {
	caller mandate.CallerID
	epoch  int64
	keys   uint64
	issuer *issuer // nil for a certificate
	until  time.Time
}

// New returns an Authenticator for cfg, or an error wrapping
// [mandate.ErrInvalid]. It asks nobody.
func New(cfg Config) (*Authenticator, error) {
	if cfg.Directory == nil {
		return nil, errors.New("callers: Directory is required")
	}
	a := &Authenticator{cfg: cfg, issuers: make(map[string]*issuer), names: make(map[string]*issuer), cached: make(map[[sha256.Size]byte]verified)}
	for i := range cfg.Issuers {
		in := &cfg.Issuers[i]
		if err := in.Check(); err != nil {
			return nil, fmt.Errorf("issuer %.40q: %w", in.Name, err)
		}
		if a.issuers[in.URL] != nil || a.names[in.Name] != nil {
			return nil, mandate.Invalid("issuers", "%.40q or its url is there twice", in.Name)
		}
		is := newIssuer(in)
		a.issuers[in.URL], a.names[in.Name] = is, is
	}
	return a, nil
}

func refuse(format string, args ...any) error {
	return fmt.Errorf("%w: %s", mandate.ErrUnauthenticated, fmt.Sprintf(format, args...))
}

// Binding returns what a caller's registration binds, or nil.
func (a *Authenticator) Binding(id mandate.CallerID) (*mandate.Binding, error) {
	ix, err := a.current()
	if err != nil {
		return nil, err
	}
	return ix.bindings[id], nil
}

// known returns the caller that a hash was found to stand for within the last
// minute, if nothing has changed since.
func (a *Authenticator) known(hash [sha256.Size]byte, epoch int64, now time.Time) (mandate.CallerID, bool) {
	a.mu.RLock()
	v, ok := a.cached[hash]
	a.mu.RUnlock()
	if !ok || v.epoch != epoch || !now.Before(v.until) || v.issuer != nil && v.issuer.version() != v.keys {
		return "", false
	}
	return v.caller, true
}

// remember remembers a verification. Only what was verified is remembered, so
// nobody without a registration can fill the memory.
func (a *Authenticator) remember(hash [sha256.Size]byte, v verified, now time.Time) {
	if limit := now.Add(cacheLife); v.until.After(limit) {
		v.until = limit
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.cached) >= maxCached {
		clear(a.cached)
	}
	a.cached[hash] = v
}
