package keyvault

import (
	"errors"
	"fmt"
	"net/http"

	"github.com/mandate-sam/mandate/emulator/internal/bearer"
)

// A refusal is an error as the API tells it.
type refusal struct {
	status            int
	code, inner, text string
	challenge         string // of a 401
	retryAfter        int    // seconds
}

func (e *refusal) Error() string { return e.code + ": " + e.text }

const (
	helpDeleted = "If you recently deleted this %s you may be able to recover it using the correct recovery command. For help resolving this issue, please see https://go.microsoft.com/fwlink/?linkid=2125182"
	helpPolicy  = "For help resolving this issue, please see https://go.microsoft.com/fwlink/?linkid=2125287"
)

func badParameter(format string, args ...any) error {
	return &refusal{status: 400, code: "BadParameter", text: fmt.Sprintf(format, args...)}
}

func notFound(k kind, id string) error {
	return &refusal{status: 404, code: k.noun() + "NotFound", text: fmt.Sprintf("A %s with (name/id) %s was not found in this key vault. "+helpDeleted, k.word(), id, k.word())}
}

func notDeleted(k kind, name string) error {
	return &refusal{status: 404, code: k.noun() + "NotFound", text: fmt.Sprintf("Deleted %s not found: %s", k.noun(), name)}
}

func forbidden(inner, format string, args ...any) error {
	return &refusal{status: 403, code: "Forbidden", inner: inner, text: fmt.Sprintf(format, args...)}
}

func disabled(k kind, verb string) error {
	return forbidden(k.noun()+"Disabled", "Operation %s is not allowed on a disabled %s.", verb, k.word())
}

func conflict(inner, format string, args ...any) error {
	return &refusal{status: 409, code: "Conflict", inner: inner, text: fmt.Sprintf(format, args...)}
}

func throttled(reason string, retryAfter int) error {
	return &refusal{status: 429, code: "Throttled", text: "Request was not processed because too many requests were received. Reason: " + reason, retryAfter: retryAfter}
}

// refuse writes the error. The code is in a header too, which some clients
// read first. What is not a refusal is logged and withheld.
func (v *Vault) refuse(w http.ResponseWriter, err error) {
	e := &refusal{status: 500, code: "InternalServerError", text: "The server encountered an internal error."}
	if !errors.As(err, &e) {
		v.cfg.Log.Error("key vault", "vault", v.cfg.Name, "err", err)
	}
	body := map[string]any{"code": e.code, "message": e.text}
	if e.inner != "" {
		body["innererror"] = map[string]any{"code": e.inner}
	}
	w.Header().Set("x-ms-error-code", e.code)
	if e.challenge != "" {
		w.Header().Set("WWW-Authenticate", e.challenge)
	}
	bearer.RetryAfter(w, e.retryAfter)
	bearer.WriteJSON(w, e.status, map[string]any{"error": body})
}
