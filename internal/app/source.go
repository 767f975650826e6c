package app

import (
	"context"
	"errors"
	"strings"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/api"
)

// sources read what other programs keep in key vaults, as one of the
// configured identities. They implement [api.Secrets].
type sources struct{ outside *outside }

// Secret implements [api.Secrets]. A vault that refuses says why, and whose
// move it is; none of its words are secret.
func (s *sources) Secret(ctx context.Context, cloud string, k *api.KeyVaultSource, name string) (mandate.Secret, error) {
	ref := VaultRef{Vault: k.URL, Identity: k.Identity}
	if s.outside.clouds[cloud].Custom {
		ref.Cloud = cloud
	}
	if ref.Identity == "" {
		if len(s.outside.config.Identities) != 1 {
			return mandate.Secret{}, mandate.Invalid("identity", "is required: say as whom the server reads the vault; %s", s.names())
		}
		ref.Identity = s.outside.config.Identities[0].Name
	}
	if err := s.outside.config.checkVault(&ref, s.outside.clouds); err != nil {
		return mandate.Secret{}, err
	}
	v, err := s.outside.open(&ref)
	if err != nil {
		return mandate.Secret{}, err
	}
	secret, err := v.Read(ctx, name)
	if err != nil && !errors.Is(err, mandate.ErrNotFound) && !errors.Is(err, mandate.ErrUnavailable) {
		err = mandate.Invalid("key_vault", "%v", err)
	}
	return secret, err
}

func (s *sources) names() string {
	var names []string
	for i := range s.outside.config.Identities {
		names = append(names, s.outside.config.Identities[i].Name)
	}
	if len(names) == 0 {
		return "none is configured under identities"
	}
	return "one of " + strings.Join(names, ", ")
}
