package policy

import (
	"strings"

	"github.com/cedar-policy/cedar-go/types"
	"github.com/cedar-policy/cedar-go/x/exp/ast"

	"github.com/mandate-sam/mandate"
)

// inspect calls fn for every node of a rule's conditions.
func inspect(p *ast.Policy, fn func(ast.IsNode) bool) {
	for _, c := range p.Conditions {
		ast.Inspect(ast.NewNode(c.Body), fn)
	}
}

func count(p *ast.Policy) int {
	n := 0
	inspect(p, func(ast.IsNode) bool { n++; return true })
	return n
}

// mentioned returns the attributes of the context that a node looks at, and
// "resource" if it looks at that.
func mentioned(n ast.IsNode) map[string]bool {
	out := map[string]bool{}
	ast.Inspect(ast.NewNode(n), func(n ast.IsNode) bool {
		switch n := n.(type) {
		case ast.NodeTypeAccess:
			if v, ok := n.Arg.(ast.NodeTypeVariable); ok && v.Name == "context" {
				out[string(n.Value)] = true
			}
		case ast.NodeTypeVariable:
			if n.Name != "context" {
				out[string(n.Name)] = true
			}
		}
		return true
	})
	return out
}

// wants returns the attributes of the context that a rule may look at: all of
// them, if it does anything with the context but look at one.
func wants(p *ast.Policy) attribute {
	var out attribute
	variables, looks := 0, 0
	note := func(arg ast.IsNode, name string) {
		if v, ok := arg.(ast.NodeTypeVariable); ok && v.Name == "context" {
			looks++
			out |= attributes[name]
		}
	}
	inspect(p, func(n ast.IsNode) bool {
		switch n := n.(type) {
		case ast.NodeTypeAccess:
			note(n.Arg, string(n.Value))
		case ast.NodeTypeHas:
			note(n.Arg, string(n.Value))
		case ast.NodeTypeVariable:
			if n.Name == "context" {
				variables++
			}
		}
		return true
	})
	if variables != looks {
		return everything
	}
	return out
}

// mentions reports a rule that permits and does not look at what every rule
// must: an audience that is not named is every audience.
func (r *rule) mentions() error {
	seen := map[string]bool{}
	for _, c := range r.ast.Conditions {
		for k := range mentioned(c.Body) {
			seen[k] = true
		}
	}
	for _, must := range []struct{ attribute, example string }{
		{"audience", `context.audience == Audience::"graph"`}, {"purpose", `context.purpose == Purpose::"support"`},
	} {
		if !seen[must.attribute] {
			return mandate.Invalid("when", "must say for which %s: %s", must.attribute, must.example)
		}
	}
	return nil
}

// literals checks every entity that a rule names.
func (c *checker) literals(r *rule) error {
	uids := scopeEntities(r.ast)
	inspect(r.ast, func(n ast.IsNode) bool {
		if v, ok := n.(ast.NodeValue); ok {
			uids = append(uids, entitiesOf(v.Value)...)
		}
		return true
	})
	for _, uid := range uids {
		if err := c.literal(uid); err != nil {
			return err
		}
		if uid.Type == typeCustomer && r.allCustomers {
			return mandate.Invalid("@customers", `"all" contradicts %s: a token of the partner's own tenant reaches every customer`, uid)
		}
	}
	return nil
}

func entitiesOf(v types.Value) []types.EntityUID {
	switch v := v.(type) {
	case types.EntityUID:
		return []types.EntityUID{v}
	case types.Set:
		var out []types.EntityUID
		for e := range v.All() {
			out = append(out, entitiesOf(e)...)
		}
		return out
	}
	return nil
}

// literal reports an entity that no request can have: a rule about it would
// never hold, and nobody would know why.
func (c *checker) literal(uid types.EntityUID) error {
	id := string(uid.ID)
	switch uid.Type {
	case typeCaller, typePartner, typePurpose:
		if !mandate.Name(id) {
			return mandate.Invalid(string(uid.Type), "%.64q is not a name; there are no wildcards here", id)
		}
	case typeCallerGroup, typePartnerGroup, typePurposeGroup:
		if !c.set.groups.has(uid) {
			return mandate.Invalid(string(uid.Type), "%.64q is not in %s", id, GroupsFile)
		}
	case typeCustomer:
		if t, err := mandate.ParseTenantID(id); err != nil || t.String() != id {
			return mandate.Invalid(string(uid.Type), "%.64q is not a tenant id in lower case", id)
		}
	case typeServer:
		if uid != server {
			return mandate.Invalid(string(uid.Type), "there is one only: %s", server)
		}
	case typeAudience:
		return c.audience(uid)
	}
	return nil
}

