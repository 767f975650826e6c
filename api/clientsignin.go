package api

import (
	"context"

	"github.com/mandate-sam/mandate"
)

// WithSession returns a client like c for an operator who has signed in.
func (c *Client) WithSession(session mandate.Secret) *Client {
	out := *c
	out.session = session
	return &out
}

// BreakGlass returns a client like c, of the socket, that may make things
// looser although people are to sign in for that. Every such act is recorded
// with the reason, and told.
func (c *Client) BreakGlass(reason string) *Client {
	out := *c
	out.breakGlass = reason
	return &out
}

// BeginSignIn returns what is needed to sign an operator in.
func (c *Client) BeginSignIn(ctx context.Context) (SignInStart, error) {
	return exchange[SignInStart](ctx, c, "POST", "/v1/signin", struct{}{})
}

// FinishSignIn trades an ID token for a session.
func (c *Client) FinishSignIn(ctx context.Context, idToken mandate.Secret) (SignedIn, error) {
	return exchange[SignedIn](ctx, c, "POST", "/v1/signin/finish", signInRequest{idToken.Reveal()})
}

// EndSignIn ends the session of this client.
func (c *Client) EndSignIn(ctx context.Context) error {
	_, err := exchange[struct{}](ctx, c, "POST", "/v1/signin/end", struct{}{})
	return err
}
