package policy

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/cedar-policy/cedar-go"
	publicast "github.com/cedar-policy/cedar-go/ast"
	"github.com/cedar-policy/cedar-go/x/exp/ast"

	"github.com/mandate-sam/mandate"
)

// A part is one of the things that must hold for a rule to hold.
type part struct {
	about string        // "purpose", "network": what a caller is told
	text  string        // in Cedar: what an operator is told
	cedar *cedar.Policy // permits if it holds
}

// split returns the parts of a rule: what is in its head, and the terms of its
// conditions.
func (r *rule) split() []part {
	r.once.Do(func() {
		head := *r.ast
		head.Conditions, head.Annotations, head.Effect = nil, nil, ast.EffectPermit
		for _, h := range []struct {
			about string
			leave func(*ast.Policy)
		}{
			{"caller", func(p *ast.Policy) { p.Principal = r.ast.Principal }},
			{"action", func(p *ast.Policy) { p.Action = r.ast.Action }},
			{"partner", func(p *ast.Policy) { p.Resource = r.ast.Resource }},
		} {
			p := ast.Permit()
			h.leave(p)
			text := string(compiled(p).MarshalCedar())
			if text != string(compiled(ast.Permit()).MarshalCedar()) {
				r.parts = append(r.parts, part{h.about, headText(text, h.about), compiled(p)})
			}
		}
		for _, c := range r.ast.Conditions {
			if !c.Condition {
				r.parts = append(r.parts, newPart(ast.Permit().Unless(ast.NewNode(c.Body)), c.Body))
				continue
			}
			for _, term := range terms(c.Body) {
				r.parts = append(r.parts, newPart(ast.Permit().When(ast.NewNode(term)), term))
			}
		}
	})
	return r.parts
}

func compiled(p *ast.Policy) *cedar.Policy { return cedar.NewPolicyFromAST((*publicast.Policy)(p)) }

// headText cuts one line out of a rule's head.
func headText(text, about string) string {
	word := map[string]string{"caller": "principal", "action": "action", "partner": "resource"}[about]
	for line := range strings.Lines(text) {
		if line = strings.Trim(line, " ,\t\n"); strings.HasPrefix(line, word) {
			return line
		}
	}
	return strings.Join(strings.Fields(text), " ")
}

func newPart(p *ast.Policy, body ast.IsNode) part {
	c := compiled(p)
	_, text, _ := strings.Cut(string(c.MarshalCedar()), ")\n")
	text = strings.Join(strings.Fields(text), " ")
	text = strings.TrimSuffix(strings.TrimPrefix(text, "when { "), " };")
	return part{subject(body), text, c}
}

// terms returns what is joined by "and" in a condition.
func terms(n ast.IsNode) []ast.IsNode {
	var out []ast.IsNode
	for {
		and, ok := n.(ast.NodeTypeAnd)
		if !ok {
			out = append(out, n)
			slices.Reverse(out)
			return out
		}
		// Right first, since a chain is nested to its left.
		right := terms(and.Right)
		slices.Reverse(right)
		out = append(out, right...)
		n = and.Left
	}
}

// subject says what a term is about, for somebody who may not read the rule.
func subject(n ast.IsNode) string {
	seen := mentioned(n)
	var words []string
	for _, w := range []struct{ attribute, word string }{
		{"audience", "audience"}, {"purpose", "purpose"}, {"resource", "customer"}, {"asked", "scopes"}, {"ticket", "ticket"}, {"ip", "network"},
		{"now", "time"}, {"weekday", "time"}, {"mfa_age", "age of MFA"}, {"method", "method"}, {"path", "path"}, {"cloud", "cloud"}, {"principal", "caller"}, {"action", "action"},
	} {
		if seen[w.attribute] && !slices.Contains(words, w.word) {
			words = append(words, w.word)
		}
	}
	if len(words) == 0 {
		return "network" // context has ip
	}
	return strings.Join(words, " and ")
}

