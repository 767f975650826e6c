package api

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/internal/spelling"
	"github.com/mandate-sam/mandate/internal/web"
)

// A Revoker shuts parts of what would be handed out, and opens them again.
type Revoker interface {
	// Revoke puts a revocation in force and returns it with its ID and time.
	Revoke(context.Context, mandate.Revocation) (mandate.Revocation, error)

	// Lift ends one. The error wraps [mandate.ErrNotFound] if there is none.
	Lift(ctx context.Context, id string) error

	// Revocations returns those in force, the oldest first.
	Revocations() ([]mandate.Revocation, error)

	// Alive returns how many tokens within a reach were handed out that live
	// longer than now, and when the last of them expires.
	Alive(ctx context.Context, r mandate.Reach, now time.Time) (n int, until time.Time, err error)
}

// A RevokeRequest is the body of POST /v1/revocations. What is empty covers
// all; everything must be said in so many words.
type RevokeRequest struct {
	Partner    string `json:"partner,omitempty"`  // short name or tenant id
	Customer   string `json:"customer,omitempty"` // tenant id
	Caller     string `json:"caller,omitempty"`
	Audience   string `json:"audience,omitempty"`   // alias or resource URI
	Everything bool   `json:"everything,omitempty"` // and nothing else may be set
	Reason     string `json:"reason"`
}

// A Revoked is a revocation, and what it cannot reach.
type Revoked struct {
	mandate.Revocation
	PartnerName string    `json:"partner_name,omitempty"`
	Alive       int       `json:"alive"`             // tokens that were handed out before, and live until they expire
	Until       time.Time `json:"until,omitzero"`    // when the last of them expires
	Unknown     string    `json:"unknown,omitempty"` // why it is not known how many are alive

	// NotKnown is what the revocation names and this server does not know:
	// perhaps it is misspelt, and covers nothing. It is in force all the same.
	NotKnown []NotKnown `json:"not_known,omitempty"`
}

// A NotKnown is a name that a revocation was given and that nothing here has.
type NotKnown struct {
	Field string `json:"field"` // caller, customer
	Name  string `json:"name"`
	Text  string `json:"text"` // a sentence, with what was perhaps meant
}

type revocationsAnswer struct {
	Revocations []Revoked `json:"revocations"`
}

// revokeRoutes are a part of the operator's.
var revokeRoutes = []route{
	{"GET", "/v1/revocations", withRevoker((*Server).revocations)},
	{"POST", "/v1/revocations", withRevoker((*Server).revoke)},
	{"POST", "/v1/revocations/{id}/lift", withRevoker((*Server).lift)},
}

// withRevoker makes an operation of one that needs the revoker.
func withRevoker(do func(*Server, Revoker, http.ResponseWriter, *http.Request, mandate.CallerID) error) action {
	return func(s *Server, w http.ResponseWriter, r *http.Request, caller mandate.CallerID) error {
		if s.cfg.Revoker == nil {
			return fmt.Errorf("%w: this server has no revocations", mandate.ErrNotFound)
		}
		return do(s, s.cfg.Revoker, w, r, caller)
	}
}

// reach turns what an operator wrote into the domain's terms.
func (s *Server) reach(in *RevokeRequest) (reach mandate.Reach, err error) {
	if in.Everything == (in.Partner+in.Customer+in.Caller+in.Audience != "") {
		return reach, mandate.Invalid("everything", "or at least one of partner, customer, caller and audience must be said, and not both")
	}
	if in.Partner != "" {
		if !mandate.Name(in.Partner) {
			return reach, mandate.Invalid("partner", "must be a partner's short name or tenant id")
		}
		p, err := s.cfg.Partners.Partner(in.Partner)
		if err != nil {
			return reach, err
		}
		reach.Partner = p.Key
	}
	if in.Customer != "" {
		if reach.Customer, err = mandate.ParseTenantID(in.Customer); err != nil {
			return reach, err
		}
	}
	if in.Caller != "" && !mandate.Name(in.Caller) {
		return reach, mandate.Invalid("caller", "must be a caller's name")
	}
	reach.Caller = mandate.CallerID(in.Caller)
	if in.Audience != "" {
		reach.Audience, err = s.audience(reach.Partner.Cloud, in.Audience)
	}
	return reach, err
}

// audience returns the resource URI of an audience, which must be the same in
// all clouds that are meant: a revocation must not cover less than it says.
func (s *Server) audience(cloud, name string) (out mandate.Audience, err error) {
	for _, app := range s.cfg.Applications {
		c, ok := s.cfg.Clouds[app.Cloud]
		if !ok || cloud != "" && c.Name != cloud {
			continue
		}
		a, unknown := c.Resolve(name)
		switch {
		case unknown != nil:
			err = unknown // unless another cloud knows it
			continue
		case out != "" && out != a:
			return "", mandate.Invalid("audience", "%q is not the same in all clouds; say its resource URI", name)
		}
		out = a
	}
	switch {
	case out != "":
		return out, nil
	case err == nil:
		err = mandate.Invalid("audience", "%.80q cannot be looked up: no application is in the cloud that is meant", name)
	}
	return "", err
}

