package emulator

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"strconv"
	"sync"
	"syscall"
	"time"
)

// A listener is one service's address: a port of the loopback interface.
type listener struct {
	sockets []net.Listener
	url     string
}

// listen opens the port on 127.0.0.1 and, where there is IPv6, on ::1, since
// localhost may mean either. Port 0 is any port that is free on both.
func listen(port int) (*listener, error) {
	const tries = 20
	for try := 1; ; try++ {
		l, err := listenBoth(port)
		if err == nil || port != 0 || try == tries {
			return l, err
		}
	}
}

func listenBoth(port int) (*listener, error) {
	v4, err := net.Listen("tcp4", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	port = v4.Addr().(*net.TCPAddr).Port
	l := &listener{sockets: []net.Listener{v4}, url: "https://localhost:" + strconv.Itoa(port)}
	v6, err := net.Listen("tcp6", net.JoinHostPort("::1", strconv.Itoa(port)))
	switch {
	case err == nil:
		l.sockets = append(l.sockets, v6)
	case errors.Is(err, syscall.EADDRINUSE):
		v4.Close()
		return nil, fmt.Errorf("listen: %w", err)
	}
	return l, nil // without IPv6 there is one socket
}

func (l *listener) close() {
	for _, s := range l.sockets {
		s.Close()
	}
}

// servers runs the services and waits for them when they end.
type servers struct {
	now     func() time.Time // what the Date header says
	ctx     context.Context  // ends when closing begins
	cancel  context.CancelFunc
	running sync.WaitGroup
	stop    sync.Once

	// mu guards all, and that nothing begins once closing has.
	mu  sync.Mutex
	all []*http.Server

	// handling is read-locked by every handler while it runs, so that close
	// can wait for all of them by taking the lock.
	handling sync.RWMutex
}

func newServers(now func() time.Time) *servers {
	s := &servers{now: now}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s
}

// serve answers at the listener until close; after it, not at all.
func (s *servers) serve(l *listener, cert tls.Certificate, h http.Handler) {
	srv := &http.Server{
		Handler:           s.counted(h),
		TLSConfig:         &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12},
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		BaseContext:       func(net.Listener) context.Context { return s.ctx },
		ErrorLog:          log.New(io.Discard, "", 0), // browsers that do not trust the CA fill it
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ctx.Err() != nil {
		l.close()
		return
	}
	s.all = append(s.all, srv)
	for _, socket := range l.sockets {
		s.running.Go(func() { srv.ServeTLS(socket, "", "") })
	}
}

func (s *servers) counted(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.handling.RLock()
		defer s.handling.RUnlock()
		if s.ctx.Err() != nil {
			panic(http.ErrAbortHandler)
		}
		w.Header().Set("Date", s.now().UTC().Format(http.TimeFormat))
		h.ServeHTTP(w, r)
	})
}

// delayed lets the service take its time, as the dials say. A request that is
// given up meanwhile gets no answer: an empty one would look like success.
func (e *Emulator) delayed(service string, h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if d := e.dials.Latency(service); d > 0 {
			timer := time.NewTimer(d)
			defer timer.Stop()
			select {
			case <-timer.C:
			case <-r.Context().Done():
				panic(http.ErrAbortHandler)
			}
		}
		h.ServeHTTP(w, r)
	})
}

// close ends the services. Requests that are being answered are cut off.
func (s *servers) close() {
	s.stop.Do(func() {
		s.end()
		s.running.Wait()
		s.handling.Lock()
		defer s.handling.Unlock()
	})
}

// end closes all that runs, and lets nothing begin.
func (s *servers) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cancel()
	for _, srv := range s.all {
		srv.Close()
	}
}
