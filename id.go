package mandate

import "encoding/hex"

// guid is the 16 bytes of a GUID in the order in which they are written.
// Identifiers are arrays and not strings, so that they compare, hash and fit
// into map keys without a pointer.
type guid [16]byte

// A TenantID is the directory ID of an Entra tenant: a partner's or a
// customer's. The only way to make one from outside input is [ParseTenantID].
type TenantID struct{ guid }

// An AppID is the client ID of an Entra application registration.
type AppID struct{ guid }

// An ObjectID is the object ID of a user within a tenant.
type ObjectID struct{ guid }

// ParseTenantID returns the directory ID written in s, in either case. Domain
// names are not accepted: "contoso.com" can change hands, a directory ID
// cannot. The error wraps [ErrInvalid].
func ParseTenantID(s string) (TenantID, error) {
	g, err := parseGUID("tenant", s)
	return TenantID{g}, err
}

// ParseAppID returns the client ID written in s; the error wraps [ErrInvalid].
func ParseAppID(s string) (AppID, error) {
	g, err := parseGUID("application", s)
	return AppID{g}, err
}

// ParseObjectID returns the object ID written in s; the error wraps
// [ErrInvalid].
func ParseObjectID(s string) (ObjectID, error) {
	g, err := parseGUID("object", s)
	return ObjectID{g}, err
}

func parseGUID(what, s string) (guid, error) {
	var g guid
	if !g.parse(s) {
		return guid{}, Invalid(what, "%.60q is not an ID of the form 00000000-0000-0000-0000-000000000000", s)
	}
	return g, nil
}

func (g *guid) parse(s string) bool {
	if len(s) != 36 || s[8] != '-' || s[13] != '-' || s[18] != '-' || s[23] != '-' {
		return false
	}
	var digits [32]byte
	for i, part := range [...]string{s[:8], s[9:13], s[14:18], s[19:23], s[24:]} {
		copy(digits[[...]int{0, 8, 12, 16, 20}[i]:], part)
	}
	_, err := hex.Decode(g[:], digits[:])
	return err == nil && *g != guid{}
}

// IsZero reports whether the ID is the zero value, which names nothing.
func (g guid) IsZero() bool { return g == guid{} }

// String returns the ID in lower case, or "" if it is zero.
func (g guid) String() string {
	var b [36]byte
	return string(g.append(b[:0]))
}

func (g guid) append(b []byte) []byte {
	if g.IsZero() {
		return b
	}
	for i, part := range [...][]byte{g[:4], g[4:6], g[6:8], g[8:10], g[10:]} {
		if i > 0 {
			b = append(b, '-')
		}
		b = hex.AppendEncode(b, part)
	}
	return b
}

// AppendText implements [encoding.TextAppender].
func (g guid) AppendText(b []byte) ([]byte, error) { return g.append(b), nil }

// MarshalText implements [encoding.TextMarshaler].
func (g guid) MarshalText() ([]byte, error) { return []byte(g.String()), nil }

// UnmarshalText implements [encoding.TextUnmarshaler]. Empty text is the zero
// ID.
func (g *guid) UnmarshalText(text []byte) error {
	if len(text) == 0 {
		*g = guid{}
		return nil
	}
	if !g.parse(string(text)) {
		return Invalid("id", "%.60q is not a GUID", text)
	}
	return nil
}
