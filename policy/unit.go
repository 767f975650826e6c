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
	Approved string   `yaml:"approved" json:"approved,omitempty"` // how long ago a second person said yes; nobody did if empty

	Act   string   `yaml:"act" json:"act,omitempty"`     // what an operator does, such as "policy apply"; then the use is administer
	Roles []string `yaml:"roles" json:"roles,omitempty"` // of the operator
}

// OwnTenant stands for the tenant of whichever partner a Hypothetical names.
// Which id it is makes no difference to a rule.
const OwnTenant = "ffffffff-ffff-4fff-bfff-ffffffffffff"

// time returns when it happens.
func (h *Hypothetical) time() (at time.Time, err error) {
	if h.At == "" {
		return time.Now(), nil
	}
	if at, err = time.Parse(time.RFC3339, h.At); err != nil {
		err = mandate.Invalid("at", "%.40q is not a time such as 2027-06-30T12:00:00Z", h.At)
	}
	return at, err
}

// Administers returns the act of an operator that h is, and when it happens; or
// nil if h is a request.
func (h *Hypothetical) Administers() (*Act, time.Time, error) {
	if h.Act == "" {
		return nil, time.Time{}, nil
	}
	if h.Use != "" && h.Use != string(administer) {
		return nil, time.Time{}, mandate.Invalid("use", "can only be %s where there is an act", administer)
	}
	at, err := h.time()
	if err != nil {
		return nil, at, err
	}
	var req mandate.Request
	if err := h.circumstances(&req, at); err != nil {
		return nil, at, err
	}
	loosens, known := Acts[h.Act]
	if !known {
		return nil, at, mandate.Invalid("act", "%.60q is nothing that operators do; it is a command, such as \"policy apply\"", h.Act)
	}
	return &Act{Caller: mandate.CallerID(h.Caller), Name: h.Act, Loosens: loosens, Roles: h.Roles, Partner: h.Partner, Address: req.Address}, at, nil
}

// yes is that of a second person who agreed to everything at a time.
type yes time.Time

// Approved implements [Approvals].
func (y yes) Approved(string, *mandate.Request) (string, time.Time) {
	return "hypothetical", time.Time(y)
}

// Yes returns what a second person said, as of a time; nil if there is none.
func (h *Hypothetical) Yes(at time.Time) (Approvals, error) {
	if h.Approved == "" {
		return nil, nil
	}
	ago, err := time.ParseDuration(h.Approved)
	if err != nil {
		return nil, mandate.Invalid("approved", "%.40q is not a duration such as 30m", h.Approved)
	}
	return yes(at.Add(-ago)), nil
}

// Request returns the request, and when it is made.
func (h *Hypothetical) Request(clouds []mandate.Cloud) (*mandate.Request, time.Time, error) {
	at, err := h.time()
	if err != nil {
		return nil, at, err
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
	d, err := s.imagine(&h, clouds)
	if err != nil {
		return Result{}, err
	}
	rule := cmp.Or(d.Rule, "none")
	r := Result{OK: true, Got: fmt.Sprintf("%s by rule %s: %s", verb(d.Allowed), rule, d.Reason)}
	if verb(d.Allowed) != t.Want || t.Rule != "" && t.Rule != rule || !strings.Contains(d.Reason, t.Reason) {
		r.OK = false
		r.Want = strings.TrimSuffix(t.Want+" by rule "+cmp.Or(t.Rule, "any")+": "+t.Reason, ": ")
	}
	return r, nil
}

// imagine decides what nobody did.
func (s *Set) imagine(h *Hypothetical, clouds []mandate.Cloud) (mandate.Decision, error) {
	act, at, err := h.Administers()
	if err != nil {
		return mandate.Decision{}, err
	}
	if act != nil {
		return s.administer(act, s.index.about(h.Caller, h.Partner, useAdminister), at), nil
	}
	req, at, err := h.Request(clouds)
	if err != nil {
		return mandate.Decision{}, err
	}
	second, err := h.Yes(at)
	if err != nil {
		return mandate.Decision{}, err
	}
	return s.decide(req, s.index.find(req), second, at), nil
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
	or(&h.Approved, given.Approved)
	or(&h.Act, given.Act)
	if h.Roles == nil {
		h.Roles = given.Roles
	}
	if h.Scopes == nil {
		h.Scopes = given.Scopes
	}
	return h
}
