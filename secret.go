package mandate

import (
	"fmt"
	"log/slog"
)

// A Secret is a credential that does not print. fmt, slog, encoding/json and
// text encoders all show it as "[secret]"; [Secret.Reveal] is the only way to
// the value, so the places where one escapes can be listed with grep.
//
// The value sits behind a pointer on purpose. fmt cannot call methods on
// unexported fields, and would print a plain string there in full.
type Secret struct{ v *string }

const redacted = "[secret]"

// NewSecret returns a Secret holding s.
func NewSecret(s string) Secret { return Secret{&s} }

// Reveal returns the value, or "" for the zero Secret.
func (s Secret) Reveal() string {
	if s.v == nil {
		return ""
	}
	return *s.v
}

// IsZero reports whether s holds no value.
func (s Secret) IsZero() bool { return s.v == nil || *s.v == "" }

// String returns "[secret]".
func (s Secret) String() string { return redacted }

// Format implements [fmt.Formatter], so that no verb, not even %x or %#v,
// reaches the value.
func (s Secret) Format(f fmt.State, _ rune) { fmt.Fprint(f, redacted) }

// LogValue implements [slog.LogValuer].
func (s Secret) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText implements [encoding.TextMarshaler]; encoding/json uses it too.
func (s Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }
