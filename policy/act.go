package policy

import (
	"net/netip"
	"time"

	"github.com/cedar-policy/cedar-go/types"

	"github.com/mandate-sam/mandate"
)

// Acts are what operators do that changes anything, as rules name it, and
// whether more may happen by it than before. What only looks, and what makes
// things tighter, is not asked about.
var Acts = map[string]bool{
	"partner contact add": true, "partner contact remove": true, "notice retry": false,
	"partner invite": false, "partner allow": true, "customer refresh": false, "backup": false,
	"grant resume": true, "grant rollback": true, "grant approve": true, "grant import": true,
	"caller add": true, "caller rotate": true, "caller adopt": true,
	"policy apply": true, "approval give": true, "revoke lift": true, "lockdown off": true, "restore finish": true,
	"key rotate": true, "key reload": true, "key retire": true, "key rewrap": true, "credential rotate": true,
	"audit erase": true, "audit drop": true,
}

// An Act is what an operator is about to do. Roles allow it; the policy can
// only forbid it.
type Act struct {
	Caller  mandate.CallerID // "oid:…" of a person, "uid:1000" of a host account
	Name    string           // the command: "policy apply"
	Loosens bool             // whether more may happen by it than before
	Roles   []string         // of the person; a host account has none
	Partner string           // short name; "" if it is about no partner
	Address netip.Addr       // zero for the operator socket
}

// administer is what the use of an [Act] is called in rules and tests.
const administer mandate.Use = "administer"

// server is the resource of acts that are about no partner.
var server = types.NewEntityUID(typeServer, "mandate")

// Administer decides about an act by the rules that are in force. While there
// are none, nothing is forbidden: whoever is to put some in force must be able
// to. Rules that cannot be read just now, or not evaluated, are a denial.
func (e *Engine) Administer(a *Act) mandate.Decision {
	st, err := e.current()
	switch {
	case err != nil:
		return mandate.Decision{Reason: "no rule: the policy in force is not known: " + err.Error()}
	case st.set == nil:
		return mandate.Decision{Allowed: true, Reason: "no rule forbids it"}
	}
	return st.set.administer(a, st.set.index.about(string(a.Caller), a.Partner, useAdminister), time.Now())
}

// administer decides about an act by the rules that were found.
func (s *Set) administer(a *Act, found candidates, now time.Time) (d mandate.Decision) {
	defer func() {
		if p := recover(); p != nil {
			d = mandate.Decision{Policy: s.version, Reason: "no rule: the policy could not be evaluated"}
		}
	}()
	v := s.evaluate(nil, s.actWorld(a, now), &found, nil, now)
	if d = v.decision(); d.Rule == "" {
		d.Allowed, d.Reason = true, "no rule forbids it"
	}
	return d
}

// administerByAll decides by every rule.
func (s *Set) administerByAll(a *Act, now time.Time) mandate.Decision {
	return s.administer(a, candidates{[4][]*rule{s.rules}, useAdminister, true}, now)
}

// actWorld returns an act in Cedar's terms.
func (s *Set) actWorld(a *Act, now time.Time) *world {
	w := &world{set: s}
	w.Principal = types.NewEntityUID(typeCaller, types.String(a.Caller))
	w.Action = types.NewEntityUID(typeAction, types.String(administer))
	if w.Resource = server; a.Partner != "" {
		w.Resource = types.NewEntityUID(typePartner, types.String(a.Partner))
	}
	m := types.RecordMap{
		"act": types.String(a.Name), "loosens": types.Boolean(a.Loosens), "roles": stringSet(a.Roles),
		"now": types.NewDatetime(now.UTC()), "weekday": weekday(now.UTC()),
	}
	if ip := a.Address.Unmap().WithZone(""); ip.IsValid() {
		m["ip"] = types.IPAddr(netip.PrefixFrom(ip, ip.BitLen()))
	}
	w.Context = types.NewRecord(m)
	return w
}

// weekday is 1 on a Monday and 7 on a Sunday.
func weekday(now time.Time) types.Long { return types.Long(1 + (int(now.Weekday())+6)%7) }

// ExplainAct is [Set.Explain] for an act.
func (s *Set) ExplainAct(a *Act, at time.Time) Explanation {
	d := s.administerByAll(a, at)
	e := Explanation{Allowed: d.Allowed, Rule: d.Rule, Reason: d.Reason, Policy: d.Policy}
	w := s.actWorld(a, at)
	for _, r := range s.rules {
		if r.uses&useAdminister == 0 {
			continue
		}
		if v := r.view(nil, w, nil, at); v.Holds || len(e.Rules) < maxViews {
			e.Rules = append(e.Rules, v)
		}
	}
	return e
}
