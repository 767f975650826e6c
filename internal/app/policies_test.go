package app

import (
	"encoding/json"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/api"
	"github.com/mandate-sam/mandate/internal/database"
	"github.com/mandate-sam/mandate/policy"
	"github.com/mandate-sam/mandate/store"
)

// openPolicy returns a policy in force, in a database of its own.
func openPolicy(t *testing.T, text string) (*policies, *store.Store) {
	t.Helper()
	db, err := database.Open(t.Context(), database.Config{File: filepath.Join(t.TempDir(), "d", "m.db"), Schemas: []database.Schema{store.Schema()}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	st, err := store.Open(t.Context(), db)
	if err != nil {
		t.Fatal(err)
	}
	put(t, st, text, 0)
	return policiesOf(st), st
}

// policiesOf is a server that has just started.
func policiesOf(st *store.Store) *policies {
	clouds := []mandate.Cloud{mandate.Clouds()["global"]}
	return &policies{Engine: policy.NewEngine(policy.EngineConfig{Keeper: &keeper{store: st}, Clouds: clouds}), store: st, clouds: clouds, path: "nowhere"}
}

// put stores a policy in the place of another, whatever is in it.
func put(t *testing.T, st *store.Store, text string, after int64) {
	t.Helper()
	src := policy.Source{{Name: "a.cedar", Text: text}}
	files, err := json.Marshal(src)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := st.ApplyPolicy(t.Context(), store.Policy{Version: src.Version(), Files: string(files), Applied: time.Now()}, after); err != nil {
		t.Fatal(err)
	}
}

// A stored policy that cannot be used is told of, leaves the one before it in
// force until the next start, and can be replaced.
func TestPolicyThatCannotBeUsed(t *testing.T) {
	const text = `@id("none") forbid (principal, action, resource);`
	x, st := openPolicy(t, text)
	good := policy.Source{{Name: "a.cedar", Text: text}}
	if s, err := x.Status(t.Context()); err != nil || s.Number != 1 || s.Latest != 1 || s.Broken != "" {
		t.Fatalf("got %+v, %v", s, err)
	}
	put(t, st, `permit (principal, action, resource);`, 1)
	for _, tt := range []struct {
		name    string
		of      *policies
		inForce int64
		rules   int // that the good one changes
		earlier int
	}{{"a server that had another", x, 1, 0, 0}, {"one that has just started", policiesOf(st), 0, 1, 1}} {
		s, err := tt.of.Status(t.Context())
		if err != nil || s.Number != tt.inForce || s.Latest != 2 || !strings.Contains(s.Broken, "@id") || len(s.Earlier) != tt.earlier {
			t.Errorf("%s: got %+v, %v", tt.name, s, err)
		}
		d, err := tt.of.Dry(t.Context(), good, time.Time{})
		if err != nil || d.InForce != tt.inForce || d.Latest != 2 || len(d.Rules) != tt.rules {
			t.Errorf("%s: compared %+v, %v", tt.name, d, err)
		}
		if _, err := st.ApplyPolicy(t.Context(), store.Policy{}, d.InForce); err == nil {
			t.Errorf("%s: replaced what is not the last", tt.name)
		}
	}
	put(t, st, text, 2)
	if s, err := x.Status(t.Context()); err != nil || s.Number != 3 || s.Latest != 3 || s.Broken != "" || len(s.Earlier) != 2 {
		t.Errorf("replaced: %+v, %v", s, err)
	}
}

// What is shut whatever the policy says is said beside what the policy says; and
// what no request could be is no request to explain.
func TestPolicyExplainBesideWhatIsShut(t *testing.T) {
	x, st := openPolicy(t, `@id("all") @until("2100-01-01") @scopes("consented") @customers("all")
permit (principal == Caller::"billing", action, resource in Partner::"contoso") when { context.audience == Audience::"graph" && context.purpose == Purpose::"invoice" };`)
	in := policy.Hypothetical{Caller: "billing", Partner: "contoso", Audience: "graph", Purpose: "invoice"}
	explain := func(h policy.Hypothetical) (api.PolicyExplanation, error) {
		return x.Explain(t.Context(), api.ExplainRequest{Request: &h})
	}
	if e, err := explain(in); err != nil || !e.Allowed || e.Note != "" {
		t.Fatalf("got %+v, %v", e, err)
	}
	if _, err := st.Revoke(t.Context(), mandate.Revocation{Reach: mandate.Reach{Caller: "billing"}, Reason: "broken into"}); err != nil {
		t.Fatal(err)
	}
	if e, err := explain(in); err != nil || !e.Allowed || !strings.Contains(e.Note, "it is denied: caller billing is revoked (broken into)") {
		t.Errorf("revoked: %+v, %v", e, err)
	}
	other := in
	other.Caller = "reports"
	if e, err := explain(other); err != nil || e.Note != "" {
		t.Errorf("another caller: %+v, %v", e, err)
	}
	if err := st.Lock(t.Context(), mandate.Lockdown{Reason: "stolen", Since: time.Now(), By: "uid:1"}); err != nil {
		t.Fatal(err)
	}
	if e, err := explain(other); err != nil || !strings.Contains(e.Note, "locked down since") {
		t.Errorf("locked down: %+v, %v", e, err)
	}
	for name, without := range map[string]func(*policy.Hypothetical){
		"caller": func(h *policy.Hypothetical) { h.Caller = "" }, "partner": func(h *policy.Hypothetical) { h.Partner = "" },
		"audience": func(h *policy.Hypothetical) { h.Audience = "" }, "purpose": func(h *policy.Hypothetical) { h.Purpose = "" },
	} {
		h := in
		without(&h)
		if e, err := explain(h); !errors.Is(err, mandate.ErrInvalid) || !strings.HasPrefix(err.Error(), name+": ") {
			t.Errorf("without %s: %+v, %v", name, e, err)
		}
	}
	var out api.PolicyExplanation
	if _, err := x.then(t.Context(), &indexed{}, nil, &out); err != nil || !strings.Contains(out.Note, "the policy was not asked then") {
		t.Errorf("what was revoked then: %+v, %v", out, err)
	}
}
