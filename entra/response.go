package entra

import (
	"encoding/base64"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"

	// This JSON is case-sensitive and refuses an object that has a key twice,
	// so that no two readers of an answer can disagree about it.
	"github.com/go-jose/go-jose/v4/json"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/internal/upstream"
)

// maxLife is the longest life of an access token that is believed. Entra's own
// longest is 28 hours.
const maxLife = 48 * time.Hour

// An answer is what the token endpoint gave, with the ID token unverified.
type answer struct {
	mandate.Redeemed
	idToken string
}

// An exchange is one request to the token endpoint, as far as its answer is to
// be understood by it.
type exchange struct {
	id       string // client-request-id
	sent     time.Time
	audience mandate.Audience
	own      bool              // at the partner's own tenant, and not at a customer's
	censor   *strings.Replacer // of what was sent in confidence
}

// A number is a JSON number, as v2 writes it, or one in a string, as v1 does.
type number int64

func (n *number) UnmarshalJSON(b []byte) error {
	v, err := strconv.ParseInt(strings.Trim(string(b), `"`), 10, 64)
	if err != nil {
		return errors.New("not a whole number")
	}
	*n = number(v)
	return nil
}

// success is the body of RFC 6749, section 5.1, with Entra's additions.
type success struct {
	TokenType string  `json:"token_type"`
	Scope     string  `json:"scope"`
	ExpiresIn *number `json:"expires_in"`
	ExpiresOn *number `json:"expires_on"` // Unix time
	Access    string  `json:"access_token"`
	Refresh   string  `json:"refresh_token"`
	ID        string  `json:"id_token"`
}

// read reads the body. It is nearly always plain; see [flat].
func (s *success) read(body []byte) error {
	ok := flat(body, []field{
		{name: "token_type", text: &s.TokenType}, {name: "scope", text: &s.Scope},
		{name: "expires_in", number: &s.ExpiresIn}, {name: "expires_on", number: &s.ExpiresOn},
		{name: "access_token", text: &s.Access}, {name: "refresh_token", text: &s.Refresh}, {name: "id_token", text: &s.ID},
	})
	if ok {
		return nil
	}
	*s = success{}
	return json.Unmarshal(body, s)
}

// read makes an answer or a fault of what came back.
func (x exchange) read(status int, h http.Header, body []byte) (answer, *mandate.Fault) {
	if status != http.StatusOK {
		return answer{}, x.fault(status, h, body)
	}
	if !upstream.IsJSON(h) {
		return answer{}, x.unusable(status, "the answer is not JSON; is there a proxy in between?")
	}
	var s success
	if err := s.read(body); err != nil {
		return answer{}, x.unusable(status, "the answer is not readable JSON")
	}
	life, ok := x.life(s)
	switch {
	case s.Access == "":
		return answer{}, x.unusable(status, "the answer has no access token")
	case !sendable(s.Access):
		return answer{}, x.unusable(status, "the answer's access token has characters that cannot be in one")
	case !strings.EqualFold(s.TokenType, "Bearer"):
		return answer{}, x.unusable(status, "the answer's token is not of type Bearer")
	case !ok:
		return answer{}, x.unusable(status, "the access token's lifetime is missing or out of range")
	}
	return x.answer(s, life, h), nil
}

// sendable reports whether a token can stand in a header, and anywhere else
// without being written in another way: a b64token of RFC 6750, section 2.1.
func sendable(token string) bool {
	for _, c := range []byte(strings.TrimRight(token, "=")) {
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && strings.IndexByte("-._~+/", c) < 0 {
			return false
		}
	}
	return true
}

// unusable is the fault of an answer of which nothing can be believed.
func (x exchange) unusable(status int, why string) *mandate.Fault {
	return &mandate.Fault{Domain: mandate.DomainTransient, Remedy: mandate.RemedyRetry, Description: why, Status: status, CorrelationID: x.id}
}

// life returns how long the access token lives, counted from before it was
// asked for. expires_in is preferred: it does not depend on our wall clock, and
// the time made of it keeps its monotonic reading.
func (x exchange) life(s success) (time.Duration, bool) {
	var seconds int64
	switch {
	case s.ExpiresIn != nil:
		seconds = int64(*s.ExpiresIn)
	case s.ExpiresOn != nil:
		seconds = int64(*s.ExpiresOn) - x.sent.Unix()
	}
	if seconds <= 0 || seconds > int64(maxLife/time.Second) {
		return 0, false
	}
	return time.Duration(seconds) * time.Second, true
}

func (x exchange) answer(s success, life time.Duration, h http.Header) answer {
	claims := readAccess(s.Access)
	scopes := s.Scope
	if scopes == "" {
		scopes = claims.Scopes
	}
	a := answer{idToken: s.ID}
	a.Access = mandate.NewSecret(s.Access)
	a.Expires = x.sent.Add(life)
	a.Scopes = granted(scopes, x.audience)
	a.AMR = claims.AMR
	a.UTI = upstream.Clean(claims.UTI, maxID)
	a.CorrelationID = x.correlation("", h)
	if claims.IssuedAt > 0 {
		a.IssuedAt = time.Unix(int64(claims.IssuedAt), 0)
	}
	if s.Refresh != "" {
		a.Refresh = mandate.NewSecret(s.Refresh)
	}
	return a
}

// correlation returns the id by which Microsoft finds the exchange: the answer's
// own, the header's, or the one that was sent.
func (x exchange) correlation(own string, h http.Header) string {
	for _, id := range []string{own, h.Get("client-request-id")} {
		if id = upstream.Clean(x.censor.Replace(id), maxID); id != "" {
			return id
		}
	}
	return x.id
}

// granted returns the scopes of a token without the resource in front.
//
// Entra writes it as the resource was asked for, with one slash or two between.
// A scope of any other resource is left whole, so that it counts as one that no
// rule names. ".default" is the question and not a permission.
func granted(scope string, a mandate.Audience) []mandate.Scope {
	resource := strings.TrimRight(string(a), "/") + "/"
	scopes := strings.Fields(scope)
	for i, s := range scopes {
		if len(s) > len(resource) && strings.EqualFold(s[:len(resource)], resource) {
			s = strings.TrimLeft(s[len(resource):], "/")
		}
		if s == ".default" {
			s = ""
		}
		scopes[i] = s
	}
	return mandate.NormalScopes(scopes)
}

// accessClaims are those of an access token that are of use to us.
type accessClaims struct {
	AMR      []string `json:"amr"`
	Scopes   string   `json:"scp"`
	UTI      string   `json:"uti"`
	IssuedAt number   `json:"iat"`
}

// readAccess reads an access token without verifying it. It is the API's and
// not ours to verify (Graph's cannot be), and it came from the token endpoint
// over TLS. One that is not readable, which Entra reserves the right to, has no
// claims.
func readAccess(jwt string) accessClaims {
	parts := strings.Split(jwt, ".")
	if len(parts) != 3 {
		return accessClaims{}
	}
	b, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return accessClaims{}
	}
	var c accessClaims
	if json.Unmarshal(b, &c) != nil {
		return accessClaims{}
	}
	return c
}
