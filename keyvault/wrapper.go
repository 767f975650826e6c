package keyvault

import (
	"context"
	"fmt"
	"regexp"
	"strings"
	"sync/atomic"

	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azkeys"

	"github.com/mandate-sam/mandate"
)

// objectName is what a key, a certificate or a secret may be called.
var objectName = regexp.MustCompile(`^[0-9A-Za-z-]{1,127}$`)

// CheckName reports whether a key, a certificate or a secret can have that name.
func CheckName(name string) error {
	if !objectName.MatchString(name) {
		return mandate.Invalid("name", "%.130q cannot be in a vault: 1 to 127 letters, digits and '-'", name)
	}
	return nil
}

// A Wrapper wraps data keys with an RSA key that never leaves the vault, by
// RSA-OAEP-256. The ID of a key is its identifier with the version. After the
// key was rotated the new version wraps, and the old ones still unwrap.
//
// RSA has no additional data: what must be bound to a place has to be in the
// wrapped bytes.
type Wrapper struct {
	vault *Vault
	key   string
	cost  atomic.Int64 // in operations on a small key; learnt from the size of what it makes
}

// Wrapper returns the wrapper for a key by its name.
func (v *Vault) Wrapper(key string) (*Wrapper, error) {
	if err := CheckName(key); err != nil {
		return nil, err
	}
	w := &Wrapper{vault: v, key: key}
	w.cost.Store(1)
	return w, nil
}

// Wrap encrypts plain with the newest version of the key. What is sent cannot
// be cleared afterwards: the SDK keeps no hold of it, but makes copies.
func (w *Wrapper) Wrap(ctx context.Context, plain []byte) (string, []byte, error) {
	o := operation{"wrap a data key with", "key " + w.key, "keys wrapKey"}
	r, err := call(ctx, w.vault, o, int(w.cost.Load()), func(ctx context.Context) (azkeys.WrapKeyResponse, error) {
		return w.vault.keys.WrapKey(ctx, w.key, "", parameters(plain), nil)
	})
	if err != nil {
		return "", nil, err
	}
	if r.KID == nil || r.KID.Version() == "" || len(r.Result) == 0 {
		return "", nil, fmt.Errorf("%s %s in %s: the answer has no key version", o.verb, o.object, w.vault)
	}
	w.learn(len(r.Result))
	return string(*r.KID), r.Result, nil
}

// Unwrap decrypts what Wrap made with any version of the key that is enabled.
func (w *Wrapper) Unwrap(ctx context.Context, keyID string, wrapped []byte) ([]byte, error) {
	version, ok := w.version(keyID)
	if !ok {
		return nil, fmt.Errorf("unwrap a data key: %.200q is not a version of key %s in %s", keyID, w.key, w.vault)
	}
	w.learn(len(wrapped))
	o := operation{"unwrap a data key with", "key " + w.key + " version " + version, "keys unwrapKey"}
	r, err := call(ctx, w.vault, o, int(w.cost.Load()), func(ctx context.Context) (azkeys.UnwrapKeyResponse, error) {
		return w.vault.keys.UnwrapKey(ctx, w.key, version, parameters(wrapped), nil)
	})
	return r.Result, err
}

// Has reports whether keyID is of a version of this key.
func (w *Wrapper) Has(keyID string) bool {
	_, ok := w.version(keyID)
	return ok
}

// version returns the version that keyID names, if it is of this key. Nothing
// that is stored may lead us to another key or another host.
func (w *Wrapper) version(keyID string) (string, bool) {
	prefix := w.vault.url + "/keys/" + w.key + "/"
	if len(keyID) <= len(prefix) || !strings.EqualFold(keyID[:len(prefix)], prefix) {
		return "", false
	}
	v := keyID[len(prefix):]
	return v, objectName.MatchString(v)
}

// learn sets the cost by the size of what the key makes: Azure counts RSA-3072
// for four, and RSA-4096 for eight.
func (w *Wrapper) learn(size int) {
	switch {
	case size > 384:
		w.cost.Store(8)
	case size > 256:
		w.cost.Store(4)
	}
}

func parameters(value []byte) azkeys.KeyOperationParameters {
	alg := azkeys.EncryptionAlgorithmRSAOAEP256
	return azkeys.KeyOperationParameters{Algorithm: &alg, Value: value}
}
