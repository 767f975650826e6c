package emulator_test

import (
	"context"

	"github.com/coreos/go-oidc/v3/oidc"

	"github.com/mandate-sam/mandate/emulator"
)

// library validates an ID token with a library that nobody here wrote.
func library(e *emulator.Emulator, issuer, raw string) error {
	ctx := oidc.ClientContext(context.Background(), e.Client())
	p, err := oidc.NewProvider(ctx, issuer)
	if err != nil {
		return err
	}
	_, err = p.Verifier(&oidc.Config{ClientID: emulator.ApplicationID}).Verify(ctx, raw)
	return err
}
