package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/audit"
	"github.com/mandate-sam/mandate/footprint"
	"github.com/mandate-sam/mandate/internal/portal"
	"github.com/mandate-sam/mandate/store"
)

// partnerPages lets people of partners sign in, shows them what was done with
// their grant, and does with it what they ask for. It implements
// [portal.People], [portal.Records] and [portal.Grants].
type partnerPages struct {
	store    *store.Store
	upstream *upstream
	broker   *mandate.Broker
	log      *audit.Log
	epoch    epoch
	roles    *partnerRoles
}

// Partner implements [portal.People].
func (p *partnerPages) Partner(_ context.Context, cloud string, a mandate.AppID, t mandate.TenantID) (mandate.Partner, error) {
	return p.find(mandate.GrantKey{Cloud: cloud, Application: a, Partner: t})
}

func (p *partnerPages) find(k mandate.GrantKey) (mandate.Partner, error) {
	all, err := p.store.Partners()
	if err != nil {
		return mandate.Partner{}, err
	}
	i := slices.IndexFunc(all, func(x mandate.Partner) bool { return x.Key == k })
	if i < 0 {
		return mandate.Partner{}, fmt.Errorf("%w: no partner has the tenant %s", mandate.ErrUnknownPartner, k.Partner)
	}
	return all[i], nil
}

// SignIn implements [portal.People]. Nobody has a session of whom there is no
// record.
func (p *partnerPages) SignIn(ctx context.Context, in portal.SignIn) (mandate.Secret, error) {
	k := in.Partner.Key
	user, err := p.verify(ctx, in)
	if err != nil {
		return mandate.Secret{}, p.refuse(ctx, in, err)
	}
	roles, err := p.roles.of(ctx, k, user.Identity, true)
	if err != nil {
		return mandate.Secret{}, p.refuse(ctx, in, err)
	}
	if len(roles) == 0 {
		return mandate.Secret{}, p.refuse(ctx, in, &mandate.Refusal{
			Reason: mandate.ReasonRole, Detail: "object " + user.Object.String() + " has no role on the partner's pages",
		})
	}
	detail := "somebody of the partner signed in to see what was done, as " + strings.Join(roles, ", ")
	if err := p.record(ctx, in.Partner, user.Identity, in.Address, detail); err != nil {
		return mandate.Secret{}, err
	}
	return p.store.AddPartnerSession(ctx, store.PartnerSession{
		Key: k, Object: user.Object, UserName: user.UserName, SignedIn: signedIn(user.AuthTime, in.Began, time.Now()),
	})
}

// signedIn returns when somebody signed in, or zero unless Entra says so and
// says a time after the sign-in was started here: an older one is that of a
// session that Entra had, and proves nobody at the keyboard.
func signedIn(at, began, now time.Time) time.Time {
	switch {
	case at.Before(began.Truncate(time.Second)):
		return time.Time{}
	case at.After(now):
		return now // within the leeway; it is not fresher than now
	}
	return at
}

// verify redeems the code at the partner's own tenant and verifies who it is.
func (p *partnerPages) verify(ctx context.Context, in portal.SignIn) (*mandate.IDToken, error) {
	c, err := p.upstream.client(in.Partner.Key)
	if err != nil {
		return nil, err
	}
	user, err := c.SignIn(ctx, mandate.CodeRedemption{
		Key: in.Partner.Key, Code: in.Code, Verifier: in.Verifier, RedirectURI: in.RedirectURI, Nonce: in.Nonce,
	})
	if err == nil && user.Tenant != in.Partner.Key.Partner {
		return nil, &mandate.Refusal{Reason: mandate.ReasonTenant}
	}
	return user, err
}

// refuse records why somebody was not let in, and returns that.
func (p *partnerPages) refuse(ctx context.Context, in portal.SignIn, err error) error {
	var r *mandate.Refusal
	if f := (*mandate.Fault)(nil); !errors.As(err, &r) {
		r = &mandate.Refusal{Reason: mandate.ReasonSiteProblem, Err: err}
		if errors.As(err, &f) {
			r = &mandate.Refusal{Reason: mandate.ReasonEntra, Fault: f}
		}
	}
	return p.broker.Refuse(ctx, in.Partner, r, in.Address)
}

// record records what somebody of a partner does.
func (p *partnerPages) record(ctx context.Context, of mandate.Partner, user mandate.Identity, address, detail string) error {
	epoch, err := p.epoch.Epoch()
	if err != nil {
		return err
	}
	_, err = p.log.Record(ctx, mandate.Record{
		Kind: mandate.KindChanged, Epoch: epoch, Address: address, Partner: of.Name, Grant: &of.Key,
		Tenant: of.Key.Partner, User: &user, Detail: detail,
	})
	return err
}

