package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/api"
	"github.com/mandate-sam/mandate/audit"
	"github.com/mandate-sam/mandate/policy"
	"github.com/mandate-sam/mandate/store"
)

// policies implements [api.Policies]: the policy in force is in the database,
// so that all replicas change it together, and the files that the
// configuration names are what a new database begins with.
type policies struct {
	*policy.Engine
	store  *store.Store
	audit  *audit.Log
	epoch  mandate.Epoch
	clouds []mandate.Cloud
	path   string // of the configured files
}

// A keeper gives the engine what the store has, in the engine's terms.
type keeper struct {
	store *store.Store

	mu   sync.Mutex // guards from and to
	from *store.Policy
	to   *policy.Version
}

// Policy implements [policy.Keeper].
func (k *keeper) Policy() (*policy.Version, error) {
	p, err := k.store.Policy()
	if err != nil || p == nil {
		return nil, err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.from != p {
		k.from, k.to = p, &policy.Version{Number: p.Number, Source: sourceOf(p)}
	}
	return k.to, nil
}

// sourceOf returns the files of a stored policy. What cannot be read is a
// policy that cannot be used, and not one without rules.
func sourceOf(p *store.Policy) policy.Source {
	var files policy.Source
	if err := json.Unmarshal([]byte(p.Files), &files); err != nil || files.Version() != p.Version {
		return policy.Source{{Name: "stored.cedar", Text: "the stored policy is not what was applied"}}
	}
	return files
}

// seconds are the second people that policy asks about. It implements
// [policy.Approvals].
type seconds struct{ store *store.Store }

// Approved implements [policy.Approvals]. What is not known is no yes.
func (s seconds) Approved(rule string, req *mandate.Request) (string, time.Time) {
	asked := mandate.AskedBy(rule, req)
	a, err := s.store.Approval(asked.Digest())
	if err != nil || !a.GivenAt(time.Now()) {
		return "", time.Time{}
	}
	return a.ID, a.Decided
}

// openPolicies opens the policy in force. A database that has none begins with
// the configured files; later they are only compared with what is in force.
func (a *App) openPolicies(ctx context.Context, c *Config, p *parts) (*policies, error) {
	clouds := c.usedClouds(p.clouds)
	x := &policies{
		Engine: policy.NewEngine(policy.EngineConfig{Keeper: &keeper{store: p.store}, Clouds: clouds, Approvals: seconds{p.store}, Log: a.log}),
		store:  p.store, audit: a.audit, epoch: p.epoch, clouds: clouds, path: c.file(c.Policy),
	}
	inForce, err := x.store.Policy()
	if err != nil {
		return nil, err
	}
	if inForce == nil {
		return x, x.begin(ctx)
	}
	if differs := x.differs(inForce); differs != "" {
		a.log.Warn("the policy in force is not the configured one; see \"mandate policy diff\" and \"mandate policy apply\"",
			"in_force", inForce.Version, "applied", inForce.Applied.UTC().Format(time.RFC3339), "by", inForce.By, "path", x.path, "configured", differs)
	}
	return x, nil
}

// begin puts the configured files in force, unless another replica just did.
func (x *policies) begin(ctx context.Context) error {
	src, err := policy.Read(x.path)
	if err != nil {
		return err
	}
	if _, err := x.Compile(src); err != nil {
		return err
	}
	_, err = x.Apply(ctx, src, 0, mandate.By{Caller: "configuration"})
	if errors.Is(err, mandate.ErrExists) {
		return nil
	}
	return err
}

// differs says how the configured files differ from what is in force, or "".
func (x *policies) differs(inForce *store.Policy) string {
	src, err := policy.Read(x.path)
	if err != nil {
		return err.Error()
	}
	if v := src.Version(); v != inForce.Version {
		return "version " + v
	}
	return ""
}

// Apply implements [api.Policies].
func (x *policies) Apply(ctx context.Context, src policy.Source, after int64, by mandate.By) (number int64, err error) {
	if _, err := x.check(src); err != nil {
		return 0, err
	}
	files, err := json.Marshal(src)
	if err != nil {
		return 0, err
	}
	version := src.Version()
	rec := mandate.Record{Caller: by.Caller, Address: by.Address, Ticket: by.Ticket, Policy: version, Detail: fmt.Sprintf("put policy %s in force", version)}
	_, err = mandate.Change(ctx, x.audit, x.epoch, rec, func() (err error) {
		number, err = x.store.ApplyPolicy(ctx, store.Policy{Version: version, Files: string(files), Applied: time.Now(), By: by.Caller}, after)
		return err
	})
	return number, err
}

// check compiles what somebody sent.
func (x *policies) check(src policy.Source) (*policy.Set, error) {
	set, err := x.Compile(src)
	if err != nil {
		return nil, mandate.Invalid("files", "%s", strings.ReplaceAll(err.Error(), "\n", "; "))
	}
	return set, nil
}

// recent is how many earlier versions are listed.
const recent = 20

// Status implements [api.Policies].
func (x *policies) Status(ctx context.Context) (api.PolicyStatus, error) {
	st := api.PolicyStatus{Configured: x.path, Files: []policy.File{}, Earlier: []api.PolicyVersion{}}
	set, number, broken, err := x.InForce()
	if err != nil {
		return st, err
	}
	if broken != nil {
		st.Broken = broken.Error()
	}
	latest, err := x.store.Policy()
	if err != nil {
		return st, err
	}
	if latest != nil {
		st.Latest, st.Differs = latest.Number, x.differs(latest)
	}
	all, err := x.store.Policies(ctx, recent)
	if err != nil {
		return st, err
	}
	for _, p := range all {
		switch p.Number {
		case number:
			st.Number, st.Version, st.Applied, st.By = p.Number, p.Version, p.Applied.UTC(), p.By
		case st.Latest: // cannot be used
		default:
			st.Earlier = append(st.Earlier, api.PolicyVersion{Number: p.Number, Version: p.Version, Applied: p.Applied.UTC(), By: p.By})
		}
	}
	if set == nil {
		return st, nil
	}
	st.Rules = set.Len()
	p, err := x.store.PolicyOf(ctx, set.Version())
	if err == nil {
		st.Files = sourceOf(&p)
	}
	return st, err
}

// Dry implements [api.Policies].
func (x *policies) Dry(ctx context.Context, src policy.Source, since time.Time) (api.PolicyDiff, error) {
	next, err := x.check(src)
	if err != nil {
		return api.PolicyDiff{}, err
	}
	latest, err := x.store.Policy() // first: what is applied meanwhile was not compared
	if err != nil {
		return api.PolicyDiff{}, err
	}
	now, number, _, err := x.InForce()
	if err != nil {
		return api.PolicyDiff{}, err
	}
	run := policy.NewDryRun(now, next)
	if !since.IsZero() {
		if err := x.records(ctx, func(rec *indexed) bool { run.Add(&rec.Record); return rec.Time.After(since) }); err != nil {
			return api.PolicyDiff{}, err
		}
	}
	diff := api.PolicyDiff{InForce: number, Version: next.Version(), Rules: now.Changes(next), Requests: run.Requests, Effects: run.Effects()}
	if latest != nil {
		diff.Latest = latest.Number
	}
	return diff, nil
}

// An indexed is a record as the log has it.
type indexed struct {
	mandate.Record
	Index int64 `json:"index"`
}

// records reads the log backwards until more returns false.
func (x *policies) records(ctx context.Context, more func(*indexed) bool) error {
	for e, err := range x.audit.Backwards(ctx) {
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return fmt.Errorf("read audit log: %w", err)
		}
		if !more(&indexed{e.Record, e.Index}) {
			return nil
		}
	}
	return nil
}

