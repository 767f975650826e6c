package entra

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"net/url"
	"slices"
	"strings"
)

// parseType reads the response_type. What it does not refuse, the
// registration allows.
func (q *request) parseType(t string) *refusal {
	words := strings.Fields(t)
	if len(words) == 0 {
		return refuse(900144, "response_type")
	}
	for _, word := range words {
		switch word {
		case "code":
			q.answers.code = true
		case "id_token":
			q.answers.idToken = true
		case "token":
			q.answers.accessToken = true
		default:
			return refuse(700054, short(t))
		}
	}
	switch a := q.answers; {
	case a.accessToken && (a.code || !a.idToken): // the metadata does not have them
		return refuse(700054, short(t))
	case a.idToken && !q.client.IssueIDTokens:
		return refuse(700054, "id_token")
	case a.accessToken && !q.client.IssueAccessTokens:
		return refuse(700054, "token")
	}
	return nil
}

// parseMode reads the response_mode.
func (q *request) parseMode(m string) *refusal {
	if q.answers.idToken || q.answers.accessToken {
		q.mode = "fragment"
	}
	if m == "" {
		return nil
	}
	if !slices.Contains([]string{"query", "fragment", "form_post"}, m) {
		return refuse(90023, "response_mode")
	}
	q.mode = m
	return nil
}

// checkAnswers refuses a request for an ID token that could be replayed, or
// that is not one of OpenID Connect.
func (q *request) checkAnswers() *refusal {
	switch {
	case !q.answers.idToken:
		return nil
	case q.nonce == "":
		return refuse(900144, "nonce")
	case q.version == 2 && !q.ask.has("openid"):
		return refuse(70011, strings.Join(q.ask.oidc, " "))
	}
	return nil
}

// addTokens adds the tokens that the authorization endpoint itself answers
// with. The ID token is bound to what it comes along with (OpenID Connect
// Core, 3.3.2.11): c_hash to the code, at_hash to the access token.
func (s *Server) addTokens(v url.Values, ix *interaction) *refusal {
	q := ix.request
	if !q.answers.idToken {
		return nil
	}
	a := &attempt{version: q.version, form: url.Values{}, tenant: ix.tenant, client: q.client, strength: "0", trace: q.trace}
	want, e := q.asAsk(s)
	if e != nil {
		return e
	}
	i := issuance{user: ix.user, tenant: ix.tenant, signIn: ix.signIn(), ask: want, fromCode: true, hashes: map[string]string{}}
	if q.answers.accessToken {
		if e := s.addAccessToken(v, a, i); e != nil {
			return e
		}
	}
	if code := v.Get("code"); code != "" {
		i.hashes["c_hash"] = leftHalf(code)
	}
	raw, err := s.idToken(a, i, s.cfg.Dials.Now())
	if err != nil {
		return s.internal(err)
	}
	v.Set("id_token", raw)
	return nil
}

// addAccessToken adds an access token, and its hash for the ID token. There
// is never a refresh token with it.
func (s *Server) addAccessToken(v url.Values, a *attempt, i issuance) *refusal {
	hashes := i.hashes
	i.ask.oidc = slices.DeleteFunc(slices.Clone(i.ask.oidc), func(name string) bool { return name == "openid" || name == "offline_access" })
	body, e := s.issue(a, i)
	if e != nil {
		return e
	}
	t := body.(answer)
	v.Set("access_token", t.AccessToken)
	v.Set("token_type", t.TokenType)
	v.Set("expires_in", fmt.Sprint(t.ExpiresIn))
	v.Set("scope", t.Scope)
	hashes["at_hash"] = leftHalf(t.AccessToken)
	return nil
}

// leftHalf is the left half of the value's SHA-256, as c_hash and at_hash
// have it.
func leftHalf(value string) string {
	sum := sha256.Sum256([]byte(value))
	return base64.RawURLEncoding.EncodeToString(sum[:len(sum)/2])
}
