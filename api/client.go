package api

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/internal/web"
)

// ErrUnreachable: no server answers at the address. Nothing was sent.
var ErrUnreachable = errors.New("no server answers")

// maxClientAnswer is the longest answer that a client reads, in bytes.
const maxClientAnswer = 64 << 20

// A Client talks to a [Server]. Its errors are what the server's were: the
// sentinels and the types of package mandate, such as [mandate.ErrDenied] and
// [*mandate.Fault]. Its methods may be called concurrently.
type Client struct {
	base   string
	http   *http.Client
	id     string
	secret mandate.Secret

	session    mandate.Secret // of an operator who has signed in
	breakGlass string         // why, where an operator at the socket may not without
}

// NewClient returns a client of the API at baseURL, such as
// "https://mandate.example.com:8443", that authenticates with id and secret.
// Plain http is refused unless the host is a loopback address, because the
// secret goes with every request. A nil hc means [http.DefaultClient];
// redirects are never followed.
func NewClient(baseURL string, hc *http.Client, id string, secret mandate.Secret) (*Client, error) {
	c, err := NewOpenClient(baseURL, hc)
	if err != nil {
		return nil, err
	}
	if !mandate.Name(id) || secret.IsZero() {
		return nil, mandate.Invalid("id", "an id and a secret are required")
	}
	c.id, c.secret = id, secret
	return c, nil
}

// NewOpenClient is [NewClient] for a client that shows nothing: one whose
// transport has a client certificate, or of somebody who is about to sign in.
func NewOpenClient(baseURL string, hc *http.Client) (*Client, error) {
	u, err := url.Parse(baseURL)
	if err != nil || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" || strings.Trim(u.Path, "/") != "" {
		return nil, mandate.Invalid("url", "%.80q must be https://host or https://host:port, and nothing else", baseURL)
	}
	if u.Scheme != "https" && !(u.Scheme == "http" && loopback(u.Hostname())) {
		return nil, mandate.Invalid("url", "%.80q must begin with https://, because the secret goes with every request", baseURL)
	}
	if hc == nil {
		hc = http.DefaultClient
	}
	return &Client{base: u.Scheme + "://" + u.Host, http: direct(*hc)}, nil
}

func loopback(host string) bool {
	a, err := netip.ParseAddr(host)
	return err == nil && a.IsLoopback()
}

// NewSocketClient returns a client of the operator socket at path.
func NewSocketClient(path string) (*Client, error) {
	if err := CheckSocketPath(path); err != nil {
		return nil, err
	}
	var d net.Dialer
	t := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return d.DialContext(ctx, "unix", path)
	}}
	return &Client{base: "http://mandate", http: direct(http.Client{Transport: t})}, nil
}

// direct returns hc without redirects.
func direct(hc http.Client) *http.Client {
	hc.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &hc
}

// brokenOffs is how often a token is asked for again because the connection
// broke off before the answer.
const brokenOffs = 3

// Token asks for an access token. It carries no fingerprint, UTI or
// correlation id: those are in the record that its receipt names. If the
// connection breaks off before the answer, as it does when something is revoked
// just when that is about to be sent, it asks again.
func (c *Client) Token(ctx context.Context, in TokenRequest) (mandate.Token, error) {
	a, err := exchange[tokenAnswer](ctx, c, "POST", "/v1/tokens", in)
	for n := 0; n < brokenOffs && brokenOff(err) && ctx.Err() == nil; n++ {
		a, err = exchange[tokenAnswer](ctx, c, "POST", "/v1/tokens", in)
	}
	if err != nil {
		return mandate.Token{}, err
	}
	return mandate.Token{
		Access: mandate.NewSecret(a.AccessToken), Expires: time.Now().Add(time.Duration(a.ExpiresIn) * time.Second),
		Tenant: a.Tenant, Audience: a.Audience, Scopes: a.Scopes, Generation: a.Generation, Rule: a.Decision, Receipt: a.Record,
	}, nil
}

