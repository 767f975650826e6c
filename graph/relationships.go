package graph

import (
	"context"
	"strings"
	"time"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/internal/upstream"
)

// RelationshipScopes are the delegated permissions with which Graph lists
// delegated admin relationships; one is enough.
var RelationshipScopes = []mandate.Scope{"DelegatedAdminRelationship.Read.All", "DelegatedAdminRelationship.ReadWrite.All"}

// maxRelationshipPages bounds a list; a page has some hundred.
const maxRelationshipPages = 5000

// A relationship is a delegated admin relationship (GDAP) as Graph shows it.
type relationship struct {
	Name     string     `json:"displayName"`
	Status   string     `json:"status"`
	End      *time.Time `json:"endDateTime"`
	Extend   string     `json:"autoExtendDuration"`
	Customer *struct {
		Tenant string `json:"tenantId"`
		Name   string `json:"displayName"`
	} `json:"customer"`
}

// active reports whether the relationship gives its roles. One that is being
// ended, or waits for the customer, does not count.
func (r *relationship) active() bool {
	return strings.EqualFold(r.Status, "active") || strings.EqualFold(r.Status, "expiring")
}

// extends reports whether the relationship goes on when it is over.
func (r *relationship) extends() bool {
	return strings.Trim(r.Extend, "PTDHMS0") != ""
}

// Customers returns the customers with whom the partner whose token it is has
// an active delegated admin relationship, once for every relationship. The
// relationships are listed and not delegatedAdminCustomers, because only they
// say what is active and until when. The error is a [*mandate.Fault].
func (c *Client) Customers(ctx context.Context, token mandate.Secret) ([]mandate.Customer, error) {
	var all []mandate.Customer
	at := c.base.JoinPath("tenantRelationships/delegatedAdminRelationships")
	for n := 0; at != nil; n++ {
		if n == maxRelationshipPages {
			return nil, unusable("the relationships fill more than %d pages", maxRelationshipPages)
		}
		some, next, err := pageOf[relationship](ctx, c, token, at)
		if err != nil {
			return nil, err
		}
		for _, r := range some {
			if !r.active() || r.Customer == nil {
				continue
			}
			tenant, err := mandate.ParseTenantID(r.Customer.Tenant)
			if err != nil {
				return nil, unusable("a relationship is with no tenant: %v", err)
			}
			found := mandate.Customer{Tenant: tenant, Name: upstream.Clean(r.Customer.Name, 256), Relationship: upstream.Clean(r.Name, 256), Extends: r.extends()}
			if r.End != nil {
				found.Ends = *r.End
			}
			all = append(all, found)
		}
		at = next
	}
	return all, nil
}
