package api

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/internal/web"
)

const (
	// maxAnswer is the longest body that a call may be answered with.
	maxAnswer = 16 << 20

	// callTimeout bounds one exchange with an API.
	callTimeout = 100 * time.Second

	maxHeaderValue = 1 << 10
)

// Headers of the answer to a call that are about it and not of it.
const (
	headerUpstream = "Mandate-Upstream-Status" // there only if the API answered
	headerRule     = "Mandate-Rule"
	headerRecord   = "Mandate-Record" // index and hash of the record
)

var methods = []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"}

// requestHeaders are what a caller may send to an API. Everything else, such
// as Authorization, Cookie or X-HTTP-Method-Override, is ours to send or
// nobody's.
var requestHeaders = []string{
	"Accept", "Accept-Language", "Content-Type", "Consistencylevel", "If-Match", "If-None-Match", "Prefer",
	"Client-Request-Id", "Ms-Correlationid", "Ms-Requestid", "Ms-Contract-Version", "Validatemfa", "X-Locale",
}

// responseHeaders are what an API's answer may bring back. Cookies and
// challenges are not among them.
var responseHeaders = []string{
	"Content-Type", "Content-Language", "Etag", "Last-Modified", "Location", "Retry-After", "Preference-Applied",
	"Odata-Version", "Azure-Asyncoperation", "Request-Id", "Client-Request-Id", "X-Ms-Request-Id",
	"X-Ms-Correlation-Request-Id", "Ms-Requestid", "Ms-Correlationid", "Ms-Cv", "Ismfacompliant",
}

// A CallRequest is the body of POST /v1/call.
type CallRequest struct {
	Partner  string            `json:"partner,omitempty"`  // short name or tenant id
	Tenant   string            `json:"tenant,omitempty"`   // the partner's own if empty
	Audience string            `json:"audience,omitempty"` // alias or resource URI
	Method   string            `json:"method"`             // GET, HEAD, POST, PUT, PATCH or DELETE
	Path     string            `json:"path"`               // with query; or a URL at the audience's own host
	Headers  map[string]string `json:"headers,omitempty"`  // of a short list
	Body     string            `json:"body,omitempty"`
	Purpose  string            `json:"purpose,omitempty"`
	Ticket   string            `json:"ticket,omitempty"`
	All      bool              `json:"all,omitempty"` // follow pages; GET only

	UserToken string `json:"user_token,omitempty"` // ID token of the partner's user on whose behalf it is
}

// A call is a [CallRequest] in the domain's terms.
type call struct {
	request  mandate.Request
	alias    string // of the audience
	endpoint mandate.Endpoint
	method   string
	target   target
	header   http.Header
	body     string
}

// An answer is what an API answered to one exchange.
type answer struct {
	status int
	header http.Header
	body   []byte
	token  mandate.Token // without the token itself

	challenge string // claims that the API demands; see [challenge]
}

// call is POST /v1/call: the server makes the call, so the token stays.
func (s *Server) call(w http.ResponseWriter, r *http.Request, caller mandate.CallerID) error {
	in, err := web.Read[CallRequest](w, r)
	if err != nil {
		return err
	}
	binding, bound, err := s.bind(caller, asks{&in.Partner, &in.Tenant, &in.Audience, &in.Purpose})
	if err != nil {
		return err
	}
	c, err := s.parseCall(in)
	if err == nil {
		c.request.Detail = c.method + " " + c.target.path
		err = s.admit(r.Context(), &c.request, caller, binding, bound, in.UserToken)
	}
	if err != nil {
		return s.refuse(r.Context(), caller, mandate.UseCall, err)
	}
	if err := http.NewResponseController(w).SetWriteDeadline(time.Now().Add(callTimeout + streamTimeout)); err != nil {
		return fmt.Errorf("prepare answer: %w", err)
	}
	if in.All {
		return s.pages(w, r, c)
	}
	a, err := s.exchange(r.Context(), c)
	if err != nil {
		return err
	}
	return a.write(w)
}