func (s *Server) revoke(v Revoker, w http.ResponseWriter, r *http.Request, caller mandate.CallerID) error {
	in, err := web.Read[RevokeRequest](w, r)
	if err != nil {
		return err
	}
	reach, err := s.reach(&in)
	if err != nil {
		return err
	}
	out := mandate.Revocation{Reach: reach, Reason: in.Reason, By: caller}
	rec := mandate.Record{Caller: caller, Detail: "revoke " + reach.String(), Reason: in.Reason}
	if reach.Partner != (mandate.GrantKey{}) {
		rec.Grant = &reach.Partner
	}
	if err := s.change(r.Context(), rec, func() (err error) {
		out, err = v.Revoke(r.Context(), out)
		return err
	}); err != nil {
		return err
	}
	return web.Write(w, http.StatusCreated, s.outOfReach(r.Context(), v, out))
}

// outOfReach adds what a revocation cannot take back. That this is not known is
// no reason to say that the revocation failed.
func (s *Server) outOfReach(ctx context.Context, v Revoker, r mandate.Revocation) Revoked {
	out := Revoked{Revocation: r}
	partners, err := s.cfg.Registry.Partners(ctx)
	for _, p := range partners {
		if p.Key == r.Reach.Partner {
			out.PartnerName = p.Name
		}
	}
	if err == nil {
		out.NotKnown = append(s.unknownCaller(ctx, string(r.Reach.Caller)), s.unknownCustomer(ctx, &out, partners)...)
	}
	if out.Alive, out.Until, err = v.Alive(ctx, r.Reach, time.Now()); err != nil {
		out.Unknown = err.Error()
	}
	return out
}

// unknownCaller tells of a caller's name that nobody here has. A person's
// (oid:…) is known to an identity provider only, and what cannot be looked up
// just now is not told of.
func (s *Server) unknownCaller(ctx context.Context, name string) []NotKnown {
	if name == "" || strings.HasPrefix(name, "oid:") {
		return nil
	}
	var known []string
	for _, uid := range s.cfg.Operators {
		known = append(known, "uid:"+strconv.Itoa(uid))
	}
	all, err := s.cfg.Callers.Callers(ctx)
	for _, c := range all {
		known = append(known, string(c.ID))
	}
	if err != nil || slices.Contains(known, name) {
		return nil
	}
	text := fmt.Sprintf("no caller %q is known here", name)
	if near := spelling.Nearest(name, known, 2); near != "" {
		text += fmt.Sprintf("; did you mean %q?", near)
	}
	return []NotKnown{{"caller", name, text}}
}

// unknownCustomer tells of a tenant that neither is, nor was, a customer of the
// partner that is meant, or of any, nor is the partner's own.
func (s *Server) unknownCustomer(ctx context.Context, r *Revoked, partners []mandate.Partner) []NotKnown {
	tenant := r.Reach.Customer
	if tenant.IsZero() || s.cfg.Customers == nil {
		return nil
	}
	meant := func(k mandate.GrantKey) bool { return r.Reach.Partner == mandate.GrantKey{} || r.Reach.Partner == k }
	serving, err := s.cfg.Customers.Serving(ctx, tenant)
	for _, p := range partners {
		if _, serves := serving[p.Key]; meant(p.Key) && (serves || p.Key.Partner == tenant) {
			return nil
		}
	}
	if err != nil {
		return nil
	}
	return []NotKnown{{"customer", tenant.String(), fmt.Sprintf("tenant %s is not known here as a customer of %s", tenant, cmp.Or(r.PartnerName, "any partner"))}}
}

func (s *Server) revocations(v Revoker, w http.ResponseWriter, r *http.Request, _ mandate.CallerID) error {
	all, err := v.Revocations()
	if err != nil {
		return err
	}
	out := revocationsAnswer{Revocations: make([]Revoked, 0, len(all))}
	for _, one := range all {
		out.Revocations = append(out.Revocations, s.outOfReach(r.Context(), v, one))
	}
	return web.Write(w, http.StatusOK, out)
}

func (s *Server) lift(v Revoker, w http.ResponseWriter, r *http.Request, caller mandate.CallerID) error {
	if _, err := web.Read[struct{}](w, r); err != nil {
		return err
	}
	id := r.PathValue("id")
	if !mandate.Name(id) {
		return mandate.Invalid("id", "must be the id of a revocation")
	}
	if err := s.change(r.Context(), mandate.Record{Caller: caller, Detail: "lift revocation " + id}, func() error { return v.Lift(r.Context(), id) }); err != nil {
		return err
	}
	return web.Write(w, http.StatusOK, okAnswer)
}

// Revoke puts a revocation in force.
func (c *Client) Revoke(ctx context.Context, in RevokeRequest) (Revoked, error) {
	return exchange[Revoked](ctx, c, "POST", "/v1/revocations", in)
}

// Revocations returns those in force, the oldest first.
func (c *Client) Revocations(ctx context.Context) ([]Revoked, error) {
	out, err := exchange[revocationsAnswer](ctx, c, "GET", "/v1/revocations", nil)
	return out.Revocations, err
}

// Lift ends a revocation.
func (c *Client) Lift(ctx context.Context, id string) error {
	_, err := exchange[map[string]bool](ctx, c, "POST", "/v1/revocations/"+url.PathEscape(id)+"/lift", struct{}{})
	return err
}
