package api

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
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

// A Partner is a partner and the state of its consent.
type Partner struct {
	Name            string           `json:"name"`
	DisplayName     string           `json:"display_name,omitempty"`
	Tenant          mandate.TenantID `json:"tenant"`
	Cloud           string           `json:"cloud"`
	Application     mandate.AppID    `json:"application"`
	ApplicationName string           `json:"application_name,omitempty"`
	Created         time.Time        `json:"created"`
	Grant           *Grant           `json:"grant,omitempty"` // nil if the partner never consented
}

// A Grant is what a consent gave, without its token. Of a grant that is not
// active only the generation and the state are known.
type Grant struct {
	Generation  int64                     `json:"generation"`
	State       mandate.State             `json:"state"`
	User        mandate.Identity          `json:"user,omitzero"`
	UserName    string                    `json:"user_name,omitempty"`
	Consented   time.Time                 `json:"consented,omitzero"`
	Until       time.Time                 `json:"until,omitzero"`
	Redeemed    time.Time                 `json:"redeemed,omitzero"`
	Evidence    *mandate.Evidence         `json:"evidence,omitempty"`
	Audiences   []mandate.GrantedAudience `json:"audiences,omitempty"`
	AgentGroups []string                  `json:"agent_groups,omitempty"`
}

// An InviteRequest is the body of POST /v1/partners.
type InviteRequest struct {
	Name        string `json:"name"`                   // short name
	Tenant      string `json:"tenant"`                 // tenant id
	Application string `json:"application,omitempty"`  // may be left out if there is only one
	DisplayName string `json:"display_name,omitempty"` //
	User        string `json:"user,omitempty"`         // UPN or object id of who is to consent
	AnyUser     bool   `json:"any_user,omitempty"`     // instead of User
	Term        int64  `json:"term,omitempty"`         // seconds that the grant may last; a year if 0
	Expires     int64  `json:"expires,omitempty"`      // seconds that the link is good for; three days if 0
}

// An Invitation is an [InviteRequest] in the domain's terms.
type Invitation struct {
	Partner mandate.Partner // without Created
	User    string          // empty lets any user of the tenant consent
	Term    time.Duration
	Expires time.Duration
	By      mandate.CallerID
}

// An Invited is the answer to an invitation. The link is shown once: the
// server keeps a hash of it.
type Invited struct {
	Partner Partner   `json:"partner"`
	Link    string    `json:"link"`
	Expires time.Time `json:"expires"`
}

// A Caller is a registered workload.
type Caller struct {
	ID      mandate.CallerID `json:"id"`
	Created time.Time        `json:"created"`
}

// A callerRequest is the body of POST /v1/callers.
type callerRequest struct {
	ID string `json:"id"`
}

// A callerAnswer is the answer to it, as it goes over the wire.
type callerAnswer struct {
	ID     mandate.CallerID `json:"id"`
	Secret string           `json:"secret"`
}

// A Status is what a server says of itself.
type Status struct {
	Version      string           `json:"version"`
	Started      time.Time        `json:"started"`
	Ready        bool             `json:"ready"`
	Reason       string           `json:"reason,omitempty"` // why it is not ready
	Records      int64            `json:"records"`          // in the audit log
	Applications []string         `json:"applications"`
	Audiences    []string         `json:"audiences"` // aliases
	Caller       mandate.CallerID `json:"caller"`    // who asked
}

type partnersAnswer struct {
	Partners []Partner `json:"partners"`
}

type callersAnswer struct {
	Callers []Caller `json:"callers"`
}

// cloud returns the cloud of a partner. One that is not there is a fault of
// the wiring.
func (s *Server) cloud(p mandate.Partner) (*mandate.Cloud, error) {
	cloud, ok := s.cfg.Clouds[p.Key.Cloud]
	if !ok {
		return nil, fmt.Errorf("partner %s is in cloud %q, which is not configured", p.Name, p.Key.Cloud)
	}
	return &cloud, nil
}

// change records what an operator is about to change, and then does it. What
// cannot be recorded is not done; what was recorded and then failed is
// recorded as failed.
func (s *Server) change(ctx context.Context, rec mandate.Record, do func() error) error {
	var err error
	if rec.Epoch, err = s.cfg.Epoch.Epoch(); err != nil {
		return err
	}
	rec.Kind = mandate.KindChanged
	if _, err := s.cfg.Recorder.Record(ctx, rec); err != nil {
		return fmt.Errorf("record change: %w", err)
	}
	if err = do(); err == nil {
		return nil
	}
	rec.Kind, rec.Reason = mandate.KindFailed, err.Error()
	if _, rerr := s.cfg.Recorder.Record(context.WithoutCancel(ctx), rec); rerr != nil {
		return errors.Join(err, rerr)
	}
	return err
}

func (s *Server) listPartners(w http.ResponseWriter, r *http.Request, _ mandate.CallerID) error {
	all, err := s.cfg.Registry.Partners(r.Context())
	if err != nil {
		return err
	}
	out := partnersAnswer{Partners: make([]Partner, 0, len(all))}
	for _, p := range all {
		v, err := s.describe(r.Context(), p)
		if err != nil {
			return err
		}
		out.Partners = append(out.Partners, v)
	}
	return web.Write(w, http.StatusOK, out)
}

