package keyvault

import (
	"context"
	"fmt"

	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azkeys"
)

// Rotate makes a new version of the key, which wraps from now on, and returns
// its ID. The identity needs the permission "rotate", which serving does not.
func (w *Wrapper) Rotate(ctx context.Context) (keyID string, err error) {
	o := operation{"rotate", "key " + w.key, "keys rotate"}
	r, err := call(ctx, w.vault, o, 1, func(ctx context.Context) (azkeys.RotateKeyResponse, error) {
		return w.vault.keys.RotateKey(ctx, w.key, nil)
	})
	if err != nil {
		return "", err
	}
	if r.Key == nil || r.Key.KID == nil || r.Key.KID.Version() == "" {
		return "", fmt.Errorf("%s %s in %s: the answer has no key version", o.verb, o.object, w.vault)
	}
	return string(*r.Key.KID), nil
}
