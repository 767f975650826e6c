package mandate

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"
)

// An errand is what the broker itself asks Microsoft with a partner's grant.
type errand struct {
	caller   CallerID
	purpose  string
	audience Audience
	detail   string // what is called, for the record
}

// unauthorized is the status with which an API refuses a token that it does not
// accept any more.
const unauthorized = 401

// runErrand does an errand with a token of the partner's own tenant. A token out of
// memory that is refused is replaced once.
func (b *Broker) runErrand(ctx context.Context, g *Grant, epoch int64, e errand, do func(Secret) error) error {
	refused := ""
	for {
		t, err := b.errandToken(ctx, g, epoch, e, refused)
		if err != nil {
			return err
		}
		err = do(t.Access)
		var fault *Fault
		if errors.As(err, &fault) && fault.Status == unauthorized && refused == "" {
			refused = t.Fingerprint
			continue
		}
		return err
	}
}

// errandToken returns a token of the partner's own tenant, on the record like
// anybody's. Nobody else gets it. The records name no use, because no policy
// was asked: whoever tries another policy on them leaves these out.
func (b *Broker) errandToken(ctx context.Context, g *Grant, epoch int64, e errand, refused string) (*cached, error) {
	r := Record{
		Kind: KindDecided, Request: rand.Text(), Epoch: epoch, Caller: e.caller, Purpose: e.purpose,
		Grant: &g.Key, Generation: g.Generation, Tenant: g.Key.Partner, Audience: e.audience, Detail: e.detail,
	}
	if _, err := b.cfg.Audit.Record(ctx, r); err != nil {
		return nil, fmt.Errorf("record decision: %w", err)
	}
	f := flight{
		redemption: Redemption{Key: g.Key, Tenant: g.Key.Partner, Audience: e.audience},
		generation: g.Generation, since: g.Since, epoch: epoch, atLeast: max(b.cfg.Early, customersTimeout), renews: refused,
	}
	t := b.usable(&f, time.Now())
	r.Cached = t != nil
	var err error
	if t == nil {
		t, err = b.await(ctx, f)
	}
	if err == nil {
		err = b.unchangedSince(epoch)
	}
	r.Kind = KindIssued
	if err != nil {
		r.Kind, r.Reason = KindFailed, err.Error()
	} else {
		r.Granted, r.Fingerprint, r.UTI, r.Correlation, r.Expires = t.Scopes, t.Fingerprint, t.UTI, t.CorrelationID, t.Expires
	}
	if _, rerr := b.cfg.Audit.Record(ctx, r); err != nil || rerr != nil {
		return nil, errors.Join(err, rerr)
	}
	return t, b.unchangedSince(epoch)
}
