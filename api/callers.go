package api

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/callers"
	"github.com/mandate-sam/mandate/internal/spelling"
	"github.com/mandate-sam/mandate/internal/web"
)

// Callers holds the registered workloads. Every change raises the epoch.
type Callers interface {
	// Callers returns all of them, sorted by id.
	Callers(context.Context) ([]mandate.Caller, error)

	// Register adds a caller, and returns it as it is stored, with its secret
	// if one of its credentials is one: that is stored as a hash only. The
	// error wraps [mandate.ErrExists] if there is one of that id, and
	// [mandate.ErrInvalid] if a credential could never be shown.
	Register(context.Context, mandate.Caller) (mandate.Caller, mandate.Secret, error)

	// AddCredential gives a caller one more.
	AddCredential(context.Context, mandate.CallerID, mandate.CallerCredential) (mandate.CallerCredential, mandate.Secret, error)

	// Rotate gives a caller a new secret, and lets the old one end after
	// overlap. The error wraps [mandate.ErrInvalid] if it has two already.
	Rotate(ctx context.Context, id mandate.CallerID, overlap time.Duration, expires time.Time) (mandate.CallerCredential, mandate.Secret, error)

	// ExpireCredential lets one end at a time, and RemoveCaller takes the
	// caller away. The error wraps [mandate.ErrNotFound] if there is none.
	ExpireCredential(ctx context.Context, id mandate.CallerID, credential string, at time.Time) error
	RemoveCaller(context.Context, mandate.CallerID) error

	// AdoptCaller makes somebody the owner of a caller: who answers for it, and
	// cannot be the second person where it asks. The error wraps
	// [mandate.ErrNotFound].
	AdoptCaller(ctx context.Context, id mandate.CallerID, owner string) error
}

// A Caller is a registered workload.
type Caller = mandate.Caller

// A CallerRequest is the body of POST /v1/callers. Without any of the
// credentials the caller gets a secret.
type CallerRequest struct {
	ID      string           `json:"id"`
	Binding *mandate.Binding `json:"binding,omitempty"`
	Show
}

// A Show says what a caller proves with who it is.
type Show struct {
	Keys        string            `json:"keys,omitempty"`        // JSON Web Keys, or PEM; public ones
	Issuer      string            `json:"issuer,omitempty"`      // name of a configured issuer
	Claims      map[string]string `json:"claims,omitempty"`      // that its tokens must have
	Certificate string            `json:"certificate,omitempty"` // PEM, or its SHA-256
	SPIFFE      string            `json:"spiffe,omitempty"`      // SPIFFE ID of client certificates
	Expires     int64             `json:"expires,omitempty"`     // seconds; 0: never
}

// A CallerAnswer is the answer to what registers something.
type CallerAnswer struct {
	ID          mandate.CallerID           `json:"id"`
	Secret      string                     `json:"secret,omitempty"`
	Credentials []mandate.CallerCredential `json:"credentials"` // the new ones
}

// A RotateCallerRequest is the body of POST /v1/callers/{caller}/rotate.
type RotateCallerRequest struct {
	Overlap int64 `json:"overlap,omitempty"` // seconds that the old secret stays valid; a day if 0
	Expires int64 `json:"expires,omitempty"` // seconds until the new one ends; 0: never
}

// An ExpireRequest is the body of POST /v1/callers/{caller}/expire.
type ExpireRequest struct {
	Credential string `json:"credential"`
	After      int64  `json:"after,omitempty"` // seconds; at once if 0
}

type callersAnswer struct {
	Callers []Caller `json:"callers"`
}

// registrationRoutes are a part of the operator's.
var registrationRoutes = []route{
	{"GET", "/v1/callers", (*Server).listCallers},
	{"POST", "/v1/callers", (*Server).addCaller},
	{"GET", "/v1/callers/{caller}", (*Server).showCaller},
	{"POST", "/v1/callers/{caller}/credentials", (*Server).addCredential},
	{"POST", "/v1/callers/{caller}/rotate", (*Server).rotateCaller},
	{"POST", "/v1/callers/{caller}/adopt", (*Server).adoptCaller},
	{"POST", "/v1/callers/{caller}/expire", (*Server).expireCredential},
	{"POST", "/v1/callers/{caller}/remove", (*Server).removeCaller},
}

