package app

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/internal/database"
	"github.com/mandate-sam/mandate/internal/portal"
	"github.com/mandate-sam/mandate/store"
)

// The answer to a sign-in is accepted only from the issuer that it was begun
// with: changing an application from one generation of endpoints to the other
// ends the sign-ins under way.
func TestSignInKeepsItsIssuer(t *testing.T) {
	db, err := database.Open(t.Context(), database.Config{File: filepath.Join(t.TempDir(), "d", "m.db"), Schemas: []database.Schema{store.Schema()}})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	st, err := store.Open(t.Context(), db)
	if err != nil {
		t.Fatal(err)
	}
	c, err := load(t, Example())
	if err != nil {
		t.Fatal(err)
	}
	clouds, err := c.clouds()
	if err != nil {
		t.Fatal(err)
	}
	v2, err := c.issuers(clouds)
	if err != nil {
		t.Fatal(err)
	}
	c.Applications[0].Endpoints = "v1"
	v1, err := c.issuers(clouds)
	if err != nil {
		t.Fatal(err)
	}
	id, _ := mandate.ParseAppID(c.Applications[0].ClientID)
	tenant, _ := mandate.ParseTenantID("11111111-2222-3333-4444-555555555555")
	partner := mandate.Partner{Name: "contoso", Key: mandate.GrantKey{Cloud: "global", Application: id, Partner: tenant}}
	if err := st.AddPartner(t.Context(), partner); err != nil {
		t.Fatal(err)
	}
	for begun, issuers := range map[string]map[appKey]string{"login.microsoftonline.com": v2, "sts.windows.net": v1} {
		o := &onboarding{st, issuers}
		if got := o.issuer(partner.Key); !strings.Contains(got, begun) {
			t.Errorf("issuer %q, want %s", got, begun)
		}
		for _, answered := range []map[appKey]string{v1, v2} {
			proof, err := o.Begin(t.Context(), portal.Start{
				Invitation: portal.Invitation{Partner: partner}, Authority: "https://login.microsoftonline.com",
				RedirectURI: "https://consent.example.com/consent/callback/global", Until: time.Now().Add(time.Hour),
			})
			if err != nil {
				t.Fatal(err)
			}
			later := &onboarding{st, answered}
			same := later.issuer(partner.Key) == o.issuer(partner.Key)
			if _, err := later.Consume(t.Context(), proof); same != (err == nil) || !same && !errors.Is(err, portal.ErrTransaction) {
				t.Errorf("begun with %s, answered as %s: %v", o.issuer(partner.Key), later.issuer(partner.Key), err)
			}
		}
	}
}
