package api

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/internal/web"
)

// Life is what operators do with grants; [mandate.Broker] is one. Everything
// that it does is recorded before it is done.
type Life interface {
	Suspend(context.Context, mandate.Partner, mandate.By) (mandate.Receipt, error)
	Resume(context.Context, mandate.Partner, mandate.By) (mandate.Receipt, error)
	Rollback(context.Context, mandate.Partner, mandate.By) (mandate.Grant, mandate.Receipt, error)
	Approve(ctx context.Context, p mandate.Partner, generation int64, by mandate.By) (mandate.Grant, mandate.Receipt, error)
	Discard(ctx context.Context, p mandate.Partner, generation int64, by mandate.By) (mandate.Receipt, error)
	Withdraw(ctx context.Context, p mandate.Partner, endSessions bool, by mandate.By) (mandate.Withdrawal, error)
	Import(context.Context, mandate.Import) (mandate.Grant, mandate.Receipt, error)

	// Grants returns every generation of a partner's grants, the newest first;
	// of all partners if the ID is zero.
	Grants(context.Context, mandate.TenantID) ([]mandate.Grant, error)

	// Window is after how long without a redemption a refresh token lapses.
	Window() time.Duration
}

// A Grant is one generation of a partner's grant, without its token. Of a
// partner's description only generation and state are known unless the grant
// is active.
type Grant struct {
	Generation  int64                     `json:"generation"`
	State       mandate.State             `json:"state"`
	Origin      string                    `json:"origin,omitempty"`
	User        mandate.Identity          `json:"user,omitzero"`
	UserName    string                    `json:"user_name,omitempty"`
	Consented   time.Time                 `json:"consented,omitzero"`
	Until       time.Time                 `json:"until,omitzero"`
	Redeemed    time.Time                 `json:"redeemed,omitzero"`
	Lapses      time.Time                 `json:"lapses,omitzero"`   // if nothing redeems it
	Deadline    time.Time                 `json:"deadline,omitzero"` // of a candidate or fall-back
	Due         time.Time                 `json:"due,omitzero"`      // the next keep-alive
	Attempted   time.Time                 `json:"attempted,omitzero"`
	Failures    int                       `json:"failures,omitempty"` // of keep-alives since one succeeded
	LastFault   string                    `json:"last_fault,omitempty"`
	Evidence    *mandate.Evidence         `json:"evidence,omitempty"`
	Audiences   []mandate.GrantedAudience `json:"audiences,omitempty"`
	AgentGroups []string                  `json:"agent_groups,omitempty"`
}

// view returns g as it goes over the wire.
func (s *Server) view(g *mandate.Grant) *Grant {
	v := &Grant{
		Generation: g.Generation, State: g.State, Origin: g.Origin, User: g.User, UserName: g.UserName, Consented: g.Consented,
		Until: g.Until, Redeemed: g.Redeemed, Deadline: g.Fallback, Evidence: &g.Evidence, Audiences: g.Audiences, AgentGroups: g.AgentGroups,
	}
	switch g.State {
	case mandate.StateActive:
		v.Due, v.Attempted, v.Failures, v.LastFault = g.Due, g.Attempted, g.Failures, g.LastFault
		fallthrough
	case mandate.StateSuspended, mandate.StateCandidate, mandate.StateFallback:
		v.Lapses = g.Lapses(s.cfg.Life.Window())
	}
	return v
}

// A PartnerGrant is how a partner's consent stands.
type PartnerGrant struct {
	Partner   string           `json:"partner"` // short name
	Tenant    mandate.TenantID `json:"tenant"`
	Grant     *Grant           `json:"grant,omitempty"`     // active or suspended, or else the last that was; nil if none ever was
	Candidate *Grant           `json:"candidate,omitempty"` // waits for a decision
	Fallback  *Grant           `json:"fallback,omitempty"`  // may stand in for Grant
}

// A History is every generation of a partner's grant.
type History struct {
	Partner     string           `json:"partner"`
	Tenant      mandate.TenantID `json:"tenant"`
	Generations []Grant          `json:"generations"` // the newest first
}

type grantsAnswer struct {
	Grants []PartnerGrant `json:"grants"`
}

// listGrants is GET /v1/grants.
func (s *Server) listGrants(w http.ResponseWriter, r *http.Request, _ mandate.CallerID) error {
	partners, err := s.cfg.Registry.Partners(r.Context())
	if err != nil {
		return err
	}
	all, err := s.cfg.Life.Grants(r.Context(), mandate.TenantID{})
	if err != nil {
		return fmt.Errorf("list grants: %w", err)
	}
	of := make(map[mandate.GrantKey][]mandate.Grant)
	for _, g := range all {
		of[g.Key] = append(of[g.Key], g)
	}
	out := grantsAnswer{Grants: make([]PartnerGrant, 0, len(partners))}
	for _, p := range partners {
		out.Grants = append(out.Grants, s.standing(p, of[p.Key]))
	}
	return web.Write(w, http.StatusOK, out)
}

// standing picks from a partner's generations, the newest first, those that
// matter.
func (s *Server) standing(p mandate.Partner, all []mandate.Grant) PartnerGrant {
	v := PartnerGrant{Partner: p.Name, Tenant: p.Key.Partner}
	now := time.Now()
	for i := range all {
		g := &all[i]
		waits := now.Before(g.Fallback)
		switch {
		case g.State == mandate.StateCandidate && waits:
			v.Candidate = s.view(g)
		case g.State == mandate.StateFallback && waits:
			v.Fallback = s.view(g)
		case g.State == mandate.StateActive || g.State == mandate.StateSuspended:
			v.Grant = s.view(g)
		case v.Grant == nil && g.State != mandate.StateCandidate && g.State != mandate.StateDiscarded:
			v.Grant = s.view(g)
		}
	}
	return v
}

// showGrant is GET /v1/grants/{partner}.
func (s *Server) showGrant(w http.ResponseWriter, r *http.Request, _ mandate.CallerID) error {
	p, err := s.partnerOf(r)
	if err != nil {
		return err
	}
	all, err := s.grantsOf(r.Context(), p)
	if err != nil {
		return err
	}
	out := History{Partner: p.Name, Tenant: p.Key.Partner, Generations: make([]Grant, 0, len(all))}
	for i := range all {
		out.Generations = append(out.Generations, *s.view(&all[i]))
	}
	return web.Write(w, http.StatusOK, out)
}

// grantsOf returns the generations of just this partner's grant: its tenant
// may have given others to another application.
func (s *Server) grantsOf(ctx context.Context, p mandate.Partner) ([]mandate.Grant, error) {
	all, err := s.cfg.Life.Grants(ctx, p.Key.Partner)
	if err != nil {
		return nil, fmt.Errorf("list grants of %s: %w", p.Name, err)
	}
	var out []mandate.Grant
	for _, g := range all {
		if g.Key == p.Key {
			out = append(out, g)
		}
	}
	return out, nil
}

// partnerOf returns the partner that the path names.
func (s *Server) partnerOf(r *http.Request) (mandate.Partner, error) {
	name := r.PathValue("partner")
	if !mandate.Name(name) {
		return mandate.Partner{}, mandate.Invalid("partner", "must be a partner's short name or tenant id")
	}
	return s.cfg.Partners.Partner(name)
}
