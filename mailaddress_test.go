package mandate

import (
	"errors"
	"strings"
	"testing"
)

func TestParseMailAddress(t *testing.T) {
	for _, s := range []string{"a@b.example", "Ada.Lovelace+notices@contoso.example", "x_1@a-b.c.example", strings.Repeat("a", 64) + "@b.example"} {
		if a, err := ParseMailAddress(s); err != nil || string(a) != s {
			t.Errorf("%q: got %q, %v", s, a, err)
		}
	}
	for _, s := range []string{
		"", "a", "@b.example", "a@", "a@b", "a@@b.example", "a@b@c.example", "a b@c.example", "a@b.example\r\nBcc: x@y.example", "a\x00@b.example",
		"<a@b.example>", "Ada <a@b.example>", `"a b"@c.example`, "a@b.example,c@d.example", "a@b.example;c@d.example", "a@[192.0.2.1]", "a@b..example", ".a@b.example",
		"a.@b.example", "a..b@c.example", "a@-b.example", "a@b-.example", "a@b.example.", "ä@b.example", "a@bücher.example", "a(c)@b.example", "a:b@c.example",
		strings.Repeat("a", 65) + "@b.example", "a@" + strings.Repeat("b", 64) + ".example", "a@" + strings.Repeat("b.", 130) + "example", "a@b.example ", " a@b.example",
	} {
		if a, err := ParseMailAddress(s); !errors.Is(err, ErrInvalid) {
			t.Errorf("%q: got %q, %v", s, a, err)
		}
	}
}

func FuzzParseMailAddress(f *testing.F) {
	f.Add("a@b.example")
	f.Fuzz(func(t *testing.T, s string) {
		if a, err := ParseMailAddress(s); err == nil && (string(a) != s || strings.ContainsAny(s, " \r\n\t<>,;:\"()[]\\") || strings.Count(s, "@") != 1) {
			t.Errorf("took %q", s)
		}
	})
}
