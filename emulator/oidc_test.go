//go:build oidc

package emulator_test

import (
	"context"

	"github.com/coreos/go-oidc/v3/oidc"

	"github.com/mandate-sam/mandate/emulator"
)

// With the tag oidc every ID token that a test validates goes through go-oidc
// as well. It is behind a tag because the library needs golang.org/x/oauth2,
// which nothing else here does.
func init() {
	library = func(e *emulator.Emulator, issuer, raw string) error {
		ctx := oidc.ClientContext(context.Background(), e.Client())
		p, err := oidc.NewProvider(ctx, issuer)
		if err != nil {
			return err
		}
		_, err = p.Verifier(&oidc.Config{ClientID: emulator.ApplicationID}).Verify(ctx, raw)
		return err
	}
}
