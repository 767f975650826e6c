package main

import (
	"context"
	"fmt"
	"time"

	"github.com/mandate-sam/mandate"
)

// The small world has one caller, with one secret.

func (w *smallWorld) Callers(context.Context) ([]mandate.Caller, error) {
	return []mandate.Caller{{
		ID: "billing", Owner: "uid:0", Created: contoso.Created, Binding: mandate.Binding{Partner: "contoso", Purpose: "invoice"},
		Credentials: []mandate.CallerCredential{
			{ID: "K1", Kind: mandate.CredentialSecret, Created: contoso.Created},
			{ID: "K2", Kind: mandate.CredentialWorkload, Issuer: "github", Claims: map[string]string{"repository_id": "1", "environment": "prod"}, Created: contoso.Created, Expires: time.Date(2999, 1, 2, 0, 0, 0, 0, time.UTC)},
		},
	}}, nil
}

func (w *smallWorld) Register(_ context.Context, c mandate.Caller) (mandate.Caller, mandate.Secret, error) {
	if c.ID == "billing" {
		return c, mandate.Secret{}, fmt.Errorf("%w: a caller named %q", mandate.ErrExists, c.ID)
	}
	for i := range c.Credentials {
		c.Credentials[i].ID = fmt.Sprint("K", i+1)
		if c.Credentials[i].Kind == mandate.CredentialSecret {
			return c, mandate.NewSecret("mdt_secret_of_" + string(c.ID)), nil
		}
	}
	return c, mandate.Secret{}, nil
}

func (w *smallWorld) AddCredential(_ context.Context, id mandate.CallerID, c mandate.CallerCredential) (mandate.CallerCredential, mandate.Secret, error) {
	c.ID = "K3"
	return c, mandate.Secret{}, w.noCaller(id)
}

func (w *smallWorld) Rotate(_ context.Context, id mandate.CallerID, _ time.Duration, expires time.Time) (mandate.CallerCredential, mandate.Secret, error) {
	return mandate.CallerCredential{ID: "K3", Kind: mandate.CredentialSecret, Expires: expires}, mandate.NewSecret("mdt_next_of_" + string(id)), w.noCaller(id)
}

func (w *smallWorld) ExpireCredential(_ context.Context, id mandate.CallerID, _ string, _ time.Time) error {
	return w.noCaller(id)
}

func (w *smallWorld) RemoveCaller(_ context.Context, id mandate.CallerID) error {
	return w.noCaller(id)
}

func (w *smallWorld) AdoptCaller(_ context.Context, id mandate.CallerID, _ string) error {
	return w.noCaller(id)
}

func (w *smallWorld) noCaller(id mandate.CallerID) error {
	if id != "billing" {
		return fmt.Errorf("%w: no caller is named %q", mandate.ErrNotFound, id)
	}
	return nil
}