const (
	minOverlap        = time.Second
	maxOverlap        = 30 * 24 * time.Hour
	maxCredentialLife = 10 * 365 * 24 * time.Hour
)

func (s *Server) listCallers(w http.ResponseWriter, r *http.Request, _ mandate.CallerID) error {
	all, err := s.cfg.Callers.Callers(r.Context())
	if err != nil {
		return err
	}
	return web.Write(w, http.StatusOK, callersAnswer{append([]Caller{}, all...)})
}

func (s *Server) showCaller(w http.ResponseWriter, r *http.Request, _ mandate.CallerID) error {
	id := callerOf(r)
	all, err := s.cfg.Callers.Callers(r.Context())
	if err != nil {
		return err
	}
	var names []string
	for _, c := range all {
		if c.ID == id {
			return web.Write(w, http.StatusOK, c)
		}
		names = append(names, string(c.ID))
	}
	if mandate.Name(string(id)) {
		if near := spelling.Nearest(string(id), names, 2); near != "" {
			return fmt.Errorf("%w: no caller is named %q; did you mean %q?", mandate.ErrNotFound, id, near)
		}
	}
	return fmt.Errorf("%w: no caller is named %.80q", mandate.ErrNotFound, id)
}

func callerOf(r *http.Request) mandate.CallerID { return mandate.CallerID(r.PathValue("caller")) }

func (s *Server) addCaller(w http.ResponseWriter, r *http.Request, caller mandate.CallerID) error {
	in, err := web.Read[CallerRequest](w, r)
	if err != nil {
		return err
	}
	c := mandate.Caller{ID: mandate.CallerID(in.ID), Owner: ownerOf(r, caller)}
	if err := mandate.CheckCallerID(c.ID); err != nil {
		return err
	}
	if in.Binding != nil {
		c.Binding = *in.Binding
		if err := c.Binding.Check(); err != nil {
			return err
		}
	}
	if c.Credentials, err = in.credentials(); err != nil {
		return err
	}
	var secret mandate.Secret
	rec := mandate.Record{Caller: caller, Detail: "add caller " + in.ID + kinds(c.Credentials)}
	if err := s.change(r.Context(), rec, func() (err error) {
		c, secret, err = s.cfg.Callers.Register(r.Context(), c)
		return err
	}); err != nil {
		return err
	}
	return web.Write(w, http.StatusCreated, CallerAnswer{c.ID, secret.Reveal(), c.Credentials})
}

// credentials returns what is to be registered: a secret, where nothing else is
// asked for.
func (in *Show) credentials() ([]mandate.CallerCredential, error) {
	var out []mandate.CallerCredential
	if in.Keys != "" {
		keys, err := callers.ParseKeys([]byte(in.Keys))
		if err != nil {
			return nil, err
		}
		out = append(out, keys...)
	}
	if in.Issuer != "" {
		out = append(out, mandate.CallerCredential{Kind: mandate.CredentialWorkload, Issuer: in.Issuer, Claims: in.Claims})
	} else if len(in.Claims) > 0 {
		return nil, mandate.Invalid("issuer", "is required where claims are: whose are they?")
	}
	if in.Certificate != "" {
		c, err := callers.ParseCertificate(in.Certificate)
		if err != nil {
			return nil, err
		}
		out = append(out, c)
	}
	if in.SPIFFE != "" {
		out = append(out, mandate.CallerCredential{Kind: mandate.CredentialSPIFFE, SPIFFE: in.SPIFFE})
	}
	if len(out) == 0 {
		out = []mandate.CallerCredential{{Kind: mandate.CredentialSecret}}
	}
	expires, err := after("expires", in.Expires, maxCredentialLife)
	for i := range out {
		out[i].Expires = expires
	}
	return out, err
}

// after returns the time in so many seconds, or zero for none.
func after(field string, seconds int64, longest time.Duration) (time.Time, error) {
	if seconds == 0 {
		return time.Time{}, nil
	}
	d, err := period(field, seconds, 0, time.Second, longest)
	return time.Now().Add(d), err
}

// kinds tells the kinds of credentials for a record, if they are not what a
// caller has when nothing is said.
func kinds(all []mandate.CallerCredential) string {
	var words []string
	for _, c := range all {
		words = append(words, c.Kind)
	}
	if len(words) == 1 && words[0] == mandate.CredentialSecret {
		return ""
	}
	return ": " + strings.Join(slices.Compact(words), ", ")
}

