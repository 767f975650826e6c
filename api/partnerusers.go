package api

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/internal/web"
)

// PartnerUsers gives people of partners roles on the partner's pages.
type PartnerUsers interface {
	// PartnerUsers returns who has roles, by object ID.
	PartnerUsers(context.Context, mandate.GrantKey) ([]mandate.PartnerUser, error)

	// AllowPartnerUser gives somebody a role, and raises the epoch.
	AllowPartnerUser(ctx context.Context, k mandate.GrantKey, user mandate.ObjectID, role, by string) error

	// RefusePartnerUser takes every role from somebody, and raises the epoch.
	// The error wraps [mandate.ErrNotFound] if there was none.
	RefusePartnerUser(context.Context, mandate.GrantKey, mandate.ObjectID) error
}

// An AllowRequest is the body of POST /v1/partners/{partner}/users.
type AllowRequest struct {
	User   string `json:"user"`             // object id, of the partner's tenant
	Role   string `json:"role"`             // one of [mandate.PartnerRoles]
	Ticket string `json:"ticket,omitempty"` // reference, for the record
}

// A DisallowRequest is the body of POST /v1/partners/{partner}/users/disallow.
type DisallowRequest struct {
	User   string `json:"user"` // object id
	Ticket string `json:"ticket,omitempty"`
}

type partnerUsersAnswer struct {
	Users []mandate.PartnerUser `json:"users"`
}

// partnerUserRoutes are about the people of partners.
var partnerUserRoutes = []route{
	{"GET", "/v1/partners/{partner}/users", (*Server).listPartnerUsers},
	{"POST", "/v1/partners/{partner}/users", (*Server).allowPartnerUser},
	{"POST", "/v1/partners/{partner}/users/disallow", (*Server).disallowPartnerUser},
}

func (s *Server) partnerUsers() (PartnerUsers, error) {
	if s.cfg.PartnerUsers == nil {
		return nil, fmt.Errorf("%w: this server has no pages for partners", mandate.ErrNotFound)
	}
	return s.cfg.PartnerUsers, nil
}

// listPartnerUsers is GET /v1/partners/{partner}/users.
func (s *Server) listPartnerUsers(w http.ResponseWriter, r *http.Request, _ mandate.CallerID) error {
	users, err := s.partnerUsers()
	if err != nil {
		return err
	}
	p, err := s.partnerOf(r)
	if err != nil {
		return err
	}
	return writePartnerUsers(w, r, users, p)
}

// writePartnerUsers answers with who has roles now.
func writePartnerUsers(w http.ResponseWriter, r *http.Request, users PartnerUsers, p mandate.Partner) error {
	all, err := users.PartnerUsers(r.Context(), p.Key)
	if err != nil {
		return err
	}
	return web.Write(w, http.StatusOK, partnerUsersAnswer{append([]mandate.PartnerUser{}, all...)})
}

// allowPartnerUser is POST /v1/partners/{partner}/users.
func (s *Server) allowPartnerUser(w http.ResponseWriter, r *http.Request, caller mandate.CallerID) error {
	users, err := s.partnerUsers()
	if err != nil {
		return err
	}
	in, p, by, err := begin(s, w, r, caller, func(in *AllowRequest) string { return in.Ticket })
	if err != nil {
		return err
	}
	user, err := mandate.ParseObjectID(in.User)
	if err != nil {
		return mandate.Invalid("user", "must be the object id of somebody in the partner's tenant; user names change hands")
	}
	if !slices.Contains(mandate.PartnerRoles(), in.Role) {
		return mandate.Invalid("role", "%.40q is none of %s", in.Role, strings.Join(mandate.PartnerRoles(), ", "))
	}
	n := mandate.Notice{Kind: mandate.NoticePeople, Partner: p.Name, Grant: &p.Key, Who: shown(r.Context(), by.Caller), About: "user " + user.String() + " is a " + in.Role + " now"}
	if err := mandate.Tell(r.Context(), s.cfg.Notifier, n, func() error {
		return s.change(r.Context(), recordOf(p, by, user, "allow somebody of the partner on its pages, as "+in.Role), func() error {
			return users.AllowPartnerUser(r.Context(), p.Key, user, in.Role, string(caller))
		})
	}); err != nil {
		return err
	}
	return writePartnerUsers(w, r, users, p)
}

// disallowPartnerUser is POST /v1/partners/{partner}/users/disallow.
func (s *Server) disallowPartnerUser(w http.ResponseWriter, r *http.Request, caller mandate.CallerID) error {
	users, err := s.partnerUsers()
	if err != nil {
		return err
	}
	in, p, by, err := begin(s, w, r, caller, func(in *DisallowRequest) string { return in.Ticket })
	if err != nil {
		return err
	}
	user, err := mandate.ParseObjectID(in.User)
	if err != nil {
		return mandate.Invalid("user", "must be an object id")
	}
	if err := s.change(r.Context(), recordOf(p, by, user, "take all roles on the partner's pages from somebody"), func() error {
		return users.RefusePartnerUser(r.Context(), p.Key, user)
	}); err != nil {
		return err
	}
	return writePartnerUsers(w, r, users, p)
}

// recordOf is the record of a change about somebody of a partner.
func recordOf(p mandate.Partner, by mandate.By, user mandate.ObjectID, detail string) mandate.Record {
	return mandate.Record{
		Caller: by.Caller, Address: by.Address, Ticket: by.Ticket, Partner: p.Name, Grant: &p.Key, Tenant: p.Key.Partner,
		User: &mandate.Identity{Tenant: p.Key.Partner, Object: user}, Detail: detail,
	}
}

// PartnerUsers returns who has roles on a partner's pages.
func (c *Client) PartnerUsers(ctx context.Context, nameOrID string) ([]mandate.PartnerUser, error) {
	return c.exchangeUsers(ctx, "GET", nameOrID, "", nil)
}

// AllowPartnerUser gives somebody of a partner a role on its pages, and
// returns who has any then.
func (c *Client) AllowPartnerUser(ctx context.Context, nameOrID string, in AllowRequest) ([]mandate.PartnerUser, error) {
	return c.exchangeUsers(ctx, "POST", nameOrID, "", in)
}

// DisallowPartnerUser takes every role from somebody of a partner, and returns
// who has any then.
func (c *Client) DisallowPartnerUser(ctx context.Context, nameOrID string, in DisallowRequest) ([]mandate.PartnerUser, error) {
	return c.exchangeUsers(ctx, "POST", nameOrID, "/disallow", in)
}

func (c *Client) exchangeUsers(ctx context.Context, method, nameOrID, more string, in any) ([]mandate.PartnerUser, error) {
	if !mandate.Name(nameOrID) {
		return nil, mandate.Invalid("partner", "must be a partner's short name or tenant id")
	}
	a, err := exchange[partnerUsersAnswer](ctx, c, method, "/v1/partners/"+url.PathEscape(nameOrID)+"/users"+more, in)
	return a.Users, err
}
