package web

import (
	"context"
	"crypto/rand"
	"log/slog"
	"net/http"
	"net/netip"
	"runtime/debug"
	"strings"
	"time"
)

// An Edge is what a listener puts around all its routes.
type Edge struct {
	Log     *slog.Logger
	Proxies Proxies // whose X-Forwarded-For counts
}

// edgeKey is the context key of *passage.
type edgeKey struct{}

// A passage is a request on its way through the edge: what is known of it, and
// what is answered. It is its own context, because every token comes through
// here and one thing costs less than four.
type passage struct {
	context.Context
	out     recorder
	id      [1]string // as the value of a header
	address netip.Addr
}

// Value implements [context.Context].
func (p *passage) Value(key any) any {
	if key == (edgeKey{}) {
		return p
	}
	return p.Context.Value(key)
}

// Wrap returns next with a request id and the client's address in the
// request's context, panics recovered, and one line per request in the log.
// The line has the route and not the path, because a path can carry an
// invitation, and never the query.
func (e Edge) Wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p := &passage{Context: r.Context(), out: recorder{ResponseWriter: w}, id: [1]string{rand.Text()}, address: e.Proxies.Address(r)}
		r = r.WithContext(p)
		rec := &p.out
		rec.Header()["X-Request-Id"] = p.id[:]
		start := time.Now()
		defer e.line(rec, r, start)
		defer e.recover(rec, r)
		next.ServeHTTP(rec, r)
	})
}

// line writes the line of a request. What went well is worth one only to
// somebody who looks closely: tokens and changes are in the audit log, and
// there are many of them.
func (e Edge) line(rec *recorder, r *http.Request, start time.Time) {
	level := slog.LevelDebug
	if rec.status >= 400 {
		level = slog.LevelInfo
	}
	if !e.Log.Enabled(r.Context(), level) {
		return
	}
	e.Log.Log(r.Context(), level, "request", "request_id", RequestID(r.Context()), "method", r.Method, "route", r.Pattern,
		"status", rec.status, "bytes", rec.bytes, "took", time.Since(start), "address", Address(r.Context()))
}

// recover answers 500 to a request whose handler panicked, or breaks the
// connection if an answer has begun.
func (e Edge) recover(rec *recorder, r *http.Request) {
	v := recover()
	if v == nil {
		return
	}
	if v == http.ErrAbortHandler {
		panic(v)
	}
	e.Log.ErrorContext(r.Context(), "panic", "request_id", RequestID(r.Context()), "route", r.Pattern, "err", v, "stack", string(debug.Stack()))
	if rec.status != 0 {
		panic(http.ErrAbortHandler)
	}
	http.Error(rec, "internal error, request "+RequestID(r.Context()), http.StatusInternalServerError)
}

// RequestID returns the id that [Edge.Wrap] gave the request, or "".
func RequestID(ctx context.Context) string {
	if p, ok := ctx.Value(edgeKey{}).(*passage); ok {
		return p.id[0]
	}
	return ""
}

// Address returns the client's address as [Edge.Wrap] saw it, or the zero
// address for a client that has none, as on a Unix socket.
func Address(ctx context.Context) netip.Addr {
	if p, ok := ctx.Value(edgeKey{}).(*passage); ok {
		return p.address
	}
	return netip.Addr{}
}

// Proxies are the networks of reverse proxies whose X-Forwarded-For is
// believed.
type Proxies []netip.Prefix

// Address returns the address of r's client: the peer, unless that is a
// proxy of ours; then the right-most entry of X-Forwarded-For that is not. A
// client can write what it likes at the left, and so nothing there counts. An
// entry that is no address ends the search at the proxy that passed it on.
func (p Proxies) Address(r *http.Request) netip.Addr {
	addr := parseAddress(r.RemoteAddr)
	if !p.trusts(addr) {
		return addr
	}
	hops := strings.Split(strings.Join(r.Header.Values("X-Forwarded-For"), ","), ",")
	for i := len(hops) - 1; i >= 0; i-- {
		hop := parseAddress(strings.TrimSpace(hops[i]))
		if !hop.IsValid() {
			break
		}
		addr = hop
		if !p.trusts(addr) {
			break
		}
	}
	return addr
}

func (p Proxies) trusts(a netip.Addr) bool {
	for _, prefix := range p {
		if prefix.Contains(a) {
			return true
		}
	}
	return false
}

// parseAddress reads an address with or without a port, and makes forms of
// the same address equal: no zone, no IPv4 inside IPv6.
func parseAddress(s string) netip.Addr {
	if ap, err := netip.ParseAddrPort(s); err == nil {
		return ap.Addr().Unmap().WithZone("")
	}
	a, err := netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(s, "["), "]"))
	if err != nil {
		return netip.Addr{}
	}
	return a.Unmap().WithZone("")
}

// Peer reports whether r came from one of the proxies itself, whatever it says
// of others.
func (p Proxies) Peer(r *http.Request) bool {
	return p.trusts(parseAddress(r.RemoteAddr))
}
