package directory

import (
	"encoding/json"
	"fmt"

	"github.com/go-jose/go-jose/v4"
)

// check reports the first thing wrong with the credential.
func (f Federated) check() error {
	if f.Issuer == "" || f.Subject == "" {
		return fmt.Errorf("federated credential %q needs an issuer and a subject", f.Name)
	}
	keys, err := f.KeySet()
	if err != nil {
		return fmt.Errorf("federated credential %q: %w", f.Name, err)
	}
	for _, k := range keys.Keys {
		if !k.Valid() || !k.IsPublic() {
			return fmt.Errorf("federated credential %q: key %q is not a valid public key", f.Name, k.KeyID)
		}
	}
	if len(keys.Keys) == 0 {
		return fmt.Errorf("federated credential %q has no key", f.Name)
	}
	return nil
}

// KeySet parses the issuer's keys.
func (f Federated) KeySet() (jose.JSONWebKeySet, error) {
	var set jose.JSONWebKeySet
	if err := json.Unmarshal(f.Keys, &set); err != nil {
		return set, fmt.Errorf("parse keys: %w", err)
	}
	return set, nil
}
