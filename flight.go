package mandate

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"strconv"
	"time"
)

// A flight is one redemption for everybody who waits for the same token.
type flight struct {
	redemption Redemption // without the refresh token
	generation int64
	since      int64 // the epoch of the grant's last change of state
	epoch      int64
	atLeast    time.Duration
	renews     string // fingerprint of a token that will not do, since it is to be renewed
	alive      bool   // made to keep the grant alive: no token of before will do
}

// cacheKey names the tokens that f may use. A change of the grant's state
// makes another key, so what was obtained before it is never found again.
func (f *flight) cacheKey() cacheKey {
	r := &f.redemption
	return cacheKey{
		partner: r.Key.Partner, tenant: r.Tenant, application: r.Key.Application, generation: f.generation, since: f.since,
		cloud: r.Key.Cloud, audience: r.Audience, asked: askedKey(r.Scopes, r.Claims),
	}
}

// name is the same for flights that are alike in everything. Every part has its
// length in front, so that no other flight has the same.
func (f *flight) name() string {
	r := &f.redemption
	b := make([]byte, 0, 256)
	for _, id := range [][16]byte{r.Key.Application.guid, r.Key.Partner.guid, r.Tenant.guid} {
		b = append(b, id[:]...)
	}
	for _, n := range []int64{f.generation, f.since, f.epoch, int64(f.atLeast), int64(len(r.Scopes))} {
		b = binary.BigEndian.AppendUint64(b, uint64(n))
	}
	b = strconv.AppendBool(b, f.alive)
	for _, s := range []string{r.Key.Cloud, string(r.Audience), r.Claims, f.renews} {
		b = appendPart(b, s)
	}
	for _, s := range r.Scopes {
		b = appendPart(b, s)
	}
	return string(b)
}

func appendPart(b []byte, s string) []byte {
	return append(binary.BigEndian.AppendUint32(b, uint32(len(s))), s...)
}

// wanted says which token of another replica's will do.
func (f *flight) wanted() Wanted {
	r := &f.redemption
	w := Wanted{
		Key:   TokenKey{Grant: r.Key, Generation: f.generation, Tenant: r.Tenant, Audience: r.Audience, Scopes: r.Scopes, Claims: r.Claims},
		Since: f.since, AtLeast: f.atLeast, Not: f.renews,
	}
	if f.alive {
		w.AtLeast = 1<<63 - 1
	}
	return w
}

// await returns the token that f redeems, together with everybody else who
// waits for the same.
//
// The redemption outlives the caller that started it. Abandoning it halfway
// could lose a refresh token that Entra has already replaced, and would fail
// every other caller because one of them hung up.
func (b *Broker) await(ctx context.Context, f flight) (*cached, error) {
	return b.together(ctx, f.name(), func(ctx context.Context) (*cached, error) { return b.fly(ctx, f) })
}

// awaitInstead returns what there is instead of what f would redeem, together
// with everybody else who asks for that; see instead.
func (b *Broker) awaitInstead(ctx context.Context, f flight, fault error) (*cached, error) {
	return b.together(ctx, "instead of "+f.name(), func(ctx context.Context) (*cached, error) { return b.instead(ctx, &f, fault) })
}

