package api

import (
	"context"
	"net/http"
	"time"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/internal/web"
	"github.com/mandate-sam/mandate/policy"
)

// Policies holds the policy that is in force.
type Policies interface {
	// Status tells what is in force.
	Status(context.Context) (PolicyStatus, error)

	// Dry checks a policy and compares it with the one in force: rule by rule,
	// and by the requests that were recorded since a time, none if it is zero.
	// The error wraps [mandate.ErrInvalid] if the policy is wrong.
	Dry(ctx context.Context, files policy.Source, since time.Time) (PolicyDiff, error)

	// Apply puts a policy in force that was compared when the last that was
	// applied had the number after, and returns its own. The error wraps
	// [mandate.ErrExists] if another was applied meanwhile.
	Apply(ctx context.Context, files policy.Source, after int64, by mandate.By) (number int64, err error)

	// Explain explains a decision: that of the record with an index, by the
	// policy that made it, or that about a request that nobody made, by files
	// or, if there are none, by the policy in force.
	Explain(context.Context, ExplainRequest) (PolicyExplanation, error)
}

// A PolicyStatus is the policy in force.
type PolicyStatus struct {
	Number     int64            `json:"number"`  // of the policy that decides; 0 if there is none
	Version    string           `json:"version"` // digest
	Rules      int              `json:"rules"`
	Applied    time.Time        `json:"applied,omitzero"`
	By         mandate.CallerID `json:"by,omitempty"`
	Latest     int64            `json:"latest"`               // number of the last that was applied: another if that cannot be used
	Broken     string           `json:"broken,omitempty"`     // why it cannot be used
	Configured string           `json:"configured,omitempty"` // where the configuration has a policy
	Differs    string           `json:"differs,omitempty"`    // how that is not what is in force
	Files      []policy.File    `json:"files"`
	Earlier    []PolicyVersion  `json:"earlier"` // the latest first
}

// A PolicyVersion is a policy that was in force.
type PolicyVersion struct {
	Number  int64            `json:"number"`
	Version string           `json:"version"`
	Applied time.Time        `json:"applied"`
	By      mandate.CallerID `json:"by"`
}

// A DiffRequest is the body of POST /v1/policy/diff.
type DiffRequest struct {
	Files []policy.File `json:"files"`
	Days  int           `json:"days,omitempty"` // of recorded requests; none if 0
}

// A PolicyDiff is what another policy would change.
type PolicyDiff struct {
	InForce  int64               `json:"in_force"` // number of the policy that decides; 0 if there is none
	Latest   int64               `json:"latest"`   // number of the last that was applied; see [PolicyStatus]
	Version  string              `json:"version"`  // of the other policy
	Rules    []policy.RuleChange `json:"rules"`
	Requests int                 `json:"requests"` // that were decided anew
	Effects  []policy.Effect     `json:"effects"`
}

// An ApplyRequest is the body of POST /v1/policy.
type ApplyRequest struct {
	Files  []policy.File `json:"files"`
	After  int64         `json:"after"` // number of the last that was applied, with which it was compared
	Ticket string        `json:"ticket,omitempty"`
}

// A PolicyApplied is a policy that was just put in force.
type PolicyApplied struct {
	Number   int64               `json:"number"`   // of the policy that is in force now
	Version  string              `json:"version"`  // its digest
	Replaced int64               `json:"replaced"` // number of the policy that decided before; 0 if none did
	Rules    []policy.RuleChange `json:"rules"`    // that are others than before
}

// An ExplainRequest is the body of POST /v1/policy/explain: one of index and
// request.
type ExplainRequest struct {
	Index   *int64               `json:"index,omitempty"` // of a record
	Request *policy.Hypothetical `json:"request,omitempty"`
	Files   []policy.File        `json:"files,omitempty"` // another policy than the one in force
}

// A PolicyExplanation is a decision with its reasons.
type PolicyExplanation struct {
	policy.Explanation
	Recorded string `json:"recorded,omitempty"` // what was decided then
	Note     string `json:"note,omitempty"`     // what this cannot know, or what decides whatever the policy says
}

