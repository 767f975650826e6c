package main

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/internal/database"
)

// A token of a customer's tenant is one request, and MSAL's are more.
func TestWarm(t *testing.T) {
	if n, err := warmBroker(t.Context(), 5); err != nil || n != 1 {
		t.Errorf("the broker: %v requests a token, %v; want 1", n, err)
	}
	if n, err := warmMSAL(t.Context(), 5); err != nil || n < 1 {
		t.Errorf("MSAL: %v requests a token, %v; want at least 1", n, err)
	}
}

// A round of the pipeline redeems once for each partner, and so does the floor.
func TestPipelines(t *testing.T) {
	partners := somePartners(pipelinePartners)
	d, err := newIdentity(partners[:1], 30*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer d.server.Close()
	for _, p := range partners { // one ID token would do for the floor, and is not looked at in this test
		d.answers[p.Key.Partner.String()] = d.answers[partners[0].Key.Partner.String()]
	}
	raw := &rawPosts{identity: d, http: d.client()}
	if _, err := raw.redeem(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := d.requests.Load(); n != pipelinePartners {
		t.Errorf("the floor made %d requests, want %d", n, pipelinePartners)
	}
	ours, err := newPipeline(d, mandate.Config{Vault: memoryGrants(partners), Epoch: epochFixed{}})
	if err != nil {
		t.Fatal(err)
	}
	d.requests.Store(0)
	for range 3 {
		if err := ours.ask(t.Context(), ours.requests[0]); err != nil {
			t.Fatal(err)
		}
	}
	if n := d.requests.Load(); n != 4 { // the keys, too
		t.Errorf("three redemptions and the keys took %d requests, want 4", n)
	}
}

func TestCold(t *testing.T) {
	dir := t.TempDir()
	c := &cold{database.Config{File: filepath.Join(dir, "mandate.db")}, filepath.Join(dir, "keys"), 5}
	_, db, err := sqlGrants(t.Context(), c.cfg, c.keys, somePartners(c.partners))
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	for name, f := range map[string]contender{"broker": c.firstToken, "floor": c.scan} {
		if _, err := f(t.Context()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestHandle(t *testing.T) {
	h, err := newHandle()
	if err != nil {
		t.Fatal(err)
	}
	if tok, err := h.Token(t.Context()); err != nil || len(tok.Access.Reveal()) != tokenSize {
		t.Errorf("got %d bytes and %v", len(tok.Access.Reveal()), err)
	}
}