// paths reports text that a rule holds against a call's path, and that no path
// can be.
func (r *rule) paths() error {
	if r.wants&hasPath == 0 {
		return nil
	}
	var wrong string
	note := func(text string) {
		if wrong == "" && text != strings.ToLower(text) {
			wrong = text
		}
	}
	inspect(r.ast, func(n ast.IsNode) bool {
		switch n := n.(type) {
		case ast.NodeTypeLike:
			if mentioned(n.Arg)["path"] {
				note(string(n.Value.MarshalCedar()))
			}
		case ast.NodeValue:
			for _, s := range textsOf(n.Value) {
				if strings.HasPrefix(s, "/") {
					note(s)
				}
			}
		}
		return true
	})
	if wrong != "" {
		return mandate.Invalid("path", "%.120s is never one: rules see paths in lower case, because Microsoft's APIs take them in any", wrong)
	}
	return nil
}

func textsOf(v types.Value) []string {
	switch v := v.(type) {
	case types.String:
		return []string{string(v)}
	case types.Set:
		var out []string
		for e := range v.All() {
			out = append(out, textsOf(e)...)
		}
		return out
	}
	return nil
}

// audience wants the short name of an audience, as requests have it.
func (c *checker) audience(uid types.EntityUID) error {
	for _, cl := range c.set.clouds {
		for resource, alias := range cl.audiences {
			if alias == uid {
				return nil
			}
			if string(uid.ID) == string(resource) {
				return mandate.Invalid("Audience", "%q is written %s", uid.ID, alias)
			}
		}
	}
	return mandate.Invalid("Audience", "%.80q is not an audience of any configured cloud", string(uid.ID))
}

func scopeEntities(p *ast.Policy) []types.EntityUID {
	var out []types.EntityUID
	for _, s := range []ast.IsScopeNode{p.Principal, p.Resource} {
		if uid, ok := scopeEntity(s); ok {
			out = append(out, uid)
		}
	}
	return out
}

// scopeEntity returns the entity that a scope names, if it names one.
func scopeEntity(s ast.IsScopeNode) (types.EntityUID, bool) {
	switch s := s.(type) {
	case ast.ScopeTypeEq:
		return s.Entity, true
	case ast.ScopeTypeIn:
		return s.Entity, true
	case ast.ScopeTypeIsIn:
		return s.Entity, true
	}
	return types.EntityUID{}, false
}

// scope notes whom a rule can speak of. One that permits must name callers and
// partners: a customer may belong to several partners, and a right through one
// is none through another.
func (c *checker) scope(r *rule) error {
	r.wants = wants(r.ast)
	if uid, ok := scopeEntity(r.ast.Principal); ok {
		if r.callers = []string{string(uid.ID)}; uid.Type == typeCallerGroup {
			r.callers = append([]string{}, c.set.groups.Callers[string(uid.ID)]...)
		}
	}
	if uid, ok := scopeEntity(r.ast.Resource); ok {
		switch uid.Type {
		case typePartner:
			r.partners = []string{string(uid.ID)}
		case typePartnerGroup:
			r.partners = append([]string{}, c.set.groups.Partners[string(uid.ID)]...)
		}
	}
	switch {
	case r.permit && r.callers == nil:
		return mandate.Invalid("principal", `must be named: principal == Caller::"billing", or in a CallerGroup`)
	case r.permit && r.partners == nil:
		return mandate.Invalid("resource", `must be in a partner: resource in Partner::"contoso", or in a PartnerGroup; customers go into the condition`)
	}
	return nil
}

func usesOf(s ast.IsActionScopeNode) uses {
	var list []types.EntityUID
	switch s := s.(type) {
	case ast.ScopeTypeEq:
		list = []types.EntityUID{s.Entity}
	case ast.ScopeTypeIn:
		list = []types.EntityUID{s.Entity}
	case ast.ScopeTypeInSet:
		list = s.Entities
	default:
		return useToken | useCall
	}
	var out uses
	for _, uid := range list {
		if out |= useOf(mandate.Use(uid.ID)); uid.ID == types.String(administer) {
			out |= useAdminister
		}
	}
	return out
}

// explicit returns a rule with its actions named. One that names none speaks of
// what callers do: what operators do has another vocabulary.
func explicit(p *ast.Policy) *ast.Policy {
	if _, all := p.Action.(ast.ScopeTypeAll); !all {
		return p
	}
	out := *p
	out.Action = ast.ScopeTypeInSet{Entities: []types.EntityUID{
		types.NewEntityUID(typeAction, types.String(mandate.UseToken)), types.NewEntityUID(typeAction, types.String(mandate.UseCall)),
	}}
	return &out
}