// Session implements [portal.People]. The roles are those of now.
func (p *partnerPages) Session(ctx context.Context, secret mandate.Secret) (portal.Person, error) {
	s, err := p.store.PartnerSession(ctx, secret)
	if err != nil {
		return portal.Person{}, err
	}
	out := portal.Person{User: mandate.Identity{Tenant: s.Key.Partner, Object: s.Object}, UserName: s.UserName, SignedIn: s.SignedIn}
	if out.Partner, err = p.find(s.Key); err != nil {
		return portal.Person{}, fmt.Errorf("%w: %w", mandate.ErrUnauthenticated, err)
	}
	if out.Roles, err = p.roles.of(ctx, s.Key, out.User, false); err == nil && len(out.Roles) == 0 {
		err = fmt.Errorf("%w: the person has no role any more", mandate.ErrUnauthenticated)
	}
	return out, err
}

// End implements [portal.People].
func (p *partnerPages) End(ctx context.Context, secret mandate.Secret) error {
	return p.store.EndPartnerSession(ctx, secret)
}

// grant returns the generation that is active or suspended, or else the last.
func (p *partnerPages) grant(ctx context.Context, k mandate.GrantKey) (mandate.Grant, error) {
	all, err := p.broker.Grants(ctx, k.Partner)
	if err != nil {
		return mandate.Grant{}, err
	}
	all = slices.DeleteFunc(all, func(g mandate.Grant) bool { return g.Key != k })
	for _, g := range all {
		if g.State == mandate.StateActive || g.State == mandate.StateSuspended {
			return g, nil
		}
	}
	if len(all) == 0 {
		return mandate.Grant{}, fmt.Errorf("%w: the partner has given no consent", mandate.ErrNotFound)
	}
	return all[0], nil
}

// Grant implements [portal.Records].
func (p *partnerPages) Grant(ctx context.Context, k mandate.GrantKey) (mandate.Grant, time.Time, error) {
	g, err := p.grant(ctx, k)
	if err != nil {
		return g, time.Time{}, err
	}
	g.Refresh = mandate.Secret{}
	q := audit.Query{Chain: audit.Chain(k.Cloud, k.Partner), Kind: mandate.KindIssued}
	for e, err := range p.log.Each(ctx, q) {
		if err != nil {
			return g, time.Time{}, err
		}
		if e.Grant != nil && *e.Grant == k {
			return g, e.Time, nil
		}
	}
	return g, time.Time{}, nil
}

const (
	// pageEvents is how many events a page has, and pageRecords how many
	// records they are of at most.
	pageEvents, pageRecords = 25, 500
)

// History implements [portal.Records].
func (p *partnerPages) History(ctx context.Context, k mandate.GrantKey, f portal.Filter) (portal.History, error) {
	q := audit.Query{Chain: audit.Chain(k.Cloud, k.Partner), From: f.Month, To: f.Month.AddDate(0, 1, 0)}
	all, err := p.log.Activity(ctx, q, k.Application)
	if err != nil {
		return portal.History{}, err
	}
	out := portal.History{Callers: all.Callers, Customers: all.Tenants}
	q.Caller, q.Tenant = f.Caller, f.Customer
	if q.Caller != "" || q.Tenant != "" {
		if all, err = p.log.Activity(ctx, q, k.Application); err != nil {
			return portal.History{}, err
		}
	}
	for _, d := range all.Days {
		out.Days = append(out.Days, portal.DayCount{Day: d.Day, Issued: d.Issued, Denied: d.Denied})
	}
	q.Before = f.Before
	return out, p.events(ctx, k, q, &out)
}

// Names implements [portal.Records].
func (p *partnerPages) Names(ctx context.Context, k mandate.GrantKey) (map[string]string, error) {
	_, all, err := p.store.Customers().List(ctx, k)
	if err != nil {
		return nil, err
	}
	names := make(map[string]string, len(all))
	for _, c := range all {
		if c.Name != "" {
			names[c.Tenant.String()] = c.Name
		}
	}
	return names, nil
}

// Usage implements [portal.Records].
func (p *partnerPages) Usage(ctx context.Context, k mandate.GrantKey, days int, customer mandate.TenantID) (footprint.Report, error) {
	g, err := p.grant(ctx, k)
	if err != nil {
		return footprint.Report{}, err
	}
	to := time.Now().UTC()
	subject := footprint.Subject{Grant: g, Customer: customer, Days: days, From: to.AddDate(0, 0, -days), To: to, Audiences: make(map[mandate.Audience]string)}
	for name, endpoint := range p.upstream.audiences[k.Cloud] {
		subject.Audiences[endpoint.Resource] = name
	}
	q := audit.Query{Chain: audit.Chain(k.Cloud, k.Partner), Kind: mandate.KindIssued, From: subject.From}
	if !customer.IsZero() {
		q.Tenant = customer.String()
	}
	return footprint.Measure(subject, func(yield func(mandate.Record, error) bool) {
		for e, err := range p.log.Each(ctx, q) {
			if !yield(e.Record, err) {
				return
			}
		}
	})
}

