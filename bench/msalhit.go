package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/AzureAD/microsoft-authentication-library-for-go/apps/confidential"
)

// msalHitCase is a token that is in the cache of MSAL for Go, beside one in
// the broker's, of as many partners.
var msalHitCase = benchCase{rows: []string{"G1/msal"}, run: runMSALHit}

// msalScopes are one permission for each of three audiences.
var msalScopes = []string{msalScope, "https://api1.example.test/user_impersonation", "https://api2.example.test/user_impersonation"}

func runMSALHit(ctx context.Context, e *env) ([]row, error) {
	partners := choose(e, 1000, 300)
	m, err := newMSAL()
	if err != nil {
		return nil, err
	}
	e.say("G1/msal: signing in %d users", partners)
	m.entra.codeLife.Store(int64(time.Hour))
	accounts := make([]confidential.Account, partners)
	for i := range accounts {
		for _, scope := range msalScopes {
			if accounts[i], err = m.signIn(ctx, fmt.Sprintf("user-%d", i), scope); err != nil {
				return nil, err
			}
		}
	}
	w, err := newWorld(partners, new(memoryRecorder))
	if err != nil {
		return nil, err
	}
	if err := w.warm(ctx); err != nil {
		return nil, err
	}
	v, err := e.interleave(ctx, "G1/msal", choose(e, 15, 7),
		func(ctx context.Context) (float64, error) {
			const n = 300
			start := time.Now()
			for range n {
				if err := m.silent(ctx, accounts[rand.IntN(partners)], msalScopes[rand.IntN(3)], msalTenant); err != nil {
					return 0, err
				}
			}
			return perOperation(time.Since(start), n), nil
		},
		func(ctx context.Context) (float64, error) { return w.hits(ctx, 3*partners) })
	if err != nil {
		return nil, err
	}
	r := compare("G1/msal", "us", v[0], v[1])
	r.Note = fmt.Sprintf("%s; %d partners", notOurs, partners)
	return []row{r.report()}, nil
}

// signIn gives MSAL's cache a token for a user.
func (m *msal) signIn(ctx context.Context, user, scope string) (confidential.Account, error) {
	in, err := m.client.AcquireTokenByAuthCode(ctx, user, msalRedirect, []string{scope})
	if err != nil {
		return confidential.Account{}, fmt.Errorf("MSAL sign-in: %w", err)
	}
	return in.Account, nil
}

// silent asks MSAL for a token in a tenant.
func (m *msal) silent(ctx context.Context, account confidential.Account, scope, tenant string) error {
	_, err := m.client.AcquireTokenSilent(ctx, []string{scope}, confidential.WithSilentAccount(account), confidential.WithTenantID(tenant))
	return err
}
