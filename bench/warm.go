package main

import (
	"context"
	"fmt"
	"time"

	"github.com/mandate-sam/mandate"
)

// warmCase is G9: what it costs Entra when a broker's cache is empty.
var warmCase = benchCase{
	rows: []string{"G9/upstream-per-token", "G9/msal-upstream-per-token"},
	run:  runWarm,
}

func runWarm(ctx context.Context, e *env) ([]row, error) {
	customers := choose(e, 1000, 200)
	e.say("G9: three audiences in %d tenants", customers)
	ours, err := warmBroker(ctx, customers)
	if err != nil {
		return nil, err
	}
	theirs, err := warmMSAL(ctx, customers)
	if err != nil {
		return nil, err
	}
	one := func(name string, n float64) row {
		return row{Name: name, Value: number(n), Unit: "requests", Floor: 1, Ratio: number(n)}
	}
	msal := one("G9/msal-upstream-per-token", theirs)
	msal.Note = notOurs
	return []row{
		one("G9/upstream-per-token", ours).judge(&target{"value", "<=", 1}, "Entra is asked for something besides tokens"),
		msal.report(),
	}, nil
}

// warmBroker lets an empty broker get tokens for three audiences in each of
// some customers' tenants, through the real client of Entra, and returns how
// many requests each took.
func warmBroker(ctx context.Context, customers int) (float64, error) {
	p := partnerN(0)
	d, err := newIdentity(nil, time.Hour)
	if err != nil {
		return 0, err
	}
	defer d.server.Close()
	authority, err := d.authority()
	if err != nil {
		return 0, err
	}
	vault := &memoryVault{grants: map[mandate.GrantKey]mandate.Grant{p.Key: grantOf(p)}}
	broker, err := mandate.New(mandate.Config{Authority: authority, Vault: vault, Policy: allowAll{}, Audit: new(memoryRecorder), Epoch: epochFixed{}})
	if err != nil {
		return 0, err
	}
	w := &world{broker: broker}
	for i := range customers {
		for _, r := range requestsFor(p) {
			r.Tenant = partnerN(i + 1).Key.Partner
			w.requests = append(w.requests, r)
		}
	}
	if err := w.warm(ctx); err != nil {
		return 0, err
	}
	return float64(d.requests.Load()) / float64(len(w.requests)), nil
}

// warmMSAL does the same with one client of MSAL and one user who signed in.
func warmMSAL(ctx context.Context, customers int) (float64, error) {
	m, err := newMSAL()
	if err != nil {
		return 0, err
	}
	account, err := m.signIn(ctx, "user", msalScopes[0])
	if err != nil {
		return 0, err
	}
	before := m.entra.requests.Load()
	for i := range customers {
		for _, scope := range msalScopes {
			if err := m.silent(ctx, account, scope, partnerN(i+1).Key.Partner.String()); err != nil {
				return 0, fmt.Errorf("MSAL in tenant %d: %w", i, err)
			}
		}
	}
	return float64(m.entra.requests.Load()-before) / float64(3*customers), nil
}
