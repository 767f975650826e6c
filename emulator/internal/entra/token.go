package entra

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/mandate-sam/mandate/emulator/directory"
	"github.com/mandate-sam/mandate/emulator/fault"
	"github.com/mandate-sam/mandate/emulator/internal/token"
)

// A TokenRequest is what the log says about one request to the token endpoint.
// It is written before the answer is sent.
type TokenRequest struct {
	Time     time.Time `json:"time"`
	Version  int       `json:"version"` // of the endpoint: 1 or 2
	Grant    string    `json:"grant"`
	Tenant   string    `json:"tenant"` // id; "" if the request got no further
	Client   string    `json:"client"`
	User     string    `json:"user,omitempty"` // object id
	Resource string    `json:"resource,omitempty"`

	Presented int `json:"presented,omitempty"` // number of the refresh token presented
	Answered  int `json:"answered,omitempty"`  // number of the refresh token in the answer

	Error  int `json:"error,omitempty"` // AADSTS code; 0: a token was issued
	Status int `json:"status"`

	AccessTokenSHA256 string `json:"access_token_sha256,omitempty"` // hex
	CorrelationID     string `json:"correlation_id"`
}

// maxRequests bounds the log. When it is full the older half is dropped.
const maxRequests = 200_000

// Requests returns the log of token requests, oldest first.
func (s *Server) Requests() []TokenRequest {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.requests)
}

func (s *Server) log(t TokenRequest) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.requests) >= maxRequests {
		s.requests = slices.Delete(s.requests, 0, maxRequests/2)
	}
	s.requests = append(s.requests, t)
}

// attempt is one token request on its way through the endpoint.
type attempt struct {
	version  int
	form     url.Values
	tenant   string // id; "" for common and organizations
	client   directory.Application
	strength string // appidacr
	trace    trace
	claims   claimsRequest
	log      TokenRequest
}

// token answers a token request.
func (s *Server) token(w http.ResponseWriter, r *http.Request, version int) {
	r.Body = http.MaxBytesReader(w, r.Body, maxBody)
	parsed := r.ParseForm()
	a := &attempt{version: version, form: r.PostForm, trace: s.trace(r)}
	a.log = TokenRequest{Time: s.cfg.Dials.Now(), Version: version, Grant: short(a.form.Get("grant_type")), CorrelationID: a.trace.correlation, Status: http.StatusOK}
	var body any
	e := refuse(9002313)
	if parsed == nil {
		body, e = s.grant(a, r)
	}
	if e != nil {
		a.log.Error, a.log.Status = e.code, e.httpStatus()
	}
	s.log(a.log)
	s.cfg.Log.Info("token request", "grant", a.log.Grant, "tenant", a.log.Tenant, "resource", a.log.Resource, "error", a.log.Error, "correlation", a.trace.correlation)
	s.allowOrigin(w, r, a)
	if !s.wait(r.Context()) {
		panic(http.ErrAbortHandler) // hang up: an empty answer would be a 200
	}
	if e != nil {
		s.writeError(w, e, version, a.trace)
		return
	}
	w.Header().Set("x-ms-clitelem", "1,0,0,,")
	writeJSON(w, http.StatusOK, a.trace, body)
}

// allowOrigin lets the pages of a single-page application read the answer.
func (s *Server) allowOrigin(w http.ResponseWriter, r *http.Request, a *attempt) {
	o := r.Header.Get("Origin")
	if o != "" && slices.ContainsFunc(a.client.SPARedirectURIs, func(uri string) bool { return origin(uri) == o }) {
		w.Header().Set("Access-Control-Allow-Origin", o)
		w.Header().Set("Vary", "Origin")
	}
}

// wait is the dials' latency and hold. It returns false if the client, or the
// emulator, has gone away in the meantime.
func (s *Server) wait(ctx context.Context) bool {
	d := s.cfg.Dials.Dials()
	if d.TokenLatency > 0 {
		timer := time.NewTimer(d.TokenLatency)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
			return false
		}
	}
	if d.Hold != nil {
		select {
		case <-d.Hold:
		case <-ctx.Done():
			return false
		}
	}
	return true
}

// short bounds what a client can put in the log.
func short(s string) string { return s[:min(len(s), 100)] }

// grant checks what all grants have in common and hands over to the one asked
// for.
func (s *Server) grant(a *attempt, r *http.Request) (any, *refusal) {
	if t, ok := s.cfg.Dials.Throttled("login"); ok {
		return nil, throttled(t)
	}
	var e *refusal
	if a.tenant, e = s.resolve(r.PathValue("tenant")); e != nil {
		return nil, e
	}
	a.log.Tenant = a.tenant
	for name, values := range a.form {
		if len(values) > 1 || len(values[0]) > maxAssertion {
			return nil, refuse(90023, short(name))
		}
	}
	if a.form.Get("grant_type") == "" {
		return nil, refuse(900144, "grant_type")
	}
	c, e := readCredential(r)
	if e != nil {
		return nil, e
	}
	a.log.Client = short(c.id)
	if a.client, a.strength, e = s.authenticate(c, a.tenant); e != nil {
		return nil, e
	}
	if e := a.mayGoWithout(); e != nil {
		return nil, e
	}
	if a.version == 2 && a.form.Get("resource") != "" {
		return nil, refuse(901002)
	}
	if a.claims, e = parseClaims(a.form.Get("claims")); e != nil {
		return nil, e
	}
	return s.dispatch(a)
}

func (s *Server) dispatch(a *attempt) (any, *refusal) {
	switch g := a.form.Get("grant_type"); g {
	case "authorization_code":
		return s.redeemCode(a)
	case "refresh_token":
		return s.redeemRefresh(a)
	case "client_credentials":
		return s.clientCredentials(a)
	case deviceGrant, oldDeviceGrant:
		return s.redeemDevice(a)
	case onBehalfGrant:
		return s.onBehalfOf(a)
	default:
		return nil, refuse(70003, short(g))
	}
}

func throttled(t fault.Throttle) *refusal {
	e := refuse(90055)
	if t.Status >= 500 {
		e = refuse(90033)
	}
	e.status, e.retryAfter = t.Status, t.RetryAfter
	return e
}

// digest is how the log names an access token.
func digest(accessToken string) string {
	sum := sha256.Sum256([]byte(accessToken))
	return hex.EncodeToString(sum[:])
}

// newRefresh makes a refresh token and enters it in the ledger. It is as long
// as Entra's, about a kilobyte.
func (s *Server) newRefresh(a *attempt, in token.SignIn) string {
	value := "1." + s.cfg.Chance.Text(720)
	a.log.Answered = s.cfg.Ledger.Add(value, a.log.Presented, in, s.cfg.Dials.Now())
	return value
}
