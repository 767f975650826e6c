// Package upstream is what a client of somebody else's HTTP API needs: requests
// that go nowhere but where they were sent, answers that are bounded, and texts
// of theirs and of ours in which nothing acts on a terminal and nothing secret
// can be read.
//
// It knows no API and no word of the domain. What an answer means is for the
// client that asked.
package upstream

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// Timeout bounds an exchange, from dialling to the last byte of the answer, if
// the HTTP client that [Direct] is given brings no timeout of its own.
const Timeout = 30 * time.Second

// maxWait is the longest that [RetryAfter] returns.
const maxWait = 24 * time.Hour

// ParseOrigin reads https://host or https://host:port. Anything more, be it a
// path, a query or a user, is an error, which does not repeat s.
func ParseOrigin(s string) (*url.URL, error) {
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" {
		return nil, errors.New("must be https://host or https://host:port, and nothing else")
	}
	return &url.URL{Scheme: u.Scheme, Host: u.Host}, nil
}

// Direct returns a copy of h that hands a redirect back as the answer and keeps
// no cookie. Following a redirect would carry the credential of a request to
// whatever host it names. A zero timeout becomes [Timeout]; h stays as it is.
func Direct(h *http.Client) *http.Client {
	c := *h
	c.Jar = nil
	c.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	if c.Timeout == 0 {
		c.Timeout = Timeout
	}
	return &c
}

// Do sends a request once and returns the whole answer, whatever its status. An
// answer of more than most bytes is an error, and so is 101, after which the other
// side could go on for ever. No error repeats the URL, which
// may hold what is not for a log: see [WithoutURL].
func Do(h *http.Client, req *http.Request, most int) (int, http.Header, []byte, error) {
	resp, err := h.Do(req)
	if err != nil {
		return 0, nil, nil, WithoutURL(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusSwitchingProtocols {
		return 0, nil, nil, errors.New("the answer is 101, to what nobody asked for")
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, int64(most)+1))
	if err != nil {
		return 0, nil, nil, fmt.Errorf("read answer: %w", err)
	}
	if len(body) > most {
		return 0, nil, nil, fmt.Errorf("the answer is longer than %d bytes", most)
	}
	return resp.StatusCode, resp.Header, body, nil
}

// WithoutURL returns what a [*url.Error] is about, without the URL, and any
// other error as it is.
func WithoutURL(err error) error {
	if u, ok := errors.AsType[*url.Error](err); ok {
		return u.Err
	}
	return err
}

// IsJSON reports whether an answer says that it is JSON. Proxies and captive
// portals answer in HTML.
func IsJSON(h http.Header) bool {
	t, _, err := mime.ParseMediaType(h.Get("Content-Type"))
	return err == nil && t == "application/json"
}

// RetryAfter reads the header of RFC 9110, section 10.2.3: seconds, or a date.
// What is missing, malformed or past is zero, and more than a day is a day.
func RetryAfter(h http.Header, now time.Time) time.Duration {
	v := h.Get("Retry-After")
	var d time.Duration
	if n, err := strconv.ParseInt(v, 10, 32); err == nil {
		d = time.Duration(n) * time.Second
	} else if t, err := http.ParseTime(v); err == nil {
		d = t.Sub(now)
	}
	return min(max(d, 0), maxWait)
}

// RequestID returns a random UUID (RFC 9562, version 4), by which both sides
// can find one request in their logs. It proves nothing.
func RequestID() string {
	var b [16]byte
	rand.Read(b[:])
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}
