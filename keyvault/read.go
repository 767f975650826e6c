package keyvault

import (
	"context"
	"fmt"

	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azsecrets"

	"github.com/mandate-sam/mandate"
)

// Read returns the current value of a secret that another program keeps in the
// vault, whatever it is. The error wraps [mandate.ErrNotFound] if there is no
// such secret.
func (v *Vault) Read(ctx context.Context, name string) (mandate.Secret, error) {
	if err := CheckName(name); err != nil {
		return mandate.Secret{}, err
	}
	o := operation{"read", "secret " + name, "secrets get"}
	r, err := call(ctx, v, o, 1, func(ctx context.Context) (azsecrets.GetSecretResponse, error) {
		return v.secrets.GetSecret(ctx, name, "", nil)
	})
	if err != nil {
		return mandate.Secret{}, err
	}
	if r.Value == nil {
		return mandate.Secret{}, fmt.Errorf("%s %s in %s: the answer has no value", o.verb, o.object, v)
	}
	return mandate.NewSecret(*r.Value), nil
}