// parseCall turns what a caller wrote into the domain's terms.
func (s *Server) parseCall(in CallRequest) (*call, error) {
	c := &call{method: in.Method, body: in.Body}
	c.request = mandate.Request{Use: mandate.UseCall, Purpose: in.Purpose, Ticket: in.Ticket, Scopes: []mandate.Scope{}}
	cloud, err := s.resolve(&c.request, in.Partner, in.Tenant, in.Audience)
	if err != nil {
		return nil, err
	}
	var ok bool
	if c.endpoint, ok = cloud.Endpoint(c.request.Audience); !ok || c.endpoint.URL == "" {
		return nil, mandate.Invalid("audience", "%s has no address to call", in.Audience)
	}
	c.alias = cloud.Alias(c.request.Audience)
	switch {
	case !slices.Contains(methods, in.Method):
		return nil, mandate.Invalid("method", "must be one of %s", strings.Join(methods, ", "))
	case in.All && in.Method != http.MethodGet:
		return nil, mandate.Invalid("all", "is for GET only")
	case in.Body != "" && (in.Method == http.MethodGet || in.Method == http.MethodHead):
		return nil, mandate.Invalid("body", "cannot be sent with %s", in.Method)
	}
	if c.target, err = parseTarget(c.endpoint.URL, in.Path); err != nil {
		return nil, err
	}
	c.header, err = c.headers(in.Headers)
	return c, err
}

// headers returns what the caller wants to send, and what we send unless the
// caller said otherwise.
func (c *call) headers(in map[string]string) (http.Header, error) {
	h := http.Header{"Accept": {"application/json"}, "User-Agent": {"mandate"}}
	if c.body != "" {
		h.Set("Content-Type", "application/json")
	}
	if c.alias == mandate.PartnerCenter {
		h.Set("X-Locale", "en-US")
		h.Set("MS-CorrelationId", newUUID())
	}
	for name, value := range in {
		if !slices.Contains(requestHeaders, http.CanonicalHeaderKey(name)) {
			return nil, mandate.Invalid("headers", "%.60q cannot be sent; these can: %s", name, strings.Join(requestHeaders, ", "))
		}
		if len(value) > maxHeaderValue || !printable(value) {
			return nil, mandate.Invalid("headers", "%s must be at most %d bytes of printable text", name, maxHeaderValue)
		}
		h.Set(name, value)
	}
	return h, nil
}

// exchange makes one call. If the API refuses the token it is made once more
// with another one, which meets the API's challenge or is newer than the
// refused: a token can be revoked before it expires.
func (s *Server) exchange(ctx context.Context, c *call) (*answer, error) {
	req := c.request
	req.Detail, req.Method, req.Path = c.method+" "+c.target.path, c.method, c.target.path
	a, err := s.attempt(ctx, c, req)
	if err != nil || a.status != http.StatusUnauthorized || req.Claims != "" {
		return a, err
	}
	req.Refused, req.Claims = a.token.Fingerprint, a.challenge
	return s.attempt(ctx, c, req)
}

// attempt gets a token for one call, makes it, and forgets the token. The
// token leaves in one header of one request to the audience's own host, and
// an answer that has it in it is withheld.
func (s *Server) attempt(ctx context.Context, c *call, req mandate.Request) (*answer, error) {
	tok, err := s.current(ctx, req)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	hr, err := c.newRequest(ctx, tok.Access)
	if err != nil {
		return nil, err
	}
	// A bare transport: it follows no redirect and keeps no cookie.
	resp, err := s.cfg.Transport.RoundTrip(hr)
	if err != nil {
		return nil, fmt.Errorf("%w: call to %s: %w", mandate.ErrUpstream, c.alias, harmless(err))
	}
	defer resp.Body.Close()
	a, err := readAnswer(resp)
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", mandate.ErrUpstream, c.alias, err)
	}
	if a.has(tok.Access.Reveal()) {
		return nil, fmt.Errorf("%w: %s sent the access token back in its answer, which was withheld", mandate.ErrUpstream, c.alias)
	}
	a.challenge = challenge(resp.Header)
	a.token, a.token.Access = tok, mandate.Secret{}
	return a, nil
}

