package mandate

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

// A Customer is a tenant that a partner administers, as Microsoft told us.
type Customer struct {
	Tenant  TenantID `json:"tenant"`
	Name    string   `json:"name,omitempty"`   // for people to read
	Domain  string   `json:"domain,omitempty"` // for people to read
	Sources []string `json:"sources"`          // who told of it, such as [SourceGDAP]; sorted

	// Relationship is the name of the delegated admin relationship that ends
	// last, if there is one. Extends says that it goes on by itself.
	Relationship string    `json:"relationship,omitempty"`
	Ends         time.Time `json:"ends,omitzero"`
	Extends      bool      `json:"extends,omitempty"`

	First time.Time `json:"first_seen,omitzero"`
	Last  time.Time `json:"last_seen,omitzero"`
	Gone  bool      `json:"gone,omitempty"` // no source tells of it any more
}

// Who tells of customers.
const (
	SourcePartnerCenter = "partner_center"
	SourceGDAP          = "gdap"
)

// A CustomerSource is somebody who can be asked for a partner's customers.
type CustomerSource struct {
	Name     string   // such as [SourceGDAP]
	Audience Audience // whose token it wants, of the partner's own tenant
	Scopes   []Scope  // any of them will do; empty: whatever was consented
	Detail   string   // what is called, for the record
}

// A CustomerDirectory asks Microsoft for the customers of partners.
type CustomerDirectory interface {
	// Sources returns whom to ask in the cloud of a partner.
	Sources(GrantKey) []CustomerSource

	// Customers returns all the customers that a source tells of, or a
	// [*Fault]: half of them would look like customers that are gone.
	Customers(ctx context.Context, k GrantKey, source string, token Secret) ([]Customer, error)
}

// A CustomerStanding is how the list of one partner's customers stands.
type CustomerStanding struct {
	Attempt   int64     // counts the refreshes that were begun
	Settled   int64     // the last of them of which something came
	Version   int64     // grows with every change of the list's members
	Count     int       // of customers
	Sources   []string  // who told of the list
	AsOf      time.Time // when the refresh began that the list is of; zero: there is no list
	Attempted time.Time // when the last refresh began
	Due       time.Time // when the next is to begin; the end of the claim while one runs
	Failures  int       // since one succeeded
	Fault     string    // of the last, if it failed

	// Altered says that what is stored is not what was stored by this program,
	// and Fault says what; it then counts for nothing, as if there was no list.
	Altered bool
}

// Running reports whether somebody is refreshing the list.
func (s *CustomerStanding) Running(now time.Time) bool {
	return s.Attempt > s.Settled && now.Before(s.Due)
}

// A CustomerRefresh is what a refresh brought.
type CustomerRefresh struct {
	Attempt   int64 // that was claimed
	Began     time.Time
	Next      time.Time // when the next is due
	Sources   []string  // who was asked
	Customers []Customer
}

// A CustomerDue is a list that is to be refreshed.
type CustomerDue struct {
	Key     GrantKey
	Attempt int64
}

// A CustomerRegister keeps the lists, for all replicas. Errors wrap
// [ErrUnavailable] if it cannot be reached.
type CustomerRegister interface {
	// Standing returns how a partner's list stands; the zero value if nothing
	// was ever attempted.
	Standing(context.Context, GrantKey) (CustomerStanding, error)

	// Members returns the list's tenants, together with the standing that
	// they are of. There are none if that is Altered.
	Members(context.Context, GrantKey) (CustomerStanding, map[TenantID]struct{}, error)

	// Due returns at most limit partners whose list is due by now, the most
	// overdue first.
	Due(ctx context.Context, now time.Time, limit int) ([]CustomerDue, error)

	// Claim begins the refresh attempt+1 if attempt is still the last and no
	// other runs: of several replicas, one claims it. It is the claimant's
	// until then. It reports whether it was claimed.
	Claim(ctx context.Context, k GrantKey, attempt int64, until time.Time) (bool, error)

	// Replace makes the list what a refresh brought, all of it or nothing,
	// and raises the epoch if a customer has gone, so that no replica serves it
	// any more. The error wraps [ErrSuperseded] if a later refresh was claimed
	// meanwhile. When it returns nil the list survives a crash.
	Replace(context.Context, GrantKey, CustomerRefresh) error

	// Failed notes that a refresh brought nothing, and leaves the list alone.
	Failed(ctx context.Context, k GrantKey, attempt int64, next time.Time, fault string) error
}

