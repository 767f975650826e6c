package api

import (
	"context"
	"fmt"
	"strings"

	"github.com/mandate-sam/mandate"
)

// The layouts of refresh tokens in somebody's Key Vault.
const (
	// LayoutSamples is that of Microsoft's samples for the Secure Application
	// Model: a secret for each partner, named by the partner's tenant id.
	LayoutSamples = "samples"

	// LayoutCIPP is CIPP's: RefreshToken beside TenantID and ApplicationID for
	// the one partner that it belongs to, and for others a secret named by the
	// tenant id.
	LayoutCIPP = "cipp"
)

// A KeyVaultSource is where a refresh token is kept by another program.
type KeyVaultSource struct {
	URL    string `json:"url"`              // https://NAME.vault.azure.net
	Layout string `json:"layout,omitempty"` // "samples" (default) or "cipp"

	// Identity names as whom the server reads it; it may be left out if there
	// is only one.
	Identity string `json:"identity,omitempty"`
}

// String names the source for the record.
func (k *KeyVaultSource) String() string {
	return fmt.Sprintf("Key Vault %.100s (%s)", strings.TrimPrefix(k.URL, "https://"), k.layout())
}

func (k *KeyVaultSource) layout() string {
	if k.Layout == "" {
		return LayoutSamples
	}
	return k.Layout
}

// Secrets reads other programs' secrets out of a Key Vault, with the identity
// that this server has there.
type Secrets interface {
	// Secret returns the current value of a secret of k's vault, for a partner
	// in the given cloud. The error wraps [mandate.ErrNotFound] if there is
	// none, and [mandate.ErrInvalid] if k is at fault.
	Secret(ctx context.Context, cloud string, k *KeyVaultSource, name string) (mandate.Secret, error)
}

// readKeyVault returns the partner's refresh token from where another program
// keeps it.
func (s *Server) readKeyVault(ctx context.Context, k *KeyVaultSource, p mandate.Partner) (mandate.Secret, error) {
	if s.cfg.Secrets == nil {
		return mandate.Secret{}, mandate.Invalid("key_vault", "this server has no identity for Azure Key Vault; pipe the refresh token to standard input instead")
	}
	read := func(name string) (mandate.Secret, error) { return s.cfg.Secrets.Secret(ctx, p.Key.Cloud, k, name) }
	switch k.layout() {
	case LayoutSamples:
		return read(p.Key.Partner.String())
	case LayoutCIPP:
		return readCIPP(read, p)
	}
	return mandate.Secret{}, mandate.Invalid("layout", "%.40q is neither %q nor %q", k.Layout, LayoutSamples, LayoutCIPP)
}

// readCIPP takes RefreshToken only if it was given to the same application by
// the same tenant; a refresh token is worth nothing to any other.
func readCIPP(read func(string) (mandate.Secret, error), p mandate.Partner) (mandate.Secret, error) {
	for _, field := range []struct{ name, want string }{
		{"ApplicationID", p.Key.Application.String()}, {"TenantID", p.Key.Partner.String()},
	} {
		got, err := read(field.name)
		if err != nil {
			return mandate.Secret{}, err
		}
		if strings.EqualFold(strings.TrimSpace(got.Reveal()), field.want) {
			continue
		}
		if field.name == "TenantID" {
			return read(p.Key.Partner.String())
		}
		return mandate.Secret{}, mandate.Invalid("key_vault", "the secret ApplicationID names another application than %s, to which the refresh token is worth nothing", p.Key.Application)
	}
	return read("RefreshToken")
}
