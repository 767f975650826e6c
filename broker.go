package mandate

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"
)

// Config is the configuration of a [Broker].
type Config struct {
	Authority Authority // required
	Prober    Prober    // required by Consent
	Vault     Vault     // required
	Policy    Policy    // required
	Audit     Recorder  // required
	Epoch     Epoch     // required

	// Lock knows whether everything is shut. Nil means that it never is.
	Lock Lock

	// Revocations knows what is revoked. Nil means that nothing ever is.
	Revocations Revocations

	// Custody is required by what operators do with grants; [Broker.Suspend]
	// and what is beside it.
	Custody Custody

	// Sessions ends the sessions of whoever consented, where
	// [Broker.Withdraw] is asked to. Nil cannot.
	Sessions Sessions

	// Issued knows which tokens are still alive. Nil knows of none, and
	// withdrawing says so.
	Issued Issued

	// Approvals is where a second person is asked, if a rule wants one. Nil
	// asks nobody.
	Approvals Approvals

	// Notifier tells people what they may not have wanted. Nil tells nobody.
	Notifier Notifier

	// Agents knows who acts for a partner. Nil knows of nobody.
	Agents AgentDirectory

	// Turns keeps replicas that share the database out of each other's way.
	// Nil means that there is no other.
	Turns Turns

	// KeepAlive says how grants that nobody asks for are kept alive. Its zero
	// value, without a Schedule, leaves them to lapse.
	KeepAlive KeepAlive

	// Customers says how it is known which customers a partner has. Its zero
	// value, without a Register, takes every tenant for one.
	Customers CustomerCheck

	// Early is how long before its expiry a cached token is no longer handed
	// out. Zero means one minute.
	Early time.Duration

	// Timeout bounds one redemption, whoever waits for it. Zero means 30
	// seconds.
	Timeout time.Duration

	// MaxTokens bounds the cache. Zero means 200,000, some 500 MB of tokens.
	MaxTokens int

	// Log takes what nobody is there to be told: a failed background
	// renewal. Nil discards it.
	Log *slog.Logger
}

const (
	// rounds is how often a request is decided anew when security state
	// changes under it.
	rounds = 5

	// recordTimeout bounds the wait for a record that must be written though
	// its caller is gone.
	recordTimeout = 10 * time.Second

	// retryRenewal is how long a failed renewal ahead of expiry is not tried
	// again; until then the valid token serves.
	retryRenewal = 30 * time.Second
)

// A Broker issues access tokens. Its methods may be called concurrently.
type Broker struct {
	cfg        Config
	cache      *tokenCache
	flight     singleflight.Group // keyed by all that is in a flight
	lanes      lanes
	backoffs   backoffs
	background sync.WaitGroup  // renewals ahead of expiry, refreshes of lists
	ending     context.Context // done when Run ends: what can be broken off is
	end        context.CancelFunc
	challenges budget
	named      budget
	rolls      rolls
	stats      stats

	mu    sync.Mutex // guards heads
	heads map[GrantKey]*head
}

// New returns a Broker for cfg. It starts nothing; see [Broker.Run].
func New(cfg Config) (*Broker, error) {
	if cfg.Authority == nil || cfg.Vault == nil || cfg.Policy == nil || cfg.Audit == nil || cfg.Epoch == nil {
		return nil, errors.New("mandate.New: Authority, Vault, Policy, Audit and Epoch are required")
	}
	cfg.Early = cmp.Or(cfg.Early, time.Minute)
	cfg.Timeout = cmp.Or(cfg.Timeout, 30*time.Second)
	cfg.MaxTokens = cmp.Or(cfg.MaxTokens, 200_000)
	cfg.Log = cmp.Or(cfg.Log, slog.New(slog.DiscardHandler))
	if err := cfg.KeepAlive.Check(); err != nil {
		return nil, fmt.Errorf("mandate.New: %w", err)
	}
	if err := cfg.Customers.Check(); err != nil {
		return nil, fmt.Errorf("mandate.New: %w", err)
	}
	b := &Broker{cache: newTokenCache(cfg.MaxTokens), heads: make(map[GrantKey]*head)}
	b.ending, b.end = context.WithCancel(context.Background())
	upstream := &counted{cfg.Authority, cfg.Prober, &b.stats.upstream}
	cfg.Authority, cfg.Prober = upstream, upstream
	b.cfg = cfg
	return b, nil
}

// Run forgets expired tokens every minute, keeps grants alive and refreshes
// lists of customers until ctx is done, then waits for renewals under way.
// Nothing may call Token any more by then.
func (b *Broker) Run(ctx context.Context) error {
	if b.cfg.KeepAlive.Schedule != nil {
		b.background.Go(func() { b.keepAlive(ctx) })
	}
	if b.cfg.Customers.Register != nil {
		b.background.Go(func() { b.keepCustomers(ctx) })
	}
	tick := time.NewTicker(time.Minute)
	defer tick.Stop()
	for {
		select {
		case now := <-tick.C:
			b.cache.sweep(now)
			b.challenges.sweep(now)
			b.named.sweep(now)
			b.backoffs.sweep(now)
		case <-ctx.Done():
			b.end()
			b.background.Wait()
			return nil
		}
	}
}

