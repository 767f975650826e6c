// Package openbao keeps things in OpenBao or HashiCorp Vault: the key that
// wraps data keys, in the transit engine ([Transit]), and sealed grants, in a
// KV engine of version 2 ([KV]).
//
// It speaks their HTTP API as far as these two need it. Package vault has
// nothing to do with HashiCorp Vault but the word.
package openbao

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/internal/upstream"
)

const (
	// callTimeout bounds one operation with all its retries.
	callTimeout = 30 * time.Second

	// tries is how often something is asked that may work a moment later.
	tries = 4

	// firstWait is the wait before the second try; it doubles.
	firstWait = 250 * time.Millisecond

	// longestWait is the longest Retry-After that is waited for.
	longestWait = 5 * time.Second

	// maxAnswer is the longest answer that is read.
	maxAnswer = 1 << 20
)

// Config says which server, and how to be let in.
type Config struct {
	Address   string // https://host:port; http only on this machine, as for an agent
	Namespace string // of HashiCorp Vault Enterprise or OpenBao; may be empty

	// TokenFile is read again with every request, so that whoever renews or
	// replaces the token in it needs not tell us. Either it or Login is set.
	TokenFile string
	Login     *Login

	HTTP *http.Client // trusts the server's certificate authority
	Log  *slog.Logger // nil discards
}

// A Client asks one server. It is safe for concurrent use.
type Client struct {
	cfg  Config
	base string // without a final slash
	http *http.Client
	log  *slog.Logger

	logins sync.Mutex // held while logging in

	// mu guards token.
	mu    sync.Mutex
	token mandate.Secret // of the last login
}

// segments are a mount or a path: nothing in it needs escaping, and none of
// its parts is "." or "..".
var segments = regexp.MustCompile(`^[0-9A-Za-z_-][0-9A-Za-z_.-]*(/[0-9A-Za-z_-][0-9A-Za-z_.-]*)*$`)

// CheckPath reports whether s can be a mount, a path, a namespace or the name
// of a key.
func CheckPath(field, s string) error {
	if len(s) > 300 || !segments.MatchString(s) {
		return mandate.Invalid(field, "%.100q must be names of letters, digits, '-', '_' and '.', with '/' between them and none at the ends", s)
	}
	return nil
}

// CheckAddress reports whether s can be a server's address.
func CheckAddress(s string) error {
	u, err := url.Parse(s)
	if err != nil || u.Host == "" || u.User != nil || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" {
		return mandate.Invalid("address", "%.100q must be https://host:port, and nothing else", s)
	}
	ip, err := netip.ParseAddr(u.Hostname())
	local := u.Hostname() == "localhost" || err == nil && ip.IsLoopback()
	if u.Scheme != "https" && (u.Scheme != "http" || !local) {
		return mandate.Invalid("address", "%.100q must be https: a token does not cross a network in the clear", s)
	}
	return nil
}

// New returns a client. It reads no file and calls nobody.
func New(c Config) (*Client, error) {
	if err := CheckAddress(c.Address); err != nil {
		return nil, err
	}
	if c.Namespace != "" {
		if err := CheckPath("namespace", c.Namespace); err != nil {
			return nil, err
		}
	}
	if (c.TokenFile == "") == (c.Login == nil) {
		return nil, mandate.Invalid("token_file", "or a login is needed, and not both")
	}
	if c.Login != nil {
		if err := c.Login.Check(); err != nil {
			return nil, err
		}
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return &Client{cfg: c, base: strings.TrimSuffix(c.Address, "/"), http: upstream.Direct(c.HTTP), log: c.Log}, nil
}

// String names the server for people.
func (c *Client) String() string {
	if c.cfg.Namespace != "" {
		return c.base + ", namespace " + c.cfg.Namespace
	}
	return c.base
}

// A request is one call of the API.
type request struct {
	did    string // for the sentence that is written if it fails: "wrap a data key"
	method string
	path   string   // below /v1/
	in     any      // JSON; nil sends nothing
	secret []string // what no error may repeat
}

// call sends a request, again if that may help, and decodes the answer's data
// into out. A token of our own login that is refused is replaced once.
func (c *Client) call(ctx context.Context, r request, out any) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	wait, renewed := firstWait, false
	for n := 1; ; n++ {
		token, err := c.currentToken(ctx)
		if err != nil {
			return err
		}
		after, err := c.once(ctx, r, token, out)
		if refused(err) && c.cfg.Login != nil && !renewed {
			renewed = true
			c.forget(token)
			continue
		}
		if err == nil || n == tries || ctx.Err() != nil || !errors.Is(err, mandate.ErrUnavailable) || after > longestWait {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(max(wait, after)):
			wait *= 2
		}
	}
}

// once sends a request once. after is how long the server asks to wait.
func (c *Client) once(ctx context.Context, r request, token mandate.Secret, out any) (after time.Duration, err error) {
	var body io.Reader
	if r.in != nil {
		b, err := json.Marshal(r.in)
		if err != nil {
			return 0, err
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, r.method, c.base+"/v1/"+r.path, body)
	if err != nil {
		return 0, err
	}
	req.Header.Set("X-Vault-Request", "true") // which an agent may demand
	if !token.IsZero() {
		req.Header.Set("X-Vault-Token", token.Reveal())
	}
	if c.cfg.Namespace != "" {
		req.Header.Set("X-Vault-Namespace", c.cfg.Namespace)
	}
	if r.in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	status, header, answer, err := upstream.Do(c.http, req, maxAnswer)
	if err != nil {
		return 0, &Error{Did: r.did, At: c.String(), Cause: err}
	}
	if status/100 != 2 {
		e := &Error{Did: r.did, At: c.String(), Path: r.path, Status: status, answer: answer}
		e.explain(upstream.Redactor(append(r.secret, token.Reveal())...))
		return upstream.RetryAfter(header, time.Now()), e
	}
	if out == nil || len(answer) == 0 {
		return 0, nil
	}
	if err := json.Unmarshal(answer, out); err != nil {
		return 0, fmt.Errorf("%s at %s: the answer is not what the API documents", r.did, c)
	}
	return 0, nil
}
