package upstream

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

func TestClean(t *testing.T) {
	for _, tt := range []struct {
		in   string
		most int
		want string
	}{
		{"", 9, ""},
		{" a  b ", 9, "a b"},
		{"a\r\n\tb", 9, "a b"},
		{"a\x1b\u202e\x00b\tc\xff" + strings.Repeat("é", 9), 8, "ab cé" + "é"},
		{"ééé", 5, "éé"},
		{"abc", 2, "ab"},
		{strings.Repeat("\x00", 8) + "a", 2, ""},
	} {
		if got := Clean(tt.in, tt.most); got != tt.want {
			t.Errorf("Clean(%q, %d) = %q, want %q", tt.in, tt.most, got, tt.want)
		}
	}
}

func TestRedactor(t *testing.T) {
	r := Redactor("", "CANARY/+", "", "CANARY%2F%2B")
	if got, want := r.Replace("a CANARY/+ b CANARY%2F%2B"), "a [secret] b [secret]"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	for _, none := range []*strings.Replacer{Redactor(), Redactor("")} {
		if got := none.Replace("text"); got != "text" {
			t.Errorf("without a secret: %q", got)
		}
	}
}

func TestRedact(t *testing.T) {
	r := Redactor("CANARY")
	inner := errors.New("no way to CANARY")
	got := Redact(r, fmt.Errorf("ask: %w", inner))
	if got.Error() != "ask: no way to [secret]" || errors.Is(got, inner) {
		t.Errorf("got %v, which must not lead to the original", got)
	}
	clean := errors.New("down")
	if got := Redact(r, clean); got != clean {
		t.Errorf("got %v, want the error itself", got)
	}
}

func FuzzClean(f *testing.F) {
	f.Add(" a\x1b[31m\u202e\r\nb\xff", 8)
	f.Add("ééé", 5)
	f.Fuzz(func(t *testing.T, s string, most int) {
		most = max(0, min(most, 1<<10))
		got := Clean(s, most)
		if len(got) > most || !utf8.ValidString(got) || strings.ContainsFunc(got, func(r rune) bool { return !unicode.IsPrint(r) }) {
			t.Fatalf("Clean(%q, %d) = %q", s, most, got)
		}
	})
}