// together calls do once for everybody who comes with the same name meanwhile.
func (b *Broker) together(ctx context.Context, name string, do func(context.Context) (*cached, error)) (*cached, error) {
	done := b.flight.DoChan(name, func() (any, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), b.cfg.Timeout)
		defer cancel()
		return do(ctx)
	})
	select {
	case r := <-done:
		t, _ := r.Val.(*cached)
		return t, r.Err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// fly redeems, unless somebody else just did or it is known to be of no use.
func (b *Broker) fly(ctx context.Context, f flight) (*cached, error) {
	leave, err := b.lanes.enter(ctx, f.redemption.Key)
	if err != nil {
		return nil, err
	}
	defer leave()
	if t := b.usable(&f, time.Now()); t != nil {
		return t, nil
	}
	if err := b.backoffs.claim(&f, time.Now(), b.cfg.Timeout); err != nil {
		return b.instead(ctx, &f, err)
	}
	t, err := b.inTurn(ctx, f)
	var fault *Fault
	errors.As(err, &fault)
	b.backoffs.settle(&f, fault, err == nil, time.Now())
	if err != nil {
		return nil, err
	}
	b.cache.put(f.cacheKey(), t, time.Now())
	return t, nil
}

// instead returns a token that another replica has stored, where this one is
// not to ask Entra because of a fault. What is wrong here may have come after
// that token, or not concern it: while it is good, it goes on being served.
func (b *Broker) instead(ctx context.Context, f *flight, fault error) (*cached, error) {
	if b.cfg.Turns == nil {
		return nil, fault
	}
	shared, err := b.cfg.Turns.Shared(ctx, f.wanted())
	if err != nil {
		return nil, errors.Join(fault, err)
	}
	if shared == nil {
		return nil, fault
	}
	t := newCached(*shared, time.Now())
	b.cache.put(f.cacheKey(), t, time.Now())
	return t, nil
}

// usable returns the token that was put into the cache since f began.
func (b *Broker) usable(f *flight, now time.Time) *cached {
	if f.alive {
		return nil
	}
	k := f.cacheKey()
	t := b.cache.get(&k, now, f.atLeast)
	if t == nil || t.Fingerprint == f.renews {
		return nil
	}
	return t
}

// inTurn redeems when no other replica does, or takes what another obtained.
func (b *Broker) inTurn(ctx context.Context, f flight) (*cached, error) {
	if b.cfg.Turns == nil {
		return b.redeem(ctx, f, Turn{})
	}
	turn, shared, err := b.cfg.Turns.Take(ctx, f.wanted())
	if err != nil {
		return nil, fmt.Errorf("take turn: %w", err)
	}
	if shared != nil {
		return newCached(*shared, time.Now()), nil
	}
	let := b.holdOn(ctx, turn)
	t, err := b.redeem(ctx, f, turn)
	let()
	if err != nil {
		// The context may be over; what is not released is over with its lease.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), recordTimeout)
		defer cancel()
		err = errors.Join(err, b.cfg.Turns.Release(ctx, turn))
	}
	return t, err
}

// holdOn extends a turn until the returned function is called, which waits for
// the last extension. If the turn is lost meanwhile, [Vault.Keep] says so.
func (b *Broker) holdOn(ctx context.Context, turn Turn) (let func()) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(TurnLease / 4)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				if err := b.cfg.Turns.Extend(ctx, turn); err != nil && ctx.Err() == nil {
					b.cfg.Log.Warn("extend turn", "partner", turn.Key.Grant.Partner, "tenant", turn.Key.Tenant, "err", err)
				}
			case <-ctx.Done():
				return
			}
		}
	}()
	return func() { cancel(); <-done }
}

// redeem asks Entra, and stores the refresh token that came back before
// anybody gets the access token.
func (b *Broker) redeem(ctx context.Context, f flight, turn Turn) (*cached, error) {
	g, r, err := b.present(ctx, f, turn)
	if err != nil {
		return nil, err
	}
	t := newToken(f, g, r)
	if err := b.keep(ctx, f, g, r, turn, &t); err != nil {
		return nil, err
	}
	return newCached(t, time.Now()), nil
}

// present redeems the stored refresh token. If Entra says that it is dead, the
// store is read once more before that is believed: another replica may have
// replaced it meanwhile. If it is dead, the generation before may stand in.
func (b *Broker) present(ctx context.Context, f flight, turn Turn) (Grant, Redeemed, error) {
	g, r, err := b.presentStored(ctx, f, turn.Grant)
	if !grantIsDead(err) {
		return g, r, err
	}
	newer, herr := b.cfg.Vault.Head(ctx, f.redemption.Key)
	if herr == nil && newer.Version != g.Version {
		if g, r, err = b.presentStored(ctx, f, Grant{}); !grantIsDead(err) {
			return g, r, err
		}
	}
	return b.presentFallback(ctx, f, g, r, err)
}

