package mandate

import (
	"strings"
	"time"
)

// A MailAddress is an address to which notices are sent: local@domain in
// ASCII, without a name, a comment or quotes, so that there is no second way to
// read it.
type MailAddress string

// ParseMailAddress reads an address. What it does not take is wrapped in
// [ErrInvalid].
func ParseMailAddress(s string) (MailAddress, error) {
	local, domain, ok := strings.Cut(s, "@")
	if !ok || len(s) > 254 || len(local) > 64 || !dotted(local, atext) || !dotted(domain, label) || !strings.Contains(domain, ".") {
		return "", Invalid("address", "%.80q is not a mail address such as security@contoso.example", s)
	}
	return MailAddress(s), nil
}

// dotted reports whether s is parts with one dot between each two.
func dotted(s string, part func(string) bool) bool {
	for p := range strings.SplitSeq(s, ".") {
		if p == "" || !part(p) {
			return false
		}
	}
	return true
}

// atext is RFC 5322's, and at least one character.
func atext(s string) bool {
	return strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789!#$%&'*+-/=?^_`{|}~") == ""
}

// label is a part of a host name.
func label(s string) bool {
	return len(s) <= 63 && s[0] != '-' && s[len(s)-1] != '-' &&
		strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-") == ""
}

// A Contact is an address at which a partner is told of what happens to its
// consent.
type Contact struct {
	Address MailAddress `json:"address"`
	Added   time.Time   `json:"added"`
	By      CallerID    `json:"by"`
}
