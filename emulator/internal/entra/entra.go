// Package entra is the emulator's identity platform: discovery, sign-in pages
// and the token endpoint, in the v1 and the v2 dialect.
//
// It follows "Microsoft identity platform: OAuth 2.0 authorization code flow",
// "OpenID Connect on the Microsoft identity platform", "Azure AD v1.0: Authorize
// access using the OAuth 2.0 code grant flow", "Microsoft identity platform
// certificate credentials" and "Microsoft Entra authentication and
// authorization error codes".
package entra

import (
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/mandate-sam/mandate/emulator/directory"
	"github.com/mandate-sam/mandate/emulator/fault"
	"github.com/mandate-sam/mandate/emulator/internal/seed"
	"github.com/mandate-sam/mandate/emulator/internal/token"
)

// Config says what a server works with. Every field is required.
type Config struct {
	URL       string // https://localhost:PORT, no trailing slash
	Graph     string // the same of Graph, whose UserInfo endpoint metadata names
	Directory *directory.Directory
	Dials     *fault.Panel
	Key       *token.Key
	Ledger    *token.Ledger
	Chance    *seed.Source
	Log       *slog.Logger
}

// A Server is the identity platform.
type Server struct {
	cfg Config

	// mu guards the fields below.
	mu           sync.Mutex
	interactions map[string]*interaction
	sessions     map[string]*session
	codes        map[string]*code
	devices      map[string]*device // by device code
	userCodes    map[string]*device
	requests     []TokenRequest
	dropped      int // requests that were forgotten because there were too many
}

// New returns a server that knows no session.
func New(cfg Config) *Server {
	s := &Server{cfg: cfg}
	s.Clear()
	return s
}

// Clear forgets sign-ins, codes and the log of token requests.
func (s *Server) Clear() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.interactions = map[string]*interaction{}
	s.sessions = map[string]*session{}
	s.codes = map[string]*code{}
	s.devices = map[string]*device{}
	s.userCodes = map[string]*device{}
	s.requests, s.dropped = nil, 0
}

// Handler serves the login host.
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	s.routeDiscovery(mux)
	s.routeSignIn(mux)
	s.routeDevice(mux)
	s.routeAdminConsent(mux)
	s.routeSignOut(mux)
	mux.HandleFunc("POST /{tenant}/oauth2/token", func(w http.ResponseWriter, r *http.Request) { s.token(w, r, 1) })
	mux.HandleFunc("POST /{tenant}/oauth2/v2.0/token", func(w http.ResponseWriter, r *http.Request) { s.token(w, r, 2) })
	pages := s.signInPages()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/signin/") {
			pages.ServeHTTP(w, r)
			return
		}
		if r.Header.Get("Content-Type") == "" { // clients exist that do not say that they post a form
			r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		}
		mux.ServeHTTP(w, r)
	})
}

// issuer is the issuer of the tenant's tokens.
func (s *Server) issuer(tenant string, version int) string {
	if version == 1 {
		return s.cfg.URL + "/" + tenant + "/"
	}
	return s.cfg.URL + "/" + tenant + "/v2.0"
}

// shared reports whether the name addresses no tenant in particular.
func shared(name string) bool {
	switch strings.ToLower(name) {
	case "common", "organizations":
		return true
	}
	return false
}

// resolve returns the tenant that a path names: its id, or "" for common and
// organizations.
func (s *Server) resolve(name string) (string, *refusal) {
	if shared(name) {
		return "", nil
	}
	t, ok := s.cfg.Directory.Tenant(name)
	if !ok && !plausibleTenant(name) {
		return "", refuse(900023, short(name))
	}
	if !ok {
		return "", refuse(90002, name)
	}
	return t.ID, nil
}

// plausibleTenant reports whether the name could be that of a tenant: a GUID
// or a domain.
func plausibleTenant(name string) bool {
	return name != "" && len(name) <= 253 && strings.Trim(strings.ToLower(name), "0123456789abcdefghijklmnopqrstuvwxyz-._") == ""
}

// trace names the request. The correlation id is the client's, if it sent one.
func (s *Server) trace(r *http.Request) trace {
	t := trace{id: s.cfg.Chance.GUID()}
	for _, id := range []string{r.Header.Get("client-request-id"), r.FormValue("client-request-id")} {
		if t.correlation == "" && plausibleID(id) {
			t.correlation = id
		}
	}
	if t.correlation == "" {
		t.correlation = s.cfg.Chance.GUID()
	}
	return t
}

// plausibleID keeps what a client made up from breaking out of a header or a
// line of a log.
func plausibleID(id string) bool {
	if id == "" || len(id) > 64 {
		return false
	}
	return strings.Trim(strings.ToLower(id), "0123456789abcdefghijklmnopqrstuvwxyz-{}") == ""
}

// hasMFA reports whether the user has a second factor registered.
func (s *Server) hasMFA(u directory.User) bool {
	if has, ok := s.cfg.Dials.Dials().MFARegistered[strings.ToLower(u.UPN)]; ok {
		return has
	}
	return u.MFA
}

// demandsMFA reports whether the tenant demands MFA at sign-in.
func (s *Server) demandsMFA(tenant string) bool {
	if demands, ok := s.cfg.Dials.Dials().MFADemanded[tenant]; ok {
		return demands
	}
	return true
}

// expire drops what nobody will come back for. The caller holds s.mu.
func (s *Server) expire(now time.Time) {
	if len(s.interactions) > maxPending {
		clear(s.interactions)
	}
	for id, c := range s.codes {
		if now.Sub(c.issued) > time.Hour {
			delete(s.codes, id)
		}
	}
	for id, d := range s.devices {
		if now.Sub(d.issued) > time.Hour || len(s.devices) > maxPending {
			delete(s.devices, id)
			delete(s.userCodes, d.userCode)
		}
	}
}

// maxPending bounds the sign-ins that are under way at once. Beyond it all of
// them are forgotten: an emulator has no reason to be clever about floods.
const maxPending = 10_000
