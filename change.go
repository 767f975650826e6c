package mandate

import (
	"cmp"
	"context"
	"errors"
	"fmt"
)

// By says who does something, and from where, for the record.
type By struct {
	Caller  CallerID
	Address string
	Ticket  string // optional reference

	// Name is who it is as people know them, for those who are told of it. It
	// is not recorded; empty means Caller.
	Name string
}

// Check reports a ticket that cannot be one, as an error wrapping [ErrInvalid].
func (b By) Check() error {
	if !ticket(b.Ticket) {
		return invalidTicket()
	}
	return nil
}

// who names who did it, for people.
func (b By) who() string { return cmp.Or(b.Name, string(b.Caller)) }

// Change records what is about to be changed, and then does it. What cannot be
// recorded is not done; what was recorded and then failed is recorded as
// [KindFailed], too. It returns the receipt of the first record.
func Change(ctx context.Context, audit Recorder, epoch Epoch, rec Record, do func() error) (Receipt, error) {
	var err error
	if rec.Epoch, err = epoch.Epoch(); err != nil {
		return Receipt{}, err
	}
	rec.Kind = KindChanged
	receipt, err := audit.Record(ctx, rec)
	if err != nil {
		return Receipt{}, fmt.Errorf("record change: %w", err)
	}
	if err = do(); err == nil {
		return receipt, nil
	}
	rec.Kind, rec.Reason = KindFailed, err.Error()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), recordTimeout)
	defer cancel()
	if _, rerr := audit.Record(ctx, rec); rerr != nil {
		return receipt, errors.Join(err, rerr)
	}
	return receipt, err
}

// change is [Change] for a grant of p's. Whatever was obtained under the grant
// is forgotten when it is done.
func (b *Broker) change(ctx context.Context, p Partner, by By, rec Record, do func() error) (Receipt, error) {
	rec.Caller, rec.Address, rec.Ticket = by.Caller, by.Address, by.Ticket
	rec.Partner, rec.Grant, rec.Tenant = p.Name, &p.Key, p.Key.Partner
	receipt, err := Change(ctx, b.cfg.Audit, b.cfg.Epoch, rec, do)
	b.cache.drop(p.Key)
	return receipt, err
}
