package api

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"golang.org/x/sync/singleflight"

	"github.com/mandate-sam/mandate"
)

const (
	// handleEarly is how long before its expiry a held token is no longer
	// handed out, beyond what the request asks for.
	handleEarly = time.Minute

	// handleRetry is how long a renewal that brought nothing newer is not
	// tried again, while the held token is still good.
	handleRetry = 30 * time.Second

	// handleTimeout bounds one request to the server, whoever waits for it.
	handleTimeout = time.Minute
)

// A Handle is one request for a token that is made again and again. It holds
// the token while it lasts, so that asking costs next to nothing and takes no
// lock. Every token that it holds was asked of the server, decided there and
// recorded there; that it is used once more is not. Its methods may be called
// concurrently.
type Handle struct {
	client *Client
	in     TokenRequest
	early  time.Duration

	held atomic.Pointer[held]

	// clock is the time in Unix nanoseconds while Run keeps it, and 0
	// otherwise. Reading it is what makes a hit cheap: the system's clock
	// takes longer than all the rest.
	clock atomic.Int64

	flight singleflight.Group // of one key
}

// held is a token that a [Handle] has.
type held struct {
	mandate.Token
	until int64       // Unix nanoseconds; it is not handed out from then on
	renew int64       // when it is to be renewed, if it is used
	used  atomic.Bool // set once, so that those who use it do not contend
}

// Handle returns a handle for in. It asks the server when a token is first
// wanted. While [Handle.Run] runs, tokens are renewed ahead of their expiry;
// otherwise whoever comes when one has ended waits for the next.
func (c *Client) Handle(in TokenRequest) *Handle {
	return &Handle{client: c, in: in, early: handleEarly + time.Duration(max(0, in.MinLifetime))*time.Second}
}

// Token returns the token that the handle holds, or asks the server for one.
// Everybody who waits shares one request, which goes on if some of them give
// up.
func (h *Handle) Token(ctx context.Context) (mandate.Token, error) {
	if t := h.held.Load(); t != nil && h.now() < t.until {
		if !t.used.Load() {
			t.used.Store(true)
		}
		return t.Token, nil
	}
	return h.wait(ctx)
}

func (h *Handle) now() int64 {
	if now := h.clock.Load(); now != 0 {
		return now
	}
	return time.Now().UnixNano()
}

// wait asks the server together with everybody else.
func (h *Handle) wait(ctx context.Context) (mandate.Token, error) {
	done := h.flight.DoChan("", func() (any, error) { return h.fetch(context.WithoutCancel(ctx)) })
	select {
	case r := <-done:
		if r.Err != nil {
			return mandate.Token{}, r.Err
		}
		t := r.Val.(*held)
		t.used.Store(true)
		return t.Token, nil
	case <-ctx.Done():
		return mandate.Token{}, context.Cause(ctx)
	}
}

// fetch asks the server and holds what it answers. If the server says that
// there is no token any more, that goes for the held one too: its holder could
// use it, but nobody would have decided so.
func (h *Handle) fetch(ctx context.Context) (*held, error) {
	ctx, cancel := context.WithTimeout(ctx, handleTimeout)
	defer cancel()
	tok, err := h.client.Token(ctx, h.in)
	if errors.Is(err, mandate.ErrDenied) || errors.Is(err, mandate.ErrNoGrant) || errors.Is(err, mandate.ErrWiderThanRule) {
		h.held.Store(nil)
	}
	if err != nil {
		return nil, err
	}
	t := newHeld(tok, time.Now(), h.early)
	h.held.Store(t)
	return t, nil
}

// newHeld plans the renewal of a token when between a tenth and a fifth of its
// life is left. The server has renewed its own by then, and not everybody asks
// at the same time.
func newHeld(tok mandate.Token, now time.Time, early time.Duration) *held {
	until := tok.Expires.Add(-early)
	life := max(0, until.Sub(now))
	left := life/10 + time.Duration(rand.Int64N(int64(life/10)+1))
	return &held{Token: tok, until: until.UnixNano(), renew: until.Add(-left).UnixNano()}
}

// due reports whether the held token is to be renewed.
func (h *Handle) due(now int64) bool {
	t := h.held.Load()
	return t != nil && t.used.Load() && now >= t.renew
}

// Run renews the token ahead of its expiry, if it was used since it was
// fetched, until ctx is done; then it returns nil. A renewal that fails is
// tried again, while the token that is held serves. Run must not be called
// twice.
func (h *Handle) Run(ctx context.Context) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	defer h.clock.Store(0)
	var renewal <-chan singleflight.Result // not nil while one is under way
	for retry := int64(0); ; {
		now := time.Now().UnixNano() // by the wall clock, which goes on while a machine sleeps
		h.clock.Store(now)
		if renewal == nil && now >= retry && h.due(now) {
			retry = now + int64(handleRetry)
			renewal = h.flight.DoChan("", func() (any, error) { return h.fetch(ctx) })
		}
		select {
		case <-tick.C:
		case <-renewal:
			renewal = nil
		case <-ctx.Done():
			if renewal != nil {
				<-renewal
			}
			return nil
		}
	}
}
