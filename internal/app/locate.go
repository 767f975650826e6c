package app

import (
	"errors"
	"fmt"
	"regexp"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/internal/yamlfile"
)

// A located error knows where in the configuration a fault is, as a path such
// as "grants.partners.contoso.key_vault.vault".
type located struct {
	error
	path string
}

// Error is the error's text; a wrong field is called by its whole path.
func (l *located) Error() string {
	if e, ok := l.error.(*mandate.InvalidError); ok {
		return l.path + ": " + e.Reason
	}
	return l.error.Error()
}

func (l *located) Unwrap() error { return l.error }

// at says that err is about what is at path, or below that if err knows more.
func at(path string, err error) error {
	if err == nil {
		return nil
	}
	if below := pathOf(err); below != "" {
		path += "." + below
	}
	if l, ok := err.(*located); ok {
		err = l.error
	}
	return &located{err, path}
}

// pathOf returns where an error is, as far as it knows.
func pathOf(err error) string {
	if l, ok := errors.AsType[*located](err); ok {
		return l.path
	}
	if e, ok := errors.AsType[*mandate.InvalidError](err); ok && fieldPath.MatchString(e.Field) {
		return e.Field
	}
	return ""
}

var fieldPath = regexp.MustCompile(`^[a-z0-9_]+(\.[a-z0-9_]+)*$`)

// inFile puts the file's name and, as far as it can be found, the line in
// front of an error about a configuration.
func inFile(path string, err error) error {
	if n := yamlfile.Line(path, pathOf(err)); n > 0 {
		return fmt.Errorf("%s:%d: %w", path, n, err)
	}
	return fmt.Errorf("%s: %w", path, err)
}
