package entra

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/internal/upstream"
)

// Operators verifies the sign-ins of people who run this server. The
// registration that they sign in to is a public client, with
// http://localhost among its redirect URIs: it has no credential, and is never
// one of the applications whose consents are kept.
type Operators struct {
	client  *Client
	tenant  mandate.TenantID
	context string
}

// NewOperators returns what verifies sign-ins of one tenant. cfg needs no
// credential. context is the authentication context (acrs) that proves MFA
// there, "" if there is none; ID tokens of v2 prove it in no other way.
func NewOperators(cfg Config, tenant mandate.TenantID, context string) (*Operators, error) {
	if cfg.Version == "" {
		cfg.Version = V2
	}
	switch {
	case cfg.Version != V1 && cfg.Version != V2:
		return nil, mandate.Invalid("endpoints", "%.20q is neither %q nor %q", cfg.Version, V1, V2)
	case cfg.Application.IsZero() || tenant.IsZero():
		return nil, mandate.Invalid("client_id", "and tenant are required")
	case cfg.Version == V2 && context == "":
		return nil, mandate.Invalid("authentication_context", "is required with v2 endpoints, whose ID tokens prove MFA in no other way")
	case context != "" && !mandate.Name(context):
		return nil, mandate.Invalid("authentication_context", "must be the name of one, such as c1")
	case cfg.HTTP == nil:
		return nil, mandate.Invalid("http", "is missing")
	}
	if err := cfg.Cloud.Check(); err != nil {
		return nil, err
	}
	h := upstream.Direct(cfg.HTTP)
	return &Operators{&Client{cfg: cfg, http: h, keys: newKeySet(h, keysURL(cfg)), clock: &clock{log: slog.New(slog.DiscardHandler)}}, tenant, context}, nil
}

// An OperatorStart is what an operator's own program needs for the
// authorization code flow with PKCE.
type OperatorStart struct {
	AuthorizeURL string
	TokenURL     string
	ClientID     string
	Scope        string
	Claims       string // for the authorize request, as OpenID Connect Core 5.5 has it
}

// Start returns where an operator signs in.
func (o *Operators) Start() OperatorStart {
	claims := freshMFA
	if o.context != "" {
		claims = fmt.Sprintf(`{"id_token":{"acrs":{"essential":true,"value":%q},"auth_time":{"essential":true}}}`, o.context)
	}
	return OperatorStart{
		AuthorizeURL: o.client.endpoint(o.tenant, "authorize"), TokenURL: o.client.endpoint(o.tenant, "token"),
		ClientID: o.client.cfg.Application.String(), Scope: "openid profile", Claims: claims,
	}
}

// Issuer returns whose ID tokens are taken.
func (o *Operators) Issuer() string { return o.client.issuer(o.tenant) }

// An OperatorSignIn is what an operator's ID token says.
type OperatorSignIn struct {
	mandate.Identity
	UserName string
	Groups   []string // object IDs
	Nonce    string
	SignedIn time.Time // zero if the token does not say
}

// Verify verifies an operator's ID token in full. A guest, a personal account,
// another tenant, and a sign-in without MFA are refused. The error wraps
// [mandate.ErrUnavailable] if Entra's keys could not be fetched, and otherwise
// [mandate.ErrUnauthenticated].
func (o *Operators) Verify(ctx context.Context, raw string) (OperatorSignIn, error) {
	if len(raw) > maxIDToken {
		return OperatorSignIn{}, fmt.Errorf("%w: the ID token is too long", mandate.ErrUnauthenticated)
	}
	user, claims, err := o.client.verifyFor(ctx, raw, o.tenant, o.client.cfg.Application)
	if f, ok := errors.AsType[*mandate.Fault](err); ok {
		return OperatorSignIn{}, fmt.Errorf("%w: %w", mandate.ErrUnavailable, f)
	}
	if err == nil {
		err = o.accept(user, &claims)
	}
	if err != nil {
		return OperatorSignIn{}, fmt.Errorf("%w: sign-in: %w", mandate.ErrUnauthenticated, err)
	}
	out := OperatorSignIn{Identity: user.Identity, UserName: user.UserName, Groups: claims.Groups, Nonce: claims.Nonce, SignedIn: user.AuthTime}
	if now := time.Now(); out.SignedIn.After(now) {
		out.SignedIn = now // within the leeway; it is not fresher than now
	}
	return out, nil
}

// accept reports why somebody whose token is good is not let in.
func (o *Operators) accept(user *mandate.IDToken, claims *idClaims) error {
	mfa := slices.Contains(claims.AMR, "mfa") || o.context != "" && slices.Contains(claims.ACRs, o.context)
	switch {
	case user.Guest:
		return errors.New("it is of a guest of the tenant, or of a personal account")
	case !mfa:
		return errors.New("it does not prove MFA")
	case claims.Nonce == "":
		return errors.New("it has no nonce")
	}
	return nil
}
