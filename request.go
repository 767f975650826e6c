package mandate

import (
	"slices"
	"time"
)

// Limits of a request's fields, in bytes unless said otherwise.
const (
	maxName        = 64 // of a caller or purpose
	maxTicket      = 128
	maxScope       = 256
	maxScopes      = 50               // scopes
	maxMinLifetime = 45 * time.Minute // Entra's shortest access tokens live an hour
)

// Check reports the first field of the request that is missing or malformed,
// as an error wrapping [ErrInvalid].
func (r *Request) Check() error {
	switch {
	case r.Caller == "":
		return Invalid("caller", "is required")
	case r.Use != UseToken && r.Use != UseCall:
		return Invalid("use", "%q is neither %q nor %q", r.Use, UseToken, UseCall)
	case r.Partner.Key.Partner.IsZero() || r.Partner.Key.Application.IsZero() || r.Partner.Key.Cloud == "":
		return Invalid("partner", "is required")
	case r.Tenant.IsZero():
		return Invalid("tenant", "is required")
	case r.Audience == "":
		return Invalid("audience", "is required")
	case r.Purpose == "":
		return Invalid("purpose", "is required: say what the token is for")
	case !Name(r.Purpose):
		return Invalid("purpose", "must be a name of at most %d letters, digits, '-', '_' or '.'", maxName)
	case !ticket(r.Ticket):
		return invalidTicket()
	case r.MinLifetime < 0 || r.MinLifetime > maxMinLifetime:
		return Invalid("min_lifetime", "must be from 0 to %d seconds", int(maxMinLifetime.Seconds()))
	}
	if claims, err := ParseClaims(r.Claims); err != nil || claims != r.Claims {
		return Invalid("claims", "is not in canonical form")
	}
	return r.checkScopes()
}

func (r *Request) checkScopes() error {
	if len(r.Scopes) == 0 {
		return nil
	}
	if len(r.Scopes) > maxScopes {
		return Invalid("scopes", "are more than %d", maxScopes)
	}
	for _, s := range r.Scopes {
		if !scope(s) {
			return Invalid("scopes", "%.60q is not a permission's name, such as User.Read", s)
		}
	}
	if !slices.Equal(r.Scopes, NormalScopes(r.Scopes)) {
		return Invalid("scopes", "must be sorted, each once, without openid, profile, email and offline_access")
	}
	return nil
}

// Name reports whether s can name a purpose, a caller or a rule: one to 64
// ASCII letters, digits, '-', '_', '.' or ':'.
func Name(s string) bool { return len(s) > 0 && len(s) <= maxName && only(s, "-_.:") }

func invalidTicket() error {
	return Invalid("ticket", "must be at most %d letters, digits, spaces or any of -_.:/#", maxTicket)
}

func ticket(s string) bool { return len(s) <= maxTicket && only(s, "-_.:/# ") }
func scope(s string) bool  { return len(s) > 0 && len(s) <= maxScope && only(s, "-_.:/") }

// only reports whether s has nothing but ASCII letters, digits and others.
func only(s, others string) bool {
	for i := range len(s) {
		c := s[i]
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' {
			continue
		}
		if !slices.Contains([]byte(others), c) {
			return false
		}
	}
	return true
}