// Token returns an access token for req.
//
// The decision is recorded before Entra is asked, and what came of it before
// the token is released; if either cannot be recorded there is no token. A
// change of security state in between discards whatever was obtained, and the
// request is decided anew.
//
// The error wraps one of the package's sentinels: [ErrInvalid], [ErrDenied],
// [ErrWiderThanRule], [ErrNoGrant], [ErrUpstream], [ErrRateLimited],
// [ErrUnavailable], or it is ctx's.
func (b *Broker) Token(ctx context.Context, req Request) (Token, error) {
	tok, err := b.decide(ctx, req)
	b.stats.token(err)
	return tok, err
}

// decide decides req, again if security state changes meanwhile.
func (b *Broker) decide(ctx context.Context, req Request) (Token, error) {
	if err := req.Check(); err != nil {
		return Token{}, err
	}
	a := attempt{Broker: b, req: &req, id: req.ID}
	if a.id == "" {
		a.id = rand.Text()
	}
	for range rounds {
		tok, err := a.run(ctx)
		if !errors.Is(err, ErrSuperseded) {
			return tok, err
		}
	}
	return Token{}, fmt.Errorf("%w: security state kept changing while this was decided", ErrUnavailable)
}

// An attempt is one request on its way through one epoch.
type attempt struct {
	*Broker
	req        *Request
	id         string // joins its records
	epoch      int64
	decision   Decision
	generation int64 // of the grant; 0 if there is none
}

func (a *attempt) run(ctx context.Context) (Token, error) {
	var err error
	if a.epoch, err = a.cfg.Epoch.Epoch(); err != nil {
		return Token{}, err
	}
	if err := a.locked(); err != nil {
		return Token{}, a.fail(ctx, err)
	}
	if revoked, err := a.revoked(); err != nil {
		return Token{}, a.fail(ctx, err)
	} else if revoked {
		return Token{}, a.deny(ctx)
	}
	// Policy asks how old the proof of MFA is. Without a grant it is too old
	// for any rule, and a denial comes before the reason why there is none.
	head, err := a.headSeen(ctx, a.req.Partner.Key, a.epoch)
	a.generation, a.req.MFATime = head.Generation, head.Evidence.AuthTime
	a.decision = a.cfg.Policy.Decide(a.req)
	if !a.decision.Allowed {
		if err := a.second(ctx); err != nil {
			return Token{}, a.fail(ctx, err)
		}
		return Token{}, a.deny(ctx)
	}
	if err != nil {
		return Token{}, a.fail(ctx, err)
	}
	if err := a.customer(ctx); err != nil {
		if errors.Is(err, ErrDenied) {
			return Token{}, a.deny(ctx)
		}
		return Token{}, a.fail(ctx, err)
	}
	f := flight{
		redemption: Redemption{Key: a.req.Partner.Key, Tenant: a.req.Tenant, Audience: a.req.Audience, Scopes: a.req.Scopes, Claims: a.req.Claims},
		generation: a.generation,
		since:      head.Since,
		epoch:      a.epoch,
		atLeast:    max(a.cfg.Early, a.req.MinLifetime),
		renews:     a.req.Refused,
	}
	now := time.Now()
	if t := a.usable(&f, now); t != nil {
		a.renewAhead(ctx, f, t, now)
		return a.hand(ctx, t, true, now)
	}
	if fault := a.backoffs.known(&f, now); fault != nil {
		t, err := a.awaitInstead(ctx, f, fault)
		if err != nil {
			return Token{}, a.fail(ctx, err)
		}
		return a.hand(ctx, t, true, time.Now())
	}
	if err := a.record(ctx, KindDecided, nil); err != nil {
		return Token{}, err
	}
	if err := a.afford(now); err != nil {
		return Token{}, a.fail(ctx, err)
	}
	t, err := a.await(ctx, f)
	if err != nil {
		return Token{}, a.fail(ctx, err)
	}
	return a.hand(ctx, t, false, time.Now())
}

// hand releases t: within the rule, recorded, and only if the epoch that it
// was decided in still holds when everything else is done.
func (a *attempt) hand(ctx context.Context, t *cached, wasCached bool, now time.Time) (Token, error) {
	if err := a.decision.covers(&t.Token, now); err != nil {
		return Token{}, a.fail(ctx, err)
	}
	if err := a.unchangedSince(a.epoch); err != nil {
		return Token{}, a.fail(ctx, err)
	}
	tok := t.Token
	r := a.newRecord(KindIssued)
	r.Granted, r.Fingerprint, r.UTI, r.Correlation = tok.Scopes, tok.Fingerprint, tok.UTI, tok.CorrelationID
	r.Expires, r.Cached, r.Generation = tok.Expires, wasCached, tok.Generation
	receipt, err := a.cfg.Audit.Record(ctx, r)
	if err != nil {
		return Token{}, fmt.Errorf("record token: %w", err)
	}
	if err := a.unchangedSince(a.epoch); err != nil {
		return Token{}, a.fail(ctx, err)
	}
	if wasCached {
		a.stats.hits.Add(1)
	}
	tok.Rule, tok.Receipt, tok.Epoch = a.decision.Rule, receipt, a.epoch
	return tok, nil
}

