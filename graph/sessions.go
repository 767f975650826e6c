package graph

import (
	"context"
	"encoding/json"
	"net/http"

	"github.com/mandate-sam/mandate"
)

// EndSessions asks Entra to accept no refresh token and no session cookie any
// more that the token's user was given until now, whatever the application:
// the user is signed out everywhere. Graph says when it took the request,
// which may be some minutes before all of Entra knows.
//
// It needs one of the delegated permissions User.RevokeSessions.All,
// User.ReadWrite.All, Directory.ReadWrite.All and Directory.AccessAsUser.All;
// without one the error is a [*mandate.Fault] of status 403.
func (c *Client) EndSessions(ctx context.Context, token mandate.Secret) error {
	header, body, err := c.ask(ctx, http.MethodPost, token, c.base.JoinPath("me/revokeSignInSessions"))
	if err != nil || len(body) == 0 {
		return err
	}
	// Documented to answer 204, it answers 200 with a boolean.
	var done struct {
		Value *bool `json:"value"`
	}
	if json.Unmarshal(body, &done) != nil || done.Value == nil || !*done.Value {
		return unusable("the answer to ending sessions (%.60q) is not that it was done", header.Get("Content-Type"))
	}
	return nil
}
