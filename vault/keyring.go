package vault

import (
	"context"
	"errors"
	"fmt"
)

// A Keyring is a [KeyWrapper] of several: it wraps with the first, and unwraps
// with whichever has the key. It is for moving from one to another, such as
// from a key file to Key Vault, while what was sealed before still opens.
type Keyring struct{ all []KeyWrapper }

// NewKeyring returns a keyring that wraps with current.
//
// One that has a method Has(keyID string) bool is asked for its own keys only;
// any other is tried.
func NewKeyring(current KeyWrapper, earlier ...KeyWrapper) *Keyring {
	return &Keyring{append([]KeyWrapper{current}, earlier...)}
}

// Wrap implements [KeyWrapper].
func (k *Keyring) Wrap(ctx context.Context, plain []byte) (string, []byte, error) {
	return k.all[0].Wrap(ctx, plain)
}

// Unwrap implements [KeyWrapper].
func (k *Keyring) Unwrap(ctx context.Context, keyID string, wrapped []byte) ([]byte, error) {
	var errs []error
	for _, w := range k.all {
		if !mayHave(w, keyID) {
			continue
		}
		plain, err := w.Unwrap(ctx, keyID, wrapped)
		if err == nil {
			return plain, nil
		}
		errs = append(errs, err)
	}
	if len(errs) == 0 {
		return nil, fmt.Errorf("the grant was sealed with key %.64q, which is in none of the places where keys are", keyID)
	}
	return nil, errors.Join(errs...)
}

// Has reports whether a key of that ID is, or may be, on the ring.
func (k *Keyring) Has(keyID string) bool {
	for _, w := range k.all {
		if mayHave(w, keyID) {
			return true
		}
	}
	return false
}

func mayHave(w KeyWrapper, keyID string) bool {
	h, ok := w.(interface{ Has(keyID string) bool })
	return !ok || h.Has(keyID)
}

// currentKey returns the ID of the key that w wraps with now. There is no way
// to know it but to wrap something.
func currentKey(ctx context.Context, w KeyWrapper) (string, error) {
	id, _, err := w.Wrap(ctx, make([]byte, wrappedSize))
	if err != nil {
		return "", fmt.Errorf("find out the current key: %w", err)
	}
	if id == "" {
		return "", errors.New("find out the current key: it has no ID")
	}
	return id, nil
}
