package fault

import (
	"encoding/json"
	"fmt"
	"slices"
)

// A Challenge makes a service answer 401 with a claims challenge, as it does
// when something has happened since the token was issued (continuous access
// evaluation). An empty condition matches everything.
type Challenge struct {
	Service string `json:"service,omitempty"` // "graph", "arm" or "keyvault"; empty: each of them
	User    string `json:"user,omitempty"`    // UPN

	// Claims is the JSON to demand; empty demands a token issued from now on.
	Claims string `json:"claims,omitempty"`

	// Times is how many requests are challenged; 0 means 1. A client that
	// meets the same challenge twice gives up.
	Times int `json:"times,omitempty"`
}

// A ServiceError makes Partner Center refuse a request with an error of its
// own: "900309" (blocked by conditional access), "90000" (Entra refused), or
// any other of its codes.
type ServiceError struct {
	Code  string `json:"code"`
	Times int    `json:"times,omitempty"` // how many requests; 0 means 1
}

func (d Dials) checkServices() error {
	for _, c := range d.Challenges {
		if !slices.Contains([]string{"", "graph", "arm", "keyvault"}, c.Service) || c.Times < 0 || c.Claims != "" && !json.Valid([]byte(c.Claims)) {
			return fmt.Errorf("challenges cannot have service %q, times %d, claims %q", c.Service, c.Times, c.Claims)
		}
	}
	for _, e := range d.ServiceErrors {
		if e.Code == "" || e.Times < 0 {
			return fmt.Errorf("service_errors cannot have code %q, times %d", e.Code, e.Times)
		}
	}
	return nil
}

// Challenged returns the challenge that the user's next request to the
// service meets, and counts it. The user is empty for an application.
func (p *Panel) Challenged(service, upn string) (Challenge, bool) {
	if len(p.Dials().Challenges) == 0 {
		return Challenge{}, false
	}
	var hit Challenge
	var ok bool
	p.Set(func(d *Dials) {
		for i, c := range d.Challenges {
			if !is(c.Service, service) || !is(c.User, upn) {
				continue
			}
			hit, ok = c, true
			if d.Challenges[i].Times--; d.Challenges[i].Times <= 0 {
				d.Challenges = append(d.Challenges[:i], d.Challenges[i+1:]...)
			}
			return
		}
	})
	return hit, ok
}

// ServiceError returns the error that Partner Center's next request meets,
// and counts it.
func (p *Panel) ServiceError() (ServiceError, bool) {
	if len(p.Dials().ServiceErrors) == 0 {
		return ServiceError{}, false
	}
	var hit ServiceError
	var ok bool
	p.Set(func(d *Dials) {
		if len(d.ServiceErrors) == 0 {
			return
		}
		hit, ok = d.ServiceErrors[0], true
		if d.ServiceErrors[0].Times--; d.ServiceErrors[0].Times <= 0 {
			d.ServiceErrors = d.ServiceErrors[1:]
		}
	})
	return hit, ok
}
