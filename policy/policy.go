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
	var allowed *compiled
	near, nearest := "", 0
	for i := range p.rules {
		c := &p.rules[i]
		reason, depth := c.check(req, now)
		switch {
		case reason == "" && (allowed == nil || c.consented && !allowed.consented):
			allowed = c
		case reason != "" && depth > nearest:
			nearest, near = depth, fmt.Sprintf("the nearest, %q, %s", c.name, reason)
		}
	}
	if allowed == nil {
		reason := "no rule allows it"
		if near != "" {
			reason += "; " + near
		}
		return mandate.Decision{Policy: p.version, Reason: reason}
	}
	return mandate.Decision{
		Allowed: true, Rule: allowed.name, Policy: p.version,
		Reason:    fmt.Sprintf("allowed by rule %q", allowed.name),
		Consented: allowed.consented, Scopes: allowed.scopes, MaxTokenLife: allowed.maxTokenLife,
	}
}

// check returns why c does not allow req, or "", and how much of it fits.
//
// A rule for some customers never gives out a token of the partner's own
// tenant: such a token reaches every customer, since Partner Center's
// customers are named in the URL only.
func (c *compiled) check(req *mandate.Request, now time.Time) (reason string, depth int) {
	for i, test := range [...]struct {
		ok   bool
		lack string
	}{
		{c.callers[req.Caller], "is for other callers"},
		{c.partners[req.Partner.Name], "is for other partners"},
		{c.audiences[cloudAudience{req.Partner.Key.Cloud, req.Audience}], "is for other audiences"},
		{c.purposes[req.Purpose], fmt.Sprintf("has no purpose %q", req.Purpose)},
		{c.uses[req.Use], fmt.Sprintf("does not allow use %q", req.Use)},
		{c.allCustomers || !req.OwnTenant(), "is for some customers only, and a token of the partner's own tenant reaches all of them; it would need `customers: all`"},
		{c.allCustomers || c.customers[req.Tenant], "is for other customers"},
		{c.allowsAsked(req.Scopes), fmt.Sprintf("allows only the scopes %v", c.scopes)},
		{now.Before(c.until), "ended on " + c.until.UTC().Format(time.RFC3339)},
	} {
		if !test.ok {
			return test.lack, i
		}
	}
	return "", 0
}

func (c *compiled) allowsAsked(asked []mandate.Scope) bool {
	return c.consented || !slices.ContainsFunc(asked, func(s mandate.Scope) bool { return !slices.Contains(c.scopes, s) })
}
