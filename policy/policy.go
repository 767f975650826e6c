// Package policy decides who may have a token for what: a short list of rules
// in a file, each naming everything that it allows, and nothing allowed that
// no rule names.
//
// A decision is a pure function of the rules, the request and the clock.
package policy

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/internal/yamlfile"
)

// all is the word for every customer.
const all = "all"

// consented is the word for whatever scopes the partner consented to.
const consented = "consented"

// limits of a rules file.
const (
	maxRules   = 10_000
	maxEntries = 1_000 // in one list of one rule
)

// A file is a rules file as written.
type file struct {
	Rules []rule `yaml:"rules"`
}

// A rule is one rule as written. Every list must have an entry: what a rule
// does not name it does not allow.
type rule struct {
	Name         string   `yaml:"name"`
	Callers      []string `yaml:"callers"`
	Partners     []string `yaml:"partners"`
	Customers    words    `yaml:"customers"`      // tenant ids, or "all"
	Audiences    []string `yaml:"audiences"`      // aliases or resource URIs
	Scopes       words    `yaml:"scopes"`         // scope names, or "consented"
	Purposes     []string `yaml:"purposes"`       //
	Uses         []string `yaml:"uses"`           // "token", "call"; default both
	Until        string   `yaml:"until"`          // a date, or a time in RFC 3339
	MaxTokenLife string   `yaml:"max_token_life"` // such as 75m; default Entra's own limit
}

// words is a list in YAML that may be written as a single word.
type words []string

// UnmarshalYAML accepts a scalar for a list of one.
func (w *words) UnmarshalYAML(unmarshal func(any) error) error {
	var one string
	if err := unmarshal(&one); err == nil {
		*w = words{one}
		return nil
	}
	var many []string
	if err := unmarshal(&many); err != nil {
		return err
	}
	*w = many
	return nil
}

// A compiled rule is a rule in the terms of a request.
type compiled struct {
	name         string
	reason       string // for what it allows
	callers      map[mandate.CallerID]bool
	partners     map[string]bool
	allCustomers bool
	customers    map[mandate.TenantID]bool
	audiences    map[cloudAudience]bool
	consented    bool
	scopes       []mandate.Scope
	purposes     map[string]bool
	uses         map[mandate.Use]bool
	until        time.Time
	maxTokenLife time.Duration
}

type cloudAudience struct {
	cloud    string
	audience mandate.Audience
}

// A Policy is a list of compiled rules. It is safe for concurrent use.
type Policy struct {
	rules   []compiled
	version string
}

// Load reads the rules file at path. Audiences may be written as aliases of
// the clouds given. Errors name the file, and the line or the rule.
func Load(path string, clouds []mandate.Cloud) (*Policy, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read rules: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, yamlfile.MaxSize+1))
	if err != nil {
		return nil, fmt.Errorf("read rules: %w", err)
	}
	return Parse(path, data, clouds)
}

// Parse is [Load] for a file that was already read; errors begin with name.
func Parse(name string, data []byte, clouds []mandate.Cloud) (*Policy, error) {
	var f file
	if err := yamlfile.Decode(name, data, &f); err != nil {
		return nil, err
	}
	if len(f.Rules) > maxRules {
		return nil, fmt.Errorf("%s: has more than %d rules", name, maxRules)
	}
	sum := sha256.Sum256(data)
	p := &Policy{version: hex.EncodeToString(sum[:6])}
	for i := range f.Rules {
		c, err := f.Rules[i].compile(clouds)
		if err == nil && slices.ContainsFunc(p.rules, func(o compiled) bool { return o.name == c.name }) {
			err = mandate.Invalid("name", "there is already a rule of that name")
		}
		if err != nil {
			return nil, fmt.Errorf("%s: rule %d (%.64q): %w", name, i+1, f.Rules[i].Name, err)
		}
		p.rules = append(p.rules, c)
	}
	return p, nil
}

// Version names the rules by their content.
func (p *Policy) Version() string { return p.version }

// Len returns how many rules there are.
func (p *Policy) Len() int { return len(p.rules) }

// Decide implements [mandate.Policy]. Of several rules that allow a request
// one that lets any consented scope pass wins, else the first in the file. A
// denial says which rule came nearest and what it lacks.
func (p *Policy) Decide(req *mandate.Request) mandate.Decision {
	now := time.Now()
	var allowed, near *compiled
	nearest := needCaller
	for i := range p.rules {
		c := &p.rules[i]
		switch lack := c.check(req, now); {
		case lack == needNothing:
			if allowed == nil || c.consented && !allowed.consented {
				allowed = c
			}
		case lack > nearest:
			nearest, near = lack, c
		}
	}
	if allowed == nil {
		reason := "no rule allows it"
		if near != nil {
			reason += fmt.Sprintf("; the nearest, %q, %s", near.name, near.explain(nearest, req))
		}
		return mandate.Decision{Policy: p.version, Reason: reason}
	}
	return mandate.Decision{
		Allowed: true, Rule: allowed.name, Policy: p.version, Reason: allowed.reason,
		Consented: allowed.consented, Scopes: allowed.scopes, MaxTokenLife: allowed.maxTokenLife,
	}
}

// A need is the first thing that a request lacks for a rule to allow it, in
// the order in which they are looked at: a greater one is a nearer miss.
type need int

const (
	needCaller need = iota
	needPartner
	needAudience
	needPurpose
	needUse
	needAllCustomers
	needCustomer
	needScopes
	needTime
	needNothing
)

// check returns what req lacks for c to allow it.
//
// A rule for some customers never gives out a token of the partner's own
// tenant: such a token reaches every customer, since Partner Center's
// customers are named in the URL only.
func (c *compiled) check(req *mandate.Request, now time.Time) need {
	switch {
	case !c.callers[req.Caller]:
		return needCaller
	case !c.partners[req.Partner.Name]:
		return needPartner
	case !c.audiences[cloudAudience{req.Partner.Key.Cloud, req.Audience}]:
		return needAudience
	case !c.purposes[req.Purpose]:
		return needPurpose
	case !c.uses[req.Use]:
		return needUse
	case !c.allCustomers && req.OwnTenant():
		return needAllCustomers
	case !c.allCustomers && !c.customers[req.Tenant]:
		return needCustomer
	case !c.allowsAsked(req.Scopes):
		return needScopes
	case !now.Before(c.until):
		return needTime
	}
	return needNothing
}

// explain says of c what a request lacks.
func (c *compiled) explain(n need, req *mandate.Request) string {
	switch n {
	case needPartner:
		return "is for other partners"
	case needAudience:
		return "is for other audiences"
	case needPurpose:
		return fmt.Sprintf("has no purpose %q", req.Purpose)
	case needUse:
		return fmt.Sprintf("does not allow use %q", req.Use)
	case needAllCustomers:
		return "is for some customers only, and a token of the partner's own tenant reaches all of them; it would need `customers: all`"
	case needCustomer:
		return "is for other customers"
	case needScopes:
		return fmt.Sprintf("allows only the scopes %v", c.scopes)
	case needTime:
		return "ended on " + c.until.UTC().Format(time.RFC3339)
	}
	return "is for other callers"
}

func (c *compiled) allowsAsked(asked []mandate.Scope) bool {
	return c.consented || !slices.ContainsFunc(asked, func(s mandate.Scope) bool { return !slices.Contains(c.scopes, s) })
}
