package api

import (
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/internal/web"
)

// A client asks again for a token whose answer the server held back, and not
// for ever, over whatever protocol.
func TestTokenHeldBack(t *testing.T) {
	for _, proto := range []string{"HTTP/1.1", "HTTP/1.1 over TLS", "HTTP/2.0"} {
		t.Run(proto, func(t *testing.T) {
			var asked, held atomic.Int64
			s := httptest.NewUnstartedServer(nil)
			s.Listener.Close()
			s.Listener = web.Hold(must(net.Listen("tcp", "127.0.0.1:0")))
			s.EnableHTTP2 = proto == "HTTP/2.0"
			s.Config = web.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				asked.Add(1)
				web.WriteHeld(w, r, http.StatusOK, []byte(`{"access_token":"`+canary+`"}`), func() error {
					if asked.Load() <= held.Load() {
						return mandate.ErrSuperseded
					}
					return nil
				})
			}), slog.New(slog.DiscardHandler))
			if proto == "HTTP/1.1" {
				s.Start()
			} else {
				s.StartTLS()
			}
			t.Cleanup(s.Close)
			c := must(NewClient(s.URL, s.Client(), "billing", mandate.NewSecret("secret")))
			for _, test := range []struct{ held, asked int64 }{{0, 1}, {1, 2}, {brokenOffs, 1 + brokenOffs}} {
				asked.Store(0)
				held.Store(test.held)
				if tok, err := c.Token(t.Context(), TokenRequest{}); err != nil || tok.Access.Reveal() != canary || asked.Load() != test.asked {
					t.Errorf("held back %d times: got %v after %d requests, want a token after %d", test.held, err, asked.Load(), test.asked)
				}
			}
			asked.Store(0)
			held.Store(1 << 20)
			if _, err := c.Token(t.Context(), TokenRequest{}); !brokenOff(err) || asked.Load() != 1+brokenOffs {
				t.Errorf("held back for ever: got %v after %d requests", err, asked.Load())
			}
		})
	}
}
