package main

import (
	"context"
	"time"

	"github.com/mandate-sam/mandate"
)

// The customers of the small world: contoso has one and has lost one; of
// fabrikam's nothing is known, because nobody answers.
var (
	adatum  = mandate.Customer{Tenant: contoso.Key.Partner, Name: "Adatum\x1b[31m", Domain: "adatum.test", Sources: []string{"gdap", "partner_center"}, Relationship: "support", Ends: time.Date(2999, 1, 2, 0, 0, 0, 0, time.UTC), Extends: true, First: contoso.Created}
	litware = mandate.Customer{Tenant: fabrikam.Key.Partner, Name: "Litware", Sources: []string{"partner_center"}, First: contoso.Created, Last: contoso.Created, Gone: true}
)

func (w *smallWorld) Standing(_ context.Context, k mandate.GrantKey) (mandate.CustomerStanding, error) {
	if k != contoso.Key {
		return mandate.CustomerStanding{Failures: 2, Fault: "Partner Center: throttled"}, nil
	}
	return mandate.CustomerStanding{Count: 1, Sources: []string{"partner_center", "gdap"}, AsOf: time.Now().Add(-5 * time.Minute)}, nil
}

func (w *smallWorld) List(ctx context.Context, k mandate.GrantKey) (mandate.CustomerStanding, []mandate.Customer, error) {
	s, err := w.Standing(ctx, k)
	if k != contoso.Key {
		return s, nil, err
	}
	return s, []mandate.Customer{adatum, litware}, err
}

func (w *smallWorld) Serving(_ context.Context, t mandate.TenantID) (map[mandate.GrantKey]mandate.Customer, error) {
	if t != adatum.Tenant {
		return nil, nil
	}
	return map[mandate.GrantKey]mandate.Customer{contoso.Key: adatum}, nil
}

func (w *smallWorld) Refresh(ctx context.Context, p mandate.Partner, _ mandate.By) (mandate.CustomerStanding, error) {
	return w.Standing(ctx, p.Key)
}
