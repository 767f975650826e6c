package emulator

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
)

// memory is a transport whose hosts are handlers of the same process.
type memory struct {
	mu    sync.Mutex // guards next and hosts
	next  int        // port of the next host that may have any
	hosts map[string]http.Handler

	place string // the name of all of them
}

// firstName is the port in the names of services in memory.
const firstName = 40000

func newMemory(name string) *memory {
	return &memory{next: firstName, hosts: make(map[string]http.Handler), place: name}
}

// address opens a port, or takes a name in memory.
func (e *Emulator) address(port int) (*listener, error) {
	if e.memory == nil {
		return e.place.listen(port)
	}
	return e.memory.name(port), nil
}

// answer lets h answer at l.
func (e *Emulator) answer(l *listener, cert tls.Certificate, h http.Handler) {
	if e.memory == nil {
		e.servers.serve(l, cert, h)
		return
	}
	e.memory.add(strings.TrimPrefix(l.url, "https://"), e.servers.counted(h))
}

func (m *memory) name(port int) *listener {
	m.mu.Lock()
	defer m.mu.Unlock()
	if port == 0 {
		port = m.next
		m.next++
	}
	return &listener{url: place{name: m.place}.url(port)}
}

func (m *memory) add(host string, h http.Handler) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.hosts[host] = h
}

func (m *memory) host(name string) http.Handler {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.hosts[name]
}

// RoundTrip implements [http.RoundTripper]. It returns when the service has
// answered in full.
func (m *memory) RoundTrip(r *http.Request) (*http.Response, error) {
	h := m.host(r.URL.Host)
	if h == nil || r.URL.Scheme != "https" {
		return nil, fmt.Errorf("dial %s://%s: nothing is there in memory", r.URL.Scheme, r.URL.Host)
	}
	in := r.Clone(r.Context())
	in.RequestURI, in.RemoteAddr, in.TLS = r.URL.RequestURI(), "127.0.0.1:1", &tls.ConnectionState{Version: tls.VersionTLS13}
	if in.Host == "" {
		in.Host = r.URL.Host
	}
	if in.Body == nil {
		in.Body = http.NoBody
	}
	defer in.Body.Close()
	w := &written{header: http.Header{}}
	if err := w.run(h, in); err != nil {
		return nil, err
	}
	w.WriteHeader(http.StatusOK)
	return &http.Response{
		Status: strconv.Itoa(w.status) + " " + http.StatusText(w.status), StatusCode: w.status,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Header: w.sent,
		Body: io.NopCloser(&w.body), ContentLength: int64(w.body.Len()), Request: r,
	}, nil
}

// errCutOff is what a client sees of a service that gives no answer.
var errCutOff = errors.New("the service closed the connection")

// written is an answer that is being written.
type written struct {
	header, sent http.Header
	status       int
	body         bytes.Buffer
}

func (w *written) run(h http.Handler, r *http.Request) (err error) {
	defer func() {
		if p := recover(); p == http.ErrAbortHandler {
			if err = r.Context().Err(); err == nil {
				err = errCutOff
			}
		} else if p != nil {
			panic(p)
		}
	}()
	h.ServeHTTP(w, r)
	return nil
}

func (w *written) Header() http.Header { return w.header }

func (w *written) WriteHeader(status int) {
	if w.status == 0 {
		w.status, w.sent = status, w.header.Clone()
	}
}

func (w *written) Write(b []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	if w.sent.Get("Content-Type") == "" {
		w.sent.Set("Content-Type", http.DetectContentType(b))
	}
	return w.body.Write(b)
}