// Explain implements [api.Policies].
func (x *policies) Explain(ctx context.Context, in api.ExplainRequest) (api.PolicyExplanation, error) {
	set, _, _, err := x.InForce()
	if err == nil && len(in.Files) > 0 {
		set, err = x.check(in.Files)
	}
	if err != nil {
		return api.PolicyExplanation{}, err
	}
	if in.Index != nil {
		return x.past(ctx, *in.Index, set, len(in.Files) > 0)
	}
	if set == nil {
		return api.PolicyExplanation{}, fmt.Errorf("%w: there is no policy in force", mandate.ErrNotFound)
	}
	act, at, err := in.Request.Administers()
	if err != nil {
		return api.PolicyExplanation{}, err
	}
	if act != nil {
		return api.PolicyExplanation{Explanation: set.ExplainAct(act, at)}, nil
	}
	for _, f := range []struct{ name, text string }{{"caller", in.Request.Caller}, {"partner", in.Request.Partner}, {"audience", in.Request.Audience}, {"purpose", in.Request.Purpose}} {
		if f.text == "" {
			return api.PolicyExplanation{}, mandate.Invalid(f.name, "is missing, which every request has")
		}
	}
	req, at, err := in.Request.Request(x.clouds)
	if err != nil {
		return api.PolicyExplanation{}, err
	}
	second, err := in.Request.Yes(at)
	if err != nil {
		return api.PolicyExplanation{}, err
	}
	if second == nil && in.Request.At == "" {
		second = seconds{x.store}
	}
	if known, err := x.store.Partner(req.Partner.Name); err == nil && in.Request.Cloud == "" {
		req.Partner = known
		if req.Tenant.String() == policy.OwnTenant || req.Tenant == known.Key.Partner {
			req.Tenant = known.Key.Partner
		}
	}
	return api.PolicyExplanation{Explanation: set.Explain(req, second, at), Note: x.shut(req)}, nil
}

