package policy

import (
	"cmp"
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"
	"time"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/internal/yamlfile"
)

// A Hypothetical is a request that nobody made, as people write one: in a test
// beside a policy, or to have it explained.
type Hypothetical struct {
	Caller   string   `yaml:"caller" json:"caller"`
	Use      string   `yaml:"use" json:"use,omitempty"` // "token", or "call"; a call if it has a path
	Partner  string   `yaml:"partner" json:"partner"`
	Customer string   `yaml:"customer" json:"customer,omitempty"` // a tenant id; the partner's own tenant if empty
	Cloud    string   `yaml:"cloud" json:"cloud,omitempty"`       // the first that is configured if empty
	Audience string   `yaml:"audience" json:"audience"`           // alias or resource URI
	Scopes   []string `yaml:"scopes" json:"scopes,omitempty"`
	Purpose  string   `yaml:"purpose" json:"purpose"`
	Ticket   string   `yaml:"ticket" json:"ticket,omitempty"`
	IP       string   `yaml:"ip" json:"ip,omitempty"`           // none: from the operator socket
	At       string   `yaml:"at" json:"at,omitempty"`           // RFC 3339; now if empty
	MFAAge   string   `yaml:"mfa_age" json:"mfa_age,omitempty"` // a duration; not proven if empty
	Method   string   `yaml:"method" json:"method,omitempty"`
	Path     string   `yaml:"path" json:"path,omitempty"`
}

// OwnTenant stands for the tenant of whichever partner a Hypothetical names.
// Which id it is makes no difference to a rule.
const OwnTenant = "ffffffff-ffff-4fff-bfff-ffffffffffff"

// Request returns the request, and when it is made.
func (h *Hypothetical) Request(clouds []mandate.Cloud) (*mandate.Request, time.Time, error) {
	at := time.Now()
	if h.At != "" {
		var err error
		if at, err = time.Parse(time.RFC3339, h.At); err != nil {
			return nil, at, mandate.Invalid("at", "%.40q is not a time such as 2027-06-30T12:00:00Z", h.At)
		}
	}
	req := &mandate.Request{
		Caller: mandate.CallerID(h.Caller), Use: mandate.Use(h.Use), Audience: mandate.Audience(h.Audience),
		Scopes: mandate.NormalScopes(h.Scopes), Purpose: h.Purpose, Ticket: h.Ticket, Method: h.Method, Path: h.Path,
	}
	if req.Use == "" {
		req.Use = mandate.UseToken
		if h.Path != "" {
			req.Use = mandate.UseCall
		}
	}
	req.Partner.Name = h.Partner
	if err := h.tenants(req); err != nil {
		return nil, at, err
	}
	if err := h.circumstances(req, at); err != nil {
		return nil, at, err
	}
	return req, at, h.cloud(req, clouds)
}

func (h *Hypothetical) tenants(req *mandate.Request) (err error) {
	if req.Partner.Key.Partner, err = mandate.ParseTenantID(OwnTenant); err != nil {
		return err
	}
	if req.Tenant = req.Partner.Key.Partner; h.Customer != "" {
		if req.Tenant, err = mandate.ParseTenantID(h.Customer); err != nil {
			return mandate.Invalid("customer", "%.64q is not a tenant id", h.Customer)
		}
	}
	return nil
}

func (h *Hypothetical) circumstances(req *mandate.Request, at time.Time) (err error) {
	if h.IP != "" {
		if req.Address, err = netip.ParseAddr(h.IP); err != nil {
			return mandate.Invalid("ip", "%.64q is not an address", h.IP)
		}
	}
	if h.MFAAge != "" {
		age, err := time.ParseDuration(h.MFAAge)
		if err != nil {
			return mandate.Invalid("mfa_age", "%.40q is not a duration such as 12h", h.MFAAge)
		}
		req.MFATime = at.Add(-age)
	}
	return nil
}

