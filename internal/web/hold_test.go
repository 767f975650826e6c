package web

import (
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
)

var errChanged = errors.New("changed")

// What has changed when it is about to be sent is not sent, over whatever
// protocol; and what is sent for others later is not held.
func TestWriteHeld(t *testing.T) {
	for _, proto := range []string{"HTTP/1.1", "HTTP/1.1 over TLS", "HTTP/2.0"} {
		t.Run(proto, func(t *testing.T) {
			var changed atomic.Bool
			handled := make(chan error, 1)
			mux := http.NewServeMux()
			mux.HandleFunc("/held", func(w http.ResponseWriter, r *http.Request) {
				handled <- WriteHeld(w, r, http.StatusOK, []byte(`"secret"`), func() error {
					if changed.Load() {
						return errChanged
					}
					return nil
				})
			})
			mux.HandleFunc("/open", func(w http.ResponseWriter, r *http.Request) { WriteEncoded(w, http.StatusOK, []byte(r.Proto)) })
			get := holding(t, mux, proto)
			if body, err := get("/held"); err != nil || body != `"secret"` {
				t.Errorf("nothing has changed: got %q, %v", body, err)
			}
			if err := <-handled; err != nil {
				t.Error(err)
			}
			changed.Store(true)
			if body, err := get("/open"); err != nil || !strings.HasPrefix(proto, body) {
				t.Errorf("another answer on the connection: got %q, %v", body, err)
			}
			if body, err := get("/held"); !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) || body != "" {
				t.Errorf("something has changed: got %q, %v; want a connection that just ends", body, err)
			}
			if err := <-handled; !errors.Is(err, errChanged) && proto != "HTTP/2.0" {
				t.Errorf("the handler got %v, want %v", err, errChanged)
			}
			if body, err := get("/open"); err != nil || !strings.HasPrefix(proto, body) {
				t.Errorf("on another connection: got %q, %v", body, err)
			}
		})
	}
}

// holding serves h, and returns what gets from it.
func holding(t *testing.T, h http.Handler, proto string) func(path string) (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewUnstartedServer(h)
	s.Listener.Close()
	s.Listener, s.Config, s.EnableHTTP2 = Hold(l), NewServer(h, slog.New(slog.DiscardHandler)), proto == "HTTP/2.0"
	if proto == "HTTP/1.1" {
		s.Start()
	} else {
		s.StartTLS()
	}
	t.Cleanup(s.Close)
	return func(path string) (string, error) {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.URL+path, http.NoBody)
		if err != nil {
			return "", err
		}
		resp, err := s.Client().Do(req)
		if err != nil {
			return "", err
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		return string(body), err
	}
}

// Where a connection cannot be held, what has changed is seen before.
func TestWriteHeldElsewhere(t *testing.T) {
	w := httptest.NewRecorder()
	if err := WriteHeld(w, httptest.NewRequest("POST", "/", nil), http.StatusOK, []byte("1"), func() error { return errChanged }); !errors.Is(err, errChanged) || w.Body.Len() > 0 {
		t.Errorf("got %v and %q", err, w.Body)
	}
}
