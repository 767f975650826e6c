package entra

import (
	"context"
	"net/url"
	"regexp"
	"time"

	"github.com/mandate-sam/mandate"
)

// A Credential proves to the token endpoint that a request comes from the
// application.
type Credential interface {
	// Authenticate adds to form what proves that client sent it to tokenURL
	// now, by Entra's clock. Whatever it adds is never repeated in an error.
	Authenticate(ctx context.Context, form url.Values, client mandate.AppID, tokenURL string, now time.Time) error
}

// A Secret authenticates by a client secret (RFC 6749, section 2.3.1).
type Secret struct{ value mandate.Secret }

// guidShaped is what a secret's ID looks like in the portal, right beside its
// value.
var guidShaped = regexp.MustCompile(`^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$`)

// maxSecret is the longest client secret, in bytes.
const maxSecret = 1 << 10

// NewSecret returns the credential for a client secret. The error wraps
// [mandate.ErrInvalid]; a value in the form of a GUID is refused, because it is
// the secret's ID copied from the wrong column.
func NewSecret(s mandate.Secret) (*Secret, error) {
	switch v := s.Reveal(); {
	case v == "":
		return nil, mandate.Invalid("secret", "is empty")
	case len(v) > maxSecret:
		return nil, mandate.Invalid("secret", "is longer than %d bytes", maxSecret)
	case guidShaped.MatchString(v):
		return nil, mandate.Invalid("secret", "this is the secret's id, not its value; the portal shows the value only once, when the secret is made")
	}
	return &Secret{s}, nil
}

// Authenticate implements [Credential].
func (s *Secret) Authenticate(_ context.Context, form url.Values, _ mandate.AppID, _ string, _ time.Time) error {
	form.Set("client_secret", s.value.Reveal())
	return nil
}