// unchangedSince returns [ErrSuperseded] if the epoch is no longer then.
func (b *Broker) unchangedSince(then int64) error {
	now, err := b.cfg.Epoch.Epoch()
	if err == nil && now != then {
		err = ErrSuperseded
	}
	return err
}

func (a *attempt) deny(ctx context.Context) error {
	err := &DeniedError{a.decision}
	if rerr := a.record(ctx, KindDenied, err); rerr != nil {
		return rerr
	}
	return err
}

// fail records that the request got no token, and returns why. The record is
// written though the caller may have hung up.
func (a *attempt) fail(ctx context.Context, err error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), recordTimeout)
	defer cancel()
	if rerr := a.record(ctx, KindFailed, err); rerr != nil {
		return errors.Join(err, rerr)
	}
	return err
}

func (a *attempt) record(ctx context.Context, kind string, why error) error {
	r := a.newRecord(kind)
	if why != nil {
		r.Reason = why.Error()
	}
	var f *Fault
	if errors.As(why, &f) {
		r.Correlation = f.CorrelationID
	}
	if _, err := a.cfg.Audit.Record(ctx, r); err != nil {
		return fmt.Errorf("record decision: %w", err)
	}
	return nil
}

func (a *attempt) newRecord(kind string) Record {
	r := Record{
		Kind: kind, Request: a.id, Epoch: a.epoch,
		Caller: a.req.Caller, Use: a.req.Use, Purpose: a.req.Purpose, Ticket: a.req.Ticket, Detail: a.req.Detail,
		Partner: a.req.Partner.Name, Grant: &a.req.Partner.Key, Generation: a.generation,
		Tenant: a.req.Tenant, Audience: a.req.Audience, Asked: a.req.Scopes,
		Rule: a.decision.Rule, Policy: a.decision.Policy, Reason: a.decision.Reason, Shadow: a.decision.Shadow, MFATime: a.req.MFATime,
		User: a.req.User, Bound: a.req.Bound, Approval: a.decision.Approval,
	}
	if a.req.Address.IsValid() {
		r.Address = a.req.Address.String()
	}
	if a.req.Method != "" {
		r.Detail = a.req.Method + " " + a.req.Path // what policy saw, whatever else was said
	}
	return r
}

// covers returns a [*WiderError] if t goes beyond what the rule allows.
func (d *Decision) covers(t *Token, now time.Time) error {
	if life := t.Expires.Sub(now); d.MaxTokenLife > 0 && life > d.MaxTokenLife {
		return &WiderError{Rule: d.Rule, MaxLife: d.MaxTokenLife, Life: life}
	}
	if d.Consented {
		return nil
	}
	for _, s := range t.Scopes {
		if !slices.Contains(d.Scopes, s) {
			return &WiderError{Rule: d.Rule, Allowed: d.Scopes, Granted: t.Scopes}
		}
	}
	return nil
}

// A head is what is known of a grant without opening it, valid in one epoch:
// whatever changes a grant's state or generation raises the epoch.
type head struct {
	epoch int64
	grant Grant
	err   error // wraps ErrNoGrant
}

// headOf returns the active generation of a grant, from memory unless the
// epoch has moved on since it was read.
func (b *Broker) headOf(ctx context.Context, k GrantKey, epoch int64) (Grant, error) {
	g, err := b.headSeen(ctx, k, epoch)
	return *g, err
}

// headSeen is headOf without a copy, for those who only look. The grant is
// never nil.
func (b *Broker) headSeen(ctx context.Context, k GrantKey, epoch int64) (*Grant, error) {
	b.mu.Lock()
	h := b.heads[k]
	b.mu.Unlock()
	if h == nil || h.epoch != epoch {
		g, err := b.cfg.Vault.Head(ctx, k)
		if err != nil && !errors.Is(err, ErrNoGrant) {
			return new(Grant), fmt.Errorf("read grant: %w", err)
		}
		if h != nil && (h.grant.Generation != g.Generation || h.grant.Since != g.Since) {
			b.cache.drop(k)
		}
		h = &head{epoch, g, err}
		b.mu.Lock()
		b.heads[k] = h
		b.mu.Unlock()
	}
	if h.err == nil && !time.Now().Before(h.grant.Until) {
		return new(Grant), fmt.Errorf("%w: the grant ended on %s; the partner can renew it", ErrNoGrant, h.grant.Until.UTC().Format(time.DateOnly))
	}
	return &h.grant, h.err
}
