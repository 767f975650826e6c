// Package partnercenter speaks the REST API of Microsoft Partner Center, as far
// as a consent and a look at one's customers need it.
//
// It never asks twice by itself, follows no redirect and no link to another
// host, and reads no answer beyond its limit.
package partnercenter

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/mandate-sam/mandate"
)

const (
	requestTimeout = 30 * time.Second
	maxAnswer      = 4 << 20 // bytes; 500 customers are about 300 KiB
)

// A Config says where Partner Center is.
type Config struct {
	// URL is scheme, host and port, as in the cloud's endpoint for
	// [mandate.PartnerCenter].
	URL string

	// HTTP makes the requests. Its redirect policy and cookie jar are not
	// used: a token must not follow a redirect. A zero Timeout means 30
	// seconds.
	HTTP *http.Client

	// Locale is the language of Partner Center's texts. Empty means "en-US".
	Locale string
}

// A Client calls Partner Center with whatever token each call brings. It may be
// used by many goroutines.
type Client struct {
	cfg  Config
	http *http.Client
	base *url.URL
}

// New returns a client for cfg, or an error wrapping [mandate.ErrInvalid].
func New(cfg Config) (*Client, error) {
	u, err := url.Parse(cfg.URL)
	if err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" {
		return nil, mandate.Invalid("url", "%.100q must be https://host or https://host:port, and nothing else", cfg.URL)
	}
	if cfg.HTTP == nil {
		return nil, mandate.Invalid("http", "is missing")
	}
	if cfg.Locale == "" {
		cfg.Locale = "en-US"
	}
	h := *cfg.HTTP
	h.Jar = nil
	h.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	if h.Timeout == 0 {
		h.Timeout = requestTimeout
	}
	return &Client{cfg: cfg, http: &h, base: &url.URL{Scheme: u.Scheme, Host: u.Host, Path: "/v1"}}, nil
}

// get asks for a URL of Partner Center's, and returns the answer if its status
// is 200. Every other outcome is a [*mandate.Fault], whose cause is an [*Error]
// if there was an answer.
func (c *Client) get(ctx context.Context, token mandate.Secret, u *url.URL, more http.Header) (http.Header, []byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, nil, c.transport(err, "", token)
	}
	for name, values := range more {
		req.Header[name] = values
	}
	correlation := uuid()
	req.Header.Set("Authorization", "Bearer "+token.Reveal())
	req.Header.Set("Accept", "application/json")
	req.Header.Set("X-Locale", c.cfg.Locale)
	req.Header.Set("MS-RequestId", uuid())
	req.Header.Set("MS-CorrelationId", correlation)
	req.Header.Set("MS-Contract-Version", "v1")
	status, header, body, err := c.do(req)
	if err != nil {
		return nil, nil, c.transport(err, correlation, token)
	}
	if status != http.StatusOK {
		return nil, nil, fault(status, header, body, correlation, token)
	}
	return header, body, nil
}

// do returns the whole of a bounded answer, whatever its status. Its error does
// not repeat the URL, which may hold a continuation token.
func (c *Client) do(req *http.Request) (int, http.Header, []byte, error) {
	resp, err := c.http.Do(req)
	if err != nil {
		if u, ok := errors.AsType[*url.Error](err); ok {
			err = u.Err
		}
		return 0, nil, nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err == nil && len(body) > maxAnswer {
		err = fmt.Errorf("the answer is longer than %d bytes", maxAnswer)
	}
	return resp.StatusCode, resp.Header, body, err
}

func (c *Client) transport(err error, correlation string, token mandate.Secret) *mandate.Fault {
	if text := hide(err.Error(), token); text != err.Error() {
		err = errors.New(text)
	}
	return &mandate.Fault{Domain: mandate.DomainTransient, Remedy: mandate.RemedyRetry,
		CorrelationID: correlation, Cause: fmt.Errorf("ask Partner Center: %w", err)}
}

// hide takes the token out of a text, should an answer have repeated it.
func hide(s string, token mandate.Secret) string {
	if token.IsZero() {
		return s
	}
	return strings.ReplaceAll(s, token.Reveal(), "[secret]")
}

// decode reads JSON, whatever the case of its keys: Partner Center's documents
// and its answers do not agree about that. A byte-order mark is skipped.
func decode(h http.Header, body []byte, v any) error {
	t, _, err := mime.ParseMediaType(h.Get("Content-Type"))
	if err != nil || t != "application/json" {
		return errors.New("the answer is not JSON")
	}
	if json.Unmarshal([]byte(strings.TrimPrefix(string(body), "\ufeff")), v) != nil {
		return errors.New("the answer is not readable JSON")
	}
	return nil
}

// uuid returns a random UUID (RFC 9562, version 4).
func uuid() string {
	var b [16]byte
	rand.Read(b[:])
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}
