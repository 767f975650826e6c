package graph

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/internal/upstream"
)

// A Registration is what an application's registration says of its
// credentials.
type Registration struct {
	Object         string // the object ID, which is not the client ID
	Credentials    []Credential
	ImplicitTokens bool // access tokens may leave the authorize endpoint
	ImplicitIDs    bool // ID tokens may
}

// A Credential is what Entra shows of a secret or a certificate.
type Credential struct {
	KeyID      string // by which it is removed
	Secret     bool   // otherwise it is a certificate
	Name       string
	Hint       string // of a secret: its first characters
	Thumbprint string // of a certificate: SHA-1 in upper-case hex
	Start, End time.Time
}

// credential is a credential as Graph writes it.
type credential struct {
	KeyID      string    `json:"keyId"`
	Identifier *string   `json:"customKeyIdentifier"`
	Name       *string   `json:"displayName"`
	Hint       *string   `json:"hint"`
	Start      time.Time `json:"startDateTime"`
	End        time.Time `json:"endDateTime"`
	Type       *string   `json:"type,omitempty"`
	Usage      *string   `json:"usage,omitempty"`
}

func (c credential) public(secret bool) Credential {
	return Credential{
		KeyID: upstream.Clean(c.KeyID, 64), Secret: secret, Name: text(c.Name), Hint: text(c.Hint),
		Thumbprint: thumbprint(text(c.Identifier)), Start: c.Start, End: c.End,
	}
}

func text(s *string) string {
	if s == nil {
		return ""
	}
	return upstream.Clean(*s, 120)
}

// thumbprint reads a custom key identifier: Graph writes base64, or hex.
func thumbprint(s string) string {
	if b, err := hex.DecodeString(s); err == nil && len(b) == 20 {
		return strings.ToUpper(s)
	}
	if b, err := base64.StdEncoding.DecodeString(s); err == nil && len(b) == 20 {
		return strings.ToUpper(hex.EncodeToString(b))
	}
	return ""
}

// Registration returns that of an application. It and what is below need the
// application permission Application.ReadWrite.OwnedBy, the application being
// an owner of itself, or Application.ReadWrite.All. Errors are
// [*mandate.Fault].
func (c *Client) Registration(ctx context.Context, token mandate.Secret, id mandate.AppID) (Registration, error) {
	header, body, err := c.ask(ctx, http.MethodGet, token, c.base.JoinPath("applications(appId='"+id.String()+"')"))
	if err != nil {
		return Registration{}, err
	}
	var a struct {
		ID        string       `json:"id"`
		Passwords []credential `json:"passwordCredentials"`
		Keys      []credential `json:"keyCredentials"`
		Web       struct {
			Implicit struct {
				Access bool `json:"enableAccessTokenIssuance"`
				ID     bool `json:"enableIdTokenIssuance"`
			} `json:"implicitGrantSettings"`
		} `json:"web"`
	}
	if !upstream.IsJSON(header) || json.Unmarshal(body, &a) != nil || a.ID == "" {
		return Registration{}, unusable("the answer is not an application in JSON")
	}
	r := Registration{Object: upstream.Clean(a.ID, 64), ImplicitTokens: a.Web.Implicit.Access, ImplicitIDs: a.Web.Implicit.ID}
	for _, k := range a.Keys {
		r.Credentials = append(r.Credentials, k.public(false))
	}
	for _, p := range a.Passwords {
		r.Credentials = append(r.Credentials, p.public(true))
	}
	return r, nil
}

func (c *Client) registration(object string, more ...string) *url.URL {
	return c.base.JoinPath(append([]string{"applications", object}, more...)...)
}

// AddSecret makes another client secret, and returns its value, which Entra
// shows nobody again, with its key ID.
func (c *Client) AddSecret(ctx context.Context, token mandate.Secret, object, name string, end time.Time) (Credential, mandate.Secret, error) {
	in := map[string]any{"passwordCredential": map[string]any{"displayName": name, "endDateTime": end.UTC().Format(time.RFC3339)}}
	header, body, err := c.send(ctx, http.MethodPost, token, c.registration(object, "addPassword"), in)
	if err != nil {
		return Credential{}, mandate.Secret{}, err
	}
	var out struct {
		credential
		Text string `json:"secretText"`
	}
	if !upstream.IsJSON(header) || json.Unmarshal(body, &out) != nil || out.Text == "" || out.KeyID == "" {
		return Credential{}, mandate.Secret{}, unusable("the answer is not a new secret in JSON")
	}
	return out.public(true), mandate.NewSecret(out.Text), nil
}

// RemoveSecret removes a client secret. Entra goes on taking it for a while.
func (c *Client) RemoveSecret(ctx context.Context, token mandate.Secret, object, keyID string) error {
	_, _, err := c.send(ctx, http.MethodPost, token, c.registration(object, "removePassword"), map[string]string{"keyId": keyID})
	return err
}

// AddCertificate adds a certificate beside the others. proof is signed with a
// key that the application has already. Without a proof the list of
// certificates is read and written back with one more, which is how the first
// one comes in.
func (c *Client) AddCertificate(ctx context.Context, token mandate.Secret, id mandate.AppID, object, name string, der []byte, proof mandate.Secret) error {
	key := map[string]any{"type": "AsymmetricX509Cert", "usage": "Verify", "displayName": name, "key": base64.StdEncoding.EncodeToString(der)}
	if proof.IsZero() {
		return c.putCertificates(ctx, token, id, func(all []any) []any { return append(all, key) })
	}
	in := map[string]any{"keyCredential": key, "passwordCredential": nil, "proof": proof.Reveal()}
	_, _, err := c.send(ctx, http.MethodPost, token, c.registration(object, "addKey"), in, proof)
	return err
}

// RemoveCertificate removes a certificate. proof is signed with a key that the
// application has and, best, keeps. Entra goes on taking the removed one for a
// while.
func (c *Client) RemoveCertificate(ctx context.Context, token mandate.Secret, object, keyID string, proof mandate.Secret) error {
	in := map[string]string{"keyId": keyID, "proof": proof.Reveal()}
	_, _, err := c.send(ctx, http.MethodPost, token, c.registration(object, "removeKey"), in, proof)
	return err
}

// putCertificates writes the list of certificates with a change. One that is
// there goes back without its key and is found by its ID. Between reading and
// writing somebody else's change is lost, which is why it is for those only who
// have no key to prove.
func (c *Client) putCertificates(ctx context.Context, token mandate.Secret, id mandate.AppID, change func([]any) []any) error {
	header, body, err := c.ask(ctx, http.MethodGet, token, c.base.JoinPath("applications(appId='"+id.String()+"')"))
	if err != nil {
		return err
	}
	var a struct {
		ID   string `json:"id"`
		Keys *[]any `json:"keyCredentials"`
	}
	if !upstream.IsJSON(header) || json.Unmarshal(body, &a) != nil || a.ID == "" || a.Keys == nil {
		return unusable("the answer is not an application in JSON")
	}
	_, _, err = c.send(ctx, http.MethodPatch, token, c.registration(a.ID), map[string]any{"keyCredentials": change(slices.Clone(*a.Keys))})
	return err
}
