package graph

// userInfo says who signed in, as OpenID Connect has it (Core, 5.3): the claims
// of the client's ID token, as far as the token's scopes go. "Microsoft
// identity platform UserInfo endpoint" has no others, and cannot be told to
// add any.
func (s *Server) userInfo(c call) (reply, error) {
	u := c.token.Holder
	body := map[string]any{"sub": c.token.Subject}
	if c.token.Has("profile") {
		body["name"], body["given_name"], body["family_name"] = u.Name, u.GivenName, u.Surname
		body["picture"] = "https://graph.microsoft.com/v1.0/me/photo/$value"
	}
	if c.token.Has("email") && u.Mail != "" {
		body["email"] = u.Mail
	}
	return ok(body, nil)
}