// shut says what denies a request now, whatever the policy says; or "".
func (x *policies) shut(req *mandate.Request) string {
	if l, err := x.store.Lockdown(); err == nil && l != nil {
		return "whatever the policy says: " + (&mandate.LockedError{Lockdown: *l}).Error()
	}
	if r, err := x.store.Revoked(req); err == nil && r != nil {
		return fmt.Sprintf("whatever the policy says, it is denied: %s is revoked (%s); see mandate revoke list", r.Reach.String(), r.Reason)
	}
	return ""
}

// past explains the decision in a record, by the policy that made it unless
// another is wanted.
func (x *policies) past(ctx context.Context, index int64, set *policy.Set, other bool) (out api.PolicyExplanation, err error) {
	var rec *indexed
	if err := x.records(ctx, func(r *indexed) bool {
		if r.Index == index {
			rec = r
		}
		return r.Index > index
	}); err != nil {
		return out, err
	}
	if rec == nil {
		return out, fmt.Errorf("%w: there is no record %d", mandate.ErrNotFound, index)
	}
	req, ok := policy.RequestOf(&rec.Record)
	if !ok {
		return out, mandate.Invalid("index", "record %d (%s) is not about a request for a token or a call", index, rec.Kind)
	}
	if !other {
		if set, err = x.then(ctx, rec, set, &out); err != nil {
			return out, err
		}
	}
	if set == nil {
		return out, fmt.Errorf("%w: there is no policy in force", mandate.ErrNotFound)
	}
	out.Explanation = set.Explain(req, policy.YesOf(&rec.Record), rec.Time)
	out.Recorded = fmt.Sprintf("%s: %s", rec.Kind, strings.TrimPrefix(rec.Reason, "denied: "))
	return out, nil
}

// then returns the policy that a record was decided by, or, with a note, the
// one that is in force.
func (x *policies) then(ctx context.Context, rec *indexed, now *policy.Set, out *api.PolicyExplanation) (*policy.Set, error) {
	switch {
	case rec.Policy == "":
		out.Note = "the policy was not asked then: something else came first, see what is recorded; this is what the one in force says"
		return now, nil
	case now != nil && now.Version() == rec.Policy:
		return now, nil
	}
	p, err := x.store.PolicyOf(ctx, rec.Policy)
	if errors.Is(err, mandate.ErrNotFound) {
		out.Note = fmt.Sprintf("policy %s, which decided this, is not in the database; this is what the one in force says", rec.Policy)
		return now, nil
	}
	if err != nil {
		return nil, err
	}
	set, err := x.Compile(sourceOf(&p))
	if err != nil {
		out.Note = fmt.Sprintf("policy %s, which decided this, cannot be used any more (%v); this is what the one in force says", rec.Policy, err)
		return now, nil
	}
	return set, nil
}

// measure tells what metrics show.
func (x *policies) measure() (number int64, broken bool) {
	_, number, why, err := x.InForce()
	return number, why != nil || err != nil
}
