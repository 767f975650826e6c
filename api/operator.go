package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/internal/web"
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

// cloud returns the cloud of a partner. One that is not there is a fault of
// the wiring.
func (s *Server) cloud(p mandate.Partner) (mandate.Cloud, error) {
	cloud, ok := s.cfg.Clouds[p.Key.Cloud]
	if !ok {
		return cloud, fmt.Errorf("partner %s is in cloud %q, which is not configured", p.Name, p.Key.Cloud)
	}
	return cloud, nil
}

// change records what an operator is about to change, and then does it.
func (s *Server) change(ctx context.Context, rec mandate.Record, do func() error) error {
	_, err := mandate.Change(ctx, s.cfg.Recorder, s.cfg.Epoch, rec, do)
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
	p, err := s.partnerOf(r)
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
	v.Grant = s.view(&g)
	return v, nil
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
