package api

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mandate-sam/mandate"
)

// issuer is a server as a handle sees it. Its tokens are numbers.
type issuer struct {
	calls  atomic.Int64
	life   time.Duration
	delay  time.Duration
	status atomic.Int64 // of the answer, if it is no token
}

func (i *issuer) RoundTrip(r *http.Request) (*http.Response, error) {
	n := i.calls.Add(1)
	select {
	case <-time.After(i.delay):
	case <-r.Context().Done():
		return nil, r.Context().Err()
	}
	w := httptest.NewRecorder()
	if status := int(i.status.Load()); status != 0 {
		w.WriteHeader(status)
		w.WriteString(map[int]string{403: `{"error":{"code":"denied"}}`, 503: `{"error":{"code":"unavailable"}}`}[status])
		return w.Result(), nil
	}
	err := json.NewEncoder(w).Encode(tokenAnswer{
		AccessToken: strconv.FormatInt(n, 10), ExpiresIn: int64(i.life.Seconds()), Tenant: contosoID, Audience: "https://graph.test",
	})
	return w.Result(), err
}

func newHandle(i *issuer, in TokenRequest) *Handle {
	return must(NewClient("https://mandate.test", &http.Client{Transport: i}, "billing", mandate.NewSecret("secret"))).Handle(in)
}

// take returns the number of the token that h gives.
func take(t *testing.T, h *Handle) string {
	t.Helper()
	tok, err := h.Token(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return tok.Access.Reveal()
}

func TestHandleHoldsTheToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHandle(&issuer{life: time.Hour}, TokenRequest{MinLifetime: 60})
		for _, tt := range []struct {
			after time.Duration
			want  string
		}{{0, "1"}, {57 * time.Minute, "1"}, {59 * time.Second, "1"}, {time.Second, "2"}, {time.Minute, "2"}} {
			time.Sleep(tt.after)
			if got := take(t, h); got != tt.want {
				t.Errorf("%v later: got token %s, want %s", tt.after, got, tt.want)
			}
		}
	})
}

// run runs h until the test ends.
func run(t *testing.T, h *Handle) {
	ctx, stop := context.WithCancel(t.Context())
	var done sync.WaitGroup
	done.Go(func() { h.Run(ctx) })
	t.Cleanup(func() { stop(); done.Wait() })
	synctest.Wait()
}

// While it runs nobody waits, and what nobody uses is not asked for.
func TestHandleRenewsAhead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := &issuer{life: time.Hour, delay: 3 * time.Second}
		h := newHandle(i, TokenRequest{})
		run(t, h)
		take(t, h)
		for range 5 * 60 {
			time.Sleep(time.Minute)
			start := time.Now()
			take(t, h)
			if waited := time.Since(start); waited > 0 {
				t.Fatalf("waited for %v", waited)
			}
		}
		if n := i.calls.Load(); n < 6 || n > 7 {
			t.Errorf("%d tokens in five hours, want six or seven", n)
		}
		before := i.calls.Load()
		time.Sleep(5 * time.Hour)
		if n := i.calls.Load() - before; n > 1 {
			t.Errorf("%d tokens in five hours in which nobody wanted one", n)
		}
		take(t, h)
	})
}

// A renewal that fails is tried again, and harms nobody while the token lasts.
func TestHandleRenewalFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := &issuer{life: time.Hour}
		h := newHandle(i, TokenRequest{})
		run(t, h)
		take(t, h)
		i.status.Store(503)
		time.Sleep(58 * time.Minute)
		if got := take(t, h); got != "1" {
			t.Errorf("got token %s, want the first", got)
		}
		if n := i.calls.Load(); n < 10 || n > 25 {
			t.Errorf("asked %d times, want once each half minute", n)
		}
		time.Sleep(2 * time.Minute)
		if _, err := h.Token(t.Context()); !errors.Is(err, mandate.ErrUnavailable) {
			t.Errorf("when it has expired: got %v, want %v", err, mandate.ErrUnavailable)
		}
	})
}

// What the server no longer allows is not handed out any more.
func TestHandleForgetsWhatIsDenied(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := &issuer{life: time.Hour}
		h := newHandle(i, TokenRequest{})
		run(t, h)
		take(t, h)
		i.status.Store(403)
		time.Sleep(55 * time.Minute)
		if _, err := h.Token(t.Context()); !errors.Is(err, mandate.ErrDenied) {
			t.Errorf("got %v, want %v", err, mandate.ErrDenied)
		}
	})
}

// Everybody waits for the same request, which goes on if who began it leaves.
func TestHandleAsksOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := &issuer{life: time.Hour, delay: time.Second}
		h := newHandle(i, TokenRequest{})
		ctx, leave := context.WithCancel(t.Context())
		var left error
		var all sync.WaitGroup
		all.Go(func() { _, left = h.Token(ctx) })
		synctest.Wait()
		for range 50 {
			all.Go(func() {
				if tok, err := h.Token(t.Context()); err != nil || tok.Access.Reveal() != "1" {
					t.Errorf("got %q and %v", tok.Access.Reveal(), err)
				}
			})
		}
		synctest.Wait()
		leave()
		all.Wait()
		if !errors.Is(left, context.Canceled) || i.calls.Load() != 1 {
			t.Errorf("who left got %v; %d requests, want 1", left, i.calls.Load())
		}
	})
}

func TestHandleHitAllocatesNothing(t *testing.T) {
	h := newHandle(&issuer{life: time.Hour}, TokenRequest{})
	take(t, h)
	if n := testing.AllocsPerRun(100, func() { h.Token(t.Context()) }); n != 0 {
		t.Errorf("a hit allocates %v times", n)
	}
}
