package openbao

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/internal/privatefile"
)

// maxToken is the longest token or credential in a file, in bytes.
const maxToken = 16 << 10

// A Login gets tokens for a role, instead of having one in a file.
type Login struct {
	Mount string // of the auth method: "approle", "kubernetes"
	Role  string // the role's ID of AppRole, or its name

	// SecretFile has the secret ID of AppRole, TokenFile the JWT of a
	// Kubernetes service account. One of them is set.
	SecretFile string
	TokenFile  string
}

// Check reports the first thing wrong with a login.
func (l *Login) Check() error {
	if err := CheckPath("login.mount", l.Mount); err != nil {
		return err
	}
	if l.Role == "" {
		return mandate.Invalid("login.role", "is required")
	}
	if (l.SecretFile == "") == (l.TokenFile == "") {
		return mandate.Invalid("login", "needs a secret_file, for AppRole, or a token_file, for Kubernetes")
	}
	return nil
}

// credential reads what proves the role. Kubernetes makes its tokens readable
// for everybody in the pod, and puts nobody else there.
func (l *Login) credential() (map[string]string, error) {
	path := l.SecretFile + l.TokenFile
	b, mode, err := privatefile.Read(path, maxToken)
	if err == nil && l.SecretFile != "" {
		err = privatefile.Guarded(path, mode)
	}
	if err != nil {
		return nil, fmt.Errorf("credential for the login: %w", err)
	}
	if text := strings.TrimSpace(string(b)); l.SecretFile != "" {
		return map[string]string{"role_id": l.Role, "secret_id": text}, nil
	} else {
		return map[string]string{"role": l.Role, "jwt": text}, nil
	}
}

// currentToken returns the token to use: what the file has now, or the last
// login's, or that of a new one.
func (c *Client) currentToken(ctx context.Context) (mandate.Secret, error) {
	if c.cfg.TokenFile != "" {
		return readToken(c.cfg.TokenFile)
	}
	if t := c.kept(); !t.IsZero() {
		return t, nil
	}
	c.logins.Lock()
	defer c.logins.Unlock()
	if t := c.kept(); !t.IsZero() {
		return t, nil
	}
	t, _, err := c.login(ctx)
	return t, err
}

func readToken(path string) (mandate.Secret, error) {
	b, mode, err := privatefile.Read(path, maxToken)
	if err == nil {
		err = privatefile.Guarded(path, mode)
	}
	if err != nil {
		return mandate.Secret{}, fmt.Errorf("token: %w", err)
	}
	t := strings.TrimSpace(string(b))
	if t == "" || strings.ContainsFunc(t, func(r rune) bool { return r <= ' ' || r >= 0x7f }) {
		return mandate.Secret{}, fmt.Errorf("token: %s has not one token in it, on one line", path)
	}
	return mandate.NewSecret(t), nil
}

func (c *Client) kept() mandate.Secret {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.token
}

func (c *Client) keep(t mandate.Secret) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.token = t
}

// forget drops a token that was refused, if it is still the one in use.
func (c *Client) forget(t mandate.Secret) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.token == t {
		c.token = mandate.Secret{}
	}
}

// lease is what the API says of a token ("Renew a token (Self)").
type lease struct {
	Auth struct {
		Token     string `json:"client_token"`
		Seconds   int64  `json:"lease_duration"`
		Renewable bool   `json:"renewable"`
	} `json:"auth"`
}

// life returns how long the token lives; zero is for ever.
func (l *lease) life() time.Duration { return time.Duration(l.Auth.Seconds) * time.Second }

// login gets a token and keeps it.
func (c *Client) login(ctx context.Context) (mandate.Secret, time.Duration, error) {
	in, err := c.cfg.Login.credential()
	if err != nil {
		return mandate.Secret{}, 0, err
	}
	var l lease
	r := request{did: "log in as " + c.cfg.Login.Role, method: http.MethodPost, path: "auth/" + c.cfg.Login.Mount + "/login", in: in, secret: []string{in["secret_id"], in["jwt"]}}
	if _, err := c.once(ctx, r, mandate.Secret{}, &l); err != nil {
		return mandate.Secret{}, 0, err
	}
	if l.Auth.Token == "" {
		return mandate.Secret{}, 0, fmt.Errorf("%s at %s: the answer has no token", r.did, c)
	}
	t := mandate.NewSecret(l.Auth.Token)
	c.keep(t)
	return t, l.life(), nil
}

const (
	// look is how often [Client.Run] looks whether there is another token.
	look = 10 * time.Second

	// again is when a renewal is tried again that failed.
	again = 10 * time.Second
)

// Run renews the token until ctx is done, so that one with a short life can be
// used: after two thirds of it. A token that cannot be renewed is used until
// its end, and then its file must have another, or the login gives one.
func (c *Client) Run(ctx context.Context) error {
	var of mandate.Secret // what was renewed last
	var next time.Time    // when it is due; zero if never
	for {
		if t, err := c.currentToken(ctx); err != nil {
			c.log.Warn("OpenBao token", "server", c.String(), "err", err)
		} else if t.Reveal() != of.Reveal() || !next.IsZero() && !time.Now().Before(next) {
			of, next = t, c.renewal(ctx, t)
		}
		wait := look
		if !next.IsZero() {
			wait = min(wait, max(time.Until(next), 0))
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
	}
}

// renewal renews a token and returns when to do it again; the zero time if it
// needs none or takes none.
func (c *Client) renewal(ctx context.Context, t mandate.Secret) time.Time {
	var l lease
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	_, err := c.once(ctx, request{did: "renew the token", method: http.MethodPost, path: "auth/token/renew-self", in: struct{}{}}, t, &l)
	switch {
	case err == nil && l.life() == 0:
		return time.Time{}
	case err == nil && l.Auth.Renewable && l.life() > again:
		return time.Now().Add(l.life() * 2 / 3)
	case err == nil:
		c.log.Warn("the OpenBao token ends and is not renewed any more", "server", c.String(), "in", l.life())
		c.relogin(t)
		return time.Now().Add(max(l.life()*2/3, time.Second))
	case ctx.Err() == nil:
		c.log.Warn("OpenBao token", "server", c.String(), "err", err)
		if refused(err) {
			c.relogin(t)
		}
	}
	return time.Now().Add(again)
}

// relogin drops a token of ours near its end, so that the next request logs in.
func (c *Client) relogin(t mandate.Secret) {
	if c.cfg.Login != nil {
		c.forget(t)
	}
}