// challenge returns the claims that an API demands of a token (Continuous
// Access Evaluation), in canonical form, or "".
func challenge(h http.Header) string {
	for _, v := range h.Values("WWW-Authenticate") {
		_, rest, ok := strings.Cut(v, `claims="`)
		encoded, _, closed := strings.Cut(rest, `"`)
		if !ok || !closed {
			continue
		}
		// Microsoft's services write either alphabet, padded or not.
		encoded = strings.NewReplacer("-", "+", "_", "/").Replace(strings.TrimRight(encoded, "="))
		text, err := base64.RawStdEncoding.DecodeString(encoded)
		if err != nil {
			continue
		}
		if claims, err := mandate.ParseClaims(string(text)); err == nil {
			return claims
		}
	}
	return ""
}

func (c *call) newRequest(ctx context.Context, access mandate.Secret) (*http.Request, error) {
	u, err := c.target.url(c.endpoint.URL)
	if err != nil {
		return nil, fmt.Errorf("address of %s: %w", c.alias, err)
	}
	hr, err := http.NewRequestWithContext(ctx, c.method, u.String(), strings.NewReader(c.body))
	if err != nil {
		return nil, fmt.Errorf("request to %s: %w", c.alias, err)
	}
	hr.URL = u
	hr.Header = c.header.Clone()
	if c.alias == mandate.PartnerCenter && hr.Header.Get("MS-RequestId") == "" {
		hr.Header.Set("MS-RequestId", newUUID())
	}
	hr.Header.Set("Authorization", "Bearer "+access.Reveal())
	return hr, nil
}

// readAnswer reads the answer in full, so that a part of one can never pass
// for the whole. A status that ends nothing is no answer: after 101 the
// connection would be the other side's, for as long as it likes.
func readAnswer(resp *http.Response) (*answer, error) {
	if resp.StatusCode < 200 || resp.StatusCode > 599 {
		return nil, fmt.Errorf("its answer has the status %d, which is none", resp.StatusCode)
	}
	a := &answer{status: resp.StatusCode, header: http.Header{}}
	for _, name := range responseHeaders {
		if v := resp.Header.Values(name); len(v) > 0 {
			a.header[name] = slices.Clone(v)
		}
	}
	var err error
	if a.body, err = io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1)); err != nil {
		return nil, fmt.Errorf("its answer broke off: %w", harmless(err))
	}
	if len(a.body) > maxAnswer {
		return nil, fmt.Errorf("its answer is longer than %d MiB; ask for less at a time", maxAnswer>>20)
	}
	return a, nil
}

// has reports whether secret is anywhere in the answer.
func (a *answer) has(secret string) bool {
	if secret == "" {
		return false
	}
	for _, values := range a.header {
		if slices.ContainsFunc(values, func(v string) bool { return strings.Contains(v, secret) }) {
			return true
		}
	}
	return bytes.Contains(a.body, []byte(secret))
}

func (a *answer) ok() bool { return a.status >= 200 && a.status < 300 }

// write answers with what the API answered.
func (a *answer) write(w http.ResponseWriter) error {
	h := w.Header()
	for name, values := range a.header {
		h[name] = values
	}
	a.note(h)
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(a.status)
	_, _ = w.Write(a.body) // too late to tell anybody
	return nil
}

// note says by what rule the call was made, and where that is recorded.
func (a *answer) note(h http.Header) {
	h.Set(headerUpstream, strconv.Itoa(a.status))
	h.Set(headerRule, a.token.Rule)
	h.Set(headerRecord, fmt.Sprintf("%d %s", a.token.Receipt.Index, a.token.Receipt.Hash))
}

// errNotHTTP stands for what net/http says of an answer that it cannot read.
var errNotHTTP = errors.New("its answer is not HTTP as it should be")

// harmless returns the part of a transport's error that is about the network.
// net/http quotes from answers that it cannot read, and what an API sends may
// have the token in it.
func harmless(err error) error {
	var network net.Error
	var certificate *tls.CertificateVerificationError
	switch {
	case errors.Is(err, context.Canceled):
		return context.Canceled
	case errors.As(err, &network):
		return network
	case errors.As(err, &certificate):
		return certificate
	case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
		return io.ErrUnexpectedEOF
	}
	return errNotHTTP
}

// newUUID returns a random UUID (RFC 9562, version 4).
func newUUID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}