func grantIsDead(err error) bool {
	var fault *Fault
	return errors.As(err, &fault) && fault.Domain == DomainGrant
}

// presentFallback redeems the token of the generation before the active one,
// if that may still stand in, and says what it knows otherwise.
func (b *Broker) presentFallback(ctx context.Context, f flight, g Grant, r Redeemed, dead error) (Grant, Redeemed, error) {
	fallback, err := b.cfg.Vault.Fallback(ctx, f.redemption.Key)
	if err != nil || fallback.User != g.User || !time.Now().Before(fallback.Fallback) || !time.Now().Before(fallback.Until) {
		return g, r, dead
	}
	redemption := f.redemption
	redemption.Refresh = fallback.Refresh
	stood, err := b.cfg.Authority.Redeem(ctx, redemption)
	if err != nil {
		return g, r, dead
	}
	b.cfg.Log.Warn("the generation before stands in for the active one, whose refresh token is dead",
		"partner", f.redemption.Key.Partner, "generation", g.Generation, "until", fallback.Fallback, "err", dead)
	return fallback, stood, nil
}

// presentStored redeems the refresh token of g, or the stored one if g is zero.
func (b *Broker) presentStored(ctx context.Context, f flight, g Grant) (Grant, Redeemed, error) {
	if g.Refresh.IsZero() {
		var err error
		if g, err = b.cfg.Vault.Open(ctx, f.redemption.Key); err != nil {
			return g, Redeemed{}, fmt.Errorf("open grant: %w", err)
		}
	}
	if g.Generation != f.generation || g.Since != f.since {
		return g, Redeemed{}, ErrSuperseded
	}
	redemption := f.redemption
	redemption.Refresh = g.Refresh
	r, err := b.cfg.Authority.Redeem(ctx, redemption)
	return g, r, err
}

// keep makes what a redemption brought durable, or says why its tokens must be
// discarded. Only the partner's own tenant, answering for the same user,
// replaces the stored refresh token: a customer's tenant never does.
func (b *Broker) keep(ctx context.Context, f flight, g Grant, r Redeemed, turn Turn, t *Token) error {
	k := Keep{Grant: g, Epoch: f.epoch, Turn: turn}
	if f.redemption.Tenant == f.redemption.Key.Partner {
		if r.User == nil || r.User.Identity != g.User {
			b.mismatch(ctx, &g)
			return &Fault{
				Domain: DomainGrant, Remedy: RemedyRenew, CorrelationID: r.CorrelationID,
				Description: "Entra answered for another user than the one who consented; nothing was stored or handed out",
			}
		}
		if !r.Refresh.IsZero() && r.Refresh.Reveal() != g.Refresh.Reveal() {
			k.Next = r.Refresh
		}
	}
	if b.cfg.Turns != nil {
		k.Token = t
	}
	if k.Next.IsZero() && k.Token == nil {
		return b.unchangedSince(f.epoch)
	}
	err := b.cfg.Vault.Keep(ctx, k)
	if err == nil || errors.Is(err, ErrRotated) {
		return nil
	}
	return fmt.Errorf("store what was redeemed: %w", err)
}

func newToken(f flight, g Grant, r Redeemed) Token {
	sum := sha256.Sum256([]byte(r.Access.Reveal()))
	return Token{
		Access: r.Access, Expires: r.Expires, Tenant: f.redemption.Tenant, Audience: f.redemption.Audience,
		Scopes: r.Scopes, Generation: g.Generation, Fingerprint: hex.EncodeToString(sum[:]),
		UTI: r.UTI, CorrelationID: r.CorrelationID,
	}
}

func newCached(t Token, now time.Time) *cached {
	c := &cached{Token: t}
	// Between 70 and 80 per cent of its life, so that tokens which were
	// redeemed together are not all renewed together.
	life := t.Expires.Sub(now)
	c.refresh.Store(now.Add(life*7/10 + time.Duration(mathrand.Int64N(max(1, int64(life/10))))).UnixNano())
	return c
}
