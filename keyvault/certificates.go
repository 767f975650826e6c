package keyvault

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"github.com/mandate-sam/mandate"
)

// certificateTimeout bounds the making of a certificate. One that signs itself
// takes seconds; a person at a certificate authority takes longer, and is not
// waited for.
const certificateTimeout = 2 * time.Minute

// RenewCertificate makes another version of a certificate as the vault's policy
// for it says, with a key of its own that stays in the vault, and returns the
// signer for it. The versions before stay as they are. The identity needs the
// permissions "certificates create" and "get", of which serving needs only the
// second.
//
// Whoever opens the certificate by its name alone gets the new version from
// then on: see [Vault.OpenSigner].
func (v *Vault) RenewCertificate(ctx context.Context, name string) (*Signer, error) {
	if err := CheckName(name); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, certificateTimeout)
	defer cancel()
	o := operation{"make a version of", "certificate " + name, "certificates create"}
	_, err := call(ctx, v, o, 1, func(ctx context.Context) (struct{}, error) {
		var policy map[string]json.RawMessage
		if err := v.askCertificates(ctx, http.MethodGet, name+"/policy", nil, &policy); err != nil {
			return struct{}{}, err
		}
		delete(policy, "id")
		delete(policy, "attributes")
		var pending any
		return struct{}{}, v.askCertificates(ctx, http.MethodPost, name+"/create", map[string]any{"policy": policy}, &pending)
	})
	if err != nil {
		return nil, err
	}
	return v.settled(ctx, name)
}

// settled waits until the certificate that is being made is there.
func (v *Vault) settled(ctx context.Context, name string) (*Signer, error) {
	o := operation{"wait for", "certificate " + name, "certificates get"}
	for {
		var p struct {
			Status string `json:"status"`
			Error  struct {
				Message string `json:"message"`
			} `json:"error"`
		}
		_, err := call(ctx, v, o, 1, func(ctx context.Context) (struct{}, error) {
			return struct{}{}, v.askCertificates(ctx, http.MethodGet, name+"/pending", nil, &p)
		})
		switch {
		case err != nil:
			return nil, err
		case p.Status == "completed":
			return v.OpenSigner(ctx, name)
		case p.Status != "inProgress":
			return nil, mandate.Invalid("certificate", "%s in %s was not made: %.40s %.200s", name, v, p.Status, p.Error.Message)
		case !pause(ctx):
			return nil, fmt.Errorf("%w: certificate %s in %s is still being made", mandate.ErrUnavailable, name, v)
		}
	}
}
