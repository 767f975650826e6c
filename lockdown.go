package mandate

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

// ErrLocked: an operator has shut everything, or the system was restored and
// is not released yet. No token is handed out. The error is a [*LockedError].
var ErrLocked = errors.New("locked down")

// A Lockdown is the state in which no token is handed out, whoever asks. It is
// security state: entering and leaving it raise the epoch, so that it is in
// force in every replica like any other change.
type Lockdown struct {
	Reason string    `json:"reason"`
	Since  time.Time `json:"since"`
	By     CallerID  `json:"by"`
}

// A Lock knows whether there is a [Lockdown].
type Lock interface {
	// Lockdown returns the one that is in force, or nil. The answer is of the
	// current epoch or of a later one. The error wraps [ErrUnavailable] if it
	// is not known. It is called on every request.
	Lockdown() (*Lockdown, error)
}

// A LockedError says why no token is handed out. It wraps [ErrLocked].
type LockedError struct{ Lockdown }

func (e *LockedError) Error() string {
	return fmt.Sprintf("locked down since %s by %s (%s): no token is handed out until an operator ends it with: mandate lockdown off",
		stamp(e.Since), e.By, e.Reason)
}

func (e *LockedError) Unwrap() error { return ErrLocked }

// locked returns a [*LockedError] while there is a lockdown.
func (b *Broker) locked() error {
	if b.cfg.Lock == nil {
		return nil
	}
	l, err := b.cfg.Lock.Lockdown()
	if err == nil && l != nil {
		err = &LockedError{*l}
	}
	return err
}

// Release probes a grant that came out of a backup, and lets it serve again:
// its refresh token is redeemed at the partner's own tenant, and must answer
// for the user who consented. What Entra refuses stays suspended, and the error
// says why. Whether or not there is a lockdown makes no difference.
func (b *Broker) Release(ctx context.Context, p Partner, by By) (Receipt, error) {
	ctx = context.WithoutCancel(ctx)
	g, err := b.cfg.Custody.Held(ctx, p.Key)
	if err != nil {
		return Receipt{}, err
	}
	if len(g.Audiences) == 0 {
		return Receipt{}, fmt.Errorf("%w: it names no audience to try it with", ErrNoGrant)
	}
	var next Secret
	rec := Record{Detail: "resume the restored grant", Generation: g.Generation, User: &g.User}
	receipt, err := b.change(ctx, p, by, rec, func() error {
		r, err := b.probeAudience(ctx, &g, g.Audiences[0].Audience)
		if err != nil {
			return err
		}
		next = r.Refresh
		return b.cfg.Custody.Resume(ctx, p.Key)
	})
	if err != nil || next.IsZero() {
		return receipt, err
	}
	// Entra takes the earlier token too, so one that is not kept is no loss.
	epoch, err := b.cfg.Epoch.Epoch()
	if err == nil {
		err = b.cfg.Vault.Keep(ctx, Keep{Grant: g, Epoch: epoch, Next: next})
	}
	if err != nil {
		b.cfg.Log.Warn("keep the refresh token of a restored grant", "partner", p.Name, "err", err)
	}
	return receipt, nil
}

// Withdraws reports whether r is of a withdrawal, begun or done: of its
// generation and all before it, or of all if it has none. A backup that is
// older must not bring them back.
func (r *Record) Withdraws() bool {
	return r.Grant != nil && r.Kind == KindChanged && strings.HasPrefix(r.Detail, "withdraw")
}

// An Ended is a caller, or some of what proves who it is, that an operator took
// away.
type Ended struct {
	Caller     string
	Credential string    // one of its; "" if not just one
	Secrets    bool      // all its secrets of that time
	At         time.Time // of one credential: when it ends
}

// EndsCaller returns what r took away from callers, and whether it did. A
// backup that is older must not bring that back.
func (r *Record) EndsCaller() (e Ended, ok bool) {
	if r.Kind != KindChanged {
		return e, false
	}
	if e.Caller, ok = strings.CutPrefix(r.Detail, "remove caller "); ok {
		return e, true
	}
	if e.Caller, ok = strings.CutPrefix(r.Detail, "rotate the secret of caller "); ok {
		e.Secrets = true
		return e, true
	}
	rest, ok := strings.CutPrefix(r.Detail, "expire credential ")
	if ok {
		e.Credential, e.Caller, ok = strings.Cut(rest, " of caller ")
		e.At = r.Expires
	}
	return e, ok
}
