// Package partnercenter speaks the REST API of Microsoft Partner Center, as far
// as a consent and a look at one's customers need it.
//
// It never asks twice by itself, follows no redirect and no link to another
// host, and reads no answer beyond its limit.
package partnercenter

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/internal/upstream"
)

const maxAnswer = 4 << 20 // bytes; 500 customers are about 300 KiB

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
	base, err := upstream.ParseOrigin(cfg.URL)
	if err != nil {
		return nil, mandate.Invalid("url", "%.100q %v", cfg.URL, err)
	}
	if cfg.HTTP == nil {
		return nil, mandate.Invalid("http", "is missing")
	}
	if cfg.Locale == "" {
		cfg.Locale = "en-US"
	}
	base.Path = "/v1"
	return &Client{cfg: cfg, http: upstream.Direct(cfg.HTTP), base: base}, nil
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
	correlation := upstream.RequestID()
	req.Header.Set("Authorization", "Bearer "+token.Reveal())
	req.Header.Set("Accept", "application/json")
	req.Header.Set("X-Locale", c.cfg.Locale)
	req.Header.Set("MS-RequestId", upstream.RequestID())
	req.Header.Set("MS-CorrelationId", correlation)
	req.Header.Set("MS-Contract-Version", "v1")
	status, header, body, err := upstream.Do(c.http, req, maxAnswer)
	if err != nil {
		return nil, nil, c.transport(err, correlation, token)
	}
	if status != http.StatusOK {
		return nil, nil, fault(status, header, body, correlation, token)
	}
	return header, body, nil
}

func (c *Client) transport(err error, correlation string, token mandate.Secret) *mandate.Fault {
	err = upstream.Redact(upstream.Redactor(token.Reveal()), upstream.WithoutURL(err))
	return &mandate.Fault{Domain: mandate.DomainTransient, Remedy: mandate.RemedyRetry,
		CorrelationID: correlation, Cause: fmt.Errorf("ask Partner Center: %w", err)}
}

// decode reads JSON, whatever the case of its keys: Partner Center's documents
// and its answers do not agree about that. A byte-order mark is skipped.
func decode(h http.Header, body []byte, v any) error {
	if !upstream.IsJSON(h) {
		return errors.New("the answer is not JSON")
	}
	if json.Unmarshal([]byte(strings.TrimPrefix(string(body), "\ufeff")), v) != nil {
		return errors.New("the answer is not readable JSON")
	}
	return nil
}
