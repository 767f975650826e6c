package mandate

import (
	"bytes"
	"encoding/json"
	"io"
	"slices"
)

// maxClaims is the longest claims challenge that a caller may pass on, in
// bytes.
const maxClaims = 2 << 10

// challengeKeys are the claims that Entra's and the APIs' challenges name. A
// key that is not listed is dropped: MSAL sends some with every call, and none
// of those may make a cached token useless.
var challengeKeys = []string{"nbf", "acrs", "capolids", "polids", "amr", "auth_time"}

// A claimRequest is one member of a claims request, as in OpenID Connect Core
// 5.5.1.
type claimRequest struct {
	Essential bool     `json:"essential,omitempty"`
	Value     string   `json:"value,omitempty"`
	Values    []string `json:"values,omitempty"`
}

// ParseClaims returns the canonical form of a claims challenge, such as an API
// sends in WWW-Authenticate: only known keys under access_token, sorted, no
// space. What asks for nothing known is "". The error wraps [ErrInvalid].
func ParseClaims(s string) (string, error) {
	if s == "" {
		return "", nil
	}
	if len(s) > maxClaims {
		return "", Invalid("claims", "is longer than %d bytes", maxClaims)
	}
	var doc struct {
		AccessToken map[string]*claimRequest `json:"access_token"`
	}
	d := json.NewDecoder(bytes.NewReader([]byte(s)))
	if err := d.Decode(&doc); err != nil {
		return "", Invalid("claims", "is not a claims challenge in JSON: %v", err)
	}
	if _, err := d.Token(); err != io.EOF {
		return "", Invalid("claims", "has something after the JSON")
	}
	for key, c := range doc.AccessToken {
		if c == nil || !slices.Contains(challengeKeys, key) {
			delete(doc.AccessToken, key)
		}
	}
	if len(doc.AccessToken) == 0 {
		return "", nil
	}
	out, err := json.Marshal(doc) // sorts the keys
	return string(out), err
}
