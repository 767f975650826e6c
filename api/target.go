package api

import (
	"net/url"
	"strings"
	"unicode/utf8"

	"github.com/mandate-sam/mandate"
)

// Limits of what is called, in bytes.
const (
	maxPath  = 2 << 10
	maxQuery = 8 << 10
)

// A target is what is called at an audience's host, in canonical form: the
// record and the API see the same bytes, and policy sees them in lower case.
type target struct {
	path  string // begins with "/"; percent-encoded
	query string // without "?"; percent-encoded
}

// parseTarget reads what a caller wants to call: a path with an optional
// query, or a URL whose scheme, host and port are origin's. Nothing in s can
// choose another host. The error is about the field "path".
func parseTarget(origin, s string) (target, error) {
	s, err := cutOrigin(origin, s)
	if err != nil {
		return target{}, err
	}
	if strings.Contains(s, "#") {
		return target{}, mandate.Invalid("path", "has a fragment (#), which is never sent; write %%23 for the character")
	}
	path, query, _ := strings.Cut(s, "?")
	if len(path) > maxPath || len(query) > maxQuery {
		return target{}, mandate.Invalid("path", "is longer than %d bytes, or its query than %d", maxPath, maxQuery)
	}
	var t target
	if t.path, err = canonicalPath(path); err != nil {
		return target{}, err
	}
	t.query, err = canonicalQuery(query)
	return t, err
}

// cutOrigin removes the origin from a URL; what it returns begins with "/".
// It compares text before anything is parsed, so that no two readings of a URL
// can differ.
func cutOrigin(origin, s string) (string, error) {
	if strings.HasPrefix(s, "/") {
		return s, nil
	}
	scheme, rest, ok := strings.Cut(s, "://")
	if !ok {
		return "", mandate.Invalid("path", "%.80q must begin with / or be a URL of %s", s, origin)
	}
	end := strings.IndexAny(rest, "/?#")
	if end < 0 {
		end = len(rest)
	}
	if normalOrigin(scheme+"://"+rest[:end]) != normalOrigin(origin) {
		return "", mandate.Invalid("path", "%.80q is not at %s; a call goes to the audience's own host and nowhere else", s, origin)
	}
	if !strings.HasPrefix(rest[end:], "/") {
		return "/" + rest[end:], nil
	}
	return rest[end:], nil
}

// normalOrigin writes equal origins equally: lower case, no default port.
func normalOrigin(s string) string {
	s = strings.ToLower(s)
	if strings.HasPrefix(s, "https://") {
		return strings.TrimSuffix(s, ":443")
	}
	return s
}

// canonicalPath decodes a path once, refuses what two servers could read
// differently, and encodes it again: slashes collapsed, only what must be
// encoded encoded.
func canonicalPath(raw string) (string, error) {
	var plain, out strings.Builder
	for i := 0; i < len(raw); i++ {
		c, encoded := raw[i], false
		if c == '%' {
			if c, encoded = unhex(raw[i+1:]); !encoded {
				return "", mandate.Invalid("path", "has a %% that is not followed by two hexadecimal digits")
			}
			i += 2
		}
		if reason := refused(c, encoded); reason != "" {
			return "", mandate.Invalid("path", "has %s", reason)
		}
		if c == '/' && strings.HasSuffix(plain.String(), "/") {
			continue
		}
		plain.WriteByte(c)
		encode(&out, c, c == '/' || isPathByte(c) && !(encoded && c == '+'))
	}
	return out.String(), checkSegments(plain.String())
}

// refused says what is wrong with a byte of a path, or "".
func refused(c byte, encoded bool) string {
	switch {
	case c < ' ' || c == 0x7f:
		return "a control character"
	case c == '\\':
		return "a backslash"
	case c == ';':
		return "a semicolon"
	case encoded && c == '/':
		return "an encoded slash"
	case encoded && c == '%':
		return "an encoded percent sign, which would be decoded twice"
	case !encoded && c != '/' && !isPathByte(c):
		return "a character that must be percent-encoded, such as a space or one that is not ASCII"
	}
	return ""
}

// checkSegments refuses what would lead elsewhere than it says.
func checkSegments(plain string) error {
	if !utf8.ValidString(plain) {
		return mandate.Invalid("path", "is not UTF-8 when it is decoded")
	}
	for segment := range strings.SplitSeq(plain, "/") {
		switch strings.ToLower(segment) {
		case ".", "..":
			return mandate.Invalid("path", "has a segment %q", segment)
		case "$batch", "batch":
			return mandate.Invalid("path", "is a batch, in which the calls themselves cannot be seen; make them one by one")
		}
	}
	return nil
}

// canonicalQuery encodes what a query must have encoded and leaves the rest.
// A person may write spaces, quotes and braces; control characters are
// refused, encoded or not.
func canonicalQuery(raw string) (string, error) {
	var out strings.Builder
	for i := 0; i < len(raw); i++ {
		c, encoded := raw[i], false
		if c == '%' {
			if c, encoded = unhex(raw[i+1:]); !encoded {
				return "", mandate.Invalid("path", "has a %% in its query that is not followed by two hexadecimal digits")
			}
			i += 2
		}
		if c < ' ' || c == 0x7f {
			return "", mandate.Invalid("path", "has a control character in its query")
		}
		encode(&out, c, isUnreserved(c) || !encoded && (isPathByte(c) || strings.IndexByte("/?;", c) >= 0))
	}
	return out.String(), nil
}

func encode(b *strings.Builder, c byte, literal bool) {
	const digits = "0123456789ABCDEF"
	if literal {
		b.WriteByte(c)
		return
	}
	b.Write([]byte{'%', digits[c>>4], digits[c&15]})
}

func unhex(s string) (byte, bool) {
	if len(s) < 2 || !isHex(s[0]) || !isHex(s[1]) {
		return 0, false
	}
	return nibble(s[0])<<4 | nibble(s[1]), true
}

func isHex(c byte) bool { return c >= '0' && c <= '9' || c|32 >= 'a' && c|32 <= 'f' }

func nibble(c byte) byte {
	if c <= '9' {
		return c - '0'
	}
	return c | 32 - 'a' + 10
}

// isUnreserved and isPathByte follow RFC 3986, 2.3 and 3.3; ";" is left out.
func isUnreserved(c byte) bool {
	return c|32 >= 'a' && c|32 <= 'z' || c >= '0' && c <= '9' || strings.IndexByte("-._~", c) >= 0
}

func isPathByte(c byte) bool { return isUnreserved(c) || strings.IndexByte("!$&'()*+,=:@", c) >= 0 }

// prefix returns the first segment of the path with its slash: the version of
// the API, such as "/v1".
func (t target) prefix() string {
	first, _, _ := strings.Cut(t.path[1:], "/")
	return "/" + first
}

// url returns where t is at origin.
func (t target) url(origin string) (*url.URL, error) {
	u, err := url.Parse(origin)
	if err != nil {
		return nil, err
	}
	if u.Path, err = url.PathUnescape(t.path); err != nil {
		return nil, err
	}
	u.RawPath, u.RawQuery = t.path, t.query
	return u, nil
}
