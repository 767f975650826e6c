package policy

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"github.com/cedar-policy/cedar-go"
	"github.com/cedar-policy/cedar-go/types"

	"github.com/mandate-sam/mandate"
)

// notProven is the age of MFA whose time nobody proved: too old for any rule.
const notProven = 36500 * 24 * time.Hour

// A world is one request in Cedar's terms. It is the entities, too: a customer
// is in the partner that the request names and in no other, whoever else may
// serve it.
type world struct {
	cedar.Request
	set      *Set
	customer types.Entity // zero if the resource is the partner
}

// Get implements [types.EntityGetter].
func (w *world) Get(uid types.EntityUID) (types.Entity, bool) {
	if w.customer.UID.Type != "" && uid == w.customer.UID {
		return w.customer, true
	}
	e, ok := w.set.entities[uid]
	return e, ok
}

// An attribute is one of the context's, as a bit.
type attribute uint16

// The attributes of the context.
const (
	hasAudience attribute = 1 << iota
	hasCloud
	hasPurpose
	hasTicket
	hasAsked
	hasIP
	hasNow
	hasWeekday
	hasMFAAge
	hasMethod
	hasPath

	everything attribute = 1<<iota - 1
)

var attributes = map[string]attribute{
	"audience": hasAudience, "cloud": hasCloud, "purpose": hasPurpose, "ticket": hasTicket, "asked": hasAsked, "ip": hasIP,
	"now": hasNow, "weekday": hasWeekday, "mfa_age": hasMFAAge, "method": hasMethod, "path": hasPath,
}

// world returns req in Cedar's terms, or says why there are none for it. The
// context has only the attributes that are wanted: making it takes longer than
// most rules.
func (s *Set) world(req *mandate.Request, now time.Time, wanted attribute) (*world, error) {
	cl, ok := s.clouds[req.Partner.Key.Cloud]
	if !ok {
		return nil, fmt.Errorf("cloud %q is not configured", req.Partner.Key.Cloud)
	}
	audience, ok := cl.audiences[req.Audience]
	if !ok {
		return nil, fmt.Errorf("%.80q is not an audience of cloud %q", string(req.Audience), req.Partner.Key.Cloud)
	}
	if !mandate.Name(req.Purpose) {
		return nil, fmt.Errorf("purpose %.64q is not a name", req.Purpose)
	}
	if useOf(req.Use) == 0 {
		return nil, fmt.Errorf("use %.64q is not known", string(req.Use))
	}
	w := &world{set: s}
	w.Principal = types.NewEntityUID(typeCaller, types.String(req.Caller))
	w.Action = types.NewEntityUID(typeAction, types.String(req.Use))
	partner := types.NewEntityUID(typePartner, types.String(req.Partner.Name))
	w.Resource = partner
	t, ok, err := customerOf(req, audience)
	if err != nil {
		return nil, err
	}
	if ok {
		w.Resource = types.NewEntityUID(typeCustomer, types.String(t.String()))
		w.customer = types.Entity{UID: w.Resource, Parents: types.NewEntityUIDSet(partner)}
	}
	w.Context = types.NewRecord(contextOf(req, cl.name, audience, now.UTC(), wanted))
	return w, nil
}

func contextOf(req *mandate.Request, cloud types.String, audience types.EntityUID, now time.Time, wanted attribute) types.RecordMap {
	m := make(types.RecordMap, 8)
	add := func(name types.String, bit attribute, value func() types.Value) {
		if wanted&bit != 0 {
			m[name] = value()
		}
	}
	add("audience", hasAudience, func() types.Value { return audience })
	add("cloud", hasCloud, func() types.Value { return cloud })
	add("purpose", hasPurpose, func() types.Value { return types.NewEntityUID(typePurpose, types.String(req.Purpose)) })
	add("ticket", hasTicket, func() types.Value { return types.String(req.Ticket) })
	add("asked", hasAsked, func() types.Value { return stringSet(req.Scopes) })
	add("now", hasNow, func() types.Value { return types.NewDatetime(now) })
	add("weekday", hasWeekday, func() types.Value { return weekday(now) })
	add("mfa_age", hasMFAAge, func() types.Value { return types.NewDuration(mfaAge(req, now)) })
	if a := req.Address.Unmap().WithZone(""); a.IsValid() {
		add("ip", hasIP, func() types.Value { return types.IPAddr(netip.PrefixFrom(a, a.BitLen())) })
	}
	if req.Use == mandate.UseCall {
		add("method", hasMethod, func() types.Value { return types.String(req.Method) })
		add("path", hasPath, func() types.Value { return types.String(pathOf(req)) })
	}
	return m
}

func mfaAge(req *mandate.Request, now time.Time) time.Duration {
	if req.MFATime.IsZero() {
		return notProven
	}
	return min(max(now.Sub(req.MFATime), 0), notProven)
}

func stringSet(list []string) types.Set {
	values := make([]types.Value, len(list))
	for i, s := range list {
		values[i] = types.String(s)
	}
	return types.NewSet(values...)
}

// customerOf returns the customer that a request reaches, if it is one only: by
// a token of the customer's tenant, or by a call that this server makes to
// Partner Center below one customer, where the caller never has the token.
func customerOf(req *mandate.Request, audience types.EntityUID) (t mandate.TenantID, ok bool, err error) {
	if !req.OwnTenant() {
		return req.Tenant, true, nil
	}
	if req.Use != mandate.UseCall || audience.ID != mandate.PartnerCenter {
		return t, false, nil
	}
	segments := strings.SplitN(pathOf(req), "/", 5) // /v1/customers/ID/…
	if len(segments) < 4 || segments[2] != "customers" {
		return t, false, nil
	}
	t, err = customerIn(segments[3])
	return t, err == nil && !t.IsZero() && t != req.Tenant, err
}

// customerIn reads the customer's ID in a segment of a path; zero if it is none.
// Others may read one in braces, without hyphens or with a space behind it, so
// whatever could be an ID is one, or is not to be decided about.
func customerIn(segment string) (mandate.TenantID, error) {
	plain, err := url.PathUnescape(segment)
	if err != nil {
		return mandate.TenantID{}, errors.New("the path is malformed")
	}
	digits := strings.Map(func(r rune) rune {
		if r >= '0' && r <= '9' || r >= 'a' && r <= 'f' || r >= 'A' && r <= 'F' {
			return r
		}
		return -1
	}, plain)
	switch {
	case len(digits) < 32:
		return mandate.TenantID{}, nil
	case len(digits) > 32:
		return mandate.TenantID{}, fmt.Errorf("%.60q in the path is not the ID of a customer", segment)
	}
	return mandate.ParseTenantID(strings.Join([]string{digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]}, "-"))
}

// pathOf is a call's path as rules see it: in lower case, because Microsoft's
// APIs take one path in any, and what a rule forbids must not be had by writing
// it in capitals.
func pathOf(req *mandate.Request) string { return strings.ToLower(req.Path) }
