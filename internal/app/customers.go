package app

import (
	"context"
	"fmt"
	"time"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/graph"
	"github.com/mandate-sam/mandate/store"
)

// Customers says how the lists of partners' customers are kept.
type Customers struct {
	// EveryMinutes is how often each list is refreshed. Zero means 60.
	EveryMinutes int `yaml:"every_minutes"`

	// MaxAgeHours is how old a list may become, while refreshing it fails,
	// before its customers are denied. Zero means 24.
	MaxAgeHours int `yaml:"max_age_hours"`

	// PerMinute bounds the refreshes of each replica. Zero means 10.
	PerMinute int `yaml:"per_minute"`
}

func (c *Customers) config() mandate.CustomerCheck {
	return mandate.CustomerCheck{
		Every: time.Duration(c.EveryMinutes) * time.Minute, MaxAge: time.Duration(c.MaxAgeHours) * time.Hour, PerMinute: c.PerMinute,
	}
}

// of returns the check with the lists in s, and u to ask for them.
func (c *Customers) of(s *store.Store, u *upstream) mandate.CustomerCheck {
	check := c.config()
	check.Register, check.Directory = s.Customers(), u
	return check
}

// Sources implements [mandate.CustomerDirectory].
func (u *upstream) Sources(k mandate.GrantKey) []mandate.CustomerSource {
	audiences := u.audiences[k.Cloud]
	return []mandate.CustomerSource{
		{Name: mandate.SourcePartnerCenter, Audience: audiences[mandate.PartnerCenter].Resource, Detail: "GET /v1/customers"},
		{Name: mandate.SourceGDAP, Audience: audiences[mandate.Graph].Resource, Scopes: graph.RelationshipScopes,
			Detail: "GET /v1.0/tenantRelationships/delegatedAdminRelationships"},
	}
}

// Customers implements [mandate.CustomerDirectory].
func (u *upstream) Customers(ctx context.Context, k mandate.GrantKey, source string, token mandate.Secret) ([]mandate.Customer, error) {
	if source == mandate.SourceGDAP {
		return u.graph[k.Cloud].Customers(ctx, token)
	}
	var all []mandate.Customer
	for c, err := range u.partnercenter[k.Cloud].Customers(ctx, token) {
		if err != nil {
			return nil, err
		}
		all = append(all, mandate.Customer{Tenant: c.Tenant, Name: c.Name, Domain: c.Domain})
	}
	return all, nil
}

// customers implements [api.Customers].
type customers struct {
	*store.Customers
	broker *mandate.Broker
}

// Refresh implements [api.Customers].
func (c customers) Refresh(ctx context.Context, p mandate.Partner, by mandate.By) (mandate.CustomerStanding, error) {
	return c.broker.RefreshCustomers(ctx, p, by)
}

// relationshipsSoon is how long before a delegated relationship ends the
// forecast tells of it: a new one needs the customer's yes.
const relationshipsSoon = 60 * 24 * time.Hour

// relationships tells which partners' delegated relationships end soon, once
// for each partner: it may have thousands.
func (f *forecaster) relationships(ctx context.Context, names map[mandate.GrantKey]string, now time.Time) ([]mandate.Trouble, error) {
	ending, err := f.store.Customers().Ending(ctx, now.Add(relationshipsSoon))
	if err != nil {
		return nil, err
	}
	var all []mandate.Trouble
	for k, customers := range ending {
		if names[k] == "" {
			continue
		}
		first := customers[0]
		what := fmt.Sprintf("the delegated admin relationship %q with %s (tenant %s) ends", first.Relationship, first.Name, first.Tenant)
		if more := len(customers) - 1; more > 0 {
			what += fmt.Sprintf(", and those with %d more customer(s) within %d days", more, int(relationshipsSoon.Hours()/24))
		}
		all = append(all, mandate.Trouble{
			Time: first.Ends, Kind: mandate.TroubleRelationship, Partner: names[k], Move: mandate.MovePartner,
			What: what, Do: "the partner asks the customer for another; mandate customer list " + names[k] + " shows them",
		})
	}
	return all, nil
}