// policyRoutes are for the operator socket only.
var policyRoutes = []route{
	{"GET", "/v1/policy", (*Server).showPolicy},
	{"POST", "/v1/policy", (*Server).applyPolicy},
	{"POST", "/v1/policy/diff", (*Server).diffPolicy},
	{"POST", "/v1/policy/explain", (*Server).explainPolicy},
}

// Limits of what is sent about policies.
const (
	maxPolicyBody = 12 << 20
	maxDays       = 366
)

func (s *Server) policies() (Policies, error) {
	if s.cfg.Policies == nil {
		return nil, mandate.Invalid("policy", "this server has none that can be changed")
	}
	return s.cfg.Policies, nil
}

func (s *Server) showPolicy(w http.ResponseWriter, r *http.Request, _ mandate.CallerID) error {
	p, err := s.policies()
	if err != nil {
		return err
	}
	st, err := p.Status(r.Context())
	if err != nil {
		return err
	}
	return web.Write(w, http.StatusOK, st)
}

func (s *Server) diffPolicy(w http.ResponseWriter, r *http.Request, _ mandate.CallerID) error {
	p, err := s.policies()
	if err != nil {
		return err
	}
	in, err := web.ReadLong[DiffRequest](w, r, maxPolicyBody)
	if err != nil {
		return err
	}
	if in.Days < 0 || in.Days > maxDays {
		return mandate.Invalid("days", "must be from 0 to %d", maxDays)
	}
	var since time.Time
	if in.Days > 0 {
		since = time.Now().AddDate(0, 0, -in.Days)
	}
	diff, err := p.Dry(r.Context(), in.Files, since)
	if err != nil {
		return err
	}
	return web.Write(w, http.StatusOK, diff)
}

func (s *Server) applyPolicy(w http.ResponseWriter, r *http.Request, caller mandate.CallerID) error {
	p, err := s.policies()
	if err != nil {
		return err
	}
	in, err := web.ReadLong[ApplyRequest](w, r, maxPolicyBody)
	if err != nil {
		return err
	}
	by := mandate.By{Caller: caller, Ticket: in.Ticket}
	if err := by.Check(); err != nil {
		return err
	}
	diff, err := p.Dry(r.Context(), in.Files, time.Time{})
	if err != nil {
		return err
	}
	number, err := p.Apply(r.Context(), in.Files, in.After, by)
	if err != nil {
		return err
	}
	return web.Write(w, http.StatusOK, PolicyApplied{number, diff.Version, diff.InForce, diff.Rules})
}

func (s *Server) explainPolicy(w http.ResponseWriter, r *http.Request, _ mandate.CallerID) error {
	p, err := s.policies()
	if err != nil {
		return err
	}
	in, err := web.ReadLong[ExplainRequest](w, r, maxPolicyBody)
	if err != nil {
		return err
	}
	if (in.Index == nil) == (in.Request == nil) {
		return mandate.Invalid("request", "must be there, or index, and not both")
	}
	out, err := p.Explain(r.Context(), in)
	if err != nil {
		return err
	}
	return web.Write(w, http.StatusOK, out)
}

// Policy tells what is in force.
func (c *Client) Policy(ctx context.Context) (PolicyStatus, error) {
	return exchange[PolicyStatus](ctx, c, "GET", "/v1/policy", nil)
}

// ApplyPolicy puts a policy in force, and returns what that changed.
func (c *Client) ApplyPolicy(ctx context.Context, in ApplyRequest) (PolicyApplied, error) {
	return exchange[PolicyApplied](ctx, c, "POST", "/v1/policy", in)
}

// DiffPolicy tells what another policy would change.
func (c *Client) DiffPolicy(ctx context.Context, in DiffRequest) (PolicyDiff, error) {
	return exchange[PolicyDiff](ctx, c, "POST", "/v1/policy/diff", in)
}

// ExplainPolicy explains a decision.
func (c *Client) ExplainPolicy(ctx context.Context, in ExplainRequest) (PolicyExplanation, error) {
	return exchange[PolicyExplanation](ctx, c, "POST", "/v1/policy/explain", in)
}
