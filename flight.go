package mandate

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"time"
)

// A flight is one redemption for everybody who waits for the same token.
type flight struct {
	redemption Redemption // without the refresh token
	generation int64
	epoch      int64
	atLeast    time.Duration
	renews     string // fingerprint of a token that will not do, since it is to be renewed
}

func (f *flight) cacheKey() cacheKey {
	r := &f.redemption
	return cacheKey{
		partner: r.Key.Partner, tenant: r.Tenant, application: r.Key.Application, generation: f.generation,
		cloud: r.Key.Cloud, audience: r.Audience, asked: askedKey(r.Scopes, r.Claims),
	}
}

// await returns the token that f redeems, together with everybody else who
// waits for the same.
//
// The redemption outlives the caller that started it. Abandoning it halfway
// could lose a refresh token that Entra has already replaced, and would fail
// every other caller because one of them hung up.
func (b *Broker) await(ctx context.Context, f flight) (*cached, error) {
	done := b.flight.DoChan(fmt.Sprintf("%+v", f), func() (any, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), b.cfg.Timeout)
		defer cancel()
		return b.redeem(ctx, f)
	})
	select {
	case r := <-done:
		t, _ := r.Val.(*cached)
		return t, r.Err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// redeem asks Entra, unless somebody else just did, and stores the refresh
// token that came back before anybody gets the access token.
func (b *Broker) redeem(ctx context.Context, f flight) (*cached, error) {
	k := f.cacheKey()
	if t := b.cache.get(&k, time.Now(), f.atLeast); t != nil && t.Fingerprint != f.renews {
		return t, nil
	}
	g, r, err := b.present(ctx, f)
	if err != nil {
		return nil, err
	}
	if err := b.keep(ctx, f, g, r); err != nil {
		return nil, err
	}
	t := newCached(f, r, time.Now())
	b.cache.put(k, t, time.Now())
	return t, nil
}

// present redeems the stored refresh token. If Entra says that it is dead, the
// store is read once more before that is believed: another replica may have
// replaced it meanwhile.
func (b *Broker) present(ctx context.Context, f flight) (Grant, Redeemed, error) {
	g, r, err := b.presentStored(ctx, f)
	var fault *Fault
	if !errors.As(err, &fault) || fault.Domain != DomainGrant {
		return g, r, err
	}
	if newer, herr := b.cfg.Vault.Head(ctx, f.redemption.Key); herr != nil || newer.Version == g.Version {
		return g, r, err
	}
	return b.presentStored(ctx, f)
}

func (b *Broker) presentStored(ctx context.Context, f flight) (Grant, Redeemed, error) {
	g, err := b.cfg.Vault.Open(ctx, f.redemption.Key)
	if err != nil {
		return g, Redeemed{}, fmt.Errorf("open grant: %w", err)
	}
	if g.Generation != f.generation {
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
func (b *Broker) keep(ctx context.Context, f flight, g Grant, r Redeemed) error {
	if f.redemption.Tenant != f.redemption.Key.Partner {
		return b.unchangedSince(f.epoch)
	}
	if r.User == nil || r.User.Identity != g.User {
		return &Fault{
			Domain: DomainGrant, Remedy: RemedyRenew, CorrelationID: r.CorrelationID,
			Description: "Entra answered for another user than the one who consented; nothing was stored or handed out",
		}
	}
	if r.Refresh.IsZero() || r.Refresh.Reveal() == g.Refresh.Reveal() {
		return b.unchangedSince(f.epoch)
	}
	err := b.cfg.Vault.Rotate(ctx, g, r.Refresh, f.epoch)
	if err == nil || errors.Is(err, ErrRotated) {
		return nil
	}
	return fmt.Errorf("store refresh token: %w", err)
}

func newCached(f flight, r Redeemed, now time.Time) *cached {
	sum := sha256.Sum256([]byte(r.Access.Reveal()))
	c := &cached{Token: Token{
		Access: r.Access, Expires: r.Expires, Tenant: f.redemption.Tenant, Audience: f.redemption.Audience,
		Scopes: r.Scopes, Generation: f.generation, Fingerprint: hex.EncodeToString(sum[:]),
		UTI: r.UTI, CorrelationID: r.CorrelationID,
	}}
	// Between 70 and 80 per cent of its life, so that tokens which were
	// redeemed together are not all renewed together.
	life := r.Expires.Sub(now)
	c.refresh.Store(now.Add(life*7/10 + time.Duration(mathrand.Int64N(int64(life/10)+1))).UnixNano())
	return c
}