func (s *Server) addCredential(w http.ResponseWriter, r *http.Request, caller mandate.CallerID) error {
	in, err := web.Read[Show](w, r)
	if err != nil {
		return err
	}
	all, err := in.credentials()
	if err != nil {
		return err
	}
	id, secret := callerOf(r), mandate.Secret{}
	rec := mandate.Record{Caller: caller, Detail: fmt.Sprintf("add credential of caller %.64s: %s", id, all[0].Kind)}
	if err := s.change(r.Context(), rec, func() error {
		for i := range all {
			c, made, err := s.cfg.Callers.AddCredential(r.Context(), id, all[i])
			if err != nil {
				return err
			}
			if all[i] = c; !made.IsZero() {
				secret = made
			}
		}
		return nil
	}); err != nil {
		return err
	}
	return web.Write(w, http.StatusCreated, CallerAnswer{id, secret.Reveal(), all})
}

func (s *Server) rotateCaller(w http.ResponseWriter, r *http.Request, caller mandate.CallerID) error {
	in, err := web.Read[RotateCallerRequest](w, r)
	if err != nil {
		return err
	}
	overlap, err := period("overlap", in.Overlap, 24*time.Hour, minOverlap, maxOverlap)
	if err != nil {
		return err
	}
	expires, err := after("expires", in.Expires, maxCredentialLife)
	if err != nil {
		return err
	}
	id, out := callerOf(r), CallerAnswer{}
	rec := mandate.Record{Caller: caller, Detail: fmt.Sprintf("rotate the secret of caller %.64s", id)}
	if err := s.change(r.Context(), rec, func() error {
		c, secret, err := s.cfg.Callers.Rotate(r.Context(), id, overlap, expires)
		out = CallerAnswer{id, secret.Reveal(), []mandate.CallerCredential{c}}
		return err
	}); err != nil {
		return err
	}
	return web.Write(w, http.StatusCreated, out)
}

func (s *Server) expireCredential(w http.ResponseWriter, r *http.Request, caller mandate.CallerID) error {
	in, err := web.Read[ExpireRequest](w, r)
	if err != nil {
		return err
	}
	if !mandate.Name(in.Credential) {
		return mandate.Invalid("credential", "is required: mandate caller show lists them")
	}
	at, err := after("after", in.After, maxCredentialLife)
	if err != nil {
		return err
	}
	if at.IsZero() {
		at = time.Now()
	}
	id := callerOf(r)
	rec := mandate.Record{Caller: caller, Detail: fmt.Sprintf("expire credential %s of caller %.64s", in.Credential, id), Expires: at}
	if err := s.change(r.Context(), rec, func() error { return s.cfg.Callers.ExpireCredential(r.Context(), id, in.Credential, at) }); err != nil {
		return err
	}
	return web.Write(w, http.StatusOK, okAnswer)
}

// adoptCaller makes whoever asks the one who answers for a caller.
func (s *Server) adoptCaller(w http.ResponseWriter, r *http.Request, caller mandate.CallerID) error {
	if _, err := web.Read[struct{}](w, r); err != nil {
		return err
	}
	id := callerOf(r)
	rec := mandate.Record{Caller: caller, Address: address(r), Detail: fmt.Sprintf("adopt caller %.64s", id)}
	if err := s.change(r.Context(), rec, func() error { return s.cfg.Callers.AdoptCaller(r.Context(), id, ownerOf(r, caller)) }); err != nil {
		return err
	}
	return web.Write(w, http.StatusOK, okAnswer)
}

func (s *Server) removeCaller(w http.ResponseWriter, r *http.Request, caller mandate.CallerID) error {
	if _, err := web.Read[struct{}](w, r); err != nil {
		return err
	}
	id := callerOf(r)
	rec := mandate.Record{Caller: caller, Detail: fmt.Sprintf("remove caller %.64s", id)}
	if err := s.change(r.Context(), rec, func() error { return s.cfg.Callers.RemoveCaller(r.Context(), id) }); err != nil {
		return err
	}
	return web.Write(w, http.StatusOK, okAnswer)
}
