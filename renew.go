package mandate

import (
	"context"
	"crypto/rand"
	"errors"
	"time"
)

// renewAhead renews t in the background when it is due, once for all who find
// it so, while the valid token goes on being served.
func (a *attempt) renewAhead(ctx context.Context, f flight, t *cached, now time.Time) {
	due := t.refresh.Load()
	if a.req.Claims != "" || now.UnixNano() < due || !t.refresh.CompareAndSwap(due, now.Add(retryRenewal).UnixNano()) {
		return
	}
	a.renewLater(context.WithoutCancel(ctx), f, t.Fingerprint)
}

// renewLater stands by itself, since what a goroutine is given is on the heap
// even if none is started.
func (a *attempt) renewLater(ctx context.Context, f flight, fingerprint string) {
	f.renews = fingerprint
	renewal := *a
	renewal.id = rand.Text()
	a.background.Go(func() { renewal.renew(ctx, f) })
}

func (a *attempt) renew(ctx context.Context, f flight) {
	err := a.record(ctx, KindDecided, errors.New("renewal ahead of expiry"))
	if err != nil {
		a.cfg.Log.Error("renewal not recorded, so not made", "partner", a.req.Partner.Name, "err", err)
		return
	}
	t, err := a.await(ctx, f)
	if err != nil {
		err = a.fail(ctx, err)
		a.cfg.Log.Warn("renewal ahead of expiry", "partner", a.req.Partner.Name, "tenant", a.req.Tenant, "audience", a.req.Audience, "err", err)
		return
	}
	r := a.newRecord(KindRefreshed)
	r.Granted, r.Fingerprint, r.UTI, r.Correlation, r.Expires = t.Scopes, t.Fingerprint, t.UTI, t.CorrelationID, t.Expires
	if _, err := a.cfg.Audit.Record(ctx, r); err != nil {
		a.cfg.Log.Error("record renewal", "partner", a.req.Partner.Name, "err", err)
	}
}
