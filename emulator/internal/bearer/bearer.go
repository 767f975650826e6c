// Package bearer is what the emulated services have in common: how they read
// and judge an access token, and the weather that the dials make.
package bearer

import (
	"cmp"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/mandate-sam/mandate/emulator/directory"
	"github.com/mandate-sam/mandate/emulator/fault"
	"github.com/mandate-sam/mandate/emulator/internal/seed"
	"github.com/mandate-sam/mandate/emulator/internal/token"
)

// Config says what a service works with. Every field is required.
type Config struct {
	Login     string // URL of the identity platform
	Directory *directory.Directory
	Dials     *fault.Panel
	Key       *token.Key
	Chance    *seed.Source
	Log       *slog.Logger
}

// A Token is an access token that was issued here, is in force and was not
// revoked. Whether it is for the service that reads it is the service's to say.
type Token struct {
	token.Claims
	Resource directory.Resource // what it is for; zero if unknown
	Holder   directory.User     // zero for an application's own token
}

// AppOnly reports whether the token is an application's own.
func (t Token) AppOnly() bool { return t.Holder.ID == "" }

// MFA reports whether the token says that the user showed a second factor.
func (t Token) MFA() bool {
	for _, m := range t.AMR {
		if m == "mfa" {
			return true
		}
	}
	return false
}

// Has reports whether the token carries one of the scopes, or one of the
// application permissions of the same names.
func (t Token) Has(scopes ...string) bool {
	for _, have := range append(strings.Fields(t.Scope), t.Roles...) {
		for _, s := range scopes {
			if strings.EqualFold(have, s) {
				return true
			}
		}
	}
	return false
}

// Errors of Read.
var (
	ErrMissing = errors.New("no access token")
	ErrRevoked = errors.New("token was revoked")
)

// Read returns the request's access token. An error wraps [ErrMissing],
// [ErrRevoked] or [token.ErrInvalid]. With ErrRevoked the token is returned
// all the same.
func (c Config) Read(r *http.Request) (Token, error) {
	scheme, raw, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") || raw == "" {
		return Token{}, ErrMissing
	}
	claims, err := c.Key.Verify(strings.TrimSpace(raw), c.Dials.Now())
	if err != nil {
		return Token{}, err
	}
	t := Token{Claims: claims}
	t.Resource, _ = c.Directory.Resource(claims.Audience)
	if gone := c.Directory.Removed(claims.Tenant, claims.App); !gone.IsZero() && claims.IssuedMicro < gone.UnixMicro() {
		return Token{}, fmt.Errorf("%w: the application was removed", token.ErrInvalid)
	}
	if claims.Type == "app" {
		return t, nil
	}
	u, ok := c.Directory.UserByID(claims.User)
	if !ok {
		return Token{}, fmt.Errorf("%w: no such user", token.ErrInvalid)
	}
	t.Holder = u
	if !u.ValidFrom.IsZero() && claims.IssuedMicro < u.ValidFrom.UnixMicro() {
		return t, ErrRevoked
	}
	return t, nil
}

// WriteJSON sends a JSON answer that nobody may store.
func WriteJSON(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(body) // an error here is the client's hang-up
}

// RetryAfter sets the header of that name, if there is anything to say.
func RetryAfter(w http.ResponseWriter, seconds int) {
	if seconds > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(seconds))
	}
}

// maxBody bounds what a service reads of a request.
const maxBody = 1 << 20

// ErrBody is returned for a body that is no JSON object of the shape wanted.
var ErrBody = errors.New("the body is not valid")

// ReadJSON reads the request's body into v. Properties that v lacks are
// ignored, as the services do, and so is the case of letters in their names.
func ReadJSON(r *http.Request, v any) error {
	b, err := io.ReadAll(io.LimitReader(r.Body, maxBody+1))
	if err != nil || len(b) > maxBody || json.Unmarshal(b, v) != nil {
		return ErrBody
	}
	return nil
}

// Challenge returns the WWW-Authenticate header's value by which a service
// demands the claims (JSON), as in "Claims challenges, claims requests and
// client capabilities".
func (c Config) Challenge(client, claims string) string {
	return `Bearer realm="", authorization_uri="` + c.Login + `/common/oauth2/authorize", client_id="` + client +
		`", error="insufficient_claims", claims="` + base64.StdEncoding.EncodeToString([]byte(claims)) + `"`
}

// NotBefore are the claims that demand a token issued at that time or later.
func NotBefore(at time.Time) string {
	return `{"access_token":{"nbf":{"essential":true, "value":"` + strconv.FormatInt(at.Unix(), 10) + `"}}}`
}

// Continuous reports whether the token's client said that it answers claims
// challenges.
func (t Token) Continuous() bool {
	return slices.ContainsFunc(t.Capabilities, func(c string) bool { return strings.EqualFold(c, "CP1") })
}

// Demanded returns the claims that the service demands instead of answering
// the token: the dials say so, or the user's tokens were revoked (err is that
// of [Config.Read]) and the client knows what to do about it.
func (c Config) Demanded(service string, t Token, err error) (claims string, ok bool) {
	if errors.Is(err, ErrRevoked) {
		return NotBefore(t.Holder.ValidFrom), t.Continuous()
	}
	if err != nil {
		return "", false
	}
	x, ok := c.Dials.Challenged(service, t.Holder.UPN)
	return cmp.Or(x.Claims, NotBefore(c.Dials.Now())), ok
}
