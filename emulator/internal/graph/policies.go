package graph

import (
	"encoding/json"
	"net/http"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/mandate-sam/mandate/emulator/directory"
)

// policyBody is a token lifetime policy as clients send it.
type policyBody struct {
	DisplayName *string  `json:"displayName"`
	Definition  []string `json:"definition"`
	Default     *bool    `json:"isOrganizationDefault"`
}

func (b policyBody) apply(p *directory.TokenLifetime) error {
	if b.DisplayName != nil {
		p.Name = *b.DisplayName
	}
	if b.Default != nil {
		p.Default = *b.Default
	}
	if b.Definition != nil {
		life, good := lifetime(b.Definition)
		if !good {
			return invalid("Invalid value specified for property 'definition' of resource 'TokenLifetimePolicy'.")
		}
		p.Definition, p.Access = b.Definition, life
	}
	return nil
}

// lifetime reads the one string of a definition, which is JSON. An access
// token can live from ten minutes to a day.
func lifetime(definition []string) (time.Duration, bool) {
	var d struct {
		TokenLifetimePolicy *struct {
			Version             int
			AccessTokenLifetime string
		}
	}
	if len(definition) != 1 || json.Unmarshal([]byte(definition[0]), &d) != nil || d.TokenLifetimePolicy == nil || d.TokenLifetimePolicy.Version != 1 {
		return 0, false
	}
	text := d.TokenLifetimePolicy.AccessTokenLifetime
	if text == "" {
		return 0, true
	}
	life, good := timeSpan(text)
	return life, good && life >= 10*time.Minute && life <= 24*time.Hour
}

// timeSpan reads "8:00:00" and "1.00:00:00".
func timeSpan(text string) (time.Duration, bool) {
	var days uint64
	if d, rest, has := strings.Cut(text, "."); has {
		var err error
		if days, err = strconv.ParseUint(d, 10, 16); err != nil {
			return 0, false
		}
		text = rest
	}
	parts := strings.Split(text, ":")
	if len(parts) != 3 {
		return 0, false
	}
	total := time.Duration(days) * 24 * time.Hour
	for i, unit := range []time.Duration{time.Hour, time.Minute, time.Second} {
		n, err := strconv.ParseUint(parts[i], 10, 8)
		if err != nil || n > 59 {
			return 0, false
		}
		total += time.Duration(n) * unit
	}
	return total, true
}

func policyObject(p directory.TokenLifetime) map[string]any {
	return map[string]any{
		"id": p.ID, "displayName": p.Name, "definition": list(p.Definition), "isOrganizationDefault": p.Default, "deletedDateTime": nil,
	}
}

func (s *Server) policies(c call) (reply, error) {
	return ok(page(c, "policies/tokenLifetimePolicies", s.cfg.Directory.TokenLifetimes(c.tenant.ID), policyObject))
}

func (s *Server) createPolicy(c call) (reply, error) {
	var in policyBody
	if err := c.read(&in); err != nil {
		return reply{}, err
	}
	if in.DisplayName == nil || in.Definition == nil {
		return reply{}, invalid("A value is required for properties 'displayName' and 'definition' of resource 'TokenLifetimePolicy'.")
	}
	p := directory.TokenLifetime{ID: s.cfg.Chance.GUID()}
	if err := in.apply(&p); err != nil {
		return reply{}, err
	}
	s.cfg.Directory.SetTokenLifetime(c.tenant.ID, p)
	body := policyObject(p)
	body["@odata.context"] = context + "policies/tokenLifetimePolicies/$entity"
	return reply{status: http.StatusCreated, body: body}, nil
}

// policyNamed is the tenant's policy with that id.
func (s *Server) policyNamed(c call, id string) (directory.TokenLifetime, error) {
	for _, p := range s.cfg.Directory.TokenLifetimes(c.tenant.ID) {
		if strings.EqualFold(p.ID, id) {
			return p, nil
		}
	}
	return directory.TokenLifetime{}, errNotFound
}

func (s *Server) policy(c call) (reply, error) {
	p, err := s.policyNamed(c, c.PathValue("id"))
	if err != nil {
		return reply{}, err
	}
	return one(c, "policies/tokenLifetimePolicies", policyObject(p))
}

func (s *Server) patchPolicy(c call) (reply, error) {
	p, err := s.policyNamed(c, c.PathValue("id"))
	if err != nil {
		return reply{}, err
	}
	var in policyBody
	if err := c.read(&in); err != nil {
		return reply{}, err
	}
	if err := in.apply(&p); err != nil {
		return reply{}, err
	}
	s.cfg.Directory.SetTokenLifetime(c.tenant.ID, p)
	return done, nil
}

func (s *Server) deletePolicy(c call) (reply, error) {
	p, err := s.policyNamed(c, c.PathValue("id"))
	if err != nil {
		return reply{}, err
	}
	s.cfg.Directory.RemoveTokenLifetime(c.tenant.ID, p.ID)
	return done, nil
}

func (s *Server) assignedPolicies(c call) (reply, error) {
	a, err := s.mine(c)
	if err != nil {
		return reply{}, err
	}
	r, _ := s.cfg.Directory.Registration(a.ID)
	assigned := slices.DeleteFunc(s.cfg.Directory.TokenLifetimes(c.tenant.ID), func(p directory.TokenLifetime) bool {
		return !slices.Contains(r.Policies, p.ID)
	})
	return ok(page(c, "policies/tokenLifetimePolicies", assigned, policyObject))
}

// assignPolicy gives the application a policy, named by its URL. It can have
// one of each kind.
func (s *Server) assignPolicy(c call) (reply, error) {
	a, err := s.mine(c)
	if err != nil {
		return reply{}, err
	}
	var in struct {
		ID string `json:"@odata.id"`
	}
	if err := c.read(&in); err != nil {
		return reply{}, err
	}
	p, err := s.policyNamed(c, path.Base(in.ID))
	if err != nil {
		return reply{}, err
	}
	if r, _ := s.cfg.Directory.Registration(a.ID); len(r.Policies) > 0 {
		return reply{}, invalid("A policy of this type is assigned to the application already.")
	}
	return done, s.setPolicies(a, []string{p.ID})
}

func (s *Server) unassignPolicy(c call) (reply, error) {
	a, err := s.mine(c)
	if err != nil {
		return reply{}, err
	}
	r, _ := s.cfg.Directory.Registration(a.ID)
	if !slices.Contains(r.Policies, strings.ToLower(c.PathValue("policy"))) {
		return reply{}, errNotFound
	}
	return done, s.setPolicies(a, nil)
}

func (s *Server) setPolicies(a directory.Application, ids []string) error {
	return s.cfg.Directory.Amend(a.ID, func(_ *directory.Application, r *directory.Registration) { r.Policies = ids })
}
