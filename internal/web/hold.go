package web

import (
	"context"
	"net"
	"net/http"
	"slices"
	"sync"
)

// Hold returns l with connections on which [WriteHeld] can keep back what is
// about to be sent.
func Hold(l net.Listener) net.Listener { return holdListener{l} }

type holdListener struct{ net.Listener }

// Accept implements [net.Listener].
func (l holdListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &holdConn{Conn: c}, nil
}

// A holdConn asks before it sends.
type holdConn struct {
	net.Conn
	mu     sync.Mutex // guards what follows
	checks []*func() error
	broken error // why something was kept back; nothing is sent any more
}

// NetConn returns the connection that c holds back, as that of [tls.Conn]
// does.
func (c *holdConn) NetConn() net.Conn { return c.Conn }

// Write implements [net.Conn]. After what was kept back nothing can follow:
// TLS, for one, has counted it, and what it sends to say farewell would look
// forged.
func (c *holdConn) Write(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, check := range c.checks {
		if c.broken == nil {
			c.broken = (*check)()
		}
	}
	if c.broken != nil {
		return 0, c.broken
	}
	return c.Conn.Write(b)
}

// hold has check asked before every write until release is called.
func (c *holdConn) hold(check func() error) (release func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.checks = append(c.checks, &check)
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.checks = slices.DeleteFunc(c.checks, func(f *func() error) bool { return f == &check })
	}
}

// holdKey is the context key of a connection's *holdConn.
type holdKey struct{}

// HoldContext is for [http.Server.ConnContext], and there in every [NewServer].
func HoldContext(ctx context.Context, c net.Conn) context.Context {
	for c != nil {
		if h, ok := c.(*holdConn); ok {
			return context.WithValue(ctx, holdKey{}, h)
		}
		under, ok := c.(interface{ NetConn() net.Conn })
		if !ok {
			break
		}
		c = under.NetConn()
	}
	return ctx
}

// WriteHeld is [WriteEncoded] for what must not be sent when something has
// changed. A process may stand still at any moment, for however long, and goes
// on with what it was about to do: so check is asked right before the system is
// told to send, which is later than any handler can ask. If it fails nothing
// is sent, its error is returned, and the connection is of no use any more.
//
// Over HTTP/2 that holds up to the connection's buffer, which is sent right
// after. Where the listener is not of [Hold], check is asked once, before.
func WriteHeld(w http.ResponseWriter, r *http.Request, status int, data []byte, check func() error) error {
	if c, ok := r.Context().Value(holdKey{}).(*holdConn); ok {
		defer c.hold(check)()
	} else if err := check(); err != nil {
		return err
	}
	WriteEncoded(w, status, data)
	return http.NewResponseController(w).Flush()
}