// pagesCaller is the caller in the records of what people of partners do. Who
// it was is in the record before, encrypted as all that is about persons.
const pagesCaller = mandate.CallerID("mandate:pages")

// Renew implements [portal.Grants].
func (p *partnerPages) Renew(ctx context.Context, who portal.Person, address string) error {
	return p.record(ctx, who.Partner, who.User, address, "somebody of the partner begins to renew the grant")
}

// Withdraw implements [portal.Grants].
func (p *partnerPages) Withdraw(ctx context.Context, who portal.Person, endSessions bool, address string) (mandate.Withdrawal, error) {
	if err := p.record(ctx, who.Partner, who.User, address, "somebody of the partner asks to withdraw the grant"); err != nil {
		return mandate.Withdrawal{}, err
	}
	by := mandate.By{Caller: pagesCaller, Address: address, Name: who.UserName + ", on the partner's pages"}
	return p.broker.Withdraw(ctx, who.Partner, endSessions, by)
}

// AgentGroupsOf implements [mandate.AgentDirectory].
func (u *upstream) AgentGroupsOf(ctx context.Context, k mandate.GrantKey, user mandate.ObjectID, token mandate.Secret) ([]string, error) {
	return u.graph[k.Cloud].AgentGroupsOf(ctx, token, user)
}

// Export implements [portal.Records].
func (p *partnerPages) Export(ctx context.Context, k mandate.GrantKey, to io.Writer) error {
	return p.log.Export(ctx, to, audit.Export{Chain: audit.Chain(k.Cloud, k.Partner)})
}

// events reads one page of events into out. What is done again and again is
// one event, so that a page has pageEvents that differ, and at most as many
// records as pageRecords.
func (p *partnerPages) events(ctx context.Context, k mandate.GrantKey, q audit.Query, out *portal.History) error {
	read := 0
	for q.Limit = 100; ; {
		page, err := p.log.Search(ctx, q)
		if err != nil {
			return err
		}
		for i := range page {
			e := &page[i]
			if !shown(e, k) {
				q.Before = e.Index
				continue
			}
			next := event(e)
			if n := len(out.Events); n > 0 && again(&out.Events[n-1], &next) && read < pageRecords {
				last := &out.Events[n-1]
				last.Times, last.First, last.FirstIndex = last.Times+1, next.Time, next.Index
			} else if n == pageEvents || read >= pageRecords {
				out.Older = q.Before
				return nil
			} else {
				out.Events = append(out.Events, next)
			}
			read++
			q.Before = e.Index
		}
		if len(page) < q.Limit || q.Before == 0 {
			return nil
		}
	}
}

// again reports whether e, which came before, was the same use as that of then
// on the same day.
func again(then, e *portal.Event) bool {
	switch e.Kind {
	case mandate.KindIssued, mandate.KindDenied, mandate.KindFailed:
	default:
		return false
	}
	const day = time.DateOnly
	return e.Kind == then.Kind && e.Caller == then.Caller && e.Purpose == then.Purpose && e.Tenant == then.Tenant && e.Audience == then.Audience &&
		e.Generation == then.Generation && e.Detail == then.Detail && e.Time.UTC().Format(day) == then.Time.UTC().Format(day)
}

// shown reports whether a record is one of this grant that says something to
// its partner. That a request was allowed is not: what came of it follows.
func shown(e *audit.Entry, k mandate.GrantKey) bool {
	return !e.Dropped && e.Grant != nil && *e.Grant == k && e.Kind != mandate.KindDecided && e.Kind != mandate.KindRefreshed
}

// event leaves out who the persons are, from where they came, and tickets. What
// a call's path was is in the record, which the partner can have.
func event(e *audit.Entry) portal.Event {
	out := portal.Event{
		Index: e.Index, Time: e.Time, Kind: e.Kind, Caller: string(e.Caller), Purpose: e.Purpose, Tenant: e.Tenant,
		Audience: e.Audience, Scopes: e.Granted, Generation: e.Generation, Times: 1,
	}
	if e.Use == "" && e.Kind != mandate.KindIssued {
		out.Detail = e.Detail
	}
	return out
}