// CustomerCheck says how it is known which customers a partner has. A tenant
// that is none is denied, whatever the rules say: that a customer belongs to a
// partner is learned from Microsoft, and never from the caller.
type CustomerCheck struct {
	Register  CustomerRegister // nil checks nothing
	Directory CustomerDirectory

	// Every is how often a list is refreshed. Zero means an hour.
	Every time.Duration

	// MaxAge is how old a list may become, while refreshing it fails, before
	// it counts for nothing. Zero means 24 hours.
	MaxAge time.Duration

	// PerMinute bounds the refreshes that each replica begins by itself. Zero
	// means 10.
	PerMinute int
}

const (
	// customersTick is how often lists that are due are looked for. One that
	// is missing is fetched as soon as somebody asks.
	customersTick = 5 * time.Minute

	// customersAtOnce is how many lists a replica refreshes at a time.
	customersAtOnce = 2

	// customersTimeout bounds one refresh, and with some time to store it the
	// claim on it.
	customersTimeout = 3 * time.Minute
	customersLease   = customersTimeout + 30*time.Second

	// customersPause is how long after a refresh a caller's question for an
	// unknown customer begins no other.
	customersPause = time.Minute

	// retryCustomers is when a first failure is tried again; then twice as
	// long, and so on.
	retryCustomers = 5 * time.Minute
)

// customersCaller is the caller in the records of refreshes, and
// customersPurpose their purpose.
const (
	customersCaller  = CallerID("mandate:customers")
	customersPurpose = "customers"
)

// Check fills in what is zero, and reports what is out of range.
func (c *CustomerCheck) Check() error {
	c.Every = cmp.Or(c.Every, time.Hour)
	c.MaxAge = cmp.Or(c.MaxAge, 24*time.Hour)
	c.PerMinute = cmp.Or(c.PerMinute, 10)
	switch {
	case c.Every < time.Minute:
		return Invalid("customers.every", "must be at least a minute")
	case c.MaxAge < 2*c.Every:
		return Invalid("customers.max_age", "must be at least twice %v, so that a failed refresh is survived", c.Every)
	case c.PerMinute < 1:
		return Invalid("customers.per_minute", "must be at least 1")
	case c.Register != nil && c.Directory == nil:
		return errors.New("Customers.Directory is required")
	}
	return nil
}

// unserved says why tenant is not served as a customer of the partner called
// name, and whose move it is.
func (s *CustomerStanding) unserved(name string, tenant TenantID, maxAge time.Duration, now time.Time) string {
	switch {
	case s.AsOf.IsZero():
		return fmt.Sprintf("whether tenant %s is a customer of %s is not known, because the partner's customers could not be listed: %s; "+
			"an operator can try again: mandate customer refresh %s", tenant, name, cmp.Or(s.Fault, "nobody has tried"), name)
	case s.stale(maxAge, now):
		return fmt.Sprintf("the list of %s's customers is of %s, which is too old to go by, and refreshing it fails: %s; "+
			"an operator can try again: mandate customer refresh %s", name, stamp(s.AsOf), cmp.Or(s.Fault, "nothing came of it yet"), name)
	}
	text := fmt.Sprintf("%s has no relationship with tenant %s according to %s as of %s; the partner must establish one with this customer first",
		name, tenant, sourceNames(s.Sources), stamp(s.AsOf))
	if s.Fault != "" {
		text += ", or, if it has since, an operator must see why the list cannot be refreshed: " + s.Fault
	}
	return text
}

// stale reports whether the list counts for nothing any more.
func (s *CustomerStanding) stale(maxAge time.Duration, now time.Time) bool {
	return now.Sub(s.AsOf) > maxAge
}

// sourceNames writes sources for a person.
func sourceNames(sources []string) string {
	names := make([]string, 0, len(sources))
	for _, s := range sources {
		switch s {
		case SourcePartnerCenter:
			s = "Partner Center"
		case SourceGDAP:
			s = "GDAP"
		}
		names = append(names, s)
	}
	return cmp.Or(strings.Join(names, " and "), "Microsoft")
}