func (s *Server) showPartner(w http.ResponseWriter, r *http.Request, _ mandate.CallerID) error {
	name := r.PathValue("partner")
	if !mandate.Name(name) {
		return mandate.Invalid("partner", "must be a partner's short name or tenant id")
	}
	p, err := s.cfg.Partners.Partner(name)
	if err != nil {
		return err
	}
	v, err := s.describe(r.Context(), p)
	if err != nil {
		return err
	}
	return web.Write(w, http.StatusOK, v)
}

// describe returns p with the state of its grant.
func (s *Server) describe(ctx context.Context, p mandate.Partner) (Partner, error) {
	v := Partner{
		Name: p.Name, DisplayName: p.DisplayName, Tenant: p.Key.Partner, Cloud: p.Key.Cloud,
		Application: p.Key.Application, Created: p.Created,
	}
	for _, a := range s.cfg.Applications {
		if a.ID == p.Key.Application && a.Cloud == p.Key.Cloud {
			v.ApplicationName = a.Name
		}
	}
	g, err := s.cfg.Grants.Head(ctx, p.Key)
	var none *mandate.NoGrantError
	switch {
	case errors.As(err, &none):
		if none.State != "" {
			v.Grant = &Grant{Generation: none.Generation, State: none.State}
		}
		return v, nil
	case err != nil:
		return v, fmt.Errorf("read grant of %s: %w", p.Name, err)
	}
	v.Grant = &Grant{
		Generation: g.Generation, State: g.State, User: g.User, UserName: g.UserName, Consented: g.Consented,
		Until: g.Until, Redeemed: g.Redeemed, Evidence: &g.Evidence, Audiences: g.Audiences, AgentGroups: g.AgentGroups,
	}
	return v, nil
}

func (s *Server) invite(w http.ResponseWriter, r *http.Request, caller mandate.CallerID) error {
	in, err := web.Read[InviteRequest](w, r)
	if err != nil {
		return err
	}
	inv, err := s.parseInvite(in)
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
	var link mandate.Secret
	if err := s.change(r.Context(), rec, func() (err error) {
		link, err = s.cfg.Registry.Invite(r.Context(), inv)
		return err
	}); err != nil {
		return err
	}
	v, err := s.describe(r.Context(), inv.Partner)
	if err != nil {
		return err
	}
	return web.Write(w, http.StatusCreated, Invited{Partner: v, Link: link.Reveal(), Expires: expires})
}

// parseInvite turns what an operator wrote into the domain's terms.
func (s *Server) parseInvite(in InviteRequest) (Invitation, error) {
	inv := Invitation{Partner: mandate.Partner{Name: in.Name, DisplayName: cmp.Or(in.DisplayName, in.Name)}, User: in.User}
	if err := checkPartnerName(in.Name); err != nil {
		return inv, err
	}
	tenant, err := mandate.ParseTenantID(in.Tenant)
	if err != nil {
		return inv, err
	}
	app, err := s.application(in.Application)
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

func (s *Server) listCallers(w http.ResponseWriter, r *http.Request, _ mandate.CallerID) error {
	all, err := s.cfg.Callers.Callers(r.Context())
	if err != nil {
		return err
	}
	return web.Write(w, http.StatusOK, callersAnswer{append([]Caller{}, all...)})
}

func (s *Server) addCaller(w http.ResponseWriter, r *http.Request, caller mandate.CallerID) error {
	in, err := web.Read[callerRequest](w, r)
	if err != nil {
		return err
	}
	// A colon would end the id in HTTP Basic, and would let a workload pass
	// for an operator: theirs are "uid:N".
	if !mandate.Name(in.ID) || strings.Contains(in.ID, ":") {
		return mandate.Invalid("id", "must be a name of at most 64 letters, digits, '-', '_' or '.', such as billing")
	}
	var secret mandate.Secret
	rec := mandate.Record{Caller: caller, Detail: "add caller " + in.ID}
	if err := s.change(r.Context(), rec, func() (err error) {
		secret, err = s.cfg.Callers.AddCaller(r.Context(), mandate.CallerID(in.ID))
		return err
	}); err != nil {
		return err
	}
	return web.Write(w, http.StatusCreated, callerAnswer{mandate.CallerID(in.ID), secret.Reveal()})
}

func (s *Server) status(w http.ResponseWriter, r *http.Request, caller mandate.CallerID) error {
	st := Status{Version: s.cfg.Version, Started: s.started.UTC(), Ready: true, Records: s.cfg.Audit.Count(), Caller: caller}
	if err := s.cfg.Ready(r.Context()); err != nil {
		st.Ready, st.Reason = false, err.Error()
	}
	st.Audiences = []string{}
	for _, a := range s.cfg.Applications {
		st.Applications = append(st.Applications, a.Name)
		for alias := range s.cfg.Clouds[a.Cloud].Audiences {
			st.Audiences = append(st.Audiences, alias)
		}
	}
	slices.Sort(st.Audiences)
	st.Audiences = slices.Compact(st.Audiences)
	return web.Write(w, http.StatusOK, st)
}
