package policy

import (
	"iter"

	"github.com/cedar-policy/cedar-go"
	"github.com/cedar-policy/cedar-go/types"

	"github.com/mandate-sam/mandate"
)

// An index finds the rules that can speak of a caller and a partner. It finds
// too many rather than too few: Cedar looks at every rule that it finds.
type index struct {
	both     map[pair][]*rule
	callers  map[string][]*rule // of any partner
	partners map[string][]*rule // of any caller
	any      []*rule
}

type pair struct{ caller, partner string }

// maxPairs is how many pairs one rule may have in the index before it is found
// by its callers alone.
const maxPairs = 1_000

func newIndex(rules []*rule) index {
	x := index{both: map[pair][]*rule{}, callers: map[string][]*rule{}, partners: map[string][]*rule{}}
	for _, r := range rules {
		switch {
		case r.callers == nil && r.partners == nil:
			x.any = append(x.any, r)
		case r.callers == nil:
			put(x.partners, r.partners, r)
		case r.partners == nil || len(r.callers)*len(r.partners) > maxPairs:
			put(x.callers, r.callers, r)
		default:
			x.pairs(r)
		}
	}
	return x
}

func put(m map[string][]*rule, keys []string, r *rule) {
	seen := map[string]bool{}
	for _, k := range keys {
		if !seen[k] {
			m[k] = append(m[k], r)
		}
		seen[k] = true
	}
}

func (x *index) pairs(r *rule) {
	seen := map[pair]bool{}
	for _, c := range r.callers {
		for _, p := range r.partners {
			k := pair{c, p}
			if !seen[k] {
				x.both[k] = append(x.both[k], r)
			}
			seen[k] = true
		}
	}
}

// candidates are rules that may speak of a request. They are what Cedar
// evaluates.
type candidates struct {
	lists [4][]*rule
	uses  uses
	full  bool // whatever they want, the context has everything
}

func (x *index) find(req *mandate.Request) candidates {
	return x.about(string(req.Caller), req.Partner.Name, useOf(req.Use))
}

// about returns the rules that may speak of a caller and a partner.
func (x *index) about(caller, partner string, use uses) candidates {
	return candidates{[4][]*rule{x.both[pair{caller, partner}], x.callers[caller], x.partners[partner], x.any}, use, false}
}

// All implements [cedar.PolicyIterator].
func (c *candidates) All() iter.Seq2[types.PolicyID, *cedar.Policy] {
	return func(yield func(types.PolicyID, *cedar.Policy) bool) {
		for r := range c.rules() {
			if !yield(types.PolicyID(r.name), r.cedar) {
				return
			}
		}
	}
}

func (c *candidates) rules() iter.Seq[*rule] {
	return func(yield func(*rule) bool) {
		for _, list := range c.lists {
			for _, r := range list {
				if r.uses&c.uses != 0 && !yield(r) {
					return
				}
			}
		}
	}
}

// wants returns the attributes that any of the rules may look at.
func (c *candidates) wants() attribute {
	if c.full {
		return everything
	}
	var out attribute
	for r := range c.rules() {
		out |= r.wants
	}
	return out
}
