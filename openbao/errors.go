package openbao

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/mandate-sam/mandate"
	"github.com/mandate-sam/mandate/internal/upstream"
)

// An Error is why a call failed, and whose move it is. It wraps
// [mandate.ErrUnavailable] if trying again later is right, and
// [mandate.ErrNotFound] if something is not there.
type Error struct {
	Did     string // "wrap a data key"
	At      string // which server
	Path    string // of the API, below /v1/
	Status  int    // 0 if there was no answer
	Message string // the server's own words
	Advice  string
	Cause   error // if there was no answer

	answer []byte
}

// Error is one sentence, or two.
func (e *Error) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s at %s", e.Did, e.At)
	if e.Status != 0 {
		fmt.Fprintf(&b, ": %d for %s", e.Status, e.Path)
	}
	if e.Message != "" {
		b.WriteString(": " + e.Message)
	}
	if e.Cause != nil {
		fmt.Fprintf(&b, ": %v", e.Cause)
	}
	if e.Advice != "" {
		b.WriteString("; " + e.Advice)
	}
	return b.String()
}

// Unwrap lets errors.Is find the sentinel and the cause.
func (e *Error) Unwrap() []error {
	var errs []error
	switch {
	case e.Temporary():
		errs = append(errs, mandate.ErrUnavailable)
	case e.Status == http.StatusNotFound:
		errs = append(errs, mandate.ErrNotFound)
	}
	if e.Cause != nil {
		errs = append(errs, e.Cause)
	}
	return errs
}

// What the API has beside HTTP's own ("Status codes").
const (
	statusRecovering  = 472 // a secondary for disaster recovery
	statusStandby     = 473 // a standby that serves no such request
	statusNotYetThere = 412 // a replica that is behind
)

// Temporary reports whether the same may work later without anybody's help. A
// caller that gave up says nothing about the server.
func (e *Error) Temporary() bool {
	switch e.Status {
	case 0:
		return !errors.Is(e.Cause, context.Canceled)
	case http.StatusTooManyRequests, statusNotYetThere, statusRecovering, statusStandby:
		return true
	}
	return e.Status >= 500
}

// explain reads the server's message and says whose move it is.
func (e *Error) explain(r *strings.Replacer) {
	var answer struct {
		Errors []string `json:"errors"`
	}
	_ = json.Unmarshal(e.answer, &answer)
	e.Message = upstream.Clean(r.Replace(strings.Join(answer.Errors, ", ")), 300)
	text := strings.ToLower(e.Message)
	switch {
	case e.Status == http.StatusServiceUnavailable && strings.Contains(text, "sealed"):
		e.Advice = "whoever has the unseal keys must unseal it"
	case e.Temporary():
		e.Advice = "it is tried again later"
	case e.Status/100 == 3:
		e.Advice = "this node sends its clients elsewhere, which is not followed with a token: the operator configures the address of the active node, or of what is in front of all"
	case refused(e) && strings.Contains(text, "invalid token"), refused(e) && strings.Contains(text, "bad token"):
		e.Advice = "the token has expired or was revoked: the operator puts a new one into the token's file"
	case refused(e):
		e.Advice = "the server's administrator must permit it to the token's policy; or the token has expired"
	case strings.Contains(text, "too old"):
		e.Advice = "the server's administrator lowers the key's min_decryption_version until everything was sealed anew"
	case strings.Contains(text, "key not found"):
		e.Advice = "the server's administrator makes the key, or the operator corrects its name"
	}
}

// refused reports whether the server did not accept the token, or not for this.
func refused(err error) bool {
	e, ok := errors.AsType[*Error](err)
	return ok && (e.Status == http.StatusForbidden || e.Status == http.StatusUnauthorized)
}
