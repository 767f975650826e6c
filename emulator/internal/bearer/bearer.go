// Package bearer is what the emulated services have in common: how they read
// and judge an access token, and the weather that the dials make.
package bearer

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
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

// Has reports whether the token carries one of the scopes.
func (t Token) Has(scopes ...string) bool {
	for _, have := range strings.Fields(t.Scope) {
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
// [ErrRevoked] or [token.ErrInvalid].
func (c Config) Read(r *http.Request) (Token, error) {
	scheme, raw, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") || raw == "" {
		return Token{}, ErrMissing
	}
	claims, err := c.Key.Verify(strings.TrimSpace(raw), time.Now())
	if err != nil {
		return Token{}, err
	}
	t := Token{Claims: claims}
	t.Resource, _ = c.Directory.Resource(claims.Audience)
	if claims.Type == "app" {
		return t, nil
	}
	u, ok := c.Directory.UserByID(claims.User)
	if !ok {
		return Token{}, fmt.Errorf("%w: no such user", token.ErrInvalid)
	}
	if !u.ValidFrom.IsZero() && claims.IssuedMicro < u.ValidFrom.UnixMicro() {
		return Token{}, ErrRevoked
	}
	t.Holder = u
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