// missing returns the parts of r that do not hold. A term that cannot be
// evaluated by itself, such as one behind a "has", does not hold.
func (r *rule) missing(w *world) []part {
	var out []part
	for _, p := range r.split() {
		if d, _ := cedar.Authorize(cedar.PolicyMap{"part": p.cedar}, w, w.Request); d == cedar.Deny {
			out = append(out, p)
		}
	}
	return out
}

// maxNear is how many rules are looked at to tell a caller what came nearest.
const maxNear = 64

// nearest says which of the rules for this caller came nearest, and what it is
// about. The rule's own words are for operators: a caller whose secret was
// stolen need not read which network it must be used from.
func (s *Set) nearest(w *world, v *verdict, found *candidates) string {
	if v.miss != nil {
		return fmt.Sprintf("; the nearest, %q, %s", v.miss.name, v.miss.explain(v.lacks))
	}
	var near *rule
	var lacks []part
	n := 0
	for _, list := range found.lists {
		for _, r := range list {
			if !r.permit || r.shadow || r.callers == nil {
				continue
			}
			if n++; n > maxNear {
				break
			}
			if m := r.missing(w); near == nil || len(m) < len(lacks) || len(m) == len(lacks) && r.order < near.order {
				near, lacks = r, m
			}
		}
	}
	if near == nil || len(lacks) == 0 || slices.ContainsFunc(lacks, func(p part) bool { return p.about == "caller" }) {
		return ""
	}
	var about []string
	for _, p := range lacks {
		if !slices.Contains(about, p.about) {
			about = append(about, p.about)
		}
	}
	return fmt.Sprintf("; the nearest, %q, is for another %s", near.name, strings.Join(about, ", "))
}

// An Explanation is a decision with what each rule had to say of it.
type Explanation struct {
	Allowed bool   `json:"allowed"`
	Rule    string `json:"rule,omitempty"` // "" is no rule
	Reason  string `json:"reason"`
	Policy  string `json:"policy"`
	Rules   []View `json:"rules"` // those that hold, then those that came nearest
}

// A View is how a request looks to one rule.
type View struct {
	Rule    string   `json:"rule"`
	Effect  string   `json:"effect"` // "permit" or "forbid"
	File    string   `json:"file"`
	Line    int      `json:"line"`
	Shadow  bool     `json:"shadow,omitempty"`
	Holds   bool     `json:"holds"`
	Missing []string `json:"missing,omitempty"` // what does not hold, in Cedar or in words
}

// distance says how far a rule is from holding. One for others is further than
// any for this caller and partner.
func (v *View) distance() int {
	n := len(v.Missing)
	for _, m := range v.Missing {
		if strings.HasPrefix(m, "principal") || strings.HasPrefix(m, "resource in") || strings.HasPrefix(m, "resource ==") {
			n += 100
		}
	}
	return n
}

// maxViews is how many near misses are explained.
const maxViews = 5

// Explain decides req as it would have been decided at a time, and says why.
func (s *Set) Explain(req *mandate.Request, approvals Approvals, at time.Time) Explanation {
	d := s.decideByAll(req, approvals, at)
	e := Explanation{Allowed: d.Allowed, Rule: d.Rule, Reason: d.Reason, Policy: d.Policy}
	w, err := s.world(req, at, everything)
	if err != nil {
		return e
	}
	var near []View
	for _, r := range s.rules {
		v := r.view(req, w, approvals, at)
		switch {
		case v.Holds:
			e.Rules = append(e.Rules, v)
		case r.permit:
			near = append(near, v)
		}
	}
	slices.SortStableFunc(near, func(a, b View) int { return cmp.Compare(a.distance(), b.distance()) })
	e.Rules = append(e.Rules, near[:min(len(near), maxViews)]...)
	return e
}

func (r *rule) view(req *mandate.Request, w *world, approvals Approvals, at time.Time) View {
	v := View{Rule: r.name, Effect: r.effect(), File: r.file, Line: r.line, Shadow: r.shadow}
	for _, p := range r.missing(w) {
		v.Missing = append(v.Missing, p.text)
	}
	if lacks := r.lacks(req, w, approvals, at); lacks != needNothing {
		v.Missing = append(v.Missing, r.explain(lacks))
	}
	v.Holds = len(v.Missing) == 0
	return v
}
