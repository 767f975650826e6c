package emulator

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// A place is where the emulator listens, and by which name it is called.
type place struct {
	address string // "" for loopback
	name    string
}

// place reports what of the configuration would open the emulator to others
// unasked, or lend it a name that is not its own.
func (c *Config) place() (place, error) {
	p := place{c.Listen, strings.ToLower(cmp.Or(c.Name, "localhost"))}
	if strings.ContainsAny(p.name, "/:*? ") || len(p.name) > 253 {
		return p, fmt.Errorf("%.80q is not a host's name", c.Name)
	}
	if microsofts(p.name) {
		return p, fmt.Errorf("%s is a name of Microsoft's, and the emulator never pretends to be Microsoft", p.name)
	}
	if p.address == "" {
		return p, nil
	}
	ip := net.ParseIP(p.address)
	if ip == nil {
		return p, fmt.Errorf("%.80q is not an address to listen on", p.address)
	}
	if !ip.IsLoopback() && !c.OffLoopback {
		return p, fmt.Errorf("%s is not loopback: whoever reaches the emulator there can sign in as anybody and turn its dials; say so a second time (--off-loopback) if that is wanted", p.address)
	}
	return p, nil
}

// microsofts reports whether a host name lies in a domain of Microsoft's.
func microsofts(host string) bool {
	return slices.ContainsFunc([]string{
		"microsoft.com", "microsoft.us", "microsoftonline.com", "microsoftonline.us", "microsoftonline.cn", "microsoftonline.de",
		"windows.net", "azure.com", "azure.us", "azure.cn", "azure.net", "live.com", "office.com", "chinacloudapi.cn", "usgovcloudapi.net",
	}, func(d string) bool { return host == d || strings.HasSuffix(host, "."+d) })
}

// names are the names beside localhost.
func (p place) names() []string {
	if p.name == "localhost" {
		return nil
	}
	return []string{p.name}
}

// url is what clients call the port. They leave the usual one out, and compare
// issuers and hosts without it.
func (p place) url(port int) string {
	return "https://" + strings.TrimSuffix(net.JoinHostPort(p.name, strconv.Itoa(port)), ":443")
}

// A listener is one service's address: a port of the loopback interface, or of
// another that was asked for.
type listener struct {
	sockets []net.Listener
	url     string
}

// listen opens the port on 127.0.0.1 and, where there is IPv6, on ::1, since
// localhost may mean either. Port 0 is any port that is free on both.
func (p place) listen(port int) (*listener, error) {
	if p.address != "" {
		l, err := net.Listen("tcp", net.JoinHostPort(p.address, strconv.Itoa(port)))
		if err != nil {
			return nil, fmt.Errorf("listen: %w", err)
		}
		return &listener{sockets: []net.Listener{l}, url: p.url(l.Addr().(*net.TCPAddr).Port)}, nil
	}
	const tries = 20
	for try := 1; ; try++ {
		l, err := p.listenBoth(port)
		if err == nil || port != 0 || try == tries {
			return l, err
		}
	}
}

func (p place) listenBoth(port int) (*listener, error) {
	v4, err := net.Listen("tcp4", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	port = v4.Addr().(*net.TCPAddr).Port
	l := &listener{sockets: []net.Listener{v4}, url: p.url(port)}
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
