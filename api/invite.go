package api

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/internal/web"
)

// Limits of an invitation.
const (
	maxPartnerName = 63
	maxDisplayName = 128 // bytes
	maxUser        = 256 // bytes
	defaultTerm    = 365 * 24 * time.Hour
	minTerm        = 24 * time.Hour
	maxTerm        = 366 * 24 * time.Hour
	defaultExpires = 72 * time.Hour
	minExpires     = 5 * time.Minute
	maxExpires     = 30 * 24 * time.Hour
)

// An InviteRequest is the body of POST /v1/partners.
type InviteRequest struct {
	Name        string `json:"name"`                   // short name
	Tenant      string `json:"tenant"`                 // tenant id, or a domain of the tenant
	Application string `json:"application,omitempty"`  // may be left out if there is only one
	DisplayName string `json:"display_name,omitempty"` //
	User        string `json:"user,omitempty"`         // UPN or object id of who is to consent
	AnyUser     bool   `json:"any_user,omitempty"`     // instead of User
	Term        int64  `json:"term,omitempty"`         // seconds that the grant may last; a year if 0
	Expires     int64  `json:"expires,omitempty"`      // seconds that the link is good for; three days if 0
	Compromised bool   `json:"compromised,omitempty"`  // a renewal because the user's account was compromised
}

// An Invitation is an [InviteRequest] in the domain's terms.
type Invitation struct {
	Partner mandate.Partner // without Created
	User    string          // empty lets any user of the tenant consent
	Term    time.Duration
	Expires time.Duration
	By      mandate.CallerID

	// Compromised has what the renewal replaces destroyed at once.
	Compromised bool
}

// An Invited is the answer to an invitation. The link is shown once: the
// server keeps a hash of it.
type Invited struct {
	Partner Partner   `json:"partner"`
	Link    string    `json:"link"`
	Expires time.Time `json:"expires"`
}

// invite is POST /v1/partners.
func (s *Server) invite(w http.ResponseWriter, r *http.Request, caller mandate.CallerID) error {
	in, err := web.Read[InviteRequest](w, r)
	if err != nil {
		return err
	}
	inv, err := s.parseInvite(r.Context(), in)
	if err != nil {
		return err
	}
	inv.By = caller
	whom := "a named user"
	if in.AnyUser {
		whom = "any user"
	}
	expires := time.Now().Add(inv.Expires).UTC().Truncate(time.Second)
	rec := mandate.Record{
		Caller: caller, Partner: inv.Partner.Name, Grant: &inv.Partner.Key, Tenant: inv.Partner.Key.Partner, Expires: expires,
		Detail: fmt.Sprintf("invite partner %s: %s, for %d days", inv.Partner.Name, whom, int(inv.Term.Hours()/24)),
	}
	if inv.Compromised {
		rec.Detail += ", because the user's account was compromised"
	}
	var link mandate.Secret
	var partner mandate.Partner
	if err := s.change(r.Context(), rec, func() (err error) {
		partner, link, err = s.cfg.Registry.Invite(r.Context(), inv)
		return err
	}); err != nil {
		return err
	}
	v, err := s.describe(r.Context(), partner)
	if err != nil {
		return err
	}
	return web.Write(w, http.StatusCreated, Invited{Partner: v, Link: link.Reveal(), Expires: expires})
}

// parseInvite turns what an operator wrote into the domain's terms.
func (s *Server) parseInvite(ctx context.Context, in InviteRequest) (Invitation, error) {
	inv := Invitation{Partner: mandate.Partner{Name: in.Name, DisplayName: cmp.Or(in.DisplayName, in.Name)}, User: in.User, Compromised: in.Compromised}
	if err := checkPartnerName(in.Name); err != nil {
		return inv, err
	}
	app, err := s.application(in.Application)
	if err != nil {
		return inv, err
	}
	tenant, err := s.tenant(ctx, app, in.Tenant)
	if err != nil {
		return inv, err
	}
	inv.Partner.Key = mandate.GrantKey{Cloud: app.Cloud, Application: app.ID, Partner: tenant}
	if len(in.DisplayName) > maxDisplayName || !printable(in.DisplayName) {
		return inv, mandate.Invalid("display_name", "must be at most %d bytes of printable text", maxDisplayName)
	}
	if err := checkUser(in.User, in.AnyUser); err != nil {
		return inv, err
	}
	if inv.Term, err = period("term", in.Term, defaultTerm, minTerm, maxTerm); err != nil {
		return inv, err
	}
	inv.Expires, err = period("expires", in.Expires, defaultExpires, minExpires, maxExpires)
	return inv, err
}

// tenant returns the tenant that an operator wrote. A domain is looked up, once:
// from here on only the id counts, and the answer shows it.
func (s *Server) tenant(ctx context.Context, app Application, written string) (mandate.TenantID, error) {
	if !strings.Contains(written, ".") {
		return mandate.ParseTenantID(written)
	}
	return s.cfg.Tenants.Tenant(ctx, mandate.GrantKey{Cloud: app.Cloud, Application: app.ID}, written)
}

// checkPartnerName keeps names and tenant ids apart, because either finds a
// partner.
func checkPartnerName(name string) error {
	if name == "" || len(name) > maxPartnerName || strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" || name[0] == '-' {
		return mandate.Invalid("name", "must be at most %d of a-z, 0-9 and '-', not beginning with '-', such as contoso", maxPartnerName)
	}
	if _, err := mandate.ParseTenantID(name); err == nil {
		return mandate.Invalid("name", "must not look like a tenant id")
	}
	return nil
}

// application returns the application of that name or client id; with an
// empty name, the only one.
func (s *Server) application(name string) (Application, error) {
	var names []string
	for _, a := range s.cfg.Applications {
		if a.Name == name || a.ID.String() == strings.ToLower(name) {
			return a, nil
		}
		names = append(names, a.Name)
	}
	if name == "" && len(s.cfg.Applications) == 1 {
		return s.cfg.Applications[0], nil
	}
	if name == "" {
		return Application{}, mandate.Invalid("application", "is required; use one of %s", strings.Join(names, ", "))
	}
	return Application{}, mandate.Invalid("application", "%.60q is not configured; use one of %s", name, strings.Join(names, ", "))
}

// checkUser wants a user, or an explicit word that anybody will do.
func checkUser(user string, anyUser bool) error {
	switch {
	case user == "" && !anyUser:
		return mandate.Invalid("user", "is required: say who is to consent, or set any_user")
	case user != "" && anyUser:
		return mandate.Invalid("user", "cannot be given together with any_user")
	case anyUser:
		return nil
	}
	if _, err := mandate.ParseObjectID(user); err == nil {
		return nil
	}
	local, domain, ok := strings.Cut(user, "@")
	if !ok || local == "" || !strings.Contains(domain, ".") || strings.ContainsAny(domain, "@ ") || len(user) > maxUser || !printable(user) || strings.Contains(local, " ") {
		return mandate.Invalid("user", "%.80q is neither a user name, such as ada@contoso.example, nor an object id", user)
	}
	return nil
}

// period returns seconds as a duration, which must be from low to high.
func period(field string, seconds int64, otherwise, low, high time.Duration) (time.Duration, error) {
	if seconds == 0 {
		return otherwise, nil
	}
	if seconds < int64(low.Seconds()) || seconds > int64(high.Seconds()) {
		return 0, mandate.Invalid(field, "must be from %d to %d seconds", int64(low.Seconds()), int64(high.Seconds()))
	}
	return time.Duration(seconds) * time.Second, nil
}

func printable(s string) bool {
	return utf8.ValidString(s) && strings.IndexFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) < 0
}