// brokenOff reports whether an exchange failed because its connection ended.
func brokenOff(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// Partners returns all partners, sorted by name.
func (c *Client) Partners(ctx context.Context) ([]Partner, error) {
	a, err := exchange[partnersAnswer](ctx, c, "GET", "/v1/partners", nil)
	return a.Partners, err
}

// Partner returns the partner with that short name or tenant id.
func (c *Client) Partner(ctx context.Context, nameOrID string) (Partner, error) {
	if !mandate.Name(nameOrID) {
		return Partner{}, mandate.Invalid("partner", "must be a partner's short name or tenant id")
	}
	return exchange[Partner](ctx, c, "GET", "/v1/partners/"+url.PathEscape(nameOrID), nil)
}

// Invite invites a partner, and returns the link for it.
func (c *Client) Invite(ctx context.Context, in InviteRequest) (Invited, error) {
	return exchange[Invited](ctx, c, "POST", "/v1/partners", in)
}

// Status returns what the server says of itself.
func (c *Client) Status(ctx context.Context) (Status, error) {
	return exchange[Status](ctx, c, "GET", "/v1/status", nil)
}

// Audit returns the last records of the audit log, oldest first.
func (c *Client) Audit(ctx context.Context, last int) ([]json.RawMessage, error) {
	a, err := exchange[auditAnswer](ctx, c, "GET", "/v1/audit?last="+strconv.Itoa(last), nil)
	return a.Records, err
}

// FollowAudit returns the last records and then every new one, until ctx is
// done, the server ends, or the loop does. The last pair has an error, unless
// it was the loop that ended.
func (c *Client) FollowAudit(ctx context.Context, last int) iter.Seq2[json.RawMessage, error] {
	return func(yield func(json.RawMessage, error) bool) {
		resp, err := c.do(ctx, "GET", "/v1/audit?follow=1&last="+strconv.Itoa(last), nil)
		if err != nil {
			yield(nil, err)
			return
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			yield(nil, problem(resp))
			return
		}
		err = lines(resp.Body, func(line []byte) bool { return yield(line, nil) })
		if err != nil {
			yield(nil, err)
		}
	}
}

// lines calls each for every line, until it returns false. Otherwise there is
// an error in the end, io.ErrUnexpectedEOF if nothing else.
func lines(r io.Reader, each func([]byte) bool) error {
	b := bufio.NewReaderSize(r, 64<<10)
	for {
		line, err := b.ReadBytes('\n')
		if err == io.EOF {
			return io.ErrUnexpectedEOF
		}
		if err != nil {
			return err
		}
		if !each(bytes.TrimSuffix(line, []byte("\n"))) {
			return nil
		}
	}
}

// exchange makes one request and decodes the answer.
func exchange[T any](ctx context.Context, c *Client, method, path string, in any) (T, error) {
	var out T
	resp, err := c.do(ctx, method, path, in)
	if err != nil {
		return out, err
	}
	defer resp.Body.Close()
	if resp.StatusCode/100 != 2 {
		return out, problem(resp)
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxClientAnswer)).Decode(&out); err != nil {
		return out, fmt.Errorf("read answer of %s %s: %w", method, path, err)
	}
	return out, nil
}

// problem returns the error that an answer tells of.
func problem(resp *http.Response) error {
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxClientAnswer))
	if err != nil {
		return fmt.Errorf("read answer: %w", err)
	}
	return web.ParseProblem(resp.StatusCode, body)
}

// do sends one request.
func (c *Client) do(ctx context.Context, method, path string, in any) (*http.Response, error) {
	var body io.Reader
	if in != nil {
		data, err := json.Marshal(in)
		if err != nil {
			return nil, fmt.Errorf("encode request: %w", err)
		}
		body = bytes.NewReader(data)
	}
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, body)
	if err != nil {
		return nil, err
	}
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if c.id != "" {
		req.SetBasicAuth(c.id, c.secret.Reveal())
	}
	if !c.session.IsZero() {
		req.Header.Set("Authorization", bearerScheme+c.session.Reveal())
	}
	if c.breakGlass != "" {
		req.Header.Set(headerBreakGlass, c.breakGlass)
	}
	resp, err := c.http.Do(req)
	var op *net.OpError
	if errors.As(err, &op) && op.Op == "dial" {
		return nil, fmt.Errorf("%w: %w", ErrUnreachable, op)
	}
	return resp, err
}