// cloud sets the cloud and the audience. An audience that the cloud does not
// know stays as it is written: no rule can speak of it.
func (h *Hypothetical) cloud(req *mandate.Request, clouds []mandate.Cloud) error {
	for i := range clouds {
		if h.Cloud != "" && clouds[i].Name != h.Cloud {
			continue
		}
		req.Partner.Key.Cloud = clouds[i].Name
		if a, err := clouds[i].Resolve(h.Audience); err == nil {
			req.Audience = a
		}
		return nil
	}
	req.Partner.Key.Cloud = h.Cloud
	return nil
}

// A testFile is a file of tests beside a policy.
type testFile struct {
	Given Hypothetical `yaml:"given"` // what a test does not say itself
	Tests []testCase   `yaml:"tests"`
}

type testCase struct {
	Name         string `yaml:"name"`
	Hypothetical `yaml:",inline"`
	Want         string `yaml:"want"`   // "allow" or "deny"
	Rule         string `yaml:"rule"`   // by which; "none" for no rule; any if empty
	Reason       string `yaml:"reason"` // a part of it
}

// A Result is what came of one test.
type Result struct {
	File string `json:"file"`
	Name string `json:"name"`
	OK   bool   `json:"ok"`
	Got  string `json:"got"`
	Want string `json:"want,omitempty"`
}

// TestFiles returns the files of tests in the directory of a policy.
func TestFiles(dir string) ([]string, error) { return filepath.Glob(filepath.Join(dir, "*_test.yaml")) }

// Test runs one file of tests.
func (s *Set) Test(path string, clouds []mandate.Cloud) ([]Result, error) {
	var f testFile
	if err := yamlfile.Read(path, &f); err != nil {
		return nil, err
	}
	out := make([]Result, 0, len(f.Tests))
	for i := range f.Tests {
		t := &f.Tests[i]
		r, err := s.test(t, f.Given, clouds)
		if err != nil {
			return nil, fmt.Errorf("%s: test %d (%.60q): %w", path, i+1, t.Name, err)
		}
		r.File, r.Name = filepath.Base(path), t.Name
		out = append(out, r)
	}
	return out, nil
}

func (s *Set) test(t *testCase, given Hypothetical, clouds []mandate.Cloud) (Result, error) {
	if t.Want != "allow" && t.Want != "deny" {
		return Result{}, mandate.Invalid("want", "%.20q is neither allow nor deny", t.Want)
	}
	h := t.Hypothetical.over(given)
	req, at, err := h.Request(clouds)
	if err != nil {
		return Result{}, err
	}
	d := s.decide(req, s.index.find(req), nil, at)
	rule := cmp.Or(d.Rule, "none")
	r := Result{OK: true, Got: fmt.Sprintf("%s by rule %s: %s", verb(d.Allowed), rule, d.Reason)}
	if verb(d.Allowed) != t.Want || t.Rule != "" && t.Rule != rule || !strings.Contains(d.Reason, t.Reason) {
		r.OK = false
		r.Want = strings.TrimSuffix(t.Want+" by rule "+cmp.Or(t.Rule, "any")+": "+t.Reason, ": ")
	}
	return r, nil
}

func verb(allowed bool) string {
	if allowed {
		return "allow"
	}
	return "deny"
}

// nothing is what a test writes to have none of what is given.
const nothing = "none"

// over returns h with what it does not say taken from given.
func (h Hypothetical) over(given Hypothetical) Hypothetical {
	or := func(mine *string, theirs string) {
		switch {
		case *mine == "":
			*mine = theirs
		case *mine == nothing:
			*mine = ""
		}
	}
	or(&h.Caller, given.Caller)
	or(&h.Use, given.Use)
	or(&h.Partner, given.Partner)
	or(&h.Customer, given.Customer)
	or(&h.Cloud, given.Cloud)
	or(&h.Audience, given.Audience)
	or(&h.Purpose, given.Purpose)
	or(&h.Ticket, given.Ticket)
	or(&h.IP, given.IP)
	or(&h.At, given.At)
	or(&h.MFAAge, given.MFAAge)
	or(&h.Method, given.Method)
	or(&h.Path, given.Path)
	if h.Scopes == nil {
		h.Scopes = given.Scopes
	}
	return h
}
