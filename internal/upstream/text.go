package upstream

import (
	"errors"
	"strings"
	"unicode"
)

// Clean makes one line of at most most bytes out of s, in valid UTF-8 and with
// nothing in it that a terminal or a page would act upon. Space of every kind
// becomes a single blank. Of s no more than 4*most bytes are looked at.
//
// Redact before cleaning: no replacer finds half a secret.
func Clean(s string, most int) string {
	s = strings.Map(func(r rune) rune {
		switch {
		case unicode.IsSpace(r):
			return ' '
		case !unicode.IsPrint(r):
			return -1
		}
		return r
	}, strings.ToValidUTF8(s[:min(len(s), 4*most)], ""))
	s = strings.Join(strings.Fields(s), " ")
	return strings.ToValidUTF8(s[:min(len(s), most)], "")
}

// Redactor returns what replaces each of the secrets in a text by "[secret]",
// should an answer or an error repeat one. Empty secrets are left out. Only
// the very bytes are found: a secret that is sent escaped is given twice.
func Redactor(secrets ...string) *strings.Replacer {
	var pairs []string
	for _, s := range secrets {
		if s != "" {
			pairs = append(pairs, s, "[secret]")
		}
	}
	return strings.NewReplacer(pairs...)
}

// Redact returns err, or only its redacted text if that differs: an error that
// wrapped the original would give the secret to whoever unwraps it.
func Redact(r *strings.Replacer, err error) error {
	if text := r.Replace(err.Error()); text != err.Error() {
		return errors.New(text)
	}
	return err
}
